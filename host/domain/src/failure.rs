//! The only error that crosses phases of the request path: what failed, whose side it is on, and whether another
//! endpoint may be tried. Status codes and texts for clients live in `proxy::respond`, nowhere else.

use std::time::Duration;

/// On whose side a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The request itself, or the client's connection.
    Client,
    /// This gateway: its limits, its configuration.
    Gateway,
    /// A routing policy.
    Policy,
    /// An engine.
    Engine,
}

/// What failed. Each variant is a decision that someone takes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FailureKind {
    /// The body is not JSON.
    #[error("request body is not valid JSON")]
    BodyNotJson,
    /// The body is JSON but no object.
    #[error("request body is not an object")]
    BodyNotObject,
    /// No `model` in the body.
    #[error("no model in the request body")]
    ModelMissing,
    /// The body has `model` too often.
    #[error("more than {max} times `model` in the request body")]
    ModelRepeated {
        /// The bound.
        max: usize,
    },
    /// Nobody routes this model.
    #[error("model {model:?} is not routed")]
    ModelUnknown {
        /// The name that the client sent.
        model: Box<str>,
    },
    /// The model is routed, but nothing serves it now.
    #[error("model {model:?} has no endpoint now")]
    ModelUnavailable {
        /// The name that the client sent.
        model: Box<str>,
    },
    /// The path is not one of ours.
    #[error("no such path")]
    PathUnknown,
    /// The path exists, the method does not.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The body is larger than the limit.
    #[error("body above {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit in force.
        limit_bytes: u64,
    },
    /// The body carries a `Content-Encoding`.
    #[error("request body is compressed")]
    BodyEncoded,
    /// The client took too long to send its body.
    #[error("client too slow")]
    BodyTimeout,
    /// The client went away, or broke the framing.
    #[error("client went away")]
    ClientGone,
    /// A multipart form could not be read, or lacks a field.
    #[error("bad multipart form: {0}")]
    Multipart(MultipartFault),
    /// An engine id (`?id=`) is missing.
    #[error("no engine id")]
    EngineIdMissing,
    /// No engine has this id.
    #[error("no engine has id {id:?}")]
    EngineIdUnknown {
        /// The id that the client sent.
        id: Box<str>,
    },
    /// The path exists but this version, or this set-up, does not serve it.
    #[error("not implemented: {what}")]
    NotImplemented {
        /// What is missing, for the client.
        what: &'static str,
    },
    /// The path exists, and the operator has not switched it on.
    #[error("forbidden: {what}")]
    Forbidden {
        /// What is off, and how to switch it on, for the client.
        what: &'static str,
    },
    /// A guard is asked for that this version cannot enforce; it fails closed.
    #[error("guarded: {reason}")]
    Guarded {
        /// The reason, for the client.
        reason: Box<str>,
    },
    /// No permit: the queue is full, or the wait was too long.
    #[error("overloaded")]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The process-wide bound on buffered bodies is reached.
    #[error("body memory exhausted")]
    BodyMemory,
    /// A policy turned the request away.
    #[error("refused by policy: {reason}")]
    Refused {
        /// 429 or 503.
        status: u16,
        /// The policy's reason, for the client.
        reason: Box<str>,
        /// When to come back, if the policy said.
        retry_after: Option<Duration>,
    },
    /// A policy with `failureMode: Reject` failed.
    #[error("policy failed and its owner chose to reject")]
    PolicyRejected,
    /// The budget to the first byte is used up.
    #[error("no answer in time")]
    DeadlineExceeded,
    /// This process has run out of file descriptors, or this machine of what connections need.
    #[error("out of file descriptors")]
    Shortage,
    /// No connection to the engine.
    #[error("connect failed")]
    Connect,
    /// The engine closed or broke the connection before the first byte of its answer.
    #[error("connection lost before the answer")]
    LostBeforeHead,
    /// What the engine sent is not HTTP.
    #[error("engine's answer is not HTTP")]
    BadAnswer,
    /// The engine answered with a status that the owner wants retried.
    #[error("engine answered {status}")]
    Status {
        /// The engine's status code.
        status: u16,
    },
    /// The engine broke off, or went silent, in the middle of its answer.
    #[error("answer broke off")]
    LostMidway,
    /// The gateway is shutting down and takes no new request.
    #[error("draining")]
    Draining,
    /// No configuration has been published yet.
    #[error("not ready")]
    NotReady,
}

/// What is wrong with a multipart form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartFault {
    /// The form cannot be parsed.
    #[error("unreadable")]
    Unreadable,
    /// There is no `file`.
    #[error("no file")]
    FileMissing,
    /// There is no `model`.
    #[error("no model")]
    ModelMissing,
}

/// A failure of one request, or of one attempt of it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind}")]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self { kind }
    }
}

impl Failure {
    /// On whose side it is.
    pub const fn side(&self) -> Side {
        use FailureKind as K;
        match self.kind {
            K::BodyNotJson
            | K::BodyNotObject
            | K::ModelMissing
            | K::ModelRepeated { .. }
            | K::ModelUnknown { .. }
            | K::PathUnknown
            | K::MethodNotAllowed
            | K::BodyTooLarge { .. }
            | K::BodyEncoded
            | K::BodyTimeout
            | K::ClientGone
            | K::Multipart(_)
            | K::EngineIdMissing
            | K::EngineIdUnknown { .. } => Side::Client,
            K::ModelUnavailable { .. }
            | K::NotImplemented { .. }
            | K::Forbidden { .. }
            | K::Guarded { .. }
            | K::Overloaded { .. }
            | K::BodyMemory
            | K::Shortage
            | K::Draining
            | K::NotReady => Side::Gateway,
            K::Refused { .. } | K::PolicyRejected => Side::Policy,
            K::DeadlineExceeded
            | K::Connect
            | K::LostBeforeHead
            | K::BadAnswer
            | K::Status { .. }
            | K::LostMidway => Side::Engine,
        }
    }

    /// Whether another endpoint may be tried: nothing of the answer has reached the client.
    pub const fn may_retry(&self) -> bool {
        use FailureKind as K;
        matches!(self.kind, K::Connect | K::LostBeforeHead | K::BadAnswer | K::Status { .. })
    }

    /// Stable word for metrics labels and log fields (`error_type`).
    pub const fn label(&self) -> &'static str {
        use FailureKind as K;
        match self.kind {
            K::BodyNotJson => "body_not_json",
            K::BodyNotObject => "body_not_object",
            K::ModelMissing => "model_missing",
            K::ModelRepeated { .. } => "model_repeated",
            K::ModelUnknown { .. } => "model_unknown",
            K::ModelUnavailable { .. } => "model_unavailable",
            K::PathUnknown => "path_unknown",
            K::MethodNotAllowed => "method_not_allowed",
            K::BodyTooLarge { .. } => "body_too_large",
            K::BodyEncoded => "body_encoded",
            K::BodyTimeout => "body_timeout",
            K::ClientGone => "client_gone",
            K::Multipart(_) => "multipart",
            K::EngineIdMissing => "engine_id_missing",
            K::EngineIdUnknown { .. } => "engine_id_unknown",
            K::NotImplemented { .. } => "not_implemented",
            K::Forbidden { .. } => "forbidden",
            K::Guarded { .. } => "guarded",
            K::Overloaded { .. } => "overloaded",
            K::BodyMemory => "body_memory",
            K::Shortage => "shortage",
            K::Refused { .. } => "refused",
            K::PolicyRejected => "policy_rejected",
            K::DeadlineExceeded => "deadline_exceeded",
            K::Connect => "connect",
            K::LostBeforeHead => "lost_before_head",
            K::BadAnswer => "bad_answer",
            K::Status { .. } => "status",
            K::LostMidway => "lost_midway",
            K::Draining => "draining",
            K::NotReady => "not_ready",
        }
    }
}

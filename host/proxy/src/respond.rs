//! From a failure to the answer that the client sees: the only place that knows status codes of failures.
//!
//! Bodies are those of the two routers that this gateway replaces, byte for byte, where they had one: `{"error":"…"}` of
//! the production stack on the JSON dialect, plain text of the RKLLama router on the text dialect. Where the old routers
//! answered a bare 500, the code here says what happened: 503 nobody could be reached (nothing was processed, a retry is
//! safe), 502 an engine was reached and did not answer properly, 504 the time was up.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use domain::failure::{Failure, FailureKind, MultipartFault};
use domain::route::ErrorFormat;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

mod text;

#[cfg(test)]
mod tests;

/// On every answer: the request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What `FailureKind::Forbidden` says where engine control is off.
pub const ENGINE_CONTROL_OFF: &str =
    "Engine control is off. Start the gateway with --engine-control to allow it.";

/// What `FailureKind::Forbidden` says where a request about engines must name its gateway.
pub const GATEWAY_UNNAMED: &str = "Gateways of several namespaces are served here. \
    Name one: put /gateways/<namespace>/<name> before the path, or send its host name.";

/// What `FailureKind::Forbidden` says to a web page that may not ask.
pub const ORIGIN_REFUSED: &str =
    "Pages of this origin may not use the gateway. Add it to spec.cors.allowOrigins to allow it.";

/// A client's text is repeated in an answer up to this many bytes.
pub const ECHO_BYTES_MAX: usize = 1_024;

/// Language of error bodies and probes; follows the listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `--listen`: JSON, as the production stack's router.
    #[default]
    Json,
    /// `--port`: text, as the RKLLama router.
    Text,
}

/// What the operation's body is; forms have a few texts of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// JSON, or none.
    #[default]
    Json,
    /// A multipart form.
    Form,
}

/// What of a request shapes the answer to its failure.
#[derive(Clone, Copy, Debug)]
pub struct FailureContext<'a> {
    /// Shape of JSON errors; the gateway's setting, or the default where no gateway was found.
    pub format: ErrorFormat,
    /// Language of the listener.
    pub dialect: Dialect,
    /// What the operation's body is.
    pub body: BodyKind,
    /// Goes back as `X-Request-Id`.
    pub request_id: &'a str,
    /// For `MethodNotAllowed`: the methods that the path knows, [`crate::dialect::allowed`].
    pub allow: Option<&'a str>,
}

impl<'a> FailureContext<'a> {
    /// JSON dialect, default format, for this request.
    pub fn new(request_id: &'a str) -> Self {
        Self {
            format: ErrorFormat::default(),
            dialect: Dialect::default(),
            body: BodyKind::default(),
            request_id,
            allow: None,
        }
    }
}

/// The answer to a failure.
pub fn failure(failure: &Failure, context: &FailureContext<'_>) -> Response<Bytes> {
    let status = status(&failure.kind, context.dialect);
    let (kind, body) = match (context.dialect, context.format) {
        (Dialect::Text, _) => ("text/plain; charset=utf-8", text::plain(&failure.kind)),
        (Dialect::Json, ErrorFormat::Compat) => {
            ("application/json", text::compat(&failure.kind, context.body))
        }
        (Dialect::Json, ErrorFormat::OpenAi) => {
            ("application/json", text::openai(failure, status, context.body))
        }
    };
    let mut answer = respond(status, kind, body, context.request_id);
    let headers = answer.headers_mut();
    if let Some(after) = retry_after(&failure.kind) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after)));
    }
    if failure.kind == FailureKind::MethodNotAllowed
        && let Some(allow) = context.allow.filter(|allow| !allow.is_empty())
        && let Ok(allow) = HeaderValue::from_str(allow)
    {
        headers.insert(ALLOW, allow);
    }
    answer
}

/// The answer to a head that cannot be served, whatever was asked for: 400, with what is wrong with it.
pub(crate) fn bad_head(fault: &str, context: &FailureContext<'_>) -> Response<Bytes> {
    let (kind, body) = match (context.dialect, context.format) {
        (Dialect::Text, _) => ("text/plain; charset=utf-8", format!("{fault}\n").into_bytes()),
        (Dialect::Json, ErrorFormat::Compat) => ("application/json", text::compat_error(fault)),
        (Dialect::Json, ErrorFormat::OpenAi) => ("application/json", text::openai_bad_head(fault)),
    };
    respond(StatusCode::BAD_REQUEST, kind, body, context.request_id)
}

/// An answer of our own: status, content type, body and the request's id.
pub(crate) fn respond(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
    request_id: &str,
) -> Response<Bytes> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Ids are checked before they are taken over; a caller's slip must not cost the answer.
    if let Ok(id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(X_REQUEST_ID, id);
    }
    answer
}

/// The status code of a failure.
pub fn status(kind: &FailureKind, dialect: Dialect) -> StatusCode {
    use FailureKind as K;
    match kind {
        // The RKLLama router knows one answer for every model that is not there.
        K::ModelUnknown { .. } if dialect == Dialect::Text => StatusCode::SERVICE_UNAVAILABLE,
        K::BodyNotJson
        | K::BodyNotObject
        | K::ModelMissing
        | K::ModelRepeated { .. }
        | K::ClientGone
        | K::Multipart(_)
        | K::EngineIdMissing
        | K::EngineIdUnknown { .. } => StatusCode::BAD_REQUEST,
        K::Forbidden { .. } => StatusCode::FORBIDDEN,
        K::ModelUnknown { .. } | K::PathUnknown => StatusCode::NOT_FOUND,
        K::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        K::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        K::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        K::BodyEncoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        K::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        K::Refused { status: 429, .. } => StatusCode::TOO_MANY_REQUESTS,
        K::NotImplemented { .. } => StatusCode::NOT_IMPLEMENTED,
        K::LostBeforeHead | K::BadAnswer | K::Status { .. } | K::LostMidway => StatusCode::BAD_GATEWAY,
        K::ModelUnavailable { .. }
        | K::Guarded { .. }
        | K::BodyMemory
        | K::Shortage
        | K::Refused { .. }
        | K::PolicyRejected
        | K::Connect
        | K::Draining
        | K::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        K::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// When to come back, where that is known or waiting is likely to help.
fn retry_after(kind: &FailureKind) -> Option<Duration> {
    use FailureKind as K;
    match kind {
        K::Overloaded { retry_after } => Some(*retry_after),
        K::Refused { retry_after, .. } => *retry_after,
        K::BodyMemory | K::Shortage | K::Draining | K::NotReady => Some(Duration::from_secs(1)),
        _ => None,
    }
}

/// Whole seconds, rounded up, at least 1: a client that comes back at once helps nobody.
fn seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

/// As much of a client's text as an answer can repeat, and the next character, which shows that there was more.
pub(crate) fn echoed(text: &str) -> Box<str> {
    text[..text.ceil_char_boundary((ECHO_BYTES_MAX + 1).min(text.len()))].into()
}

/// A client's text, cut at [`ECHO_BYTES_MAX`].
fn echo(text: &str) -> Cow<'_, str> {
    if text.len() <= ECHO_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(ECHO_BYTES_MAX)]))
}

/// The public message of a failure, without quotes or braces around it.
fn message(kind: &FailureKind, body: BodyKind) -> Cow<'static, str> {
    use FailureKind as K;
    Cow::Borrowed(match kind {
        K::BodyNotJson => "Invalid request: request body must be valid JSON.",
        K::BodyNotObject => "Invalid request: request body must be a JSON object.",
        K::ModelMissing => "Invalid request: missing 'model' in request body.",
        K::Multipart(MultipartFault::Unreadable) => "Invalid multipart/form-data request",
        K::Multipart(MultipartFault::FileMissing) => "Invalid request: missing 'file' in form data.",
        K::Multipart(MultipartFault::ModelMissing) => "Invalid request: missing 'model' in form data.",
        K::EngineIdMissing => "Invalid request: missing target Engine Id.",
        K::PathUnknown => "Not Found",
        K::MethodNotAllowed => "Method Not Allowed",
        K::BodyEncoded => "Invalid request: a compressed request body (Content-Encoding) is not accepted.",
        K::BodyTimeout => "The request body did not arrive in time.",
        K::ClientGone => "The request broke off.",
        K::Overloaded { .. } => "The gateway is at its limit of requests. Please try again later.",
        K::BodyMemory => "The gateway is out of memory for request bodies. Please try again later.",
        K::Shortage => "The gateway has no file descriptor left for a connection. Please try again later.",
        K::PolicyRejected => "A routing policy failed, and is set to reject requests then.",
        K::DeadlineExceeded => "No engine answered in time.",
        K::Connect if body == BodyKind::Form => "Failed to connect to backend: no engine could be reached.",
        K::Connect => "No engine could be reached. Please try again later.",
        K::LostBeforeHead => "The engine closed the connection before it answered.",
        K::BadAnswer => "The engine's answer could not be understood.",
        K::LostMidway => "The engine's answer broke off.",
        K::Draining => "The gateway is shutting down. Please try again.",
        K::NotReady => "The gateway has no configuration yet. Please try again later.",
        K::Forbidden { what } => what,
        _ => return Cow::Owned(message_with(kind, body)),
    })
}

/// Messages that carry a value.
fn message_with(kind: &FailureKind, body: BodyKind) -> String {
    use FailureKind as K;
    match kind {
        K::ModelUnknown { model } if body == BodyKind::Form => {
            format!("No backend for model {}", echo(model))
        }
        K::ModelUnknown { model } => {
            format!("Model '{}' not found. Available models can be listed at /v1/models.", echo(model))
        }
        K::ModelUnavailable { model } => {
            format!("Model '{}' is temporarily unavailable. Please try again later.", echo(model))
        }
        K::EngineIdUnknown { id } => format!("Engine with Id {} not found.", echo(id)),
        K::BodyTooLarge { limit_bytes } => {
            format!("Invalid request: request body is larger than {limit_bytes} bytes.")
        }
        K::ModelRepeated { max } if body == BodyKind::Form => {
            format!("Invalid request: more than {max} fields 'model' in form data.")
        }
        K::ModelRepeated { max } => {
            format!("Invalid request: more than {max} keys 'model' in request body.")
        }
        K::NotImplemented { what } => format!("Not implemented: {what}."),
        K::Guarded { reason } => {
            format!("Model is guarded by a filter that cannot be enforced: {}", echo(reason))
        }
        K::Refused { reason, .. } if reason.is_empty() => "Refused by a routing policy.".to_owned(),
        K::Refused { reason, .. } => echo(reason).into_owned(),
        K::Status { status } => format!("The engine answered with status {status}."),
        other => other.to_string(),
    }
}

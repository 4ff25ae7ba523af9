//! How an accepted request ended. Exactly one per request, also when the client left.

use std::time::Duration;

use crate::failure::Failure;

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The engine's answer went to the client whole.
    Answered {
        /// The engine's status.
        status: u16,
    },
    /// This gateway answered itself (a list, a probe).
    Local {
        /// The status sent.
        status: u16,
    },
    /// Turned away, or failed, with this status.
    Failed {
        /// What failed.
        failure: Failure,
        /// The status sent; 0 if the answer had begun or the client had gone.
        status: u16,
    },
    /// The client left before the end.
    ClientGone,
}

/// Token counts that the engine reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Of which cached.
    pub cached_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
}

/// What one request did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Attempts at engines, 0 if none was made.
    pub attempts: u32,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// Body chunks to the client.
    pub chunks: u64,
    /// From the head of the request to the end.
    pub duration: Duration,
    /// From the end of the request's body to the first byte of the answer's body.
    pub first_byte: Option<Duration>,
    /// What deciding took.
    pub decision: Duration,
    /// What the engine reported.
    pub usage: Option<Usage>,
}

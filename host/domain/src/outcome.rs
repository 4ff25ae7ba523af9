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
    /// Of which cached; `None` where the engine does not say.
    pub cached_tokens: Option<u64>,
    /// Generated tokens.
    pub completion_tokens: u64,
}

/// Tokens that an engine computed for a request: the prompt's that it did not have in its cache, and those it generated.
///
/// What the engine reports counts; where it does not say, `uncached_estimate` for the prompt, nothing if it answered with
/// an error `status`, and the `events` of its stream for what it generated.
pub fn computed_tokens(uncached_estimate: u32, usage: Option<Usage>, (status, events): (u16, u64)) -> f32 {
    let reported = usage.and_then(|usage| Some(usage.prompt_tokens.saturating_sub(usage.cached_tokens?)));
    let prompt = match reported {
        Some(tokens) => tokens as f32,
        None if status >= 400 => 0.0,
        None => uncached_estimate as f32,
    };
    let generated = usage.map(|usage| usage.completion_tokens).filter(|tokens| *tokens > 0).unwrap_or(events);
    prompt + generated as f32
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
    /// From the end of the request's body to the first content of the answer: in a stream, the first event that carries
    /// some; in any other answer, the first byte of its body. `None`: none came.
    pub first_byte: Option<Duration>,
    /// What deciding took.
    pub decision: Duration,
    /// What the engine reported.
    pub usage: Option<Usage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_tokens_are_as_reported_or_else_as_estimated() {
        let usage = |prompt_tokens, cached_tokens, completion_tokens| {
            Some(Usage { prompt_tokens, cached_tokens, completion_tokens })
        };
        let table = [
            (usage(900, Some(600), 50), (200, 7), 350.0),
            (usage(900, Some(1_000), 50), (200, 7), 50.0),
            (usage(900, None, 50), (200, 7), 450.0),
            (usage(900, None, 0), (200, 7), 407.0),
            (None, (200, 7), 407.0),
            (None, (503, 0), 0.0),
        ];
        for (usage, ended, expected) in table {
            assert_eq!(computed_tokens(400, usage, ended), expected, "{usage:?} {ended:?}");
        }
    }
}

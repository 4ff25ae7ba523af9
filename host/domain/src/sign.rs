//! What the end of an attempt says of its engine.
//!
//! A status alone does not tell illness from a bad request: 404 may be the client's mistake, and so may 500. So a failure
//! counts at once where waiting would cost requests, and is taken back if another engine gives the same answer to the same
//! request ([`crate::breaker::Breaker::acquitted`]).

use crate::breaker::{Cause, Failed};
use crate::failure::FailureKind;

/// A connection that fails after this long, milliseconds, was not refused: nothing answered.
const SLOW_CONNECT_MS: u64 = 500;

/// What an attempt's end says of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is well.
    Good,
    /// Nothing: the request is at fault, or its client left.
    Nothing,
    /// It failed, or is overloaded: counts at once.
    Bad(Failed),
    /// Counts only where another engine does better: the request may be at fault.
    Odd(Failed),
}

impl Sign {
    /// Of a whole answer with this status, and of its `Retry-After` in milliseconds (0: none).
    pub fn of_status(status: u16, retry_after_ms: u32) -> Self {
        let failed = |cause| Failed { cause, status, retry_after_ms };
        match status {
            429 | 503 => Self::Bad(failed(Cause::Overloaded)),
            401 | 403 => Self::Odd(failed(Cause::Denied)),
            404 | 405 | 501 => Self::Odd(failed(Cause::Missing)),
            500.. => Self::Bad(failed(Cause::Error)),
            400.. => Self::Nothing,
            _ => Self::Good,
        }
    }

    /// Of an attempt that failed without a whole answer, after so many milliseconds.
    pub fn of_failure(kind: &FailureKind, took_ms: u64) -> Self {
        let cause = match kind {
            FailureKind::Connect if took_ms < SLOW_CONNECT_MS => Cause::Refused,
            FailureKind::Connect => Cause::Unreachable,
            FailureKind::LostBeforeHead => Cause::Lost,
            FailureKind::BadAnswer => Cause::Garbage,
            FailureKind::LostMidway => Cause::Cut,
            FailureKind::DeadlineExceeded => Cause::Timeout,
            _ => return Self::Nothing,
        };
        Self::Bad(Failed::of(cause))
    }

    /// The failure, if it is one.
    pub fn failed(self) -> Option<Failed> {
        match self {
            Self::Bad(failed) | Self::Odd(failed) => Some(failed),
            Self::Good | Self::Nothing => None,
        }
    }

    /// Whether two engines say the same of one request: then it is the request's fault.
    ///
    /// A broken connection is never the same as another: an engine that dies may die of the request, but a client must not
    /// be able to show that by one that waits.
    pub fn agrees(self, other: Self) -> bool {
        match (self.failed(), other.failed()) {
            (Some(one), Some(other)) => {
                one.status != 0 && one.cause == other.cause && one.status == other.status
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_says_what_it_should() {
        let table = [
            (200, None),
            (307, None),
            (400, None),
            (401, Some(Cause::Denied)),
            (403, Some(Cause::Denied)),
            (404, Some(Cause::Missing)),
            (405, Some(Cause::Missing)),
            (413, None),
            (422, None),
            (429, Some(Cause::Overloaded)),
            (500, Some(Cause::Error)),
            (501, Some(Cause::Missing)),
            (502, Some(Cause::Error)),
            (503, Some(Cause::Overloaded)),
            (504, Some(Cause::Error)),
            (599, Some(Cause::Error)),
        ];
        for (status, cause) in table {
            let sign = Sign::of_status(status, 0);
            assert_eq!(sign.failed().map(|failed| failed.cause), cause, "{status}");
            assert_eq!(sign == Sign::Good, status < 400, "{status}");
        }
    }

    #[test]
    fn two_engines_agree_only_on_the_same_status() {
        let of = |status| Sign::of_status(status, 0);
        assert!(of(500).agrees(of(500)));
        assert!(of(404).agrees(of(404)));
        assert!(!of(500).agrees(of(502)));
        assert!(!of(500).agrees(of(200)));
        assert!(!of(400).agrees(of(400)), "neither is a failure");
        let cut = Sign::of_failure(&FailureKind::LostMidway, 5);
        assert!(!cut.agrees(cut));
    }
}

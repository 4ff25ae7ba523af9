//! Short ways to write an answer.

use crate::{Choice, Decision, Refusal};

impl Decision {
    /// Exactly this endpoint; the gateway finds the fallback.
    pub fn endpoint(endpoint: usize) -> Self {
        Choice::Endpoint(endpoint as u32).into()
    }

    /// This endpoint, or no opinion if there is none.
    pub fn endpoint_or_abstain(endpoint: Option<usize>) -> Self {
        endpoint.map_or_else(Self::abstain, Self::endpoint)
    }

    /// Best first, at most 8 are used; the rest are tried in this order if the first fails before it answers.
    pub fn ordered(endpoints: impl IntoIterator<Item = usize>) -> Self {
        Choice::Ordered(endpoints.into_iter().map(|endpoint| endpoint as u32).collect()).into()
    }

    /// A score for every endpoint, 0 to 1, NaN to exclude. Replaces the scores handed in, so fold them in.
    pub fn scores(scores: Vec<f32>) -> Self {
        Choice::Scores(scores).into()
    }

    /// No opinion: the next policy decides.
    pub fn abstain() -> Self {
        Choice::Abstain.into()
    }

    /// Turns the request away with 429 (slow down) or 503 (nobody can serve it).
    pub fn refuse(status: u16, reason: impl Into<String>) -> Self {
        Choice::Refuse(Refusal { status, reason: reason.into(), retry_after_ms: None }).into()
    }
}

impl From<Choice> for Decision {
    fn from(choice: Choice) -> Self {
        Self { choice, headers: None }
    }
}

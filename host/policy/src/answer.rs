//! What the host checks on every answer before anybody acts on it.

use std::time::Duration;

use domain::endpoint::Roles;
use domain::header::is_credential;
use domain::policy::{ORDERED_MAX, REASON_BYTES_MAX, Refusal};
use domain::pool::Pool;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::bindings::wicketgate::routing::types;

/// Most headers that one answer may add.
pub(crate) const ANSWER_HEADERS_MAX: usize = 16;

/// What was asked, as far as it bounds the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) pool: &'a Pool,
    /// Endpoints that must not be chosen, ascending.
    pub(crate) excluded: &'a [u32],
    /// Scores handed in; NaN: not to be chosen.
    pub(crate) scores: Option<&'a [f32]>,
}

/// An answer within the contract.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) choice: Choice,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// The choice of one policy, checked.
#[derive(Debug)]
pub(crate) enum Choice {
    Endpoint(u32),
    /// Distinct, 1 to [`ORDERED_MAX`].
    Ordered(SmallVec<[u32; ORDERED_MAX]>),
    /// One per endpoint; what was NaN is NaN; at least one that may be chosen has a number.
    Scores(Vec<f32>),
    /// Prefill, decode.
    PrefillDecode(u32, u32),
    /// Draft, target.
    DraftTarget(u32, u32),
    Refuse(Refusal),
    Abstain,
}

/// What is wrong with an answer.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("endpoint {0} is not in the pool")]
    OutOfRange(u32),
    #[error("endpoint {0} is excluded")]
    Excluded(u32),
    #[error("endpoint {0} was ruled out by an earlier policy")]
    RuledOut(u32),
    #[error("endpoint {0} does not have the role `{1}`")]
    Role(u32, &'static str),
    #[error("the two endpoints of a pair must differ")]
    Pair,
    #[error("the order is empty")]
    EmptyOrder,
    #[error("{given} scores for {endpoints} endpoints")]
    ScoresLength { given: usize, endpoints: usize },
    #[error("score {score} of endpoint {endpoint} is not between 0 and 1")]
    Score { endpoint: usize, score: f32 },
    #[error("no endpoint that may be chosen has a score")]
    NoScore,
    #[error("a refusal's status is 429 or 503, not {0}")]
    Status(u16),
    #[error("the header {0:?} may not be added")]
    HeaderName(String),
    #[error("the value of header `{0}` is not a header value")]
    HeaderValue(String),
    #[error("more than {ANSWER_HEADERS_MAX} headers")]
    Headers,
}

/// Checks an answer.
pub(crate) fn check(decision: types::Decision, question: Question<'_>) -> Result<Answer, AnswerError> {
    let choice = match decision.choice {
        types::Choice::Endpoint(index) => Choice::Endpoint(question.serving(index)?),
        types::Choice::Ordered(list) => Choice::Ordered(ordered(&list, question)?),
        types::Choice::Scores(scores) => Choice::Scores(self::scores(scores, question)?),
        types::Choice::Disaggregated(types::PrefillDecode { prefill, decode }) => {
            question.with_role(prefill, "prefill", |roles| roles.prefill)?;
            question.with_role(decode, "decode", |roles| roles.decode)?;
            if prefill == decode {
                return Err(AnswerError::Pair);
            }
            Choice::PrefillDecode(prefill, decode)
        }
        types::Choice::Speculative(types::DraftTarget { draft, target }) => {
            question.with_role(draft, "draft", |roles| roles.draft)?;
            question.serving(target)?;
            if draft == target {
                return Err(AnswerError::Pair);
            }
            Choice::DraftTarget(draft, target)
        }
        types::Choice::Refuse(refusal) => Choice::Refuse(self::refusal(&refusal)?),
        types::Choice::Abstain => Choice::Abstain,
    };
    Ok(Answer { choice, headers: headers(decision.headers.unwrap_or_default())? })
}

impl Question<'_> {
    /// The index, if it may answer whole requests.
    fn serving(&self, index: u32) -> Result<u32, AnswerError> {
        self.with_role(index, "serve", |roles| roles.serve)
    }

    fn with_role(&self, index: u32, role: &'static str, has: fn(Roles) -> bool) -> Result<u32, AnswerError> {
        let endpoint = self.pool.endpoint(index).ok_or(AnswerError::OutOfRange(index))?;
        if self.excluded.binary_search(&index).is_ok() {
            return Err(AnswerError::Excluded(index));
        }
        if self.scores.and_then(|scores| scores.get(index as usize)).is_some_and(|score| score.is_nan()) {
            return Err(AnswerError::RuledOut(index));
        }
        if !has(endpoint.spec.roles) {
            return Err(AnswerError::Role(index, role));
        }
        Ok(index)
    }
}

fn ordered(list: &[u32], question: Question<'_>) -> Result<SmallVec<[u32; ORDERED_MAX]>, AnswerError> {
    let mut kept: SmallVec<[u32; ORDERED_MAX]> = SmallVec::new();
    for index in list {
        question.serving(*index)?;
        if kept.len() < ORDERED_MAX && !kept.contains(index) {
            kept.push(*index);
        }
    }
    if kept.is_empty() { Err(AnswerError::EmptyOrder) } else { Ok(kept) }
}

fn scores(mut scores: Vec<f32>, question: Question<'_>) -> Result<Vec<f32>, AnswerError> {
    let endpoints = question.pool.endpoints.len();
    if scores.len() != endpoints {
        return Err(AnswerError::ScoresLength { given: scores.len(), endpoints });
    }
    if let Some(before) = question.scores {
        for (score, before) in scores.iter_mut().zip(before) {
            *score = if before.is_nan() { f32::NAN } else { *score };
        }
    }
    let mut numbers = 0_u32;
    let mut bad = false;
    // Without branches, so that it runs several endpoints at a time.
    for score in &scores {
        let number = !score.is_nan();
        numbers += u32::from(number);
        bad |= number & !((*score >= 0.0) & (*score <= 1.0));
    }
    if bad {
        let wrong = |(_, score): &(usize, &f32)| !score.is_nan() && !(0.0..=1.0).contains(*score);
        if let Some((endpoint, score)) = scores.iter().enumerate().find(wrong) {
            return Err(AnswerError::Score { endpoint, score: *score });
        }
    }
    let is_number = |index: &&u32| scores.get(**index as usize).is_some_and(|score| !score.is_nan());
    if numbers as usize == question.excluded.iter().filter(is_number).count() {
        return Err(AnswerError::NoScore);
    }
    Ok(scores)
}

fn refusal(refusal: &types::Refusal) -> Result<Refusal, AnswerError> {
    if !matches!(refusal.status, 429 | 503) {
        return Err(AnswerError::Status(refusal.status));
    }
    let cut = &refusal.reason[..refusal.reason.floor_char_boundary(REASON_BYTES_MAX)];
    Ok(Refusal {
        status: refusal.status,
        reason: cut.chars().filter(|c| !c.is_control()).collect::<String>().into(),
        retry_after: refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
    })
}

fn headers(headers: Vec<(String, String)>) -> Result<Vec<(HeaderName, HeaderValue)>, AnswerError> {
    if headers.len() > ANSWER_HEADERS_MAX {
        return Err(AnswerError::Headers);
    }
    headers
        .into_iter()
        .map(|(name, value)| {
            let header = HeaderName::try_from(&name).ok().filter(is_addable);
            let header = header.ok_or(AnswerError::HeaderName(name))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| AnswerError::HeaderValue(header.as_str().to_owned()))?;
            Ok((header, value))
        })
        .collect()
}

/// Whether a policy may add this header to the upstream request: an extension header that the gateway does not set itself.
/// So never credentials, cookies, framing or anything hop by hop.
fn is_addable(header: &HeaderName) -> bool {
    let name = header.as_str();
    let ours = ["x-request-id", "x-real-ip"].contains(&name)
        || name.starts_with("x-wicketgate-")
        || name.starts_with("x-forwarded-");
    name.starts_with("x-") && !ours && !is_credential(header)
}

#[cfg(test)]
mod tests;

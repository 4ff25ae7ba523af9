//! The last decisions, and why they fell as they did: one bounded ring per worker, read by the admin listener.
//!
//! Writing takes the worker's own lock, which only a reader ever contends, for the length of a copy of some 200 bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use domain::policy::{EntryTrace, Step};
use serde::Serialize;
use smallvec::SmallVec;

use crate::record::Decision;
use crate::record::decisions::{EntryLabels, PoolLabels};

mod seen;

pub(crate) use seen::{Seen, Tried, Trying, Why};

#[cfg(test)]
mod tests;

/// Decisions kept per worker.
pub const DECISIONS_MAX: usize = 1_024;
/// Attempts kept of one decision; further ones are not shown.
pub const ATTEMPTS_MAX: usize = 16;
/// Endpoints that could not be chosen, kept of one decision.
pub const AVOIDED_MAX: usize = 8;
/// Longest request id that is kept whole; longer ones are cut.
pub const ID_BYTES_MAX: usize = 128;

/// The decision logs of all workers.
#[derive(Debug, Default)]
pub struct Log {
    rings: Mutex<Vec<Arc<Mutex<Ring>>>>,
}

/// The end that one worker writes to.
#[derive(Debug)]
pub(crate) struct Pen(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    entries: Vec<Record>,
    next: usize,
    /// Decisions written, ever.
    written: u64,
}

/// Where a decision is kept, for what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at: usize,
    /// Number of the decision: the place may be another one's by now.
    number: u64,
}

/// A decision as it is kept: numbers, and names by reference.
#[derive(Clone, Debug)]
struct Record {
    at_unix_ms: u64,
    request_id: SmallVec<[u8; 40]>,
    labels: Arc<PoolLabels>,
    generation: u64,
    attempt: u32,
    candidates: u32,
    prompt_tokens: u32,
    cached_tokens: u32,
    endpoint: Option<u32>,
    took_ns: u64,
    traces: SmallVec<[EntryTrace; 4]>,
    seen: Seen,
    attempts: SmallVec<[Tried; 2]>,
    number: u64,
}

/// One decision, for people and pages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// When, Unix milliseconds.
    pub at_unix_ms: u64,
    /// The request's id.
    pub request_id: String,
    /// `namespace/name` of the gateway.
    pub gateway: String,
    /// The model.
    pub model: String,
    /// Generation of the snapshot it was decided by.
    pub generation: u64,
    /// 0 the first time.
    pub attempt: u32,
    /// Endpoints in the pool.
    pub pool: usize,
    /// Endpoints that could be chosen.
    pub candidates: u32,
    /// Estimated prompt length, tokens.
    pub prompt_tokens: u32,
    /// Tokens of the prompt believed cached at the endpoint.
    pub cached_tokens: u32,
    /// URL of the endpoint that was decided for; absent where the request was turned away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Box<str>>,
    /// Attempts at engines so far, in order; the last one is under way while the request is not at its end.
    pub attempts: Vec<AttemptExplanation>,
    /// Endpoints that could not be chosen, and why; at most [`AVOIDED_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoided: Vec<AvoidedExplanation>,
    /// Numbers that the policies saw, of the endpoint decided for and some others; absent where no policy asked for any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<NumbersExplanation>,
    /// What deciding took, microseconds; absent where it was not timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<f64>,
    /// The entries of the chain, in order.
    pub entries: Vec<EntryExplanation>,
}

/// One attempt at an engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptExplanation {
    /// URL of the endpoint.
    pub endpoint: Box<str>,
    /// Why it was made: `decided`, `probe`, `reconnect` (no connection was made before), `repair` or `retry`. Only a retry
    /// takes from the budget.
    pub why: &'static str,
    /// `answered`, `client_gone`, or what failed, as `error_type` in metrics.
    pub result: &'static str,
    /// The engine's status; absent if it sent none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// From sending to the end, milliseconds.
    pub took_ms: f64,
    /// From sending to the first content of the answer, milliseconds; absent if none went to the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<f64>,
}

/// An endpoint that could not be chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AvoidedExplanation {
    /// Its URL.
    pub endpoint: Box<str>,
    /// `asleep`, `unreachable`, the failure's kind, or `failed_this` (it failed this prompt or session of late).
    pub reason: &'static str,
}

/// Numbers of one endpoint as the policies saw them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumbersExplanation {
    /// Its URL.
    pub endpoint: Box<str>,
    /// By signal; null is unknown.
    pub signals: BTreeMap<&'static str, Option<f32>>,
}

/// What one entry of the chain did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntryExplanation {
    /// The policy.
    pub policy: String,
    /// First 12 characters of the component's digest; absent where none was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `chose`, `scored`, `abstained`, `refused`, `no_session`, `unavailable`, `fault`, `shadow`, or `not_asked`.
    pub step: &'static str,
    /// The endpoint it named, or scored best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Box<str>>,
    /// The kind of fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// Signals that it is shown, of [`Explanation::numbers`].
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub signals: Box<[&'static str]>,
    /// Fuel used.
    pub fuel: u64,
    /// Time of the call, microseconds; absent where it was not timed: one decision in sixteen is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<f64>,
}

impl Log {
    /// The end for one more worker.
    pub(crate) fn pen(&self) -> Pen {
        let ring = Arc::new(Mutex::new(Ring::default()));
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&ring));
        Pen(ring)
    }

    /// The decisions about requests of this id, oldest first: one per request. Empty when it is unknown, or too long ago.
    pub fn find(&self, request_id: &str) -> Vec<Explanation> {
        let id = cut(request_id);
        self.collect(|record| record.request_id[..] == *id)
    }

    /// The last `count` decisions, oldest first.
    pub fn last(&self, count: usize) -> Vec<Explanation> {
        let mut all = self.collect(|_| true);
        all.drain(..all.len().saturating_sub(count));
        all
    }

    fn collect(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Explanation> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found: Vec<Record> = Vec::new();
        for ring in rings {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            // From the oldest on, so that equal times stay in order.
            let (newer, older) = ring.entries.split_at(ring.next.min(ring.entries.len()));
            found.extend(older.iter().chain(newer).filter(|record| wanted(record)).cloned());
        }
        found.sort_by_key(|record| record.at_unix_ms);
        found.iter().map(Record::explain).collect()
    }
}

/// Zero nanoseconds: not timed.
fn micros(nanoseconds: u64) -> Option<f64> {
    (nanoseconds > 0).then(|| nanoseconds as f64 / 1e3)
}

fn cut(request_id: &str) -> &[u8] {
    &request_id.as_bytes()[..request_id.floor_char_boundary(ID_BYTES_MAX)]
}

impl Pen {
    /// Keeps a decision; the oldest one goes.
    pub(crate) fn write(&self, decision: &Decision<'_>, labels: &Arc<PoolLabels>) -> Mark {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            at_unix_ms: now.as_millis() as u64,
            request_id: SmallVec::from_slice(cut(decision.request_id)),
            labels: Arc::clone(labels),
            generation: decision.generation.0,
            attempt: decision.attempt,
            candidates: decision.candidates,
            prompt_tokens: decision.prompt_tokens,
            cached_tokens: decision.cached_tokens,
            endpoint: decision.endpoint,
            took_ns: decision.took.as_nanos() as u64,
            traces: SmallVec::from_slice(decision.traces),
            seen: decision.seen.clone(),
            attempts: SmallVec::new(),
            number: 0,
        };
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = ring.next;
        ring.written += 1;
        let number = ring.written;
        let record = Record { number, ..record };
        match ring.entries.get_mut(at) {
            Some(place) => *place = record,
            None => ring.entries.push(record),
        }
        ring.next = (at + 1) % DECISIONS_MAX;
        Mark { at, number }
    }

    /// Adds an attempt to a decision, unless that was forgotten meanwhile, or has [`ATTEMPTS_MAX`].
    pub(crate) fn tried(&self, mark: Mark, tried: Tried) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = ring.entries.get_mut(mark.at)
            && record.number == mark.number
            && record.attempts.len() < ATTEMPTS_MAX
        {
            record.attempts.push(tried);
        }
    }
}

impl Record {
    fn explain(&self) -> Explanation {
        let labels = &self.labels;
        Explanation {
            at_unix_ms: self.at_unix_ms,
            request_id: String::from_utf8_lossy(&self.request_id).into_owned(),
            gateway: labels.gateway.to_string(),
            model: labels.model.to_string(),
            generation: self.generation,
            attempt: self.attempt,
            pool: labels.urls.len(),
            candidates: self.candidates,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            endpoint: self.url(self.endpoint),
            attempts: self.attempts.iter().filter_map(|tried| self.attempt(tried)).collect(),
            avoided: self
                .seen
                .avoided
                .iter()
                .filter_map(|(index, reason)| {
                    Some(AvoidedExplanation { endpoint: self.url(Some(*index))?, reason })
                })
                .collect(),
            numbers: self.numbers(),
            took_us: micros(self.took_ns),
            entries: (0..labels.entries.len()).map(|entry| self.entry(entry)).collect(),
        }
    }

    fn attempt(&self, tried: &Tried) -> Option<AttemptExplanation> {
        let millis = |micros: u32| f64::from(micros) / 1e3;
        Some(AttemptExplanation {
            endpoint: self.url(Some(tried.endpoint))?,
            why: tried.why.label(),
            result: tried.result,
            status: (tried.status > 0).then_some(tried.status),
            took_ms: millis(tried.took_us),
            first_byte_ms: tried.first_byte_us.map(millis),
        })
    }

    fn numbers(&self) -> Vec<NumbersExplanation> {
        let signals = self.seen.signals;
        let rows = self.seen.values.chunks(signals.len().max(1));
        let row = |(index, values): (&u32, &[f32])| {
            let named = signals.iter().zip(values);
            let signals =
                named.map(|(signal, value)| (signal.name(), Some(*value).filter(|value| !value.is_nan())));
            Some(NumbersExplanation { endpoint: self.url(Some(*index))?, signals: signals.collect() })
        };
        self.seen.endpoints.iter().zip(rows).filter_map(row).collect()
    }

    fn entry(&self, index: usize) -> EntryExplanation {
        let EntryLabels { name, digest, signals } = &self.labels.entries[index];
        let trace = self.traces.iter().find(|trace| usize::from(trace.entry) == index);
        let (step, endpoint, fault) = match trace.map(|trace| trace.step) {
            None => ("not_asked", None, None),
            Some(Step::Chose(endpoint)) => ("chose", Some(endpoint), None),
            Some(Step::Scored(endpoint)) => ("scored", Some(endpoint), None),
            Some(Step::Abstained) => ("abstained", None, None),
            Some(Step::Refused) => ("refused", None, None),
            Some(Step::NoSession) => ("no_session", None, None),
            Some(Step::Unavailable) => ("unavailable", None, None),
            Some(Step::Fault(fault)) => ("fault", None, Some(fault.label())),
            Some(Step::Shadow(endpoint)) => ("shadow", endpoint, None),
        };
        EntryExplanation {
            policy: name.to_string(),
            digest: digest.map(|digest| format!("{digest:.12}")),
            step,
            endpoint: self.url(endpoint),
            fault,
            signals: signals.iter().map(|signal| signal.name()).collect(),
            fuel: trace.map_or(0, |trace| trace.fuel),
            took_us: trace.and_then(|trace| micros(trace.nanoseconds.into())),
        }
    }

    fn url(&self, index: Option<u32>) -> Option<Box<str>> {
        self.labels.urls.get(index? as usize).map(|url| (**url).into())
    }
}

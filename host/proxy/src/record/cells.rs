//! Numbers with one writer and many readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use domain::endpoint::Endpoint;
use domain::name::{ModelName, ObjectName, PolicyName};
use domain::policy::{Digest, EntryTrace, Fault, Step};
use domain::pool::Pool;

use super::window::Window;
use super::{Decision, End};

/// A number. Relaxed loads and stores: exact as long as one thread at a time writes.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }
    /// Takes away.
    pub(crate) fn sub(&self, less: u64) {
        self.set(self.get().wrapping_sub(less));
    }
    /// Replaces.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
    /// Reads.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of request latencies, milliseconds; those of the old router.
pub(crate) const LATENCY_BOUNDS: [Duration; 11] = {
    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
    [
        ms(50),
        ms(100),
        ms(250),
        ms(500),
        ms(1_000),
        ms(2_500),
        ms(5_000),
        ms(10_000),
        ms(30_000),
        ms(60_000),
        ms(120_000),
    ]
};

/// Upper bounds of times to the first byte.
pub(crate) const FIRST_BYTE_BOUNDS: [Duration; 12] = {
    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
    [
        ms(5),
        ms(10),
        ms(25),
        ms(50),
        ms(100),
        ms(250),
        ms(500),
        ms(1_000),
        ms(2_500),
        ms(5_000),
        ms(10_000),
        ms(60_000),
    ]
};

/// Upper bounds of decision times.
pub(crate) const DECISION_BOUNDS: [Duration; 11] = {
    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }
    [
        Duration::from_nanos(500),
        us(1),
        us(2),
        us(5),
        us(10),
        us(20),
        us(50),
        us(100),
        us(500),
        us(1_000),
        us(10_000),
    ]
};

/// A histogram of durations.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds, ascending, inclusive.
    pub(crate) bounds: &'static [Duration],
    /// Per bucket, not cumulative; the last is above every bound.
    pub(crate) counts: Box<[Count]>,
    /// Sum of all samples, nanoseconds.
    pub(crate) sum_ns: Count,
}

impl Histogram {
    /// Empty.
    pub(crate) fn new(bounds: &'static [Duration]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Count::default()).collect();
        Self { bounds, counts, sum_ns: Count::default() }
    }

    /// Takes a sample.
    pub(crate) fn observe(&self, sample: Duration) {
        let bucket = self.bounds.iter().position(|bound| sample <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].add(1);
        self.sum_ns.add(sample.as_nanos() as u64);
    }
}

/// Counts by label. Labels are a fixed table, so that a cell is an index.
#[derive(Debug)]
pub(crate) struct Labelled {
    /// The table.
    pub(crate) labels: &'static [&'static str],
    /// One per label, and one for what is not in the table.
    pub(crate) counts: Box<[Count]>,
}

impl Labelled {
    fn new(labels: &'static [&'static str]) -> Self {
        Self { labels, counts: (0..=labels.len()).map(|_| Count::default()).collect() }
    }

    fn add(&self, label: &str) {
        let place = self.labels.iter().position(|known| *known == label).unwrap_or(self.labels.len());
        self.counts[place].add(1);
    }

    /// Labels and their counts where they are above zero.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = self.labels.iter().copied().chain(["unlisted"]);
        labels.zip(self.counts.iter().map(Count::get)).filter(|(_, count)| *count > 0)
    }
}

/// Labels of [`domain::failure::Failure::label`], and of a client that left.
pub(crate) const FAILURES: [&str; 29] = [
    "client_gone",
    "status",
    "connect",
    "lost_before_head",
    "lost_midway",
    "bad_answer",
    "deadline_exceeded",
    "model_unknown",
    "model_unavailable",
    "body_not_json",
    "body_not_object",
    "model_missing",
    "path_unknown",
    "method_not_allowed",
    "body_too_large",
    "body_encoded",
    "body_timeout",
    "multipart",
    "engine_id_missing",
    "engine_id_unknown",
    "not_implemented",
    "forbidden",
    "guarded",
    "overloaded",
    "body_memory",
    "refused",
    "policy_rejected",
    "draining",
    "not_ready",
];

/// What one worker as a whole counts.
#[derive(Debug)]
pub(crate) struct WorkerCells {
    /// Number of the worker.
    pub(crate) worker: usize,
    /// Requests in flight.
    pub(crate) in_flight: Count,
    /// Attempts beyond the first.
    pub(crate) retries: Count,
    /// Requests for models that nobody routes.
    pub(crate) incoming_other: Count,
    /// Policy instances kept.
    pub(crate) policy_instances: Count,
    /// Requests ended, by status; index 0 is no answer, 1 to 9 the hundreds above 599 and below 100 do not occur.
    pub(crate) statuses: Box<[Count]>,
    /// Requests failed, by kind.
    pub(crate) failures: Labelled,
}

/// Status codes that are counted one by one.
pub(crate) const STATUS_MAX: usize = 599;

impl WorkerCells {
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            worker,
            in_flight: Count::default(),
            retries: Count::default(),
            incoming_other: Count::default(),
            policy_instances: Count::default(),
            statuses: (0..=STATUS_MAX).map(|_| Count::default()).collect(),
            failures: Labelled::new(&FAILURES),
        }
    }

    /// A request ended with this status (0 for none) and failure.
    pub(crate) fn ended(&self, status: u16, failure: Option<&'static str>) {
        self.statuses[usize::from(status).min(STATUS_MAX)].add(1);
        if let Some(failure) = failure {
            self.failures.add(failure);
        }
    }
}

/// What one worker counts of a model.
#[derive(Debug)]
pub(crate) struct ModelCells {
    /// The model.
    pub(crate) model: ModelName,
    /// Unix time of the first request, seconds.
    pub(crate) created_unix: f64,
    /// Requests arrived.
    pub(crate) requests: Count,
}

/// What one worker counts of an endpoint.
#[derive(Debug)]
pub(crate) struct ServerCells {
    /// The endpoint's slot.
    pub(crate) slot: u32,
    /// Requests sent whose answer has not begun.
    pub(crate) prefill: Count,
    /// Requests whose answer has begun.
    pub(crate) decoding: Count,
    /// The last minute.
    pub(crate) window: Window,
}

impl ServerCells {
    pub(crate) fn new(slot: u32) -> Self {
        Self { slot, prefill: Count::default(), decoding: Count::default(), window: Window::default() }
    }
}

/// What one worker counts of a model at an endpoint.
#[derive(Debug)]
pub(crate) struct PairCells {
    /// The model, as clients know it.
    pub(crate) model: ModelName,
    /// The endpoint's URL.
    pub(crate) url: Arc<str>,
    /// The endpoint.
    pub(crate) server: Arc<ServerCells>,
    /// Prompt tokens that the engine reported.
    pub(crate) input_tokens: Count,
    /// Of which cached.
    pub(crate) cached_tokens: Count,
    /// Generated tokens that the engine reported.
    pub(crate) output_tokens: Count,
    /// Errors by kind.
    pub(crate) errors: Labelled,
    /// Latencies of requests that ended well.
    pub(crate) success: Histogram,
    /// Latencies of the others.
    pub(crate) error: Histogram,
    /// Times to the first byte.
    pub(crate) first_byte: Histogram,
}

impl PairCells {
    pub(crate) fn new(pool: &Pool, endpoint: &Endpoint, server: Arc<ServerCells>) -> Self {
        Self {
            model: pool.model.clone(),
            url: Arc::clone(&endpoint.spec.id.url),
            server,
            input_tokens: Count::default(),
            cached_tokens: Count::default(),
            output_tokens: Count::default(),
            errors: Labelled::new(&FAILURES),
            success: Histogram::new(&LATENCY_BOUNDS),
            error: Histogram::new(&LATENCY_BOUNDS),
            first_byte: Histogram::new(&FIRST_BYTE_BOUNDS),
        }
    }

    /// An attempt here failed.
    pub(crate) fn failed(&self, label: &'static str) {
        self.errors.add(label);
    }

    /// A request that was last sent here ended.
    pub(crate) fn ended(&self, end: &End<'_>, error: Option<&'static str>) {
        let outcome = end.outcome;
        match error {
            Some(label) => {
                self.failed(label);
                self.error.observe(outcome.duration);
            }
            None => self.success.observe(outcome.duration),
        }
        let window = &self.server.window;
        window.ended(end.now_ms, outcome.duration.as_micros() as u64);
        let Some(first_byte) = outcome.first_byte else { return };
        self.first_byte.observe(first_byte);
        if let Some(usage) = outcome.usage {
            self.input_tokens.add(usage.prompt_tokens);
            self.cached_tokens.add(usage.cached_tokens);
            self.output_tokens.add(usage.completion_tokens);
        }
        let reported = outcome.usage.map(|usage| usage.completion_tokens).filter(|tokens| *tokens > 0);
        let tokens = reported.unwrap_or(end.events);
        if tokens > 0 {
            let decoding =
                if end.events > 0 { outcome.duration.saturating_sub(first_byte) } else { Duration::ZERO };
            window.generated(end.now_ms, tokens, decoding.as_micros() as u64);
        }
    }
}

/// Why a request went where it went, as a metrics label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The prompt is believed cached there.
    PrefixHit,
    /// The session's owner.
    Session,
    /// Load, or anything else a policy weighs.
    Load,
    /// No policy had an opinion.
    Fallback,
    /// Another endpoint had failed before.
    Failover,
}

impl Reason {
    /// Every reason, by discriminant.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::PrefixHit, "prefix_hit"),
        (Self::Session, "session"),
        (Self::Load, "load"),
        (Self::Fallback, "fallback"),
        (Self::Failover, "failover"),
    ];
}

/// Names of a pool and of everything in it that a decision refers to by number.
#[derive(Debug)]
pub(crate) struct PoolLabels {
    /// The gateway.
    pub(crate) gateway: ObjectName,
    /// The model.
    pub(crate) model: ModelName,
    /// URLs by index.
    pub(crate) urls: Box<[Arc<str>]>,
    /// Names and digests of the chain's entries.
    pub(crate) entries: Box<[(PolicyName, Option<Digest>)]>,
    signature: u64,
}

impl PoolLabels {
    fn new(pool: &Pool) -> Self {
        Self {
            gateway: pool.gateway.clone(),
            model: pool.model.clone(),
            urls: pool.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.spec.id.url)).collect(),
            entries: entries(pool).map(|(name, digest)| (name.clone(), digest)).collect(),
            signature: pool.signature,
        }
    }

    /// Whether these are still the pool's.
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        self.signature == pool.signature
            && self.urls.len() == pool.endpoints.len()
            && self.entries.iter().map(|(name, digest)| (name, *digest)).eq(entries(pool))
    }
}

fn entries(pool: &Pool) -> impl Iterator<Item = (&PolicyName, Option<Digest>)> {
    let entries = pool.chain.entries.iter();
    entries.map(|entry| (&entry.in_force.name, entry.prepared.as_ref().map(|prepared| prepared.digest())))
}

/// What one worker counts of a pool's decisions.
#[derive(Debug)]
pub(crate) struct PoolCells {
    /// Names.
    pub(crate) labels: Arc<PoolLabels>,
    /// One per entry of the chain.
    pub(crate) entries: Box<[EntryCells]>,
    /// Decisions that no entry took, by reason.
    pub(crate) undecided: [Count; Reason::ALL.len()],
    /// What deciding took.
    pub(crate) took: Histogram,
    /// Estimated prompt tokens of requests sent.
    pub(crate) prompt_tokens: Count,
    /// Of which believed cached where they were sent.
    pub(crate) cached_tokens: Count,
}

/// What one worker counts of an entry of a chain.
#[derive(Debug)]
pub(crate) struct EntryCells {
    /// Endpoint named, or scores given.
    pub(crate) chose: Count,
    /// Scores given.
    pub(crate) scored: Count,
    /// No opinion.
    pub(crate) abstained: Count,
    /// Request turned away.
    pub(crate) refused: Count,
    /// Not asked: no session.
    pub(crate) no_session: Count,
    /// Not asked: not loaded, or backing off.
    pub(crate) unavailable: Count,
    /// Shadow, and would have chosen what was chosen.
    pub(crate) shadow_agreed: Count,
    /// Shadow, and would not have.
    pub(crate) shadow_differed: Count,
    /// Faults, by kind.
    pub(crate) faults: [Count; FAULTS.len()],
    /// Fuel used.
    pub(crate) fuel: Count,
    /// Time of its calls.
    pub(crate) took: Histogram,
    /// Decisions that were this entry's, by reason.
    pub(crate) decided: [Count; Reason::ALL.len()],
    /// Whether it serves sessions.
    is_session: bool,
}

/// Every fault.
pub(crate) const FAULTS: [Fault; 7] = [
    Fault::Fuel,
    Fault::Memory,
    Fault::Trap,
    Fault::Answer,
    Fault::HostCalls,
    Fault::Instantiate,
    Fault::NotExecuted,
];

impl PoolCells {
    pub(crate) fn new(pool: &Pool) -> Self {
        let labels = PoolLabels::new(pool);
        let entries = labels.entries.iter().map(|(name, _)| EntryCells::new(name)).collect();
        Self {
            labels: Arc::new(labels),
            entries,
            undecided: Default::default(),
            took: Histogram::new(&DECISION_BOUNDS),
            prompt_tokens: Count::default(),
            cached_tokens: Count::default(),
        }
    }

    /// A decision was taken.
    pub(crate) fn decided(&self, decision: &Decision<'_>) {
        self.took.observe(decision.took);
        let mut decider = None;
        for trace in decision.traces {
            let Some(entry) = self.entries.get(usize::from(trace.entry)) else { continue };
            entry.ran(trace, decision.endpoint);
            if matches!(trace.step, Step::Chose(_) | Step::Scored(_)) {
                decider = Some(entry);
            }
        }
        if decision.endpoint.is_none() {
            return;
        }
        self.prompt_tokens.add(u64::from(decision.prompt_tokens));
        self.cached_tokens.add(u64::from(decision.cached_tokens.min(decision.prompt_tokens)));
        let reason = match decider {
            _ if decision.attempt > 0 => Reason::Failover,
            None => Reason::Fallback,
            Some(entry) if entry.is_session => Reason::Session,
            Some(_) if decision.cached_tokens > 0 => Reason::PrefixHit,
            Some(_) => Reason::Load,
        };
        decider.map_or(&self.undecided, |entry| &entry.decided)[reason as usize].add(1);
    }
}

impl EntryCells {
    fn new(name: &PolicyName) -> Self {
        Self {
            chose: Count::default(),
            scored: Count::default(),
            abstained: Count::default(),
            refused: Count::default(),
            no_session: Count::default(),
            unavailable: Count::default(),
            shadow_agreed: Count::default(),
            shadow_differed: Count::default(),
            faults: Default::default(),
            fuel: Count::default(),
            took: Histogram::new(&DECISION_BOUNDS),
            decided: Default::default(),
            is_session: name.as_str() == "session-affinity",
        }
    }

    fn ran(&self, trace: &EntryTrace, chosen: Option<u32>) {
        match trace.step {
            Step::Chose(_) => self.chose.add(1),
            Step::Scored(_) => self.scored.add(1),
            Step::Abstained => self.abstained.add(1),
            Step::Refused => self.refused.add(1),
            Step::NoSession => self.no_session.add(1),
            Step::Unavailable => self.unavailable.add(1),
            Step::Fault(fault) => {
                if let Some(place) = FAULTS.iter().position(|known| *known == fault) {
                    self.faults[place].add(1);
                }
            }
            Step::Shadow(would) if would == chosen => self.shadow_agreed.add(1),
            Step::Shadow(_) => self.shadow_differed.add(1),
        }
        self.fuel.add(trace.fuel);
        if trace.nanoseconds > 0 {
            self.took.observe(Duration::from_nanos(u64::from(trace.nanoseconds)));
        }
    }
}

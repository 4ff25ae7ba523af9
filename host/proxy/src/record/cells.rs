//! Numbers with one writer and many readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use domain::endpoint::Endpoint;
use domain::name::ModelName;
use domain::pool::Pool;

use super::End;
use super::window::Window;

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
pub(crate) const FAILURES: [&str; 31] = [
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
    "model_repeated",
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
    "shortage",
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
    /// Requests ended, by the status sent; 0 is none.
    pub(crate) statuses: Box<[Count]>,
    /// Requests failed, by kind.
    pub(crate) failures: Labelled,
}

/// Highest status that is counted by itself; what is above counts here.
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
            self.cached_tokens.add(usage.cached_tokens.unwrap_or(0));
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

//! What a run through a fleet came to.

use std::time::Duration;

use super::Done;
use crate::core::Totals;
use crate::workload::Workload;

/// One engine's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineReport {
    /// Requests sent to it.
    pub requests: u64,
    /// What it did.
    pub totals: Totals,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Per engine.
    pub engines: Vec<EngineReport>,
    /// Requests that ended.
    pub finished: u64,
    /// Requests no engine could take.
    pub rejected: u64,
    /// Prompt tokens of all requests that ended.
    pub prompt_tokens: u64,
    /// Of these, found in a cache.
    pub cached_tokens: u64,
    /// Time to first token: median.
    pub ttft_p50: Duration,
    /// Its 99th percentile.
    pub ttft_p99: Duration,
    /// Its mean.
    pub ttft_mean: Duration,
    /// Time to the last token: median.
    pub latency_p50: Duration,
    /// Its 99th percentile.
    pub latency_p99: Duration,
    /// Until the last answer.
    pub makespan: Duration,
}

impl Report {
    pub(super) fn new(
        workload: &Workload,
        engines: Vec<EngineReport>,
        done: &[Option<Done>],
        rejected: u64,
    ) -> Self {
        let ended = || done.iter().flatten();
        let mut ttft: Vec<Duration> = ended().map(|done| done.first_token_at - done.sent_at).collect();
        let mut latency: Vec<Duration> = ended().map(|done| done.finished_at - done.sent_at).collect();
        ttft.sort_unstable();
        latency.sort_unstable();
        let with_end = workload.requests.iter().zip(done).filter(|(_, done)| done.is_some());
        Self {
            engines,
            finished: ttft.len() as u64,
            rejected,
            prompt_tokens: with_end.map(|(request, _)| u64::from(request.prompt_tokens)).sum(),
            cached_tokens: ended().map(|done| u64::from(done.cached_tokens)).sum(),
            ttft_p50: percentile(&ttft, 0.5),
            ttft_p99: percentile(&ttft, 0.99),
            ttft_mean: ttft.iter().sum::<Duration>() / ttft.len().max(1) as u32,
            latency_p50: percentile(&latency, 0.5),
            latency_p99: percentile(&latency, 0.99),
            makespan: ended().map(|done| done.finished_at).max().unwrap_or_default(),
        }
    }

    /// Share of the prompt tokens that came from a cache, 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
    }

    /// The busiest engine's work over the mean, 1 at best: tokens computed, prompt (uncached) and output.
    pub fn work_max_over_mean(&self) -> f64 {
        self.max_over_mean(|engine| engine.totals.work_tokens() as f64)
    }

    /// The same of the time spent in steps.
    pub fn busy_max_over_mean(&self) -> f64 {
        self.max_over_mean(|engine| engine.totals.busy.as_secs_f64())
    }

    /// Share of the engines' time spent in steps, 0 to 1.
    pub fn busy(&self) -> f64 {
        let busy: Duration = self.engines.iter().map(|engine| engine.totals.busy).sum();
        busy.as_secs_f64() / (self.makespan.as_secs_f64() * self.engines.len() as f64).max(1e-9)
    }

    fn max_over_mean(&self, of: impl Fn(&EngineReport) -> f64) -> f64 {
        let values: Vec<f64> = self.engines.iter().map(of).collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        values.iter().copied().fold(0.0, f64::max) / mean.max(1e-9)
    }
}

/// The value below which `share` of the sorted values lie; zero of none.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

//! Requests that failed quickly, counted as in flight for a while longer.
//!
//! Policies send to where least is in flight. An engine that fails in 2 ms has nothing in flight, and would look like the
//! one with the most room. So what it failed goes on counting for as long as other engines take for an answer.

use std::cell::RefCell;
use std::collections::VecDeque;

use domain::endpoint::InFlight;
use domain::load::mean;
use domain::pool::Pool;

use crate::clock::Clock;

/// Longest time that a failed request goes on counting, milliseconds.
const LINGER_MAX_MS: f32 = 10_000.0;
/// How long it does where no other engine's time is known, milliseconds.
const LINGER_DEFAULT_MS: f32 = 1_000.0;
/// Most such requests of one worker; beyond, the oldest stop counting.
const LINGERING_MAX: usize = 1_024;

/// One worker's failed requests that go on counting.
#[derive(Debug, Default)]
pub(crate) struct Lingering(RefCell<VecDeque<(u64, InFlight)>>);

impl Lingering {
    /// Keeps it until `until_ms` on the worker's clock.
    pub(crate) fn keep(&self, in_flight: InFlight, until_ms: u64) {
        let mut all = self.0.borrow_mut();
        if all.len() == LINGERING_MAX {
            all.pop_front();
        }
        all.push_back((until_ms, in_flight));
    }

    /// Stops counting those whose time is over. Called with every tick of the worker.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let mut all = self.0.borrow_mut();
        if !all.is_empty() {
            all.retain(|(until_ms, _)| *until_ms > now_ms);
        }
    }
}

/// Until when a request that failed at the endpoint of `slot` after `took_ms` counts there.
pub(crate) fn rest_ms(pool: &Pool, slot: u32, took_ms: u64, clock: &Clock) -> u64 {
    let now_ms = clock.now_ms();
    let others = pool.endpoints.iter().filter(|endpoint| endpoint.state.slot != slot);
    let times: Vec<f32> =
        others.map(|endpoint| endpoint.state.requests.averages.first_token_ms(now_ms)).collect();
    let typical = mean(&times);
    let typical = if typical.is_nan() { LINGER_DEFAULT_MS } else { typical.min(LINGER_MAX_MS) };
    now_ms + (typical as u64).saturating_sub(took_ms)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use domain::assemble::Assembler;

    use super::*;
    use crate::fixture;

    /// A1: a fast failure is not capacity.
    #[test]
    fn a_request_that_failed_at_once_counts_for_as_long_as_others_take() {
        let endpoints =
            [fixture::endpoint("http://10.0.0.1:8000", ""), fixture::endpoint("http://10.0.0.2:8000", "")];
        let gateway = fixture::gateway("g", vec![fixture::route("m", &endpoints)]);
        let snapshot = fixture::snapshot(&mut Assembler::default(), vec![gateway]);
        let (pool, clock) = (&snapshot.pools[0], Clock::new(Instant::now()));
        let [sick, well] = &pool.endpoints[..] else { panic!("two endpoints") };
        let until = |took_ms| rest_ms(pool, sick.state.slot, took_ms, &clock);
        assert_eq!(until(0), 1_000, "no other engine's time is known");
        well.state.requests.averages.observe_first_token(250.0, 0);
        assert_eq!(until(2), 248);
        assert_eq!(until(400), 0, "it took longer than others do");
        well.state.requests.averages.observe_first_token(1e9, 0);
        assert_eq!(until(0), 10_000, "bounded");

        let lingering = Lingering::default();
        lingering.keep(InFlight::begin(Arc::clone(&sick.state), 7), 248);
        lingering.sweep(247);
        assert_eq!(sick.state.inflight(), 1);
        lingering.sweep(248);
        assert_eq!(sick.state.inflight(), 0);
        for _ in 0..LINGERING_MAX + 5 {
            lingering.keep(InFlight::begin(Arc::clone(&sick.state), 0), 1);
        }
        assert_eq!(sick.state.inflight(), LINGERING_MAX as u32);
    }
}

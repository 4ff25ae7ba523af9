//! Routers to compare with: simple ones, one that fails in a known way, and one that knows everything.

use super::{FleetView, Router};
use crate::workload::Request;

/// One after the other.
#[derive(Debug, Default)]
pub struct RoundRobin(usize);

/// The fewest requests sent and not ended; the first of equals.
#[derive(Debug, Default)]
pub struct LeastInFlight;

/// The same engine for the same session, by rendezvous hash.
#[derive(Debug, Default)]
pub struct SessionHash;

/// The engine whose cache truly holds most of the prompt, whatever it carries: collapses when everyone shares a prefix.
#[derive(Debug, Default)]
pub struct LongestPrefix;

/// Knows every queue and every cache: the soonest first token, by waiting time and uncached prompt; the fewer in flight of
/// equals. Not the best there could be, since it does not know what comes next.
#[derive(Debug, Default)]
pub struct Oracle;

impl Router for RoundRobin {
    fn pick(&mut self, _request: &Request, fleet: &FleetView<'_>) -> usize {
        self.0 += 1;
        (self.0 - 1) % fleet.len()
    }
}

impl Router for LeastInFlight {
    fn pick(&mut self, _request: &Request, fleet: &FleetView<'_>) -> usize {
        best(fleet, |engine| fleet.in_flight(engine))
    }
}

impl Router for SessionHash {
    fn pick(&mut self, request: &Request, fleet: &FleetView<'_>) -> usize {
        let owner = |engine: usize| {
            xxhash_rust::xxh3::xxh3_64_with_seed(&request.session.to_le_bytes(), engine as u64)
        };
        best(fleet, owner)
    }
}

impl Router for LongestPrefix {
    fn pick(&mut self, request: &Request, fleet: &FleetView<'_>) -> usize {
        best(fleet, |engine| u32::MAX - fleet.true_cached_tokens(engine, request))
    }
}

impl Router for Oracle {
    fn pick(&mut self, request: &Request, fleet: &FleetView<'_>) -> usize {
        best(fleet, |engine| (fleet.true_time_to_first_token(engine, request), fleet.in_flight(engine)))
    }
}

/// The names [`by_name`] knows.
pub fn names() -> [&'static str; 5] {
    ["round-robin", "least-in-flight", "session-hash", "longest-prefix", "oracle"]
}

/// A fresh router of this name.
pub fn by_name(name: &str) -> Option<Box<dyn Router>> {
    Some(match name {
        "round-robin" => Box::new(RoundRobin::default()),
        "least-in-flight" => Box::new(LeastInFlight),
        "session-hash" => Box::new(SessionHash),
        "longest-prefix" => Box::new(LongestPrefix),
        "oracle" => Box::new(Oracle),
        _ => return None,
    })
}

/// The engine with the least value, the first of equals.
fn best<K: Ord>(fleet: &FleetView<'_>, value: impl Fn(usize) -> K) -> usize {
    (0..fleet.len()).min_by_key(|engine| value(*engine)).unwrap_or_default()
}

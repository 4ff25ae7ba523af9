//! The gateway's own numbers: workers, requests, permits, the prefix index.

use std::sync::Arc;

use domain::prefix::PrefixStats;
use domain::snapshot::Snapshot;

use super::family::{self, Page};
use crate::record::cells::WorkerCells;

/// What workers count.
pub(super) fn workers(page: &mut Page, workers: &[Arc<WorkerCells>]) {
    page.add(family::RETRIES, &[], 0.0);
    for cells in workers {
        let worker = cells.worker.to_string();
        page.add(family::IN_FLIGHT, &[&worker], cells.in_flight.get() as f64);
        page.add(family::POLICY_INSTANCES, &[&worker], cells.policy_instances.get() as f64);
        page.add(family::RETRIES, &[], cells.retries.get() as f64);
        for (code, count) in cells.statuses.iter().enumerate().filter(|(_, count)| count.get() > 0) {
            page.add(family::REQUESTS, &[&code.to_string()], count.get() as f64);
        }
        for (reason, count) in cells.failures.iter() {
            page.add_some(family::FAILURES, &[reason], count);
        }
    }
}

/// What is in force.
pub(super) fn state(page: &mut Page, snapshot: &Snapshot) {
    page.add(family::GENERATION, &[], snapshot.generation.0 as f64);
    for gateway in &snapshot.gateways {
        let name = gateway.name.to_string();
        page.add(family::ADMITTED, &[&name], f64::from(gateway.state.admission.in_flight()));
        page.add(family::QUEUED, &[&name], f64::from(gateway.state.admission.waiting()));
    }
}

/// The prefix index.
pub(super) fn prefix_index(page: &mut Page, stats: &PrefixStats) {
    let numbers = [
        (family::INDEX_ENTRIES, stats.entries),
        (family::INDEX_BYTES, stats.bytes),
        (family::INDEX_BYTES_MAX, stats.bytes_max),
        (family::INDEX_EVICTIONS, stats.evictions),
        (family::INDEX_SKIPPED, stats.skipped),
        (family::INDEX_LOOKUPS, stats.lookups),
        (family::INDEX_HITS, stats.hits),
    ];
    for (family, number) in numbers {
        page.add(family, &[], number as f64);
    }
}

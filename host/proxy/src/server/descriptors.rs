//! File descriptors: as many as the system grants, and a share of them that clients cannot take.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are kept for files, listeners, probes, admin pages, the API server and look-ups of names.
const KEPT: u64 = 128;

/// Raises the limit of open files to what the system grants this process, and returns the limit now in force.
pub(super) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, ?limit, "the limit of open files stays as it is");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Client connections of each worker: together half of what is left, so that each can have a connection to an engine.
/// At least one, at most `max`.
pub(super) fn clients_max(limit: u64, workers: usize, max: usize) -> usize {
    let share = limit.saturating_sub(KEPT) / 2 / workers.max(1) as u64;
    usize::try_from(share).map_or(max, |share| share.clamp(1, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C13: clients cannot take the descriptors that engines and probes need.
    #[test]
    fn clients_get_half_of_the_descriptors_and_the_rest_is_kept() {
        for (limit, workers, max) in [(1_024, 2, 224), (1_024, 1, 448), (64, 2, 1), (1 << 20, 4, 16_384)] {
            assert_eq!(clients_max(limit, workers, 16_384), max, "{limit} files, {workers} workers");
        }
        assert_eq!(clients_max(u64::MAX, 1, 16_384), 16_384);
    }
}

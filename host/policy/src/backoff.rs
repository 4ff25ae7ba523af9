//! A policy that keeps failing is left alone for a while.

/// Faults within [`WINDOW_MS`] that make an entry be skipped.
pub(crate) const FAULTS: usize = 5;
/// Window over which faults count, milliseconds.
pub(crate) const WINDOW_MS: u64 = 10_000;
/// First skip, milliseconds. Doubles each time up to [`SKIP_MS_MAX`].
pub(crate) const SKIP_MS: u64 = 1_000;
/// Longest skip, milliseconds. As long without being skipped again, and the next skip is a first one.
pub(crate) const SKIP_MS_MAX: u64 = 60_000;

/// The recent faults of one entry on one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    /// When the latest faults were, oldest first; only the first `recent` count.
    faults: [u64; FAULTS],
    recent: usize,
    until_ms: u64,
    skip_ms: u64,
}

impl Backoff {
    /// Whether the entry is skipped at `now_ms`.
    pub(crate) fn is_skipping(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }

    /// Counts a fault. Returns for how long the entry is skipped from now on, in milliseconds, if this was one too many.
    pub(crate) fn fault(&mut self, now_ms: u64) -> Option<u64> {
        if self.recent == FAULTS {
            self.faults.rotate_left(1);
            self.recent -= 1;
        }
        self.faults[self.recent] = now_ms;
        self.recent += 1;
        if self.recent < FAULTS || now_ms.saturating_sub(self.faults[0]) > WINDOW_MS {
            return None;
        }
        let calm = now_ms.saturating_sub(self.until_ms) >= SKIP_MS_MAX;
        self.skip_ms = if calm || self.skip_ms == 0 { SKIP_MS } else { (self.skip_ms * 2).min(SKIP_MS_MAX) };
        self.until_ms = now_ms.saturating_add(self.skip_ms);
        self.recent = 0;
        Some(self.skip_ms)
    }

    /// Whether nothing of it matters any more at `now_ms`.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        let last = self.recent.checked_sub(1).map_or(0, |last| self.faults[last]);
        now_ms.saturating_sub(self.until_ms.max(last)) > SKIP_MS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five faults at once; how long the entry is skipped then.
    fn storm(backoff: &mut Backoff, now_ms: u64) -> Option<u64> {
        let skips: Vec<_> = (0..FAULTS).map(|_| backoff.fault(now_ms)).collect();
        assert!(skips[..FAULTS - 1].iter().all(Option::is_none), "only the fifth is one too many");
        skips[FAULTS - 1]
    }

    #[test]
    fn five_faults_in_ten_seconds_skip_for_a_second_doubling_to_a_minute() {
        let mut backoff = Backoff::default();
        let mut now = 5_000;
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert!(!backoff.is_skipping(now));
            assert_eq!(storm(&mut backoff, now), Some(expected));
            assert!(backoff.is_skipping(now + expected - 1));
            now += expected;
        }
        now += SKIP_MS_MAX;
        assert_eq!(storm(&mut backoff, now), Some(SKIP_MS), "after a calm minute it starts again");
    }

    #[test]
    fn faults_spread_over_more_than_the_window_do_not_skip() {
        let mut backoff = Backoff::default();
        for fault in 0..100 {
            assert_eq!(backoff.fault(fault * (WINDOW_MS / 4 + 1)), None);
        }
        assert!(!backoff.is_skipping(300_000));
    }

    #[test]
    fn an_old_backoff_is_over() {
        let mut backoff = Backoff::default();
        backoff.fault(1_000);
        assert!(!backoff.is_over(2_000));
        assert!(backoff.is_over(1_001 + SKIP_MS_MAX));
    }
}

//! How long and how often a request may be tried before its first byte: deadline, attempts, statuses, budget.
//!
//! Retries multiply load exactly when there is too much of it. So they are bounded three times: by time, by count for
//! one request, and by a share of all recent requests of the gateway.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Attempts that one request gets at most, the first included.
pub const ATTEMPTS_MAX: u32 = 8;

/// Statuses of an engine that a gateway may be told to retry; none is retried unless it is. The list of the production
/// stack's `--enable-retries`.
pub const RETRYABLE_STATUSES: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// Length of one window of the budget, milliseconds. "Recent" is the last one to two windows.
pub const BUDGET_WINDOW_MS: u64 = 10_000;

/// Retries that a window always allows, so that a gateway with few requests can retry at all.
pub const RETRIES_MIN: u32 = 10;

/// Whether an attempt may follow `attempts_done` of them when `extra` are configured beyond the first.
pub fn has_attempt_left(attempts_done: u32, extra: u32) -> bool {
    attempts_done <= extra && attempts_done < ATTEMPTS_MAX
}

/// Whether an engine's status counts as a failure to retry: it is configured, and it is one that may be.
pub fn is_retryable_status(status: u16, configured: &[u16]) -> bool {
    configured.contains(&status) && RETRYABLE_STATUSES.contains(&status)
}

/// When a request must have its first byte. Made once, when its body is in, and handed down; never restarted.
///
/// Queueing, connecting and retries all live from it. After the first byte only idle limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// `None`: further away than the clock can say.
    at: Option<Instant>,
}

impl Deadline {
    /// `budget` after `start`.
    pub fn new(start: Instant, budget: Duration) -> Self {
        Self { at: start.checked_add(budget) }
    }

    /// The moment itself; `None` if there is none that the clock can name.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Time left, zero once it has passed; [`Duration::MAX`] if it never will.
    pub fn left(&self, now: Instant) -> Duration {
        self.at.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }

    /// Whether nothing is left.
    pub fn has_passed(&self, now: Instant) -> bool {
        self.left(now).is_zero()
    }

    /// The shorter of `limit` and the time left: what a phase with a limit of its own may take.
    pub fn bound(&self, limit: Duration, now: Instant) -> Duration {
        limit.min(self.left(now))
    }
}

/// Bounds the retries of one gateway to a share of its recent requests. Per replica; lock-free.
///
/// Counts requests and retries in windows of [`BUDGET_WINDOW_MS`]; the previous window counts by the part of it that is
/// still less than one window ago.
#[derive(Debug, Default)]
pub struct RetryBudget {
    /// Windows by their number's parity: window number 24 bits, requests 20, retries 20.
    windows: [AtomicU64; 2],
}

impl RetryBudget {
    /// Counts a request. Call it once for each, not for its retries.
    pub fn count_request(&self, now_ms: u64) {
        let (cell, number) = self.window(now_ms);
        let _ = cell.fetch_update(Relaxed, Relaxed, |word| {
            let window = Window::unpack(word).of(number);
            Some(Window { requests: window.requests + 1, ..window }.pack())
        });
    }

    /// Takes one retry out of the budget, if it holds one: fewer retries in the last window than [`RETRIES_MIN`] and
    /// `percent` of its requests. `percent` is 20 by default; 0 leaves the minimum.
    pub fn try_take(&self, percent: u32, now_ms: u64) -> bool {
        let (cell, number) = self.window(now_ms);
        let (other, _) = self.window(now_ms + BUDGET_WINDOW_MS);
        let previous = Window::unpack(other.load(Relaxed)).of(number.wrapping_sub(1) & NUMBER_MAX);
        let fresh = 1.0 - (now_ms % BUDGET_WINDOW_MS) as f64 / BUDGET_WINDOW_MS as f64;
        let taken = cell.fetch_update(Relaxed, Relaxed, |word| {
            let window = Window::unpack(word).of(number);
            let recent = |now: u64, before: u64| now as f64 + before as f64 * fresh;
            let requests = recent(window.requests, previous.requests);
            let allowed = f64::from(RETRIES_MIN) + requests * f64::from(percent) / 100.0;
            let next = Window { retries: window.retries + 1, ..window };
            (recent(next.retries, previous.retries) <= allowed).then(|| next.pack())
        });
        taken.is_ok()
    }

    fn window(&self, now_ms: u64) -> (&AtomicU64, u64) {
        let number = now_ms / BUDGET_WINDOW_MS;
        (&self.windows[(number % 2) as usize], number & NUMBER_MAX)
    }
}

const NUMBER_MAX: u64 = (1 << 24) - 1;
const COUNT_MAX: u64 = (1 << 20) - 1;

/// A window's word, taken apart. Counts stop at about a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    number: u64,
    requests: u64,
    retries: u64,
}

impl Window {
    /// This window if it is number `number`, else an empty one.
    fn of(self, number: u64) -> Self {
        if self.number == number { self } else { Self { number, requests: 0, retries: 0 } }
    }

    fn pack(self) -> u64 {
        self.number << 40 | self.requests.min(COUNT_MAX) << 20 | self.retries.min(COUNT_MAX)
    }

    fn unpack(word: u64) -> Self {
        Self { number: word >> 40, requests: word >> 20 & COUNT_MAX, retries: word & COUNT_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(budget: &RetryBudget, percent: u32, now_ms: u64) -> u32 {
        (0..100_000).take_while(|_| budget.try_take(percent, now_ms)).count() as u32
    }

    #[test]
    fn a_quiet_gateway_may_retry_the_minimum_per_window() {
        let budget = RetryBudget::default();
        assert_eq!(take_all(&budget, 20, 0), RETRIES_MIN);
        assert_eq!(take_all(&budget, 20, BUDGET_WINDOW_MS - 1), 0);
        assert_eq!(take_all(&budget, 20, BUDGET_WINDOW_MS + BUDGET_WINDOW_MS / 2), 5, "half of them are old");
        assert_eq!(take_all(&budget, 20, 10 * BUDGET_WINDOW_MS), RETRIES_MIN);
    }

    #[test]
    fn retries_are_a_share_of_recent_requests() {
        let budget = RetryBudget::default();
        for _ in 0..1_000 {
            budget.count_request(5);
        }
        assert_eq!(take_all(&budget, 20, 6), 200 + RETRIES_MIN);
        let budget = RetryBudget::default();
        for _ in 0..1_000 {
            budget.count_request(5);
        }
        assert_eq!(
            take_all(&budget, 20, BUDGET_WINDOW_MS * 3 / 2),
            100 + RETRIES_MIN,
            "half of them are old"
        );
        assert_eq!(take_all(&budget, 20, BUDGET_WINDOW_MS * 4), RETRIES_MIN, "all of them are old");
        assert_eq!(take_all(&budget, 0, BUDGET_WINDOW_MS * 6), RETRIES_MIN);
    }

    #[test]
    fn an_outage_makes_at_most_the_budgeted_share_more_load() {
        let budget = RetryBudget::default();
        let mut retries = 0_u64;
        // 1,000 requests a second for a minute, all of which fail and ask for a retry.
        for request in 0..60_000_u64 {
            budget.count_request(request);
            retries += u64::from(budget.try_take(20, request));
        }
        assert!((11_000..=12_100).contains(&retries), "{retries} retries of 60,000 requests");
    }

    #[test]
    fn counts_stop_at_their_bound_and_do_not_spill() {
        let full = Window { number: NUMBER_MAX, requests: COUNT_MAX + 1, retries: COUNT_MAX + 1 };
        let read = Window::unpack(full.pack());
        assert_eq!(read, Window { number: NUMBER_MAX, requests: COUNT_MAX, retries: COUNT_MAX });
    }

    #[test]
    fn no_request_is_lost_between_threads() {
        let budget = RetryBudget::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| budget.count_request(1)));
            }
        });
        assert_eq!(take_all(&budget, 10, 2), 200 + RETRIES_MIN);
    }

    #[test]
    fn a_deadline_runs_out_and_bounds_every_phase() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let deadline = Deadline::new(start, seconds(10));
        assert_eq!(deadline.left(start + seconds(4)), seconds(6));
        assert_eq!(deadline.bound(seconds(2), start + seconds(4)), seconds(2));
        assert_eq!(deadline.bound(seconds(2), start + seconds(9)), seconds(1));
        assert!(!deadline.has_passed(start + seconds(9)));
        assert!(deadline.has_passed(start + seconds(10)));
        assert_eq!(deadline.left(start + seconds(11)), Duration::ZERO);
        assert_eq!(Deadline::new(start, Duration::MAX).left(start), Duration::MAX);
    }

    #[test]
    fn attempts_end_with_what_is_configured_or_the_bound() {
        assert!(has_attempt_left(0, 0));
        assert!(!has_attempt_left(1, 0));
        assert!(has_attempt_left(1, 1));
        assert!(!has_attempt_left(2, 1));
        assert!(has_attempt_left(7, 100));
        assert!(!has_attempt_left(8, 100));
    }

    #[test]
    fn a_status_is_retried_only_if_configured_and_allowed() {
        assert!(!is_retryable_status(503, &[]));
        assert!(is_retryable_status(503, &[429, 503]));
        assert!(!is_retryable_status(404, &[404]));
    }
}

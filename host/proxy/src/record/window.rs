//! The last minute of one endpoint, in steps of five seconds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cells::Count;

/// Length of the window, seconds.
pub(crate) const WINDOW_SECONDS: u64 = 60;
/// Length of one step, milliseconds.
const STEP_MS: u64 = 5_000;
/// Steps in a window. One more is kept: the one that is being filled.
const STEPS: usize = (WINDOW_SECONDS * 1_000 / STEP_MS) as usize;

/// Counts of one minute. One writer; a reader beside a turn of the ring may miss one step.
#[derive(Debug, Default)]
pub(crate) struct Window {
    steps: [Step; STEPS + 1],
}

#[derive(Debug, Default)]
struct Step {
    /// Number of the step since the start of the clock, plus one; 0 is never.
    number: AtomicU64,
    arrived: Count,
    ended: Count,
    latency_us: Count,
    streams: Count,
    tokens: Count,
    gaps: Count,
    gap_us: Count,
}

/// Sums over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    /// Requests sent there.
    pub(crate) arrived: u64,
    /// Requests that ended.
    pub(crate) ended: u64,
    /// Their durations, microseconds.
    pub(crate) latency_us: u64,
    /// Answers of which the generated tokens are known.
    pub(crate) streams: u64,
    /// Those tokens.
    pub(crate) tokens: u64,
    /// Gaps between tokens.
    pub(crate) gaps: u64,
    /// Their lengths, microseconds.
    pub(crate) gap_us: u64,
}

impl Sums {
    /// Both together.
    pub(crate) fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.ended += other.ended;
        self.latency_us += other.latency_us;
        self.streams += other.streams;
        self.tokens += other.tokens;
        self.gaps += other.gaps;
        self.gap_us += other.gap_us;
    }
}

impl Window {
    /// A request was sent.
    pub(crate) fn arrived(&self, now_ms: u64) {
        self.step(now_ms).arrived.add(1);
    }

    /// A request ended.
    pub(crate) fn ended(&self, now_ms: u64, latency_us: u64) {
        let step = self.step(now_ms);
        step.ended.add(1);
        step.latency_us.add(latency_us);
    }

    /// An answer generated `tokens`, the time from the first to the last being `decoding_us` (0 where not streamed).
    pub(crate) fn generated(&self, now_ms: u64, tokens: u64, decoding_us: u64) {
        let step = self.step(now_ms);
        step.streams.add(1);
        step.tokens.add(tokens);
        if decoding_us > 0 && tokens > 1 {
            step.gaps.add(tokens - 1);
            step.gap_us.add(decoding_us);
        }
    }

    fn step(&self, now_ms: u64) -> &Step {
        let number = now_ms / STEP_MS + 1;
        let step = &self.steps[(number % self.steps.len() as u64) as usize];
        if step.number.load(Relaxed) != number {
            for cell in [
                &step.arrived,
                &step.ended,
                &step.latency_us,
                &step.streams,
                &step.tokens,
                &step.gaps,
                &step.gap_us,
            ] {
                cell.set(0);
            }
            step.number.store(number, Relaxed);
        }
        step
    }

    /// What the window holds at `now_ms`.
    pub(crate) fn sums(&self, now_ms: u64) -> Sums {
        let now = now_ms / STEP_MS + 1;
        let mut sums = Sums::default();
        for step in &self.steps {
            let number = step.number.load(Relaxed);
            if number != 0 && number <= now && number + (STEPS as u64) > now {
                sums.add(&Sums {
                    arrived: step.arrived.get(),
                    ended: step.ended.get(),
                    latency_us: step.latency_us.get(),
                    streams: step.streams.get(),
                    tokens: step.tokens.get(),
                    gaps: step.gaps.get(),
                    gap_us: step.gap_us.get(),
                });
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_one_minute_and_forgets_it() {
        let window = Window::default();
        window.arrived(1_000);
        window.arrived(4_000);
        window.arrived(30_000);
        window.ended(31_000, 500);
        window.generated(31_000, 11, 1_000);
        window.generated(31_000, 1, 1_000);
        let now = window.sums(59_000);
        assert_eq!((now.arrived, now.ended, now.latency_us), (3, 1, 500));
        assert_eq!((now.streams, now.tokens, now.gaps, now.gap_us), (2, 12, 10, 1_000));
        assert_eq!(window.sums(60_000).arrived, 1, "the first step has left");
        assert_eq!(window.sums(90_000), Sums::default());
        window.arrived(1_000_000);
        assert_eq!(window.sums(1_000_000).arrived, 1, "a step is used again");
    }
}

//! Numbers that say how busy, how fast and how healthy an endpoint is: moving averages, and measures of a pool's spread.
//!
//! An average is one atomic word of value and time. It forgets: an engine that was slow or faulty once and gets no
//! requests since would otherwise look slow for ever, and so never get one again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Share that one sample of a time has in its average: the last 10 samples or so count.
pub const TIME_SHARE: f32 = 0.1;

/// Share that one request has in the error share: the last 32 requests or so count.
pub const ERROR_SHARE: f32 = 1.0 / 32.0;

/// Averages of times without a sample for this long are unknown again, milliseconds.
pub const TIME_AGE_MAX_MS: u64 = 60_000;

/// The error share halves in this time without a request, milliseconds: half of the longest backoff of the breaker.
pub const ERROR_HALF_LIFE_MS: f32 = 30_000.0;

/// An exponential moving average and the time of its last sample, in one word. Unknown before the first sample.
///
/// Many threads may write; each sample counts once. Relaxed: nothing else is published by it.
#[derive(Debug)]
pub struct Average {
    /// Bits of the `f32` above, time in [`TICK_MS`] below, wrapping after 8 years.
    word: AtomicU64,
}

/// How long it takes tokens computed to count half, milliseconds: four [`RECENT_STEP_MS`].
pub const RECENT_HALF_LIFE_MS: u64 = 4 * RECENT_STEP_MS;

/// Recent tokens fade in steps of this, milliseconds: everybody's at the same moment, so that they compare at any moment.
const RECENT_STEP_MS: u64 = 1 << 14;

/// Steps after which nothing is left.
const FADED_STEPS: usize = 64;

/// What is left after so many steps. After [`FADED_STEPS`] and more, nothing.
const FADED: [f32; FADED_STEPS + 1] = {
    // The fourth root of a half.
    const PER_STEP: f32 = 0.840_896_4;
    let mut left = [1.0; FADED_STEPS + 1];
    left[FADED_STEPS] = 0.0;
    let mut step = 1;
    while step < FADED_STEPS {
        left[step] = left[step - 1] * PER_STEP;
        step += 1;
    }
    left
};

/// Tokens computed of late: a sum that fades, and the step of its last change, in one word.
///
/// Many threads may write; each change counts once. Relaxed: nothing else is published by it.
#[derive(Debug, Default)]
pub struct RecentTokens {
    /// Bits of the `f32` above, step below, wrapping after 2,000 years.
    word: AtomicU64,
}

impl RecentTokens {
    /// Adds tokens, or takes back what turned out not to be computed. Never falls below zero.
    pub fn add(&self, tokens: f32, now_ms: u64) {
        let step = (now_ms / RECENT_STEP_MS) as u32;
        let mut word = self.word.load(Relaxed);
        loop {
            // A clock read before the last writer's does not turn the time back.
            let step = if step.wrapping_sub(word as u32) > u32::MAX / 2 { word as u32 } else { step };
            let sum = (recent_at(word, step) + tokens).max(0.0);
            let changed = u64::from(sum.to_bits()) << 32 | u64::from(step);
            match self.word.compare_exchange_weak(word, changed, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// As if nothing had ever been computed.
    pub(crate) fn clear(&self) {
        self.word.store(0, Relaxed);
    }

    /// What is left of them now.
    pub fn get(&self, now_ms: u64) -> f32 {
        recent_at(self.word.load(Relaxed), (now_ms / RECENT_STEP_MS) as u32)
    }

    /// What is left of each now.
    pub(crate) fn get_all(each: &[Self], now_ms: u64, column: &mut [f32]) {
        // On a busy fleet most were changed within this step; looked at together, they cost hardly more than a copy.
        const TOGETHER: usize = 8;
        let step = (now_ms / RECENT_STEP_MS) as u32;
        let (chunks, rest) = each.as_chunks::<TOGETHER>();
        let (columns, column_rest) = column.as_chunks_mut::<TOGETHER>();
        for (each, column) in chunks.iter().zip(columns) {
            let words = each.each_ref().map(|recent| recent.word.load(Relaxed));
            if words.iter().fold(0, |other, word| other | (*word as u32 ^ step)) == 0 {
                *column = words.map(value);
            } else {
                *column = words.map(|word| recent_at(word, step));
            }
        }
        for (recent, cell) in rest.iter().zip(column_rest) {
            *cell = recent.get(now_ms);
        }
    }
}

fn recent_at(word: u64, step: u32) -> f32 {
    // A reader whose clock was read before the writer's sees nothing faded yet.
    let steps = (step.wrapping_sub(word as u32) as i32).clamp(0, FADED_STEPS as i32);
    value(word) * FADED[steps as usize]
}

/// Unit of an average's time.
const TICK_MS: u64 = 64;

impl Default for Average {
    fn default() -> Self {
        Self { word: AtomicU64::new(pack(f32::NAN, 0)) }
    }
}

impl Average {
    /// Takes a sample whose share in the average is `share`, 0–1. The first one is the average. NaN is no sample.
    pub fn observe(&self, sample: f32, share: f32, now_ms: u64) {
        if sample.is_nan() {
            return;
        }
        self.replace(
            now_ms,
            |value, _| if value.is_nan() { sample } else { value + share * (sample - value) },
        );
    }

    /// The average and the age of its last sample in milliseconds (in steps of 64); NaN and 0 before the first.
    pub fn get(&self, now_ms: u64) -> (f32, u64) {
        let word = self.word.load(Relaxed);
        (value(word), age_ms(word, now_ms))
    }

    fn replace(&self, now_ms: u64, next: impl Fn(f32, u64) -> f32) {
        let mut word = self.word.load(Relaxed);
        loop {
            let changed = pack(next(value(word), age_ms(word, now_ms)), now_ms);
            match self.word.compare_exchange_weak(word, changed, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

fn pack(value: f32, now_ms: u64) -> u64 {
    // The time's low 32 bits are meant: it wraps.
    u64::from(value.to_bits()) << 32 | u64::from((now_ms / TICK_MS) as u32)
}

fn value(word: u64) -> f32 {
    f32::from_bits((word >> 32) as u32)
}

fn age_ms(word: u64, now_ms: u64) -> u64 {
    let ticks = ((now_ms / TICK_MS) as u32).wrapping_sub(word as u32);
    // A reader whose clock was read before the writer's is not 8 years late.
    if ticks > u32::MAX / 2 { 0 } else { u64::from(ticks) * TICK_MS }
}

/// The moving averages of one endpoint that the request path keeps. All NaN until there is something to tell.
#[derive(Debug, Default)]
pub struct Averages {
    first_token_ms: Average,
    token_ms: Average,
    errors: Average,
}

impl Averages {
    /// Takes the time from sending a request to the first byte of its answer's body, milliseconds.
    pub fn observe_first_token(&self, first_token_ms: f32, now_ms: u64) {
        self.first_token_ms.observe(first_token_ms, TIME_SHARE, now_ms);
    }

    /// Takes a request's mean time between two chunks of its answer, milliseconds.
    pub fn observe_token(&self, token_ms: f32, now_ms: u64) {
        self.token_ms.observe(token_ms, TIME_SHARE, now_ms);
    }

    /// Takes the end of a request: whether the engine failed it.
    pub fn observe_end(&self, failed: bool, now_ms: u64) {
        let sample = if failed { 1.0 } else { 0.0 };
        self.errors.replace(now_ms, |value, age_ms| {
            // Unknown counts as faultless: one failure of a new endpoint is not a share of 100 %.
            let value = if value.is_nan() { 0.0 } else { faded(value, age_ms) };
            value + ERROR_SHARE * (sample - value)
        });
    }

    /// Milliseconds to the first byte of an answer; NaN without a sample in the last [`TIME_AGE_MAX_MS`].
    pub fn first_token_ms(&self, now_ms: u64) -> f32 {
        recent(&self.first_token_ms, now_ms)
    }

    /// Milliseconds between two chunks; NaN without a sample in the last [`TIME_AGE_MAX_MS`].
    pub fn token_ms(&self, now_ms: u64) -> f32 {
        recent(&self.token_ms, now_ms)
    }

    /// Share of recent requests that the engine failed, 0–1, fading with [`ERROR_HALF_LIFE_MS`]; NaN before the first.
    pub fn errors(&self, now_ms: u64) -> f32 {
        let (share, age_ms) = self.errors.get(now_ms);
        faded(share, age_ms)
    }
}

fn recent(average: &Average, now_ms: u64) -> f32 {
    let (value, age_ms) = average.get(now_ms);
    if age_ms > TIME_AGE_MAX_MS { f32::NAN } else { value }
}

fn faded(share: f32, age_ms: u64) -> f32 {
    if age_ms < TICK_MS * 2 || share == 0.0 {
        return share;
    }
    share * (-(age_ms as f32) / ERROR_HALF_LIFE_MS).exp2()
}

/// Mean of the known numbers; NaN when none is known.
pub fn mean(numbers: &[f32]) -> f32 {
    let (mut sum, mut known) = (0.0_f64, 0_u32);
    for number in numbers.iter().filter(|number| !number.is_nan()) {
        sum += f64::from(*number);
        known += 1;
    }
    (sum / f64::from(known)) as f32
}

/// Largest known number over the mean of the known: 1 is even, n is all on one of n. 1 when there is no load at all.
pub fn imbalance(loads: &[f32]) -> f32 {
    let mean = mean(loads);
    let max = loads.iter().copied().fold(f32::NAN, f32::max);
    if mean > 0.0 { max / mean } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_is_unknown_then_its_first_sample_then_follows() {
        let averages = Averages::default();
        assert!(averages.first_token_ms(0).is_nan());
        averages.observe_first_token(100.0, 0);
        assert_eq!(averages.first_token_ms(0), 100.0);
        averages.observe_first_token(200.0, 0);
        assert!((averages.first_token_ms(0) - 110.0).abs() < 1e-4);
        for _ in 0..200 {
            averages.observe_first_token(200.0, 0);
        }
        assert!((averages.first_token_ms(0) - 200.0).abs() < 0.01);
        averages.observe_first_token(f32::NAN, 0);
        assert!(!averages.first_token_ms(0).is_nan());
        assert!(averages.token_ms(0).is_nan(), "each average is its own");
    }

    #[test]
    fn times_without_a_recent_sample_are_unknown_again() {
        let averages = Averages::default();
        averages.observe_token(30.0, 1_000_000);
        assert_eq!(averages.token_ms(1_000_000 + TIME_AGE_MAX_MS), 30.0);
        assert!(averages.token_ms(1_000_000 + TIME_AGE_MAX_MS + 2 * TICK_MS).is_nan());
    }

    #[test]
    fn error_share_rises_with_failures_and_fades_without_requests() {
        let averages = Averages::default();
        assert!(averages.errors(0).is_nan());
        averages.observe_end(true, 0);
        assert!(averages.errors(0) < 0.05, "one failure is not 100 %");
        for _ in 0..200 {
            averages.observe_end(true, 0);
        }
        assert!(averages.errors(0) > 0.99);
        assert!((averages.errors(30_000) - 0.5).abs() < 0.01);
        assert!(averages.errors(600_000) < 0.001);
        averages.observe_end(false, 60_000);
        assert!((averages.errors(60_000) - 0.242).abs() < 0.01, "fades before it follows");
    }

    #[test]
    fn a_clock_read_before_the_last_sample_makes_it_no_older() {
        let averages = Averages::default();
        averages.observe_token(30.0, 10_000);
        assert_eq!(averages.token_ms(9_000), 30.0);
    }

    #[test]
    fn every_sample_counts_once_whoever_writes() {
        let average = Average::default();
        average.observe(0.0, 1.0, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| average.replace(0, |value, _| value + 1.0)));
            }
        });
        assert_eq!(average.get(0).0, 1_000.0);
    }

    #[test]
    fn recent_tokens_add_up_and_halve_in_their_half_life() {
        let recent = RecentTokens::default();
        assert_eq!(recent.get(5), 0.0);
        recent.add(600.0, 1_000_000);
        recent.add(400.0, 1_000_000);
        assert_eq!(recent.get(1_000_000), 1_000.0);
        let later = 1_000_000 + RECENT_HALF_LIFE_MS;
        assert!((recent.get(later) - 500.0).abs() < 0.1);
        recent.add(500.0, later);
        assert!((recent.get(later) - 1_000.0).abs() < 0.1);
        assert_eq!(recent.get(1_000_000), recent.get(later), "a clock read before the last change");
        recent.add(-4_000.0, later);
        assert_eq!(recent.get(later), 0.0, "never less than nothing");
        recent.add(1_000.0, later);
        assert_eq!(recent.get(later + 64 * RECENT_STEP_MS), 0.0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| recent.add(1.0, later)));
            }
        });
        assert_eq!(recent.get(later), 2_000.0, "every change counts once");
    }

    #[test]
    fn imbalance_is_largest_over_mean_of_what_is_known() {
        assert_eq!(imbalance(&[2.0, 2.0, 2.0]), 1.0);
        assert_eq!(imbalance(&[4.0, 0.0, f32::NAN, 0.0, 0.0]), 4.0);
        assert_eq!(imbalance(&[0.0, 0.0]), 1.0);
        assert_eq!(imbalance(&[]), 1.0);
        assert_eq!(mean(&[1.0, f32::NAN, 3.0]), 2.0);
        assert!(mean(&[f32::NAN]).is_nan());
    }
}

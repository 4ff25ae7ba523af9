//! Arithmetic over whole columns, written so that the compiler turns it into vector instructions: no early exit, no branch on a
//! value, a fixed number of independent accumulators. NaN (unknown, or not to be chosen) never wins and never counts.

/// How many numbers are worked on at once: four vectors of four.
const WIDTH: usize = 16;

/// The smallest known value; infinity when there is none.
pub fn min(values: &[f32]) -> f32 {
    let mut low = [f32::INFINITY; WIDTH];
    let (chunks, rest) = values.as_chunks::<WIDTH>();
    for chunk in chunks {
        for (low, value) in low.iter_mut().zip(chunk) {
            *low = if *value < *low { *value } else { *low };
        }
    }
    low.iter().chain(rest).fold(f32::INFINITY, |low, value| if *value < low { *value } else { low })
}

/// The largest known value; minus infinity when there is none.
pub fn max(values: &[f32]) -> f32 {
    let mut high = [f32::NEG_INFINITY; WIDTH];
    let (chunks, rest) = values.as_chunks::<WIDTH>();
    for chunk in chunks {
        for (high, value) in high.iter_mut().zip(chunk) {
            *high = if *value > *high { *value } else { *high };
        }
    }
    high.iter().chain(rest).fold(f32::NEG_INFINITY, |high, value| if *value > high { *value } else { high })
}

/// The sum of the known values, and how many they are.
pub fn sum(values: &[f32]) -> (f32, f32) {
    let known = |value: &f32| if value.is_nan() { 0.0 } else { *value };
    let mut totals = [0.0_f32; WIDTH];
    let mut counts = [0_u32; WIDTH];
    let (chunks, rest) = values.as_chunks::<WIDTH>();
    for chunk in chunks {
        for ((total, count), value) in totals.iter_mut().zip(&mut counts).zip(chunk) {
            *total += known(value);
            *count += u32::from(!value.is_nan());
        }
    }
    let total = totals.iter().sum::<f32>() + rest.iter().map(known).sum::<f32>();
    let count = counts.iter().sum::<u32>() + rest.iter().map(|value| u32::from(!value.is_nan())).sum::<u32>();
    (total, count as f32)
}

/// The mean of the known values; `None` when there is none.
pub fn mean(values: &[f32]) -> Option<f32> {
    let (total, known) = sum(values);
    (known > 0.0).then(|| total / known)
}

/// How many values equal `wanted`.
pub fn count(values: &[f32], wanted: f32) -> u32 {
    values.iter().map(|value| u32::from(*value == wanted)).sum()
}

/// The index of the `nth` value (from 0) that equals `wanted`.
pub fn find(values: &[f32], wanted: f32, nth: u32) -> Option<usize> {
    // Whole blocks are counted at vector speed; only the block that holds the answer is walked.
    const BLOCK: usize = 64;
    let mut left = nth;
    for (block, chunk) in values.chunks(BLOCK).enumerate() {
        let here = count(chunk, wanted);
        if left < here {
            let mut hits = chunk.iter().enumerate().filter(|(_, value)| **value == wanted);
            return hits.nth(left as usize).map(|(at, _)| block * BLOCK + at);
        }
        left -= here;
    }
    None
}

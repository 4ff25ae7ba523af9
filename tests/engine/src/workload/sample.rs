//! Random numbers of the shapes the workloads need; all from one seeded generator.

use std::time::Duration;

use fastrand::Rng;

/// Exponential with this mean: gaps of a Poisson process.
pub(super) fn exponential(rng: &mut Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}

/// Log-normal with this median and this standard deviation of the logarithm.
pub(super) fn log_normal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    median * (sigma * radius * (std::f64::consts::TAU * rng.f64()).cos()).exp()
}

/// A log-normal length in tokens, within bounds.
pub(super) fn tokens(rng: &mut Rng, median: f64, sigma: f64, (min, max): (u32, u32)) -> u32 {
    (log_normal(rng, median, sigma).round() as u32).clamp(min, max)
}

/// One or more, with this mean: how long something goes on that ends with the same chance each time.
pub(super) fn geometric(rng: &mut Rng, mean: f64) -> u32 {
    let going_on = 1.0 - 1.0 / mean.max(1.0);
    let mut n = 1;
    while n < 1_000 && rng.f64() < going_on {
        n += 1;
    }
    n
}

/// A value by its published quantiles `(share, value)`, ascending, log-linear between them.
pub(super) fn quantile(rng: &mut Rng, table: &[(f64, f64)]) -> f64 {
    let u = rng.f64();
    let at = table.partition_point(|(share, _)| *share <= u).clamp(1, table.len() - 1);
    let ((u0, v0), (u1, v1)) = (table[at - 1], table[at]);
    let part = ((u - u0) / (u1 - u0)).clamp(0.0, 1.0);
    (v0.ln() + part * (v1.ln() - v0.ln())).exp()
}

/// Ranks from zero with chance proportional to `1 / (rank + 1)^exponent`.
#[derive(Debug)]
pub(super) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=ranks.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulative }
    }

    pub(super) fn sample(&self, rng: &mut Rng) -> usize {
        let u = rng.f64() * self.cumulative[self.cumulative.len() - 1];
        self.cumulative.partition_point(|sum| *sum <= u).min(self.cumulative.len() - 1)
    }
}

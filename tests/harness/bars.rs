//! Bars: claims whose very length is the claim.
//!
//! A machine that is busy with other things can only make a time longer. So one whole measurement within the bar shows that
//! the bar is held, and what is slow by itself is slow every time. Whoever measures again repeats everything that leads to
//! the number: a second look at what the first has left behind would show something else.

use std::fmt::Debug;
use std::time::Duration;

/// How often something is measured at most.
pub const MEASUREMENTS_MAX: usize = 3;
/// What is waited after a measurement that showed nothing: what kept the machine busy may end meanwhile.
pub const PAUSE: Duration = Duration::from_secs(15);

/// Measures until a measurement is as it should be, and returns that one. `measure` is told how many came before.
///
/// # Panics
/// With all of them when none of [`MEASUREMENTS_MAX`] is.
pub async fn shown<T: Debug>(
    what: &str,
    mut measure: impl AsyncFnMut(usize) -> T,
    is_shown: impl Fn(&T) -> bool,
) -> T {
    let mut missed = Vec::new();
    for before in 0..MEASUREMENTS_MAX {
        let measured = measure(before).await;
        if is_shown(&measured) {
            eprintln!("{what}: {measured:?}, measurement {}", missed.len() + 1);
            return measured;
        }
        eprintln!("{what}: not by {measured:?}");
        missed.push(measured);
        if missed.len() < MEASUREMENTS_MAX {
            tokio::time::sleep(PAUSE).await;
        }
    }
    panic!("{what}: not once in {MEASUREMENTS_MAX} measurements: {missed:#?}");
}

/// The same for one time and its bar, which is within.
///
/// # Panics
/// With all times when none is within.
pub async fn within(what: &str, bar: Duration, measure: impl AsyncFnMut(usize) -> Duration) -> Duration {
    shown(&format!("{what}, within {bar:?}"), measure, |took| *took <= bar).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_measurement_within_the_bar_is_enough() {
        let mut asked = Vec::new();
        let times = [30, 10, 20].map(Duration::from_secs);
        let took = within("a time", times[1], async |before: usize| {
            asked.push(before);
            times[before]
        })
        .await;
        assert_eq!((took, asked), (times[1], vec![0, 1]));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a time, within 9s: not once in 3 measurements")]
    async fn what_is_slow_every_time_is_told_with_its_figures() {
        within("a time", Duration::from_secs(9), async |_| Duration::from_secs(10)).await;
    }
}

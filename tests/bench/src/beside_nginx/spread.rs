//! Numbers of several repeats, and the bars they are held against.

use std::fmt;

/// Repeats of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// Adds a repeat.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }
    /// The middle one; NaN of nothing.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// `min–median–max`.
impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(min), Some(max)) = (self.0.first(), self.0.last()) else { return write!(formatter, "—") };
        let median = self.median();
        let digits = if median.abs() < 10.0 { 2 } else { 1 };
        write!(formatter, "{min:.digits$}–**{median:.digits$}**–{max:.digits$}")
    }
}

/// The value below which `share` of the sorted values are; NaN of nothing.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// One line of the list of bars.
#[derive(Debug)]
pub(crate) struct Bar {
    /// What is measured.
    pub(crate) what: String,
    /// The most it may be.
    pub(crate) most: f64,
    /// What it was.
    pub(crate) got: f64,
    /// Unit of both, with its leading space.
    pub(crate) unit: &'static str,
}

impl Bar {
    /// Whether it was reached.
    pub(crate) fn is_reached(&self) -> bool {
        self.got <= self.most
    }
}

/// Prints the bars as a table; returns whether all were reached.
pub(crate) fn print_bars(bars: &[Bar]) -> bool {
    say(format_args!("\n| bar | most | got | |\n| --- | --- | --- | --- |"));
    for bar in bars {
        let verdict = if bar.is_reached() { "pass" } else { "**FAIL**" };
        let Bar { what, most, got, unit } = bar;
        say(format_args!("| {what} | {most}{unit} | {got:.2}{unit} | {verdict} |"));
    }
    bars.iter().all(Bar::is_reached)
}

/// A line of the report, on standard output. A reader that stopped listening is no error of ours.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted() {
        let spread: Spread = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!(spread.median(), 2.0);
        assert_eq!(spread.to_string(), "1.00–**2.00**–3.00");
        assert!(Spread::default().median().is_nan());
    }

    #[test]
    fn a_bar_without_a_measurement_is_not_reached() {
        assert!(!Bar { what: "x".into(), most: 1.0, got: f64::NAN, unit: "" }.is_reached());
    }
}

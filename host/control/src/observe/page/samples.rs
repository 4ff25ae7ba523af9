//! Samples of one name, and the one number that they make.
//!
//! Engines show one thing several times: each rank of a tensor or pipeline group counts the same requests, and a total
//! stands beside its parts, with a label empty or left out that the parts have. Only what is neither a copy nor a part is
//! added up: replicas of data parallelism, models, workers.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::known::Fold;

/// Different samples of one name; a page with more has no such number.
const SAMPLES_MAX: usize = 128;
/// Labels that tell copies of the same number apart.
const RANKS: [&str; 4] = ["tp_rank", "pp_rank", "moe_ep_rank", "ep_rank"];

/// Samples of one name.
#[derive(Debug, Default)]
pub(super) struct Samples {
    list: Vec<Sample>,
    is_full: bool,
}

/// One sample: its labels as sorted hashes of name and value, without ranks and empty ones.
#[derive(Debug)]
struct Sample {
    labels: Box<[u64]>,
    value: f64,
}

impl Samples {
    /// Takes one sample. Of several with the same labels the highest counts.
    pub(super) fn add(&mut self, labels: &[(Cow<'_, str>, Cow<'_, str>)], value: f64) {
        let said = labels.iter().filter(|(name, value)| !value.is_empty() && !RANKS.contains(&&**name));
        let mut labels: Box<[u64]> = said.map(hash).collect();
        labels.sort_unstable();
        if let Some(known) = self.list.iter_mut().find(|sample| sample.labels == labels) {
            known.value = known.value.max(value);
        } else if self.list.len() < SAMPLES_MAX {
            self.list.push(Sample { labels, value });
        } else {
            self.is_full = true;
        }
    }

    /// What they say together. `None`: there is none, or there are too many.
    pub(super) fn fold(&self, fold: Fold) -> Option<f64> {
        if self.is_full {
            return None;
        }
        let is_part = |sample: &&Sample| self.list.iter().any(|total| total.is_total_of(sample));
        let whole = self.list.iter().filter(|sample| !is_part(sample)).map(|sample| sample.value);
        match fold {
            Fold::Sum => whole.reduce(|sum, value| sum + value),
            Fold::Max => whole.reduce(f64::max),
        }
    }
}

impl Sample {
    /// Whether it has fewer labels than the other, and all of them alike.
    fn is_total_of(&self, other: &Self) -> bool {
        self.labels.len() < other.labels.len()
            && self.labels.iter().all(|label| other.labels.binary_search(label).is_ok())
    }
}

fn hash(label: &(Cow<'_, str>, Cow<'_, str>)) -> u64 {
    let mut hasher = DefaultHasher::new();
    label.hash(&mut hasher);
    hasher.finish()
}

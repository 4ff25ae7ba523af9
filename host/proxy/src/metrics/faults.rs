//! Which policies fail, for whoever has to tell it on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use domain::name::{ObjectName, PolicyName};
use domain::policy::Fault;

use super::Board;
use crate::record::decisions::{EntryLabels, FAULTS};

/// Adds up what workers count of failed calls. A pool that changes takes its counts with it: what was seen before stays in the
/// sum, what failed between the last look and the change is not in it.
#[derive(Debug)]
pub struct FaultWatch {
    board: Arc<Board>,
    known: Mutex<Known>,
}

/// Failed calls of one policy in one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyFaults {
    /// How many since the process started.
    pub count: u64,
    /// The kind that was added last; of several since the look before, the last in the order of the metrics page.
    pub last: Fault,
}

/// Counts by kind.
type Counts = [u64; FAULTS.len()];

#[derive(Debug, Default)]
struct Known {
    /// What the cells showed at the last look.
    shown: HashMap<(ObjectName, PolicyName), Counts>,
    sums: BTreeMap<(ObjectName, PolicyName), PolicyFaults>,
}

impl FaultWatch {
    /// Over the recorders of `board`.
    pub fn new(board: Arc<Board>) -> Self {
        Self { board, known: Mutex::default() }
    }

    /// Every policy that has ever failed.
    pub fn look(&self) -> BTreeMap<(ObjectName, PolicyName), PolicyFaults> {
        let mut shown: HashMap<(ObjectName, PolicyName), Counts> = HashMap::new();
        for cells in self.board.pools.live() {
            for (entry, EntryLabels { name: policy, .. }) in cells.entries.iter().zip(&cells.labels.entries) {
                let counts = shown.entry((cells.labels.gateway.clone(), policy.clone())).or_default();
                for (sum, count) in counts.iter_mut().zip(&entry.faults) {
                    *sum += count.get();
                }
            }
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).take(shown)
    }
}

impl Known {
    fn take(
        &mut self,
        shown: HashMap<(ObjectName, PolicyName), Counts>,
    ) -> BTreeMap<(ObjectName, PolicyName), PolicyFaults> {
        for (name, now) in &shown {
            let before = self.shown.get(name).copied().unwrap_or_default();
            for (kind, (now, before)) in FAULTS.iter().zip(now.iter().zip(before)) {
                // Less than before: the cells are new ones.
                let more = if *now < before { *now } else { now - before };
                if more > 0 {
                    let sum = self.sums.entry(name.clone());
                    let sum = sum.or_insert(PolicyFaults { count: 0, last: *kind });
                    *sum = PolicyFaults { count: sum.count + more, last: *kind };
                }
            }
        }
        self.shown = shown;
        self.sums.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_outlives_the_pools_that_counted_and_tells_the_latest_kind() {
        let name = (ObjectName::new("default", "g"), PolicyName::from("p"));
        let looks =
            |counts: Option<Counts>| counts.map(|counts| (name.clone(), counts)).into_iter().collect();
        let mut known = Known::default();
        // Fuel, memory, trap and so on, as the cells show them; then the sum and its latest kind.
        let table = [
            (None, None),
            (Some([0; 7]), None),
            (Some([2, 0, 1, 0, 0, 0, 0]), Some((3, Fault::Trap))),
            (Some([2, 0, 1, 0, 0, 0, 0]), Some((3, Fault::Trap))),
            (Some([5, 0, 1, 0, 0, 0, 0]), Some((6, Fault::Fuel))),
            (Some([0, 1, 0, 0, 0, 0, 0]), Some((7, Fault::Memory))),
            (None, Some((7, Fault::Memory))),
            (Some([0, 1, 0, 0, 0, 0, 0]), Some((8, Fault::Memory))),
        ];
        for (step, (shown, expected)) in table.into_iter().enumerate() {
            let sums = known.take(looks(shown));
            let expected = expected.map(|(count, last)| PolicyFaults { count, last });
            assert_eq!(sums.get(&name).copied(), expected, "step {step}");
        }
    }
}

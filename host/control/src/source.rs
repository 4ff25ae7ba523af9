//! Where configuration comes from. Every source turns what it sees into [`Burst`]s; the index does not care which.

use domain::finding::Finding;
use manifest::Change;

pub mod directory;
pub mod kubernetes;

/// Bursts that may wait for the index; a source that is faster waits.
pub const BURSTS_MAX: usize = 16;

/// Changes that belong together: nothing is published between the first and the last of them.
#[derive(Debug)]
pub struct Burst {
    /// Which source; its findings replace those of its previous burst.
    pub source: &'static str,
    /// What has changed, in order.
    pub changes: Vec<Change>,
    /// Everything that is wrong in this source now.
    pub findings: Vec<Finding>,
}

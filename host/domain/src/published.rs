//! The one arc-swap: many read ends, one write end.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;

/// Read end. Clone one per worker; take a [`Reader`] from it and load once per request.
#[derive(Clone, Debug)]
pub struct Published(Arc<ArcSwap<Snapshot>>);

/// A worker's own cached view; loading is one atomic compare while nothing changed.
pub type Reader = arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

impl Published {
    /// A cached reader for one worker.
    pub fn reader(&self) -> Reader {
        arc_swap::Cache::new(Arc::clone(&self.0))
    }
    /// The snapshot now, for pages and tests; the request path uses a [`Reader`].
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
    /// Whether anything was ever published: generation 0 is the empty snapshot of the start.
    pub fn is_ready(&self) -> bool {
        self.0.load().generation.0 > 0
    }
}

/// Write end. There is one in the process.
#[derive(Debug)]
pub struct Publisher(Arc<ArcSwap<Snapshot>>);

impl Publisher {
    /// Replaces what every reader sees from its next load on.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.0.store(snapshot);
    }
}

/// Both ends, with an empty snapshot of generation 0 between them.
pub fn published() -> (Publisher, Published) {
    let cell = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    (Publisher(Arc::clone(&cell)), Published(cell))
}

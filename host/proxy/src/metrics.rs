//! The gateway's numbers as a Prometheus collector: cells of all workers, merged when somebody looks.
//!
//! The page has the names of the router that this gateway replaces (`vllm:…`, `router_…`), its labels and buckets, and our
//! own under `wicketgate_…` and `production_stack_…`. Endpoints, models and pools that the snapshot does not hold are not
//! on it: what vanished, vanishes.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::endpoint::Endpoint;
use domain::name::ModelName;
use domain::pool::Pool;
use domain::prefix::PrefixIndex;
use domain::published::Published;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use crate::explain::Log;
use crate::record::cells::{ModelCells, PairCells, ServerCells, WorkerCells};
use crate::record::decisions::PoolCells;

mod family;
mod faults;
mod gateway;
mod machine;
mod page;
mod policy;
mod router;
mod together;

#[cfg(test)]
mod tests;

pub use faults::{FaultWatch, PolicyFaults};
pub use page::MetricsPage;

use family::Page;
use together::Together;

/// Where workers' cells meet: what recorders make is noted here, weakly, and read by the collector.
#[derive(Debug, Default)]
pub struct Board {
    log: Log,
    workers: Mutex<Vec<Arc<WorkerCells>>>,
    models: Notes<ModelCells>,
    servers: Notes<ServerCells>,
    pairs: Notes<PairCells>,
    pools: Notes<PoolCells>,
}

/// Cells that somebody still holds.
#[derive(Debug)]
struct Notes<T>(Mutex<Vec<Weak<T>>>);

impl<T> Default for Notes<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Notes<T> {
    fn add(&self, cells: T) -> Arc<T> {
        let cells = Arc::new(cells);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&cells));
        cells
    }

    /// What lives; the dead are forgotten.
    fn live(&self) -> Vec<Arc<T>> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.retain(|note| note.strong_count() > 0);
        notes.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Board {
    /// An empty one; the process has one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The decision log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn enter(&self, worker: usize) -> Arc<WorkerCells> {
        let cells = Arc::new(WorkerCells::new(worker));
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&cells));
        cells
    }

    pub(crate) fn model(&self, model: &ModelName) -> Arc<ModelCells> {
        self.models.add(ModelCells {
            model: model.clone(),
            created_unix: unix_now(),
            requests: Default::default(),
        })
    }

    pub(crate) fn server(&self, slot: u32) -> Arc<ServerCells> {
        self.servers.add(ServerCells::new(slot))
    }

    pub(crate) fn pair(&self, pool: &Pool, endpoint: &Endpoint, server: Arc<ServerCells>) -> Arc<PairCells> {
        self.pairs.add(PairCells::new(pool, endpoint, server))
    }

    pub(crate) fn pool(&self, pool: &Pool) -> Arc<PoolCells> {
        self.pools.add(PoolCells::new(pool))
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What the collector reads beside the workers' cells.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What is in force.
    pub published: Published,
    /// Zero of the gateway's clock.
    pub epoch: Instant,
    /// The prefix index, where there is one.
    pub prefix_index: Option<Arc<PrefixIndex>>,
}

/// Collects the whole page. Register it once, into the registry that `/metrics` shows.
#[derive(Debug)]
pub struct Collector {
    board: Arc<Board>,
    sources: Sources,
    machine: machine::Machine,
    created_unix: f64,
    descs: Vec<Desc>,
}

impl Collector {
    /// A collector over the recorders of `board`.
    pub fn new(board: Arc<Board>, sources: Sources) -> Self {
        let machine = machine::Machine::default();
        Self { board, sources, machine, created_unix: unix_now(), descs: family::descs() }
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.sources.published.load_full();
        let now_ms = self.sources.epoch.elapsed().as_millis() as u64;
        let workers = self.board.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut page = Page::default();
        router::servers(&mut page, &snapshot, &self.board.servers.live(), now_ms);
        let together = Together::of(&snapshot);
        page.add(family::MODELS_TOGETHER, &[], together.len() as f64);
        router::pairs(&mut page, (&snapshot, &together), &self.board.pairs.live());
        let models = router::Models { cells: &self.board.models.live(), created_unix: self.created_unix };
        router::incoming(&mut page, (&snapshot, &together), models, &workers);
        policy::pools(&mut page, (&snapshot, &together), &self.board.pools.live());
        gateway::workers(&mut page, &workers);
        gateway::state(&mut page, &snapshot);
        if let Some(index) = &self.sources.prefix_index {
            gateway::prefix_index(&mut page, &index.stats());
        }
        self.machine.collect(&mut page);
        page.into_families()
    }
}

//! What the controllers did and what they found, under the names that dashboards of controllers know.
//!
//! Labels are names of controllers, queues, kinds and objects: never anything that a client sent. What is said of an
//! object goes with it ([`ControllerMetrics::forget`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::finding::{Finding, Severity};
use manifest::{Kind, ObjectKey};
use prometheus::core::Collector;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

mod cache;
mod family;
mod gpu;
mod table;

pub(crate) use cache::{CacheSource, CacheSums};
pub(crate) use gpu::GpuMetrics;

use family::{
    ACTIVE, ADDS, CONCURRENCY, CONDITION, DEPTH, ERRORS, FINDINGS, LEADER, RECONCILES, RESOURCES, TOOK,
    WAITED,
};
use table::Table;

/// The name under which the publishing of configuration counts, as controller and as queue.
pub const CONFIGURATION: &str = "configuration";

/// How a reconciliation ended, as controller-runtime tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// Everything is as it should be.
    Success,
    /// It will be tried again.
    Error,
    /// It has to be looked at again at once.
    Requeue,
    /// It has to be looked at again after a while.
    RequeueAfter,
}

impl Reconciled {
    const ALL: [Self; 4] = [Self::Success, Self::Error, Self::Requeue, Self::RequeueAfter];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

/// The numbers of the control plane. Cheap to clone; clones are the same numbers.
#[derive(Clone, Debug)]
pub struct ControllerMetrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    took: HistogramVec,
    concurrency: IntGaugeVec,
    active: IntGaugeVec,
    depth: IntGaugeVec,
    adds: IntCounterVec,
    waited: HistogramVec,
    leader: IntGaugeVec,
    conditions: Table,
    resources: Table,
    findings: IntGaugeVec,
    gpu: GpuMetrics,
    caches: cache::Caches,
}

/// Numbers that nobody looks at, for tests and commands.
impl Default for ControllerMetrics {
    fn default() -> Self {
        Self(Arc::new(Families {
            reconciles: RECONCILES.counters(),
            errors: ERRORS.counters(),
            took: TOOK.histograms(family::RECONCILE_BUCKETS),
            concurrency: CONCURRENCY.gauges(),
            active: ACTIVE.gauges(),
            depth: DEPTH.gauges(),
            adds: ADDS.counters(),
            waited: WAITED.histograms(family::QUEUE_BUCKETS),
            leader: LEADER.gauges(),
            conditions: Table::new(CONDITION),
            resources: Table::new(RESOURCES),
            findings: FINDINGS.gauges(),
            gpu: GpuMetrics::default(),
            caches: cache::Caches::default(),
        }))
    }
}

impl ControllerMetrics {
    /// Numbers that `registry` shows.
    ///
    /// # Errors
    /// When the registry has such families already: it is given to one of these only.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::default();
        let all = &metrics.0;
        let families: [Box<dyn Collector>; 12] = [
            Box::new(all.reconciles.clone()),
            Box::new(all.errors.clone()),
            Box::new(all.took.clone()),
            Box::new(all.concurrency.clone()),
            Box::new(all.active.clone()),
            Box::new(all.depth.clone()),
            Box::new(all.adds.clone()),
            Box::new(all.waited.clone()),
            Box::new(all.leader.clone()),
            Box::new(all.conditions.clone()),
            Box::new(all.resources.clone()),
            Box::new(all.findings.clone()),
        ];
        families.into_iter().try_for_each(|family| registry.register(family))?;
        all.gpu.register(registry)?;
        registry.register(Box::new(all.caches.clone()))?;
        Ok(metrics)
    }

    /// A controller exists, and works on so many objects at a time. Its counts are there from now on, at zero.
    pub fn controller(&self, controller: &'static str, concurrency: usize) {
        self.0.concurrency.with_label_values(&[controller]).set(concurrency as i64);
        self.0.active.with_label_values(&[controller]).set(0);
        self.0.errors.with_label_values(&[controller]);
        for result in Reconciled::ALL {
            self.0.reconciles.with_label_values(&[controller, result.as_str()]);
        }
    }

    /// A controller begins on an object: it is active, and its time runs, until [`Reconciling::ended`].
    pub fn reconciling(&self, controller: &'static str) -> Reconciling<'_> {
        self.0.active.with_label_values(&[controller]).inc();
        Reconciling { metrics: self, controller, began: Instant::now() }
    }

    /// A controller has dealt with an object, which took so long.
    pub fn reconciled(&self, controller: &'static str, result: Reconciled, took: Duration) {
        self.0.reconciles.with_label_values(&[controller, result.as_str()]).inc();
        self.0.took.with_label_values(&[controller]).observe(took.as_secs_f64());
        if result == Reconciled::Error {
            self.0.errors.with_label_values(&[controller]).inc();
        }
    }

    /// So many wait in a queue now.
    pub fn queue_depth(&self, queue: &'static str, depth: usize) {
        self.0.depth.with_label_values(&[queue]).set(depth as i64);
    }

    /// So many were put into a queue.
    pub fn queued(&self, queue: &'static str, count: usize) {
        self.0.adds.with_label_values(&[queue]).inc_by(count as u64);
    }

    /// One was taken out of a queue, in which it waited so long.
    pub fn unqueued(&self, queue: &'static str, waited: Duration) {
        self.0.waited.with_label_values(&[queue]).observe(waited.as_secs_f64());
    }

    /// Whether this replica holds the lease. Who never contends for it never calls this.
    pub fn leader(&self, lease: &str, is_leader: bool) {
        self.0.leader.with_label_values(&[lease]).set(i64::from(is_leader));
    }

    /// An object has these conditions now, as pairs of type and status (`True`, `False`, `Unknown`), and no others.
    pub fn conditions<'a>(
        &self,
        object: &ObjectKey,
        conditions: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let statuses = ["True", "False", "Unknown"];
        let rows = conditions.into_iter().flat_map(|(condition, now)| {
            statuses.map(|status| (vec![condition.to_owned(), status.to_owned()], f64::from(status == now)))
        });
        self.0.conditions.replace_under(&labels(object), rows);
    }

    /// An object is gone.
    pub fn forget(&self, object: &ObjectKey) {
        self.0.conditions.replace_under(&labels(object), []);
    }

    /// So many objects of each kind are known; kinds that are not named are not shown any more.
    pub fn resources(&self, counts: impl IntoIterator<Item = (Kind, usize)>) {
        let rows = counts.into_iter().map(|(kind, count)| (vec![kind.as_str().to_owned()], count as f64));
        self.0.resources.replace_under(&[], rows);
    }

    /// The numbers of GPUs.
    pub(crate) fn gpu(&self) -> GpuMetrics {
        self.0.gpu.clone()
    }

    /// Shows the caches of what `source` tells.
    pub(crate) fn follow_caches(&self, source: CacheSource) {
        self.0.caches.follow(source);
    }

    /// What is wrong now.
    pub(crate) fn findings(&self, findings: &[Finding]) {
        for severity in [Severity::Info, Severity::Warning, Severity::Error] {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            self.0.findings.with_label_values(&[severity.as_str()]).set(count as i64);
        }
    }
}

fn labels(object: &ObjectKey) -> [String; 3] {
    let name = &object.name;
    [object.kind.as_str().to_owned(), name.namespace.to_string(), name.name.to_string()]
}

/// A reconciliation under way. Dropping it without an end (a panic, a shutdown) counts no result.
#[derive(Debug)]
pub struct Reconciling<'a> {
    metrics: &'a ControllerMetrics,
    controller: &'static str,
    began: Instant,
}

impl Reconciling<'_> {
    /// It has ended so.
    pub fn ended(self, result: Reconciled) {
        self.metrics.reconciled(self.controller, result, self.began.elapsed());
    }
}

impl Drop for Reconciling<'_> {
    fn drop(&mut self) {
        self.metrics.0.active.with_label_values(&[self.controller]).dec();
    }
}

#[cfg(test)]
mod tests;

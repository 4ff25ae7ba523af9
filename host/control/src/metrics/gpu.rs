//! What GPU exporters said, and how they do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Registry};

use super::family::{GPU_AGE, GPU_ERRORS, GPU_FREE, GPU_USED, GPU_UTIL};
use super::table::Table;
use crate::observe::gpu::Gpu;

/// Numbers of GPUs. Cheap to clone; clones are the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct GpuMetrics {
    util: Table,
    used: Table,
    free: Table,
    ages: Ages,
    errors: IntCounterVec,
}

/// When each exporter gave numbers last; the age is that of the moment somebody looks.
#[derive(Clone, Debug)]
struct Ages {
    table: Table,
    read: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Default for GpuMetrics {
    fn default() -> Self {
        Self {
            util: Table::new(GPU_UTIL),
            used: Table::new(GPU_USED),
            free: Table::new(GPU_FREE),
            ages: Ages { table: Table::new(GPU_AGE), read: Arc::default() },
            errors: GPU_ERRORS.counters(),
        }
    }
}

impl GpuMetrics {
    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.util.clone()))?;
        registry.register(Box::new(self.used.clone()))?;
        registry.register(Box::new(self.free.clone()))?;
        registry.register(Box::new(self.ages.clone()))?;
        registry.register(Box::new(self.errors.clone()))
    }

    /// An exporter is asked from now on.
    pub(crate) fn watch(&self, exporter: &str) {
        self.read(exporter);
        self.errors.with_label_values(&[exporter]);
    }

    /// An exporter gave numbers.
    pub(crate) fn read(&self, exporter: &str) {
        let mut read = self.ages.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(exporter.to_owned(), Instant::now());
    }

    /// An exporter gave none, or not all.
    pub(crate) fn failed(&self, exporter: &str) {
        self.errors.with_label_values(&[exporter]).inc();
    }

    /// These are the GPUs of now.
    pub(crate) fn show<'a>(&self, gpus: impl Iterator<Item = &'a Gpu>) {
        let (mut util, mut used, mut free) = (Vec::new(), Vec::new(), Vec::new());
        for gpu in gpus {
            let name = &gpu.name;
            let labels = || [&name.namespace, &name.pod, &name.node, &name.gpu].map(|text| text.to_string());
            util.extend(gpu.util_percent.map(|value| (labels().to_vec(), value)));
            used.extend(gpu.used_bytes.map(|value| (labels().to_vec(), value)));
            free.extend(gpu.free_bytes.map(|value| (labels().to_vec(), value)));
        }
        self.util.replace_under(&[], util);
        self.used.replace_under(&[], used);
        self.free.replace_under(&[], free);
    }
}

impl Collector for Ages {
    fn desc(&self) -> Vec<&Desc> {
        self.table.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = read.iter().map(|(exporter, at)| (vec![exporter.clone()], at.elapsed().as_secs_f64()));
        self.table.replace_under(&[], rows);
        self.table.collect()
    }
}

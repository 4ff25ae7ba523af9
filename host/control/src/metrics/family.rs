//! The table of the control plane's metric families.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// One family: name, type, label names, help.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// Declares the families as constants, and a table of all of them.
macro_rules! families {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) const $ident: Family =
            Family { name: $name, kind: stringify!($kind), labels: &[$($label),*], help: $help };)*
        /// Every family, in the order of the reference.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($ident),*];
    };
}

families! {
    RECONCILES = counter "controller_runtime_reconcile_total" ["controller", "result"] "Reconciliations, by how they ended: success, error, requeue, requeue_after.";
    ERRORS = counter "controller_runtime_reconcile_errors_total" ["controller"] "Reconciliations that failed and are tried again.";
    TOOK = histogram "controller_runtime_reconcile_time_seconds" ["controller"] "Time of one reconciliation.";
    CONCURRENCY = gauge "controller_runtime_max_concurrent_reconciles" ["controller"] "Reconciliations that a controller may have under way at a time.";
    ACTIVE = gauge "controller_runtime_active_workers" ["controller"] "Reconciliations under way.";
    DEPTH = gauge "workqueue_depth" ["name"] "Items that wait in a queue.";
    ADDS = counter "workqueue_adds_total" ["name"] "Items that were put into a queue.";
    WAITED = histogram "workqueue_queue_duration_seconds" ["name"] "Time that an item waited in a queue.";
    LEADER = gauge "leader_election_master_status" ["name"] "1 while this replica holds the lease of that name.";
    CONDITION = gauge "production_stack_resource_condition" ["kind", "namespace", "name", "type", "status"] "1 for the status that a condition of an object has, 0 for the others.";
    RESOURCES = gauge "production_stack_resources" ["kind"] "Objects that are known.";
    GPU_UTIL = gauge "production_stack_gpu_utilization_percent" ["namespace", "pod", "node", "gpu"] "Utilisation of a GPU, 0 to 100, as the exporter says; `namespace` and `pod` of who uses it are empty where it does not say.";
    GPU_USED = gauge "production_stack_gpu_memory_used_bytes" ["namespace", "pod", "node", "gpu"] "Memory of a GPU in use, as the exporter says.";
    GPU_FREE = gauge "production_stack_gpu_memory_free_bytes" ["namespace", "pod", "node", "gpu"] "Memory of a GPU that is free, as the exporter says.";
    GPU_AGE = gauge "production_stack_gpu_metrics_age_seconds" ["exporter"] "Time since a GPU exporter gave numbers last, or since the start; after three intervals they count as unknown.";
    GPU_ERRORS = counter "production_stack_gpu_metrics_scrape_errors_total" ["exporter"] "Rounds in which a GPU exporter, or one of its pages, gave no numbers.";
    CACHE_HIT_RATE = gauge "production_stack_cache_hit_rate" ["namespace", "name", "model"] "Share of prompt tokens that hit the prefix caches of the engines behind an InferenceCache, as their pages say, since they started.";
    CACHE_ENTRIES = gauge "production_stack_cache_entries" ["namespace", "name", "model"] "Blocks in use in the KV caches of the engines behind an InferenceCache, as their pages say.";
    CACHE_BYTES = gauge "production_stack_cache_memory_bytes" ["namespace", "name", "model"] "Memory in use in the KV caches of the engines behind an InferenceCache, as their pages say.";
    FINDINGS = gauge "wicketgate_findings" ["severity"] "What is wrong with the configuration now; the admin page `/findings` says what.";
}

/// Bounds of reconciliation times, seconds: those of controller-runtime.
pub(super) const RECONCILE_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0,
    50.0, 60.0,
];
/// Bounds of waiting times, seconds: those of client-go's queues.
pub(super) const QUEUE_BUCKETS: &[f64] =
    &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// Names and labels in the table are constants; a test makes every family.
const LAWFUL: &str = "names and labels in the table are lawful";

impl Family {
    pub(super) fn counters(&self) -> IntCounterVec {
        IntCounterVec::new(Opts::new(self.name, self.help), self.labels).expect(LAWFUL)
    }

    pub(super) fn gauges(&self) -> IntGaugeVec {
        IntGaugeVec::new(Opts::new(self.name, self.help), self.labels).expect(LAWFUL)
    }

    pub(super) fn histograms(&self, buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(self.name, self.help).buckets(buckets.to_vec());
        HistogramVec::new(options, self.labels).expect(LAWFUL)
    }

    pub(super) fn is_counter(&self) -> bool {
        self.kind == "counter"
    }

    pub(super) fn desc(&self) -> prometheus::core::Desc {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        prometheus::core::Desc::new(self.name.to_owned(), self.help.to_owned(), labels, Default::default())
            .expect(LAWFUL)
    }
}

/// The families as a Markdown table, for `docs/metrics.md`.
#[cfg(test)]
pub(super) fn reference() -> String {
    let mut text = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for Family { name, kind, labels, help } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    text
}

//! The table of metric families, and a page to be filled with their samples.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Desc;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::record::cells;

/// One family: name, type, label names, help.
pub(super) struct Family {
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
}

/// Declares the families as constants, and a table of all of them.
macro_rules! families {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $ident: &Family =
            &Family { name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help };)*
        /// Every family, in the order of the page.
        pub(super) const ALL: &[&Family] = &[$($ident),*];
    };
}

families! {
    RUNNING = GAUGE "vllm:num_requests_running" ["server"] "Requests that this gateway has in prefill or decoding there.";
    WAITING = GAUGE "vllm:num_requests_waiting" ["server"] "Requests waiting in the engine, as its own page says.";
    QPS = GAUGE "vllm:current_qps" ["server"] "Requests sent there per second, over 60 s.";
    PREFILL = GAUGE "vllm:num_prefill_requests" ["server"] "Requests sent there whose answer has not begun.";
    DECODING = GAUGE "vllm:num_decoding_requests" ["server"] "Requests sent there whose answer has begun.";
    DECODING_LENGTH = GAUGE "vllm:avg_decoding_length" ["server"] "Tokens generated per request, over 60 s; -1 when unknown.";
    LATENCY_AVERAGE = GAUGE "vllm:avg_latency" ["server"] "Seconds per request, over 60 s; -1 when unknown.";
    ITL = GAUGE "vllm:avg_itl" ["server"] "Seconds between two tokens of a stream, over 60 s; -1 when unknown.";
    SWAPPED = GAUGE "vllm:num_requests_swapped" ["server"] "Always 0: engines do not swap requests any more.";
    PREFIX_HIT_RATE = GAUGE "vllm:gpu_prefix_cache_hit_rate" ["server"] "Share of prompt tokens that hit the engine's prefix cache, as its own page says.";
    PREFIX_HITS = GAUGE "vllm:gpu_prefix_cache_hits_total" ["server"] "Prompt tokens that hit the engine's prefix cache, as its own page says.";
    PREFIX_QUERIES = GAUGE "vllm:gpu_prefix_cache_queries_total" ["server"] "Prompt tokens looked up in the engine's prefix cache, as its own page says.";
    HEALTHY = GAUGE "vllm:healthy_pods_total" ["server"] "1 if requests may go there, 0 while it sleeps, cannot be reached, or has failed and not answered well since.";
    INCOMING = COUNTER "vllm:num_incoming_requests_total" ["model"] "Requests that arrived for a model, whether or not it can be served now.";
    INCOMING_CREATED = GAUGE "vllm:num_incoming_requests_created" ["model"] "Unix time since which these are counted.";
    INPUT_TOKENS = COUNTER "vllm:input_tokens_total" ["server", "model"] "Prompt tokens, as engines reported them.";
    OUTPUT_TOKENS = COUNTER "vllm:output_tokens_total" ["server", "model"] "Generated tokens, as engines reported them.";
    ERRORS = COUNTER "vllm:request_errors_total" ["server", "model", "error_type"] "Requests and attempts that failed at an engine.";
    LATENCY = HISTOGRAM "vllm:request_latency_seconds" ["server", "model", "status"] "Duration of requests, from head to end.";
    CPU = GAUGE "router_cpu_usage_percent" [] "CPU in use on this machine since the last look.";
    MEMORY = GAUGE "router_memory_usage_percent" [] "Memory in use on this machine.";
    DISK = GAUGE "router_disk_usage_percent" [] "Disk in use on the root file system.";
    CACHED_TOKENS = COUNTER "wicketgate_cached_tokens_total" ["server", "model"] "Prompt tokens that engines reported as cached.";
    FIRST_BYTE = HISTOGRAM "wicketgate_first_byte_seconds" ["server", "model"] "From the end of a request's body to the first content of the answer: the first event of a stream that carries some, else the first byte of the body.";
    KV_USAGE = GAUGE "wicketgate_engine_kv_usage_ratio" ["server"] "Share of the engine's KV cache in use, as its own page says.";
    ENGINE_AGE = GAUGE "wicketgate_engine_reading_age_seconds" ["server"] "Time since the engine's own page was last read, or since it is asked for if it never was.";
    EXCLUDED = GAUGE "wicketgate_endpoint_excluded" ["server"] "1 while the endpoint must not be chosen.";
    ROUTE_DECISIONS = COUNTER "production_stack_route_decisions_total" ["gateway", "model", "strategy", "reason"] "Decisions, by the policy that took them and why.";
    ROUTE_SECONDS = HISTOGRAM "production_stack_route_decision_seconds" ["gateway", "model"] "Time to decide, the whole chain and what it asks for.";
    MATCH_RATIO = GAUGE "production_stack_prefix_match_ratio" ["gateway", "model"] "Share of prompt tokens (estimated) believed cached where they were sent, since the start.";
    POLICY_DECISIONS = COUNTER "wicketgate_policy_decisions_total" ["gateway", "model", "policy", "result"] "What a policy answered: chose, scored, refused.";
    POLICY_ABSTENTIONS = COUNTER "wicketgate_policy_abstentions_total" ["gateway", "model", "policy", "reason"] "Decisions that a policy had no part in: abstained, no_session, unavailable.";
    POLICY_FAULTS = COUNTER "wicketgate_policy_faults_total" ["gateway", "model", "policy", "reason"] "Calls of a policy that failed.";
    POLICY_SHADOW = COUNTER "wicketgate_policy_shadow_total" ["gateway", "model", "policy", "result"] "Decisions beside which a shadow policy ran: agreed, differed.";
    POLICY_SECONDS = HISTOGRAM "wicketgate_policy_decision_seconds" ["gateway", "model", "policy"] "Time of one call of a policy.";
    POLICY_FUEL = COUNTER "wicketgate_policy_fuel_total" ["gateway", "model", "policy"] "Fuel used by a policy.";
    POLICY_INSTANCES = GAUGE "wicketgate_policy_instances" ["worker"] "Policy instances that a worker keeps.";
    IN_FLIGHT = GAUGE "wicketgate_requests_in_flight" ["worker"] "Requests in flight on a worker.";
    REQUESTS = COUNTER "wicketgate_requests_total" ["code"] "Requests ended, by the status sent; 0 where none was.";
    FAILURES = COUNTER "wicketgate_failures_total" ["reason"] "Requests that failed, by kind of failure.";
    RETRIES = COUNTER "wicketgate_retries_total" [] "Attempts beyond the first.";
    GENERATION = GAUGE "wicketgate_generation" [] "Generation of the snapshot in force; 0 before the first.";
    MODELS_TOGETHER = GAUGE "wicketgate_models_together" [] "Adapters without series of their own: the 101st of a model and the following, by name. They count under `model=\"other\"`.";
    ADMITTED = GAUGE "wicketgate_gateway_requests_in_flight" ["gateway"] "Requests of a gateway that hold a permit.";
    QUEUED = GAUGE "wicketgate_gateway_requests_queued" ["gateway"] "Requests of a gateway that wait for a permit.";
    INDEX_ENTRIES = GAUGE "wicketgate_prefix_index_entries" [] "Blocks in the prefix index.";
    INDEX_BYTES = GAUGE "wicketgate_prefix_index_bytes" [] "Memory of the prefix index.";
    INDEX_BYTES_MAX = GAUGE "wicketgate_prefix_index_limit_bytes" [] "Bound on the memory of the prefix index.";
    INDEX_EVICTIONS = COUNTER "wicketgate_prefix_index_evictions_total" [] "Blocks that made room for others.";
    INDEX_SKIPPED = COUNTER "wicketgate_prefix_index_skipped_total" [] "Holders that were not noted, for want of room.";
    INDEX_LOOKUPS = COUNTER "wicketgate_prefix_index_lookups_total" [] "Prompts looked up.";
    INDEX_HITS = COUNTER "wicketgate_prefix_index_hits_total" [] "Prompts of which a part was found.";
}

/// Descriptions for the registry.
pub(super) fn descs() -> Vec<Desc> {
    let desc = |family: &&Family| {
        let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
            .expect("names and labels in the table are lawful")
    };
    ALL.iter().map(desc).collect()
}

/// The families as a Markdown table, for `docs/metrics.md`.
#[cfg(test)]
pub(super) fn reference() -> String {
    let mut text = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for Family { name, kind, labels, help } in ALL {
        let kind = format!("{kind:?}").to_lowercase();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    text
}

/// Samples by family and label values. Adding to the same labels twice adds up: that is how workers are merged.
#[derive(Default)]
pub(super) struct Page {
    samples: HashMap<&'static str, BTreeMap<Vec<String>, Sample>>,
}

enum Sample {
    Number(f64),
    Histogram(Merged),
}

#[derive(Default)]
struct Merged {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    sum_seconds: f64,
}

impl Page {
    /// Adds to a number.
    pub(super) fn add(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        let sample = self.sample(family, labels, || Sample::Number(0.0));
        if let Sample::Number(number) = sample {
            *number += value;
        }
    }

    /// Adds to a number where it is known.
    pub(super) fn add_known(&mut self, family: &'static Family, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(family, labels, value);
        }
    }

    /// Adds to a number where it is not zero: for labels that are a fixed table of rare things.
    pub(super) fn add_some(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        if value > 0 {
            self.add(family, labels, value as f64);
        }
    }

    /// Merges a histogram.
    pub(super) fn merge(&mut self, family: &'static Family, labels: &[&str], histogram: &cells::Histogram) {
        let sample = self.sample(family, labels, || Sample::Histogram(Merged::default()));
        let Sample::Histogram(merged) = sample else { return };
        if merged.counts.is_empty() {
            merged.bounds = histogram.bounds.iter().map(std::time::Duration::as_secs_f64).collect();
            merged.counts = vec![0; histogram.counts.len()];
        }
        for (sum, cell) in merged.counts.iter_mut().zip(&histogram.counts) {
            *sum += cell.get();
        }
        merged.sum_seconds += histogram.sum_ns.get() as f64 / 1e9;
    }

    fn sample(&mut self, family: &'static Family, labels: &[&str], new: fn() -> Sample) -> &mut Sample {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let key = labels.iter().map(|label| (*label).to_owned()).collect();
        self.samples.entry(family.name).or_default().entry(key).or_insert_with(new)
    }

    /// The page for the registry. Families without samples are left out.
    pub(super) fn into_families(mut self) -> Vec<MetricFamily> {
        let full = ALL.iter().filter_map(|family| {
            let samples = self.samples.remove(family.name)?;
            let mut out = MetricFamily::default();
            out.set_name(family.name.to_owned());
            out.set_help(family.help.to_owned());
            out.set_field_type(family.kind);
            out.set_metric(
                samples.into_iter().map(|(labels, sample)| metric(family, labels, sample)).collect(),
            );
            Some(out)
        });
        full.collect()
    }
}

fn metric(family: &Family, labels: Vec<String>, sample: Sample) -> Metric {
    let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    match sample {
        Sample::Number(value) if family.kind == MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Sample::Number(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        Sample::Histogram(merged) => metric.set_histogram(merged.into_histogram()),
    }
    metric
}

impl Merged {
    fn into_histogram(self) -> Histogram {
        let mut out = Histogram::default();
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        out.set_bucket(buckets);
        out.set_sample_count(self.counts.iter().sum());
        out.set_sample_sum(self.sum_seconds);
        out
    }
}

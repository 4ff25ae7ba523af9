//! The metrics page, under the names of several engines.

use std::fmt::Write as _;

use super::wire::lock;
use super::{Mode, Shared};
use crate::core::{Load, Totals};

/// Whose names the metrics page uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MetricsPage {
    /// vLLM since 0.10: `vllm:kv_cache_usage_perc`, `vllm:prefix_cache_hits_total`, …
    #[default]
    Vllm,
    /// vLLM before: `vllm:gpu_cache_usage_perc`, `vllm:gpu_prefix_cache_hits_total`, …
    VllmOld,
    /// `sglang:num_running_reqs`, `sglang:num_queue_reqs`, `sglang:token_usage`, …
    Sglang,
    /// `llamacpp:requests_processing`, `llamacpp:requests_deferred`, `llamacpp:kv_cache_usage_ratio`.
    LlamaCpp,
    /// `trtllm_num_requests_running`, `trtllm_num_requests_waiting`, `trtllm_kv_cache_utilization`.
    TensorRt,
    /// This text, as it is.
    Text(String),
    /// 404.
    Absent,
}

/// Numbers to report instead of the true ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Requests running.
    pub running: f64,
    /// Requests waiting.
    pub waiting: f64,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_usage: f64,
}

/// The page as it is now; `None` when there shall be none.
pub(super) fn page(shared: &Shared) -> Option<String> {
    let (load, totals) = match &shared.simulator {
        Some(simulator) => (simulator.load(), simulator.totals()),
        None => {
            let running = shared.counts.borrow().in_flight as u32;
            (Load { running, ..Load::default() }, Totals::default())
        }
    };
    let own = Signals {
        running: f64::from(load.running),
        waiting: f64::from(load.waiting),
        kv_usage: load.kv_usage,
    };
    let signals = lock(&shared.signals).unwrap_or(own);
    let model = &shared.config.models[0];
    let labels = format!("{{engine=\"0\",model_name=\"{model}\"}}");
    let mut page = Page { text: String::new(), labels };
    match &*lock(&shared.metrics) {
        MetricsPage::Vllm => {
            vllm(&mut page, signals, &totals, ["kv_cache_usage_perc", "prefix_cache"]);
            cache_config(&mut page, &shared.config.mode);
        }
        MetricsPage::VllmOld => {
            vllm(&mut page, signals, &totals, ["gpu_cache_usage_perc", "gpu_prefix_cache"]);
            cache_config(&mut page, &shared.config.mode);
        }
        MetricsPage::Sglang => sglang(&mut page, signals, &totals),
        MetricsPage::LlamaCpp => {
            page.labels.clear();
            page.gauge("llamacpp:requests_processing", signals.running);
            page.gauge("llamacpp:requests_deferred", signals.waiting);
            page.gauge("llamacpp:kv_cache_usage_ratio", signals.kv_usage);
            page.counter("llamacpp:prompt_tokens_total", totals.prefilled_tokens);
            page.counter("llamacpp:tokens_predicted_total", totals.generated_tokens);
        }
        MetricsPage::TensorRt => {
            page.gauge("trtllm_num_requests_running", signals.running);
            page.gauge("trtllm_num_requests_waiting", signals.waiting);
            page.gauge("trtllm_kv_cache_utilization", signals.kv_usage);
        }
        MetricsPage::Text(text) => page.text.clone_from(text),
        MetricsPage::Absent => return None,
    }
    Some(page.text)
}

fn vllm(page: &mut Page, signals: Signals, totals: &Totals, [usage, cache]: [&str; 2]) {
    page.gauge("vllm:num_requests_running", signals.running);
    page.gauge("vllm:num_requests_waiting", signals.waiting);
    page.gauge(&format!("vllm:{usage}"), signals.kv_usage);
    page.counter(&format!("vllm:{cache}_queries_total"), totals.queried_tokens);
    page.counter(&format!("vllm:{cache}_hits_total"), totals.cached_tokens);
    page.counter("vllm:num_preemptions_total", totals.preempted);
    page.counter("vllm:prompt_tokens_total", totals.queried_tokens);
    page.counter("vllm:generation_tokens_total", totals.generated_tokens);
    page.head("vllm:request_success_total", "counter");
    for (reason, count) in [("stop", 0), ("length", totals.finished), ("abort", totals.aborted)] {
        let labels = page.labels.replace(",model_name", &format!(",finished_reason=\"{reason}\",model_name"));
        page.sample("vllm:request_success_total", &labels, count as f64);
    }
}

/// The room of a simulated KV cache, told as vLLM tells it: in labels.
fn cache_config(page: &mut Page, mode: &Mode) {
    if let Mode::Simulated(core) = mode {
        page.head("vllm:cache_config_info", "gauge");
        let (size, blocks) = (core.block_tokens, core.kv_blocks);
        let labels = format!("{{block_size=\"{size}\",engine=\"0\",num_gpu_blocks=\"{blocks}\"}}");
        page.sample("vllm:cache_config_info", &labels, 1.0);
    }
}

fn sglang(page: &mut Page, signals: Signals, totals: &Totals) {
    page.labels = page.labels.replace("engine=\"0\",", "");
    page.gauge("sglang:num_running_reqs", signals.running);
    page.gauge("sglang:num_queue_reqs", signals.waiting);
    page.gauge("sglang:token_usage", signals.kv_usage);
    page.gauge("sglang:cache_hit_rate", totals.cached_tokens as f64 / totals.queried_tokens.max(1) as f64);
    page.counter("sglang:prompt_tokens_total", totals.queried_tokens);
    page.counter("sglang:generation_tokens_total", totals.generated_tokens);
}

struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn gauge(&mut self, name: &str, value: f64) {
        self.head(name, "gauge");
        let labels = self.labels.clone();
        self.sample(name, &labels, value);
    }

    fn counter(&mut self, name: &str, value: u64) {
        self.head(name, "counter");
        let labels = self.labels.clone();
        self.sample(name, &labels, value as f64);
    }

    fn head(&mut self, name: &str, kind: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} Of the simulated engine.\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.text, "{name}{labels} {value:?}");
    }
}

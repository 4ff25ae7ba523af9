//! The engine whose GPU and cache have the most room.
//!
//! Each endpoint gets a load from 0 to 1: the weighted mean of what its engine and its GPU report (KV cache in use, GPU
//! utilisation, GPU memory), of its queue and of what this gateway has in flight there. Queue and in flight have no natural
//! upper end, so they count relative to the fullest endpoint.
//!
//! What an engine reports may be missing, or older than `staleAfterMs`; what a GPU exporter reports is missing as soon as it is
//! old. Such a number says nothing about its endpoint, which then counts as the mean of the others: neither a magnet nor a leper.
//! When nobody reports anything, what is in flight decides alone.
//!
//! Scores of the policies before this one are traded against the load: the choice is the highest
//! `affinity × score − load`, ties by fewest in flight, then in turn. The score of an endpoint whose KV cache is full
//! (`evictionThreshold`) counts nothing while another has room: what it held for the request is on its way out, and so is the
//! request.

use wicketgate_sdk::{
    About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, choose, lanes,
};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "weights": {
      "type": "object",
      "description": "How much each part counts. Only their proportions matter; one of them must be above 0.",
      "properties": {
        "kvUsage": {"type": "number", "minimum": 0, "maximum": 100, "default": 1, "description": "Share of the KV cache in use."},
        "gpuUtil": {"type": "number", "minimum": 0, "maximum": 100, "default": 0.5, "description": "GPU utilisation."},
        "gpuMemory": {"type": "number", "minimum": 0, "maximum": 100, "default": 0.25, "description": "Share of GPU memory in use."},
        "queue": {"type": "number", "minimum": 0, "maximum": 100, "default": 1, "description": "Requests running and waiting in the engine."},
        "inflight": {"type": "number", "minimum": 0, "maximum": 100, "default": 1, "description": "Requests this gateway has in flight."}
      },
      "additionalProperties": false
    },
    "affinity": {
      "type": "number", "minimum": 0, "maximum": 100, "default": 1,
      "description": "What a full score of the policies before this one is worth, in loads from 0 to 1."
    },
    "evictionThreshold": {
      "type": "number", "minimum": 0, "maximum": 1, "default": 0.9,
      "description": "KV cache usage from which an endpoint's score counts nothing. Default: the pool's."
    },
    "staleAfterMs": {
      "type": "integer", "minimum": 100, "maximum": 3600000, "default": 15000,
      "description": "Older numbers of an engine count as missing. Three scrape periods is a good value."
    },
    "pool": {"type": "object"}
  },
  "additionalProperties": false
}"#;

/// The policy.
#[derive(Debug)]
pub struct GpuLoadAware {
    weights: Weights,
    affinity: f32,
    eviction: f32,
    stale_after_ms: f32,
    /// 1 ÷ weight, by endpoint.
    share: Vec<f32>,
}

/// How much each part of the load counts.
#[derive(Clone, Copy, Debug)]
struct Weights {
    kv_usage: f32,
    gpu_util: f32,
    gpu_memory: f32,
    queue: f32,
    inflight: f32,
}

impl Policy for GpuLoadAware {
    const ABOUT: About = About {
        config_schema: SCHEMA,
        signals: &[
            Signal::KvUsage,
            Signal::GpuUtil,
            Signal::GpuMemory,
            Signal::Queued,
            Signal::Running,
            Signal::InFlight,
            Signal::AgeMs,
        ],
        ..About::new(
            "gpu-load-aware",
            env!("CARGO_PKG_VERSION"),
            "The engine whose KV cache, GPU and queue have the most room.",
        )
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        let weights = settings.section("weights", Weights::read)?;
        if weights.total() <= 0.0 {
            return Err(settings.refuse("weights", "one of the weights must be above 0"));
        }
        let affinity = settings.number("affinity", 1.0, 0.0..=100.0)? as f32;
        let eviction = settings.pool(|pool| pool.number("evictionThreshold", 0.9, 0.0..=1.0))?;
        let eviction = settings.number("evictionThreshold", eviction, 0.0..=1.0)? as f32;
        let stale_after_ms = settings.integer("staleAfterMs", 15_000, 100..=3_600_000)? as f32;
        Ok(Self { weights, affinity, eviction, stale_after_ms, share: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let known = |(count, share): (&f32, &f32)| if count.is_nan() { 0.0 } else { count * share };
        let mut inflight: Vec<f32> =
            fleet.column(Signal::InFlight).iter().zip(&self.share).map(known).collect();
        // From here on, whom the request may not go to is NaN and counts in no mean and no maximum.
        fleet.mask(&mut inflight);
        let fresh = self.fresh(fleet, &inflight);
        let load = self.load(fleet, &inflight, &fresh);
        let values: Vec<f32> = match fleet.scores() {
            None => load.iter().map(|load| -load).collect(),
            Some(scores) => {
                let worth = self.worth(fleet.column(Signal::KvUsage), &fresh, &inflight);
                let parts = load.iter().zip(scores).zip(&worth);
                parts.map(|((load, score), worth)| worth * score - load).collect()
            }
        };
        let best = lanes::max(&values);
        let among_equals = |(value, count): (&f32, &f32)| if *value == best { *count } else { f32::NAN };
        let tied: Vec<f32> = values.iter().zip(&inflight).map(among_equals).collect();
        Decision::endpoint_or_abstain(choose::by_turn(&tied, lanes::min(&tied), request.ticket))
    }
}

impl GpuLoadAware {
    /// 0 for an endpoint whose engine's numbers count, NaN for one whose numbers do not: an engine of unknown age is one nobody
    /// asked.
    fn fresh(&self, fleet: &Fleet<'_>, inflight: &[f32]) -> Vec<f32> {
        let ages = fleet.column(Signal::AgeMs).iter().zip(inflight);
        ages.map(|(age, inflight)| if *age <= self.stale_after_ms { inflight * 0.0 } else { f32::NAN })
            .collect()
    }

    /// What a full score is worth at each endpoint: nothing where the KV cache is full, unless it is everywhere.
    fn worth(&self, kv_usage: &[f32], fresh: &[f32], inflight: &[f32]) -> Vec<f32> {
        let usage: Vec<f32> = kv_usage.iter().zip(fresh).map(|(usage, fresh)| usage + fresh).collect();
        // Comparisons with what is unknown (NaN) are false: such an engine is not full.
        let is_full = |usage: f32| usage >= self.eviction;
        let has_room = usage.iter().zip(inflight).any(|(usage, may)| !may.is_nan() && !is_full(*usage));
        let worth = |usage: &f32| if has_room && is_full(*usage) { 0.0 } else { self.affinity };
        usage.iter().map(worth).collect()
    }

    /// The load of every endpoint, 0 to 1, NaN where the request may not go.
    fn load(&self, fleet: &Fleet<'_>, inflight: &[f32], fresh: &[f32]) -> Vec<f32> {
        // What exporters say is never old, and has nothing to do with the engine's own page.
        let zero = vec![0.0; inflight.len()];
        let candidate: Vec<f32> = inflight.iter().map(|inflight| inflight * 0.0).collect();
        let (queued, running) = (fleet.column(Signal::Queued), fleet.column(Signal::Running));
        let queue: Vec<f32> =
            queued.iter().zip(running).zip(&self.share).map(|((q, r), s)| (q + r) * s).collect();
        let mut total = Total { load: vec![0.0; inflight.len()], weight: 0.0 };
        total.add(self.weights.kv_usage, fleet.column(Signal::KvUsage), fresh, Scale::Share);
        total.add(self.weights.gpu_util, fleet.column(Signal::GpuUtil), &candidate, Scale::Share);
        total.add(self.weights.gpu_memory, fleet.column(Signal::GpuMemory), &candidate, Scale::Share);
        total.add(self.weights.queue, &queue, fresh, Scale::Fullest);
        // With nothing reported by anybody, in flight decides even where its weight is 0.
        let own = if total.weight > 0.0 { self.weights.inflight } else { 1.0 };
        total.add(own, inflight, &zero, Scale::Fullest);
        total.load.iter().zip(inflight).map(|(load, inflight)| load / total.weight + inflight * 0.0).collect()
    }
}

impl Weights {
    fn read(settings: &mut Settings) -> Result<Self, ConfigError> {
        let mut weight =
            |key, default| settings.number(key, default, 0.0..=100.0).map(|weight| weight as f32);
        Ok(Self {
            kv_usage: weight("kvUsage", 1.0)?,
            gpu_util: weight("gpuUtil", 0.5)?,
            gpu_memory: weight("gpuMemory", 0.25)?,
            queue: weight("queue", 1.0)?,
            inflight: weight("inflight", 1.0)?,
        })
    }

    fn total(self) -> f32 {
        self.kv_usage + self.gpu_util + self.gpu_memory + self.queue + self.inflight
    }
}

/// What a column is measured against.
#[derive(Clone, Copy)]
enum Scale {
    /// It is a share already.
    Share,
    /// The largest of the fleet.
    Fullest,
}

/// The load so far, and the weight of the parts that said anything.
struct Total {
    load: Vec<f32>,
    weight: f32,
}

impl Total {
    /// Adds a part. `fresh` is 0 where its numbers count, NaN where they do not; those endpoints get the mean of the others. A part
    /// that is known of nobody is left out.
    fn add(&mut self, weight: f32, column: &[f32], fresh: &[f32], scale: Scale) {
        if weight == 0.0 {
            return;
        }
        let part: Vec<f32> = column.iter().zip(fresh).map(|(value, fresh)| value + fresh).collect();
        let Some(mean) = lanes::mean(&part) else { return };
        let full = match scale {
            Scale::Share => 1.0,
            Scale::Fullest => lanes::max(&part).max(1.0),
        };
        let factor = weight / full;
        for (load, value) in self.load.iter_mut().zip(&part) {
            *load += if value.is_nan() { mean } else { *value } * factor;
        }
        self.weight += weight;
    }
}

wicketgate_sdk::export!(GpuLoadAware);

#[cfg(test)]
mod tests {
    use wicketgate_sdk::testing::{Case, Harness, check_description, pool, refusal, weighted_pool};

    use super::*;

    const UNKNOWN: f32 = f32::NAN;

    /// Fresh numbers of three engines of which nothing is known but their KV cache.
    fn kv(usage: [f32; 3]) -> Case {
        let idle = Case::new().column(Signal::InFlight, [0.0; 3]).column(Signal::AgeMs, [500.0; 3]);
        idle.column(Signal::KvUsage, usage)
    }

    fn choose(config: &str, case: &Case) -> Option<usize> {
        Harness::<GpuLoadAware>::new(config, &pool(3)).choose(case)
    }

    #[test]
    fn the_emptiest_engine_is_chosen() {
        let table = [
            (kv([0.9, 0.2, 0.5]), 1),
            (kv([0.9, 0.2, 0.5]).excluded([1]), 2),
            (kv([0.5; 3]).column(Signal::GpuUtil, [0.9, 0.9, 0.1]), 2),
            (kv([0.5; 3]).column(Signal::GpuMemory, [0.2, 0.9, 0.9]), 0),
            (kv([0.5; 3]).column(Signal::InFlight, [3.0, 1.0, 3.0]), 1),
            (
                kv([0.5; 3]).column(Signal::Queued, [9.0, 1.0, 0.0]).column(Signal::Running, [1.0, 5.0, 9.0]),
                1,
            ),
        ];
        for (case, expected) in table {
            assert_eq!(choose("{}", &case), Some(expected), "{case:?}");
        }
    }

    #[test]
    fn who_reports_nothing_counts_as_the_mean_of_the_others() {
        assert_eq!(choose("{}", &kv([0.2, UNKNOWN, 0.8])), Some(0));
        assert_eq!(
            choose("{}", &kv([0.2, UNKNOWN, 0.8]).excluded([0])),
            Some(1),
            "alone with its equal: a turn"
        );
        let old = kv([0.9, 0.0, 0.5]).column(Signal::AgeMs, [500.0, 15_001.0, 500.0]);
        assert_eq!(choose("{}", &old), Some(2), "old numbers are none");
        assert_eq!(choose(r#"{"staleAfterMs":20000}"#, &old), Some(1));
    }

    #[test]
    fn with_nothing_reported_in_flight_decides() {
        let silent = Case::new().column(Signal::InFlight, [3.0, 2.0, 4.0]);
        assert_eq!(choose("{}", &silent), Some(1));
        assert_eq!(choose(r#"{"weights":{"inflight":0}}"#, &silent), Some(1), "whatever its weight");
        let idle = Case::new().column(Signal::InFlight, [0.0; 3]);
        assert_eq!(choose("{}", &idle.ticket(5)), Some(2), "and among idle ones it is a rotation");
    }

    #[test]
    fn scores_are_traded_against_load() {
        let case = kv([0.8, 0.1, 0.5]).scores([1.0, 0.0, 0.5]);
        assert_eq!(choose("{}", &case), Some(0), "a full score is worth a full load");
        assert_eq!(choose(r#"{"affinity":0.1}"#, &case), Some(1));
        assert_eq!(choose("{}", &kv([0.9, 0.1, 0.5]).scores([UNKNOWN, UNKNOWN, 0.0])), Some(2));
    }

    #[test]
    fn what_an_exporter_says_counts_whether_or_not_the_engine_says_anything() {
        let silent = Case::new().column(Signal::InFlight, [0.0; 3]);
        assert_eq!(choose("{}", &silent.clone().column(Signal::GpuUtil, [0.9, 0.1, 0.5])), Some(1));
        let old = silent.column(Signal::AgeMs, [60_000.0; 3]);
        assert_eq!(choose("{}", &old.clone().column(Signal::GpuUtil, [0.9, 0.1, 0.5])), Some(1));
        assert_eq!(choose("{}", &old.column(Signal::GpuUtil, [0.9, 0.1, 0.5]).excluded([1])), Some(2));
    }

    #[test]
    fn a_full_cache_lets_its_requests_go_while_another_has_room() {
        let affine = |usage: [f32; 3]| kv(usage).scores([1.0, 0.1, 0.1]);
        assert_eq!(choose("{}", &affine([0.89, 0.5, 0.6])), Some(0), "not full yet");
        assert_eq!(choose("{}", &affine([0.9, 0.5, 0.6])), Some(1), "full");
        assert_eq!(choose("{}", &affine([0.9, 0.5, 0.6]).excluded([1])), Some(2));
        assert_eq!(choose("{}", &affine([0.9, 0.95, 0.97])), Some(0), "nobody has room");
        assert_eq!(choose("{}", &affine([0.9, 0.5, 0.97]).excluded([1])), Some(0), "nobody else has room");
        assert_eq!(choose("{}", &affine([0.9, UNKNOWN, 0.97])), Some(1), "unknown is not full");
        let old = affine([0.9, 0.5, 0.6]).column(Signal::AgeMs, [60_000.0, 1.0, 1.0]);
        assert_eq!(choose("{}", &old), Some(0), "what it said long ago does not count");
        assert_eq!(choose(r#"{"pool":{"evictionThreshold":0.95}}"#, &affine([0.9, 0.5, 0.6])), Some(0));
        assert_eq!(choose(r#"{"evictionThreshold":0.8}"#, &affine([0.85, 0.5, 0.6])), Some(1));
    }

    #[test]
    fn ties_go_to_the_fewest_in_flight() {
        let case = kv([0.5; 3]).column(Signal::InFlight, [2.0, 1.0, 2.0]);
        assert_eq!(choose(r#"{"weights":{"inflight":0}}"#, &case), Some(1));
    }

    #[test]
    fn weight_buys_room() {
        let policy = Harness::<GpuLoadAware>::new("{}", &weighted_pool(&[1, 4, 1]));
        assert_eq!(policy.choose(&kv([0.5; 3]).column(Signal::InFlight, [2.0, 6.0, 2.0])), Some(1));
    }

    #[test]
    fn settings_are_checked() {
        check_description::<GpuLoadAware>();
        let table = [
            (r#"{"weights":{"kvUsage":-1}}"#, "/weights/kvUsage"),
            (r#"{"weights":{"kv":1}}"#, "/weights/kv"),
            (r#"{"weights":{"kvUsage":0,"gpuUtil":0,"gpuMemory":0,"queue":0,"inflight":0}}"#, "/weights"),
            (r#"{"affinity":"much"}"#, "/affinity"),
            (r#"{"evictionThreshold":2}"#, "/evictionThreshold"),
            (r#"{"pool":{"evictionThreshold":2}}"#, "/pool/evictionThreshold"),
            (r#"{"staleAfterMs":1.5}"#, "/staleAfterMs"),
        ];
        for (config, path) in table {
            assert_eq!(refusal::<GpuLoadAware>(config).path, path, "{config}");
        }
    }
}

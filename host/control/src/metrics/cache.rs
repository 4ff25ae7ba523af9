//! What the engines behind each `InferenceCache` say of their caches, put together when somebody looks.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use domain::endpoint::{ENGINE_NUMBERS_AGE_MAX_MS, EndpointId, EngineReading};
use domain::name::ObjectName;
use domain::published::Published;
use domain::snapshot::Snapshot;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use tokio::sync::watch;

use super::family::{CACHE_BYTES, CACHE_ENTRIES, CACHE_HIT_RATE};
use super::table::Table;
use crate::clock::Clock;
use crate::publish::{Facts, Report};

/// Numbers of caches. Cheap to clone; clones are the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Caches {
    hit_rate: Table,
    entries: Table,
    bytes: Table,
    source: Arc<OnceLock<CacheSource>>,
}

/// Where the numbers come from.
#[derive(Debug)]
pub(crate) struct CacheSource {
    /// Which caches there are, and who uses them.
    pub(crate) reports: watch::Receiver<Report>,
    /// The endpoints' numbers.
    pub(crate) published: Published,
    /// Tells which of them are old.
    pub(crate) clock: Clock,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            hit_rate: Table::new(CACHE_HIT_RATE),
            entries: Table::new(CACHE_ENTRIES),
            bytes: Table::new(CACHE_BYTES),
            source: Arc::default(),
        }
    }
}

impl Caches {
    /// Says where the numbers come from; the first to say so is believed.
    pub(crate) fn follow(&self, source: CacheSource) {
        let _ = self.source.set(source);
    }

    fn read(&self, source: &CacheSource) {
        let facts = Arc::clone(&source.reports.borrow().facts);
        let rows = rows(&facts, &source.published.load_full(), source.clock.now_ms());
        let pick = |number: fn(&CacheSums) -> Option<f64>| {
            let known = |(labels, sums): &(Vec<String>, CacheSums)| Some((labels.clone(), number(sums)?));
            rows.iter().filter_map(known).collect::<Vec<_>>()
        };
        self.hit_rate.replace_under(&[], pick(CacheSums::hit_rate));
        self.entries.replace_under(&[], pick(|sums| sums.entries));
        self.bytes.replace_under(&[], pick(|sums| sums.bytes));
    }
}

impl Collector for Caches {
    fn desc(&self) -> Vec<&Desc> {
        [&self.hit_rate, &self.entries, &self.bytes].into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(source) = self.source.get() {
            self.read(source);
        }
        [&self.hit_rate, &self.entries, &self.bytes].into_iter().flat_map(Collector::collect).collect()
    }
}

/// What several engines say together. `None`: none of them does.
#[derive(Debug, Default)]
pub(crate) struct CacheSums {
    hits: f64,
    queries: f64,
    /// Sum and count of rates of engines that give no counters.
    rates: (f64, u32),
    /// Sum and count of shares of memory in use.
    usages: (f64, u32),
    /// Blocks in use.
    pub(crate) entries: Option<f64>,
    bytes: Option<f64>,
}

impl CacheSums {
    /// Adds what one engine said.
    pub(crate) fn add(&mut self, reading: &EngineReading) {
        if let (Some(hits), Some(queries)) = (reading.prefix_hits, reading.prefix_queries) {
            self.hits += hits;
            self.queries += queries;
        } else if let Some(rate) = reading.prefix_hit_rate {
            self.rates = (self.rates.0 + rate, self.rates.1 + 1);
        }
        if let Some(usage) = reading.kv_usage {
            self.usages = (self.usages.0 + f64::from(usage), self.usages.1 + 1);
        }
        let used = |size: Option<f64>| Some(size? * f64::from(reading.kv_usage?));
        let sum = |cell: &mut Option<f64>, more: Option<f64>| {
            if let Some(more) = more {
                *cell = Some(cell.unwrap_or(0.0) + more);
            }
        };
        sum(&mut self.entries, used(reading.kv_blocks));
        sum(&mut self.bytes, used(reading.kv_bytes));
    }

    /// Share of queried prompt tokens that were cached, 0–1: of all tokens, or the mean of rates where no engine counts.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        if self.queries > 0.0 { Some(self.hits / self.queries) } else { mean(self.rates) }
    }

    /// Mean share of KV memory in use, 0–1.
    pub(crate) fn usage(&self) -> Option<f64> {
        mean(self.usages)
    }
}

fn mean((sum, count): (f64, u32)) -> Option<f64> {
    (count > 0).then(|| sum / f64::from(count))
}

/// Each cache that some service refers to, by its labels.
fn rows(facts: &Facts, snapshot: &Snapshot, now_ms: u64) -> Vec<(Vec<String>, CacheSums)> {
    let mut users: BTreeMap<ObjectName, BTreeMap<&EndpointId, ()>> = BTreeMap::new();
    for (name, held) in &facts.bundle.services {
        let Some(to) = &held.value.spec.inference_cache_ref else { continue };
        let Some(draft) = facts.services.get(name) else { continue };
        // Another namespace's is not permitted, which is found elsewhere.
        let cache = ObjectName::new(Arc::clone(&name.namespace), to.bare_name());
        users.entry(cache).or_default().extend(draft.endpoints.iter().map(|spec| (&spec.id, ())));
    }
    let mut rows = Vec::new();
    for (name, endpoints) in users {
        let Some(held) = facts.bundle.caches.get(&name) else { continue };
        let mut sums = CacheSums::default();
        for endpoint in snapshot.endpoints.iter().filter(|endpoint| endpoints.contains_key(&endpoint.spec.id))
        {
            if endpoint.state.age_ms(now_ms).is_some_and(|age| age <= ENGINE_NUMBERS_AGE_MAX_MS) {
                sums.add(&endpoint.state.reading());
            }
        }
        let model = held.value.spec.model_name.clone();
        rows.push((vec![name.namespace.to_string(), name.name.to_string(), model], sums));
    }
    rows
}

//! The metrics of the router that this gateway replaces.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use domain::endpoint::{ENGINE_NUMBERS_AGE_MAX_MS, Endpoint};
use domain::name::ModelName;
use domain::snapshot::Snapshot;

use super::family::{self, Page};
use super::together::{OTHER, Together};
use crate::record::cells::{ModelCells, PairCells, ServerCells, WorkerCells};
use crate::record::window::{Sums, WINDOW_SECONDS};

/// What is known of each endpoint.
pub(super) fn servers(page: &mut Page, snapshot: &Snapshot, cells: &[Arc<ServerCells>], now_ms: u64) {
    let mut by_slot: HashMap<u32, (u64, u64, Sums)> = HashMap::new();
    for cells in cells {
        let (prefill, decoding, sums) = by_slot.entry(cells.slot).or_default();
        *prefill = prefill.wrapping_add(cells.prefill.get());
        *decoding = decoding.wrapping_add(cells.decoding.get());
        sums.add(&cells.window.sums(now_ms));
    }
    for endpoint in &snapshot.endpoints {
        let (prefill, decoding, sums) = by_slot.get(&endpoint.state.slot).copied().unwrap_or_default();
        let labels = &[&*endpoint.spec.id.url];
        page.add(family::PREFILL, labels, prefill as f64);
        page.add(family::DECODING, labels, decoding as f64);
        page.add(family::RUNNING, labels, (prefill + decoding) as f64);
        page.add(family::SWAPPED, labels, 0.0);
        window(page, labels, &sums);
        engine(page, labels, endpoint, now_ms);
    }
}

fn window(page: &mut Page, labels: &[&str], sums: &Sums) {
    let mean = |sum: f64, count: u64| if count > 0 { sum / count as f64 } else { -1.0 };
    page.add(family::QPS, labels, sums.arrived as f64 / WINDOW_SECONDS as f64);
    page.add(family::LATENCY_AVERAGE, labels, mean(sums.latency_us as f64 / 1e6, sums.ended));
    page.add(family::DECODING_LENGTH, labels, mean(sums.tokens as f64, sums.streams));
    page.add(family::ITL, labels, mean(sums.gap_us as f64 / 1e6, sums.gaps));
}

/// What the engine's own page said; a number that it did not give, or that is stale, is absent.
fn engine(page: &mut Page, labels: &[&str], endpoint: &Endpoint, now_ms: u64) {
    let state = &endpoint.state;
    let excluded = endpoint.is_excluded(now_ms);
    page.add(family::HEALTHY, labels, f64::from(!excluded));
    page.add(family::EXCLUDED, labels, f64::from(excluded));
    page.add_known(family::ENGINE_AGE, labels, state.unread_ms(now_ms).map(|age| age as f64 / 1e3));
    if state.age_ms(now_ms).is_none_or(|age| age > ENGINE_NUMBERS_AGE_MAX_MS) {
        return;
    }
    let reading = state.reading();
    page.add_known(family::WAITING, labels, reading.queued.map(f64::from));
    page.add_known(family::KV_USAGE, labels, reading.kv_usage.map(f64::from));
    page.add_known(family::PREFIX_HITS, labels, reading.prefix_hits);
    page.add_known(family::PREFIX_QUERIES, labels, reading.prefix_queries);
    let computed = match (reading.prefix_hits, reading.prefix_queries) {
        (Some(hits), Some(queries)) if queries > 0.0 => Some(hits / queries),
        _ => None,
    };
    page.add_known(family::PREFIX_HIT_RATE, labels, reading.prefix_hit_rate.or(computed));
}

/// What models did at endpoints.
pub(super) fn pairs(
    page: &mut Page,
    (snapshot, together): (&Snapshot, &Together<'_>),
    pairs: &[Arc<PairCells>],
) {
    let slots: HashSet<u32> = snapshot.endpoints.iter().map(|endpoint| endpoint.state.slot).collect();
    let models: HashSet<&str> = snapshot.pools.iter().map(|pool| pool.model.as_str()).collect();
    for pair in pairs {
        if !slots.contains(&pair.server.slot) || !models.contains(pair.model.as_str()) {
            continue;
        }
        let (server, model) = (&*pair.url, together.label(pair.model.as_str()));
        let labels = &[server, model];
        page.add(family::INPUT_TOKENS, labels, pair.input_tokens.get() as f64);
        page.add(family::OUTPUT_TOKENS, labels, pair.output_tokens.get() as f64);
        page.add(family::CACHED_TOKENS, labels, pair.cached_tokens.get() as f64);
        page.merge(family::FIRST_BYTE, labels, &pair.first_byte);
        page.merge(family::LATENCY, &[server, model, "success"], &pair.success);
        page.merge(family::LATENCY, &[server, model, "error"], &pair.error);
        for (label, count) in pair.errors.iter() {
            page.add_some(family::ERRORS, &[server, model, label], count);
        }
    }
}

/// What is known of arrivals.
#[derive(Clone, Copy)]
pub(super) struct Models<'a> {
    pub(super) cells: &'a [Arc<ModelCells>],
    /// Since when those are counted that have no cells yet, Unix seconds.
    pub(super) created_unix: f64,
}

/// Arrivals by model. Every routed model is there from the start: scaling from zero waits for it to rise.
pub(super) fn incoming(
    page: &mut Page,
    (snapshot, together): (&Snapshot, &Together<'_>),
    models: Models<'_>,
    workers: &[Arc<WorkerCells>],
) {
    let mut created: HashMap<&str, f64> = HashMap::from([(OTHER, models.created_unix)]);
    let routed = snapshot.gateways.iter().flat_map(|gateway| gateway.routes.keys());
    let routed: HashSet<&str> = routed.map(ModelName::as_str).collect();
    for model in &routed {
        let label = together.label(model);
        created.insert(label, models.created_unix);
        page.add(family::INCOMING, &[label], 0.0);
    }
    for cells in models.cells {
        let model = cells.model.as_str();
        if !routed.contains(model) {
            continue;
        }
        let label = together.label(model);
        if let Some(first) = created.get_mut(label) {
            *first = first.min(cells.created_unix);
        }
        page.add(family::INCOMING, &[label], cells.requests.get() as f64);
    }
    for (label, created_unix) in created {
        page.add(family::INCOMING_CREATED, &[label], created_unix);
    }
    let other: u64 = workers.iter().map(|worker| worker.incoming_other.get()).sum();
    page.add(family::INCOMING, &[OTHER], other as f64);
}

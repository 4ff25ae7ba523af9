//! What is in force, for people: no secrets, and of live numbers those that say why an endpoint gets requests or none.

use std::collections::HashMap;
use std::sync::Arc;

use domain::breaker::{Ejection, Failed};
use domain::endpoint::{Avoided, Endpoint, EndpointId, UNREACHABLE_MS};
use domain::route::Route;
use domain::snapshot::Snapshot;
use manifest::ListedModel;
use serde_json::{Value, json};

/// Models by engine, as they list them; an engine that has not said is absent.
pub(super) type Models = HashMap<EndpointId, Arc<[ListedModel]>>;

/// The page at `now_ms` on the gateway's clock.
pub(super) fn page(snapshot: &Snapshot, models: &Models, now_ms: u64) -> Value {
    let gateways: Vec<Value> = snapshot
        .gateways
        .iter()
        .map(|gateway| {
            let mut routes: Vec<_> = gateway.routes.values().collect();
            routes.sort_by(|a, b| a.model.cmp(&b.model));
            let routes: Vec<Value> =
                routes.into_iter().map(|route| self::route(route, models, now_ms)).collect();
            json!({ "name": gateway.name.to_string(), "hostnames": gateway.hostnames, "routes": routes })
        })
        .collect();
    json!({ "generation": snapshot.generation.0, "gateways": gateways })
}

fn route(route: &Route, models: &Models, now_ms: u64) -> Value {
    let pool = &route.pool;
    let policies: Vec<Value> = pool
        .chain
        .entries
        .iter()
        .map(|entry| {
            json!({
                "name": entry.spec.name.as_str(),
                "digest": entry.prepared.as_ref().map(|prepared| prepared.digest().to_string()),
            })
        })
        .collect();
    let endpoints: Vec<Value> =
        pool.endpoints.iter().map(|endpoint| self::endpoint(endpoint, models, now_ms)).collect();
    json!({
        "model": route.model.as_str(),
        "service": route.service.to_string(),
        "blocked": route.blocked,
        "policies": policies,
        "endpoints": endpoints,
    })
}

/// One endpoint: whether it gets requests, and why not. Times are milliseconds from now, ages into the past.
fn endpoint(endpoint: &Endpoint, models: &Models, now_ms: u64) -> Value {
    let avoided = endpoint.avoided(now_ms);
    let models = models.get(&endpoint.spec.id);
    let models = models.map(|models| models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>());
    json!({
        "url": &*endpoint.spec.id.url,
        "weight": endpoint.spec.weight,
        "inflight": endpoint.state.inflight(),
        "state": state(avoided.as_ref()),
        "avoided": avoided.map(|avoided| self::avoided(&avoided, now_ms)),
        "has_answered": endpoint.has_answered(),
        "last_error": endpoint.last_failure().map(|(failed, at_ms)| last_error(failed, now_ms.saturating_sub(at_ms))),
        "models": models,
        "asleep": endpoint.is_asleep(),
        "numbers_age_ms": endpoint.state.age_ms(now_ms),
    })
}

/// `in`: gets requests. `limited`: gets those of other operations. `out`: gets none. `probing`: one request finds out now.
fn state(avoided: Option<&Avoided>) -> &'static str {
    match avoided {
        None => "in",
        Some(Avoided::Asleep) => "asleep",
        Some(Avoided::Unreachable { .. }) => "out",
        Some(Avoided::Ejected(ejection)) if ejection.probing => "probing",
        Some(Avoided::Ejected(_)) => "out",
        Some(Avoided::Refuses(..)) => "limited",
    }
}

fn avoided(avoided: &Avoided, now_ms: u64) -> Value {
    let why = |sentence: &str, since_ms: u64, until_ms: u64, status: u16| {
        json!({
            "reason": avoided.label(),
            "status": (status > 0).then_some(status),
            "message": sentence,
            "since_ms": now_ms.saturating_sub(since_ms),
            "next_probe_ms": until_ms.saturating_sub(now_ms),
        })
    };
    match avoided {
        Avoided::Asleep => json!({ "reason": avoided.label(), "message": "sleeps" }),
        Avoided::Unreachable { at_ms } => {
            why("refuses the connections of the observer", *at_ms, at_ms + UNREACHABLE_MS, 0)
        }
        Avoided::Ejected(Ejection { last, since_ms, until_ms, .. })
        | Avoided::Refuses(_, Ejection { last, since_ms, until_ms, .. }) => {
            why(last.cause.sentence(), *since_ms, *until_ms, last.status)
        }
    }
}

fn last_error(failed: Failed, age_ms: u64) -> Value {
    json!({
        "reason": failed.cause.label(),
        "status": (failed.status > 0).then_some(failed.status),
        "age_ms": age_ms,
    })
}

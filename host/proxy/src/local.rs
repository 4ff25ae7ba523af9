//! The pages that the gateway answers itself: model and engine lists, version, health, metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use domain::endpoint::{Endpoint, EndpointSpec};
use domain::failure::FailureKind;
use domain::name::ModelName;
use domain::pool::Pool;
use domain::route::{ErrorFormat, Gateway, Route};
use domain::snapshot::Snapshot;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::dialect::LocalPage;
use crate::metrics::MetricsPage;
use crate::respond::{self, Dialect, FailureContext, GATEWAY_UNNAMED, respond};

mod card;

#[cfg(test)]
mod tests;

/// Model cards as engines gave them on `/v1/models` (one JSON object each), by the name that the engines know.
pub type Cards = HashMap<ModelName, Box<RawValue>>;

/// Whether the gateway's own parts work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// All of them.
    #[default]
    Healthy,
    /// The source of configuration has stopped.
    DiscoveryDown,
    /// Nobody reads the engines' pages any more.
    ScraperDown,
}

/// What local pages need beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct LocalFacts<'a> {
    /// The gateway that path or host named; `None`: pages are about all of them.
    pub gateway: Option<&'a Gateway>,
    /// Language of the listener.
    pub dialect: Dialect,
    /// Goes back as `X-Request-Id`.
    pub request_id: &'a str,
    /// This program's version.
    pub version: &'a str,
    /// Start of the process, Unix seconds: `created` of what nobody knows better.
    pub started_unix: u64,
    /// Cards of models, as far as engines told them.
    pub cards: &'a Cards,
    /// Health of the parts.
    pub health: Health,
    /// The dynamic configuration file in use, for `/health`.
    pub dynamic_config: Option<&'a RawValue>,
    /// The text of `/metrics`; `None`: that page is served elsewhere only.
    pub metrics: Option<&'a Bytes>,
    /// The model that [`LocalPage::Model`] is about; empty for the others.
    pub model: &'a str,
}

/// The answer of a local page. `HEAD` is answered alike; the server leaves the body out.
pub fn answer(page: LocalPage, snapshot: &Snapshot, facts: &LocalFacts<'_>) -> Response<Bytes> {
    match page {
        LocalPage::Models => json(StatusCode::OK, &models(snapshot, facts), facts),
        LocalPage::Model => model(snapshot, facts),
        LocalPage::Engines => match in_question(snapshot, facts.gateway) {
            Ok(gateways) => json(StatusCode::OK, &engines(&gateways, facts), facts),
            Err(kind) => failed(kind, facts),
        },
        LocalPage::Version => json(StatusCode::OK, &Version { version: facts.version }, facts),
        LocalPage::Health => health(facts),
        LocalPage::Metrics => metrics(facts),
    }
}

fn failed(kind: FailureKind, facts: &LocalFacts<'_>) -> Response<Bytes> {
    let context = FailureContext {
        format: facts.gateway.map_or_else(Default::default, |gateway| gateway.settings.error_format),
        dialect: facts.dialect,
        ..FailureContext::new(facts.request_id)
    };
    respond::failure(&kind.into(), &context)
}

fn json<T: Serialize>(status: StatusCode, page: &T, facts: &LocalFacts<'_>) -> Response<Bytes> {
    let body = serde_json::to_vec(page).expect("plain structures serialise");
    respond(status, "application/json", body, facts.request_id)
}

#[derive(Serialize)]
struct Version<'a> {
    version: &'a str,
}

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<card::Card<'a>>,
}

/// Models that have endpoints, of all gateways in question, oldest gateway first, then by name; the first of a name wins.
/// Aliases are not listed.
fn models<'a>(snapshot: &'a Snapshot, facts: &LocalFacts<'a>) -> ModelList<'a> {
    let mut seen = BTreeSet::new();
    let mut data = Vec::new();
    for gateway in gateways(snapshot, facts) {
        let routes: BTreeMap<&ModelName, &Route> =
            gateway.routes.iter().map(|(model, route)| (model, &**route)).collect();
        for (model, route) in routes {
            if !route.pool.endpoints.is_empty() && seen.insert(model) {
                data.push(card(model.as_str(), route, facts));
            }
        }
    }
    ModelList { object: "list", data }
}

fn card<'a>(id: &'a str, route: &'a Route, facts: &LocalFacts<'a>) -> card::Card<'a> {
    let engine_name = route.engine_model.as_ref().unwrap_or(&route.model);
    let known = facts.cards.get(engine_name).map(|raw| &**raw);
    let parent = route.parent.as_ref().map(ModelName::as_str);
    card::Card::new(id, parent, known, facts.started_unix)
}

/// One model, by its name or by an alias; what the list leaves out because it has no endpoints is not found. The old router
/// had no such page, so that an unknown model is told as OpenAI does whatever the gateway's format.
fn model(snapshot: &Snapshot, facts: &LocalFacts<'_>) -> Response<Bytes> {
    let routes = gateways(snapshot, facts).into_iter().filter_map(|gateway| gateway.route(facts.model));
    match routes.into_iter().find(|route| !route.pool.endpoints.is_empty()) {
        Some(route) => json(StatusCode::OK, &card(facts.model, route, facts), facts),
        None => {
            let context = FailureContext {
                format: ErrorFormat::OpenAi,
                dialect: facts.dialect,
                ..FailureContext::new(facts.request_id)
            };
            let failure = FailureKind::ModelUnknown { model: facts.model.into() };
            respond::failure(&failure.into(), &context)
        }
    }
}

fn gateways<'a>(snapshot: &'a Snapshot, facts: &LocalFacts<'a>) -> Vec<&'a Gateway> {
    facts.gateway.map_or_else(|| all(snapshot), |gateway| vec![gateway])
}

fn all(snapshot: &Snapshot) -> Vec<&Gateway> {
    snapshot.gateways.iter().map(|gateway| &**gateway).collect()
}

/// The gateways that a request about engines is for: the `named` one. Where none is named: all, if they are of one namespace,
/// because the engines of one namespace are not shown to clients of another, nor put to sleep by them.
///
/// Fails with `Forbidden` where a gateway must be named.
pub fn in_question<'a>(
    snapshot: &'a Snapshot,
    named: Option<&'a Gateway>,
) -> Result<Vec<&'a Gateway>, FailureKind> {
    if let Some(named) = named {
        return Ok(vec![named]);
    }
    let namespaces = || snapshot.gateways.iter().map(|gateway| &gateway.name.namespace);
    let first = namespaces().next();
    if namespaces().any(|namespace| Some(namespace) != first) {
        return Err(FailureKind::Forbidden { what: GATEWAY_UNNAMED });
    }
    Ok(all(snapshot))
}

#[derive(Serialize)]
struct Engine<'a> {
    engine_id: String,
    serving_models: BTreeSet<&'a str>,
    created: u64,
}

/// Endpoints by URL, each once, with the models that the gateways in question route there.
fn engines<'a>(gateways: &[&'a Gateway], facts: &LocalFacts<'_>) -> Vec<Engine<'a>> {
    let mut found: BTreeMap<&str, (&EndpointSpec, BTreeSet<&str>)> = BTreeMap::new();
    for gateway in gateways {
        for route in gateway.routes.values() {
            for endpoint in &route.pool.endpoints {
                let (_, models) =
                    found.entry(&endpoint.spec.id.url).or_insert_with(|| (&endpoint.spec, BTreeSet::new()));
                models.insert(route.engine_model.as_ref().unwrap_or(&route.model).as_str());
            }
        }
    }
    let engine = |(spec, serving_models)| Engine {
        engine_id: engine_id(spec).to_string(),
        serving_models,
        created: facts.started_unix,
    };
    found.into_values().map(engine).collect()
}

/// The id of an engine: version 5, namespace DNS, of its pod's name, or of its URL where there is no pod.
pub fn engine_id(spec: &EndpointSpec) -> Uuid {
    let name = spec.pod.as_ref().map_or(&*spec.id.url, |pod| &*pod.name);
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes())
}

/// The endpoint of a pool that an engine id (`?id=`) names. Costs a hash per endpoint: for pinned requests only.
pub fn pinned(pool: &Pool, id: &str) -> Option<u32> {
    let id = Uuid::try_parse(id).ok()?;
    pool.endpoints.iter().position(|endpoint| engine_id(&endpoint.spec) == id).map(|index| index as u32)
}

/// The endpoint of these gateways that an engine id names, for engine control. Ids are of pod names, so that two namespaces
/// may have the same.
///
/// Fails with `EngineIdMissing` or `EngineIdUnknown`.
pub fn find_engine<'a>(
    snapshot: &'a Snapshot,
    gateways: &[&Gateway],
    id: Option<&str>,
) -> Result<&'a Endpoint, FailureKind> {
    let id = id.filter(|id| !id.is_empty()).ok_or(FailureKind::EngineIdMissing)?;
    let routes = || gateways.iter().flat_map(|gateway| gateway.routes.values());
    let is_theirs = |endpoint: &Endpoint| {
        let slot = endpoint.state.slot;
        routes().any(|route| route.pool.endpoints.iter().any(|other| other.state.slot == slot))
    };
    let named = |id| snapshot.endpoints.iter().filter(move |endpoint| engine_id(&endpoint.spec) == id);
    let found = Uuid::try_parse(id).ok().and_then(|id| named(id).find(|endpoint| is_theirs(endpoint)));
    found.ok_or_else(|| FailureKind::EngineIdUnknown { id: id.into() })
}

fn health(facts: &LocalFacts<'_>) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Page<'a> {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dynamic_config: Option<&'a RawValue>,
    }
    let page = |status| Page { status, dynamic_config: None };
    if facts.dialect == Dialect::Text {
        return json(StatusCode::OK, &page("ok"), facts);
    }
    match facts.health {
        Health::Healthy => {
            let page = Page { dynamic_config: facts.dynamic_config, ..page("healthy") };
            json(StatusCode::OK, &page, facts)
        }
        Health::DiscoveryDown => {
            json(StatusCode::SERVICE_UNAVAILABLE, &page("Service discovery module is down."), facts)
        }
        Health::ScraperDown => {
            json(StatusCode::SERVICE_UNAVAILABLE, &page("Engine stats scraper is down."), facts)
        }
    }
}

fn metrics(facts: &LocalFacts<'_>) -> Response<Bytes> {
    let Some(page) = facts.metrics else {
        let context = FailureContext { dialect: facts.dialect, ..FailureContext::new(facts.request_id) };
        return respond::failure(&FailureKind::PathUnknown.into(), &context);
    };
    respond(StatusCode::OK, MetricsPage::CONTENT_TYPE, page.clone(), facts.request_id)
}

//! What is told of each object: a pure function of the objects, what came of them, what runs now, and what was told
//! before.
//!
//! [`tell`] compares with the status that the object carries already and returns only what is different, so that nothing
//! is written while nothing changes. Numbers that move with every request ([`LIVE`]) count as different only when the
//! caller says that it is time for them. Nothing here waits or writes; [`crate::controllers`] does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::endpoint::{EndpointSpec, EndpointState};
use domain::finding::Finding;
use domain::name::ObjectName;
use domain::route::Gateway;
use domain::snapshot::Snapshot;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use manifest::bundle::Table;
use manifest::kind::status::CommonStatus;
use manifest::{Kind, ObjectKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::publish::{Facts, Report};

mod cache;
mod condition;
mod gateway;
mod outcome;
mod pairs;
mod placement;
mod policy;
mod service;
pub(crate) mod static_route;

pub use condition::{Said, Truth};
pub use outcome::{BackendHealth, ConfigMapOutcome, Faults, Outcomes, RouterHealth, ServiceOutcome};

use condition::Conditions;

/// Fields of a status whose numbers move while requests flow.
pub const LIVE: [&str; 6] = ["routes", "endpoints", "readyEndpoints", "cacheStats", "stats", "faults"];
/// At most so often are live numbers of one object written.
pub const LIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Entries of `routes` in a gateway's status; further ones are counted only.
pub const ROUTES_MAX: usize = 256;
/// Names listed in one field of a status; further ones are counted only.
pub const NAMES_MAX: usize = 32;

/// Everything that status is computed from, of one moment.
#[derive(Debug)]
pub struct Sight {
    /// The objects, and what came of them.
    pub report: Report,
    /// The snapshot in force.
    pub snapshot: Arc<Snapshot>,
    /// What controllers did and found out.
    pub outcomes: Arc<Outcomes>,
    /// Calls of policies that failed.
    pub faults: Faults,
    /// The time that goes into status, whole seconds.
    pub now: Timestamp,
    /// The same on the gateway's clock.
    pub now_ms: u64,
}

/// The status that an object should have, and has not.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Which object.
    pub key: ObjectKey,
    /// Its uid: another object of the same name is not meant.
    pub uid: Option<String>,
    /// Version of the object that this was computed for.
    pub version: Option<String>,
    /// The whole status.
    pub status: Value,
    /// Only live numbers differ: it can wait.
    pub is_only_live: bool,
    /// Conditions that change.
    pub transitions: Vec<Transition>,
}

/// A condition that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Its type.
    pub kind: &'static str,
    /// What it becomes.
    pub said: Said,
    /// Whether the object had this condition before.
    pub is_first: bool,
}

/// Who knows better than the watch what an object's status is, because we wrote it after the watch saw the object.
pub type Written<'a> = &'a dyn Fn(&ObjectKey, &ObjectMeta) -> Option<Value>;

/// What becomes of one object's status: its conditions, references as understood, and the rest.
struct Draft<S> {
    conditions: Conditions,
    resolved: BTreeMap<String, String>,
    status: S,
}

/// What is told of all objects, and what of it differs.
#[derive(Debug, Default)]
pub struct Telling {
    /// Every status that differs, by kind and name.
    pub told: Vec<Told>,
    /// Conditions of every object, for metrics: type and `True`, `False` or `Unknown`.
    pub conditions: Vec<(ObjectKey, Vec<(&'static str, &'static str)>)>,
}

/// Computes the status of every object of ours. Linear in objects, findings and endpoints.
pub fn tell(sight: &Sight, written: Written<'_>) -> Telling {
    let view = View::new(sight);
    let bundle = &sight.report.facts.bundle;
    let mut teller = Teller { view: &view, written, telling: Telling::default() };
    macro_rules! kind {
        ($kind:ident, $table:expr, $make:path) => {
            teller.table(Kind::$kind, $table, |o| (&o.metadata, o.status.as_ref()), |s| &mut s.common, $make);
        };
    }
    kind!(InferenceGateway, &bundle.gateways, gateway::draft);
    kind!(InferenceService, &bundle.services, service::draft);
    kind!(InferenceCache, &bundle.caches, cache::draft);
    kind!(SpeculativeDecoding, &bundle.speculative, pairs::speculative);
    kind!(PrefillDecodingDisaggregation, &bundle.disaggregated, pairs::disaggregated);
    kind!(StaticRoute, &bundle.static_routes, static_route::draft);
    kind!(RoutingPolicy, &bundle.policies, policy::draft);
    kind!(ModelPlacement, &bundle.placements, placement::draft);
    teller.telling
}

struct Teller<'a> {
    view: &'a View<'a>,
    written: Written<'a>,
    telling: Telling,
}

/// Computes one object's status from what was told before.
type Make<'a, T, S> = fn(&About<'a, T>, &S) -> Draft<S>;

impl<'a> Teller<'a> {
    fn table<T, S>(
        &mut self,
        kind: Kind,
        table: &'a Table<T>,
        parts: fn(&T) -> (&ObjectMeta, Option<&S>),
        common: fn(&mut S) -> &mut CommonStatus,
        make: Make<'a, T, S>,
    ) where
        S: Clone + Default + Serialize + DeserializeOwned,
    {
        for (name, held) in table {
            let (metadata, status) = parts(&held.value);
            if metadata.deletion_timestamp.is_some() {
                continue;
            }
            let key = ObjectKey { kind, name: name.clone() };
            let written = (self.written)(&key, metadata);
            let had = written.is_some() || status.is_some();
            let before: S = match written.and_then(|status| serde_json::from_value(status).ok()) {
                Some(status) => status,
                None => status.cloned().unwrap_or_default(),
            };
            let findings = self.view.findings.get(key.to_string().as_str()).cloned().unwrap_or_default();
            let about = About { view: self.view, name, object: &*held.value, findings };
            let Draft { conditions, resolved, mut status } = make(&about, &before);
            let mut old = before.clone();
            let old_common = std::mem::take(common(&mut old));
            self.telling.conditions.push((key.clone(), conditions.summary()));
            let transitions = conditions.transitions(&old_common.conditions);
            let new_common = CommonStatus {
                observed_generation: metadata.generation,
                conditions: conditions.finish(&old_common.conditions, metadata.generation, self.view.now),
                last_updated: old_common.last_updated.clone(),
                resolved,
            };
            *common(&mut status) = new_common;
            let told = Told {
                uid: metadata.uid.clone(),
                version: metadata.resource_version.clone(),
                status: value(&status),
                is_only_live: false,
                transitions,
                key,
            };
            self.telling.told.extend(self.differing(told, &value(&before), had));
        }
    }

    /// What is to be written, if anything; with the time of the change.
    fn differing(&self, told: Told, before: &Value, had: bool) -> Option<Told> {
        if had && told.status == *before {
            return None;
        }
        let is_only_live = had && without_live(&told.status) == without_live(before);
        let mut told = Told { is_only_live, ..told };
        told.status["lastUpdated"] = Value::String(self.view.now.to_string());
        Some(told)
    }
}

fn value(status: &impl Serialize) -> Value {
    // Statuses are plain data with text keys, which always have a JSON form.
    serde_json::to_value(status).unwrap_or_default()
}

fn without_live(status: &Value) -> Value {
    let mut status = status.clone();
    if let Value::Object(fields) = &mut status {
        LIVE.iter().for_each(|field| _ = fields.remove(*field));
    }
    status
}

/// What a status is made from, beside the object.
struct About<'a, T> {
    view: &'a View<'a>,
    name: &'a ObjectName,
    object: &'a T,
    findings: Vec<&'a Finding>,
}

/// A [`Sight`] with the ways through it that several kinds need.
struct View<'a> {
    sight: &'a Sight,
    facts: &'a Facts,
    now: Timestamp,
    /// By object, as findings name it.
    findings: HashMap<&'a str, Vec<&'a Finding>>,
    /// Gateways in force.
    gateways: HashMap<&'a ObjectName, &'a Arc<Gateway>>,
    /// Services that some gateway in force routes to.
    routed: BTreeSet<&'a ObjectName>,
    /// Names of gateways by the policies of their chains.
    policy_users: BTreeMap<ObjectName, BTreeSet<&'a ObjectName>>,
}

impl<'a> View<'a> {
    fn new(sight: &'a Sight) -> Self {
        let facts = &*sight.report.facts;
        let mut findings: HashMap<&str, Vec<&Finding>> = HashMap::new();
        for finding in &facts.findings {
            findings.entry(&*finding.object).or_default().push(finding);
        }
        let gateways: HashMap<_, _> = sight.snapshot.gateways.iter().map(|g| (&g.name, g)).collect();
        let routes = sight.snapshot.gateways.iter().flat_map(|gateway| gateway.routes.values());
        let routed = routes.map(|route| &route.service).collect();
        let policy_users = policy::users(facts, &sight.snapshot);
        Self { sight, facts, now: sight.now, findings, gateways, routed, policy_users }
    }

    /// Live numbers of an endpoint, if it is in force.
    fn state(&self, spec: &EndpointSpec) -> Option<&'a Arc<EndpointState>> {
        let endpoints = &self.sight.snapshot.endpoints;
        let at = endpoints.binary_search_by(|endpoint| endpoint.spec.id.cmp(&spec.id)).ok()?;
        Some(&endpoints[at].state)
    }

    /// Whether an endpoint may be chosen now.
    fn is_ready(&self, spec: &EndpointSpec) -> bool {
        let endpoints = &self.sight.snapshot.endpoints;
        match endpoints.binary_search_by(|endpoint| endpoint.spec.id.cmp(&spec.id)) {
            Ok(at) => !endpoints[at].is_excluded(self.sight.now_ms),
            Err(_) => !spec.asleep,
        }
    }
}

/// A number of things as status tells it.
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The first few names, and how many there are beside them; for columns.
fn few<S: AsRef<str>>(names: impl ExactSizeIterator<Item = S>) -> String {
    const SHOWN: usize = 3;
    let total = names.len();
    let shown: Vec<S> = names.take(SHOWN).collect();
    let shown = shown.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(",");
    if total > SHOWN { format!("{shown},+{}", total - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests;

//! From objects to what the gateway runs on. A pure function that never fails: what cannot be used is left out, and found.
//!
//! One file per output: [`gateway`], [`routes`], [`chain`], [`service`], [`backend`], [`static_route`]. Everything is built
//! anew each time, linear in routes and endpoints.

mod asked;
mod backend;
mod chain;
mod engine;
mod gateway;
mod hosts;
mod models;
mod policy;
mod reference;
mod report;
mod routes;
mod scheme;
mod service;
mod settings;
mod static_route;
mod surface;
mod url;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use domain::draft::{Draft, GatewayDraft};
use domain::endpoint::EndpointSpec;
use domain::finding::Finding;
use domain::name::ObjectName;
use domain::policy::EntrySpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::bundle::Bundle;
use crate::object::{Kind, ObjectKey};
use backend::PodIndex;
use report::{About, Report};

pub use chain::policy_name;
pub use service::ServiceDraft;
pub use url::{parse as parse_base_url, parse_engine as parse_engine_url};

/// Most findings of one lowering; further ones are dropped.
pub const FINDINGS_MAX: usize = 10_000;

/// Models that a finding about shared ones names.
const SHARED_MODELS_NAMED: usize = 5;

/// Names of the built-in policies, sorted: for tools and builds that have none embedded. A gateway takes those that it has.
pub const BUILTINS: [&str; 6] =
    ["gpu-load-aware", "least-in-flight", "load-aware", "prefix-hash", "round-robin", "session-affinity"];

/// What lowering depends on besides the objects.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// Names of the built-in policies. Default: [`BUILTINS`].
    pub builtins: BTreeSet<Box<str>>,
    /// Names that a `StaticRoute`'s `routerRef` knows this gateway by. Default: none, which takes every reference as meant
    /// for this gateway, as there is no other one to know of.
    pub own_names: Vec<ObjectName>,
    /// The Service by which all gateways are reached, where there is one: no object of another namespace may take its name.
    /// Default: none.
    pub own_service: Option<ObjectName>,
    /// Whether somebody creates the Services that gateways ask for. Default: false.
    pub creates_services: bool,
}

impl Default for LowerOptions {
    fn default() -> Self {
        Self {
            builtins: BUILTINS.into_iter().map(Into::into).collect(),
            own_names: Vec::new(),
            own_service: None,
            creates_services: false,
        }
    }
}

/// What came of a lowering.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// What to run on.
    pub draft: Draft,
    /// What is wrong: of each object together, errors first.
    pub findings: Vec<Finding>,
    /// Endpoints that are ready but left out because their model list lacks the model. They are worth asking again.
    pub withheld: Arc<[Arc<EndpointSpec>]>,
    /// Every service by itself, also those that no gateway names.
    pub services: HashMap<ObjectName, Arc<ServiceDraft>>,
    /// Every `RoutingPolicy` by itself, also those that no gateway names; without those that have no usable source.
    pub policies: BTreeMap<ObjectName, Arc<EntrySpec>>,
    /// Objects that contradict themselves, sorted: `Accepted=False`. The draft holds what can be made of them; whoever
    /// keeps an earlier version that was accepted should lower that in their place.
    pub rejected: Vec<ObjectKey>,
}

/// Lowers a bundle. Never fails.
pub fn lower(bundle: &Bundle, options: &LowerOptions) -> Lowered {
    let mut lowering = Lowering {
        bundle,
        options,
        report: Report::default(),
        services: HashMap::new(),
        policies: BTreeMap::new(),
        specs: chain::Chains::default(),
        pods: PodIndex::default(),
        no_text: "".into(),
    };
    asked::find(&mut lowering);
    // Every service, also those that no gateway names: their owners want to know what is wrong with them.
    for name in bundle.services.keys() {
        lowering.service(name);
    }
    let gateways = lowering.gateways();
    let mut withheld: Vec<_> =
        lowering.services.values().flat_map(|service| service.withheld.iter().cloned()).collect();
    withheld.sort_by(|a, b| a.id.cmp(&b.id));
    withheld.dedup_by(|a, b| a.id == b.id);
    let rejected = lowering.report.take_rejected();
    Lowered {
        draft: Draft { gateways },
        findings: lowering.report.finish(),
        withheld: withheld.into(),
        services: lowering.services,
        policies: lowering.policies,
        rejected,
    }
}

/// What one lowering carries along.
struct Lowering<'a> {
    bundle: &'a Bundle,
    options: &'a LowerOptions,
    report: Report,
    /// Services by name, each lowered once.
    services: HashMap<ObjectName, Arc<ServiceDraft>>,
    /// Policies by themselves.
    policies: BTreeMap<ObjectName, Arc<EntrySpec>>,
    /// Chains, each made once.
    specs: chain::Chains,
    pods: PodIndex<'a>,
    /// The empty text, shared.
    no_text: Arc<str>,
}

impl<'a> Lowering<'a> {
    /// Gateways and static routes together, oldest first.
    fn gateways(&mut self) -> Vec<GatewayDraft> {
        let bundle = self.bundle;
        let mut order: Vec<(Age<'a>, &ObjectName, Kind)> = Vec::new();
        for (name, held) in &bundle.gateways {
            order.push((Age(held.value.metadata.creation_timestamp.as_ref()), name, Kind::InferenceGateway));
        }
        for (name, held) in &bundle.static_routes {
            order.push((Age(held.value.metadata.creation_timestamp.as_ref()), name, Kind::StaticRoute));
        }
        order.sort();
        let mut gateways = Vec::with_capacity(order.len());
        for (_, name, kind) in order {
            let draft = match kind {
                Kind::StaticRoute => self.static_route(name, &bundle.static_routes[name]),
                _ => Some(self.gateway(name, &bundle.gateways[name])),
            };
            gateways.extend(draft.map(|draft| (kind, draft)));
        }
        self.shared_between_gateways(&gateways);
        gateways.into_iter().map(|(_, draft)| draft).collect()
    }

    /// Two gateways that route one model: the oldest has it. Hosts see [`hosts`].
    fn shared_between_gateways(&mut self, gateways: &[(Kind, GatewayDraft)]) {
        let mut models: HashMap<&str, usize> = HashMap::new();
        let mut shared: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
        for (index, (_, gateway)) in gateways.iter().enumerate() {
            let routed = gateway.routes.iter().map(|route| route.model.as_str());
            for model in routed.chain(gateway.aliases.keys().map(|alias| &**alias)) {
                let owner = *models.entry(model).or_insert(index);
                if owner != index {
                    shared.entry((owner, index)).or_default().push(model);
                }
            }
        }
        self.shared_hosts(gateways);
        for ((owner, index), mut models) in shared {
            models.sort_unstable();
            self.shared_models(&gateways[owner], &gateways[index], &models);
        }
    }

    /// Tells both gateways of the models they share.
    fn shared_models(
        &mut self,
        older: &(Kind, GatewayDraft),
        younger: &(Kind, GatewayDraft),
        models: &[&str],
    ) {
        let mut names = models.iter().take(SHARED_MODELS_NAMED).copied().collect::<Vec<_>>().join(", ");
        if models.len() > SHARED_MODELS_NAMED {
            names.push_str(&format!(" and {} more", models.len() - SHARED_MODELS_NAMED));
        }
        let what = |(kind, gateway): &(Kind, GatewayDraft)| format!("{} {}", kind.as_str(), gateway.name);
        let message = format!("{} also routes {names}, and is older", what(older));
        let remedy =
            "requests for them that name neither path nor host go there; name this gateway by path or host";
        let about = About::new(younger.0, &younger.1.name);
        self.report.warning(self.bundle, &about, "spec", "ModelConflict", message, remedy);
        let message = format!("{} also routes {names}, and is younger", what(younger));
        let about = About::new(older.0, &older.1.name);
        self.report.info(self.bundle, &about, "spec", "ModelConflict", message, "nothing, if that is meant");
    }
}

/// When an object was created; one that does not say so comes last.
#[derive(PartialEq, Eq)]
struct Age<'a>(Option<&'a Time>);

impl Ord for Age<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |age: &Self| (age.0.is_none(), age.0.map(|time| time.0));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Age<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

//! From a draft to a snapshot: adopts the live state of what stays, and puts prepared policies in their places.
//!
//! The assembler is the only owner of what outlives generations, and it owns it weakly: an endpoint that left every
//! snapshot, and has no request in flight, is forgotten, and comes back as a stranger.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use http::HeaderName;
use xxhash_rust::xxh3::Xxh3;

use crate::admission::Admission;
use crate::draft::{Draft, GatewayDraft, RouteDraft};
use crate::endpoint::{Endpoint, EndpointId, EndpointSpec, EndpointState, Endpoints, Slab};
use crate::name::{Generation, ObjectName};
use crate::policy::{EntrySpec, Preparation, Prepare, PrepareFailure, Prepared};
use crate::pool::{Chain, Entry, Pool, PoolKey, PoolState};
use crate::prefix::SlotMap;
use crate::retry::RetryBudget;
use crate::ring::LazyRing;
use crate::route::{Gateway, GatewayState, Route};
use crate::snapshot::Snapshot;

/// A policy of some chain that is not in force as asked, and what is in force instead.
#[derive(Clone, Debug)]
pub struct PolicyTrouble {
    /// The gateway whose chain it is.
    pub gateway: ObjectName,
    /// The service whose pool it is.
    pub service: ObjectName,
    /// What was asked for.
    pub spec: Arc<EntrySpec>,
    /// Why it does not load; `None` while it is still being prepared.
    pub failure: Option<PrepareFailure>,
    /// Whether the last good chain of this pool serves meanwhile, whole. If not, the entry is left out.
    pub last_good_serves: bool,
}

/// A snapshot, and what came of it besides.
#[derive(Debug)]
pub struct Assembled {
    /// To be published.
    pub snapshot: Arc<Snapshot>,
    /// Policies that are not in force as asked.
    pub troubles: Vec<PolicyTrouble>,
    /// Slots of endpoints that the previous snapshot had and this one has not: the prefix index forgets them.
    pub gone_slots: Vec<u32>,
    /// Every spec that this snapshot needs, for [`Prepare::retain`].
    pub specs: Vec<Arc<EntrySpec>>,
}

/// Keeps what outlives generations.
#[derive(Debug, Default)]
pub struct Assembler {
    generation: Generation,
    next_slot: u32,
    slab: Slab,
    endpoints: HashMap<EndpointId, Weak<EndpointState>>,
    pools: HashMap<PoolKey, Weak<PoolState>>,
    gateways: HashMap<ObjectName, Weak<GatewayState>>,
    rings: HashMap<u64, Weak<LazyRing>>,
    /// The last chain of each pool that was wholly ready.
    last_good: HashMap<PoolKey, Vec<Entry>>,
    last_slots: Vec<u32>,
}

impl Assembler {
    /// Builds the next snapshot. Linear in routes and endpoints; compiles nothing.
    pub fn assemble(&mut self, draft: &Draft, prepare: &dyn Prepare) -> Assembled {
        self.generation.0 += 1;
        let mut work =
            Work { live: HashMap::new(), troubles: Vec::new(), specs: Vec::new(), pools: Vec::new() };
        let gateways = draft.gateways.iter().map(|g| self.gateway(g, prepare, &mut work)).collect();
        let mut endpoints: Vec<Endpoint> = work.live.into_values().collect();
        endpoints.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        let mut slots: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.state.slot).collect();
        slots.sort_unstable();
        let gone_slots =
            self.last_slots.iter().copied().filter(|slot| slots.binary_search(slot).is_err()).collect();
        self.last_slots = slots;
        let snapshot = Arc::new(Snapshot::new(self.generation, gateways, work.pools, endpoints));
        self.forget_the_dead(&snapshot);
        Assembled { snapshot, troubles: work.troubles, gone_slots, specs: work.specs }
    }

    fn gateway(&mut self, draft: &GatewayDraft, prepare: &dyn Prepare, work: &mut Work) -> Arc<Gateway> {
        let state = adopt(&mut self.gateways, &draft.name, || GatewayState {
            admission: Admission::default(),
            retry_budget: RetryBudget::default(),
        });
        let routes = draft
            .routes
            .iter()
            .map(|route| (route.model.clone(), self.route(&draft.name, route, prepare, work)))
            .collect();
        Arc::new(Gateway {
            name: draft.name.clone(),
            hostnames: draft.hostnames.clone(),
            has_short_host: draft.has_short_host,
            settings: draft.settings.clone(),
            aliases: draft.aliases.clone(),
            routes,
            state,
        })
    }

    fn route(
        &mut self,
        gateway: &ObjectName,
        draft: &RouteDraft,
        prepare: &dyn Prepare,
        work: &mut Work,
    ) -> Arc<Route> {
        let key = PoolKey::of(gateway, &draft.model);
        let endpoints = self.endpoints(&draft.endpoints, work);
        let urls: Vec<Arc<str>> = endpoints.iter().map(|e| Arc::clone(&e.spec.id.url)).collect();
        let chain = self.chain(key, gateway, draft, prepare, work);
        let engine_model = draft.engine_model.as_ref().unwrap_or(&draft.model);
        let pool = Arc::new(Pool {
            key,
            signature: signature(engine_model.as_str(), &endpoints),
            gateway: gateway.clone(),
            model: engine_model.clone(),
            slots: SlotMap::new(endpoints.iter().map(|endpoint| endpoint.state.slot)),
            ring: self.ring(urls),
            endpoints,
            chain,
            state: adopt(&mut self.pools, &key, PoolState::default),
        });
        work.pools.push(Arc::clone(&pool));
        Arc::new(Route {
            model: draft.model.clone(),
            service: draft.service.clone(),
            engine_model: draft.engine_model.clone(),
            parent: draft.parent.clone(),
            blocked: draft.blocked.clone(),
            pool,
        })
    }

    /// Endpoints with their live state, sorted by URL. New states are made in that order, so that those of a pool stand
    /// together in memory.
    fn endpoints(&mut self, specs: &[Arc<EndpointSpec>], work: &mut Work) -> Endpoints {
        let mut sorted: Vec<&Arc<EndpointSpec>> = specs.iter().collect();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        sorted
            .into_iter()
            .map(|spec| {
                let (next_slot, slab) = (&mut self.next_slot, &mut self.slab);
                let state = adopt(&mut self.endpoints, &spec.id, || {
                    *next_slot += 1;
                    EndpointState::in_slab(*next_slot, slab)
                });
                let endpoint = Endpoint { spec: Arc::clone(spec), state };
                work.live.entry(spec.id.clone()).or_insert_with(|| endpoint.clone());
                endpoint
            })
            .collect()
    }

    fn ring(&mut self, urls: Vec<Arc<str>>) -> Arc<LazyRing> {
        let mut hasher = Xxh3::new();
        urls.hash(&mut hasher);
        adopt(&mut self.rings, &hasher.finish(), || LazyRing::new(urls))
    }

    /// The chain that is in force: the one asked for once all of it is ready, until then the last good one of this pool,
    /// whole. A pool that never had one (a fresh replica) does with what is ready.
    fn chain(
        &mut self,
        key: PoolKey,
        gateway: &ObjectName,
        draft: &RouteDraft,
        prepare: &dyn Prepare,
        work: &mut Work,
    ) -> Chain {
        let is_clean = |entry: &Entry| {
            entry.prepared.as_ref().is_none_or(|it| credential(&**it, &draft.endpoints).is_none())
        };
        // What was good before its service called a header its credential is not any more.
        let last_good = self.last_good.get(&key).filter(|last_good| last_good.iter().all(is_clean));
        let mut entries = Vec::with_capacity(draft.chain.len());
        for spec in draft.chain.iter() {
            work.specs.push(Arc::clone(spec));
            let (prepared, failure) = match prepare.prepare(spec) {
                Preparation::Ready(prepared) => match credential(&*prepared, &draft.endpoints) {
                    Some(header) => (None, Some(not_granted(header, &draft.service))),
                    None => (Some(prepared), None),
                },
                Preparation::Pending => (None, None),
                Preparation::Failed(failure) => (None, Some(failure)),
            };
            if prepared.is_none() {
                work.troubles.push(PolicyTrouble {
                    gateway: gateway.clone(),
                    service: draft.service.clone(),
                    spec: Arc::clone(spec),
                    failure,
                    last_good_serves: last_good.is_some(),
                });
            }
            entries.push(Entry { spec: Arc::clone(spec), prepared });
        }
        let is_whole = !draft.chain_rejected && entries.iter().all(|entry| entry.prepared.is_some());
        if is_whole {
            self.last_good.insert(key, entries.clone());
        } else if let Some(last_good) = last_good {
            work.specs.extend(last_good.iter().map(|entry| Arc::clone(&entry.spec)));
            return Chain::new(last_good.clone());
        }
        Chain::new(entries)
    }

    /// Drops what no live object holds, so that the tables stay as small as the configuration.
    fn forget_the_dead(&mut self, snapshot: &Snapshot) {
        self.endpoints.retain(|_, state| state.strong_count() > 0);
        self.pools.retain(|_, state| state.strong_count() > 0);
        self.gateways.retain(|_, state| state.strong_count() > 0);
        self.rings.retain(|_, ring| ring.strong_count() > 0);
        let mut keys: Vec<PoolKey> = snapshot.pools.iter().map(|pool| pool.key).collect();
        keys.sort_unstable();
        self.last_good.retain(|key, _| keys.binary_search(key).is_ok());
    }
}

/// The first header that a policy asks for and that these endpoints are sent credentials in.
fn credential<'a>(policy: &'a dyn Prepared, endpoints: &[Arc<EndpointSpec>]) -> Option<&'a HeaderName> {
    let wanted = &policy.description().headers;
    if wanted.is_empty() {
        return None;
    }
    let is_secret = |header: &&HeaderName| {
        endpoints.iter().flat_map(|spec| &spec.auth).any(|auth| auth.header == *header)
    };
    wanted.iter().find(is_secret)
}

fn not_granted(header: &HeaderName, service: &ObjectName) -> PrepareFailure {
    PrepareFailure {
        reason: "HeaderNotGranted",
        message: format!(
            "it asks for the request header `{header}`, in which InferenceService {service} sends credentials"
        ),
        config_path: None,
        remedy: "do without it, or send the credentials in another header (`spec.auth.header`)".to_owned(),
    }
}

/// What one assembly gathers on its way.
struct Work {
    live: HashMap<EndpointId, Endpoint>,
    troubles: Vec<PolicyTrouble>,
    specs: Vec<Arc<EntrySpec>>,
    pools: Vec<Arc<Pool>>,
}

/// The live value of `key` if somebody still holds it, else a new one.
fn adopt<K: Clone + Eq + Hash, V>(
    table: &mut HashMap<K, Weak<V>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    if let Some(live) = table.get(key).and_then(Weak::upgrade) {
        return live;
    }
    let value = Arc::new(make());
    table.insert(key.clone(), Arc::downgrade(&value));
    value
}

/// Hash of everything that a policy learns in `sync`.
fn signature(model: &str, endpoints: &[Endpoint]) -> u64 {
    let mut hasher = Xxh3::new();
    model.hash(&mut hasher);
    for Endpoint { spec, .. } in endpoints {
        (&spec.id, spec.roles, spec.weight, &spec.node, &spec.zone, &spec.labels).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;

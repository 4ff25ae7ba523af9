//! The ground state: every object that is known, and what was observed of the engines. Changes go in, [`crate::lower`]
//! reads.
//!
//! Core objects are reduced to the facts that matter ([`facts`]) when they arrive, so that lowering, which happens far
//! more often, only copies references.

pub mod facts;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use domain::endpoint::EndpointId;
use domain::finding::Finding;
use domain::name::{ModelName, ObjectName};

use crate::kind::{
    InferenceCache, InferenceGateway, InferencePool, InferenceService, ModelPlacement,
    PrefillDecodingDisaggregation, RoutingPolicy, SpeculativeDecoding, StaticRoute,
};
use crate::object::{Body, Kind, Object, ObjectKey, Source, name_of};
use facts::{KeyFacts, PodFacts, ServiceFacts, SliceFacts, Texts};

/// Most pods that are remembered as gone; beyond, remembering starts anew. Slices are behind for milliseconds.
pub const GONE_PODS_MAX: usize = 16_384;

/// One thing that is different now.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is new, or says something else.
    Applied(Arc<Object>),
    /// An object is gone.
    Removed(ObjectKey),
    /// What an engine lists as its models. `None`: unknown, which excludes nobody.
    Models {
        /// Which engine.
        endpoint: EndpointId,
        /// Its models.
        models: Option<Arc<[ListedModel]>>,
    },
}

/// A model as an engine lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// Its name.
    pub id: ModelName,
    /// For an adapter: the model it adapts.
    pub parent: Option<ModelName>,
}

/// An object that is held, and where it stands.
#[derive(Debug)]
pub struct Held<T> {
    /// The object, or what matters of it.
    pub value: Arc<T>,
    /// Where it stands.
    pub source: Arc<Source>,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), source: Arc::clone(&self.source) }
    }
}

/// Objects of one kind by name.
pub type Table<T> = BTreeMap<ObjectName, Held<T>>;

/// Everything that is known. Cloning copies references.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// Gateways.
    pub gateways: Table<InferenceGateway>,
    /// Services of ours.
    pub services: Table<InferenceService>,
    /// Caches.
    pub caches: Table<InferenceCache>,
    /// Draft and target pairs.
    pub speculative: Table<SpeculativeDecoding>,
    /// Prefill and decode splits.
    pub disaggregated: Table<PrefillDecodingDisaggregation>,
    /// Static routes.
    pub static_routes: Table<StaticRoute>,
    /// Policies.
    pub policies: Table<RoutingPolicy>,
    /// Placements.
    pub placements: Table<ModelPlacement>,
    /// Core services.
    pub core_services: Table<ServiceFacts>,
    /// Endpoint slices by the core service they belong to.
    pub slices: HashMap<ObjectName, Table<SliceFacts>>,
    /// Pods.
    pub pods: HashMap<ObjectName, Held<PodFacts>>,
    /// Inference pools.
    pub inference_pools: Table<InferencePool>,
    /// Config maps.
    pub config_maps: Table<KeyFacts>,
    /// Secrets.
    pub secrets: Table<KeyFacts>,
    /// What engines list, where known.
    pub models: HashMap<EndpointId, Arc<[ListedModel]>>,
    /// Uids of pods that are gone: a slice that still names one of them is behind. At most [`GONE_PODS_MAX`].
    pub gone_pods: HashSet<Arc<str>>,
    /// Objects that a source has and refuses as they stand, by `Kind namespace/name`, with the first reason. Only for messages.
    pub refused: HashMap<Arc<str>, Finding>,
    /// Which service a slice belongs to, to find it again.
    slice_owners: HashMap<ObjectName, ObjectName>,
    /// What pods and slices share.
    texts: Texts,
}

impl Bundle {
    /// Takes a change in. Returns whether anything that matters is different.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Applied(object) => self.put(&object),
            Change::Removed(key) => self.remove(&key),
            Change::Models { endpoint, models: Some(models) } => {
                self.models.insert(endpoint, Arc::clone(&models)).as_ref() != Some(&models)
            }
            Change::Models { endpoint, models: None } => self.models.remove(&endpoint).is_some(),
        }
    }

    /// Where an object of ours stands. `None`: it is not held.
    pub fn source(&self, key: &ObjectKey) -> Option<&Arc<Source>> {
        fn of<'a, T>(table: &'a Table<T>, name: &ObjectName) -> Option<&'a Arc<Source>> {
            table.get(name).map(|held| &held.source)
        }
        let name = &key.name;
        match key.kind {
            Kind::InferenceGateway => of(&self.gateways, name),
            Kind::InferenceService => of(&self.services, name),
            Kind::InferenceCache => of(&self.caches, name),
            Kind::SpeculativeDecoding => of(&self.speculative, name),
            Kind::PrefillDecodingDisaggregation => of(&self.disaggregated, name),
            Kind::StaticRoute => of(&self.static_routes, name),
            Kind::RoutingPolicy => of(&self.policies, name),
            Kind::ModelPlacement => of(&self.placements, name),
            Kind::Service => of(&self.core_services, name),
            Kind::InferencePool => of(&self.inference_pools, name),
            Kind::ConfigMap => of(&self.config_maps, name),
            Kind::Secret => of(&self.secrets, name),
            Kind::Pod => self.pods.get(name).map(|held| &held.source),
            Kind::EndpointSlice => of(self.slices.get(self.slice_owners.get(name)?)?, name),
        }
    }

    /// Objects of ours always count as different; others only if something of what is kept of them is.
    fn put(&mut self, object: &Object) -> bool {
        let name = object.key().name;
        let source = &object.source;
        match &object.body {
            Body::InferenceGateway(value) => put_ours(&mut self.gateways, name, value, source),
            Body::InferenceService(value) => put_ours(&mut self.services, name, value, source),
            Body::InferenceCache(value) => put_ours(&mut self.caches, name, value, source),
            Body::SpeculativeDecoding(value) => put_ours(&mut self.speculative, name, value, source),
            Body::PrefillDecodingDisaggregation(value) => {
                put_ours(&mut self.disaggregated, name, value, source)
            }
            Body::StaticRoute(value) => put_ours(&mut self.static_routes, name, value, source),
            Body::RoutingPolicy(value) => put_ours(&mut self.policies, name, value, source),
            Body::ModelPlacement(value) => put_ours(&mut self.placements, name, value, source),
            Body::Service(value) => put(&mut self.core_services, name, ServiceFacts::of(value), source),
            Body::InferencePool(value) => {
                put(&mut self.inference_pools, name, InferencePool::clone(value), source)
            }
            Body::ConfigMap(value) => put(&mut self.config_maps, name, KeyFacts::of_config(value), source),
            Body::Secret(value) => put(&mut self.secrets, name, KeyFacts::of_secret(value), source),
            Body::Pod(value) => {
                let facts = PodFacts::of(&name, value, &mut self.texts);
                self.put_pod(&name, facts, source)
            }
            Body::EndpointSlice(value) => {
                let owner = SliceFacts::owner(value, &name_of(&value.metadata));
                if owner.as_ref() != self.slice_owners.get(&name) {
                    self.remove_slice(&name);
                }
                let Some(owner) = owner else { return true };
                let facts = SliceFacts::of(&name, value, &mut self.texts);
                self.slice_owners.insert(name.clone(), owner.clone());
                put(self.slices.entry(owner).or_default(), name, facts, source)
            }
        }
    }

    fn put_pod(&mut self, name: &ObjectName, facts: PodFacts, source: &Arc<Source>) -> bool {
        self.gone_pods.remove(&facts.uid);
        let held = Held { value: Arc::new(facts), source: Arc::clone(source) };
        let uid = Arc::clone(&held.value.uid);
        let Some(before) = self.pods.insert(name.clone(), held) else { return true };
        if before.value.uid != uid {
            self.bury(&before.value);
        }
        self.pods.get(name).is_none_or(|now| now.value != before.value || now.source != before.source)
    }

    fn bury(&mut self, pod: &PodFacts) {
        if self.gone_pods.len() >= GONE_PODS_MAX {
            self.gone_pods.clear();
        }
        if !pod.uid.is_empty() {
            self.gone_pods.insert(Arc::clone(&pod.uid));
        }
    }

    fn remove(&mut self, key: &ObjectKey) -> bool {
        let name = &key.name;
        match key.kind {
            Kind::InferenceGateway => self.gateways.remove(name).is_some(),
            Kind::InferenceService => self.services.remove(name).is_some(),
            Kind::InferenceCache => self.caches.remove(name).is_some(),
            Kind::SpeculativeDecoding => self.speculative.remove(name).is_some(),
            Kind::PrefillDecodingDisaggregation => self.disaggregated.remove(name).is_some(),
            Kind::StaticRoute => self.static_routes.remove(name).is_some(),
            Kind::RoutingPolicy => self.policies.remove(name).is_some(),
            Kind::ModelPlacement => self.placements.remove(name).is_some(),
            Kind::Service => self.core_services.remove(name).is_some(),
            Kind::ConfigMap => self.config_maps.remove(name).is_some(),
            Kind::Secret => self.secrets.remove(name).is_some(),
            Kind::InferencePool => self.inference_pools.remove(name).is_some(),
            Kind::Pod => match self.pods.remove(name) {
                Some(held) => {
                    self.bury(&held.value);
                    true
                }
                None => false,
            },
            Kind::EndpointSlice => self.remove_slice(name),
        }
    }

    fn remove_slice(&mut self, name: &ObjectName) -> bool {
        let Some(owner) = self.slice_owners.remove(name) else { return false };
        if let Some(table) = self.slices.get_mut(&owner) {
            table.remove(name);
            if table.is_empty() {
                self.slices.remove(&owner);
            }
        }
        true
    }
}

fn put_ours<T>(table: &mut Table<T>, name: ObjectName, value: &Arc<T>, source: &Arc<Source>) -> bool {
    table.insert(name, Held { value: Arc::clone(value), source: Arc::clone(source) });
    true
}

fn put<T: PartialEq>(table: &mut Table<T>, name: ObjectName, value: T, source: &Arc<Source>) -> bool {
    if let Some(before) = table.get(&name)
        && *before.value == value
        && before.source == *source
    {
        return false;
    }
    table.insert(name, Held { value: Arc::new(value), source: Arc::clone(source) });
    true
}

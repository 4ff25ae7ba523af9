//! The ground state: every object that is known, and what was observed of the engines. Changes go in, [`crate::lower`]
//! reads.
//!
//! Core objects are reduced to the facts that matter ([`facts`]) when they arrive, so that lowering, which happens far
//! more often, only copies references.

pub mod facts;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use domain::endpoint::EndpointId;
use domain::name::{ModelName, ObjectName};

use crate::kind::{
    InferenceCache, InferenceGateway, InferenceService, ModelPlacement, PrefillDecodingDisaggregation,
    RoutingPolicy, SpeculativeDecoding, StaticRoute,
};
use crate::object::{Body, Kind, Object, ObjectKey, Source, name_of};
use facts::{KeyFacts, PodFacts, ServiceFacts, SliceFacts, Texts};

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
    /// Whether an engine was seen asleep.
    Sleeping {
        /// Which engine.
        endpoint: EndpointId,
        /// Whether it sleeps.
        asleep: bool,
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
    /// Config maps.
    pub config_maps: Table<KeyFacts>,
    /// Secrets.
    pub secrets: Table<KeyFacts>,
    /// What engines list, where known.
    pub models: HashMap<EndpointId, Arc<[ListedModel]>>,
    /// Engines seen asleep.
    pub asleep: HashSet<EndpointId>,
    /// Which service a slice belongs to, to find it again.
    slice_owners: HashMap<ObjectName, ObjectName>,
    /// What pods and slices share.
    texts: Texts,
}

impl Bundle {
    /// Takes a change in. Returns whether anything that matters is different.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Applied(object) => {
                self.put(&object);
                true
            }
            Change::Removed(key) => self.remove(&key),
            Change::Models { endpoint, models: Some(models) } => {
                self.models.insert(endpoint, Arc::clone(&models)).as_ref() != Some(&models)
            }
            Change::Models { endpoint, models: None } => self.models.remove(&endpoint).is_some(),
            Change::Sleeping { endpoint, asleep: true } => self.asleep.insert(endpoint),
            Change::Sleeping { endpoint, asleep: false } => self.asleep.remove(&endpoint),
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
            Kind::ConfigMap => of(&self.config_maps, name),
            Kind::Secret => of(&self.secrets, name),
            Kind::Pod => self.pods.get(name).map(|held| &held.source),
            Kind::EndpointSlice => of(self.slices.get(self.slice_owners.get(name)?)?, name),
        }
    }

    fn put(&mut self, object: &Object) {
        fn put<T>(table: &mut Table<T>, name: ObjectName, value: &Arc<T>, object: &Object) {
            table.insert(name, Held { value: Arc::clone(value), source: Arc::clone(&object.source) });
        }
        let name = object.key().name;
        let source = Arc::clone(&object.source);
        match &object.body {
            Body::InferenceGateway(value) => put(&mut self.gateways, name, value, object),
            Body::InferenceService(value) => put(&mut self.services, name, value, object),
            Body::InferenceCache(value) => put(&mut self.caches, name, value, object),
            Body::SpeculativeDecoding(value) => put(&mut self.speculative, name, value, object),
            Body::PrefillDecodingDisaggregation(value) => put(&mut self.disaggregated, name, value, object),
            Body::StaticRoute(value) => put(&mut self.static_routes, name, value, object),
            Body::RoutingPolicy(value) => put(&mut self.policies, name, value, object),
            Body::ModelPlacement(value) => put(&mut self.placements, name, value, object),
            Body::Service(value) => {
                put(&mut self.core_services, name, &Arc::new(ServiceFacts::of(value)), object);
            }
            Body::ConfigMap(value) => {
                put(&mut self.config_maps, name, &Arc::new(KeyFacts::of_config(value)), object);
            }
            Body::Secret(value) => {
                put(&mut self.secrets, name, &Arc::new(KeyFacts::of_secret(value)), object);
            }
            Body::Pod(value) => {
                let facts = PodFacts::of(&name, value, &mut self.texts);
                self.pods.insert(name, Held { value: Arc::new(facts), source });
            }
            Body::EndpointSlice(value) => {
                self.remove_slice(&name);
                if let Some(owner) = SliceFacts::owner(value, &name_of(&value.metadata)) {
                    let held =
                        Held { value: Arc::new(SliceFacts::of(&name, value, &mut self.texts)), source };
                    self.slices.entry(owner.clone()).or_default().insert(name.clone(), held);
                    self.slice_owners.insert(name, owner);
                }
            }
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
            Kind::Pod => self.pods.remove(name).is_some(),
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

//! Which watches run: one per kind and namespace, and one per object that another one names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ApiResource};
use kube::core::{DynamicObject, GroupVersionKind};
use manifest::kind::{
    InferenceCache, InferenceGateway, InferenceService, ModelPlacement, PrefillDecodingDisaggregation,
    RoutingPolicy, SpeculativeDecoding, StaticRoute, inference_pool,
};
use manifest::{Kind, ObjectKey};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::follow::{News, Scope, WatchId, follow};
use super::reduce::WatchedPod;

/// Config maps, secrets and pools that are watched because somebody names them; further ones are not, and found.
pub const NAMED_MAX: usize = 1_024;

/// Kinds of which everything is watched.
const WHOLE: [Kind; 11] = [
    Kind::InferenceGateway,
    Kind::InferenceService,
    Kind::InferenceCache,
    Kind::SpeculativeDecoding,
    Kind::PrefillDecodingDisaggregation,
    Kind::StaticRoute,
    Kind::RoutingPolicy,
    Kind::ModelPlacement,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Pod,
];

/// The running watches. Dropping ends them.
pub(super) struct Watches {
    client: Client,
    seed: u64,
    news: mpsc::Sender<News>,
    ids: Vec<WatchId>,
    named: BTreeMap<ObjectKey, AbortHandle>,
    surplus: Vec<ObjectKey>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("ids", &self.ids).field("named", &self.named.keys()).finish()
    }
}

impl Watches {
    /// Starts the watches of whole kinds.
    pub(super) fn start(
        client: Client,
        namespaces: Vec<Arc<str>>,
        seed: u64,
        news: mpsc::Sender<News>,
    ) -> Self {
        let scopes: BTreeSet<Scope> = if namespaces.is_empty() {
            BTreeSet::from([Scope::All])
        } else {
            namespaces.into_iter().map(Scope::Namespace).collect()
        };
        let of_kind = |kind| scopes.iter().map(move |scope| WatchId { kind, scope: scope.clone() });
        let ids: Vec<WatchId> = WHOLE.into_iter().flat_map(of_kind).collect();
        let (named, surplus, tasks) = (BTreeMap::new(), Vec::new(), JoinSet::new());
        let mut watches = Self { client, seed, news, ids, named, surplus, tasks };
        for id in watches.ids.clone() {
            watches.spawn(id);
        }
        watches
    }

    /// The watches of whole kinds.
    pub(super) fn ids(&self) -> impl Iterator<Item = WatchId> {
        self.ids.iter().cloned()
    }

    /// Watches these objects and no others. Returns which watches are new, and which have ended.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<ObjectKey>) -> (Vec<WatchId>, Vec<WatchId>) {
        let id = |key: &ObjectKey| WatchId { kind: key.kind, scope: Scope::Object(key.name.clone()) };
        let mut ended = Vec::new();
        self.named.retain(|key, task| {
            if wanted.contains(key) {
                return true;
            }
            task.abort();
            ended.push(id(key));
            false
        });
        let mut added = Vec::new();
        self.surplus.clear();
        for key in wanted {
            if self.named.contains_key(key) {
                continue;
            }
            if self.named.len() >= NAMED_MAX {
                self.surplus.push(key.clone());
                continue;
            }
            let task = self.spawn(id(key));
            self.named.insert(key.clone(), task);
            added.push(id(key));
        }
        // Tasks that were ended have nothing to say any more.
        while self.tasks.try_join_next().is_some() {}
        (added, ended)
    }

    /// Objects that somebody names and that are not watched, being too many.
    pub(super) fn surplus(&self) -> &[ObjectKey] {
        &self.surplus
    }

    fn spawn(&mut self, id: WatchId) -> AbortHandle {
        let (news, tasks) = (self.news.clone(), &mut self.tasks);
        let seed = self.seed;
        macro_rules! typed {
            ($type:ty) => {{
                let api: Api<$type> = match &id.scope {
                    Scope::All => Api::all(self.client.clone()),
                    Scope::Namespace(namespace) => Api::namespaced(self.client.clone(), namespace),
                    Scope::Object(name) => Api::namespaced(self.client.clone(), &name.namespace),
                };
                tasks.spawn(follow(api, id, seed, news))
            }};
        }
        match id.kind {
            Kind::Service => typed!(Service),
            Kind::EndpointSlice => typed!(EndpointSlice),
            Kind::Pod => typed!(WatchedPod),
            Kind::ConfigMap => typed!(ConfigMap),
            Kind::Secret => typed!(Secret),
            kind => {
                let resource = resource(kind);
                let client = self.client.clone();
                let api: Api<DynamicObject> = match &id.scope {
                    Scope::All => Api::all_with(client, &resource),
                    Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, &resource),
                    Scope::Object(name) => Api::namespaced_with(client, &name.namespace, &resource),
                };
                tasks.spawn(follow(api, id, seed, news))
            }
        }
    }
}

/// Where a kind is found that is read without a type of its own.
fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::InferenceGateway => ApiResource::erase::<InferenceGateway>(&()),
        Kind::InferenceService => ApiResource::erase::<InferenceService>(&()),
        Kind::InferenceCache => ApiResource::erase::<InferenceCache>(&()),
        Kind::SpeculativeDecoding => ApiResource::erase::<SpeculativeDecoding>(&()),
        Kind::PrefillDecodingDisaggregation => ApiResource::erase::<PrefillDecodingDisaggregation>(&()),
        Kind::StaticRoute => ApiResource::erase::<StaticRoute>(&()),
        Kind::RoutingPolicy => ApiResource::erase::<RoutingPolicy>(&()),
        Kind::ModelPlacement => ApiResource::erase::<ModelPlacement>(&()),
        other => {
            let (group, version) = other.api_version().split_once('/').unwrap_or(("", "v1"));
            let kind = GroupVersionKind::gvk(group, version, other.as_str());
            ApiResource::from_gvk_with_plural(&kind, inference_pool::PLURAL)
        }
    }
}

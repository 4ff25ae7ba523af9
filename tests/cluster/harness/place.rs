//! A Kubernetes namespace of one test, and what a test does in it.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::Status;
use kube::runtime::watcher::watch_object;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::plane::{self, Plane};
use crate::tool::{self, Said};

/// Longest wait for anything that must come of what a test did. It is no claim: debug builds compile policies beside an API
/// server, on a machine that does other things too. Reaching it fails the test.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The same for `kubectl` and Helm, which may have pods to wait for that drain: `--timeout`.
pub const TOOL_PATIENCE: &str = "--timeout=300s";

/// The group of our kinds.
pub const GROUP: &str = "production-stack.vllm.ai";

/// Every kind that tests touch: group, version, kind, plural.
const KINDS: &[(&str, &str, &str, &str)] = &[
    (GROUP, "v1alpha1", "InferenceGateway", "inferencegateways"),
    (GROUP, "v1alpha1", "InferenceService", "inferenceservices"),
    (GROUP, "v1alpha1", "InferenceCache", "inferencecaches"),
    (GROUP, "v1alpha1", "SpeculativeDecoding", "speculativedecodings"),
    (GROUP, "v1alpha1", "PrefillDecodingDisaggregation", "prefilldecodingdisaggregations"),
    (GROUP, "v1alpha1", "StaticRoute", "staticroutes"),
    (GROUP, "v1alpha1", "RoutingPolicy", "routingpolicies"),
    (GROUP, "v1alpha1", "ModelPlacement", "modelplacements"),
    ("", "v1", "Service", "services"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "Node", "nodes"),
    ("apps", "v1", "Deployment", "deployments"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    ("events.k8s.io", "v1", "Event", "events"),
    ("coordination.k8s.io", "v1", "Lease", "leases"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
];

const CLUSTER_WIDE: [&str; 5] =
    ["Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];

/// Our own kinds, in the order of the design.
pub const OURS: [&str; 8] = [
    "InferenceGateway",
    "InferenceService",
    "InferenceCache",
    "SpeculativeDecoding",
    "PrefillDecodingDisaggregation",
    "StaticRoute",
    "RoutingPolicy",
    "ModelPlacement",
];

/// What the API server knows about a kind.
///
/// # Panics
/// For a kind that no test has used yet.
pub fn resource(kind: &str) -> ApiResource {
    let known = KINDS.iter().find(|(_, _, known, _)| *known == kind);
    let (group, version, kind, plural) = known.unwrap_or_else(|| panic!("{kind}: add it to KINDS"));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// A namespace on a control plane, with the administrator's client.
#[derive(Clone)]
pub struct Place {
    /// The administrator's client.
    pub client: Client,
    /// Its name.
    pub namespace: String,
    plane: &'static Plane,
}

impl Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Place {
    /// A new namespace on the shared control plane, named after a test, whose default ServiceAccount is there.
    pub async fn new(name: &str) -> Self {
        Self::on(plane::shared(), name).await
    }

    /// The same on another control plane.
    pub async fn on(plane: &'static Plane, name: &str) -> Self {
        let place = Self { client: plane.client().await, namespace: name.to_owned(), plane };
        place.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await;
        // Admission refuses pods until then.
        place.until("ServiceAccount", "default", |_| Some(())).await;
        place
    }

    /// The same place through a new client: after the API server has gone, the old one's connection has, too.
    #[must_use]
    pub async fn reconnected(self) -> Self {
        Self { client: self.plane.client().await, ..self }
    }

    /// The control plane it is on.
    pub fn plane(&self) -> &'static Plane {
        self.plane
    }

    /// The API of a kind in this namespace, or of the whole cluster for kinds without one.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        if CLUSTER_WIDE.contains(&kind) {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        }
    }

    /// Applies a file of manifests server-side and strictly; the objects as stored.
    ///
    /// # Panics
    /// When one of them is refused.
    pub async fn apply(&self, yaml: &str) -> Vec<DynamicObject> {
        let mut stored = Vec::new();
        for object in documents(yaml) {
            let what = object["kind"].to_string() + " " + &object["metadata"]["name"].to_string();
            stored.push(self.try_apply(&object).await.unwrap_or_else(|error| panic!("{what}: {error}")));
        }
        stored
    }

    /// Applies one object, as given or not at all.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn try_apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let kind = object["kind"].as_str().expect("a kind");
        let name = object["metadata"]["name"].as_str().expect("a name");
        let parameters = PatchParams::apply("test").force().validation_strict();
        let api = match object["metadata"]["namespace"].as_str() {
            Some(other) => Api::namespaced_with(self.client.clone(), other, &resource(kind)),
            None => self.api(kind),
        };
        api.patch(name, &parameters, &Patch::Apply(object)).await
    }

    /// Applies one document that the API server must refuse; why it did.
    pub async fn refused(&self, yaml: &str) -> Box<Status> {
        let object = documents(yaml).remove(0);
        match self.try_apply(&object).await {
            Err(kube::Error::Api(status)) => status,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("the API server took {yaml}"),
        }
    }

    /// Changes fields of an object (a merge patch, as `kubectl edit` sends for our kinds).
    pub async fn patch(&self, kind: &str, name: &str, patch: Value) -> DynamicObject {
        let done = self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.unwrap_or_else(|error| panic!("{kind} {name}: {error}"))
    }

    /// Sets or (with null) removes annotations.
    pub async fn annotate(&self, kind: &str, name: &str, annotations: Value) {
        self.patch(kind, name, json!({"metadata": {"annotations": annotations}})).await;
    }

    /// Deletes an object; finalizers and the kubelet may take their time.
    pub async fn delete(&self, kind: &str, name: &str) {
        let done = self.api(kind).delete(name, &DeleteParams::default()).await;
        done.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// The object as it is now.
    pub async fn get(&self, kind: &str, name: &str) -> DynamicObject {
        self.api(kind).get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"))
    }

    /// Watches an object until `wanted` gives something.
    pub async fn until<T>(&self, kind: &str, name: &str, wanted: impl Fn(&DynamicObject) -> Option<T>) -> T {
        self.until_change(kind, name, |object| object.and_then(&wanted)).await
    }

    /// Watches until an object is gone.
    pub async fn until_gone(&self, kind: &str, name: &str) {
        self.until_change(kind, name, |object| object.is_none().then_some(())).await;
    }

    async fn until_change<T>(
        &self,
        kind: &str,
        name: &str,
        wanted: impl Fn(Option<&DynamicObject>) -> Option<T>,
    ) -> T {
        let mut last = None;
        let wait = async {
            let mut states = pin!(watch_object(self.api(kind), name));
            while let Some(state) = states.next().await {
                if let Ok(state) = state {
                    if let Some(found) = wanted(state.as_ref()) {
                        return found;
                    }
                    last = state;
                }
            }
            unreachable!("a watch has no end")
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{kind} {name} did not get there; it is {}", shown(last.as_ref())),
        }
    }

    /// Waits until a condition has a status; the condition.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str, status: &str) -> Value {
        self.until(kind, name, |object| {
            condition_of(object, condition).filter(|found| found["status"] == status)
        })
        .await
    }

    /// Runs `kubectl` in this namespace as the administrator.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Said {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(args);
        tool::run("kubectl", &self.plane.kubeconfig(), &all, input).await
    }
}

fn shown(object: Option<&DynamicObject>) -> String {
    object.map_or_else(
        || "not there".to_owned(),
        |object| serde_json::to_string_pretty(&object.data).unwrap_or_else(|_| object.name_any()),
    )
}

/// A condition of an object's status, of the object's present generation.
pub fn condition_of(object: &DynamicObject, condition: &str) -> Option<Value> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|found| found["type"] == condition)?;
    let current =
        found["observedGeneration"].as_i64().is_none_or(|seen| Some(seen) == object.metadata.generation);
    current.then(|| found.clone())
}

/// The documents of a file of manifests.
pub fn documents(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    all.into_iter().filter(|document| !document.is_null()).collect()
}

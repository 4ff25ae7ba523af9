//! What is kept of each object as it arrives.
//!
//! A cluster holds many times more than matters here. Objects of ours are kept whole, checked against their schema; of the
//! others only what [`manifest::bundle::facts`] looks at, and a print of it, so that a change of anything else is none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use domain::finding::Finding;
use domain::name::ObjectName;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerPort, Pod, PodCondition, PodSpec, PodStatus, Secret, Service, ServicePort,
    ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicObject;
use manifest::bundle::facts::is_https;
use manifest::object::DEFAULT_NAMESPACE;
use manifest::{Body, Kind, Object, Source};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What `kubectl apply` repeats the whole object in.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The label that binds a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object as a watch saw it.
#[derive(Debug)]
pub(super) struct Sight {
    /// Its name.
    pub(super) name: ObjectName,
    /// Differs when something that matters does.
    pub(super) print: u64,
    /// What is kept of it; `None`: it means nothing as it stands, and what it said before stays in force.
    pub(super) object: Option<Arc<Object>>,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
}

/// An object that can be watched.
pub(super) trait Watched: Resource + Clone + Debug + DeserializeOwned + Send + 'static {
    /// Takes what matters. `kind`: what it is.
    fn sight(self, kind: Kind) -> Sight;
}

/// Name of an object; one that is watched always has one.
pub(super) fn name_of(metadata: &ObjectMeta) -> ObjectName {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    ObjectName::new(namespace.unwrap_or(DEFAULT_NAMESPACE), metadata.name.as_deref().unwrap_or_default())
}

fn print(parts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// What identifies an object, and nothing else.
fn identity(metadata: ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, namespace, uid, .. } = metadata;
    ObjectMeta { name, namespace, uid, ..ObjectMeta::default() }
}

/// A core object after the reduction. `more` counts as a difference, although nothing of it is kept.
fn core<T: Serialize>(metadata: &ObjectMeta, value: T, body: fn(Arc<T>) -> Body, more: u64) -> Sight {
    // Plain structures with keys that are texts always serialise.
    let text = serde_json::to_string(&value).unwrap_or_default();
    Sight {
        name: name_of(metadata),
        print: print(&(text, more)),
        object: Some(Arc::new(Object { source: Arc::new(Source::default()), body: body(Arc::new(value)) })),
        findings: Vec::new(),
    }
}

impl Watched for DynamicObject {
    fn sight(self, kind: Kind) -> Sight {
        let Self { mut metadata, data, .. } = self;
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
        let name = name_of(&metadata);
        let print = print(&(&metadata.uid, &metadata.resource_version));
        let mut value = if data.is_object() { data } else { json!({}) };
        value["apiVersion"] = json!(kind.api_version());
        value["kind"] = json!(kind.as_str());
        value["metadata"] = serde_json::to_value(&metadata).unwrap_or(Value::Null);
        let decoded = manifest::decode_object(kind, value);
        let object = decoded.objects.into_iter().next().map(Arc::new);
        Sight { name, print, object, findings: decoded.findings }
    }
}

impl Watched for Service {
    fn sight(self, _: Kind) -> Sight {
        let spec = self.spec.map(|spec| ServiceSpec {
            type_: spec.type_,
            external_name: spec.external_name,
            ports: spec.ports.map(|ports| {
                let port = |port: ServicePort| ServicePort {
                    name: port.name,
                    port: port.port,
                    app_protocol: port.app_protocol,
                    ..ServicePort::default()
                };
                ports.into_iter().map(port).collect()
            }),
            ..ServiceSpec::default()
        });
        let metadata = identity(self.metadata);
        core(&metadata.clone(), Self { metadata, spec, status: None }, Body::Service, 0)
    }
}

impl Watched for EndpointSlice {
    fn sight(self, _: Kind) -> Sight {
        let labels = self.metadata.labels.clone().unwrap_or_default();
        let labels: BTreeMap<String, String> =
            labels.into_iter().filter(|(key, _)| key == SERVICE_NAME).collect();
        let mut metadata = identity(self.metadata);
        metadata.labels = Some(labels);
        let endpoint = |endpoint: Endpoint| Endpoint {
            addresses: endpoint.addresses,
            conditions: endpoint.conditions,
            node_name: endpoint.node_name,
            target_ref: endpoint.target_ref.map(|mut target| {
                target.resource_version = None;
                target
            }),
            zone: endpoint.zone,
            ..Endpoint::default()
        };
        let slice = Self {
            address_type: self.address_type,
            endpoints: self.endpoints.into_iter().map(endpoint).collect(),
            metadata,
            ports: self.ports,
        };
        core(&slice.metadata.clone(), slice, Body::EndpointSlice, 0)
    }
}

impl Watched for ConfigMap {
    fn sight(self, _: Kind) -> Sight {
        let metadata = identity(self.metadata);
        let map = Self { metadata, data: self.data, binary_data: self.binary_data, immutable: None };
        core(&map.metadata.clone(), map, Body::ConfigMap, 0)
    }
}

impl Watched for Secret {
    fn sight(self, _: Kind) -> Sight {
        let metadata = identity(self.metadata);
        let secret = Self { metadata, data: self.data, ..Self::default() };
        core(&secret.metadata.clone(), secret, Body::Secret, 0)
    }
}

/// A pod, of which only what matters is even read.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WatchedPodSpec,
    #[serde(default)]
    status: WatchedPodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchedPodSpec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<WatchedContainer>,
    #[serde(default)]
    init_containers: Vec<WatchedContainer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchedContainer {
    restart_policy: Option<String>,
    #[serde(default)]
    ports: Vec<WatchedPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchedPort {
    name: Option<String>,
    container_port: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchedPodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default)]
    conditions: Vec<WatchedCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct WatchedCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        Pod::kind(&())
    }
    fn group(_: &()) -> Cow<'_, str> {
        Pod::group(&())
    }
    fn version(_: &()) -> Cow<'_, str> {
        Pod::version(&())
    }
    fn plural(_: &()) -> Cow<'_, str> {
        Pod::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Watched for WatchedPod {
    fn sight(self, _: Kind) -> Sight {
        let ObjectMeta { labels, annotations, deletion_timestamp, .. } = &self.metadata;
        // A changed annotation changes nothing here, but the engine may have been told something: it is worth a look.
        let annotated = print(annotations);
        let (labels, deletion_timestamp) = (labels.clone(), deletion_timestamp.clone());
        let metadata = ObjectMeta { labels, deletion_timestamp, ..identity(self.metadata) };
        // Of native sidecars the ports count as well; other init containers have ended when the pod serves.
        let is_sidecar = |container: &WatchedContainer| container.restart_policy.as_deref() == Some("Always");
        let sidecars = self.spec.init_containers.into_iter().filter(is_sidecar);
        let port = |port: WatchedPort| ContainerPort {
            name: port.name.filter(|name| name == "http" || is_https(name)),
            container_port: port.container_port,
            ..ContainerPort::default()
        };
        let ports = self.spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports);
        let ports: Vec<ContainerPort> = ports.map(port).collect();
        let container = (!ports.is_empty()).then(|| Container { ports: Some(ports), ..Container::default() });
        let ready = self.status.conditions.into_iter().find(|condition| condition.kind == "Ready");
        let ready = ready.map(|ready| {
            vec![PodCondition { type_: ready.kind, status: ready.status, ..PodCondition::default() }]
        });
        let spec = PodSpec {
            node_name: self.spec.node_name,
            containers: container.into_iter().collect(),
            ..PodSpec::default()
        };
        let status = PodStatus {
            phase: self.status.phase,
            pod_ip: self.status.pod_ip,
            conditions: ready,
            ..PodStatus::default()
        };
        let pod = Pod { metadata, spec: Some(spec), status: Some(status) };
        core(&pod.metadata.clone(), pod, Body::Pod, annotated)
    }
}

#[cfg(test)]
mod tests;

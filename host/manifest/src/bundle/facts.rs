//! What matters of core objects, in the form that lowering copies.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use domain::name::ObjectName;
use k8s_openapi::api::core::v1::{ConfigMap, Container, ContainerPort, Pod, PodSpec, Secret, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The label that binds a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that marks a pod whose engine sleeps.
const SLEEPING: &str = "sleeping";

/// Pairs of label key and value, sorted by key.
pub type Labels = Vec<(Arc<str>, Arc<str>)>;

/// A core service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its ports: name (empty where there is none) and number.
    pub ports: Vec<(Box<str>, u16)>,
    /// What its ports say that they speak (`appProtocol`), by number.
    pub app_protocols: Vec<(u16, Box<str>)>,
    /// The name it stands for, if its type is `ExternalName`.
    pub external_name: Option<Box<str>>,
    /// Its address in the cluster, if it has one.
    pub cluster_ip: Option<Box<str>>,
}

impl ServiceFacts {
    pub(crate) fn of(service: &Service) -> Self {
        let Some(spec) = &service.spec else { return Self::default() };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port).ok().filter(|number| *number > 0)?;
            Some((port.name.as_deref().unwrap_or_default().into(), number))
        });
        let ports = ports.collect();
        let said = spec.ports.iter().flatten().map(|port| (Some(port.port), port.app_protocol.as_deref()));
        let app_protocols = protocols(said);
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        let external_name = spec.external_name.as_deref().filter(|_| is_external).map(Into::into);
        let cluster_ip = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
        Self { ports, app_protocols, external_name, cluster_ip: cluster_ip.map(Into::into) }
    }
}

/// A slice of a service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceFacts {
    /// Addresses are IPv6.
    pub is_ipv6: bool,
    /// Its ports: name (empty where there is none) and number.
    pub ports: Vec<(Box<str>, u16)>,
    /// What its ports say that they speak (`appProtocol`), by number.
    pub app_protocols: Vec<(u16, Box<str>)>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// What ports say that they speak, by number; those that say nothing are left out.
fn protocols<'a>(ports: impl Iterator<Item = (Option<i32>, Option<&'a str>)>) -> Vec<(u16, Box<str>)> {
    let said = ports.filter_map(|(port, protocol)| {
        let number = u16::try_from(port?).ok()?;
        Some((number, protocol.filter(|text| !text.is_empty())?.into()))
    });
    said.collect()
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Address, without brackets.
    pub address: Arc<str>,
    /// Ready, and not on its way out.
    pub is_routable: bool,
    /// The pod behind it, and its uid (empty where the slice does not say).
    pub pod: Option<(ObjectName, Arc<str>)>,
    /// Node name; empty where the slice does not say.
    pub node: Arc<str>,
    /// Zone; empty where the slice does not say.
    pub zone: Arc<str>,
}

impl SliceFacts {
    pub(crate) fn owner(slice: &EndpointSlice, name: &ObjectName) -> Option<ObjectName> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        Some(ObjectName::new(Arc::clone(&name.namespace), service.as_str()))
    }

    pub(crate) fn of(name: &ObjectName, slice: &EndpointSlice, texts: &mut Texts) -> Self {
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port?).ok().filter(|number| *number > 0)?;
            Some((port.name.as_deref().unwrap_or_default().into(), number))
        });
        let endpoints =
            slice.endpoints.iter().filter_map(|endpoint| SliceEndpoint::of(name, endpoint, texts));
        let said = slice.ports.iter().flatten().map(|port| (port.port, port.app_protocol.as_deref()));
        let app_protocols = protocols(said);
        let is_ipv6 = slice.address_type == "IPv6";
        Self { is_ipv6, ports: ports.collect(), app_protocols, endpoints: endpoints.collect() }
    }
}

impl SliceFacts {
    /// Whether a port says that it speaks TLS, by its protocol or its name.
    pub(crate) fn says_https(&self, port: u16) -> bool {
        let by_protocol = |(number, protocol): &(u16, Box<str>)| {
            *number == port && matches!(&*protocol.to_ascii_lowercase(), "https" | "kubernetes.io/https")
        };
        let by_name = |(name, number): &(Box<str>, u16)| *number == port && is_https(name);
        self.app_protocols.iter().any(by_protocol) || self.ports.iter().any(by_name)
    }
}

impl SliceEndpoint {
    fn of(slice: &ObjectName, endpoint: &Endpoint, texts: &mut Texts) -> Option<Self> {
        let conditions = endpoint.conditions.as_ref();
        // Behind `publishNotReadyAddresses` every address is called ready; whether it serves is said truly.
        let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true)
            && conditions.and_then(|c| c.serving).unwrap_or(true);
        let is_terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let pod = pod.and_then(|target| {
            let namespace = texts.share(target.namespace.as_deref().unwrap_or(&slice.namespace));
            let name = ObjectName::new(namespace, target.name.as_deref()?);
            Some((name, target.uid.as_deref().unwrap_or_default().into()))
        });
        Some(Self {
            // All addresses of one endpoint are the same thing; the first is enough.
            address: endpoint.addresses.first()?.as_str().into(),
            is_routable: is_ready && !is_terminating,
            pod,
            node: texts.share(endpoint.node_name.as_deref().unwrap_or_default()),
            zone: texts.share(endpoint.zone.as_deref().unwrap_or_default()),
        })
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: ObjectName,
    /// Its uid; empty in a directory that names none.
    pub uid: Arc<str>,
    /// All its labels.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Labels that its owner set, for policies: without those that Kubernetes or this gateway writes.
    pub shown: Labels,
    /// Node name; empty when unknown.
    pub node: Arc<str>,
    /// Its address; `None` before it has one.
    pub address: Option<Arc<str>>,
    /// Number of the port named `http` of its containers, else of its native sidecars.
    pub http_port: Option<u16>,
    /// Numbers of all ports that its containers and native sidecars declare, sorted. Declaring one is optional.
    pub ports: Vec<u16>,
    /// Numbers of the container ports that speak TLS by their names: `https`, or `https-` and more.
    pub https_ports: Vec<u16>,
    /// Running, ready, and not on its way out.
    pub is_routable: bool,
    /// It says itself that it is not ready.
    pub is_unready: bool,
    /// On its way out, or ended.
    pub is_gone: bool,
    /// Its engine sleeps, by its label.
    pub is_asleep: bool,
}

impl PodFacts {
    pub(crate) fn of(name: &ObjectName, pod: &Pod, texts: &mut Texts) -> Self {
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let labels: BTreeMap<Box<str>, Box<str>> = pod
            .metadata
            .labels
            .iter()
            .flatten()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        let shown: Labels = labels
            .iter()
            .filter(|(key, _)| is_shown(key))
            .map(|(key, value)| (texts.share(key), texts.share(value)))
            .collect();
        let phase = status.and_then(|status| status.phase.as_deref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status == "True");
        let is_ready = ready == Some(true);
        let is_gone =
            pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Failed" | "Succeeded"));
        let number = |port: &ContainerPort| u16::try_from(port.container_port).ok().filter(|port| *port > 0);
        let http = spec.and_then(|spec| declared(spec).find(|port| port.name.as_deref() == Some("http")));
        let mut ports: Vec<u16> = spec.into_iter().flat_map(declared).filter_map(number).collect();
        ports.sort_unstable();
        ports.dedup();
        let says_https = |port: &&ContainerPort| port.name.as_deref().is_some_and(is_https);
        let https_ports = spec.into_iter().flat_map(declared).filter(says_https).filter_map(number).collect();
        Self {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            shown,
            node: texts.share(spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()),
            address: status.and_then(|s| s.pod_ip.as_deref()).filter(|ip| !ip.is_empty()).map(Into::into),
            http_port: http.and_then(number),
            ports,
            is_unready: ready == Some(false),
            https_ports,
            is_routable: is_ready && !is_gone && phase == Some("Running"),
            is_gone,
            is_asleep: labels.get(SLEEPING).is_some_and(|value| **value == *"true"),
            labels,
            name: ObjectName::new(texts.share(&name.namespace), Arc::clone(&name.name)),
        }
    }
}

/// Ports that run with a pod: of its containers, then of its native sidecars, which are init containers that are not waited for.
fn declared(spec: &PodSpec) -> impl Iterator<Item = &ContainerPort> {
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten())
}

/// Whether a port of this name speaks TLS.
pub fn is_https(name: &str) -> bool {
    name == "https" || name.starts_with("https-")
}

/// Whether a label is the operator's own. One that changes with every rollout or nap would only make instances anew.
fn is_shown(key: &str) -> bool {
    let machine_made = ["pod-template-hash", "controller-revision-hash", "pod-template-generation", SLEEPING];
    !machine_made.contains(&key)
        && !key.split_once('/').is_some_and(|(domain, _)| {
            domain == "kubernetes.io"
                || domain.ends_with(".kubernetes.io")
                    && domain != "app.kubernetes.io"
                    && domain != "topology.kubernetes.io"
        })
}

/// Keys of a config map or a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// Bytes by key.
    pub keys: BTreeMap<Box<str>, KeyBytes>,
}

/// The value of one key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes {
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// They stood as plain text, in `data` of a config map.
    pub is_text: bool,
}

/// Names of keys only: values may be secret.
impl std::fmt::Debug for KeyFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl KeyFacts {
    pub(crate) fn of_config(map: &ConfigMap) -> Self {
        let texts = map.data.iter().flatten().map(|(key, text)| (key, text.as_bytes(), true));
        let binaries = map.binary_data.iter().flatten().map(|(key, bytes)| (key, bytes.0.as_slice(), false));
        Self::collect(texts.chain(binaries))
    }

    pub(crate) fn of_secret(secret: &Secret) -> Self {
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key, bytes.0.as_slice(), false));
        // The API server writes `stringData` over `data`; a directory has to do so itself.
        let texts = secret.string_data.iter().flatten().map(|(key, text)| (key, text.as_bytes(), false));
        Self::collect(data.chain(texts))
    }

    fn collect<'a>(entries: impl Iterator<Item = (&'a String, &'a [u8], bool)>) -> Self {
        let keys = entries
            .map(|(key, bytes, is_text)| (key.as_str().into(), KeyBytes { bytes: bytes.into(), is_text }));
        Self { keys: keys.collect() }
    }
}

/// Authority of an address, which is an IP address or a host name: IPv6 takes brackets.
pub(crate) fn authority(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Texts that many objects share, kept once: labels, nodes and zones of thousands of pods are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    known: HashSet<Arc<str>>,
}

impl Texts {
    /// Most texts that are kept; beyond, sharing starts anew.
    const TEXTS_MAX: usize = 65_536;

    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= Self::TEXTS_MAX {
            self.known.clear();
        }
        let text: Arc<str> = text.into();
        self.known.insert(Arc::clone(&text));
        text
    }
}

//! From a `backendRef` to endpoints: a core Service's slices, pods by selector or InferencePool, or a list of URLs.

use std::collections::HashMap;
use std::sync::Arc;

use domain::endpoint::{EndpointId, EndpointSpec, PodRef, Roles, Target};
use domain::name::ObjectName;
use domain::redact;

mod found;

use found::{Found, Port, protocol};

use super::Lowering;
use super::engine::Engine;
use super::reference::Missing;
use super::report::About;
use super::scheme::Said;
use super::url;
use crate::bundle::Held;
use crate::bundle::facts::{PodFacts, ServiceFacts, SliceEndpoint, SliceFacts, authority, is_https};
use crate::kind::reference::{BackendObject, LabelSelector};
use crate::kind::{BackendRef, InferenceGateway, inference_pool};
use crate::object::Kind;
use crate::spelling;

/// The port of an engine where nothing says another.
const DEFAULT_PORT: u16 = 8000;
const FIELD: &str = "spec.backendRef";
/// Ports that a finding names.
const PORTS_NAMED_MAX: usize = 8;

/// Pods by namespace, label key and label value.
type PodsByLabel<'a> = HashMap<(&'a str, &'a str, &'a str), Vec<&'a Arc<PodFacts>>>;

/// Pods by one of their labels, made when first needed.
#[derive(Debug, Default)]
pub(super) struct PodIndex<'a> {
    by_label: Option<PodsByLabel<'a>>,
}

/// Where an engine listens.
struct Place<'a> {
    address: &'a Arc<str>,
    port: u16,
    /// It speaks TLS.
    tls: bool,
    node: &'a Arc<str>,
    zone: &'a Arc<str>,
}

impl<'a> Lowering<'a> {
    /// Endpoints of a backend, each URL once.
    pub(super) fn backend(
        &mut self,
        about: &About,
        to: &BackendRef,
        engine: &Engine,
    ) -> Vec<Arc<EndpointSpec>> {
        let plain;
        let object = match to {
            BackendRef::Ref(object) => &**object,
            BackendRef::Name(name) => {
                let (namespace, name) =
                    name.split_once('/').map_or((None, &**name), |(ns, name)| (Some(ns), name));
                let namespace = namespace.map(str::to_owned);
                plain = BackendObject { name: name.to_owned(), namespace, ..BackendObject::default() };
                &plain
            }
        };
        if self.same_namespace(about, FIELD, object.namespace.as_deref()).is_none() {
            return Vec::new();
        }
        if object.weight.is_some() {
            let message = "weight is not acted upon: a service has one backend";
            self.report.info(
                self.bundle,
                about,
                "spec.backendRef.weight",
                "NotActedUpon",
                message,
                "remove it",
            );
        }
        let group = object.group.as_deref().or(object.api_group.as_deref()).unwrap_or_default();
        match (group, object.kind.as_deref().unwrap_or("Service")) {
            // The Go dialect writes Backend and means the core Service of that name.
            ("" | "core", "Service") | ("gateway.envoyproxy.io", "Backend" | "Service") | ("", "Backend") => {
                self.core_service(about, object, engine)
            }
            (_, "Pods") => self.selected_pods(about, object, engine),
            (_, "Static") => self.static_urls(about, object, engine),
            ("" | inference_pool::GROUP, "InferencePool") => self.inference_pool(about, object, engine),
            (group, kind) => {
                let group = if group.is_empty() { "" } else { &format!(" of group {group}") };
                let message = format!("kind {kind}{group} is not a backend");
                let near = spelling::nearest(kind, ["Service", "InferencePool", "Pods", "Static"]);
                let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
                let remedy = format!("{near}use Service, InferencePool, Pods or Static");
                self.report.error(self.bundle, about, FIELD, "InvalidReference", message, remedy);
                Vec::new()
            }
        }
    }

    fn core_service(
        &mut self,
        about: &About,
        object: &BackendObject,
        engine: &Engine,
    ) -> Vec<Arc<EndpointSpec>> {
        let bundle = self.bundle;
        let name = ObjectName::new(about.name().namespace.clone(), object.name.as_str());
        let is_gateways_own = |gateway: &Held<InferenceGateway>| {
            gateway.value.spec.service.as_ref().is_some_and(|service| service.enabled)
        };
        if bundle.gateways.get(&name).is_some_and(is_gateways_own) {
            let message = format!("Service {name} leads to gateway {name}, and so back here");
            let remedy = "name the Service of the engines";
            self.report.error(bundle, about, FIELD, "ReferenceCycle", message, remedy);
            return Vec::new();
        }
        let Some(service) = bundle.core_services.get(&name) else {
            let known = bundle.core_services.iter().map(|(name, held)| (name, held.source.origin.clone()));
            let Missing { message, remedy } = self.missing(Kind::Service, &name, known);
            let remedy = remedy.unwrap_or_else(|| "create it, or correct backendRef".to_owned());
            self.report.error(bundle, about, FIELD, "BackendNotFound", message, remedy);
            return Vec::new();
        };
        if let Some(external) = &service.value.external_name {
            let message = format!("Service {name} stands for {external} and has no endpoints of its own");
            let remedy = format!("use backendRef {{kind: Static, urls: [\"http://{external}:8000\"]}}");
            self.report.error(bundle, about, FIELD, "NoEndpoints", message, remedy);
            return Vec::new();
        }
        let Some(slices) = bundle.slices.get(&name) else {
            let message = format!("Service {name} has no EndpointSlice");
            let remedy =
                "add one labelled kubernetes.io/service-name, or check that the Service selects pods";
            self.report.warning(bundle, about, FIELD, "NoEndpoints", message, remedy);
            return Vec::new();
        };
        let prefers_tls = engine.tls.is_some();
        let Some(port) = self.service_port(about, (object.port, prefers_tls), &name, &service.value) else {
            return Vec::new();
        };
        // Of a service with both address families each pod is one engine: IPv4 goes first, the pod's uid tells.
        let mut slices: Vec<&SliceFacts> = slices.values().map(|held| &*held.value).collect();
        slices.sort_by_key(|slice| slice.is_ipv6);
        let is_dual = slices.first().map(|slice| slice.is_ipv6) != slices.last().map(|slice| slice.is_ipv6);
        let mut found = Found::new(slices.iter().map(|slice| slice.endpoints.len()).sum(), is_dual);
        let of_slice = |slice: &&'a SliceFacts| protocol(&slice.app_protocols, port.on(slice)?);
        let said = protocol(&service.value.app_protocols, port.number);
        let said = said.or_else(|| slices.iter().find_map(of_slice));
        let who = format!("Service {name}");
        let said = Said { who: &who, protocol: said, name: port.name.unwrap_or_default() };
        let tls = self.speaks_tls(about, said, engine);
        let engine = &engine.behind(&name.namespace, &name.name);
        for slice in slices {
            let Some(number) = port.on(slice) else { continue };
            let says_https = |number| slice.says_https(number);
            let engine = &engine.with_metrics_port(says_https);
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.is_routable) {
                let pod = endpoint
                    .pod
                    .as_ref()
                    .and_then(|(name, _)| bundle.pods.get(name))
                    .map(|held| &*held.value);
                if !self.is_behind(endpoint, pod) {
                    let pod = pod.filter(|pod| !pod.is_gone);
                    found.add(self.slice_endpoint(endpoint, (number, tls), pod, engine));
                }
            }
        }
        found.endpoints
    }

    /// Whether a slice still tells of a pod that is gone or not ready: pods say so themselves, and sooner.
    fn is_behind(&self, endpoint: &SliceEndpoint, pod: Option<&PodFacts>) -> bool {
        let uid = endpoint.pod.as_ref().map_or("", |(_, uid)| uid);
        if self.bundle.gone_pods.contains(uid) {
            return true;
        }
        match pod {
            // Of two pods of one name the slice may tell of the later one, as long as ours is the one that went.
            Some(pod) if !uid.is_empty() && !pod.uid.is_empty() && *pod.uid != *uid => !pod.is_gone,
            Some(pod) => pod.is_gone || pod.is_unready,
            None => false,
        }
    }

    /// Says of a port that was asked for that no pod declares it. The engine may listen there all the same.
    fn declared_port(&mut self, about: &About, field: &str, pods: &[&PodFacts], port: u16) {
        if pods.is_empty() || pods.iter().any(|pod| pod.ports.contains(&port)) {
            return;
        }
        let mut known: Vec<String> = pods.iter().flat_map(|pod| &pod.ports).map(u16::to_string).collect();
        known.sort_unstable();
        known.dedup();
        let message = format!("none of the {} selected pods declares port {port}", pods.len());
        if known.is_empty() {
            let remedy = "nothing, if the engines listen there";
            return self.report.info(self.bundle, about, field, "PortNotDeclared", message, remedy);
        }
        known.truncate(PORTS_NAMED_MAX);
        let remedy = format!("correct the port (they declare {}), or declare it", known.join(", "));
        self.report.warning(self.bundle, about, field, "PortNotDeclared", message, remedy);
    }

    /// Which port of the service: the one asked for, else the one named `http`, else the only one, else 8000, else the one
    /// named `https`. One named `https` comes first where TLS is preferred.
    fn service_port<'s>(
        &mut self,
        about: &About,
        (asked, prefers_tls): (Option<u16>, bool),
        name: &ObjectName,
        service: &'s ServiceFacts,
    ) -> Option<Port<'s>> {
        let ports = &service.ports;
        let by_number = |number: u16| ports.iter().find(|(_, port)| *port == number);
        let found = match (asked, ports.as_slice()) {
            (Some(asked), _) => by_number(asked),
            (None, []) => return Some(Port { name: None, number: DEFAULT_PORT }),
            (None, [only]) => Some(only),
            (None, several) => {
                let https = || several.iter().find(|(name, _)| is_https(name));
                let preferred = if prefers_tls { https() } else { None };
                let plain = || several.iter().find(|(name, _)| &**name == "http");
                preferred.or_else(plain).or_else(|| by_number(DEFAULT_PORT)).or_else(https)
            }
        };
        match found {
            Some((name, number)) => Some(Port { name: Some(name), number: *number }),
            // A headless service may list no ports at all.
            None if ports.is_empty() => Some(Port { name: None, number: asked.unwrap_or(DEFAULT_PORT) }),
            None => {
                let message = match asked {
                    Some(asked) => format!("Service {name} has no port {asked}"),
                    None => {
                        format!(
                            "Service {name} has several ports, none of them named http or https or numbered 8000"
                        )
                    }
                };
                let remedy = "name one of its ports in backendRef.port";
                self.report.error(
                    self.bundle,
                    about,
                    "spec.backendRef.port",
                    "PortNotFound",
                    message,
                    remedy,
                );
                None
            }
        }
    }

    fn slice_endpoint(
        &self,
        endpoint: &SliceEndpoint,
        (port, tls): (u16, bool),
        pod: Option<&PodFacts>,
        engine: &Engine,
    ) -> EndpointSpec {
        let place =
            Place { address: &endpoint.address, port, tls, node: &endpoint.node, zone: &endpoint.zone };
        let mut spec = self.endpoint(&place, pod, engine);
        if let (None, Some((name, uid))) = (pod, &endpoint.pod) {
            spec.id.pod_uid = Arc::clone(uid);
            spec.pod = Some(PodRef { namespace: Arc::clone(&name.namespace), name: Arc::clone(&name.name) });
        }
        spec
    }

    fn selected_pods(
        &mut self,
        about: &About,
        object: &BackendObject,
        engine: &Engine,
    ) -> Vec<Arc<EndpointSpec>> {
        let Some(selector) = object.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            let message = "kind Pods needs a selector that says something";
            let remedy = "add backendRef.selector.matchLabels";
            self.report.error(self.bundle, about, FIELD, "InvalidReference", message, remedy);
            return Vec::new();
        };
        let pods = self.pods_of(&about.name().namespace, selector);
        if pods.is_empty() {
            let message = "the selector selects no pod";
            let remedy = "check the labels of the pods, and their namespace";
            self.report.warning(
                self.bundle,
                about,
                "spec.backendRef.selector",
                "NoEndpoints",
                message,
                remedy,
            );
        }
        if let Some(port) = object.port {
            self.declared_port(about, "spec.backendRef.port", &pods, port);
        }
        let mut found = Found::new(pods.len(), false);
        for pod in pods.into_iter().filter(|pod| pod.is_routable) {
            let Some(address) = &pod.address else { continue };
            let https = pod.https_ports.first().copied();
            let named = if engine.tls.is_some() { https.or(pod.http_port) } else { pod.http_port.or(https) };
            let port = object.port.or(named).unwrap_or(DEFAULT_PORT);
            let tls = engine.tls.is_some() || pod.https_ports.contains(&port);
            let engine = &engine.with_metrics_port(|port| pod.https_ports.contains(&port));
            let place = Place { address, port, tls, node: &pod.node, zone: &self.no_text };
            found.add(self.endpoint(&place, Some(pod), engine));
        }
        found.endpoints
    }

    /// Pods that an InferencePool selects; each of its ports is an endpoint.
    fn inference_pool(
        &mut self,
        about: &About,
        object: &BackendObject,
        engine: &Engine,
    ) -> Vec<Arc<EndpointSpec>> {
        let bundle = self.bundle;
        let name = ObjectName::new(about.name().namespace.clone(), object.name.as_str());
        let Some(held) = bundle.inference_pools.get(&name) else {
            let known = bundle.inference_pools.iter().map(|(name, held)| (name, held.source.origin.clone()));
            let Missing { message, remedy } = self.missing(Kind::InferencePool, &name, known);
            let remedy = remedy.unwrap_or_else(|| "create it, or correct backendRef".to_owned());
            self.report.error(bundle, about, FIELD, "BackendNotFound", message, remedy);
            return Vec::new();
        };
        let spec = &held.value.spec;
        let who = format!("InferencePool {name}");
        let said = Said { who: &who, protocol: spec.app_protocol.as_deref(), name: "" };
        let speaks_tls = self.speaks_tls(about, said, engine);
        let match_labels = spec.selector.match_labels.clone();
        let selector = LabelSelector { match_labels, ..LabelSelector::default() };
        let pods = if selector.is_empty() { Vec::new() } else { self.pods_of(&name.namespace, &selector) };
        if pods.is_empty() {
            let message = format!("InferencePool {name} selects no pod");
            let remedy = "check the labels of the pods, and their namespace";
            self.report.warning(bundle, about, FIELD, "NoEndpoints", message, remedy);
        }
        for port in &spec.target_ports {
            self.declared_port(about, FIELD, &pods, port.number);
        }
        let mut found = Found::new(pods.len() * spec.target_ports.len(), false);
        for pod in pods.into_iter().filter(|pod| pod.is_routable) {
            let Some(address) = &pod.address else { continue };
            for port in &spec.target_ports {
                let port = port.number;
                let tls = speaks_tls || pod.https_ports.contains(&port);
                let engine = &engine.with_metrics_port(|port| pod.https_ports.contains(&port));
                let place = Place { address, port, tls, node: &pod.node, zone: &self.no_text };
                found.add(self.endpoint(&place, Some(pod), engine));
            }
        }
        found.endpoints
    }

    /// Pods of a namespace that a selector selects, by name.
    fn pods_of(&mut self, namespace: &str, selector: &LabelSelector) -> Vec<&'a PodFacts> {
        let bundle = self.bundle;
        let is_selected = |pod: &PodFacts| {
            *pod.name.namespace == *namespace
                && selector.selects(|key| pod.labels.get(key).map(|value| &**value))
        };
        let mut pods: Vec<&'a PodFacts> = match selector.match_labels.iter().next() {
            Some((key, value)) => {
                let index = self.pods.by_label.get_or_insert_with(|| {
                    let mut index = PodsByLabel::new();
                    for held in bundle.pods.values() {
                        for (key, value) in &held.value.labels {
                            index
                                .entry((&*held.value.name.namespace, &**key, &**value))
                                .or_default()
                                .push(&held.value);
                        }
                    }
                    index
                });
                let candidates = index.get(&(namespace, &**key, &**value)).into_iter().flatten();
                candidates.map(|pod| &***pod).filter(|pod| is_selected(pod)).collect()
            }
            None => bundle.pods.values().map(|held| &*held.value).filter(|pod| is_selected(pod)).collect(),
        };
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        pods
    }

    fn static_urls(
        &mut self,
        about: &About,
        object: &BackendObject,
        engine: &Engine,
    ) -> Vec<Arc<EndpointSpec>> {
        if object.urls.is_empty() {
            let message = "kind Static needs urls";
            self.report.error(self.bundle, about, FIELD, "InvalidReference", message, "add backendRef.urls");
        }
        let mut found = Found::new(object.urls.len(), false);
        for (index, entry) in object.urls.iter().enumerate() {
            let field = format!("spec.backendRef.urls[{index}]");
            match url::parse_engine(entry.url()) {
                Ok((url, target)) => {
                    if entry.weight() == 0 {
                        let message = "a weight of 0 counts as 1";
                        self.report.warning(
                            self.bundle,
                            about,
                            &field,
                            "OutOfRange",
                            message,
                            "remove the URL instead",
                        );
                    }
                    let mut spec = self.static_endpoint(url, target, entry.weight(), engine);
                    if let Some(engine) = entry.engine() {
                        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
                        (spec.node, spec.zone) = (text(&engine.node), text(&engine.zone));
                        let labels = engine.labels.iter();
                        spec.labels =
                            labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
                    }
                    if !found.add(spec) {
                        let message = format!("{} is there twice", entry.url());
                        self.report.warning(
                            self.bundle,
                            about,
                            &field,
                            "Duplicate",
                            message,
                            "use weight instead",
                        );
                    }
                }
                Err(why) => {
                    let message = format!("{:?} is not a base URL: {why}", redact::url(entry.url()));
                    let remedy = "write one such as http://10.0.0.1:8000";
                    self.report.error(self.bundle, about, &field, "InvalidUrl", message, remedy);
                }
            }
        }
        found.endpoints
    }

    /// An endpoint that is known by its URL alone.
    pub(super) fn static_endpoint(
        &self,
        url: Arc<str>,
        target: Target,
        weight: u32,
        engine: &Engine,
    ) -> EndpointSpec {
        let id = EndpointId { url, pod_uid: Arc::clone(&self.no_text) };
        EndpointSpec {
            asleep: false,
            id,
            target,
            roles: Roles::SERVE,
            weight: weight.max(1),
            node: Arc::clone(&self.no_text),
            zone: Arc::clone(&self.no_text),
            labels: Vec::new(),
            pod: None,
            auth: engine.auth.clone(),
            tls: engine.tls.clone(),
            metrics: engine.metrics.clone(),
        }
    }

    fn endpoint(&self, place: &Place<'_>, pod: Option<&PodFacts>, engine: &Engine) -> EndpointSpec {
        let authority = authority(place.address, place.port);
        let url = [if place.tls { "https://" } else { "http://" }, &authority].concat();
        let target = Target {
            tls: place.tls,
            host: Arc::clone(place.address),
            port: place.port,
            base_path: Arc::clone(&self.no_text),
            authority: authority.into(),
        };
        let mut spec = self.static_endpoint(url.into(), target, 1, engine);
        spec.node = Arc::clone(place.node);
        spec.zone = Arc::clone(place.zone);
        if let Some(pod) = pod {
            spec.id.pod_uid = Arc::clone(&pod.uid);
            if spec.node.is_empty() {
                spec.node = Arc::clone(&pod.node);
            }
            spec.labels = pod.shown.clone();
            spec.pod =
                Some(PodRef { namespace: Arc::clone(&pod.name.namespace), name: Arc::clone(&pod.name.name) });
            spec.asleep = pod.is_asleep;
        }
        spec
    }
}

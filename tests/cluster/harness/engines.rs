//! Engines with pod addresses, and the Kubernetes objects that lead to them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use engine::http::{Config, Engine, EngineHandle};
use serde_json::{Value, json};

use crate::address;
use crate::kubelet::ADDRESS;
use crate::place::Place;

/// Where engines listen.
pub const PORT: u16 = 8000;

/// An engine that is a pod.
#[derive(Debug)]
pub struct EnginePod {
    /// The pod's name.
    pub pod: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The engine.
    pub engine: EngineHandle,
}

impl EnginePod {
    /// `http://address:port`, as the gateway names it.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", self.address)
    }
}

/// Starts an engine at a new address, without any object in the cluster.
pub async fn listen(config: Config) -> (Ipv4Addr, EngineHandle) {
    let address = address::next();
    (address, listen_at(address, config).await)
}

/// Starts an engine at this address.
pub async fn listen_at(address: Ipv4Addr, config: Config) -> EngineHandle {
    let config = Config { listen: (address, PORT).into(), ..config };
    Engine::start(config).await.expect("an engine starts")
}

/// An engine and its pod `name`, labelled `app=<app>` and with `labels`. It becomes ready on its own.
pub async fn pod(place: &Place, app: &str, name: &str, labels: &[(&str, &str)], config: Config) -> EnginePod {
    let (address, engine) = listen(config).await;
    place.apply(&pod_manifest(app, name, labels, address).to_string()).await;
    EnginePod { pod: name.to_owned(), address, engine }
}

/// The manifest of a pod whose engine listens at `address`.
pub fn pod_manifest(app: &str, name: &str, labels: &[(&str, &str)], address: Ipv4Addr) -> Value {
    let mut all: BTreeMap<_, _> = labels.iter().copied().collect();
    all.insert("app", app);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": all, "annotations": {ADDRESS: address}},
        "spec": {"containers": [{"name": "engine", "image": "engine", "ports": [{"name": "http", "containerPort": PORT}]}]}
    })
}

/// The Service `app`, of the pods labelled `app=<app>`.
pub fn service_manifest(app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    })
}

/// `count` engines serving `model` as pods `<app>-0`… behind the Service `app`, all of them ready in its EndpointSlice.
pub async fn deployment(place: &Place, app: &str, model: &str, count: usize) -> Vec<EnginePod> {
    place.apply(&service_manifest(app).to_string()).await;
    let mut pods = Vec::new();
    for index in 0..count {
        pods.push(pod(place, app, &format!("{app}-{index}"), &[], Config::model(model)).await);
    }
    ready_endpoints(place, app, count).await;
    pods
}

/// Waits until the EndpointSlices of a Service have exactly `count` ready endpoints.
pub async fn ready_endpoints(place: &Place, service: &str, count: usize) {
    let api = place.api("EndpointSlice");
    let of_service =
        kube::api::ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    harness::fleet::until("endpoints are ready", || async {
        let slices = api.list(&of_service).await.expect("listed");
        let endpoints = slices.items.iter().flat_map(|slice| slice.data["endpoints"].as_array().cloned());
        let ready = endpoints.flatten().filter(|endpoint| endpoint["conditions"]["ready"] == true).count();
        (ready == count).then_some(())
    })
    .await;
}

/// A Service without a selector: its endpoints are in the slice that the test writes with [`slice_manifest`].
pub fn headless_manifest(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": PORT}]}
    })
}

/// The EndpointSlice `<service>-slice` with these addresses, each ready or not.
pub fn slice_manifest(service: &str, endpoints: &[(Ipv4Addr, bool)]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready)| json!({"addresses": [address], "conditions": {"ready": ready}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-slice"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}]
    })
}

/// An InferenceService `name` for `model` behind the Service `backend`, and the gateway `gw` that routes to it.
pub fn routing_manifests(model: &str, backend: &str, gateway_spec: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {{name: {backend}}}
spec: {{modelName: {model:?}, backendRef: {backend}}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata: {{name: gw}}
spec: {{{gateway_spec} routes: [{{model: {model:?}, inferenceServiceRef: {backend}}}]}}
"
    )
}

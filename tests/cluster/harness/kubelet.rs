//! A kubelet that pretends: every pod that appears gets a node and an address and becomes ready, and goes when it is
//! deleted. What it runs is nothing, but see [`process`]: a container of the gateway's image is the real binary.
//!
//! Annotations of a pod script it; all may be changed while it runs.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::{address, plane};

mod process;

pub use process::{IMAGE, log_of};

/// The pod's address; absent, the next free one.
pub const ADDRESS: &str = "kubelet.test/address";
/// `false`: the pod runs and is not ready.
pub const READY: &str = "kubelet.test/ready";
/// Another phase than `Running`, such as `Failed`; a pod that has ended has no address.
pub const PHASE: &str = "kubelet.test/phase";
/// Present: a deleted pod stays, terminating, until the annotation is removed.
pub const LINGER: &str = "kubelet.test/linger";

/// The nodes, with the labels that tests select by. A pod without a node selector goes to the first.
pub const NODES: [(&str, &[(&str, &str)]); 3] = [
    ("node-a", &[("zone", "rack1"), ("gpuType", "NVIDIA-A100"), ("topology.kubernetes.io/zone", "rack1")]),
    ("node-b", &[("zone", "rack2"), ("gpuType", "NVIDIA-H100"), ("topology.kubernetes.io/zone", "rack2")]),
    ("node-c", &[("zone", "rack1"), ("topology.kubernetes.io/zone", "rack1")]),
];

/// How often something is tried, and the pause between: the API server may have no time for it at first.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Starts it on a thread of its own, for the life of the process.
pub fn start(kubeconfig: PathBuf) {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = plane::client(&kubeconfig).await;
            create_nodes(&client).await;
            Kubelet { client, addresses: HashMap::new(), processes: HashMap::new() }.run().await;
        });
    };
    std::thread::Builder::new().name("kubelet".into()).spawn(run).expect("a thread");
}

async fn create_nodes(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    for (name, labels) in NODES {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        let node = serde_json::from_value(node).expect("a node");
        nodes.create(&PostParams::default(), &node).await.expect("a node is created");
    }
}

struct Kubelet {
    client: Client,
    /// By the pod's uid: an address is the pod's as long as it lives.
    addresses: HashMap<String, Ipv4Addr>,
    processes: HashMap<String, process::Running>,
}

impl Kubelet {
    async fn run(mut self) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut events = pin!(watcher::watcher(pods, watcher::Config::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => self.look_at(&pod).await,
                Ok(Event::Delete(pod)) => self.forget(&pod).await,
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => eprintln!("kubelet: {error}"),
            }
        }
    }

    /// Does the next thing this pod needs; what that changes comes back as an event. What fails is tried again: nothing else
    /// would remind us of it.
    async fn look_at(&mut self, pod: &Pod) {
        for _ in 0..ATTEMPTS_MAX {
            match self.do_next(pod).await {
                Ok(()) => return,
                // The pod has changed or gone meanwhile: another event tells.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => return,
                Err(error) => eprintln!("kubelet: {}: {error}", pod.name_any()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn do_next(&mut self, pod: &Pod) -> kube::Result<()> {
        if pod.metadata.deletion_timestamp.is_some() {
            self.finish(pod).await
        } else if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
            self.bind(pod).await
        } else {
            self.report(pod).await
        }
    }

    async fn forget(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        self.addresses.remove(&uid);
        if let Some(running) = self.processes.remove(&uid) {
            running.kill();
        }
    }

    async fn finish(&mut self, pod: &Pod) -> kube::Result<()> {
        if pod.annotations().contains_key(LINGER) {
            return Ok(());
        }
        let (pods, name) = (self.pods(pod), pod.name_any());
        if let Some(running) = self.processes.get_mut(&pod.uid().unwrap_or_default()) {
            running.terminate(pods, name);
            return Ok(());
        }
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(|_| ())
    }

    async fn bind(&self, pod: &Pod) -> kube::Result<()> {
        let Some(node) = node_for(pod) else {
            return Ok(());
        };
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}
        });
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
            .header("content-type", "application/json")
            .body(binding.to_string().into_bytes())
            .expect("a request");
        self.client.request_text(request).await.map(|_| ())
    }

    async fn report(&mut self, pod: &Pod) -> kube::Result<()> {
        let uid = pod.uid().unwrap_or_default();
        let address = *self.addresses.entry(uid.clone()).or_insert_with(|| address_of(pod));
        let container = process::container(pod);
        if let Some(container) = container
            && !self.processes.contains_key(&uid)
        {
            let running = process::Running::start(&self.client, pod, container, address).await?;
            self.processes.insert(uid, running);
        }
        // A process is ready when its probe says so, anything else unless it is scripted.
        let ready = pod.annotations().get(READY).map_or(container.is_none(), |ready| ready == "true");
        let status = status_of(pod, address, ready);
        if pod.status.as_ref().is_some_and(|now| says_the_same(now, &status)) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"status": status}));
        self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.map(|_| ())
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

/// The first node that has what the pod selects.
fn node_for(pod: &Pod) -> Option<&'static str> {
    let wanted = pod.spec.as_ref()?.node_selector.clone().unwrap_or_default();
    let fits = |labels: &[(&str, &str)]| {
        wanted.iter().all(|(key, value)| labels.iter().any(|(k, v)| k == key && v == value))
    };
    NODES.iter().find(|(_, labels)| fits(labels)).map(|(name, _)| *name)
}

fn address_of(pod: &Pod) -> Ipv4Addr {
    let asked = pod.annotations().get(ADDRESS);
    match asked {
        Some(text) => text.parse().expect("an address in the annotation"),
        None if process::container(pod).is_some() => address::next_of_bridge(),
        None => address::next(),
    }
}

fn status_of(pod: &Pod, address: Ipv4Addr, ready: bool) -> serde_json::Value {
    let phase = pod.annotations().get(PHASE).map_or("Running", String::as_str);
    let running = phase == "Running";
    let truth = if ready && running { "True" } else { "False" };
    let since = "2026-01-01T00:00:00Z";
    let condition =
        |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": since});
    let containers: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "none", "restartCount": 0,
                "ready": truth == "True", "started": running,
                "state": if running { json!({"running": {"startedAt": since}}) }
                    else if phase == "Succeeded" { json!({"terminated": {"exitCode": 0, "reason": "Completed"}}) }
                    else { json!({"terminated": {"exitCode": 1, "reason": "Evicted"}}) }
            })
        })
        .collect();
    let (ip, ips) =
        if running { (json!(address), json!([{"ip": address}])) } else { (json!(null), json!(null)) };
    json!({
        "phase": phase, "podIP": ip, "podIPs": ips, "hostIP": "192.0.2.1", "startTime": since,
        "containerStatuses": containers,
        "conditions": [
            condition("PodScheduled", "True"), condition("Initialized", "True"),
            condition("ContainersReady", truth), condition("Ready", truth)
        ]
    })
}

/// Whether what tests look at is as wanted already: the phase, the address and readiness.
fn says_the_same(now: &k8s_openapi::api::core::v1::PodStatus, wanted: &serde_json::Value) -> bool {
    let ready = |conditions: &serde_json::Value| {
        let all = conditions.as_array().cloned().unwrap_or_default();
        all.iter().find(|condition| condition["type"] == "Ready").map(|condition| condition["status"].clone())
    };
    let now = serde_json::to_value(now).expect("a status");
    now["phase"] == wanted["phase"]
        && now["podIP"] == wanted["podIP"]
        && ready(&now["conditions"]) == ready(&wanted["conditions"])
}

/// Waits until no pod is left in a namespace.
pub async fn no_pod_left(client: &Client, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    harness::fleet::until("all pods gone", || async {
        pods.list(&ListParams::default()).await.expect("listed").items.is_empty().then_some(())
    })
    .await;
}

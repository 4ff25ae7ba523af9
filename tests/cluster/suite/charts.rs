//! The chart and the overlays on a real API server: what it takes, and a release's whole life under traffic.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::engines::deployment;
use cluster::place::{PATIENCE, Place, TOOL_PATIENCE, documents};
use cluster::service::Service;
use cluster::tool::{self, Said};
use harness::client::Connection;
use harness::fleet::{chat, until};
use http::Method;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Makes a namespace refuse pods that are not restricted, and say so of everything that makes pods.
const RESTRICTED: [&str; 3] = ["enforce", "warn", "audit"];

pub(crate) fn path(below: &str) -> String {
    harness::gateway::root().join(below).display().to_string()
}

/// A namespace that enforces the restricted Pod Security Standard.
pub(crate) async fn restricted(name: &str) -> Place {
    let place = Place::new(name).await;
    let labels: serde_json::Map<_, _> = RESTRICTED
        .iter()
        .map(|mode| (format!("pod-security.kubernetes.io/{mode}"), json!("restricted")))
        .collect();
    place.patch("Namespace", name, json!({"metadata": {"labels": labels}})).await;
    place
}

pub(crate) async fn helm(place: &Place, version: &str, args: &[&str]) -> Said {
    let mut all = vec!["--namespace", &place.namespace];
    all.extend(args);
    tool::run(version, &place.plane().kubeconfig(), &all, "").await
}

/// Everything that can be rendered: the chart's scenarios and the overlays, with the namespaces that they need.
async fn rendered(place: &Place) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let folder = std::fs::read_dir(path("charts/wicketgate/ci")).expect("scenarios");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in files {
        let (chart, values) = (path("charts/wicketgate"), file.display().to_string());
        let args =
            ["template", "rel", &chart, "--values", &values, "--api-versions", "monitoring.coreos.com/v1"];
        all.push((values.clone(), helm(place, "helm", &args).await.ok().out));
    }
    for overlay in ["base", "overlays/dev", "overlays/production", "overlays/namespaced", "overlays/rkllama"]
    {
        let folder = path(&format!("deploy/{overlay}"));
        all.push((
            overlay.to_owned(),
            tool::run("kustomize", &place.plane().kubeconfig(), &["build", &folder], "").await.ok().out,
        ));
    }
    all
}

/// The pod that a rendered object makes, if any: without the account, which a dry run does not make.
fn pod_of(object: &Value) -> Option<Value> {
    let mut spec = match object["kind"].as_str()? {
        "Pod" => object["spec"].clone(),
        "Deployment" => object["spec"]["template"]["spec"].clone(),
        _ => return None,
    };
    spec.as_object_mut()?.remove("serviceAccountName");
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}))
}

#[tokio::test]
async fn every_rendered_object_is_what_the_api_server_takes_and_every_pod_is_restricted() {
    let place = restricted("charts-valid").await;
    let definitions = path(".cache/cluster/definitions");
    place.kubectl(&["apply", "--server-side", "-f", &definitions], "").await.ok();
    place.kubectl(&["wait", "--for=condition=Established", TOOL_PATIENCE, "crd", "--all"], "").await.ok();
    for name in ["team-a", "team-b", "wicketgate"] {
        restricted(name).await;
    }
    // The overlay's own namespace is used by another test, for real.
    let elsewhere = |yaml: &str| yaml.replace("namespace: inference\n", "namespace: team-a\n");
    for (scenario, yaml) in rendered(&place).await {
        let yaml = elsewhere(&yaml);
        let mut args = vec!["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        // Its objects go where the context says; all others name their namespaces, of which there may be several.
        if scenario == "overlays/rkllama" {
            args.extend(["--namespace", &*place.namespace]);
        }
        let said = tool::run("kubectl", &place.plane().kubeconfig(), &args, &yaml).await;
        assert!(said.success, "{scenario}: {}", said.err);
        let warnings: Vec<&str> =
            said.err.lines().filter(|line| !line.contains("last-applied-configuration")).collect();
        assert!(warnings.is_empty(), "{scenario}: {warnings:?}");
        let pods: Vec<Value> = documents(&yaml).iter().filter_map(pod_of).collect();
        assert!(!pods.is_empty(), "{scenario}");
        for pod in pods {
            let said = place.kubectl(&["create", "--dry-run=server", "-f", "-"], &pod.to_string()).await;
            assert!(said.success, "{scenario}: {}", said.err);
        }
    }
}

/// The test above would notice: here is what it says of a pod that is not restricted, and of a field that does not exist.
#[tokio::test]
async fn what_is_not_restricted_or_not_a_field_is_refused() {
    let place = restricted("charts-refused").await;
    let loose = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let said = place.kubectl(&["create", "--dry-run=server", "-f", "-"], &loose.to_string()).await;
    assert!(!said.success && said.err.contains("restricted"), "{}", said.err);
    let slip =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 1, targetPrt: 2}]}\n";
    let said = place.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], slip).await;
    assert!(!said.success && said.err.contains("targetPrt"), "{}", said.err);
}

/// A client that sends one request after the other through a Service, and leaves a connection when it is told to.
#[derive(Debug)]
struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Traffic {
    fn start(address: SocketAddr, model: &'static str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..4)
            .map(|_| tokio::spawn(client(address, model, Arc::clone(&stop), Arc::clone(&sent))))
            .collect();
        Self { stop, sent, clients }
    }

    /// Waits for more answers, stops, and asserts that no request has ever failed. How many there were.
    async fn assert_no_failure(self) -> u64 {
        let before = self.sent.load(Ordering::Relaxed);
        until("more answers", || async { (self.sent.load(Ordering::Relaxed) > before + 20).then_some(()) })
            .await;
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.expect("the client ran"));
        }
        let sent = self.sent.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} of {sent}: {failures:?}", failures.len());
        sent
    }
}

async fn client(
    address: SocketAddr,
    model: &str,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let body = chat(model, "hello").to_string();
    while !stop.load(Ordering::Relaxed) {
        let mut connection = Connection::open(address).await;
        for _ in 0..20 {
            let request =
                harness::client::request(address, Method::POST, "/v1/chat/completions", &[], body.clone());
            let answer = match connection.send(request).await {
                Ok(response) => harness::client::read(response).await,
                Err(error) => {
                    failures.push(error.to_string());
                    break;
                }
            };
            sent.fetch_add(1, Ordering::Relaxed);
            if answer.status != 200 {
                failures.push(format!("{} {}", answer.status, answer.text()));
            }
            if answer.header("connection") == Some("close") {
                break;
            }
        }
    }
    failures
}

/// What is in a namespace, but what every namespace has and Events about what was.
pub(crate) async fn contents(place: &Place) -> BTreeSet<String> {
    let kinds = place
        .kubectl(&["api-resources", "--verbs=list,delete", "--namespaced", "-o", "name"], "")
        .await
        .ok()
        .out;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let said = place.kubectl(&["get", &kinds.join(","), "-o", "name"], "").await.ok().out;
    let everywhere = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
    said.lines().filter(|name| !everywhere.contains(name)).map(str::to_owned).collect()
}

/// Waits until nothing else is left in a namespace. Pods drain first, so it takes longer than anything else here.
pub(crate) async fn until_left(place: &Place, wanted: &BTreeSet<String>) {
    let began = Instant::now();
    loop {
        let now = contents(place).await;
        if now == *wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "still there: {:?}", now.difference(wanted));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Ready replicas and the pods' template of the release's Deployment.
async fn deployment_of(place: &Place) -> (u64, String) {
    let read = |deployment: &DynamicObject| {
        let ready = deployment.data["status"]["readyReplicas"].as_u64().unwrap_or_default();
        (ready, deployment.data["spec"]["template"].to_string())
    };
    place.until("Deployment", "rel-wicketgate", |deployment| Some(read(deployment))).await
}

/// A release in a namespace of its own, for the resources and engines of another.
async fn a_releases_life(version: &str) {
    let apps = Place::new(&format!("charts-{version}-apps")).await;
    let place = restricted(&format!("charts-{version}")).await;
    let _engines = deployment(&apps, "llama", "llama", 2).await;
    let empty = (contents(&place).await, contents(&apps).await);

    let values = values(&apps.namespace);
    let chart = path("charts/wicketgate");
    let fixed = ["--set-json", &*values, "--wait", TOOL_PATIENCE];
    helm(&place, version, &[&["install", "rel", &chart], &fixed[..]].concat()).await.ok();
    assert_eq!(deployment_of(&place).await.0, 2, "--wait waited");

    let service = Service::serve(&place, "rel-wicketgate").await;
    let traffic = Traffic::start((service.address, 80).into(), "llama");
    let upgrade = ["--set", "replicaCount=3", "--set", "gateway.answerHeaders=true"];
    helm(&place, version, &[&["upgrade", "rel", &chart], &fixed[..], &upgrade].concat()).await.ok();
    let (ready, template) = deployment_of(&place).await;
    assert!(ready == 3 && template.contains("--answer-headers"), "{ready}: {template}");
    helm(&place, version, &["rollback", "rel", "1", "--wait", TOOL_PATIENCE]).await.ok();
    let (ready, template) = deployment_of(&place).await;
    assert!(ready == 2 && !template.contains("--answer-headers"), "{ready}: {template}");
    let sent = traffic.assert_no_failure().await;
    assert!(sent > 100, "{sent} requests are no traffic");

    Service::name_headless(&place, "rel-wicketgate-metrics").await;
    let tested = helm(&place, version, &["test", "rel", TOOL_PATIENCE]).await.ok();
    assert!(tested.out.contains("Succeeded"), "{}", tested.out);

    helm(&place, version, &["uninstall", "rel", "--wait", TOOL_PATIENCE]).await.ok();
    until_left(&place, &empty.0).await;
    until_left(&apps, &empty.1).await;
    let left = place.kubectl(&["get", "crd", "-o", "name"], "").await.ok().out;
    assert_eq!(left.lines().filter(|name| name.ends_with("production-stack.vllm.ai")).count(), 8, "{left}");
    let ours = "app.kubernetes.io/part-of=wicketgate,app.kubernetes.io/instance=rel";
    let said =
        place.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name", "-l", ours], "").await.ok();
    assert_eq!(said.out, "", "cluster-wide objects of the release");
}

/// Two replicas for one namespace of resources, which the release makes itself.
fn values(apps: &str) -> String {
    let route = json!({"model": "llama", "inferenceServiceRef": "llama"});
    [
        format!("watchNamespaces={}", json!([apps])),
        r#"rbac={"scope":"namespace"}"#.to_owned(),
        // Long enough for everybody to hear that a pod goes before it does, wherever the controllers are slow.
        r#"shutdown={"delaySeconds":10,"drainSeconds":30}"#.to_owned(),
        r#"podDisruptionBudget={"enabled":true}"#.to_owned(),
        format!(
            "services={}",
            json!([{"name": "llama", "namespace": apps, "spec": {"modelName": "llama", "backendRef": "llama"}}])
        ),
        format!("gateways={}", json!([{"name": "gw", "namespace": apps, "spec": {"routes": [route]}}])),
    ]
    .join(",")
}

#[tokio::test]
async fn helm_4_installs_upgrades_rolls_back_tests_and_uninstalls_under_traffic() {
    a_releases_life("helm").await;
}

#[tokio::test]
async fn helm_3_installs_upgrades_rolls_back_tests_and_uninstalls_under_traffic() {
    a_releases_life("helm3").await;
}

#[tokio::test]
async fn the_namespaced_overlay_becomes_ready_and_goes_without_a_trace() {
    let place = restricted("inference").await;
    let empty = contents(&place).await;
    let folder = path("deploy/overlays/namespaced");
    let said = place.kubectl(&["apply", "-k", &folder], "").await.ok();
    assert_eq!(said.err, "", "a warning");
    place.kubectl(&["rollout", "status", "deployment/wicketgate", TOOL_PATIENCE], "").await.ok();
    place
        .until("Deployment", "wicketgate", |deployment| {
            (deployment.data["status"]["readyReplicas"] == 2).then_some(())
        })
        .await;
    place
        .until("Lease", "wicketgate", |lease| {
            lease.data["spec"]["holderIdentity"].as_str().map(str::to_owned)
        })
        .await;
    place.kubectl(&["delete", "-k", &folder, TOOL_PATIENCE], "").await.ok();
    until_left(&place, &empty).await;
}

/// The old router's manifests were applied to the namespace of one's context, and so are these.
#[tokio::test]
async fn the_rkllama_overlay_becomes_ready_and_routes_what_its_sample_says() {
    let place = restricted("charts-rkllama").await;
    let folder = path("deploy/overlays/rkllama");
    place.kubectl(&["apply", "--server-side", "-k", &folder], "").await.ok();
    let sample = std::fs::read_to_string(path("deploy/samples/rkllama.yaml")).expect("a sample");
    place.apply(&sample).await;
    place.kubectl(&["rollout", "status", "deployment/rkllama-router", TOOL_PATIENCE], "").await.ok();
    let service = Service::serve(&place, "rkllama-router").await;
    let address = (service.address, 8080).into();
    let answer = harness::client::get(address, "/health").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "ok"})));
    let asked = chat("qwen-7b", "hello").to_string();
    // There is no pod with that model: routed, and nobody to answer.
    let answer = harness::client::post(address, "/v1/chat/completions", &[], asked).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
}

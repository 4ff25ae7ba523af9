//! Traffic through the gateway while what it discovers changes: pods, endpoints, model lists.

use cluster::engines::{self, deployment, routing_manifests};
use cluster::gateway::{self, Start};
use cluster::kubelet::{PHASE, READY};
use cluster::place::Place;
use engine::http::{Config, Fault};
use harness::fleet::{chat, until};
use harness::gateway::Gateway;
use serde_json::json;

use crate::load::Load;

/// A namespace with `count` engines behind the Service `llama`, and a gateway that routes to them.
pub(crate) async fn serving(name: &str, count: usize) -> (Place, Vec<engines::EnginePod>, Gateway) {
    let place = Place::new(name).await;
    let pods = deployment(&place, "llama", "llama", count).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    until_endpoints(&gateway, count).await;
    (place, pods, gateway)
}

/// Waits until so many endpoints are picked from.
pub(crate) async fn until_endpoints(gateway: &Gateway, count: usize) {
    until("the endpoints are in force", || async {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..count * 3 {
            let answer = gateway.post("/v1/chat/completions", &chat("llama", "hello")).await;
            if answer.status == 200 {
                seen.insert(answer.engine().to_owned());
            }
        }
        (seen.len() == count).then_some(())
    })
    .await;
}

/// Which engine answers one request, or the status.
pub(crate) async fn ask(gateway: &Gateway) -> Result<String, u16> {
    let answer = gateway.post("/v1/chat/completions", &chat("llama", "hello")).await;
    if answer.status == 200 { Ok(answer.engine().to_owned()) } else { Err(answer.status.as_u16()) }
}

#[tokio::test]
async fn pods_behind_a_service_are_served_in_turn() {
    let (_place, pods, gateway) = serving("discovery-turns", 3).await;
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(ask(&gateway).await.expect("answered"));
    }
    let mut wanted: Vec<_> = pods.iter().map(|pod| format!("{}:{}", pod.address, engines::PORT)).collect();
    wanted.sort();
    let first = wanted.iter().position(|name| *name == answers[0]).expect("one of ours");
    wanted.rotate_left(first);
    assert_eq!(answers, [&wanted[..], &wanted, &wanted].concat());
}

/// D17: an evicted pod is removed, one whose readiness flaps goes and comes back.
#[tokio::test]
async fn evicted_pods_go_and_flapping_ones_come_back() {
    let (place, pods, gateway) = serving("discovery-flaps", 3).await;
    let load = Load::start(&gateway, "llama", 2);
    place.annotate("Pod", "llama-0", json!({PHASE: "Failed"})).await;
    place.annotate("Pod", "llama-1", json!({READY: "false"})).await;
    until_endpoints_are(&gateway, &[&pods[2]]).await;
    place.annotate("Pod", "llama-1", json!({READY: "true"})).await;
    until_endpoints_are(&gateway, &[&pods[1], &pods[2]]).await;
    load.assert_no_failure().await;
}

/// Waits until exactly these answer, several times in a row.
pub(crate) async fn until_endpoints_are(gateway: &Gateway, pods: &[&engines::EnginePod]) {
    let wanted: std::collections::BTreeSet<_> =
        pods.iter().map(|pod| format!("{}:{}", pod.address, engines::PORT)).collect();
    until("the endpoints are as wanted", || async {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..12 {
            if let Ok(engine) = ask(gateway).await {
                seen.insert(engine);
            }
        }
        (seen == wanted).then_some(())
    })
    .await;
}

/// D17: a model list that cannot be read once costs an endpoint nothing; one that lacks the model excludes it.
#[tokio::test]
async fn a_model_list_that_fails_once_removes_nobody() {
    let place = Place::new("discovery-lists").await;
    let pods = deployment(&place, "llama", "llama", 2).await;
    let other = engines::pod(&place, "llama", "llama-other", &[], Config::model("other")).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = Start::at(&place).args(&["--model-refresh-interval=200ms"]).ready().await;
    until_endpoints_are(&gateway, &[&pods[0], &pods[1]]).await;
    // Before its list was read it was as good as the others.
    let picked = other.engine.counts().received;
    let load = Load::start(&gateway, "llama", 2);
    pods[0].engine.set_probe_fault(Some(Fault::Status { code: 500, body: None, headers: Vec::new() }));
    let before = pods[0].engine.counts().probes;
    until("some lists were asked for", || async {
        (pods[0].engine.counts().probes > before + 4).then_some(())
    })
    .await;
    until_endpoints_are(&gateway, &[&pods[0], &pods[1]]).await;
    load.assert_no_failure().await;
    assert_eq!(other.engine.counts().received, picked, "it does not serve the model");
}

/// D19: the sleep of an engine is a label of its pod, so that every replica knows.
#[tokio::test]
async fn a_sleeping_engine_is_labelled_and_gets_nothing_until_it_wakes() {
    let place = Place::new("discovery-sleep").await;
    let pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    let gateway = Start::at(&place).args(&["--engine-control"]).ready().await;
    let replica = Start::at(&place).named("replica").ready().await;
    for gateway in [&gateway, &replica] {
        until_endpoints(gateway, 1).await;
    }
    let id = engine_id(&gateway).await;
    let answer = gateway.post(&format!("/sleep?id={id}"), &json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "success"})));
    place
        .until("Pod", &pods[0].pod, |pod| {
            (pod.metadata.labels.as_ref()?.get("sleeping")? == "true").then_some(())
        })
        .await;
    for gateway in [&gateway, &replica] {
        until("nobody is asked", || async { (ask(gateway).await == Err(503)).then_some(()) }).await;
    }
    let answer = gateway.post(&format!("/wake_up?id={id}"), &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    place
        .until("Pod", &pods[0].pod, |pod| {
            let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("sleeping"));
            label.is_none_or(|label| label == "false").then_some(())
        })
        .await;
    for gateway in [&gateway, &replica] {
        until_endpoints(gateway, 1).await;
    }
}

/// The id by which the only engine is addressed.
async fn engine_id(gateway: &Gateway) -> String {
    let list = gateway.get("/engines").await.json();
    list[0]["engine_id"].as_str().expect("an id").to_owned()
}

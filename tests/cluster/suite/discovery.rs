//! Traffic through the gateway while what it discovers changes: pods, endpoints, the watch itself.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cluster::detour::Detour;
use cluster::engines::{self, deployment, headless_manifest, routing_manifests, slice_manifest};
use cluster::gateway::{self, Start};
use cluster::kubelet::{LINGER, PHASE, READY};
use cluster::place::Place;
use cluster::plane::{PORT, Plane};
use engine::http::{Config, Fault};
use harness::fleet::{chat, until};
use harness::gateway::Gateway;
use serde_json::{Value, json};

use crate::load::Load;

/// The bar for a change of an EndpointSlice to be acted upon, from the API server's answer, p99.
const ENDPOINT_CHANGE_MAX: Duration = Duration::from_millis(500);
/// How many changes each way are measured: the slowest of so few is above p99.
const ENDPOINT_CHANGES: usize = 40;

/// A namespace with `count` engines behind the Service `llama`, and a gateway that routes to them.
async fn serving(name: &str, count: usize) -> (Place, Vec<engines::EnginePod>, Gateway) {
    let place = Place::new(name).await;
    let pods = deployment(&place, "llama", "llama", count).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    until_endpoints(&gateway, count).await;
    (place, pods, gateway)
}

/// Waits until so many endpoints are picked from.
async fn until_endpoints(gateway: &Gateway, count: usize) {
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
async fn ask(gateway: &Gateway) -> Result<String, u16> {
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

/// Bar: from the API server's answer, a new endpoint is routable and a removed one never picked again within 500 ms.
#[tokio::test]
async fn a_change_of_endpoints_is_acted_upon_in_half_a_second() {
    let place = Place::new("discovery-latency").await;
    let (kept, _engine_a) = engines::listen(Config::model("llama")).await;
    let (comes, _engine_b) = engines::listen(Config::model("llama")).await;
    place.apply(&headless_manifest("llama").to_string()).await;
    place.apply(&slice_manifest("llama", &[(kept, true)]).to_string()).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    until_endpoints(&gateway, 1).await;

    let mut routable = Vec::new();
    let mut gone = Vec::new();
    for _ in 0..ENDPOINT_CHANGES {
        routable.push(acted_upon(&place, &gateway, &[(kept, true), (comes, true)], comes, true).await);
        gone.push(acted_upon(&place, &gateway, &[(kept, true)], comes, false).await);
    }
    for (what, mut times) in [("routable", routable), ("gone", gone)] {
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        eprintln!("{what}: median {median:?}, worst {worst:?} of {ENDPOINT_CHANGES}");
        assert!(worst <= ENDPOINT_CHANGE_MAX, "{what}: {times:?}");
    }
}

/// Writes a slice and returns how long after the answer the gateway last did as before.
async fn acted_upon(
    place: &Place,
    gateway: &Gateway,
    endpoints: &[(Ipv4Addr, bool)],
    changed: Ipv4Addr,
    appears: bool,
) -> Duration {
    place.apply(&slice_manifest("llama", endpoints).to_string()).await;
    let answered = Instant::now();
    let mut last = Duration::ZERO;
    let mut as_wanted = 0;
    // Round robin over two: within two requests an endpoint that is there is picked. Ten in a row is no accident.
    while as_wanted < 10 {
        let began = answered.elapsed();
        let picks = [ask(gateway).await.expect("answered"), ask(gateway).await.expect("answered")];
        let picked = picks.iter().any(|engine| engine.starts_with(&format!("{changed}:")));
        if picked == appears {
            as_wanted += 1;
        } else {
            last = began;
            as_wanted = 0;
        }
        assert!(began < Duration::from_secs(10), "never");
    }
    last
}

/// Bar: a pod that is being deleted gets no new request, seen from the pod itself and not only from its slice.
#[tokio::test]
async fn a_terminating_pod_gets_no_new_request_and_nobody_fails() {
    let (place, pods, gateway) = serving("discovery-terminating", 3).await;
    place.annotate("Pod", "llama-1", json!({LINGER: "true"})).await;
    let load = Load::start(&gateway, "llama", 2);
    place.delete("Pod", "llama-1").await;
    let answered = Instant::now();
    let engine = &pods[1].engine;
    let mut count = engine.counts().received;
    let mut last_seen = answered.elapsed();
    while answered.elapsed() < last_seen + Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if engine.counts().received != count {
            count = engine.counts().received;
            last_seen = answered.elapsed();
        }
    }
    assert!(last_seen <= ENDPOINT_CHANGE_MAX, "still picked {last_seen:?} after the deletion");
    assert!(
        place.get("Pod", "llama-1").await.metadata.deletion_timestamp.is_some(),
        "the pod is still there"
    );
    load.assert_no_failure().await;
    place.annotate("Pod", "llama-1", json!({LINGER: null})).await;
    place.until_gone("Pod", "llama-1").await;
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
async fn until_endpoints_are(gateway: &Gateway, pods: &[&engines::EnginePod]) {
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

/// D16: a pod that goes while the watch is cut is gone five seconds after the watch is back, and nobody fails meanwhile.
#[tokio::test]
async fn what_changed_while_the_api_server_was_away_is_right_five_seconds_after() {
    let place = Place::new("discovery-away").await;
    let detour = Detour::start((place.plane().address(), PORT).into()).await;
    let pods = deployment(&place, "llama", "llama", 3).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = Start::at(&place).through(&detour.url()).ready().await;
    until_endpoints(&gateway, 3).await;

    let load = Load::start(&gateway, "llama", 2);
    detour.cut();
    place.delete("Pod", "llama-0").await;
    place.until_gone("Pod", "llama-0").await;
    let new = engines::pod(&place, "llama", "llama-3", &[], Config::model("llama")).await;
    engines::ready_endpoints(&place, "llama", 3).await;
    detour.refused(3).await;
    until_endpoints_are(&gateway, &[&pods[0], &pods[1], &pods[2]]).await;
    detour.mend();
    let mended = Instant::now();
    until_endpoints_are(&gateway, &[&pods[1], &pods[2], &new]).await;
    assert!(mended.elapsed() < Duration::from_secs(5), "{:?}", mended.elapsed());
    let picked = pods[0].engine.counts().received;
    for _ in 0..30 {
        ask(&gateway).await.expect("answered");
    }
    assert_eq!(pods[0].engine.counts().received, picked, "deleted while we were away, and picked again");
    load.assert_no_failure().await;
}

/// D16: an API server that is killed and comes back over the same store: its watches have expired, so everything is listed
/// anew. Traffic goes on all the while, and what changed first after the restart is right five seconds later.
#[tokio::test]
async fn an_api_server_that_is_killed_and_restarted_costs_nobody_an_answer() {
    let plane = own_plane("restart", Ipv4Addr::new(192, 0, 2, 2)).await;
    let place = Place::on(plane, "restart").await;
    let (first, _first_engine) = engines::listen(Config::model("llama")).await;
    let (second, _second_engine) = engines::listen(Config::model("llama")).await;
    place.apply(&headless_manifest("llama").to_string()).await;
    place.apply(&slice_manifest("llama", &[(first, true)]).to_string()).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    until_endpoints(&gateway, 1).await;

    let load = Load::start(&gateway, "llama", 2);
    tokio::task::spawn_blocking(|| {
        plane.kill_server();
        plane.start_server();
    })
    .await
    .expect("the API server is back");
    let place = place.reconnected().await;
    place.apply(&slice_manifest("llama", &[(second, true)]).to_string()).await;
    let changed = Instant::now();
    until("the new endpoint answers", || async {
        let engine = ask(&gateway).await.expect("answered");
        engine.starts_with(&format!("{second}:")).then_some(())
    })
    .await;
    assert!(changed.elapsed() < Duration::from_secs(5), "{:?}", changed.elapsed());
    load.assert_no_failure().await;
}

/// A control plane that a test may break, without a kubelet. It lives as long as the suite.
async fn own_plane(name: &'static str, address: Ipv4Addr) -> &'static Plane {
    let started = tokio::task::spawn_blocking(move || {
        let plane = Plane::start(name, address);
        plane.install_definitions();
        plane
    });
    Box::leak(Box::new(started.await.expect("a control plane")))
}

/// D18: an adapter that one pod has loaded is routable to that pod only, and listed with its parent.
#[tokio::test]
async fn an_adapter_is_routable_to_the_pod_that_has_it() {
    let (_place, pods, gateway) = serving("discovery-lora", 3).await;
    pods[1].engine.set_adapters(["sql".to_owned()]);
    let began = Instant::now();
    let engine = until("the adapter is routable", || async {
        let answer = gateway.post("/v1/chat/completions", &chat("sql", "hello")).await;
        (answer.status == 200).then(|| answer.engine().to_owned())
    })
    .await;
    // Lists are read every ten seconds by default; the rest is for reading and publishing on a busy machine.
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
    assert!(engine.starts_with(&pods[1].address.to_string()), "{engine}");
    let models: Value = gateway.get("/v1/models").await.json();
    let card = models["data"].as_array().and_then(|all| all.iter().find(|card| card["id"] == "sql")).cloned();
    assert_eq!(card.expect("listed")["parent"], "llama");
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

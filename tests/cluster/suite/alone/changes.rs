//! How soon a change of the cluster is acted upon.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cluster::engines::{self, deployment, headless_manifest, routing_manifests, slice_manifest};
use cluster::gateway;
use cluster::kubelet::LINGER;
use cluster::place::{PATIENCE, Place, documents};
use engine::http::Config;
use harness::bars;
use harness::fleet::{chat, until};
use harness::gateway::Gateway;
use serde_json::{Value, json};

use crate::discovery::{ask, serving, until_endpoints};
use crate::edit::decided_by;
use crate::load::Load;
use crate::static_route;

/// The bar from the API server's answer to the new policy deciding on all workers.
const EDIT_MAX: Duration = Duration::from_millis(300);
/// So many edits.
const EDITS: usize = 100;
/// The bar for a change of an EndpointSlice to be acted upon, from the API server's answer, p99.
const ENDPOINT_CHANGE_MAX: Duration = Duration::from_millis(500);
/// How many changes each way are measured: the slowest of so few is above p99.
const ENDPOINT_CHANGES: usize = 40;
/// The bar for an adapter: model lists are read every ten seconds by default, and the rest is for reading and publishing.
const ADAPTER_MAX: Duration = Duration::from_secs(13);
/// The bar for a change of what an object refers to, or has made, to be seen to.
const OBJECT_MAX: Duration = Duration::from_secs(5);

/// Bar: 100 edits of the policy under load: in force on all workers 300 ms after the API server's answer, no request fails.
#[tokio::test]
async fn an_edited_policy_decides_on_all_workers_in_300_ms_and_nobody_fails() {
    let place = Place::new("edit").await;
    let _pods = deployment(&place, "llama", "llama", 2).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    let load = Load::start(&gateway, "llama", 4);
    // The first use of a policy compiles it, which costs what the machine has time for; the bar is for what comes after.
    let first = edited(&place, &gateway, "least-in-flight").await;
    eprintln!("compiling one: {first:?}");
    let measure = async |_| {
        let mut times = Vec::new();
        for edit in 0..EDITS {
            times.push(edited(&place, &gateway, ["round-robin", "least-in-flight"][edit % 2]).await);
        }
        times.sort();
        eprintln!("edits: median {:?}, worst {:?} of {EDITS}", times[EDITS / 2], times[EDITS - 1]);
        times[EDITS - 1]
    };
    bars::within("the slowest edit", EDIT_MAX, measure).await;
    load.assert_no_failure().await;
}

/// Edits the policy and returns how long after the answer another one last decided.
async fn edited(place: &Place, gateway: &Gateway, policy: &str) -> Duration {
    place.patch("InferenceGateway", "gw", json!({"spec": {"routeStrategy": policy}})).await;
    let answered = Instant::now();
    // Each connection lands on one of the workers.
    let (mut last, mut in_a_row) = (Duration::ZERO, 0);
    while in_a_row < 8 {
        if decided_by(gateway).await == policy {
            in_a_row += 1;
        } else {
            (last, in_a_row) = (answered.elapsed(), 0);
        }
        assert!(last < PATIENCE, "{policy} never decides");
    }
    last
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

    let measure = async |_| {
        let (mut routable, mut gone) = (Vec::new(), Vec::new());
        for _ in 0..ENDPOINT_CHANGES {
            routable.push(acted_upon(&place, &gateway, &[(kept, true), (comes, true)], comes, true).await);
            gone.push(acted_upon(&place, &gateway, &[(kept, true)], comes, false).await);
        }
        let worst = [("routable", routable), ("gone", gone)].map(|(what, mut times)| {
            times.sort();
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            eprintln!("{what}: median {median:?}, worst {worst:?} of {ENDPOINT_CHANGES}");
            worst
        });
        worst[0].max(worst[1])
    };
    bars::within("the slowest change of endpoints", ENDPOINT_CHANGE_MAX, measure).await;
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
        assert!(began < PATIENCE, "never");
    }
    last
}

/// Bar: a pod that is being deleted gets no new request, seen from the pod itself and not only from its slice.
#[tokio::test]
async fn a_terminating_pod_gets_no_new_request_and_nobody_fails() {
    let (place, pods, gateway) = serving("discovery-terminating", 1 + bars::MEASUREMENTS_MAX).await;
    let load = Load::start(&gateway, "llama", 2);
    let measure = async |before: usize| last_pick_of_a_terminating(&place, &pods[1 + before]).await;
    bars::within("the last pick of a terminating pod", ENDPOINT_CHANGE_MAX, measure).await;
    load.assert_no_failure().await;
}

/// How long after the answer to its deletion a pod was last picked. It lingers until two seconds have passed without.
async fn last_pick_of_a_terminating(place: &Place, pod: &engines::EnginePod) -> Duration {
    place.annotate("Pod", &pod.pod, json!({LINGER: "true"})).await;
    place.delete("Pod", &pod.pod).await;
    let answered = Instant::now();
    let mut count = pod.engine.counts().received;
    let mut last_seen = answered.elapsed();
    while answered.elapsed() < last_seen + Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if pod.engine.counts().received != count {
            count = pod.engine.counts().received;
            last_seen = answered.elapsed();
        }
    }
    let still_there = place.get("Pod", &pod.pod).await.metadata.deletion_timestamp.is_some();
    assert!(still_there, "the pod is still there");
    place.annotate("Pod", &pod.pod, json!({LINGER: null})).await;
    place.until_gone("Pod", &pod.pod).await;
    last_seen
}

/// D18: an adapter that one pod has loaded is routable to that pod only, and listed with its parent.
#[tokio::test]
async fn an_adapter_is_routable_to_the_pod_that_has_it() {
    let (_place, pods, gateway) = serving("discovery-lora", 3).await;
    let measure = async |before: usize| {
        let adapter = format!("sql-{before}");
        pods[1].engine.set_adapters([adapter.clone()]);
        let began = Instant::now();
        let engine = until("the adapter is routable", || async {
            let answer = gateway.post("/v1/chat/completions", &chat(&adapter, "hello")).await;
            (answer.status == 200).then(|| answer.engine().to_owned())
        })
        .await;
        let took = began.elapsed();
        assert!(engine.starts_with(&pods[1].address.to_string()), "{engine}");
        let models: Value = gateway.get("/v1/models").await.json();
        let mut cards = models["data"].as_array().into_iter().flatten();
        let card = cards.find(|card| card["id"] == *adapter);
        assert_eq!(card.expect("listed")["parent"], "llama");
        took
    };
    bars::within("an adapter is routable", ADAPTER_MAX, measure).await;
}

/// A04: a missing referent is named, and found when it comes, without touching who refers to it.
#[tokio::test]
async fn a_missing_service_is_named_and_found_when_it_comes() {
    let place = Place::new("a04").await;
    let _gateway = gateway::start(&place).await;
    let measure = async |before: usize| {
        let (name, service) = (format!("gw-{before}"), format!("llama-{before}"));
        let manifests =
            routing_manifests("llama", &service, "").replace("name: gw", &format!("name: {name}"));
        let documents = documents(&manifests);
        place.try_apply(&documents[1]).await.expect("the gateway object applies");
        let missing = place.condition("InferenceGateway", &name, "ResolvedRefs", "False").await;
        assert!(missing["reason"].as_str().expect("a reason").ends_with("NotFound"), "{missing}");
        assert!(missing["message"].as_str().expect("a message").contains(&service), "{missing}");
        let generation = place.get("InferenceGateway", &name).await.metadata.generation;
        let began = Instant::now();
        place.try_apply(&documents[0]).await.expect("the service applies");
        place.condition("InferenceGateway", &name, "ResolvedRefs", "True").await;
        let took = began.elapsed();
        assert_eq!(place.get("InferenceGateway", &name).await.metadata.generation, generation);
        took
    };
    bars::within("a service is found when it comes", OBJECT_MAX, measure).await;
}

/// A10: a ConfigMap deleted by hand is back within five seconds. A12: it goes with its route.
#[tokio::test]
async fn a_deleted_config_map_comes_back_and_goes_with_its_route() {
    let place = Place::new("a10").await;
    let _gateway = gateway::start(&place).await;
    place.apply(&static_route::readme()).await;
    let measure = async |_| {
        let first = place.until("ConfigMap", "vllm-router-config", |map| map.metadata.uid.clone()).await;
        place.delete("ConfigMap", "vllm-router-config").await;
        let began = Instant::now();
        place
            .until("ConfigMap", "vllm-router-config", |map| {
                (map.metadata.uid.as_ref() != Some(&first)).then_some(())
            })
            .await;
        began.elapsed()
    };
    bars::within("a deleted ConfigMap is back", OBJECT_MAX, measure).await;
    place.delete("StaticRoute", "staticroute-sample").await;
    place.until_gone("ConfigMap", "vllm-router-config").await;
}

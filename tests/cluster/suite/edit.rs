//! Policies that come from the cluster.

use cluster::engines::{EnginePod, deployment, routing_manifests};
use cluster::gateway;
use cluster::place::Place;
use harness::fleet::chat;
use harness::gateway::{Gateway, component};
use serde_json::{Value, json};

use crate::load::Load;

/// The policy that decided one request, by the answer's header.
pub(crate) async fn decided_by(gateway: &Gateway) -> String {
    let answer = gateway.post("/v1/chat/completions", &chat("llama", "hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-wicketgate-policy").expect("the header is on").to_owned()
}

/// A policy in a ConfigMap: fetched, checked, in force; its status says what it is and who uses it.
#[tokio::test]
async fn a_policy_comes_from_a_config_map_and_its_status_describes_it() {
    let place = Place::new("policy-map").await;
    let (_pods, gateway) =
        with_own_policy(&place, "ConfigMap", "least-in-flight", "routeStrategy: mine,").await;
    place.condition("RoutingPolicy", "mine", "Ready", "True").await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    assert!(decided_by(&gateway).await.contains("mine"));
    let status = place.get("RoutingPolicy", "mine").await.data["status"].clone();
    assert!(status["policy"]["digest"].as_str().is_some_and(|digest| digest.len() >= 64), "{status}");
    assert_eq!(status["policy"]["sizeBytes"], component("least-in-flight").len());
    assert!(status["inUseBy"].as_array().is_some_and(|users| !users.is_empty()), "{status}");
    let said = place.kubectl(&["get", "rpol", "mine", "--no-headers"], "").await.ok();
    assert!(said.out.contains("True"), "{}", said.out);
}

/// A new version that does not load is told in both statuses; the last good one decides on.
#[tokio::test]
async fn a_policy_that_does_not_load_leaves_the_last_good_one_in_force() {
    let place = Place::new("policy-bad").await;
    let (_pods, gateway) = with_own_policy(&place, "Secret", "round-robin", "routeStrategy: mine,").await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    let load = Load::start(&gateway, "llama", 2);
    let bad = json!({"data": {"policy.wasm": base64(b"\0asm and then nothing")}});
    place.patch("Secret", "mine", bad).await;
    let programmed = place.condition("InferenceGateway", "gw", "PolicyProgrammed", "False").await;
    assert!(programmed["message"].as_str().expect("a message").contains("mine"), "{programmed}");
    place.condition("RoutingPolicy", "mine", "Ready", "False").await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    assert!(decided_by(&gateway).await.contains("mine"), "the last good one decides");
    store_policy(&place, "Secret", "mine", "least-in-flight").await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    load.assert_no_failure().await;
}

/// A policy that traps in service costs nobody an answer, and its status tells how often it did.
#[tokio::test]
async fn the_failed_calls_of_a_policy_are_in_its_status() {
    let place = Place::new("policy-faults").await;
    let chain = "policies: [{policyRef: {name: mine}, config: {behaviour: panic, after: 10}}],";
    let (_pods, gateway) = with_own_policy(&place, "ConfigMap", "testing/hostile", chain).await;
    place.condition("RoutingPolicy", "mine", "Ready", "True").await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    for request in 0..60 {
        let answer = gateway.post("/v1/chat/completions", &chat("llama", "hello")).await;
        assert_eq!(answer.status, 200, "request {request}: {}", answer.text());
    }
    // Numbers that move with traffic are written every thirty seconds at most.
    let faults =
        place.until("RoutingPolicy", "mine", |policy| policy.data["status"].get("faults").cloned()).await;
    assert!(faults["count"].as_i64().is_some_and(|count| count >= 1), "{faults}");
    assert_eq!(faults["lastReason"], "trap", "{faults}");
    let time = faults["lastTime"].as_str().expect("a time");
    assert!(time.starts_with("20") && time.ends_with('Z'), "{faults}");
}

/// Two engines behind a gateway that decides with the component `policy` as `mine`, kept in an object of this kind.
async fn with_own_policy(
    place: &Place,
    kind: &str,
    policy: &str,
    gateway_spec: &str,
) -> (Vec<EnginePod>, Gateway) {
    let pods = deployment(place, "llama", "llama", 2).await;
    store_policy(place, kind, "mine", policy).await;
    let reference = if kind == "Secret" { "secretRef" } else { "configMapRef" };
    place
        .apply(&format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1
kind: RoutingPolicy
metadata: {{name: mine}}
spec: {{source: {{{reference}: {{name: mine, key: policy.wasm}}}}}}
"
        ))
        .await;
    place.apply(&routing_manifests("llama", "llama", gateway_spec)).await;
    (pods, gateway::ready(place).await)
}

/// Puts a component under the key `policy.wasm`.
async fn store_policy(place: &Place, kind: &str, name: &str, policy: &str) {
    let field = if kind == "Secret" { "data" } else { "binaryData" };
    let mut object: Value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    object[field] = json!({"policy.wasm": base64(&component(policy))});
    place.try_apply(&object).await.expect("stored");
}

fn base64(bytes: &[u8]) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).expect("text")
}

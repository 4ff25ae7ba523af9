//! The rights of the chart's role: all of them used, none missing, and nothing beyond them granted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster::engines::{deployment, routing_manifests};
use cluster::gateway::Start;
use cluster::place::{GROUP, PATIENCE, Place};
use cluster::{account, audit, kubelet, plane};
use harness::fleet::{chat, until};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use serde_json::{Value, json};

use crate::samples;

/// Group, resource and verb.
type Right = (String, String, String);

/// The rights that the account has in its namespace.
async fn granted(place: &Place) -> BTreeSet<Right> {
    let roles = place.api("Role").list(&ListParams::default()).await.expect("listed").items;
    let mut rights = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role.data["rules"].as_array().cloned().unwrap_or_default()) {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Bar: a gateway that does everything uses every right of the chart's role, and is refused nothing.
#[tokio::test]
async fn every_right_of_the_chart_is_used_and_none_is_missing() {
    let place = Place::new("rights").await;
    let pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&samples::pool_definition()).await;
    place.apply(&samples::all(&place.namespace)).await;
    place
        .apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: key}}, stringData: {{token: secret}}}}
---
{{apiVersion: {GROUP}/v1alpha1, kind: InferenceService, metadata: {{name: with-secret}}, spec: {{
  modelName: llama, backendRef: llama, auth: {{secretRef: {{name: key, key: token}}}}}}}}
---
{{apiVersion: {GROUP}/v1alpha1, kind: InferenceService, metadata: {{name: pool}}, spec: {{
  modelName: pooled, backendRef: {{group: inference.networking.k8s.io, kind: InferencePool, name: pool}}}}}}
---
{{apiVersion: {GROUP}/v1alpha1, kind: InferenceGateway, metadata: {{name: pool}}, spec: {{
  routes: [{{model: pooled, inferenceServiceRef: pool}}, {{model: llama, inferenceServiceRef: with-secret}}]}}}}
"
        ))
        .await;
    place.apply(&routing_manifests("llama", "llama", "service: {enabled: true},")).await;
    let gateway = Start::at(&place).args(&["--engine-control", "--leader-elect"]).ready().await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    // A Lease that is deleted is made anew.
    place.delete("Lease", "wicketgate").await;
    // Older gateways of the samples route the model, too: this one is named by the path.
    let path = format!("/gateways/{}/gw", place.namespace);
    let answer = gateway.post(&format!("{path}/v1/chat/completions"), &chat("llama", "hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let engines = gateway.get(&format!("{path}/engines")).await.json();
    let id = engines[0]["engine_id"].as_str().expect("an id");
    assert_eq!(gateway.post(&format!("/sleep?id={id}"), &json!({})).await.status, 200);
    place.until("Pod", &pods[0].pod, |pod| pod.metadata.labels.as_ref()?.get("sleeping").map(|_| ())).await;

    assert_eq!(gateway.post(&format!("/wake_up?id={id}"), &json!({})).await.status, 200);

    // What is ours and was changed by hand is put right.
    place.patch("StaticRoute", "staticroute-sample", json!({"spec": {"staticModels": "a,b,c"}})).await;
    place
        .patch("Service", "gw", json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 81}]}}))
        .await;
    // An event that is told again becomes a series.
    for ready in ["false", "true", "false", "true"] {
        place.annotate("Pod", &pods[0].pod, json!({kubelet::READY: ready})).await;
        let status = if ready == "true" { "True" } else { "False" };
        place.condition("InferenceGateway", "gw", "Ready", status).await;
    }

    let granted = granted(&place).await;
    let began = Instant::now();
    let mut unused = granted.clone();
    while !unused.is_empty() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Not to find what may not be there yet is a use, too.
        for request in audit::of(&place).into_iter().filter(|request| request.code != 403) {
            unused.remove(&(request.group, request.resource, request.verb));
        }
    }
    assert!(unused.is_empty(), "granted and not used: {unused:?}");
    let refused: Vec<_> = audit::of(&place).into_iter().filter(|request| request.code == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// A9: the Lease was left out and the right to create one is missing: no replica leads, and `/findings` says why. With the
/// right the Lease is there, and the finding gone.
#[tokio::test]
async fn a_missing_lease_is_made_and_a_refused_right_to_make_it_is_found() {
    let place = Place::new("rights-lease").await;
    let gateway = Start::at(&place).args(&["--leader-elect"]).ready().await;
    let role = |more: &[Value]| {
        let group = "coordination.k8s.io";
        let named = json!({"apiGroups": [group], "resources": ["leases"], "resourceNames": ["wicketgate"],
                           "verbs": ["get", "update"]});
        let rules: Vec<Value> = [&[named], more].concat();
        json!({"rules": rules})
    };
    place.patch("Role", "wicketgate-leader-election", role(&[])).await;
    place.delete("Lease", "wicketgate").await;
    let refused = async || {
        let page = gateway.admin_page("/findings").await.json();
        let findings = page["findings"].as_array().cloned().unwrap_or_default();
        let words = "create leases (coordination.k8s.io)";
        findings
            .into_iter()
            .find(|finding| finding["message"].as_str().is_some_and(|text| text.contains(words)))
    };
    let finding = until("the refusal", &refused).await;
    assert_eq!(finding["reason"], "Forbidden");
    let may = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]});
    place.patch("Role", "wicketgate-leader-election", role(&[may])).await;
    let holder = |lease: &DynamicObject| lease.data["spec"]["holderIdentity"].as_str().map(str::to_owned);
    place.until("Lease", "wicketgate", holder).await;
    until("no refusal", || async { refused().await.is_none().then_some(()) }).await;
}

/// Bar: what the role does not have, the API server refuses to the gateway's own token.
#[tokio::test]
async fn what_the_role_does_not_have_is_refused() {
    let place = Place::new("rights-refused").await;
    account::create(&place).await;
    let kubeconfig = account::kubeconfig(&place, &place.plane().url(), "refused").await;
    let client = plane::client(&kubeconfig).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), &place.namespace);
    assert_forbidden(pods.delete("any", &DeleteParams::default()).await.map(|_| ()));
    let gateways = cluster::place::resource("InferenceGateway");
    let gateways: Api<DynamicObject> = Api::namespaced_with(client.clone(), &place.namespace, &gateways);
    assert_forbidden(gateways.delete("any", &DeleteParams::default()).await.map(|_| ()));
    let elsewhere: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(client, "default");
    assert_forbidden(elsewhere.list(&ListParams::default()).await.map(|_| ()));
    let refused = || audit::of(&place).iter().filter(|request| request.code == 403).count();
    // The audit log may come a little after the answer.
    until("the refusals", || async { (refused() >= 3).then_some(()) }).await;
    assert_eq!(refused(), 3, "{:?}", audit::of(&place));
}

fn assert_forbidden(outcome: kube::Result<()>) {
    match outcome {
        Err(kube::Error::Api(status)) => assert!(status.is_forbidden(), "{status:?}"),
        other => panic!("{other:?}"),
    }
}

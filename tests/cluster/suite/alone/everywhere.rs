//! The chart as it is by default: one release with a ClusterRole, for the gateways of all namespaces.

use cluster::engines::{EnginePod, deployment, routing_manifests};
use cluster::place::{Place, TOOL_PATIENCE};
use cluster::service::Service;
use harness::fleet::chat;

use crate::charts::{contents, helm, path, restricted, until_left};

/// Ends pods quickly; everything else is the chart's default.
const QUICK: &str = r#"shutdown={"delaySeconds":1,"drainSeconds":5}"#;

/// Makes a team's namespace, with an engine for `model`.
async fn team(name: &str, model: &str) -> (Place, Vec<EnginePod>) {
    let place = Place::new(name).await;
    let engines = deployment(&place, "llama", model, 1).await;
    (place, engines)
}

/// Waits until the team's gateway says that it serves, and asks it through the release's Service.
async fn assert_served(service: &Service, team: &Place, model: &str) {
    team.until("InferenceGateway", "gw", |gateway| {
        let conditions = gateway.data["status"]["conditions"].as_array()?;
        conditions.iter().any(|is| is["type"] == "Ready" && is["status"] == "True").then_some(())
    })
    .await;
    let address = (service.address, 80).into();
    let named = format!("/gateways/{}/gw/v1/chat/completions", team.namespace);
    let answer = harness::client::post(address, &named, &[], chat(model, "hello").to_string()).await;
    assert_eq!(answer.status, 200, "{}: {}", team.namespace, answer.text());
}

#[tokio::test]
async fn a_release_of_the_defaults_serves_the_gateways_of_every_namespace_and_leaves_no_right_behind() {
    let place = restricted("everywhere").await;
    let (first, _engine) = team("everywhere-a", "model-a").await;
    let (ours, theirs) = (contents(&place).await, contents(&first).await);
    let args = ["--set-json", QUICK, "--wait", TOOL_PATIENCE];
    let chart = path("charts/wicketgate");
    helm(&place, "helm", &[&["install", "rel", &*chart], &args[..]].concat()).await.ok();
    first.apply(&routing_manifests("model-a", "llama", "")).await;
    let service = Service::serve(&place, "rel-wicketgate").await;
    assert_served(&service, &first, "model-a").await;

    // A namespace that did not exist when the gateway began to watch.
    let (second, _engine_too) = team("everywhere-b", "model-b").await;
    second.apply(&routing_manifests("model-b", "llama", "")).await;
    assert_served(&service, &second, "model-b").await;
    let asked = chat("model-b", "hello").to_string();
    let elsewhere = "/gateways/everywhere-a/gw/v1/chat/completions";
    let answer = harness::client::post((service.address, 80).into(), elsewhere, &[], asked).await;
    assert_eq!(answer.status, 404, "a gateway has the models of its own routes: {}", answer.text());

    // What the ClusterRole is for, and what it is not for.
    let account = format!("system:serviceaccount:{}:rel-wicketgate", place.namespace);
    let can = async |what: &[&str]| {
        let args = [&["auth", "can-i", "--as", &*account], what].concat();
        second.kubectl(&args, "").await.out.trim() == "yes"
    };
    assert!(can(&["watch", "endpointslices.discovery.k8s.io"]).await);
    assert!(can(&["patch", "inferencegateways.production-stack.vllm.ai", "--subresource=status"]).await);
    for refused in [["list", "secrets"], ["delete", "pods"], ["create", "leases.coordination.k8s.io"]] {
        assert!(!can(&refused).await, "{refused:?}");
    }

    first.kubectl(&["delete", "inferencegateways,inferenceservices", "--all"], "").await.ok();
    helm(&place, "helm", &["uninstall", "rel", "--wait", TOOL_PATIENCE]).await.ok();
    until_left(&place, &ours).await;
    until_left(&first, &theirs).await;
    let of_release = "app.kubernetes.io/part-of=wicketgate,app.kubernetes.io/instance=rel";
    let kinds = "clusterroles,clusterrolebindings";
    let left = place.kubectl(&["get", kinds, "-o", "name", "-l", of_release], "").await.ok().out;
    assert_eq!(left, "", "cluster-wide objects of the release");
}

//! `StaticRoute`: the ConfigMap that the production stack's Python router mounts, and what its status tells.

use std::time::Duration;

use cluster::engines;
use cluster::gateway;
use cluster::place::{GROUP, Place, condition_of};
use engine::http::Config;
use harness::fleet::chat;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::{Value, json};

use crate::samples;

/// Both keys that routers of different age read.
const KEYS: [&str; 2] = ["dynamic_config.json", "static_config.json"];

/// All keys that the Python router takes, and whether it insists; any other makes it refuse the whole file.
const ROUTER_KEYS: [(&str, bool); 18] = [
    ("service_discovery", true),
    ("routing_logic", true),
    ("static_backends", false),
    ("static_models", false),
    ("static_aliases", false),
    ("static_model_labels", false),
    ("static_model_types", false),
    ("static_backend_health_checks", false),
    ("static_backend_health_check_interval", false),
    ("static_backend_health_check_timeout_seconds", false),
    ("prefill_model_labels", false),
    ("decode_model_labels", false),
    ("k8s_port", false),
    ("k8s_namespace", false),
    ("k8s_label_selector", false),
    ("session_key", false),
    ("callbacks", false),
    ("priority_header", false),
];

async fn config_map(place: &Place, name: &str) -> ConfigMap {
    let api: Api<ConfigMap> = Api::namespaced(place.client.clone(), &place.namespace);
    api.get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The README's example, for this namespace: its router is in `default` there.
pub(crate) fn readme() -> String {
    samples::read("staticroute.yaml")
}

/// A08: the README's example becomes a ConfigMap with both keys, owned by the route, and status names it.
#[tokio::test]
async fn the_readme_static_route_becomes_a_config_map() {
    let place = Place::new("a08").await;
    let _gateway = gateway::start(&place).await;
    place.apply(&readme()).await;
    let status = place
        .until("StaticRoute", "staticroute-sample", |route| {
            route.data["status"]["configMapRef"].is_string().then(|| route.data["status"].clone())
        })
        .await;
    assert_eq!(status["configMapRef"], "vllm-router-config");
    assert!(status["lastAppliedTime"].is_string(), "{status}");
    let map = config_map(&place, "vllm-router-config").await;
    let data = map.data.expect("data");
    let wanted = r#"{"service_discovery":"static","routing_logic":"roundrobin","static_backends":"http://localhost:9001,http://localhost:9002,http://localhost:9003","static_models":"facebook/opt-125m,meta-llama/Llama-3.1-8B-Instruct,facebook/opt-125m"}"#;
    for key in KEYS {
        assert_eq!(data[key], wanted, "{key}");
    }
    let owner = &map.metadata.owner_references.expect("owned")[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("StaticRoute", "staticroute-sample"));
    assert_eq!(owner.controller, Some(true));
}

/// A09: an edit reaches the ConfigMap and the time; keys that somebody else put there survive.
#[tokio::test]
async fn an_edit_changes_our_keys_and_keeps_the_others() {
    let place = Place::new("a09").await;
    let _gateway = gateway::start(&place).await;
    place.apply(&readme()).await;
    let before = applied_after(&place, "").await;
    place.patch("ConfigMap", "vllm-router-config", json!({"data": {"mine": "kept"}})).await;
    // The time has seconds: the next one must differ.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let spec = json!({"spec": {"staticBackends": "http://localhost:9009", "staticModels": "m"}});
    place.patch("StaticRoute", "staticroute-sample", spec).await;
    applied_after(&place, &before).await;
    let data = config_map(&place, "vllm-router-config").await.data.expect("data");
    assert_eq!(data["mine"], "kept");
    for key in KEYS {
        assert!(data[key].contains("http://localhost:9009"), "{}", data[key]);
    }
}

/// The time of the last application, once it is another than `before`.
async fn applied_after(place: &Place, before: &str) -> String {
    place
        .until("StaticRoute", "staticroute-sample", |route| {
            let time = route.data["status"]["lastAppliedTime"].as_str()?;
            (time != before).then(|| time.to_owned())
        })
        .await
}

/// A11: the router's health flips one condition against the other; a dead backend is named.
#[tokio::test]
async fn health_of_router_and_backends_shows_and_never_contradicts_itself() {
    let place = Place::new("a11").await;
    let (alive, _backend) = engines::listen(Config::model("m")).await;
    let (address, router) = engines::listen(Config::model("m")).await;
    place.apply(&engines::headless_manifest("router").to_string()).await;
    place.apply(&engines::slice_manifest("router", &[(address, true)]).to_string()).await;
    let dead = "http://192.0.2.15:9";
    place
        .apply(&format!(
            "{{apiVersion: {GROUP}/v1alpha1, kind: StaticRoute, metadata: {{name: r}}, spec: {{
              staticBackends: 'http://{alive}:8000,{dead}', staticModels: 'm,m', routerRef: {{kind: Service, name: router}},
              healthCheck: {{timeoutSeconds: 1, periodSeconds: 1, successThreshold: 1, failureThreshold: 5}}}}}}"
        ))
        .await;
    let _gateway = gateway::start(&place).await;
    // Five failures in a row are a second each: nobody is that slow by accident.
    let unhealthy = place.condition("StaticRoute", "r", "BackendsHealthy", "False").await;
    let message = unhealthy["message"].as_str().expect("a message");
    assert!(message.contains(dead) && !message.contains(&alive.to_string()), "{message}");
    for healthy in [true, false, true] {
        router.set_healthy(healthy);
        let (is, is_not) = if healthy {
            ("HealthCheckSucceeded", "HealthCheckFailed")
        } else {
            ("HealthCheckFailed", "HealthCheckSucceeded")
        };
        place
            .until("StaticRoute", "r", |route| {
                let truth = |kind| condition_of(route, kind).map(|found| found["status"] == "True");
                assert!(truth(is) != Some(true) || truth(is_not) != Some(true), "both are true");
                (truth(is) == Some(true)).then_some(())
            })
            .await;
    }
}

/// A13: a ConfigMap that belongs to another object, or holds none of our keys, is not touched, and the route says so.
#[tokio::test]
async fn a_foreign_config_map_is_left_alone() {
    let place = Place::new("a13").await;
    place.apply("{apiVersion: v1, kind: Service, metadata: {name: owner}, spec: {ports: [{port: 1}]}}").await;
    let uid = place.get("Service", "owner").await.metadata.uid.expect("a uid");
    place
        .apply(&format!(
            "{{apiVersion: v1, kind: ConfigMap, data: {{dynamic_config.json: theirs}}, metadata: {{name: owned, ownerReferences: [
              {{apiVersion: v1, kind: Service, name: owner, uid: {uid}, controller: true}}]}}}}
---
{{apiVersion: v1, kind: ConfigMap, metadata: {{name: by-hand}}, data: {{settings.ini: theirs}}}}"
        ))
        .await;
    let _gateway = gateway::start(&place).await;
    for map in ["owned", "by-hand"] {
        let version = place.get("ConfigMap", map).await.metadata.resource_version;
        let route = readme().replace("staticroute-sample", map).replace("vllm-router-config", map);
        place.apply(&route).await;
        let accepted = place.condition("StaticRoute", map, "Accepted", "False").await;
        assert_eq!(accepted["reason"], "ConfigMapConflict", "{accepted}");
        assert_eq!(place.get("ConfigMap", map).await.metadata.resource_version, version, "{map} was touched");
    }
}

/// Two routes that name one ConfigMap: the older has it, the other says so.
#[tokio::test]
async fn of_two_routes_that_name_one_config_map_one_has_it() {
    let place = Place::new("a13-two").await;
    let _gateway = gateway::start(&place).await;
    place.apply(&readme()).await;
    place.condition("StaticRoute", "staticroute-sample", "Programmed", "True").await;
    place.apply(&readme().replace("name: staticroute-sample", "name: second")).await;
    let accepted = place.condition("StaticRoute", "second", "Accepted", "False").await;
    assert_eq!(accepted["reason"], "ConfigMapConflict", "{accepted}");
    place.condition("StaticRoute", "staticroute-sample", "Programmed", "True").await;
}

/// A14, by the rules of the Python router: every key is one it takes, the required ones are there, every value has its type.
/// The router itself is no package that this suite could install.
#[tokio::test]
async fn every_key_of_the_config_map_is_one_that_the_python_router_takes() {
    let place = Place::new("a14").await;
    let _gateway = gateway::start(&place).await;
    let cases = [
        "staticBackends: 'http://a:1', staticModels: m",
        "staticBackends: 'http://a:1,http://b:1', staticModels: 'm,n', routingLogic: least_loaded",
        "staticBackends: 'http://a:1', staticModels: m, healthCheck: {periodSeconds: 7}",
    ];
    for (index, spec) in cases.iter().enumerate() {
        let name = format!("r{index}");
        place
            .apply(&format!(
                "{{apiVersion: {GROUP}/v1alpha1, kind: StaticRoute, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
            ))
            .await;
        place.condition("StaticRoute", &name, "Programmed", "True").await;
        let data = config_map(&place, &format!("{name}-config")).await.data.expect("data");
        for key in KEYS {
            assert_router_takes(&data[key]);
        }
        assert_eq!(data[KEYS[0]], data[KEYS[1]]);
    }
}

/// The rules of the router's own `DynamicRouterConfig`: an unknown key refuses the whole file.
fn assert_router_takes(text: &str) {
    let config: Value = serde_json::from_str(text).expect("JSON");
    let fields = config.as_object().expect("an object");
    for (key, value) in fields {
        assert!(
            ROUTER_KEYS.iter().any(|(known, _)| known == key),
            "{key}: the router refuses the whole file"
        );
        assert!(value.is_string(), "{key}: {value}");
    }
    for (key, required) in ROUTER_KEYS {
        assert!(!required || fields.contains_key(key), "{key} is missing");
    }
    let logics = [
        "roundrobin",
        "session",
        "kvaware",
        "prefixaware",
        "disaggregated_prefill",
        "disaggregated_prefill_orchestrated",
    ];
    assert!(logics.contains(&config["routing_logic"].as_str().expect("text")), "{config}");
    assert!(["static", "k8s"].contains(&config["service_discovery"].as_str().expect("text")), "{config}");
    let count = |key: &str| config[key].as_str().map_or(0, |list| list.split(',').count());
    assert_eq!(count("static_backends"), count("static_models"), "{config}");
}

/// A static route without a router of its own is served by this gateway.
#[tokio::test]
async fn a_static_route_is_served() {
    let place = Place::new("static-served").await;
    let (address, engine) = engines::listen(Config::model("m")).await;
    place
        .apply(&format!(
            "{{apiVersion: {GROUP}/v1alpha1, kind: StaticRoute, metadata: {{name: r}},
              spec: {{staticBackends: 'http://{address}:8000', staticModels: m}}}}"
        ))
        .await;
    let gateway = gateway::ready(&place).await;
    let answer = gateway.post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!((answer.status.as_u16(), answer.engine()), (200, engine.name()));
    let answer = gateway
        .post(&format!("/gateways/{}/r/v1/chat/completions", place.namespace), &chat("m", "hello"))
        .await;
    assert_eq!(answer.status, 200, "an implicit gateway of its own name");
}

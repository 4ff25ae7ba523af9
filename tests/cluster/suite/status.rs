//! What status says of the objects that people write, and when.

use cluster::engines::{self, deployment, routing_manifests, service_manifest};
use cluster::place::{GROUP, Place, condition_of, documents};
use cluster::{gateway, kubelet};
use engine::http::{Config, Signals};
use harness::fleet::chat;
use serde_json::{Value, json};

use crate::samples;

/// What the examples of the README refer to, with engines that answer.
async fn surroundings(place: &Place) -> Vec<engines::EnginePod> {
    let mut pods = deployment(place, "llama2-service-backend", "meta-llama/Llama-2-70b-chat-hf", 1).await;
    pods.extend(deployment(place, "llama3", "llama3-70b", 1).await);
    pods.extend(deployment(place, "mistral", "mistral3", 1).await);
    place
        .apply(
            "apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: llama3-chatbot-service}
spec: {modelName: llama3-70b, backendRef: llama3, inferenceCacheRef: llama3-chatbot-cache}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: mistral-agent-service}
spec: {modelName: mistral3, backendRef: mistral}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceCache
metadata: {name: llama2-cache}
spec: {modelName: meta-llama/Llama-2-70b-chat-hf, kvCacheTransferPolicy: {thresholdHitRate: 0.8, evictionThreshold: 0.9}}
",
        )
        .await;
    pods
}

/// A02: each example of the README reaches `Accepted=True`, and what this version does not do says so with a remedy.
#[tokio::test]
async fn the_examples_of_the_readme_are_accepted_and_served() {
    let place = Place::new("a02").await;
    let _pods = surroundings(&place).await;
    for file in samples::README {
        place.kubectl(&["apply", "-f", "-"], &samples::read(file)).await.ok();
    }
    let gateway = gateway::ready(&place).await;
    for file in samples::README {
        for object in documents(&samples::read(file)) {
            let (kind, name) =
                (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str());
            let accepted = place.condition(kind, name.expect("a name"), "Accepted", "True").await;
            assert_eq!(accepted["reason"], "Accepted", "{kind}");
        }
    }
    for (kind, name) in [("InferenceGateway", "llm-gateway"), ("InferenceCache", "llama3-chatbot-cache")] {
        place.condition(kind, name, "Ready", "True").await;
    }
    // A semantic cache merely speeds up: it is left out, and the service says so.
    for (kind, name) in [
        ("InferenceService", "basic-inference"),
        ("SpeculativeDecoding", "sd-llama3-chatbot"),
        ("PrefillDecodingDisaggregation", "pdd-llama3-chatbot"),
    ] {
        let ready = settled(&place, kind, name).await;
        if ready["status"] == "False" {
            assert_eq!(ready["reason"], "NotImplemented", "{kind}: {ready}");
            assert!(
                ready["message"].as_str().is_some_and(|text| text.len() > 20),
                "{kind} has no remedy: {ready}"
            );
        }
    }
    let answer = gateway.post("/v1/chat/completions", &chat("mistral3", "hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A03: the Go form of the five kinds reaches the same; what is resolved equals that of the short form.
#[tokio::test]
async fn the_go_form_means_the_same_as_the_short_form() {
    let place = Place::new("a03").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place
        .apply(
            "apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceCache
metadata: {name: cache}
spec: {modelName: llama, kvCacheTransferPolicy: {thresholdHitRate: '0.8', evictionThreshold: 0.9}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: short}
spec: {modelName: llama, backendRef: llama, inferenceCacheRef: cache}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: go}
spec:
  modelName: llama
  backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: llama, port: 80, weight: 1}
  inferenceCacheRef: {name: cache, apiGroup: production-stack.vllm.ai, kind: InferenceService}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata: {name: short}
spec: {routeStrategy: PrefixHash, routes: [{model: llama, inferenceServiceRef: short}]}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata: {name: go}
spec:
  routeStrategy: prefix-hash
  serviceDiscovery: k8s
  modelRoutes: [{modelName: llama, serviceRef: {name: go, apiGroup: production-stack.vllm.ai, kind: InferenceService}}]
",
        )
        .await;
    let _gateway = gateway::ready(&place).await;
    for kind in ["InferenceService", "InferenceGateway"] {
        place.condition(kind, "short", "Ready", "True").await;
        place.condition(kind, "go", "Ready", "True").await;
        let resolved = |object: &kube::api::DynamicObject| object.data["status"]["resolved"].clone();
        let (short, go) = (place.get(kind, "short").await, place.get(kind, "go").await);
        assert!(resolved(&short).is_object(), "{kind}: {}", short.data["status"]);
        assert_eq!(resolved(&short), resolved(&go), "{kind}");
    }
    let said = place.kubectl(&["get", "infsvc", "short", "go", "--no-headers"], "").await.ok();
    let columns: Vec<Vec<&str>> = said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0][1..5], columns[1][1..5], "{}", said.out);
    assert_eq!(columns[0][4], "True", "{}", said.out);
}

/// A05: cycles and wrong kinds are named by their field; others are served meanwhile.
#[tokio::test]
async fn cycles_and_wrong_kinds_are_refused_by_name_and_disturb_nobody() {
    let place = Place::new("a05").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    let gateway = gateway::ready(&place).await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    place
        .apply(
            "apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: wrong-kind}
spec: {modelName: m, backendRef: {kind: ConfigMap, name: llama}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: cycle}
spec: {modelName: m, backendRef: {group: production-stack.vllm.ai, kind: InferenceService, name: cycle}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceCache
metadata: {name: wrong-kind}
spec: {modelName: m, pddRef: {kind: SpeculativeDecoding, name: x}}
",
        )
        .await;
    for (kind, name, field) in [
        ("InferenceService", "wrong-kind", "spec.backendRef"),
        ("InferenceService", "cycle", "spec.backendRef"),
        ("InferenceCache", "wrong-kind", "spec.pddRef"),
    ] {
        let accepted = place.condition(kind, name, "Accepted", "False").await;
        assert!(
            accepted["message"].as_str().expect("a message").contains(field),
            "{kind} {name}: {accepted}"
        );
    }
    let ready = condition_of(&place.get("InferenceGateway", "gw").await, "Ready").expect("a condition");
    assert_eq!(ready["status"], "True", "{ready}");
    assert_eq!(gateway.post("/v1/chat/completions", &chat("llama", "hello")).await.status, 200);
}

/// A07: the spellings of a strategy, and one that nobody knows.
#[tokio::test]
async fn strategies_are_known_in_any_spelling() {
    let place = Place::new("a07").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    let spellings = ["PrefixHash", "prefix-hash", "prefixaware", "ROUND-ROBIN", "foo"];
    for (index, spelling) in spellings.iter().enumerate() {
        place
            .apply(&format!(
                "{{apiVersion: {GROUP}/v1alpha1, kind: InferenceGateway, metadata: {{name: g{index}}},
                  spec: {{routeStrategy: {spelling}, routes: [{{model: llama, inferenceServiceRef: llama}}]}}}}"
            ))
            .await;
    }
    let _gateway = gateway::ready(&place).await;
    for (index, policy) in ["prefix-hash", "prefix-hash", "prefix-hash", "round-robin"].iter().enumerate() {
        let name = format!("g{index}");
        place.condition("InferenceGateway", &name, "PolicyProgrammed", "True").await;
        let status = place.get("InferenceGateway", &name).await.data["status"].clone();
        let resolved = status["resolved"]["policies"].as_str().unwrap_or_default();
        assert!(resolved.starts_with(policy), "{}: {status}", spellings[index]);
    }
    let accepted = place.condition("InferenceGateway", "g4", "Accepted", "False").await;
    assert_eq!(accepted["reason"], "PolicyNotFound");
}

/// Bad input that only we can see: each says what is wrong where and what to do, and everything else is served.
#[tokio::test]
async fn bad_input_is_named_with_its_remedy_and_disturbs_nobody() {
    let place = Place::new("bad-status").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    let object = |kind: &str, name: &str, spec: &str| {
        format!(
            "{{apiVersion: {GROUP}/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let garbage = "bm90IHdhc20=";
    let text = [
        object(
            "InferenceGateway",
            "two-targets",
            "routes: [{model: llama, inferenceServiceRef: llama}], modelRoutes: [{modelName: llama, serviceRef: {name: other}}]",
        ),
        object("InferenceService", "no-backend", "modelName: m, backendRef: nowhere"),
        object("InferenceService", "no-cache", "modelName: m, backendRef: llama, inferenceCacheRef: nowhere"),
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: garbage}}, binaryData: {{p.wasm: {garbage}}}}}\n---\n"
        ),
        object("RoutingPolicy", "no-wasm", "source: {configMapRef: {name: garbage, key: p.wasm}}"),
        object("RoutingPolicy", "no-map", "source: {configMapRef: {name: nowhere, key: p.wasm}}"),
        object(
            "InferenceGateway",
            "uses-no-wasm",
            "routeStrategy: no-wasm, routes: [{model: llama, inferenceServiceRef: llama}]",
        ),
    ];
    place.apply(&text.concat()).await;
    let expected = [
        ("InferenceGateway", "two-targets", "Accepted", "ConflictingRoutes"),
        ("InferenceService", "no-backend", "ResolvedRefs", "NotFound"),
        ("InferenceService", "no-cache", "ResolvedRefs", "NotFound"),
        ("RoutingPolicy", "no-map", "ResolvedRefs", "NotFound"),
        ("RoutingPolicy", "no-wasm", "Ready", ""),
        ("InferenceGateway", "uses-no-wasm", "PolicyProgrammed", ""),
    ];
    for (kind, name, condition, reason) in expected {
        let found = place.condition(kind, name, condition, "False").await;
        assert!(found["reason"].as_str().expect("a reason").contains(reason), "{kind} {name}: {found}");
        assert!(found["message"].as_str().is_some_and(|text| text.len() > 10), "{kind} {name}: {found}");
    }
    assert_eq!(gateway.post("/v1/chat/completions", &chat("llama", "hello")).await.status, 200);
    let ready = condition_of(&place.get("InferenceGateway", "gw").await, "Ready").expect("a condition");
    assert_eq!(ready["status"], "True", "{ready}");
}

/// Bad input: an object as large as the store takes is read, served around and answered in status.
#[tokio::test]
async fn an_object_as_large_as_the_store_takes_disturbs_nobody() {
    let place = Place::new("bad-large").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    let gateway = gateway::ready(&place).await;
    let routes: Vec<Value> = (0..4096)
        .map(|index| json!({"model": format!("m{index}-{}", "x".repeat(200)), "inferenceServiceRef": format!("s{index}")}))
        .collect();
    let large = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "InferenceGateway", "metadata": {"name": "large"},
        "spec": {"routes": routes}
    });
    let bytes = large.to_string().len();
    assert!(bytes > 900_000, "{bytes}");
    // Created, not applied: who manages each field would be stored beside it and be too much.
    let object = serde_json::from_value(large).expect("an object");
    place.api("InferenceGateway").create(&kube::api::PostParams::default(), &object).await.expect("taken");
    let found = place.condition("InferenceGateway", "large", "ResolvedRefs", "False").await;
    assert!(found["message"].as_str().is_some_and(|text| text.len() <= 32_768), "{found}");
    assert_eq!(gateway.post("/v1/chat/completions", &chat("llama", "hello")).await.status, 200);
}

/// Every kind is clean for tools that wait: `observedGeneration` at both places, `Ready` on all, no stale `Reconciling`.
#[tokio::test]
async fn status_is_what_helm_and_gitops_tools_wait_for() {
    let place = Place::new("kstatus").await;
    let _pods = surroundings(&place).await;
    place.apply(&samples::all(&place.namespace)).await;
    let _gateway = gateway::ready(&place).await;
    for document in documents(&samples::all(&place.namespace)) {
        let kind = document["kind"].as_str().expect("a kind");
        if !document["apiVersion"].as_str().is_some_and(|version| version.starts_with(GROUP)) {
            continue;
        }
        let name = document["metadata"]["name"].as_str().expect("a name");
        let ready = settled(&place, kind, name).await;
        let object = place.get(kind, name).await;
        let generation = object.metadata.generation;
        assert_eq!(object.data["status"]["observedGeneration"].as_i64(), generation, "{kind} {name}");
        assert_eq!(ready["observedGeneration"].as_i64(), generation, "{kind} {name}: {ready}");
        for condition in object.data["status"]["conditions"].as_array().expect("conditions") {
            let abnormal = condition["type"] == "Reconciling" || condition["type"] == "Stalled";
            assert!(!abnormal || condition["status"] == "True", "{kind} {name}: {condition}");
        }
    }
}

/// Events tell transitions, once each.
#[tokio::test]
async fn a_transition_is_an_event() {
    let place = Place::new("events").await;
    let _gateway = gateway::start(&place).await;
    let pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    place.annotate("Pod", &pods[0].pod, json!({kubelet::READY: "false"})).await;
    place.condition("InferenceGateway", "gw", "Ready", "False").await;
    let events = place.api("Event");
    harness::fleet::until("an event of the transition", || async {
        let all = events.list(&kube::api::ListParams::default()).await.expect("listed").items;
        let about = all.iter().filter(|event| event.data["regarding"]["kind"] == "InferenceGateway");
        let reasons: Vec<_> = about.map(|event| event.data["reason"].clone()).collect();
        (!reasons.is_empty() && reasons.len() < 10).then_some(())
    })
    .await;
}

/// A gateway's own Service, asked for with `spec.service.enabled`; one that belongs to somebody else is left alone.
#[tokio::test]
async fn a_gateway_gets_a_service_of_its_name_and_takes_nobody_elses() {
    let place = Place::new("own-service").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&service_manifest("taken").to_string()).await;
    let foreign = place.get("Service", "taken").await.metadata.resource_version;
    place.apply(&routing_manifests("llama", "llama", "service: {enabled: true},")).await;
    place
        .apply(
            &routing_manifests("llama", "llama", "service: {enabled: true},")
                .replace("name: gw", "name: taken"),
        )
        .await;
    let _gateway = gateway::ready(&place).await;
    let service = place.until("Service", "gw", |service| Some(service.clone())).await;
    let owner = &service.metadata.owner_references.expect("owned")[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("InferenceGateway", "gw"));
    place.condition("InferenceGateway", "taken", "ServiceReady", "False").await;
    assert_eq!(place.get("Service", "taken").await.metadata.resource_version, foreign, "touched");
    place.delete("InferenceGateway", "gw").await;
    place.until_gone("Service", "gw").await;
}

/// The `Ready` condition of the present generation, once it is no longer pending.
async fn settled(place: &Place, kind: &str, name: &str) -> Value {
    place
        .until(kind, name, |object| {
            condition_of(object, "Ready")
                .filter(|found| found["status"] != "Unknown" && found["reason"] != "Pending")
        })
        .await
}

/// The engine's own metrics fill the status of a cache.
#[tokio::test]
async fn a_cache_tells_the_hit_rate_of_its_engines() {
    let place = Place::new("cache-stats").await;
    let core = engine::core::CoreConfig::default();
    place.apply(&service_manifest("llama").to_string()).await;
    let model = Config::model("llama").simulated(core.clone());
    let pod = engines::pod(&place, "llama", "llama-0", &[], model).await;
    place
        .apply(
            "apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceCache
metadata: {name: cache}
spec: {modelName: llama, kvCacheTransferPolicy: {thresholdHitRate: 0.5, evictionThreshold: 0.9}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: llama}
spec: {modelName: llama, backendRef: llama, inferenceCacheRef: cache}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata: {name: gw}
spec: {routeStrategy: PrefixHash, routes: [{model: llama, inferenceServiceRef: llama}]}
",
        )
        .await;
    let gateway = gateway::Start::at(&place).args(&["--engine-scrape-interval=200ms"]).ready().await;
    let prompt = "the gate turns and the water follows. ".repeat(100);
    for _ in 0..10 {
        assert_eq!(gateway.post("/v1/chat/completions", &chat("llama", &prompt)).await.status, 200);
    }
    // Numbers that move with traffic are written every thirty seconds at most.
    // The first time, some of the requests may not have been made.
    place
        .until("InferenceCache", "cache", |cache| {
            let rate = cache.data["status"]["cacheStats"]["hitRate"].as_str()?.parse::<f64>().ok()?;
            (0.5..=1.0).contains(&rate).then_some(())
        })
        .await;
    // The same, and the blocks in use, on the metrics page.
    pod.engine.set_signals(Some(Signals { running: 1.0, waiting: 0.0, kv_usage: 0.5 }));
    gateway.metric_until("production_stack_cache_hit_rate", |rate| rate >= 0.5).await;
    let stats = place
        .until("InferenceCache", "cache", |cache| {
            let stats = cache.data["status"]["cacheStats"].clone();
            (stats["memoryUsage"] == "50.0%").then_some(stats)
        })
        .await;
    assert_eq!(stats["totalEntries"], core.kv_blocks / 2, "{stats}");
}

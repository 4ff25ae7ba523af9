//! The custom resource definitions on a real API server: what is taken, what is refused and with which words, what people
//! see with `kubectl get`.

use cluster::place::{GROUP, OURS, Place, documents, resource};
use cluster::plane;
use serde_json::{Value, json};

use crate::samples;

/// A01: the folder `crds/` applies as the documentation says, and every definition is established.
#[tokio::test]
async fn the_definitions_apply_and_are_established() {
    let place = Place::new("a01").await;
    let folder = plane::definitions();
    let path = folder.to_str().expect("a path");
    let said = place.kubectl(&["apply", "--server-side", "-f", path], "").await.ok();
    assert_eq!(said.out.lines().count(), OURS.len(), "{}", said.out);
    assert_eq!(said.err, "", "a warning");
    for kind in OURS {
        let name = format!("{}.{GROUP}", resource(kind).plural);
        let definition = place.get("CustomResourceDefinition", &name).await;
        let conditions = definition.data["status"]["conditions"].as_array().expect("conditions");
        let has = |kind: &str, status: &str| {
            conditions.iter().any(|found| found["type"] == kind && found["status"] == status)
        };
        assert!(has("Established", "True") && has("NamesAccepted", "True"), "{name}: {conditions:?}");
        assert!(!has("NonStructuralSchema", "True"), "{name}: {conditions:?}");
    }
}

/// A01: people who know only `kubectl apply` succeed too: no definition is too large for its annotation.
#[tokio::test]
async fn the_definitions_fit_plain_kubectl_apply() {
    let place = Place::new("a01-plain").await;
    let folder = plane::definitions();
    let path = folder.to_str().expect("a path");
    let create = ["create", "--dry-run=client", "--save-config", "-o", "json", "-f", path];
    let said = place.kubectl(&create, "").await.ok();
    // kubectl prints one JSON object after the other.
    let definitions: Result<Vec<Value>, _> =
        serde_json::Deserializer::from_str(&said.out).into_iter().collect();
    let definitions = definitions.expect("JSON");
    assert_eq!(definitions.len(), OURS.len());
    for definition in definitions {
        let annotations = &definition["metadata"]["annotations"];
        let last = annotations["kubectl.kubernetes.io/last-applied-configuration"].as_str().expect("saved");
        assert!(last.len() < 256 * 1024, "{}: {} bytes", definition["metadata"]["name"], last.len());
    }
}

/// A01: `kubectl explain` tells what every field of every kind is for.
#[tokio::test]
async fn every_field_is_explained() {
    let place = Place::new("a01-explain").await;
    for kind in OURS {
        let definition =
            place.get("CustomResourceDefinition", &format!("{}.{GROUP}", resource(kind).plural)).await;
        let schema = &definition.data["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(schema["description"].is_string(), "{kind}");
        for part in ["spec", "status"] {
            assert_described(&format!("{kind}.{part}"), &schema["properties"][part]);
        }
    }
    let said = place.kubectl(&["explain", "igw.spec.routeStrategy"], "").await.ok();
    assert!(said.out.contains("PrefixHash"), "{}", said.out);
}

fn assert_described(path: &str, schema: &Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(property["description"].is_string(), "{path} has no description");
        assert_described(&path, property);
        assert_described(&path, &property["items"]);
    }
}

/// A02: each example of the README applies byte for byte, without a warning, and nothing of it is dropped.
#[tokio::test]
async fn the_examples_of_the_readme_apply_whole() {
    let place = Place::new("a02-schema").await;
    for file in samples::README {
        let text = samples::read(file);
        let said = place.kubectl(&["apply", "--validate=strict", "-f", "-"], &text).await.ok();
        assert_eq!(said.err, "", "{file}: a warning");
        assert_kept(&place, &text).await;
    }
}

/// A03: the form of the Go types applies whole, too.
#[tokio::test]
async fn the_go_form_applies_whole() {
    let place = Place::new("a03-schema").await;
    let text = samples::go_form(&place.namespace);
    place.apply(&text).await;
    assert_kept(&place, &text).await;
}

/// Asserts that the stored objects have everything that the file says.
async fn assert_kept(place: &Place, text: &str) {
    for given in documents(text) {
        let (kind, name) = (given["kind"].as_str().expect("a kind"), given["metadata"]["name"].as_str());
        let stored = place.get(kind, name.expect("a name")).await;
        assert_contains(&format!("{kind}.spec"), &stored.data["spec"], &given["spec"]);
    }
}

fn assert_contains(path: &str, stored: &Value, given: &Value) {
    match given {
        Value::Object(fields) => {
            for (name, value) in fields {
                assert_contains(&format!("{path}.{name}"), &stored[name], value);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                assert_contains(&format!("{path}[{index}]"), &stored[index], item);
            }
        }
        plain => assert_eq!(stored, plain, "{path} was changed"),
    }
}

/// A06: thresholds as number and as text; what is out of range the API server refuses, naming the field.
#[tokio::test]
async fn thresholds_are_numbers_or_text_between_zero_and_one() {
    let place = Place::new("a06").await;
    let cache = |threshold: Value| {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "InferenceCache", "metadata": {"name": "c"},
            "spec": {"modelName": "m", "kvCacheTransferPolicy": {"thresholdHitRate": threshold, "evictionThreshold": 0.9}}
        })
    };
    for good in [json!(0.8), json!("0.8"), json!(1), json!(0)] {
        place.try_apply(&cache(good.clone())).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [json!(1.5), json!("abc"), json!(-0.1), json!([]), json!({}), json!(true), json!("1.5")] {
        let Err(kube::Error::Api(status)) = place.try_apply(&cache(bad.clone())).await else {
            panic!("{bad} was taken");
        };
        assert!(status.message.contains("thresholdHitRate"), "{}", status.message);
    }
}

/// A06: every reference is a name or an object, and nothing else.
#[tokio::test]
async fn a_reference_is_a_name_or_an_object() {
    let place = Place::new("a06-refs").await;
    let service = |backend: Value| {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "InferenceService", "metadata": {"name": "s"},
            "spec": {"modelName": "m", "backendRef": backend}
        })
    };
    let good = [
        json!("engines"),
        json!({"name": "engines"}),
        json!({"name": "engines", "port": 8000, "weight": 3}),
        json!({"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "engines", "port": 8000, "weight": 1}),
        json!({"kind": "Static", "urls": ["http://192.0.2.9:8000", {"url": "https://e.example", "weight": 2}]}),
        json!({"kind": "Pods", "selector": {"matchLabels": {"app": "e"}}, "port": 8000}),
    ];
    for reference in good {
        let stored = place.try_apply(&service(reference.clone())).await;
        let stored = stored.unwrap_or_else(|error| panic!("{reference}: {error}"));
        assert_contains("backendRef", &stored.data["spec"]["backendRef"], &reference);
    }
    for bad in
        [json!(""), json!(5), json!(0.5), json!(true), json!([]), json!(["engines"]), json!({"port": 1})]
    {
        let Err(kube::Error::Api(status)) = place.try_apply(&service(bad.clone())).await else {
            panic!("{bad} was taken");
        };
        assert!(status.message.contains("backendRef"), "{bad}: {}", status.message);
    }
}

/// Bad input that the API server itself refuses: each with the field and, from CEL, our own words.
#[tokio::test]
async fn what_schema_and_rules_can_say_is_refused_at_the_door() {
    let place = Place::new("bad-schema").await;
    let cases = [
        ("StaticRoute", "staticBackends: 'http://a:1,http://b:1', staticModels: m", "must name equally many"),
        (
            "StaticRoute",
            "staticBackends: 'http://a:1', staticModels: m, healthCheck: {periodSeconds: 0}",
            "periodSeconds",
        ),
        ("StaticRoute", "staticModels: m", "staticBackends"),
        ("RoutingPolicy", "source: {}", "exactly one of builtin, file, configMapRef, secretRef and oci"),
        ("RoutingPolicy", "source: {builtin: prefix-hash, file: a.wasm}", "exactly one of builtin, file"),
        ("RoutingPolicy", "source: {oci: {image: 'registry.example/p:1'}}", "needs a digest"),
        (
            "InferenceGateway",
            "routeStrategy: PrefixHash, policies: [{name: round-robin}]",
            "policies excludes routeStrategy",
        ),
        ("InferenceGateway", "policies: [{config: {}}]", "exactly one of name and policyRef"),
        ("InferenceGateway", "routes: [{inferenceServiceRef: s}]", "exactly one of model and modelName"),
        ("InferenceGateway", "routStrategy: PrefixHash", "routStrategy"),
        ("InferenceGateway", "sessionAffinity: 'yes'", "sessionAffinity"),
        (
            "InferenceGateway",
            "cors: {allowOrigins: ['*'], allowCredentials: true}",
            "allowCredentials excludes the origin *",
        ),
        ("InferenceGateway", "cors: {allowMethods: [GET]}", "allowOrigins"),
        ("InferenceGateway", "paths: [{path: /x, model: m, modelFrom: Query}]", "model excludes modelFrom"),
        ("InferenceGateway", "paths: [{path: /x, methods: [TRACE]}]", "methods"),
        ("InferenceService", "backendRef: engines", "modelName"),
        (
            "InferenceService",
            "modelName: m, backendRef: b, tls: {caRef: {name: c}, insecureSkipVerify: true}",
            "exclude each other",
        ),
        (
            "InferenceService",
            "modelName: m, backendRef: b, auth: {secretRef: {name: s, key: k}, header: Transfer_Encoding}",
            "header is one that only the gateway writes",
        ),
        (
            "SpeculativeDecoding",
            "draftModel: a, targetModel: b, numSpeculativeTokens: 0",
            "numSpeculativeTokens",
        ),
        ("PrefillDecodingDisaggregation", "modelName: m, engine: other", "engine"),
    ];
    for (kind, spec, words) in cases {
        let yaml = format!(
            "{{apiVersion: {GROUP}/v1alpha1, kind: {kind}, metadata: {{name: bad}}, spec: {{{spec}}}}}"
        );
        let status = place.refused(&yaml).await;
        assert!(status.message.contains(words), "{kind} {spec}: {}", status.message);
    }
}

/// A15: `kubectl get` of each kind has the columns that people of the Go controller know, and ours.
#[tokio::test]
async fn kubectl_get_shows_the_columns_of_each_kind() {
    let place = Place::new("a15").await;
    place.apply(&samples::all(&place.namespace)).await;
    let columns = [
        ("igw", "NAME SCHEDULING STRATEGY AFFINITY POLICIES STATUS AGE"),
        ("infsvc", "NAME MODEL BACKEND CACHE STATUS AGE"),
        ("icache", "NAME MODEL TYPE SIZE HIT RATE ENTRIES MEMORY STATUS AGE"),
        ("sdec", "NAME TYPE DRAFT MODEL TOKENS STATUS AGE"),
        ("pdd", "NAME MODEL PREFILL POD DECODE POD STATUS AGE"),
        ("sroute", "NAME BACKENDS CONFIGMAP HEALTHY AGE"),
        ("rpol", "NAME SOURCE VERSION DIGEST USED BY READY AGE"),
        ("mplace", "NAME"),
    ];
    for (short, wanted) in columns {
        let said = place.kubectl(&["get", short], "").await.ok();
        let head = said.out.lines().next().unwrap_or_default();
        let words: Vec<_> = head.split_whitespace().collect();
        assert!(words.join(" ").starts_with(wanted), "{short}: {head:?} {}", said.err);
    }
    let said = place.kubectl(&["get", "inference"], "").await.ok();
    assert!(said.out.contains("inferencegateway.production-stack.vllm.ai/llm-gateway"), "{}", said.out);
}

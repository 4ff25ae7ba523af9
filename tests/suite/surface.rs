//! Every path of the OpenAI surface, and the pages that the gateway answers itself.

use engine::http::Config;
use harness::client::{self, Connection};
use harness::fleet::{chat, engine, until};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use http::Method;
use serde_json::{Value, json};

/// 2.1: `--root-path`: the same under a prefix, for whoever cannot rewrite paths.
#[tokio::test]
async fn every_path_is_served_under_the_root_path_too() {
    let engine = engine("a").await;
    let manifest = Manifest::new().model("a", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml()).args(["--root-path", "/llm/"])).await;
    for (prefix, status) in [("", 200), ("/llm", 200), ("/llm2", 404), ("/other", 404)] {
        let answer = gateway.post(&format!("{prefix}/v1/chat/completions"), &chat("a", "hi")).await;
        assert_eq!(answer.status, status, "{prefix}: {}", answer.text());
        let answer = client::get(gateway.data, &format!("{prefix}/v1/models")).await;
        assert_eq!(answer.status, status, "{prefix}: {}", answer.text());
    }
}

/// 2.1: every operation with a JSON body.
#[tokio::test]
async fn every_json_path_is_answered_by_the_models_own_engine() {
    let (a, b) = (engine("a").await, engine("b").await);
    let manifest = Manifest::new().model("a", [a.url()]).model("b", [b.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let cases: [(&str, Value, &str); 22] = [
        ("/v1/chat/completions", json!({"messages": messages}), "/object"),
        ("/v1/completions", json!({"prompt": "hi"}), "/object"),
        ("/v1/embeddings", json!({"input": ["a", "b"]}), "/data/1/embedding"),
        ("/v1/responses", json!({"input": "hi"}), "/output/0"),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 4}), "/content/0/text"),
        ("/v1/rerank", json!({"query": "q", "documents": ["d"]}), "/results/0/relevance_score"),
        ("/rerank", json!({"query": "q", "documents": ["d"]}), "/results/0/relevance_score"),
        ("/v1/score", json!({"text_1": "q", "text_2": "d"}), "/data/0/score"),
        ("/score", json!({"text_1": "q", "text_2": ["d"]}), "/data/0/score"),
        ("/v2/rerank", json!({"query": "q", "documents": ["d"]}), "/results/0/relevance_score"),
        ("/v1/messages/count_tokens", json!({"messages": messages}), "/input_tokens"),
        ("/v1/responses/input_tokens", json!({"input": "hi"}), "/input_tokens"),
        ("/v1/moderations", json!({"input": "hi"}), "/data"),
        ("/pooling", json!({"input": "hi"}), "/data"),
        ("/classify", json!({"input": "hi"}), "/data"),
        ("/tokenize", json!({"prompt": "four"}), "/tokens/0"),
        ("/detokenize", json!({"tokens": [1]}), "/prompt"),
        ("/v1/images/generations", json!({"prompt": "a gate"}), "/data/0/b64_json"),
        ("/v1/audio/speech", json!({"input": "hi", "voice": "wicket"}), ""),
        ("/v1/chat/completions", json!({"messages": messages, "stream": true}), ""),
        ("/v1/responses", json!({"input": "hi", "stream": true}), ""),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 4, "stream": true}), ""),
    ];
    for (path, mut body, expected) in cases {
        for (model, engine) in [("a", &a), ("b", &b)] {
            body["model"] = model.into();
            let direct = client::post(engine.addr(), path, &[], body.to_string()).await;
            let answer = gateway.post(path, &body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(answer.engine(), engine.name(), "{path}");
            assert_eq!(answer.header("content-type"), direct.header("content-type"), "{path}");
            let received = engine.last_request().unwrap();
            assert_eq!((received.path(), &received.body[..]), (path, body.to_string().as_bytes()));
            if !expected.is_empty() {
                assert!(answer.json().pointer(expected).is_some(), "{path}: {}", answer.text());
            }
        }
    }
}

/// 2.1: the one path without a body names its model in the query.
#[tokio::test]
async fn voices_are_asked_of_the_model_in_the_query() {
    let (a, b) = (engine("a").await, engine("b").await);
    let manifest = Manifest::new().model("a", [a.url()]).model("b", [b.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let answer = gateway.get("/v1/audio/voices?model=b").await;
    assert_eq!((answer.status.as_u16(), answer.engine()), (200, b.name()), "{}", answer.text());
    assert_eq!(answer.json(), json!({"voices": ["wicket"]}));
    assert_eq!(gateway.get("/v1/audio/voices").await.status, 400);
}

/// 2.4: files and batches are known and not served.
#[tokio::test]
async fn files_and_batches_are_501() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let cases = [
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file-1"),
        ("GET", "/v1/files/file-1/content"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches?limit=20"),
        ("GET", "/v1/batches/batch_1"),
        ("DELETE", "/v1/batches/batch_1"),
    ];
    for (method, path) in cases {
        let mut connection = Connection::open(gateway.data).await;
        let answer = connection.call(method.parse::<Method>().unwrap(), path, &[], "").await;
        assert_eq!(answer.status, 501, "{method} {path}: {}", answer.text());
        assert!(answer.json()["error"].as_str().is_some_and(|text| text.starts_with("Not implemented")));
        assert!(answer.header("x-request-id").is_some());
    }
}

/// Pods behind a service, as a cluster would show them.
fn pods(address: std::net::SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: vllm}}\nspec: {{ports: [{{name: http, port: 8000}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: vllm-x, labels: {{kubernetes.io/service-name: vllm}}}}\n\
         ports: [{{name: http, port: {port}}}]\n\
         endpoints:\n  - addresses: [\"{ip}\"]\n    conditions: {{ready: true}}\n    \
         targetRef: {{kind: Pod, name: vllm-0, namespace: default, uid: u-1}}\n---\n\
         apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: pods}}\n\
         spec: {{modelName: facebook/opt-125m, backendRef: vllm}}",
        port = address.port(),
        ip = address.ip()
    )
}

/// D21
#[tokio::test]
async fn own_pages_have_the_shapes_of_the_old_router() {
    let config =
        Config { max_model_len: 2_048, adapters: vec!["lora".into()], ..Config::model("facebook/opt-125m") };
    let behind_service = engine::http::Engine::start(config).await.unwrap();
    let plain = engine("plain").await;
    let manifest = Manifest::new().model("plain", [plain.url()]).document(&pods(behind_service.addr()));
    let text = manifest.yaml().replacen(
        "  routes:\n",
        "  routes:\n    - {model: facebook/opt-125m, inferenceServiceRef: pods}\n",
        1,
    );
    let gateway = Gateway::ready(Options::manifest(text)).await;

    let engines = gateway.get("/engines").await;
    let list = engines.json();
    let of = |model: &str| {
        let serves = |engine: &&Value| engine["serving_models"].as_array().unwrap().contains(&json!(model));
        list.as_array().unwrap().iter().find(serves).unwrap_or_else(|| panic!("{model} in {list}"))
    };
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(
        of("facebook/opt-125m")["engine_id"],
        "1e834a65-7d39-5ae5-954b-81f3e40b7b9e",
        "of the pod's name"
    );
    let by_url = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, plain.url().as_bytes());
    assert_eq!(of("plain")["engine_id"], by_url.to_string(), "of the URL, where there is no pod");
    for engine in list.as_array().unwrap() {
        let keys: Vec<&String> = engine.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 3, "{engine}");
        assert!(engine["created"].as_u64().is_some_and(|created| created > 1_700_000_000));
    }

    // What engines say of a model is asked of them now and then.
    let models = until("the engines' own cards", || async {
        let list = gateway.get("/v1/models").await.json();
        let cards = list["data"].as_array()?;
        let told = |id: &str| cards.iter().any(|card| card["id"] == id && card["max_model_len"].is_u64());
        ["facebook/opt-125m", "lora", "plain"].into_iter().all(told).then_some(list)
    })
    .await;
    assert_eq!(models["object"], "list");
    let card =
        models["data"].as_array().unwrap().iter().find(|card| card["id"] == "facebook/opt-125m").unwrap();
    assert_eq!(card["object"], "model");
    assert_eq!(card["owned_by"], "vllm");
    assert_eq!(card["max_model_len"], 2_048, "the engine's own fields stay");
    assert!(card["permission"].is_array() && card["created"].is_u64() && card["parent"].is_null());
    let adapter = models["data"].as_array().unwrap().iter().find(|card| card["id"] == "lora").unwrap();
    assert_eq!(adapter["parent"], "facebook/opt-125m", "an adapter names what it adapts");
    let ids: Vec<&str> =
        models["data"].as_array().unwrap().iter().filter_map(|card| card["id"].as_str()).collect();
    assert_eq!(ids.iter().filter(|id| **id == "facebook/opt-125m").count(), 1, "each once");

    assert_eq!(
        gateway.get("/version").await.text(),
        format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
    );
    let health = gateway.get("/health").await;
    assert_eq!((health.status.as_u16(), health.text().as_str()), (200, r#"{"status":"healthy"}"#));
    let metrics = gateway.get("/metrics").await;
    assert!(
        metrics.text().contains("vllm:num_incoming_requests_total"),
        "the metrics page of the data plane"
    );
    for page in ["/v1/models", "/engines", "/version", "/health"] {
        let answer = Connection::open(gateway.data).await.call(Method::HEAD, page, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{page}");
    }
}

/// B5: what engines report is counted, however an API tells it: a stream of messages in two events, reranking in a total.
#[tokio::test]
async fn tokens_are_counted_for_every_api() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let labels = format!("{{server=\"{}\",model=\"m\"}}", engine.url());
    let (input, output) =
        (format!("vllm:input_tokens_total{labels}"), format!("vllm:output_tokens_total{labels}"));
    let mut message =
        json!({"model": "m", "messages": [{"role": "user", "content": "hi there"}], "max_tokens": 4});
    let usage = gateway.post("/v1/messages", &message).await.json()["usage"].clone();
    let of = |name: &str| usage[name].as_f64().unwrap_or_default();
    let prompt = of("input_tokens") + of("cache_read_input_tokens") + of("cache_creation_input_tokens");
    assert!(prompt > 0.0, "{usage}");
    assert_eq!((gateway.metric(&input).await, gateway.metric(&output).await), (Some(prompt), Some(4.0)));
    message["stream"] = true.into();
    assert_eq!(gateway.post("/v1/messages", &message).await.status, 200);
    assert_eq!(
        (gateway.metric(&input).await, gateway.metric(&output).await),
        (Some(2.0 * prompt), Some(8.0))
    );
    let rerank = json!({"model": "m", "query": "q", "documents": ["one", "two", "three"]});
    let total = gateway.post("/v1/rerank", &rerank).await.json()["usage"]["total_tokens"].as_f64().unwrap();
    assert_eq!(gateway.metric(&input).await, Some(2.0 * prompt + total));
}

/// B8: pages, further paths and single models as manifests and clients write them.
#[tokio::test]
async fn a_gateway_lets_pages_ask_and_further_paths_through() {
    let engine = engine("org/m:1").await;
    let lines = "cors: {allowOrigins: ['https://a.example'], maxAge: 1m}\n\
                 paths: [{path: /v1/custom/}, {path: /plugins, type: Prefix, model: 'org/m:1'}, {path: /metrics}, {path: /v1/load_lora_adapter}]";
    let manifest = Manifest::new().gateway(lines).model("org/m:1", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let headers = [("origin", "https://a.example"), ("access-control-request-method", "POST")];
    let mut connection = Connection::open(gateway.data).await;
    let answer = connection.call(Method::OPTIONS, "/v1/chat/completions", &headers, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-max-age")), (204, Some("60")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    let body = chat("org/m:1", "hi").to_string();
    let answer = client::post(gateway.data, "//v1/chat/completions/", &headers[..1], body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.engine()), (200, engine.name()), "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));

    for (path, seen) in [("/v1/custom", "/v1/custom"), ("/plugins/a?b=c", "/plugins/a")] {
        let answer = client::post(gateway.data, path, &[], body.clone()).await;
        assert_eq!(answer.engine(), engine.name(), "{path}: {}", answer.text());
        let received = engine.last_request().unwrap();
        assert_eq!((received.path(), &received.body[..]), (seen, body.as_bytes()));
    }
    for path in ["/v1/load_lora_adapter", "/v1/custom/below", "/plugins/../sleep"] {
        assert_eq!(client::post(gateway.data, path, &[], body.clone()).await.status, 404, "{path}");
    }
    let findings = gateway.admin_page("/findings").await.text();
    for field in ["spec.paths[2].path", "spec.paths[3].path"] {
        assert!(findings.contains(field), "{field}: {findings}");
    }

    for id in ["org/m:1", "org%2Fm%3A1", "org/m:1/"] {
        let answer = gateway.get(&format!("/v1/models/{id}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &json!("org/m:1")), "{id}");
    }
    let answer = gateway.get("/v1/models/org/other").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &json!("model_not_found")));
}

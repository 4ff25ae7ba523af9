//! Which engine gets a request: rotation, sessions, pins, aliases, gateways by name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use engine::http::{Config, Engine};
use harness::client::{self, Connection};
use harness::fleet::{chat, engine, engines, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use http::Method;
use serde_json::{Value, json};

use crate::network;

/// D01
#[tokio::test]
async fn round_robin_takes_every_engine_in_turn_and_models_do_not_disturb_each_other() {
    let both = Config { models: vec!["a".into(), "b".into()], ..Config::default() };
    let engines = engines(3, &both).await;
    let manifest = Manifest::new()
        .gateway("routeStrategy: roundrobin")
        .model("a", urls(&engines))
        .model("b", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    for turn in 0..9 {
        for model in ["a", "b"] {
            let answer = gateway.post("/v1/chat/completions", &chat(model, "hi")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.engine(), engines[turn % 3].name(), "request {turn} of model {model}");
        }
    }
}

/// The vectors of D02: session, owner among three nodes, owner among the first two.
const OWNERS: [(&str, usize, usize); 7] = [
    ("abc123", 3, 1),
    ("session1", 2, 2),
    ("session2", 3, 1),
    ("session3", 3, 2),
    ("session4", 3, 1),
    ("session5", 3, 2),
    ("user-42", 3, 1),
];

/// D02
#[test]
fn sessions_have_the_owners_of_the_published_ring() {
    const NAME: &str = "routing::sessions_have_the_owners_of_the_published_ring";
    network::with_addresses(NAME, &["10.0.0.1", "10.0.0.2", "10.0.0.3"], sessions_and_owners);
}

async fn sessions_and_owners() {
    let mut engines = Vec::new();
    for node in 1..=3 {
        let listen = SocketAddr::from(([10, 0, 0, node], 8000));
        let config = Config { listen, name: Some(node.to_string()), ..Config::default() };
        engines.push(Engine::start(config).await.expect("an engine starts"));
    }
    let manifest = |nodes: &[usize]| {
        Manifest::new()
            .gateway("sessionAffinity: true\nsessionKey: {header: x-user-id, bodyField: x-user-id}")
            .model("m", nodes.iter().map(|node| format!("http://10.0.0.{node}:8000")))
            .yaml()
    };
    let gateway = Gateway::ready(Options::manifest(manifest(&[1, 2, 3]))).await;
    let by_header = async |session: &str| {
        let headers = [("x-user-id", session)];
        client::post(gateway.data, "/v1/chat/completions", &headers, chat("m", "hi").to_string()).await
    };
    let by_body = async |session: Value| {
        let mut body = chat("m", "hi");
        body["x-user-id"] = session;
        gateway.post("/v1/chat/completions", &body).await.engine().to_owned()
    };
    for (session, owner, _) in OWNERS {
        assert_eq!(by_header(session).await.engine(), owner.to_string(), "{session} by header");
        assert_eq!(by_body(session.into()).await, owner.to_string(), "{session} by body");
    }
    assert_eq!(by_header("").await.engine(), "1", "the empty name is a name");
    assert_eq!(by_body(42.into()).await, "1", "a number goes by its digits");

    let mut body = chat("m", "hi");
    body["x-user-id"] = "session1".into();
    let headers = [("X-User-Id", "abc123")];
    let answer = client::post(gateway.data, "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(answer.engine(), "3", "the header comes before the body");

    // Nobody's session goes to the least loaded: the other two are busy.
    for busy in &engines[..2] {
        busy.push_faults([engine::http::Fault::Hang]);
    }
    let hanging = ["", "session1"].map(|session| {
        let headers = [("x-user-id", session.to_owned())];
        let data = gateway.data;
        tokio::spawn(async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            client::post(data, "/v1/chat/completions", &headers, chat("m", "hi").to_string()).await
        })
    });
    for busy in &engines[..2] {
        busy.until(|counts| counts.in_flight == 1).await;
    }
    for _ in 0..4 {
        let answer = gateway.post("/v1/chat/completions", &chat("m", "hi")).await;
        assert_eq!(answer.engine(), "3", "no session goes to the least loaded");
    }
    for task in hanging {
        task.abort();
    }
    for busy in &engines[..2] {
        busy.idle().await;
    }

    gateway.write("manifests.yaml", &manifest(&[1, 2]));
    until("two engines", || async {
        (gateway.get("/engines").await.json().as_array()?.len() == 2).then_some(())
    })
    .await;
    for (session, _, owner) in OWNERS {
        assert_eq!(by_header(session).await.engine(), owner.to_string(), "{session} without node 3");
    }
    assert_eq!(by_header("").await.engine(), "1", "the empty name without node 3");
    assert_eq!(by_body(42.into()).await, "1", "a number without node 3");
}

/// `?id=` (2.1, 2.2): one engine, by the id that `/engines` gives it.
#[tokio::test]
async fn pinned_requests_reach_the_engine_that_they_name_and_no_other() {
    let engines = engines(3, &Config::default()).await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", urls(&engines)).yaml())).await;
    let list = gateway.get("/engines").await.json();
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|engine| engine["engine_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{list}");
    let mut reached = BTreeMap::<&str, String>::new();
    for id in ids.iter().cycle().take(9) {
        let answer = gateway.post(&format!("/v1/chat/completions?id={id}"), &chat("m", "hi")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let name = answer.engine().to_owned();
        assert_eq!(reached.entry(id).or_insert_with(|| name.clone()), &name, "always the same engine");
    }
    let mut names: Vec<&String> = reached.values().collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "three ids, three engines: {reached:?}");

    let nobody = "1e834a65-7d39-5ae5-954b-81f3e40b7b9e";
    for id in [nobody, "nonsense"] {
        let answer = gateway.post(&format!("/v1/chat/completions?id={id}"), &chat("m", "hi")).await;
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.text(),
            r#"{"error":"Model 'm' is temporarily unavailable. Please try again later."}"#
        );
    }
}

/// A pin does not reach beyond the model's own engines (2.2, rule 7).
#[tokio::test]
async fn pinning_to_another_models_engine_reaches_nobody() {
    let (a, b) = (engine("a").await, engine("b").await);
    let manifest = Manifest::new().model("a", [a.url()]).model("b", [b.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let list = gateway.get("/engines").await.json();
    let of_b = list.as_array().unwrap().iter().find(|engine| engine["serving_models"] == json!(["b"]));
    let id = of_b.expect("the engine of b")["engine_id"].as_str().unwrap();
    let answer = gateway.post(&format!("/v1/chat/completions?id={id}"), &chat("a", "hi")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!((a.counts().received, b.counts().received), (0, 0));
}

/// D20
#[tokio::test]
async fn aliases_reach_the_engine_under_the_real_name_and_every_other_byte_stays() {
    let engine = engine("org/real-model").await;
    let manifest = Manifest::new()
        .gateway("aliases: {gpt-4: org/real-model, \"größe \\\"x\\\"\": org/real-model}")
        .model("org/real-model", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let bodies = [
        // Spaces, key order, 64-bit numbers, escapes, a `model` further down: nothing of it may change.
        (
            r#" { "seed":18446744073709551615, "model" :  "gpt-4" ,"x":{"model":"gpt-4"},"messages":[{"role":"user","content":"\u00e9\/ \"gpt-4\""}],"temperature":1.0e0 }"#,
            r#" { "seed":18446744073709551615, "model" :  "org/real-model" ,"x":{"model":"gpt-4"},"messages":[{"role":"user","content":"\u00e9\/ \"gpt-4\""}],"temperature":1.0e0 }"#,
        ),
        // A client may escape the name, as it may any text.
        (r#"{"model":"gr\u00f6\u00dfe \"x\"","prompt":"p"}"#, r#"{"model":"org/real-model","prompt":"p"}"#),
        (r#"{"model":"\u0067pt-4","prompt":"p"}"#, r#"{"model":"org/real-model","prompt":"p"}"#),
        // The real name needs no change at all, also where it is escaped.
        (r#"{"prompt":"p",  "model":"org\/real-model"}"#, r#"{"prompt":"p",  "model":"org\/real-model"}"#),
    ];
    for (sent, expected) in bodies {
        let answer = client::post(gateway.data, "/v1/completions", &[], sent).await;
        let received = engine.last_request().expect("a request");
        assert_eq!(String::from_utf8_lossy(&received.body), expected);
        assert!(answer.status == 200 || received.json()["prompt"].is_null(), "{}", answer.text());
    }
    let answer = gateway.post("/v1/completions", &json!({"model": "gpt-5", "prompt": "p"})).await;
    assert_eq!(answer.status, 404, "an alias that nobody gave");
}

/// A route whose model is not the service's own name rewrites like an alias.
#[tokio::test]
async fn route_with_a_name_of_its_own_writes_the_engines_name() {
    let engine = engine("engine-name").await;
    let text = Manifest::new().model("engine-name", [engine.url()]).yaml();
    let text = text.replacen("{model: \"engine-name\"", "{model: \"public-name\"", 1);
    let gateway = Gateway::ready(Options::manifest(text)).await;
    let answer =
        client::post(gateway.data, "/v1/completions", &[], r#"{"prompt":"p","model":"public-name"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(&engine.last_request().unwrap().body[..], br#"{"prompt":"p","model":"engine-name"}"#);
}

/// Two gateways that route the same model to different engines.
fn two_gateways(one: &str, two: &str) -> String {
    let gateway = |name: &str, host: &str, created: &str, models: &[(&str, &str)]| {
        let routes: String = models
            .iter()
            .map(|(model, service)| format!("    - {{model: {model}, inferenceServiceRef: {service}}}\n"))
            .collect();
        format!(
            "---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\n\
             metadata: {{name: {name}, namespace: ml, creationTimestamp: \"{created}\"}}\n\
             spec:\n  hostnames: [{host}]\n  routes:\n{routes}"
        )
    };
    let service = |name: &str, url: &str| {
        format!(
            "---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\n\
             metadata: {{name: {name}, namespace: ml}}\n\
             spec: {{modelName: m, backendRef: {{kind: Static, urls: [\"{url}\"]}}}}\n"
        )
    };
    gateway("younger", "young.example", "2026-02-01T00:00:00Z", &[("m", "two"), ("only-young", "two")])
        + &gateway("older", "old.example", "2026-01-01T00:00:00Z", &[("m", "one")])
        + &service("one", one)
        + &service("two", two)
}

/// Which gateway answers (resources.md): path prefix, then host, then the oldest that routes the model.
#[tokio::test]
async fn gateways_are_found_by_path_then_by_host_then_by_age() {
    let (one, two) = (engine("m").await, engine("m").await);
    let gateway = Gateway::ready(Options::manifest(two_gateways(&one.url(), &two.url()))).await;
    let cases = [
        ("/v1/chat/completions", "127.0.0.1", "m", one.name()),
        ("/v1/chat/completions", "young.example", "m", two.name()),
        ("/v1/chat/completions", "YOUNG.example:8001", "m", two.name()),
        ("/v1/chat/completions", "old.example", "m", one.name()),
        ("/v1/chat/completions", "younger", "m", two.name()),
        ("/v1/chat/completions", "younger.ml", "m", two.name()),
        ("/v1/chat/completions", "younger.ml.svc", "m", two.name()),
        ("/v1/chat/completions", "younger.ml.svc.cluster.local", "m", two.name()),
        ("/v1/chat/completions", "elsewhere.example", "m", one.name()),
        ("/v1/chat/completions", "elsewhere.example", "only-young", two.name()),
        ("/gateways/ml/younger/v1/chat/completions", "old.example", "m", two.name()),
        ("/gateways/ml/older/v1/chat/completions", "young.example", "m", one.name()),
    ];
    for (path, host, model, expected) in cases {
        let answer = client::post(gateway.data, path, &[("host", host)], chat(model, "hi").to_string()).await;
        assert_eq!(answer.status, 200, "{path} at {host} for {model}: {}", answer.text());
        assert_eq!(answer.engine(), expected, "{path} at {host} for {model}");
    }
    assert_eq!(two.last_request().unwrap().path(), "/v1/chat/completions", "the prefix ends at the gateway");

    let not_routed =
        r#"{"error":"Model 'only-young' not found. Available models can be listed at /v1/models."}"#;
    let answer = client::post(
        gateway.data,
        "/v1/chat/completions",
        &[("host", "old.example")],
        chat("only-young", "hi").to_string(),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (404, not_routed));
    let answer = gateway.post("/gateways/ml/nobody/v1/chat/completions", &chat("m", "hi")).await;
    assert_eq!(answer.status, 404, "{}", answer.text());

    let models = async |path: &str, host: &str| -> Vec<String> {
        let mut connection = Connection::open(gateway.data).await;
        let answer = connection.call(Method::GET, path, &[("host", host)], "").await;
        let list = answer.json();
        list["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(models("/v1/models", "old.example").await, ["m"]);
    assert_eq!(models("/v1/models", "young.example").await, ["m", "only-young"]);
    assert_eq!(models("/gateways/ml/older/v1/models", "young.example").await, ["m"]);
    assert_eq!(models("/v1/models", "127.0.0.1").await, ["m", "only-young"]);
}

/// Weights of static URLs reach the policies as capacity.
#[tokio::test]
async fn weighted_engines_get_their_share() {
    let engines = engines(2, &Config::default()).await;
    engines.iter().for_each(|engine| engine.set_fault(Some(engine::http::Fault::Hang)));
    let urls = [format!("{{url: \"{}\", weight: 3}}", engines[0].url()), format!("\"{}\"", engines[1].url())];
    let text = Manifest::new().gateway("routeStrategy: least-loaded").model("m", [""; 0]).yaml();
    let text = text.replace("urls: []", &format!("urls: [{}]", urls.join(", ")));
    let gateway = Gateway::ready(Options::manifest(text)).await;
    let mut waiting = Vec::new();
    for sent in 1..=8 {
        let data = gateway.data;
        waiting.push(tokio::spawn(async move {
            client::post(data, "/v1/chat/completions", &[], chat("m", "hi").to_string()).await
        }));
        let in_flight = || async {
            let counts = [engines[0].counts(), engines[1].counts()];
            (counts[0].in_flight + counts[1].in_flight == sent).then_some(())
        };
        until("a request at an engine", in_flight).await;
    }
    let share = [engines[0].counts().in_flight, engines[1].counts().in_flight];
    assert_eq!(share, [6, 2], "three to one");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

//! What is answered when a request cannot be served: bodies, statuses, counters.

use std::fmt::Write as _;
use std::time::Duration;

use engine::http::{Config, Fault};
use harness::client::{self, Answer};
use harness::fleet::{chat, engine, engines, soon, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::raw::Raw;
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

fn check(answer: &Answer, status: u16, body: &str) {
    assert_eq!(answer.text(), body);
    assert_eq!(answer.status, status, "{body}");
    assert!(answer.header("x-request-id").is_some(), "{body}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{body}");
}

fn incoming(model: &str) -> String {
    format!("vllm:num_incoming_requests_total{{model=\"{model}\"}}")
}

/// D08
#[tokio::test]
async fn unknown_model_is_404_and_a_model_without_engines_503_and_both_are_counted() {
    let engine = engine("served").await;
    // A deployment that was scaled to zero: the service is there, its endpoints are not.
    let manifest = Manifest::new().model("served", [engine.url()]).document(
        "apiVersion: v1\nkind: Service\nmetadata: {name: sleepers}\nspec: {ports: [{name: http, port: 8000}]}",
    );
    let text = manifest.yaml()
        + "---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {name: zero}\n\
           spec: {modelName: scaled-to-zero, backendRef: sleepers}\n";
    let text = text.replacen(
        "  routes:\n",
        "  routes:\n    - {model: scaled-to-zero, inferenceServiceRef: zero}\n",
        1,
    );
    let gateway = Gateway::ready(Options::manifest(text)).await;

    assert_eq!(
        gateway.metric(&incoming("scaled-to-zero")).await,
        Some(0.0),
        "there before the first request"
    );
    for sent in 1..=3 {
        check(
            &gateway.post(CHAT, &chat("scaled-to-zero", "hi")).await,
            503,
            r#"{"error":"Model 'scaled-to-zero' is temporarily unavailable. Please try again later."}"#,
        );
        assert_eq!(gateway.metric(&incoming("scaled-to-zero")).await, Some(f64::from(sent)));
    }
    for sent in 1..=2 {
        check(
            &gateway.post(CHAT, &chat("nobody's", "hi")).await,
            404,
            r#"{"error":"Model 'nobody's' not found. Available models can be listed at /v1/models."}"#,
        );
        assert_eq!(gateway.metric(&incoming("other")).await, Some(f64::from(sent)));
    }
    assert_eq!(gateway.metric(&incoming("nobody's")).await, None, "labels are bounded");
    gateway.post(CHAT, &chat("served", "hi")).await;
    assert_eq!(gateway.metric(&incoming("served")).await, Some(1.0));
}

/// D08
#[tokio::test]
async fn model_whose_engines_all_sleep_is_503_until_one_wakes() {
    let engines = engines(2, &Config::default()).await;
    let manifest = Manifest::new().model("m", urls(&engines)).yaml();
    let gateway = Gateway::ready(Options::manifest(manifest).args(["--engine-control"])).await;
    let list = gateway.get("/engines").await.json();
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|one| one["engine_id"].as_str().unwrap()).collect();

    let control = async |what: &str, id: &str| {
        let answer = client::post(gateway.data, &format!("/{what}?id={id}&level=1"), &[], "").await;
        check(&answer, 200, r#"{"status":"success"}"#);
    };
    control("sleep", ids[0]).await;
    let asleep = engines.iter().find(|engine| engine.is_sleeping()).expect("one sleeps");
    let awake = engines.iter().find(|engine| !engine.is_sleeping()).expect("one does not");
    let slept =
        asleep.probes().iter().find(|probe| probe.path() == "/sleep").expect("told to").target.clone();
    assert_eq!(slept, "/sleep?level=1", "the id is ours, the rest is the engine's");
    for _ in 0..4 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.engine(), awake.name());
    }

    control("sleep", ids[1]).await;
    check(
        &gateway.post(CHAT, &chat("m", "hi")).await,
        503,
        r#"{"error":"Model 'm' is temporarily unavailable. Please try again later."}"#,
    );
    assert_eq!(gateway.metric(&incoming("m")).await, Some(5.0));
    let answer = gateway.get(&format!("/is_sleeping?id={}", ids[0])).await;
    check(&answer, 200, r#"{"is_sleeping":true}"#);

    control("wake_up", ids[0]).await;
    for _ in 0..2 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.engine(), asleep.name());
    }
    check(
        &client::post(gateway.data, "/sleep", &[], "").await,
        400,
        r#"{"error":"Invalid request: missing target Engine Id."}"#,
    );
    check(
        &client::post(gateway.data, "/sleep?id=X", &[], "").await,
        400,
        r#"{"error":"Engine with Id X not found."}"#,
    );
}

/// Engines are put to sleep by nobody unless the operator allowed it.
#[tokio::test]
async fn engine_control_is_off_by_default() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let list = gateway.get("/engines").await.json();
    let id = list[0]["engine_id"].as_str().unwrap();
    let answer = client::post(gateway.data, &format!("/sleep?id={id}"), &[], "").await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(!engine.is_sleeping());
}

/// C14: engine control follows the gateway that path or host names, and reaches no engine of another namespace.
#[tokio::test]
async fn engine_control_reaches_only_engines_of_the_gateway_that_is_named() {
    let (ours, theirs) = (engine("m").await, engine("m").await);
    let tenant = |namespace: &str, url: String| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\n\
             metadata: {{name: llm, namespace: {namespace}}}\n\
             spec: {{hostnames: [{namespace}.example.com], routes: [{{model: m, inferenceServiceRef: m}}]}}\n---\n\
             apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\n\
             metadata: {{name: m, namespace: {namespace}}}\n\
             spec: {{modelName: m, backendRef: {{kind: Static, urls: [{url:?}]}}}}\n"
        )
    };
    let manifest = tenant("a", ours.url()) + "---\n" + &tenant("b", theirs.url());
    let gateway = Gateway::ready(Options::manifest(manifest).args(["--engine-control"])).await;
    let listed = |list: Answer| list.json().as_array().map(|all| all.len());
    let list = gateway.get("/gateways/b/llm/engines").await;
    let id = list.json()[0]["engine_id"].as_str().expect("an id").to_owned();
    assert_eq!(listed(list), Some(1));

    let attempts = [
        ("/gateways/a/llm", None, 400),
        ("", Some("a.example.com"), 400),
        ("", Some("llm.a.svc:8001"), 400),
        ("", None, 403),
        ("/gateways/c/llm", None, 404),
    ];
    for (prefix, host, status) in attempts {
        let headers = Vec::from_iter(host.map(|host| ("host", host)));
        for (method, path) in [("POST", "sleep"), ("POST", "wake_up"), ("GET", "is_sleeping")] {
            let path = format!("{prefix}/{path}?id={id}");
            let mut connection = client::Connection::open(gateway.data).await;
            let answer = connection.call(method.parse().unwrap(), &path, &headers, "").await;
            assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        }
    }
    assert!(!theirs.is_sleeping());
    assert_eq!(gateway.get("/engines").await.status, 403, "nor are they shown");
    assert_eq!(gateway.get("/gateways/c/llm/engines").await.status, 404);

    let answer =
        client::post(gateway.data, &format!("/sleep?id={id}"), &[("host", "b.example.com")], "").await;
    assert_eq!((answer.status.as_u16(), theirs.is_sleeping(), ours.is_sleeping()), (200, true, false));
}

/// D09
#[tokio::test]
async fn malformed_bodies_get_their_400_and_harm_nobody() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    const NOT_JSON: &str = r#"{"error":"Invalid request: request body must be valid JSON."}"#;
    const NOT_OBJECT: &str = r#"{"error":"Invalid request: request body must be a JSON object."}"#;
    const NO_MODEL: &str = r#"{"error":"Invalid request: missing 'model' in request body."}"#;
    let deep = |open: &str, close: &str| {
        format!(r#"{{"model":"m","x":{}1{}}}"#, open.repeat(10_000), close.repeat(10_000))
    };
    let (arrays, objects) = (deep("[", "]"), deep(r#"{"a":"#, "}"));
    let unclosed = "[".repeat(100_000);
    let cases: [(&[u8], &str); 21] = [
        (b"", NOT_JSON),
        (b" ", NOT_JSON),
        (b"{", NOT_JSON),
        (b"not json", NOT_JSON),
        (br#"{"model":"m""#, NOT_JSON),
        (br#"{"model":"m"}}"#, NOT_JSON),
        (br#"{"model":"m",}"#, NOT_JSON),
        (br#"{"model":"m","x":01}"#, NOT_JSON),
        (br#"{"model":"m","x":NaN}"#, NOT_JSON),
        (br#"{"model":"m","x":'y'}"#, NOT_JSON),
        (b"{\"model\":\"m\",\"x\":\"\xff\xfe\"}", NOT_JSON),
        (b"{\"model\":\"m\",\"x\":\"a\nb\"}", NOT_JSON),
        (arrays.as_bytes(), NOT_JSON),
        (objects.as_bytes(), NOT_JSON),
        (unclosed.as_bytes(), NOT_JSON),
        (br#"[{"model":"m"}]"#, NOT_OBJECT),
        (br#""m""#, NOT_OBJECT),
        (b"null", NOT_OBJECT),
        (b"{}", NO_MODEL),
        (br#"{"model":null,"messages":[]}"#, NO_MODEL),
        (br#"{"messages":[{"model":"m"}]}"#, NO_MODEL),
    ];
    for (body, expected) in cases {
        // A length must be given also where it is zero: the client leaves it out.
        let headers = [("content-type", "application/json")];
        let answer = client::post(gateway.data, CHAT, &headers, body.to_vec()).await;
        check(&answer, 400, expected);
    }
    assert_eq!(engine.counts().received, 0, "no engine saw any of them");
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
}

/// Paths and methods that are nobody's.
#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    check(&gateway.get("/v1/nothing").await, 404, r#"{"detail":"Not Found"}"#);
    let answer = gateway.get(CHAT).await;
    check(&answer, 405, r#"{"detail":"Method Not Allowed"}"#);
    assert_eq!(answer.header("allow"), Some("POST"));
}

/// `errorFormat: OpenAI` (resources.md).
#[tokio::test]
async fn errors_have_openais_shape_where_the_gateway_asks_for_it() {
    let engine = engine("m").await;
    let manifest = Manifest::new()
        .gateway("errorFormat: OpenAI\nhostnames: [gw.example]\nlimits: {maxBodyBytes: 2048}")
        .model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let ask = async |body: String| client::post(gateway.data, CHAT, &[("host", "gw.example")], body).await;
    let error = ask(chat("x", "hi").to_string()).await;
    assert_eq!(error.status, 404);
    assert_eq!(
        error.json(),
        json!({"error": {"message": "Model 'x' not found. Available models can be listed at /v1/models.",
            "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})
    );
    // Also where the request fails before its model says whose it is.
    let large = chat("m", &"x".repeat(2_048)).to_string();
    for (body, status) in [("{".to_owned(), 400), ("{}".to_owned(), 400), (large, 413)] {
        let error = ask(body).await;
        assert_eq!(error.status, status, "{}", error.text());
        assert_eq!(error.json()["error"]["type"], "invalid_request_error", "{}", error.text());
    }
}

/// Limits on bodies: 413, whether the length is announced or not.
#[tokio::test]
async fn bodies_above_the_limit_are_413_however_they_come() {
    let engine = engine("m").await;
    let manifest = Manifest::new().gateway("limits: {maxBodyBytes: 2048}").model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml()).args(["--workers", "4"])).await;
    const TOO_LARGE: &str = r#"{"error":"Invalid request: request body is larger than 2048 bytes."}"#;
    let body = |bytes: usize| {
        let empty = chat("m", "").to_string().len();
        chat("m", &"x".repeat(bytes - empty)).to_string()
    };
    assert_eq!(
        client::post(gateway.data, CHAT, &[], body(2_048)).await.status,
        200,
        "the limit itself is allowed"
    );
    check(&client::post(gateway.data, CHAT, &[], body(2_049)).await, 413, TOO_LARGE);

    // The announcement is enough: nothing of the body has to come. On whatever worker the connection is.
    for _ in 0..16 {
        let mut raw = Raw::open(gateway.data).await;
        raw.send(format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n")).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status(), answer.text().as_str()), (413, TOO_LARGE));
    }

    // Without one, it ends where the limit is.
    let mut raw = Raw::open(gateway.data).await;
    let mut chunks = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        write!(chunks, "400\r\n{}\r\n", "x".repeat(0x400)).unwrap();
    }
    raw.send(chunks).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status(), answer.text().as_str()), (413, TOO_LARGE));
    assert_eq!(engine.counts().received, 1);
}

/// Compressed request bodies: 415.
#[tokio::test]
async fn compressed_request_bodies_are_415() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    for coding in ["gzip", "br", "identity, gzip"] {
        let answer =
            client::post(gateway.data, CHAT, &[("content-encoding", coding)], chat("m", "hi").to_string())
                .await;
        assert_eq!(answer.status, 415, "{coding}: {}", answer.text());
    }
    let answer =
        client::post(gateway.data, CHAT, &[("content-encoding", "identity")], chat("m", "hi").to_string())
            .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(engine.counts().received, 1);
}

/// Admission: permits, a queue, 429 with `Retry-After`.
#[tokio::test]
async fn requests_beyond_permits_and_queue_are_429_and_the_queue_moves_up() {
    let engine = engine("m").await;
    engine.push_faults([Fault::Hang]);
    let manifest = Manifest::new()
        .gateway("limits: {maxInFlight: 1, queueDepth: 2, queueTimeout: 10m}")
        .model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let data = gateway.data;
    let send =
        || tokio::spawn(async move { client::post(data, CHAT, &[], chat("m", "hi").to_string()).await });
    let first = send();
    engine.until(|counts| counts.in_flight == 1).await;
    let queued = [send(), send()];
    gateway.metric_until("wicketgate_gateway_requests_queued", |waiting| waiting == 2.0).await;

    let answer = soon("an answer at once", send()).await.unwrap();
    check(&answer, 429, r#"{"error":"The gateway is at its limit of requests. Please try again later."}"#);
    let after: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!((1..=5).contains(&after), "{after}");
    assert_eq!(engine.counts().received, 1, "whoever waits has not been sent");

    // The first client leaves; those who wait are served one after the other.
    first.abort();
    for waiting in queued {
        let answer = soon("the queue to move", waiting).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(engine.counts().in_flight_max, 1, "never more than one at a time");
    gateway.metric_until("wicketgate_gateway_requests_in_flight", |held| held == 0.0).await;
}

/// Admission: whoever waits too long is turned away, too.
#[tokio::test]
async fn waiting_for_a_permit_ends_with_the_queue_timeout() {
    let engine = engine("m").await;
    engine.push_faults([Fault::Hang]);
    let manifest = Manifest::new()
        .gateway("limits: {maxInFlight: 1, queueDepth: 8, queueTimeout: 200ms}")
        .model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let data = gateway.data;
    let hanging =
        tokio::spawn(async move { client::post(data, CHAT, &[], chat("m", "hi").to_string()).await });
    engine.until(|counts| counts.in_flight == 1).await;
    let start = std::time::Instant::now();
    let answer = gateway.post(CHAT, &chat("m", "hi")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("1")));
    assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    hanging.abort();
}

/// Guards fail closed: what is meant to stop requests and cannot be enforced stops all of them.
#[tokio::test]
async fn guards_that_cannot_be_enforced_answer_503_and_say_which() {
    let engine = engine("m").await;
    let cases = [
        ("nlpFilters: {promptGuard: {blockedPatterns: [SSN]}}", Some("promptGuard")),
        ("nlpFilters: [{type: tokenLimit, parameters: {max: \"10\"}}]", Some("tokenLimit")),
        ("nlpFilters: [{type: contentFilter, parameters: {}}]", Some("contentFilter")),
        ("nlpFilters: {semanticCache: {storeRef: r, threshold: 0.85, ttlSeconds: 60}}", None),
    ];
    let models: Vec<String> = (0..cases.len()).map(|index| format!("m{index}")).collect();
    let engine_of_all =
        engine::http::Engine::start(Config { models: models.clone(), ..Config::default() }).await.unwrap();
    let manifest = cases
        .iter()
        .zip(&models)
        .fold(Manifest::new().model("m", [engine.url()]), |manifest, ((lines, _), model)| {
            manifest.model_with(model, [engine_of_all.url()], lines)
        });
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let findings = gateway.admin_page("/findings").await.text();
    for ((_, guard), model) in cases.iter().zip(&models) {
        let answer = gateway.post(CHAT, &chat(model, "123-45-6789")).await;
        match guard {
            Some(guard) => {
                assert_eq!(answer.status, 503, "{guard}: {}", answer.text());
                assert!(answer.text().contains(guard), "{}", answer.text());
                assert!(findings.contains(guard), "{findings}");
            }
            None => {
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(findings.contains("semanticCache"), "what is left out is said: {findings}");
            }
        }
    }
    assert_eq!(engine_of_all.counts().received, 1, "no guarded prompt reached the engine");
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200, "other services go on");
}

//! One sick engine among well ones: it costs the requests that found it out, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use engine::http::{Accept, Config, Engine, EngineHandle, Fault};
use futures::future::join_all;
use harness::client::{self, Connection};
use harness::fleet::{chat, chat_stream, engines, soon, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;

const CHAT: &str = "/v1/chat/completions";

/// What a sick engine does, one model each. A well engine takes [`WORK`] for the same request.
fn sicknesses() -> Vec<(&'static str, Fault)> {
    vec![
        ("s500", Fault::status(500)),
        ("s502", Fault::status(502)),
        ("s503", Fault::status(503)),
        ("s504", Fault::status(504)),
        ("s429", Fault::status(429)),
        ("s401", Fault::status(401)),
        ("s403", Fault::status(403)),
        ("s404", Fault::status(404)),
        ("head", Fault::Cut(0)),
        ("event", Fault::Cut(150)),
        ("close", Fault::Close),
        ("reset", Fault::Reset),
        ("garbage", Fault::Garbage),
    ]
}

const WORK: Duration = Duration::from_millis(40);
const CLIENTS: usize = 4;
/// Requests of one client, one after the other.
const TURNS: usize = 12;

/// Whether a request was answered whole and well.
async fn is_answered(gateway: &Gateway, headers: &[(&str, &str)], body: &Value) -> bool {
    let mut connection = Connection::open(gateway.data).await;
    let request = client::request(gateway.data, Method::POST, CHAT, headers, body.to_string());
    let answer = async {
        let response = connection.send(request).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok().filter(|_| status == 200)
    };
    soon("an answer", answer).await.is_some()
}

/// One engine for each model of [`sicknesses`] that does what the model says.
async fn sick_engines() -> Vec<EngineHandle> {
    let mut sick = Vec::new();
    for (model, fault) in sicknesses() {
        let engine = Engine::start(Config::model(model)).await.unwrap();
        engine.set_fault(Some(fault));
        sick.push(engine);
    }
    sick
}

/// Each sick engine beside a well one that serves every model.
fn beside(well: &EngineHandle, sick: &[EngineHandle], gateway: &str) -> Manifest {
    let models = sicknesses().into_iter().zip(sick);
    models.fold(Manifest::new().gateway(gateway), |manifest, ((model, _), sick)| {
        manifest.model(model, [well.url(), sick.url()])
    })
}

/// A1: clients in a closed loop, each policy, each sickness. An engine that fails at once has nothing in flight, which must not
/// make it the one with the most room.
#[tokio::test]
async fn an_engine_that_fails_at_once_attracts_no_traffic() {
    let models = sicknesses().into_iter().map(|(model, _)| model.to_owned()).collect();
    let well =
        Engine::start(Config { models, ..Config::default() }.paced(WORK, Duration::ZERO)).await.unwrap();
    let sick = sick_engines().await;
    let strategies = ["prefix-hash", "least-in-flight", "load-aware", "gpu-load-aware", "round-robin"];
    for strategy in strategies {
        let manifest = beside(&well, &sick, &format!("routeStrategy: {strategy}\nsessionAffinity: true"));
        let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
        let loops = async |(model, fault): (&'static str, Fault)| {
            let failed = AtomicU32::new(0);
            let client = async |number: usize| {
                for turn in 0..TURNS {
                    let session = [("x-session-id", &*format!("{model} {number}"))];
                    let body = chat_stream(model, &format!("client {number} says {turn}"));
                    if !is_answered(&gateway, &session, &body).await {
                        failed.fetch_add(1, Relaxed);
                    }
                }
            };
            join_all((0..CLIENTS).map(client)).await;
            // Those that were sent before the first had failed.
            let failed = failed.into_inner();
            assert!(failed <= CLIENTS as u32, "{strategy}, {fault:?}: {failed} of {}", CLIENTS * TURNS);
        };
        join_all(sicknesses().into_iter().map(loops)).await;
    }
}

/// A1: at a few requests a second each visit is a probe, and repaired.
#[tokio::test]
async fn a_sick_engine_costs_hardly_a_request_where_requests_are_few() {
    let models: Vec<String> = sicknesses().into_iter().map(|(model, _)| model.to_owned()).collect();
    let well = engines(3, &Config { models, ..Config::default() }).await;
    let sick = sick_engines().await;
    let manifest = sicknesses().into_iter().zip(&sick).fold(
        Manifest::new().gateway("routeStrategy: round-robin"),
        |manifest, ((model, _), sick)| {
            manifest.model(model, well.iter().map(EngineHandle::url).chain([sick.url()]))
        },
    );
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let client = async |(model, fault): (&'static str, Fault)| {
        let mut failed = 0;
        for _ in 0..12 {
            failed += u32::from(!is_answered(&gateway, &[], &chat_stream(model, "hi")).await);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        assert!(failed <= 1, "{fault:?}: {failed} of 12");
    };
    join_all(sicknesses().into_iter().map(client)).await;
}

/// A1: a fleet that is sick as a whole is still tried, and its answers pass.
#[tokio::test]
async fn engines_that_are_all_sick_are_all_tried() {
    let engines = engines(3, &Config::default()).await;
    engines.iter().for_each(|engine| engine.set_fault(Some(Fault::status(500))));
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    for _ in 0..30 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 500);
    }
    assert!(engines.iter().all(|engine| engine.counts().received >= 5), "each gets its share");
    engines.iter().for_each(|engine| engine.set_fault(None));
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200, "well again at once");
}

/// A1: what only the client is to blame for counts against no engine.
#[tokio::test]
async fn a_client_that_asks_for_what_no_engine_has_makes_none_suspect() {
    let engines = engines(3, &Config::default()).await;
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    for turn in 0..40 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200, "{turn}");
        for status in [400, 401, 404, 422] {
            let fault = [("x-engine-fault", &*format!("status={status}"))];
            let answer = client::post(gateway.data, CHAT, &fault, chat("m", "hi").to_string()).await;
            assert_eq!(answer.status, status, "{turn}");
        }
    }
    assert_eq!(gateway.metric_sum("wicketgate_endpoint_excluded").await, 0.0);
}

/// A1: conversations leave the engine that failed them, with a session and without.
#[tokio::test]
async fn no_conversation_fails_all_its_tries() {
    let engines = engines(3, &Config::default().paced(WORK, Duration::ZERO)).await;
    let manifest = Manifest::new()
        .gateway("routeStrategy: prefix-hash\nsessionAffinity: true")
        .model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let text = |number: usize| format!("conversation {number}: {}", "a long history ".repeat(100));
    let conversation = async |number: usize| {
        let session = format!("session {number}");
        let headers = [("x-session-id", &*session)];
        let headers = if number.is_multiple_of(2) { &headers[..] } else { &[] };
        is_answered(&gateway, headers, &chat_stream("m", &text(number))).await
    };
    assert!(join_all((0..20).map(conversation)).await.into_iter().all(|answered| answered));
    engines[1].set_fault(Some(Fault::status(500)));
    let failed = Arc::new(AtomicU32::new(0));
    for _ in 0..8 {
        for number in 0..20 {
            failed.fetch_add(u32::from(!conversation(number).await), Relaxed);
        }
    }
    assert!(failed.load(Relaxed) <= 2, "{failed:?} of 160");
}

/// A2: connections that are refused cost an engine nothing, whatever `attempts` says.
#[tokio::test]
async fn pods_that_never_listen_fail_no_request_of_a_fresh_replica() {
    for attempts in [0, 1] {
        let engines = engines(16, &Config::default()).await;
        for engine in &engines[..15] {
            engine.set_accept(Accept::Refuse).await;
        }
        let manifest = Manifest::new()
            .gateway(&format!("routeStrategy: round-robin\nretries: {{attempts: {attempts}}}"))
            .model("m", urls(&engines));
        let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
        for sent in 0..100 {
            let answer = gateway.post(CHAT, &chat("m", "hi")).await;
            assert_eq!(answer.status, 200, "request {sent}: {}", answer.text());
        }
    }
}

/// N2: what became of a decision is said as well: every attempt, how it ended and what it cost.
#[tokio::test]
async fn explain_tells_every_attempt_of_a_request_that_failed_over() {
    let engines = engines(2, &Config::default()).await;
    let manifest = Manifest::new().gateway("routeStrategy: least-in-flight").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    engines[0].push_faults([Fault::Close]);
    engines[1].push_faults([Fault::Close]);
    let mut told = Vec::new();
    for _ in 0..4 {
        let answer = gateway.post(CHAT, &chat("m", "hi")).await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        let page = gateway.admin_page(&format!("/explain/{id}")).await.json();
        let decision = &page["decisions"][0];
        assert!(!decision["numbers"].as_array().unwrap().is_empty(), "{decision}");
        assert!(decision["numbers"][0]["signals"]["inflight"].is_number(), "{decision}");
        assert_eq!(decision["entries"][0]["signals"][0], "inflight", "{decision}");
        let attempts = decision["attempts"].as_array().unwrap().clone();
        assert!(attempts.iter().all(|attempt| attempt["took_ms"].is_number()), "{decision}");
        let last = attempts.last().unwrap();
        if answer.status == 200 {
            assert_eq!((&last["result"], &last["status"]), (&"answered".into(), &200.into()), "{decision}");
            let answered = engines.iter().find(|engine| engine.name() == answer.engine()).unwrap();
            assert_eq!(last["endpoint"], answered.url(), "{decision}");
        }
        told.push(attempts);
    }
    let failed = told.iter().flatten().filter(|attempt| attempt["result"] == "lost_before_head");
    assert_eq!(failed.count(), 2, "{told:?}");
    assert!(told.iter().flatten().any(|attempt| attempt["why"] == "retry"), "{told:?}");
}

/// N3: a dead engine shows in the log, in `/snapshot`, in the metrics and among the findings, with the cause.
#[tokio::test]
async fn a_dead_engine_is_seen_everywhere_an_operator_looks() {
    let engines = engines(2, &Config::default()).await;
    engines[0].set_accept(Accept::Refuse).await;
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let endpoint = async |index: usize| {
        let page = gateway.admin_page("/snapshot").await.json();
        page["gateways"][0]["routes"][0]["endpoints"][index].clone()
    };
    let found = async || {
        let page = gateway.admin_page("/findings").await.json();
        let findings = page["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["reason"] == "EngineNeverAnswered")
    };
    let finding = until("the finding", &found).await;
    assert!(finding["message"].as_str().unwrap().contains(&engines[0].url()), "{finding}");
    let dead = until("the observer's word", || async {
        Some(endpoint(0).await).filter(|dead| dead["state"] == "out")
    })
    .await;
    assert_eq!((&dead["avoided"]["reason"], &dead["has_answered"]), (&"unreachable".into(), &false.into()));
    let healthy = format!("vllm:healthy_pods_total{{server=\"{}\"}}", engines[0].url());
    assert_eq!(gateway.metric(&healthy).await, Some(0.0), "before any request");
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.engine(), engines[1].name());

    engines[1].set_fault(Some(Fault::status(500)));
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 500);
    let line = gateway.logged(|line| line["cause"] == "error" && line["level"] == "WARN").await;
    assert_eq!((&line["endpoint"], &line["status"]), (&engines[1].url().into(), &500.into()), "{line}");
    let sick = endpoint(1).await;
    assert_eq!((&sick["avoided"]["reason"], &sick["avoided"]["status"]), (&"error".into(), &500.into()));
    assert_eq!((&sick["last_error"]["status"], &sick["has_answered"]), (&500.into(), &true.into()), "{sick}");
    assert_eq!(sick["models"], serde_json::json!(["m"]), "{sick}");
    assert!(sick["numbers_age_ms"].is_number(), "{sick}");

    engines[1].set_fault(None);
    gateway.post(CHAT, &chat("m", "hi")).await;
    gateway.logged(|line| line["endpoint"] == engines[1].url() && line["after_s"].is_number()).await;
    assert_eq!(endpoint(1).await["state"], "in");
    engines[0].set_accept(Accept::Serve).await;
    let back = async { while gateway.post(CHAT, &chat("m", "hi")).await.engine() != engines[0].name() {} };
    soon("its return", back).await;
    until("the finding to go", || async { found().await.is_none().then_some(()) }).await;
}

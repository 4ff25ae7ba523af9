//! `--request-log`: one line per request, whatever came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::http::{Accept, Canned, Config, Engine, Mode};
use harness::client::{self, Stream};
use harness::fleet::{chat, chat_stream, engine, soon, until};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// The lines of requests so far, by request id.
fn lines(gateway: &Gateway) -> Vec<Value> {
    let log = gateway.log_text();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "request").collect()
}

/// Fields whose values a test cannot know: each is a number, not negative.
const MEASURED: [&str; 3] = ["duration_ms", "first_byte_ms", "decision_us"];

/// What a line says beside its measured numbers, and which of those it has.
fn facts(line: &Value) -> (Value, Vec<&str>) {
    let mut line = line.as_object().expect("an object").clone();
    line.remove("timestamp").expect("a time");
    line.remove("request_id").expect("an id");
    assert_eq!([line.remove("level"), line.remove("target")], [Some(json!("INFO")), Some(json!("request"))]);
    let measured = MEASURED
        .into_iter()
        .filter(|name| line.remove(*name).is_some_and(|value| value.as_f64().expect("a number") >= 0.0));
    let measured = measured.collect();
    (line.into(), measured)
}

/// An engine with an answer of known length, one that refuses, and one that streams until its client leaves.
async fn gateway(args: [&str; 3]) -> (Gateway, Vec<engine::http::EngineHandle>) {
    let reply = json!({"id": "x", "choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 5}}});
    let canned = Canned { reply: reply.to_string().into(), ..Canned::default() };
    let good = Engine::start(Config { mode: Mode::Canned(canned), ..Config::model("good") }).await.unwrap();
    let refusing = engine("refusing").await;
    let slow = Config { output_tokens: 1_000_000, max_model_len: 1 << 24, ..Config::model("slow") };
    let slow = Engine::start(slow.paced(Duration::ZERO, Duration::from_millis(20))).await.unwrap();
    let manifest = Manifest::new()
        .gateway("routeStrategy: round-robin")
        .model("good", [good.url()])
        .model("refusing", [refusing.url()])
        .model("slow", [slow.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml()).args(args)).await;
    refusing.set_accept(Accept::Refuse).await;
    refusing.close_connections().await;
    (gateway, vec![good, refusing, slow])
}

/// N1: as many lines as requests, those that failed and those whose clients left included, and every field is right.
#[tokio::test]
async fn every_request_has_one_line_with_its_facts_however_it_ended() {
    let log_level = "error,gateway=info";
    let (gateway, engines) = gateway(["--request-log", "--log-level", log_level]).await;
    let send = async |id: &str, path: &str, body: String| {
        client::post(gateway.data, path, &[("x-request-id", id)], body).await
    };
    let good = chat("good", "hi").to_string();
    let answer = send("good", CHAT, good.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let unknown = send("unknown", CHAT, chat("nothing", "hi").to_string()).await;
    let broken = send("broken", CHAT, "{".into()).await;
    let refused = send("refused", CHAT, chat("refusing", "hi").to_string()).await;
    assert_eq!((unknown.status.as_u16(), broken.status.as_u16()), (404, 400));
    let health = client::get(gateway.data, "/health").await;
    let slow = chat_stream("slow", "hi").to_string();
    let mut stream = Stream::post(gateway.data, CHAT, &[("x-request-id", "left")], slow.clone()).await;
    assert_eq!(stream.status, 200);
    soon("a chunk", stream.chunk()).await.unwrap().unwrap();
    drop(stream);

    until("six lines", || async { (lines(&gateway).len() >= 6).then_some(()) }).await;
    assert_eq!(gateway.metric_sum("wicketgate_requests_total{").await, 6.0);
    let all = lines(&gateway);
    assert_eq!(all.len(), 6, "{all:?}");
    let by_id: BTreeMap<&str, &Value> =
        all.iter().map(|line| (line["request_id"].as_str().unwrap(), line)).collect();

    let (line, measured) = facts(by_id["good"]);
    assert_eq!(measured, MEASURED);
    let expected = json!({"operation": "chat_completions", "gateway": "default/gw", "model": "good",
        "endpoint": engines[0].url(), "ending": "answered", "status": 200, "attempts": 1,
        "request_bytes": good.len(), "response_bytes": answer.body.len(), "chunks": 1,
        "prompt_tokens": 8, "cached_tokens": 5, "completion_tokens": 3});
    assert_eq!(line, expected);
    let (line, _) = facts(by_id["unknown"]);
    assert_eq!(
        (&line["status"], &line["ending"], &line["error"]),
        (&json!(404), &json!("failed"), &json!("model_unknown"))
    );
    assert_eq!((line.get("model"), &line["attempts"]), (None, &json!(0)), "absent facts are absent fields");
    let (line, _) = facts(by_id["broken"]);
    assert_eq!((&line["status"], &line["error"]), (&json!(400), &json!("body_not_json")));
    let (line, _) = facts(by_id["refused"]);
    assert_eq!(
        (&line["status"], &line["ending"]),
        (&json!(refused.status.as_u16()), &json!("failed")),
        "{line}"
    );
    assert_eq!((&line["model"], line["error"].is_string()), (&json!("refusing"), true), "{line}");
    let (line, _) = facts(by_id["left"]);
    assert_eq!(
        (&line["status"], &line["ending"], &line["error"]),
        (&json!(0), &json!("client_gone"), &json!("client_gone"))
    );
    assert!(line["chunks"].as_u64().unwrap() >= 1 && line["request_bytes"] == slow.len(), "{line}");
    let local = all.iter().find(|line| line["ending"] == "local").expect("the line of /health");
    assert_eq!((&local["status"], local.get("endpoint")), (&json!(health.status.as_u16()), None), "{local}");
}

/// N1: without the flag no level brings the lines.
#[tokio::test]
async fn no_request_has_a_line_unless_it_is_asked_for() {
    let (mut gateway, _engines) = gateway(["--log-level", "trace", "--answer-headers"]).await;
    assert_eq!(gateway.post(CHAT, &chat("good", "hi")).await.status, 200);
    gateway.terminate();
    assert_eq!(gateway.exited().await, Some(0));
    gateway.logged(|line| line["message"] == "ended").await;
    assert!(lines(&gateway).is_empty(), "{}", gateway.log_text());
}

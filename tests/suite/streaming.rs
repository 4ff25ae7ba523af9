//! Answers chunk by chunk, and clients that leave before the end.

use std::time::{Duration, Instant};

use engine::http::{Config, Engine, EngineHandle, Fault, Outcome};
use harness::bars;
use harness::client::{Stream, post};
use harness::fleet::{chat, chat_stream, engine, soon};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// How late a chunk may be at the client, measured from when the engine handed it over.
const LATE_MAX: Duration = Duration::from_millis(20);
/// The bar from a client's leaving to its engine's knowing of it.
const SEEN_MAX: Duration = Duration::from_secs(1);

/// D12
#[tokio::test]
async fn chunks_arrive_as_they_are_emitted() {
    let pace = Duration::from_millis(50);
    let config = Config { log_chunk_times: true, ..Config::model("m") }.paced(pace, pace);
    let engine = Engine::start(config).await.unwrap();
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    // Other tests share the cores: a chunk in twenty may wait for its turn there, none for another chunk.
    let are_prompt =
        |seen: &Lateness| seen.chunks == seen.emitted && seen.late[seen.late.len() * 95 / 100] <= LATE_MAX;
    let measure = async |before: usize| lateness(&gateway, &engine, before as u64 + 1).await;
    bars::shown("a chunk of the engine is a chunk for the client, at once", measure, are_prompt).await;
}

/// How late the chunks of one stream were.
#[derive(Debug)]
struct Lateness {
    /// How many the client got.
    chunks: usize,
    /// How many the engine handed over.
    emitted: usize,
    /// How long after that each was there, sorted.
    late: Vec<Duration>,
}

/// Streams once; it is the engine's request number `number`.
async fn lateness(gateway: &Gateway, engine: &EngineHandle, number: u64) -> Lateness {
    let mut body = chat_stream("m", "hi");
    body["max_tokens"] = 100.into();
    let mut stream = Stream::post(gateway.data, CHAT, &[], body.to_string()).await;
    assert_eq!(stream.status, 200);
    assert!(stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    assert!(!stream.headers.contains_key("content-length"));
    let chunks = stream.rest().await.expect("the whole stream");
    engine.finished(number).await;
    let emitted = engine.last_request().unwrap().chunk_times;
    assert!(emitted.len() >= 100, "{}", emitted.len());
    let text: Vec<u8> = chunks.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(text.windows(6).filter(|window| window == b"data: ").count(), emitted.len() + 2);
    let mut late: Vec<Duration> = chunks
        .iter()
        .zip(&emitted)
        .map(|((arrived, _), emitted)| arrived.saturating_duration_since(engine.started() + *emitted))
        .collect();
    late.sort();
    Lateness { chunks: chunks.len(), emitted: emitted.len(), late }
}

/// D12: bytes through the gateway are those of the engine, usage and all.
#[tokio::test]
async fn streams_are_relayed_byte_for_byte_and_their_usage_is_counted() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let cases: [(&str, Value); 4] = [
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": true}}),
        ),
        ("/v1/completions", json!({"prompt": "hi", "stream_options": {"include_usage": true}})),
        ("/v1/responses", json!({"input": "hi"})),
        ("/v1/messages", json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16})),
    ];
    for (sent, (path, mut body)) in cases.into_iter().enumerate() {
        body["model"] = "m".into();
        body["stream"] = true.into();
        let headers = [("x-request-id", "fixed")];
        let direct = post(engine.addr(), path, &headers, body.to_string()).await;
        let through = post(gateway.data, path, &headers, body.to_string()).await;
        // The engine numbers its answers and takes their time.
        let plain = |text: String| {
            let mut value = text;
            for key in ["\"created\":", "\"created_at\":"] {
                while let Some(at) = value.find(key) {
                    let end = value[at..].find([',', '}']).unwrap() + at;
                    value.replace_range(at..end, "");
                }
            }
            value
        };
        assert_eq!(plain(through.text()), plain(direct.text()), "{path}");
        let labels = format!("{{server=\"{}\",model=\"m\"}}", engine.url());
        let wanted = 16.0 * (sent + 1) as f64;
        let metric = format!("vllm:output_tokens_total{labels}");
        gateway.metric_until(&metric, |tokens| tokens == wanted).await;
    }
}

/// Every gauge that counts requests in flight, of the gateway, its workers and the engines.
async fn everything_is_at_rest(gateway: &Gateway) {
    for gauge in [
        "wicketgate_requests_in_flight",
        "wicketgate_gateway_requests_in_flight",
        "vllm:num_requests_running",
        "vllm:num_prefill_requests",
        "vllm:num_decoding_requests",
    ] {
        gateway.metric_until(gauge, |value| value == 0.0).await;
    }
}

/// How long it takes until the engine knows that a client has left. It aborts the request number `number`, counted from 1.
async fn seen_by(engine: &EngineHandle, number: u64, leave: impl FnOnce()) -> Duration {
    let left = Instant::now();
    leave();
    soon("the abort", engine.aborted(number)).await;
    left.elapsed()
}

/// D13
#[tokio::test]
async fn client_that_leaves_a_stream_ends_the_engines_work_within_a_second() {
    let pace = Duration::from_millis(20);
    let engine = Engine::start(Config::model("m").paced(pace, pace)).await.unwrap();
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let mut body = chat_stream("m", "hi");
    body["max_tokens"] = 100_000.into();
    let measure = async |before: usize| {
        let mut stream = Stream::post(gateway.data, CHAT, &[], body.to_string()).await;
        for _ in 0..10 {
            soon("a chunk", stream.chunk()).await.expect("more").expect("no error");
        }
        assert!(gateway.metric_sum("vllm:num_decoding_requests").await == 1.0);
        seen_by(&engine, before as u64 + 1, || drop(stream)).await
    };
    bars::within("a client that leaves a stream is noticed", SEEN_MAX, measure).await;
    assert_eq!(engine.last_request().unwrap().outcome, Outcome::Aborted);
    everything_is_at_rest(&gateway).await;
}

/// D13
#[tokio::test]
async fn client_that_leaves_while_it_waits_ends_the_engines_work_within_a_second() {
    let engine = engine("m").await;
    engine.set_fault(Some(Fault::Hang));
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let data = gateway.data;
    for _ in 0..3 {
        let measure = async |_| {
            let waiting =
                tokio::spawn(async move { post(data, CHAT, &[], chat("m", "hi").to_string()).await });
            soon("the request", engine.until(|counts| counts.in_flight == 1)).await;
            seen_by(&engine, engine.counts().aborted + 1, || waiting.abort()).await
        };
        bars::within("a client that leaves while it waits is noticed", SEEN_MAX, measure).await;
    }
    everything_is_at_rest(&gateway).await;
}

/// D13: also with the next request already behind it on the connection.
#[tokio::test]
async fn client_that_leaves_with_pipelined_bytes_behind_it_is_noticed() {
    let engine = engine("m").await;
    engine.set_fault(Some(Fault::Hang));
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let body = chat("m", "hi").to_string();
    let one = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let measure = async |before: usize| {
        let number = before as u64 + 1;
        let mut raw = harness::raw::Raw::open(gateway.data).await;
        raw.send(one.repeat(2)).await;
        soon("the request", engine.until(|counts| counts.in_flight == 1)).await;
        let seen = seen_by(&engine, number, || drop(raw)).await;
        everything_is_at_rest(&gateway).await;
        assert_eq!(engine.counts().received, number, "what came behind was never asked for");
        seen
    };
    bars::within("a client that leaves what it sent behind is noticed", SEEN_MAX, measure).await;
}

/// An engine that dies in the middle of a stream: the client sees a broken stream, never a made-up end.
#[tokio::test]
async fn streams_that_break_off_at_the_engine_break_off_at_the_client() {
    let pace = Duration::from_millis(20);
    let engine = Engine::start(Config::model("m").paced(pace, pace)).await.unwrap();
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let mut body = chat_stream("m", "hi");
    body["max_tokens"] = 100_000.into();
    let mut stream = Stream::post(gateway.data, CHAT, &[], body.to_string()).await;
    soon("a chunk", stream.chunk()).await.expect("more").expect("no error");
    engine.crash().await;
    let broke_off = loop {
        match soon("a chunk or the end", stream.chunk()).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broke_off, "a clean end");
    assert_eq!(engine.counts().received, 1, "and nobody is asked again after the first byte");
    everything_is_at_rest(&gateway).await;
}

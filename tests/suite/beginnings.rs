//! Answers begin with the first byte of their body: what engines do between head and body is the gateway's to repair.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use harness::client::Stream;
use harness::fleet::{chat, chat_stream, engine, soon};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHAT: &str = "/v1/chat/completions";
/// How ASGI servers begin a stream: before the model has computed anything.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// An engine that reads a request, and then does this with the connection.
async fn scripted<F: Future<Output = ()> + Send + 'static>(
    play: impl Fn(TcpStream) -> F + Send + 'static,
) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8 << 10];
            let length = stream.read(&mut request).await.unwrap_or(0);
            // Probes ask for metrics and model lists.
            if request[..length].starts_with(b"POST") {
                counted.fetch_add(1, Relaxed);
                tokio::spawn(play(stream));
            }
        }
    });
    (url, received)
}

/// A3
#[tokio::test]
async fn engines_that_die_between_head_and_first_token_lose_no_request() {
    let (dying, received) = scripted(async |mut stream: TcpStream| {
        stream.write_all(HEAD).await.unwrap();
    })
    .await;
    let living = engine("m").await;
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", [&dying, &living.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    for sent in 0..6 {
        let mut stream = Stream::post(gateway.data, CHAT, &[], chat_stream("m", "hi").to_string()).await;
        assert_eq!(stream.status, 200, "request {sent}");
        let chunks = stream.rest().await.expect("a whole answer");
        assert!(chunks.last().unwrap().1.ends_with(b"data: [DONE]\n\n"), "request {sent}");
    }
    assert!(received.load(Relaxed) >= 1, "the dying engine was asked");
    let failed = format!(
        "vllm:request_errors_total{{server=\"{dying}\",model=\"m\",error_type=\"lost_before_head\"}}"
    );
    gateway.metric_until(&failed, |failed| failed >= 1.0).await;
}

/// A3: queue and prefill are bounded by `responseHeader`, and not cut by `idle`; time to first token ends with content.
#[tokio::test]
async fn a_late_first_token_behind_an_early_head_is_waited_for() {
    let (url, _) = scripted(async |mut stream: TcpStream| {
        stream.write_all(HEAD).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stream.write_all(b"8\r\n: ping\n\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
        let chunk = format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
        stream.write_all(chunk.as_bytes()).await.unwrap();
    })
    .await;
    let manifest = Manifest::new().gateway("timeouts: {responseHeader: 100s, idle: 1s}").model("m", [&url]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let mut stream = Stream::post(gateway.data, CHAT, &[], chat_stream("m", "hi").to_string()).await;
    assert_eq!(stream.status, 200);
    let chunks = soon("the answer", stream.rest()).await.expect("a whole answer");
    let text: Vec<u8> = chunks.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    assert!(text.starts_with(b": ping\n\ndata: ") && text.ends_with(b"\n\n"), "{text:?}");
    let first = format!("wicketgate_first_byte_seconds_sum{{server=\"{url}\",model=\"m\"}}");
    gateway.metric_until(&first, |seconds| seconds >= 2.5).await;
}

/// A7: the same request does not reach engines twice because one worked on it over a kept connection.
#[tokio::test]
async fn a_request_that_an_engine_worked_on_is_delivered_once() {
    let (url, received) = scripted(async |mut stream: TcpStream| {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(ok).await.unwrap();
        let mut request = [0; 8 << 10];
        if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    })
    .await;
    let manifest = Manifest::new().gateway("retries: {attempts: 0}").model("m", [&url]);
    let options = Options::manifest(manifest.yaml()).args(["--workers", "1"]);
    let gateway = Gateway::ready(options).await;
    assert_eq!(gateway.post(CHAT, &chat("m", "one")).await.status, 200);
    assert_eq!(gateway.post(CHAT, &chat("m", "two")).await.status, 502);
    assert_eq!(received.load(Relaxed), 1, "the second request came over the first connection only");
}

/// A8: an engine that answers before it reads gets the whole body, and an early refusal reaches the client.
#[tokio::test]
async fn large_bodies_reach_engines_that_answer_first() {
    const BYTES: usize = 8 << 20;
    let (url, _) = scripted(async |mut stream: TcpStream| {
        stream.write_all(HEAD).await.unwrap();
        let mut taken = 0;
        let mut buffer = vec![0; 64 << 10];
        // Some of it may have come with the head.
        while taken + (8 << 10) < BYTES {
            taken +=
                stream.read(&mut buffer).await.ok().filter(|length| *length > 0).expect("the whole body");
        }
        stream.write_all(b"9\r\ndata: x\n\n\r\n0\r\n\r\n").await.unwrap();
    })
    .await;
    let (refusing, _) = scripted(async |mut stream: TcpStream| {
        let refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        stream.write_all(refusal).await.unwrap();
    })
    .await;
    let manifest = Manifest::new().model("m", [&url]).model("refused", [&refusing]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    for (model, status, body) in [("m", 200, "data: x\n\n"), ("refused", 413, "no")] {
        let request = serde_json::json!({"model": model, "prompt": "x".repeat(BYTES)});
        let answer = soon("an answer", gateway.post("/v1/completions", &request)).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, body));
    }
}

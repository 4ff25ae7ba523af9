//! What clients and the network do to a gateway: clients that leave, slow ones, stale connections, too much of everything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::http::{Canned, Config, Engine, EngineHandle, Fault, Mode};
use harness::bars;
use harness::client::{self, Connection, Stream};
use harness::fleet::{chat, chat_stream, engine, engines, soon, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::raw::Raw;
use http::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::swaps::resident_kib;

pub(crate) const CHAT: &str = "/v1/chat/completions";
/// Bytes; more than any head may have.
const HUGE: usize = 512 << 10;
pub(crate) const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

pub(crate) async fn gateway_before(engine: &EngineHandle, args: &[&str]) -> Gateway {
    let mut options = Options::manifest(Manifest::new().model("m", [engine.url()]).yaml());
    options.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    Gateway::ready(options).await
}

/// The head and body of a chat, with these header lines (each with its line end) between.
pub(crate) fn head_and_body(lines: &str, body: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n{lines}\r\n{body}")
}

/// Sends bytes and a second, good request behind them; all that comes back until the end of the connection.
pub(crate) async fn answers(address: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut raw = Raw::open(address).await;
    raw.send(bytes).await;
    let text = String::from_utf8_lossy(&raw.closed().await).into_owned();
    let heads = text.match_indices("HTTP/1.1 ");
    heads.filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

/// Longest wait for every count to be zero: less than the 30 s that a body may pause, which would end a request as well.
const AT_REST_MAX: Duration = Duration::from_secs(28);

/// Waits until nothing is counted in flight any more, in the gateway and at the engines.
async fn nothing_in_flight(gateway: &Gateway, engines: &[EngineHandle]) {
    // First, while its time counts from the last client that left.
    let at_rest = async {
        for family in [
            "wicketgate_requests_in_flight",
            "wicketgate_gateway_requests_in_flight",
            "wicketgate_gateway_requests_queued",
        ] {
            gateway.metric_until(family, |sum| sum == 0.0).await;
        }
    };
    assert!(tokio::time::timeout(AT_REST_MAX, at_rest).await.is_ok(), "something is in flight still");
    for engine in engines {
        soon("the engine to be idle", engine.idle()).await;
        for family in ["vllm:num_requests_running", "vllm:num_prefill_requests", "vllm:num_decoding_requests"]
        {
            let sample = format!("{family}{{server=\"{}\"}}", engine.url());
            gateway.metric_until(&sample, |sum| sum == 0.0).await;
        }
    }
    // What policies see.
    until("policies to see nothing in flight", || async {
        let snapshot: Value = serde_json::from_str(&gateway.admin_page("/snapshot").await.text()).unwrap();
        let gateways = snapshot["gateways"].as_array().unwrap().iter();
        let routes = gateways.flat_map(|gateway| gateway["routes"].as_array().unwrap());
        let mut endpoints = routes.flat_map(|route| route["endpoints"].as_array().unwrap()).peekable();
        assert!(endpoints.peek().is_some(), "{snapshot}");
        endpoints.all(|endpoint| endpoint["inflight"] == 0).then_some(())
    })
    .await;
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    AtOnce,
    WithinTheHead,
    WithinTheBody,
    AfterTheFirstChunk,
    ByReset,
}

async fn send_and_leave(address: SocketAddr, request: &str, leave: Leave) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let head = request.find("\r\n\r\n").unwrap() + 4;
    let upto = match leave {
        Leave::WithinTheHead => head / 2,
        Leave::WithinTheBody => head + (request.len() - head) / 2,
        _ => request.len(),
    };
    // The gateway may have ended the connection already.
    let _ = stream.write_all(&request.as_bytes()[..upto]).await;
    match leave {
        Leave::AfterTheFirstChunk => {
            let _ = stream.readable().await;
        }
        Leave::ByReset => {
            let _ = stream.set_zero_linger();
        }
        _ => {}
    }
}

/// Clients that leave: a hundred thousand of them, in every way, and every count is back at zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_clients_that_leave_are_forgotten_without_a_trace() {
    const CLIENTS: usize = 100_000;
    const AT_ONCE: usize = 64;
    let ways = [
        Leave::AtOnce,
        Leave::WithinTheHead,
        Leave::WithinTheBody,
        Leave::AfterTheFirstChunk,
        Leave::ByReset,
    ];
    let config = Config { log_max: 0, ..Config::default() };
    let engines = engines(2, &config.paced(Duration::from_millis(5), Duration::from_millis(5))).await;
    let manifest = Manifest::new()
        .gateway("policies: [{name: least-in-flight}]\nlimits: {maxInFlight: 40, queueDepth: 1000}")
        .model("m", urls(&engines));
    let mut gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|first| {
            let address = gateway.data;
            tokio::spawn(async move {
                let body = chat_stream("m", "hi").to_string();
                let plain = chat("m", "hi").to_string();
                for client in (first..CLIENTS).step_by(AT_ONCE) {
                    let leave = ways[client % ways.len()];
                    let body = if client % 2 == 0 { &body } else { &plain };
                    let request = head_and_body(&format!("Content-Length: {}\r\n", body.len()), body);
                    send_and_leave(address, &request, leave).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client that leaves");
    }
    println!("{CLIENTS} clients left within {:?}", start.elapsed());
    nothing_in_flight(&gateway, &engines).await;
    let counts = engines.iter().map(EngineHandle::counts);
    let (received, aborted) =
        counts.fold((0, 0), |sum, counts| (sum.0 + counts.received, sum.1 + counts.aborted));
    assert!(aborted > 1_000, "{aborted} of {received} were aborted at the engines");
    let gone = gateway.metric("wicketgate_failures_total{reason=\"client_gone\"}").await.unwrap_or_default();
    assert!(gone > 1_000.0, "{gone}");
    // The admission permits are back, too.
    for _ in 0..50 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    }
    // And what draining counts: nobody is left to wait for.
    gateway.terminate();
    assert_eq!(gateway.exited().await, Some(0), "long before the drain timeout");
}

/// The stale keep-alive race: an engine that closes idle connections, or one just as a request comes, fails nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_that_close_idle_connections_fail_nobody() {
    let config = Config { keep_alive: Some(Duration::from_millis(5)), ..Config::default() };
    let racing = Engine::start(config).await.unwrap();
    let gateway = gateway_before(&racing, &[]).await;
    let mut connection = Connection::open(gateway.data).await;
    for sent in 0..300_u64 {
        let answer = connection.call(Method::POST, CHAT, &[], BODY).await;
        assert_eq!(answer.status, 200, "request {sent}: {}", answer.text());
        // Around the engine's own limit: some connections are closed before the next request, some as it is sent.
        tokio::time::sleep(Duration::from_micros(4_000 + (sent * 37) % 2_000)).await;
    }
    assert!(racing.counts().connections > 10, "connections did end: {:?}", racing.counts());

    // And as scripted: every second request meets a connection that closes under it.
    let scripted = engine("m").await;
    let gateway = gateway_before(&scripted, &[]).await;
    let mut connection = Connection::open(gateway.data).await;
    for sent in 0..50 {
        scripted.push_faults([Fault::CloseReused]);
        let answer = connection.call(Method::POST, CHAT, &[], BODY).await;
        assert_eq!(answer.status, 200, "request {sent}: {}", answer.text());
        scripted.clear_faults();
    }
    assert!(scripted.counts().faulted >= 20, "{:?}", scripted.counts());
}

/// How long twenty requests beside slow clients take.
async fn twenty_requests(gateway: &Gateway) -> Duration {
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    }
    start.elapsed()
}

/// The bar for them: whoever waits for a slow client waits longer.
const TWENTY_MAX: Duration = Duration::from_secs(5);

/// Slow clients: one that dribbles its head is dropped in time, hundreds of them hold up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_dribble_their_heads_are_dropped_and_hold_up_nobody() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let measure = async |before: usize| {
        let mut slow = Vec::new();
        for _ in 0..500 {
            let mut raw = Raw::open(gateway.data).await;
            raw.send(format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nX-A: ")).await;
            slow.push(raw);
        }
        let start = Instant::now();
        let took = twenty_requests(&gateway).await;
        for mut raw in slow {
            let rest = String::from_utf8_lossy(&raw.closed().await).into_owned();
            assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
        }
        assert!(start.elapsed() > Duration::from_secs(5), "they had some time: {:?}", start.elapsed());
        assert_eq!(engine.counts().received, 20 * (before as u64 + 1));
        took
    };
    bars::within("twenty requests beside heads that dribble", TWENTY_MAX, measure).await;
}

/// Slow clients: while a body dribbles in, nothing of it is at the engine and nobody waits for it.
#[tokio::test]
async fn clients_that_dribble_their_bodies_hold_no_engine() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::open(gateway.data).await;
        raw.send(head_and_body(&format!("Content-Length: {}\r\n", BODY.len()), &BODY[..10])).await;
        slow.push(raw);
    }
    for _ in 0..20 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    }
    assert_eq!(engine.counts().received, 20);
    assert!(engine.counts().in_flight_max <= 2, "{:?}", engine.counts());
    // Those who go on in time are served.
    for raw in &mut slow {
        raw.send(&BODY[10..]).await;
        assert_eq!(raw.answer().await.status(), 200);
    }
    assert_eq!(engine.counts().received, 120);
}

/// Slow clients: one that stops within its body is told so in time, and never seen by an engine.
#[tokio::test]
async fn clients_that_stop_within_their_bodies_are_told_so_in_time() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let measure = async |_| {
        let mut raw = Raw::open(gateway.data).await;
        raw.send(head_and_body(&format!("Content-Length: {}\r\n", BODY.len()), &BODY[..10])).await;
        let start = Instant::now();
        assert_eq!(raw.answer().await.status(), 408);
        assert!(start.elapsed() > Duration::from_secs(25), "it had some time: {:?}", start.elapsed());
        start.elapsed()
    };
    bars::within("who stops within a body is told so", Duration::from_secs(40), measure).await;
    assert_eq!(engine.counts().received, 0);
    gateway.metric_until("wicketgate_requests_in_flight", |sum| sum == 0.0).await;
}

/// Large heads: refused with 431, and nothing reaches an engine.
#[tokio::test]
async fn huge_heads_are_refused() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let long = format!("X-A: {}\r\n", "x".repeat(HUGE));
    let many: String = (0..200).map(|at| format!("X-{at}: 1\r\n")).collect();
    let target =
        format!("POST {CHAT}?{} HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n", "x".repeat(HUGE));
    let length = format!("Content-Length: {}\r\n", BODY.len());
    for bytes in [head_and_body(&(long + &length), BODY), head_and_body(&(many + &length), BODY), target] {
        let statuses = answers(gateway.data, bytes.as_bytes()).await;
        assert!(matches!(statuses[..], [] | [400 | 414 | 431]), "{statuses:?}");
    }
    let fits: String = (0..60).map(|at| format!("X-{at}: {}\r\n", "x".repeat(500))).collect();
    let statuses = answers(
        gateway.data,
        head_and_body(&format!("{fits}{length}Connection: close\r\n"), BODY).as_bytes(),
    )
    .await;
    assert_eq!(statuses, [200], "30 KiB in 64 headers are fine");
    assert_eq!(engine.counts().received, 1);
    let answer = client::post(gateway.data, CHAT, &[("x-engine-fault", "big-headers=200000")], BODY).await;
    assert_eq!(answer.status, 502, "nor does an engine's head fill the memory: {}", answer.text());
    // In one line: the bytes are too many, not the lines.
    let headers = vec![("x-big".to_owned(), "x".repeat(200_000))];
    engine.push_faults([Fault::Status { code: 200, body: None, headers }]);
    let answer = gateway.post(CHAT, &chat("m", "hi")).await;
    assert_eq!(
        answer.status,
        502,
        "{} bytes of headers",
        answer.headers.values().map(|v| v.len()).sum::<usize>()
    );
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
}

/// Bodies: nesting and bytes are bounded, and memory with them.
#[tokio::test]
async fn bodies_beyond_the_limits_are_refused() {
    let engine = engine("m").await;
    let manifest = Manifest::new().gateway("limits: {maxBodyBytes: 4096}").model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let deep = format!(r#"{{"model":"m","x":{}1{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    assert_eq!(client::post(gateway.data, CHAT, &[], deep).await.status, 400);
    assert_eq!(gateway.post(CHAT, &chat("m", &"x".repeat(5_000))).await.status, 413);
    // One that only turns out to be too long.
    let mut raw = Raw::open(gateway.data).await;
    raw.send(head_and_body("Transfer-Encoding: chunked\r\n", "")).await;
    raw.send(format!("{:x}\r\n{}\r\n", 8_192, "x".repeat(8_192))).await;
    assert_eq!(raw.answer().await.status(), 413);
    assert_eq!(engine.counts().received, 0);
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
}

/// Clients that read slowly: the engine is held back, the gateway does not keep the stream in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_hold_up_nobody_else() {
    const UNREAD: usize = 8;
    // 32 MiB in each stream: more than all sockets between engine and client hold.
    let chunk = format!("data: {{\"x\":\"{}\"}}\n\n", "x".repeat(64 << 10)).into();
    let canned = Canned { chunk, chunks: 512, ..Canned::default() };
    let engine = Engine::start(Config { mode: Mode::Canned(canned), ..Config::default() }).await.unwrap();
    let gateway = gateway_before(&engine, &[]).await;
    let before = resident_kib(&gateway);
    let body = chat_stream("m", "hi").to_string();
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(Stream::post(gateway.data, CHAT, &[], body.clone()).await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let counts = engine.counts();
    let after = resident_kib(&gateway);
    println!("{before} KiB, then {after} KiB, {counts:?}");
    assert_eq!((counts.in_flight, counts.finished), (UNREAD as u64, 0), "the engine is held back");
    assert!(after < before + 16 * 1024, "{before} KiB, {after} KiB with {UNREAD} streams unread");
    // Those who do not read are there all the while, so it may be tried again.
    let measure = async |_| twenty_requests(&gateway).await;
    bars::within("twenty requests beside answers that nobody reads", TWENTY_MAX, measure).await;
    // Some read on, late as it is, the others leave.
    unread.truncate(2);
    for stream in &mut unread {
        let chunks = stream.rest().await.expect("whole, late as it is");
        assert!(chunks.last().unwrap().1.ends_with(b"[DONE]\n\n"));
    }
    until("nothing in flight", || async {
        (gateway.metric_sum("wicketgate_requests_in_flight").await == 0.0).then_some(())
    })
    .await;
}

//! What clients and the network do to a gateway: malformed requests, clients that leave, slow ones, stale connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::http::{Config, Engine, EngineHandle, Fault};
use harness::client::{self, Connection, Stream};
use harness::fleet::{chat, chat_stream, engine, engines, soon, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::raw::Raw;
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";
/// Bytes; more than any head may have.
const HUGE: usize = 512 << 10;
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

async fn gateway_before(engine: &EngineHandle, args: &[&str]) -> Gateway {
    let mut options = Options::manifest(Manifest::new().model("m", [engine.url()]).yaml());
    options.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    Gateway::ready(options).await
}

/// The head and body of a chat, with these header lines (each with its line end) between.
fn head_and_body(lines: &str, body: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n{lines}\r\n{body}")
}

/// Sends bytes and a second, good request behind them; all that comes back until the end of the connection.
async fn answers(address: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut raw = Raw::open(address).await;
    raw.send(bytes).await;
    let text = String::from_utf8_lossy(&raw.closed().await).into_owned();
    let heads = text.match_indices("HTTP/1.1 ");
    heads.filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

/// Smuggling: whatever two parsers could read differently is refused, and nothing of it reaches an engine.
#[tokio::test]
async fn ambiguous_framing_is_refused_and_nothing_of_it_reaches_an_engine() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let length = BODY.len();
    let chunked = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    // What an attacker hopes that somebody takes for a request of its own.
    let hidden =
        format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nX-Hidden: 1\r\nContent-Length: {length}\r\n\r\n{BODY}");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "lengths that differ",
            head_and_body(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n"), BODY).into(),
        ),
        ("lengths in a list", head_and_body(&format!("Content-Length: {length}, 5\r\n"), BODY).into()),
        ("a signed length", head_and_body(&format!("Content-Length: +{length}\r\n"), BODY).into()),
        ("a length below zero", head_and_body("Content-Length: -1\r\n", BODY).into()),
        ("a length in hexadecimal", head_and_body("Content-Length: 0x10\r\n", BODY).into()),
        ("a length beyond 64 bits", head_and_body("Content-Length: 18446744073709551617\r\n", BODY).into()),
        ("an empty length", head_and_body("Content-Length: \r\n", BODY).into()),
        (
            "a coding after chunked",
            head_and_body("Transfer-Encoding: chunked, identity\r\n", &chunked).into(),
        ),
        ("an unknown coding", head_and_body("Transfer-Encoding: xchunked\r\n", &chunked).into()),
        (
            "identity",
            head_and_body(&format!("Transfer-Encoding: identity\r\nContent-Length: {length}\r\n"), BODY)
                .into(),
        ),
        ("a space before the colon", head_and_body(&format!("Content-Length : {length}\r\n"), BODY).into()),
        (
            "a chunked in disguise",
            head_and_body(&format!("Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n"), &chunked)
                .into(),
        ),
        (
            "a folded line",
            head_and_body(&format!("X-A: 1\r\n 2\r\nContent-Length: {length}\r\n"), BODY).into(),
        ),
        ("a folded coding", head_and_body("Transfer-Encoding:\r\n chunked\r\n", &chunked).into()),
        (
            "NUL in a header",
            head_and_body(&format!("X-A: 1\02\r\nContent-Length: {length}\r\n"), BODY).into(),
        ),
        ("CR in a header", head_and_body(&format!("X-A: 1\r2\r\nContent-Length: {length}\r\n"), BODY).into()),
        (
            "a line without a colon",
            head_and_body(&format!("X-A\r\nContent-Length: {length}\r\n"), BODY).into(),
        ),
        ("an empty name", head_and_body(&format!(": 1\r\nContent-Length: {length}\r\n"), BODY).into()),
        (
            "a chunk size beyond 64 bits",
            head_and_body("Transfer-Encoding: chunked\r\n", "10000000000000001\r\nx\r\n0\r\n\r\n").into(),
        ),
        (
            "a chunk size that is none",
            head_and_body("Transfer-Encoding: chunked\r\n", "xyz\r\nx\r\n0\r\n\r\n").into(),
        ),
        (
            "a signed chunk size",
            head_and_body("Transfer-Encoding: chunked\r\n", "+5\r\nhello\r\n0\r\n\r\n").into(),
        ),
        (
            "a chunk longer than it says",
            head_and_body("Transfer-Encoding: chunked\r\n", "2\r\nhello\r\n0\r\n\r\n").into(),
        ),
        (
            "an old version with a coding",
            head_and_body("Transfer-Encoding: chunked\r\n", &chunked).replace("HTTP/1.1", "HTTP/1.0").into(),
        ),
        (
            "an unknown version",
            head_and_body(&format!("Content-Length: {length}\r\n"), BODY)
                .replace("HTTP/1.1", "HTTP/9.9")
                .into(),
        ),
        ("no version", format!("POST {CHAT}\r\n\r\n{BODY}").into()),
        (
            "a space in the target",
            format!("POST {CHAT} x HTTP/1.1\r\nHost: gw\r\nContent-Length: {length}\r\n\r\n{BODY}").into(),
        ),
        (
            "NUL in the target",
            format!("POST {CHAT}\0 HTTP/1.1\r\nHost: gw\r\nContent-Length: {length}\r\n\r\n{BODY}").into(),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, mut bytes) in cases {
        bytes.extend_from_slice(hidden.as_bytes());
        let statuses = soon(what, answers(gateway.data, &bytes)).await;
        let received = engine.counts().received;
        if !matches!(statuses[..], [] | [400..=499] | [501 | 505]) || received > 0 {
            wrong.push(format!("{what}: answered {statuses:?}, the engine got {received}"));
        }
        if received > 0 {
            engine.clear_log();
            break;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200, "it goes on serving");
    assert_eq!(engine.counts().received, 1);
}

/// Smuggling: what has one meaning reaches the engine as exactly one request with one length.
#[tokio::test]
async fn unusual_but_clear_framing_reaches_the_engine_as_one_normal_request() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let length = BODY.len();
    let (one, two) = BODY.split_at(7);
    let pieces = format!(
        "{:X};ext=\"a\"\r\n{one}\r\n{:04x}\r\n{two}\r\n0\r\nTrailer: 1\r\n\r\n",
        one.len(),
        two.len()
    );
    let cases = [
        ("lower-case names", format!("content-length: {length}\r\nconnection: close\r\n"), BODY.to_owned()),
        (
            "chunks, an extension, a trailer",
            "Transfer-Encoding: chunked\r\nConnection: close\r\n".into(),
            pieces.clone(),
        ),
        ("chunked in capitals", "Transfer-Encoding: CHUNKED\r\nConnection: close\r\n".into(), pieces),
        ("a tab after the colon", format!("Content-Length:\t{length}\r\nConnection: close\r\n"), BODY.into()),
        (
            "zeros before the length",
            format!("Content-Length: 00{length}\r\nConnection: close\r\n"),
            BODY.into(),
        ),
    ];
    for (sent, (what, lines, body)) in (1..).zip(cases) {
        let mut raw = Raw::open(gateway.data).await;
        raw.send(head_and_body(&lines, &body)).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), 200, "{what}: {} {}", answer.head, answer.text());
        assert_eq!(engine.counts().received, sent, "{what}");
        let received = engine.last_request().unwrap();
        assert_eq!(&received.body[..], BODY.as_bytes(), "{what}");
        assert_eq!(received.header("content-length"), Some(length.to_string().as_str()), "{what}");
        assert_eq!(received.header("transfer-encoding"), None, "{what}");
        assert_eq!(received.headers.get_all("content-length").iter().count(), 1, "{what}");
        assert_eq!(received.header("trailer"), None, "{what}");
    }
}

/// Smuggling: a length beside chunks, and equal lengths twice: refused, or one request by the chunks. Never two.
#[tokio::test]
async fn both_framings_at_once_are_never_two_requests() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let length = BODY.len();
    let chunked = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    let hidden =
        format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nX-Hidden: 1\r\nContent-Length: {length}\r\n\r\n{BODY}");
    let twice = format!("Content-Length: {length}\r\nContent-Length: {length}\r\n");
    let cases = [
        // By the length, the body ends before the hidden request; by the chunks, after it.
        (
            "a length, then chunks",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "chunks, then a length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", 5 + hidden.len()),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "a length and the body in chunks",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            chunked,
        ),
        ("the same length twice", twice, BODY.into()),
        ("the same length in a list", format!("Content-Length: {length}, {length}\r\n"), BODY.into()),
    ];
    for (what, lines, body) in cases {
        let before = engine.counts().received;
        let statuses =
            answers(gateway.data, head_and_body(&format!("{lines}Connection: close\r\n"), &body).as_bytes())
                .await;
        assert!(matches!(statuses[..], [] | [200 | 400..=499]), "{what}: {statuses:?}");
        let received = engine.counts().received - before;
        assert_eq!(received, u64::from(statuses == [200]), "{what}: {statuses:?}");
        for request in engine.requests() {
            assert_eq!(request.header("x-hidden"), None, "{what}: the hidden request got through");
            assert_eq!(&request.body[..], BODY.as_bytes(), "{what}");
        }
    }
}

/// Bodies: a model that is named twice goes to no engine that could read it otherwise, and an escaped name is that name.
#[tokio::test]
async fn model_is_read_as_the_engine_will_read_it() {
    let (a, b) = (engine("a").await, engine("b").await);
    let manifest = Manifest::new().model("a", [a.url()]).model("b", [b.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let escaped = [
        r#"{"model":"\u0061","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"\u006dodel":"a","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"messages":[{"role":"user","content":"\"model\":\"b\""}],"x":{"model":"b"},"model":"a"}"#,
        r#"{"messages":[{"role":"user","content":"}],\"model\":\"b\"","model":"b"}],"model":"a"}"#,
    ];
    for body in escaped {
        let answer = client::post(gateway.data, CHAT, &[], body).await;
        assert_eq!((answer.status.as_u16(), answer.engine()), (200, a.name()), "{body}: {}", answer.text());
        assert_eq!(&a.last_request().unwrap().body[..], body.as_bytes(), "as it came");
    }
    // Engines take the last; whatever the gateway does, it is the engine of that one, or nobody.
    let twice = [
        r#"{"model":"a","messages":[{"role":"user","content":"hi"}],"model":"b"}"#,
        r#"{"model":"a","messages":[{"role":"user","content":"hi"}],"m\u006fdel":"b"}"#,
        r#"{"m\u006fdel":"a","messages":[{"role":"user","content":"hi"}],"model":"b"}"#,
    ];
    let before = a.counts().received;
    for body in twice {
        let answer = client::post(gateway.data, CHAT, &[], body).await;
        match answer.status.as_u16() {
            200 => assert_eq!(answer.engine(), b.name(), "{body}"),
            status => assert_eq!(status, 400, "{body}: {}", answer.text()),
        }
    }
    assert_eq!(a.counts().received, before, "a never sees what it would refuse or misread");
}

/// Waits until nothing is counted in flight any more, in the gateway and at the engines.
async fn nothing_in_flight(gateway: &Gateway, engines: &[EngineHandle]) {
    for engine in engines {
        soon("the engine to be idle", engine.idle()).await;
        for family in ["vllm:num_requests_running", "vllm:num_prefill_requests", "vllm:num_decoding_requests"]
        {
            let sample = format!("{family}{{server=\"{}\"}}", engine.url());
            gateway.metric_until(&sample, |sum| sum == 0.0).await;
        }
    }
    for family in [
        "wicketgate_requests_in_flight",
        "wicketgate_gateway_requests_in_flight",
        "wicketgate_gateway_requests_queued",
    ] {
        gateway.metric_until(family, |sum| sum == 0.0).await;
    }
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

/// Clients that leave: twenty thousand of them, in every way, and every count is back at zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_clients_that_leave_are_forgotten_without_a_trace() {
    const CLIENTS: usize = 20_000;
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
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
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

/// Slow clients: one that dribbles its head is dropped in time, hundreds of them hold up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_dribble_their_heads_are_dropped_and_hold_up_nobody() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut raw = Raw::open(gateway.data).await;
        raw.send(format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nX-A: ")).await;
        slow.push(raw);
    }
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for mut raw in slow {
        let rest = String::from_utf8_lossy(&raw.closed().await).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
    assert!(start.elapsed() > Duration::from_secs(5), "they had some time: {:?}", start.elapsed());
    assert_eq!(engine.counts().received, 20);
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
    let config = Config { output_tokens: 200, ..Config::default() };
    let engine = Engine::start(config).await.unwrap();
    let gateway = gateway_before(&engine, &[]).await;
    let body = chat_stream("m", "hi").to_string();
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(Stream::post(gateway.data, CHAT, &[], body.clone()).await);
    }
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for stream in &mut unread {
        let chunks = stream.rest().await.expect("whole, late as it is");
        assert!(chunks.last().unwrap().1.ends_with(b"[DONE]\n\n"));
    }
    until("nothing in flight", || async {
        (gateway.metric_sum("wicketgate_requests_in_flight").await == 0.0).then_some(())
    })
    .await;
}

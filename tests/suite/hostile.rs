//! Clients that take what is meant for all, one kind at a time, and honest ones beside them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::http::{Canned, Config, Engine, EngineHandle, Mode};
use harness::bars;
use harness::client::{self, Stream};
use harness::fleet::{chat, chat_stream, engine, soon, until};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::raw::Raw;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::abuse::{BODY, CHAT, gateway_before, head_and_body};

/// A request that must be served.
async fn is_served(gateway: &Gateway) {
    let answer = client::post(gateway.data, CHAT, &[], BODY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// C3: bodies that claim all memory, and send next to nothing, lock out no other client.
#[tokio::test]
async fn claimed_bodies_take_no_memory_from_honest_ones() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &["--body-memory-bytes", "33554432"]).await;
    let mut claims = Vec::new();
    for at in 0..32 {
        let mut raw = Raw::open(gateway.data).await;
        let framing =
            if at % 2 == 0 { "Content-Length: 33554432\r\n" } else { "Transfer-Encoding: chunked\r\n" };
        raw.send(head_and_body(framing, "400\r\n")).await;
        raw.send("{".repeat(512)).await;
        claims.push(raw);
    }
    gateway.metric_until("wicketgate_requests_in_flight", |sum| sum >= 32.0).await;
    for _ in 0..60 {
        is_served(&gateway).await;
    }
    assert_eq!(engine.counts().received, 60);
}

/// An engine whose streams are longer than all sockets on their way hold.
async fn engine_of_long_streams() -> EngineHandle {
    let chunk = format!("data: {{\"x\":\"{}\"}}\n\n", "x".repeat(64 << 10)).into();
    let canned = Canned { chunk, chunks: 512, ..Canned::default() };
    Engine::start(Config { mode: Mode::Canned(canned), ..Config::default() }).await.unwrap()
}

/// C5: clients that never read lose their answers; their permits, and the engine, serve others.
#[tokio::test]
async fn permits_of_clients_that_never_read_come_back() {
    const UNREAD: usize = 8;
    let engine = engine_of_long_streams().await;
    let manifest = Manifest::new()
        .gateway(&format!("limits: {{maxInFlight: {UNREAD}}}\ntimeouts: {{idle: 1s}}"))
        .model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(Stream::post(gateway.data, CHAT, &[], chat_stream("m", "hi").to_string()).await);
    }
    until("a permit is free again", || async {
        (gateway.post(CHAT, &chat("m", "hi")).await.status == 200).then_some(())
    })
    .await;
    soon("the engine to be free of them", engine.idle()).await;
    gateway.metric_until("wicketgate_gateway_requests_in_flight", |sum| sum == 0.0).await;
    for stream in &mut unread {
        assert!(stream.rest().await.is_err(), "cut, and not made to look like an end");
    }
}

/// C6: how long a kubelet waits for a probe.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// The slowest of some probes.
async fn slowest_probe(address: SocketAddr) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        let answer = soon("a probe", client::get(address, "/livez")).await;
        assert_eq!(answer.status, 200);
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

/// C6: neither a thousand silent connections nor 64 that ask without reading keep a probe waiting, on either listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_beside_silent_and_deaf_connections() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let measure = async |_| {
        let mut silent = Vec::new();
        for _ in 0..1_000 {
            silent.push(TcpStream::connect(gateway.probes).await.expect("connects"));
        }
        slowest_probe(gateway.probes).await
    };
    bars::within("a probe beside a thousand silent connections", PROBE_MAX, measure).await;
    let measure = async |_| {
        let asked = "GET /readyz HTTP/1.1\r\nhost: h\r\n\r\n".repeat(10_000);
        let mut deaf = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (mut stream, asked) =
                (TcpStream::connect(gateway.probes).await.expect("connects"), asked.clone());
            deaf.spawn(async move {
                // It is closed in the middle.
                let _ = stream.write_all(asked.as_bytes()).await;
                stream
            });
        }
        slowest_probe(gateway.probes).await
    };
    bars::within("a probe beside 64 connections that do not read", PROBE_MAX, measure).await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(TcpStream::connect(gateway.admin).await.expect("connects"));
    }
    let page = soon("an admin page", gateway.admin_page("/findings")).await;
    assert_eq!(page.status, 200, "{}", page.text());
}

/// C9: a body of 30 MB in the most awkward JSON holds up no other request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_holds_up_no_other_request() {
    let engine = Engine::start(Config { log_max: 0, ..Config::model("m") }).await.unwrap();
    // One worker, so that all requests share it.
    let gateway = gateway_before(&engine, &["--workers", "1"]).await;
    let large = BODY.replacen('{', &format!(r#"{{"x":[{}1],"#, "[],".repeat(10 << 20)), 1);
    let large = bytes::Bytes::from(large);
    let measure = async |_| {
        let body = large.clone();
        let address = gateway.data;
        let start = Instant::now();
        let asking = tokio::spawn(async move {
            let answer = client::post(address, CHAT, &[], body).await;
            (answer.status, start.elapsed())
        });
        let mut slowest = Duration::ZERO;
        while !asking.is_finished() {
            let start = Instant::now();
            is_served(&gateway).await;
            slowest = slowest.max(start.elapsed());
        }
        let (status, took) = asking.await.unwrap();
        assert_eq!(status, 200);
        (slowest, took)
    };
    bars::shown("the slowest request beside a large body, and what that took", measure, |(slowest, took)| {
        *slowest < *took / 3
    })
    .await;
    let repeated = format!(r#"{{{}"messages":[]}}"#, r#""model":"m","#.repeat(1_000_000));
    let answer = client::post(gateway.data, CHAT, &[], repeated).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json()["error"],
        "Invalid request: more than 16 keys 'model' in request body.",
        "{}",
        answer.text()
    );
}

/// Hostile clients of the kinds that take places, memory or attention.
#[derive(Clone, Copy, Debug)]
enum Kind {
    SilentReaders,
    ClaimedBodies,
    SilentProbes,
    Floods,
}

/// Connects so many hostile clients and lets them begin. They go on while the result lives.
async fn hostile(kind: Kind, gateway: &Gateway) -> Vec<TcpStream> {
    let (count, address) = match kind {
        Kind::SilentReaders => (64, gateway.data),
        Kind::ClaimedBodies => (32, gateway.data),
        Kind::SilentProbes => (1_000, gateway.probes),
        Kind::Floods => (8, gateway.data),
    };
    let stream = chat_stream("m", "hi").to_string();
    let says = match kind {
        Kind::SilentReaders => {
            head_and_body(&format!("Content-Length: {}\r\n", stream.len()), &stream).into_bytes()
        }
        Kind::ClaimedBodies => head_and_body("Content-Length: 33554432\r\n", "{").into_bytes(),
        Kind::SilentProbes => Vec::new(),
        Kind::Floods => {
            let pings = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(100_000);
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &pings[..]].concat()
        }
    };
    let mut clients = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        // So that little of an answer is on its way when its client stops: what is measured is not how it gets there.
        socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
        let mut client = socket.connect(address).await.expect("connects");
        // What floods may be cut off meanwhile.
        let _ = client.write_all(&says).await;
        clients.push(client);
    }
    clients
}

/// Waits until the gateway uses next to no processor time.
async fn at_rest(gateway: &Gateway) {
    // The fields behind the name in parentheses; of these, user and system time are the twelfth and the thirteenth.
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u64>().unwrap()).sum()
    };
    loop {
        let before = ticks();
        tokio::time::sleep(Duration::from_millis(500)).await;
        // A twenty-fifth of one processor: it looks at its engines meanwhile.
        if ticks() - before <= 2 {
            return;
        }
    }
}

/// The 99th percentile of honest requests, and of probes. Every one must be answered.
async fn honest_p99(gateway: &Gateway) -> [Duration; 2] {
    const ASKED: usize = 300;
    let mut times = [Vec::with_capacity(ASKED), Vec::with_capacity(ASKED)];
    for _ in 0..ASKED {
        let start = Instant::now();
        is_served(gateway).await;
        times[0].push(start.elapsed());
        let start = Instant::now();
        assert_eq!(client::get(gateway.probes, "/livez").await.status, 200);
        times[1].push(start.elapsed());
    }
    times.map(|mut times| {
        times.sort();
        times[ASKED * 99 / 100 - 1]
    })
}

/// A machine that does other things as well makes the slowest hundredth as slow as this, hostile clients or not.
const NOISE: Duration = Duration::from_millis(15);

/// C3, C5, C6, C12: beside hostile clients of each kind no honest request and no probe fails, and the slowest hundredth takes at
/// most twice as long as without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_clients_keep_their_pace_beside_each_kind_of_hostile_ones() {
    let engine = engine_of_long_streams().await;
    for kind in [Kind::SilentReaders, Kind::ClaimedBodies, Kind::SilentProbes, Kind::Floods] {
        let gateway = gateway_before(&engine, &[]).await;
        let mut clients = Vec::new();
        let measure = async |_| {
            clients.clear();
            let alone = honest_p99(&gateway).await;
            clients = hostile(kind, &gateway).await;
            if matches!(kind, Kind::SilentReaders) {
                // Their answers get as far as sockets hold them. That is honest work, and not what is measured.
                soon("the answers to be stuck", at_rest(&gateway)).await;
            }
            (alone, honest_p99(&gateway).await)
        };
        let is_within = |(alone, beside): &([Duration; 2], [Duration; 2])| {
            alone.iter().zip(beside).all(|(alone, beside)| *beside <= (*alone).max(NOISE) * 2)
        };
        bars::shown(&format!("requests and probes alone, and beside {kind:?}"), measure, is_within).await;
        drop(clients);
    }
}

/// C12: a flood of HTTP/2 control frames ends with GOAWAY, ENHANCE_YOUR_CALM; other clients are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_control_frames_ends_its_connection_alone() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let stream = TcpStream::connect(gateway.data).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let pings = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(1_000);
    let flood = tokio::spawn(async move { while write.write_all(&pings).await.is_ok() {} });
    let reading = tokio::spawn(async move {
        let mut said = Vec::new();
        // A reset is an end, too.
        let _ = read.read_to_end(&mut said).await;
        said
    });
    is_served(&gateway).await;
    soon("the end of the flood", flood).await.unwrap();
    let said = soon("the end of the connection", reading).await.unwrap();
    let calm = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
    assert!(said.windows(calm.len()).any(|window| window == calm), "GOAWAY");
    is_served(&gateway).await;
}

/// C13: signals that mean nothing to a gateway without a terminal cut no request, and do not end it.
#[tokio::test]
async fn signals_without_a_meaning_cut_no_request() {
    let pace = Duration::from_millis(20);
    let config = Config { output_tokens: 40, ..Config::model("m") }.paced(pace, pace);
    let engine = Engine::start(config).await.unwrap();
    let mut gateway = gateway_before(&engine, &[]).await;
    let mut stream = Stream::post(gateway.data, CHAT, &[], chat_stream("m", "hi").to_string()).await;
    stream.chunk().await.expect("it streams").expect("whole");
    for signal in ["HUP", "USR1", "USR2", "ALRM", "PIPE"] {
        let before = gateway.log_len();
        gateway.signal(signal);
        if signal != "PIPE" {
            let name = format!("SIG{signal}");
            let is_told = |line: &Value| line["signal"] == name.as_str();
            gateway.logged_after(before, is_told).await;
        }
    }
    let chunks = stream.rest().await.expect("not cut");
    assert!(chunks.last().unwrap().1.ends_with(b"[DONE]\n\n"));
    is_served(&gateway).await;
    gateway.terminate();
    assert_eq!(gateway.exited().await, Some(0));
}

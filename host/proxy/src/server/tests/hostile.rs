//! Clients that take what is meant for all: memory, permits, the worker's time.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::admission::{BodyBytes, CLIENT_SHARES};
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::rig::{Engine, Gateway, LONG, Served, chat, ok, post, read_answer, within};
use crate::intake::scan;
use crate::metrics::MetricsPage;
use crate::server::ServerOptions;

/// The head of a request whose body claims `length` bytes.
fn claim(length: u64) -> Vec<u8> {
    format!("POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{{").into_bytes()
}

/// An honest request is answered.
fn is_served(gateway: &Gateway, engine: &Engine) {
    let mut client = gateway.connect();
    client.write_all(&chat("m", "honest")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
    assert_eq!(read_answer(&mut client).status, 200);
}

fn with_memory(engine: &Engine, bytes: u64) -> (Gateway, BodyBytes) {
    let memory = BodyBytes::new(bytes);
    let options = ServerOptions { body_bytes: memory.clone(), ..ServerOptions::default() };
    (Gateway::start(|draft| vec![draft], &[engine], options), memory)
}

/// C3: what a body claims takes no memory; what has come of it does, and a step ahead.
#[test]
fn bodies_that_claim_much_and_send_little_leave_room_for_others() {
    const CLAIMS: u32 = 32;
    let engine = Engine::start();
    let (gateway, memory) = with_memory(&engine, 16 << 20);
    let mut clients = Vec::new();
    for _ in 0..CLAIMS {
        let mut client = gateway.connect();
        client.write_all(&claim(16 << 20)).unwrap();
        clients.push(client);
    }
    gateway.wait_until_in_flight(CLAIMS);
    is_served(&gateway, &engine);
    assert!(memory.held() <= u64::from(CLAIMS) * (128 << 10), "{} bytes", memory.held());
    drop(clients);
    gateway.wait_until_idle();
    assert_eq!(memory.held(), 0);
}

/// C3: the same without any length, and what one client may have under way is a share of all.
#[test]
fn bodies_on_their_way_from_one_client_have_a_share() {
    let engine = Engine::start();
    let bound = 4 << 20;
    let (gateway, memory) = with_memory(&engine, bound);
    let head = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [b"80000\r\n".to_vec(), vec![b' '; 512 << 10], b"\r\n".to_vec()].concat();
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let mut client = gateway.connect();
            client.write_all(head).unwrap();
            // Those beyond the share are turned away while they send.
            let _ = client.write_all(&chunk);
            client
        })
        .collect();
    // Two have room in the share, or one and a part of others.
    let (mut waiting, mut answered, start) = (clients, Vec::new(), Instant::now());
    while answered.len() < 14 {
        assert!(start.elapsed() < LONG, "{} of 16 are turned away", answered.len());
        for client in std::mem::take(&mut waiting) {
            client.set_nonblocking(true).unwrap();
            let is_answered = matches!(client.peek(&mut [0]), Ok(1));
            client.set_nonblocking(false).unwrap();
            if is_answered { answered.push(client) } else { waiting.push(client) }
        }
        std::thread::yield_now();
    }
    for mut client in answered {
        assert_eq!(read_answer(&mut client).status, 503);
    }
    assert!(memory.held() <= bound / CLIENT_SHARES + (1 << 20), "{} bytes", memory.held());
    is_served(&gateway, &engine);
}

/// C9: a copy with the engine's name of the model takes memory like any body.
#[test]
fn a_rewritten_body_is_held_as_well() {
    let engine = Engine::start();
    let (gateway, memory) = with_memory(&engine, 300);
    let mut client = gateway.connect();
    let of = |length: usize| {
        post("/v1/completions", "", &format!(r#"{{"model":"alias","prompt":"{}"}}"#, "x".repeat(length)))
    };
    client.write_all(&of(200)).unwrap();
    assert_eq!(read_answer(&mut client).status, 503, "twice 230 bytes");
    let mut client = gateway.connect();
    client.write_all(&of(50)).unwrap();
    let mut served = engine.accept();
    let body = served.read_request().body;
    assert_eq!(memory.held(), body.len() as u64, "the copy alone");
    served.send(&ok("{}"));
    assert_eq!(read_answer(&mut client).status, 200);
}

/// How long a client of these tests may take nothing.
const IDLE: Duration = Duration::from_millis(300);

fn impatient(engine: &Engine) -> Gateway {
    Gateway::with(&[engine], |draft| {
        draft.settings.timeouts.idle = IDLE;
        draft.settings.limits.in_flight_max = 1;
    })
}

/// Answers with a stream that ends only when the gateway closes it.
fn stream_without_end(served: &mut Served) {
    served.read_request();
    served.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let event = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    served.send_until_closed(event.as_bytes());
}

/// C5: a client that takes nothing of its answer loses it, and permit and engine are free again.
#[test]
fn a_client_that_takes_nothing_loses_its_answer() {
    let engine = Engine::start();
    let gateway = impatient(&engine);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    stream_without_end(&mut engine.accept());
    gateway.wait_until_idle();
    is_served(&gateway, &engine);
}

fn h2_request(content: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#);
    let uri = "http://gateway.test/v1/chat/completions";
    Request::post(uri).version(Version::HTTP_2).body(Full::new(Bytes::from(body))).unwrap()
}

/// C5: of HTTP/2, only the stream ends whose window stays closed; its connection serves on.
#[tokio::test]
async fn a_stream_whose_window_stays_closed_ends_alone() {
    let engine = Engine::start();
    let gateway = impatient(&engine);
    let stream = tokio::net::TcpStream::connect(gateway.handle.addresses()[0]).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let unread = tokio::spawn(sender.send_request(h2_request("unread")));
    let played = tokio::task::spawn_blocking(move || {
        stream_without_end(&mut engine.accept());
        engine
    });
    let unread = unread.await.unwrap().unwrap();
    let engine = played.await.unwrap();
    let gateway = tokio::task::spawn_blocking(move || {
        gateway.wait_until_idle();
        gateway
    });
    let _gateway = gateway.await.unwrap();
    let next = tokio::spawn(sender.send_request(h2_request("next")));
    let served = tokio::task::spawn_blocking(move || {
        let mut served = engine.accept();
        served.read_request();
        served.send(&ok("next"));
        served
    });
    let answer = next.await.unwrap().expect("the connection lives");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "next");
    served.await.unwrap();
    assert!(unread.into_body().collect().await.is_err(), "it was cut, and looks like that");
}

/// C5: a client that is slow and takes something now and then gets everything.
#[test]
fn a_slow_client_that_takes_something_gets_everything() {
    let engine = Engine::start();
    let gateway = impatient(&engine);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    let length = 24 << 20;
    served.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes());
    let sending = std::thread::spawn(move || served.send(&vec![b'x'; length]));
    let mut piece = vec![0; 2 << 20];
    let (mut taken, mut paused) = (0, Duration::ZERO);
    while taken < length {
        // The pauses together are longer than a client may take nothing, each is not.
        if paused < IDLE * 3 {
            std::thread::sleep(IDLE / 3);
            paused += IDLE / 3;
        }
        let read = client.read(&mut piece).unwrap();
        assert!(read > 0, "cut after {taken} bytes");
        taken += read;
    }
    sending.join().unwrap();
}

/// A metrics collector that takes as long as the test wants.
struct Gate {
    begun: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
    descs: Vec<Desc>,
}

impl Collector for Gate {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }
    fn collect(&self) -> Vec<MetricFamily> {
        let _ = self.begun.lock().unwrap().send(());
        let _ = self.go.lock().unwrap().recv();
        Vec::new()
    }
}

/// C7: no request waits for the metrics page, however long that takes.
#[test]
fn requests_are_served_while_the_metrics_page_is_rendered() {
    let engine = Engine::start();
    let (begin, begun) = channel();
    let (release, go) = channel();
    let registry = Registry::new();
    let desc = Desc::new("gate".into(), "Waits.".into(), Vec::new(), Default::default()).unwrap();
    let gate = Gate { begun: Mutex::new(begin), go: Mutex::new(go), descs: vec![desc] };
    registry.register(Box::new(gate)).unwrap();
    let options =
        ServerOptions { metrics: Some(MetricsPage::start(registry).unwrap()), ..ServerOptions::default() };
    let gateway = Gateway::start(|draft| vec![draft], &[&engine], options);
    let mut asker = gateway.connect();
    asker.write_all(b"GET /metrics HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    begun.recv_timeout(LONG).expect("the page is begun");
    is_served(&gateway, &engine);
    drop(release);
    assert_eq!(read_answer(&mut asker).status, 200);
}

/// JSON that takes long to read for its length.
fn awkward_body(bytes: usize) -> String {
    let mut body = String::from(r#"{"model":"m","x":["#);
    body.extend(std::iter::repeat_n("[],", bytes / 3));
    let _ = write!(body, "1]}}");
    body
}

/// C9: while a large body is read, its worker lives.
#[test]
fn a_large_body_does_not_hold_up_its_worker() {
    let body = awkward_body(24 << 20);
    let start = Instant::now();
    scan::scan(body.as_bytes(), None).unwrap();
    let alone = start.elapsed();
    within("the longest silence of the worker", alone / 3, || {
        let engine = Engine::start();
        let gateway = Gateway::of(&[&engine]);
        let mut client = gateway.connect();
        let request = post("/v1/completions", "", &body);
        let asking = std::thread::spawn(move || {
            client.write_all(&request).unwrap();
            read_answer(&mut client).status
        });
        let serving = std::thread::spawn(move || {
            let mut served = engine.accept();
            served.read_request();
            served.send(&ok("{}"));
            served
        });
        let mut silence = Duration::ZERO;
        while !asking.is_finished() {
            silence = silence.max(gateway.handle.workers().states()[0].beat_age);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(asking.join().unwrap(), 200);
        serving.join().unwrap();
        silence
    });
}

/// C12: control frames without end are answered with GOAWAY and the end of the connection.
#[test]
fn a_flood_of_control_frames_is_told_to_calm_down() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let priority = [0, 0, 5, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (what, frame) in
        [("PING", &ping[..]), ("SETTINGS", &settings), ("PRIORITY", &priority), ("WINDOW_UPDATE", &window)]
    {
        let mut client = gateway.connect();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        client.write_all(&settings).unwrap();
        let mut reading = client.try_clone().unwrap();
        // What the gateway answers must not stop it.
        let reading = std::thread::spawn(move || {
            let mut said = Vec::new();
            // A reset is an end as well.
            let _ = reading.read_to_end(&mut said);
            said
        });
        let many = frame.repeat(1_000);
        client.set_write_timeout(Some(LONG)).unwrap();
        // The bound is 3,000 frames in the first second.
        let written = (0..1_000).take_while(|_| client.write_all(&many).is_ok()).count();
        assert!(written < 1_000, "{what}: a million frames were taken");
        let said = reading.join().unwrap();
        let calm = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
        assert!(said.windows(calm.len()).any(|window| window == calm), "{what}: no GOAWAY");
    }
    is_served(&gateway, &engine);
}

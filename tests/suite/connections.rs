//! Connections to engines: by name, through dead and moving ones, and with no descriptor left.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::bars;
use harness::client::Connection;
use harness::dns::{NameServer, Reply};
use harness::fleet::{chat, soon};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const CHAT: &str = "/v1/chat/completions";
/// The bar on following a name that moves.
const FOLLOWED_MAX: Duration = Duration::from_secs(30);

/// An engine at this address that answers every request alike, with its own name. With `keeps`, over kept connections.
async fn engine(address: &str, name: &'static str, keeps: bool) -> u16 {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let end = if keeps { "" } else { "connection: close\r\n" };
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{end}\r\n{name}", name.len());
    let answer: Arc<str> = answer.into();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = [0; 8 << 10];
                // A request is one write of the gateway.
                while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                    if stream.write_all(answer.as_bytes()).await.is_err() || !keeps {
                        return;
                    }
                }
            });
        }
    });
    port
}

async fn gateway(names: &NameServer, manifest: &Manifest) -> Gateway {
    let options = Options::manifest(manifest.yaml());
    Gateway::ready(options.args(["--resolver", &names.address().to_string()])).await
}

/// A4: clients of models whose names get no answer do not disturb those of another name.
#[tokio::test]
async fn names_that_get_no_answer_delay_no_other() {
    let names = NameServer::start();
    let port = engine("127.0.0.1:0", "well", false).await;
    names.lead("well.test", "127.0.0.1");
    let mut manifest = Manifest::new().model("well", [format!("http://well.test:{port}")]);
    for number in 0..16 {
        names.set(&format!("dead-{number}.test"), Reply::Silence);
        let model = format!("dead-{number}");
        manifest = manifest.model(&model, [format!("http://{model}.test:{port}")]);
    }
    let gateway = gateway(&names, &manifest).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let disturbers: Vec<_> = (0..16)
        .map(|number| {
            let (data, is_over) = (gateway.data, Arc::clone(&is_over));
            tokio::spawn(async move {
                let body = chat(&format!("dead-{number}"), "hi").to_string();
                while !is_over.load(Relaxed) {
                    let answer = harness::client::post(data, CHAT, &[], body.clone()).await;
                    assert_eq!(answer.status, 503);
                }
            })
        })
        .collect();
    harness::fleet::until("the dead names to be asked for", || async {
        (0..16).all(|number| names.asked(&format!("dead-{number}.test")) > 0).then_some(())
    })
    .await;
    for sent in 0..40 {
        let answer = soon("an answer", gateway.post(CHAT, &chat("well", "hi"))).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "well"), "request {sent}");
    }
    is_over.store(true, Relaxed);
    for disturber in disturbers {
        soon("the answer of a dead name", disturber).await.unwrap();
    }
}

/// A4: an engine goes on being reached while its name cannot be looked up.
#[tokio::test]
async fn the_last_answer_is_used_while_a_name_is_unanswerable() {
    let names = NameServer::start();
    let port = engine("127.0.0.1:0", "well", false).await;
    names.lead("well.test", "127.0.0.1");
    let gateway = gateway(&names, &Manifest::new().model("m", [format!("http://well.test:{port}")])).await;
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    names.set("well.test", Reply::Silence);
    let asked = names.asked("well.test");
    let mut sent = 0;
    while names.asked("well.test") < asked + 2 {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200, "request {sent}");
        sent += 1;
    }
}

/// A5: a name whose first address swallows SYNs works.
#[tokio::test]
async fn a_silent_address_among_several_fails_no_request() {
    let names = NameServer::start();
    let port = engine("127.0.0.2:0", "well", false).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("127.0.0.1:{port}").parse().unwrap()).unwrap();
    // Nothing accepts from its queue: once that is full, connecting gets no answer.
    let silent = socket.listen(1).unwrap();
    let mut held = Vec::new();
    let address = silent.local_addr().unwrap();
    while let Ok(stream) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        held.push(stream.unwrap());
    }
    let both = ["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse().unwrap());
    names.set("both.test", Reply::Addresses(both.to_vec(), 60));
    let manifest =
        Manifest::new().gateway("retries: {attempts: 0}").model("m", [format!("http://both.test:{port}")]);
    let gateway = gateway(&names, &manifest).await;
    for sent in 0..8 {
        let answer = gateway.post(CHAT, &chat("m", "hi")).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "well"), "request {sent}");
    }
}

/// A6: new addresses of a name are followed while requests keep its connections busy.
#[tokio::test]
async fn a_name_that_moves_is_followed_under_traffic() {
    let names = NameServer::start();
    let port = engine("127.0.0.1:0", "old", true).await;
    assert_eq!(engine(&format!("127.0.0.2:{port}"), "new", true).await, port);
    names.lead("moving.test", "127.0.0.1");
    let manifest = Manifest::new().model("m", [format!("http://moving.test:{port}")]);
    let gateway = gateway(&names, &manifest).await;
    let measure = async |before: usize| {
        let places = [("127.0.0.1", "old"), ("127.0.0.2", "new")];
        let (from, (address, to)) = (places[before % 2].1, places[(before + 1) % 2]);
        let mut connection = Connection::open(gateway.data).await;
        let mut answered = async || {
            let answer = connection.call(Method::POST, CHAT, &[], chat("m", "hi").to_string()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.text()
        };
        assert_eq!(answered().await, from);
        names.lead("moving.test", address);
        let moved = Instant::now();
        while answered().await == from {
            assert!(moved.elapsed() < FOLLOWED_MAX * 4, "not followed");
        }
        let took = moved.elapsed();
        for _ in 0..20 {
            assert_eq!(answered().await, to, "for good");
        }
        took
    };
    bars::within("a name that moves is followed", FOLLOWED_MAX, measure).await;
}

/// C13: without a descriptor the gateway says so, counts nothing against the engine, and serves when there is one again.
#[tokio::test]
async fn a_gateway_without_descriptors_does_not_blame_engines() {
    let port = engine("127.0.0.1:0", "well", false).await;
    let url = format!("http://127.0.0.1:{port}");
    let manifest = Manifest::new().gateway("retries: {attempts: 0}").model("m", [&url]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml()).args(["--workers", "1"])).await;
    let limit = |files: &str| {
        let (pid, limit) = (gateway.pid().to_string(), format!("--nofile={files}:"));
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("prlimit runs");
        assert!(status.success());
    };
    let mut connection = Connection::open(gateway.data).await;
    let mut ask = async || connection.call(Method::POST, CHAT, &[], chat("m", "hi").to_string()).await;
    assert_eq!(ask().await.status, 200);
    // Lower than any descriptor that is free: what is open stays open.
    limit("3");
    for _ in 0..8 {
        let answer = ask().await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("file descriptor"), "{}", answer.text());
    }
    limit("1024");
    assert_eq!(ask().await.status, 200, "at once: the engine was not ejected");
    let shortage = "wicketgate_failures_total{reason=\"shortage\"}";
    gateway.metric_until(shortage, |count| count == 8.0).await;
    let errors = format!("vllm:request_errors_total{{server=\"{url}\"");
    assert_eq!(gateway.metric_sum(&errors).await, 0.0);
}

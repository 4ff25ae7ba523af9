//! HTTP/2 and TLS, on both sides.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::endpoint::EngineTls;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tokio_rustls::TlsConnector;

use super::rig::{Engine, Gateway, chat, ok, read_answer, within};
use crate::fixture;
use crate::respond::Dialect;
use crate::server::{CertificateFiles, ListenerSpec, ServerOptions};

fn request(content: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#);
    let uri = "http://gateway.test/v1/chat/completions";
    Request::post(uri).version(Version::HTTP_2).body(Full::new(Bytes::from(body))).unwrap()
}

async fn h2(gateway: &Gateway) -> http2::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(gateway.handle.addresses()[0]).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_and_each_stream_ends_by_itself() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut sender = h2(&gateway).await;
    let one = tokio::spawn(sender.send_request(request("one")));
    let (engine, mut first) = accept(engine).await;
    let two = tokio::spawn(sender.send_request(request("two")));
    let (_engine, mut second) = accept(engine).await;

    // The first stream's client gives up: only its engine connection goes.
    one.abort();
    let first = tokio::task::spawn_blocking(move || {
        first.read_request();
        first.wait_for_close();
    });
    first.await.unwrap();
    let second = tokio::task::spawn_blocking(move || {
        let request = second.read_request();
        second.send(&ok("two"));
        request
    });
    let answer = two.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.version(), Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "two");
    assert_eq!(second.await.unwrap().line, "POST /v1/chat/completions HTTP/1.1");
}

/// Waits for the gateway's next connection without blocking the client.
async fn accept(engine: Engine) -> (Engine, super::rig::Served) {
    let accepted = tokio::task::spawn_blocking(move || {
        let served = engine.accept();
        (engine, served)
    });
    accepted.await.unwrap()
}

#[test]
fn an_http_2_connection_is_told_to_go_away_while_draining() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Less than the 5 s after which a connection that was told is cut.
    within("the end of the connection", Duration::from_secs(4), || {
        runtime.block_on(drained_after_the_last_answer())
    });
}

/// How long draining takes from the last answer on, with a client that keeps its side open.
async fn drained_after_the_last_answer() -> Duration {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut sender = h2(&gateway).await;
    let running = tokio::spawn(sender.send_request(request("one")));
    let (_engine, mut served) = accept(engine).await;
    let handle = gateway.handle;
    let address = handle.addresses()[0];
    let draining = tokio::task::spawn_blocking(move || handle.drain(super::rig::LONG));
    while tokio::net::TcpStream::connect(address).await.is_ok() {}
    let played = tokio::task::spawn_blocking(move || {
        served.read_request();
        served.send(&ok("one"));
    });
    let answer = running.await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "one");
    let answered = Instant::now();
    played.await.unwrap();
    // The client keeps its side open: only being told to go away ends the connection.
    assert_eq!(draining.await.unwrap(), 0);
    drop(sender);
    answered.elapsed()
}

/// One frame of HTTP/2 by hand.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// How an HTTP/2 client that never acknowledges anything begins: its preface and empty SETTINGS.
fn mute_opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat()
}

/// A chat on stream 1: its fields are HPACK literals, but for the method and the scheme.
fn mute_chat() -> Vec<u8> {
    let mut fields = vec![0x83, 0x86];
    for (name, value) in [(0x04, "/v1/chat/completions"), (0x01, "gateway.test")] {
        fields.extend_from_slice(&[name, value.len() as u8]);
        fields.extend_from_slice(value.as_bytes());
    }
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    [frame(1, 0x4, 1, &fields), frame(0, 0x1, 1, body)].concat()
}

/// The bound on ending connections of mute clients while draining: less than the 15 s after which they are cut in any case.
const MUTE_MAX: Duration = Duration::from_secs(10);

#[test]
fn http_2_clients_that_acknowledge_nothing_do_not_hold_up_draining_unless_a_request_is_under_way() {
    within("mute clients do not hold it up", MUTE_MAX, drained_beside_mute_clients);
}

/// How long draining takes to end connections that ask for nothing, or then one that was just answered, whichever is longer.
fn drained_beside_mute_clients() -> Duration {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let say = |bytes: &[u8]| {
        let mut client = gateway.connect();
        client.write_all(&mute_opening()).unwrap();
        client.write_all(bytes).unwrap();
        client
    };
    let idle = [("only the settings", say(&[])), ("a head that does not end", say(&frame(1, 0, 1, &[0x83])))];
    let mut busy = say(&mute_chat());
    let mut served = engine.accept();
    served.read_request();
    let (workers, handle) = (gateway.handle.workers(), gateway.handle);
    let in_flight = || workers.states().iter().map(|state| state.in_flight).sum::<u32>();

    let begun = Instant::now();
    let draining = std::thread::spawn(move || handle.drain(super::rig::LONG * 6));
    for (what, mut client) in idle {
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap_or_else(|error| panic!("{what}: not closed: {error}"));
    }
    let idle_ended = begun.elapsed();
    assert_eq!(in_flight(), 1, "a request under way is not cut");
    served.send(&ok("done"));
    let answered = Instant::now();
    let mut said = Vec::new();
    busy.read_to_end(&mut said).expect("closed once it is served");
    assert!(said.windows(4).any(|window| window == b"done"), "the answer came: {said:?}");
    assert_eq!(draining.join().unwrap(), 0, "nothing was cut off");
    idle_ended.max(answered.elapsed())
}

/// A self-signed certificate of 127.0.0.1: PEM of certificate and key.
fn certificate() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[tokio::test]
async fn a_tls_listener_speaks_what_the_client_prefers() {
    let (pem, key) = certificate();
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles { certificate: folder.path().join("c"), key: folder.path().join("k") };
    std::fs::write(&files.certificate, &pem).unwrap();
    std::fs::write(&files.key, key).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listeners = vec![ListenerSpec { address, dialect: Dialect::Json, tls: Some(files) }];
    let options = ServerOptions { listeners, ..ServerOptions::default() };
    let gateway = Gateway::start(|draft| vec![draft], &[], options);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    for protocol in ["h2", "http/1.1", ""] {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = [protocol].into_iter().filter(|p| !p.is_empty()).map(Into::into).collect();
        let stream = tokio::net::TcpStream::connect(gateway.handle.addresses()[0]).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let version = Request::get("https://127.0.0.1/version");
        let status = if protocol == "h2" {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(session)).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            sender.send_request(version.body(Full::<Bytes>::default()).unwrap()).await.unwrap().status()
        } else {
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(session)).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            let request =
                Request::get("/version").header("host", "h").body(Full::<Bytes>::default()).unwrap();
            sender.send_request(request).await.unwrap().status()
        };
        assert_eq!(status, 200, "{protocol:?}");
    }
}

/// An engine that speaks TLS, answers every request alike, and tells how many it got.
fn tls_engine(pem: &str, key: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let session = ServerConnection::new(config).unwrap();
                let mut stream = StreamOwned::new(session, stream);
                let mut buffer = [0; 4096];
                // The requests of this test are one segment each.
                while matches!(stream.read(&mut buffer), Ok(read) if read > 0) {
                    stream.write_all(&ok("secret")).unwrap();
                }
            });
        }
    });
    format!("https://{address}")
}

#[test]
fn an_engine_is_trusted_as_its_service_says() {
    let (pem, key) = certificate();
    let url = tls_engine(&pem, &key);
    let trusting =
        EngineTls { ca_pem: Some(pem.as_bytes().into()), insecure_skip_verify: false, names: Vec::new() };
    let careless = EngineTls { ca_pem: None, insecure_skip_verify: true, names: Vec::new() };
    let (other, _) = certificate();
    let deceived =
        EngineTls { ca_pem: Some(other.as_bytes().into()), insecure_skip_verify: false, names: Vec::new() };
    for (tls, status) in [
        (Some(trusting), 200),
        (Some(careless), 200),
        (Some(deceived), 503),
        (Some(EngineTls::default()), 503),
        (None, 503),
    ] {
        let change = |draft: &mut domain::draft::GatewayDraft| {
            let mut spec = (*fixture::endpoint(&url, "")).clone();
            spec.target.tls = true;
            spec.tls = tls.clone().map(Arc::new);
            draft.routes = vec![fixture::route("m", &[Arc::new(spec)])];
        };
        let gateway = Gateway::with(&[], change);
        let mut client = gateway.connect();
        for _ in 0..2 {
            client.write_all(&chat("m", "x")).unwrap();
            assert_eq!(read_answer(&mut client).status, status, "{tls:?}");
        }
    }
}

#[test]
fn an_engine_may_be_named_instead_of_numbered() {
    let engine = Engine::start();
    let url = engine.url().replace("127.0.0.1", "localhost");
    let gateway = Gateway::with(&[], |draft| {
        draft.routes = vec![fixture::route("m", &[fixture::endpoint(&url, "")])];
        draft.settings.timeouts.connect = Duration::from_secs(10);
    });
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    assert!(served.read_request().header("host").unwrap().starts_with("localhost:"));
    served.send(&ok("1"));
    assert_eq!(read_answer(&mut client).status, 200);
}

//! Requests that two parties could read differently: the engine sees exactly one, normalised, or the client a 400.

use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::rig::{Engine, Gateway, LONG, Served, ok, post, read_answer};

const BODY: &str = r#"{"model":"m","prompt":"x"}"#;

/// What the gateway makes of a raw request.
#[derive(Debug, PartialEq)]
enum Seen {
    /// The engine got one request, with this body.
    Once(Vec<u8>),
    /// The client got this status, the engine nothing.
    Refused(u16),
}

fn send(raw: &[u8]) -> Seen {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(raw).unwrap();
    client.shutdown(Shutdown::Write).ok();
    // The client has said all it will. Either an answer of the gateway's own comes, or the engine's connection does.
    let played = std::thread::spawn(move || {
        let mut served = engine.try_accept(LONG).ok()?;
        let request = served.read_request();
        Some((request, served))
    });
    let mut answer = Vec::new();
    let _ = BufReader::new(client).read_to_end(&mut answer);
    drop(gateway);
    let text = String::from_utf8_lossy(&answer);
    if let Some(status) = text.strip_prefix("HTTP/1.1 ") {
        return Seen::Refused(status[..3].parse().unwrap());
    }
    let (request, mut served): (_, Served) = played.join().unwrap().expect("the engine was asked");
    assert_eq!(request.headers("content-length"), [request.body.len().to_string()], "one length");
    assert_eq!(request.header("transfer-encoding"), None, "no chunks");
    assert!(served.is_at_end(), "nothing behind it");
    Seen::Once(request.body)
}

#[test]
fn malformed_framing_is_refused() {
    for (name, raw) in [
        ("two lengths", format!("content-length: {}\r\ncontent-length: 5\r\n\r\n{BODY}", BODY.len())),
        ("a list of lengths", format!("content-length: {}, 5\r\n\r\n{BODY}", BODY.len())),
        ("a signed length", format!("content-length: +{}\r\n\r\n{BODY}", BODY.len())),
        ("a folded line", format!("x: a\r\n b\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len())),
        ("a space before the colon", format!("content-length : {}\r\n\r\n{BODY}", BODY.len())),
        ("a zero byte", format!("x: a\0b\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len())),
        ("a carriage return in a value", format!("x: a\rb\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len())),
        ("chunks not last", format!("transfer-encoding: chunked, identity\r\n\r\n{BODY}")),
        ("an unknown coding", format!("transfer-encoding: xchunked\r\n\r\n{BODY}")),
        ("a size that is no number", format!("transfer-encoding: chunked\r\n\r\nzz\r\n{BODY}\r\n0\r\n\r\n")),
        ("an endless size", format!("transfer-encoding: chunked\r\n\r\n1{}\r\n{BODY}", "0".repeat(20))),
    ] {
        let raw = format!("POST /v1/completions HTTP/1.1\r\nhost: h\r\n{raw}");
        assert_eq!(send(raw.as_bytes()), Seen::Refused(400), "{name}");
    }
}

#[test]
fn heads_that_two_parsers_could_read_differently_are_refused() {
    let size = BODY.len();
    let chunked = format!("{size:x}\r\n{BODY}\r\n0\r\n\r\n");
    for (name, raw) in [
        ("two hosts", format!("host: a\r\nhost: b\r\ncontent-length: {size}\r\n\r\n{BODY}")),
        ("the same host twice", format!("host: a\r\nhost: a\r\ncontent-length: {size}\r\n\r\n{BODY}")),
        ("no host", format!("content-length: {size}\r\n\r\n{BODY}")),
        ("a space in the host", format!("host: a b\r\ncontent-length: {size}\r\n\r\n{BODY}")),
        ("a user in the host", format!("host: u@h\r\ncontent-length: {size}\r\n\r\n{BODY}")),
        ("a coding before chunked", format!("host: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n{chunked}")),
        ("chunked twice", format!("host: h\r\ntransfer-encoding: chunked, chunked\r\n\r\n{chunked}")),
        (
            "a coding on a line of its own",
            format!("host: h\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        ),
    ] {
        // It stays to hear the answer: who has left is owed none.
        let engine = Engine::start();
        let gateway = Gateway::of(&[&engine]);
        let mut client = gateway.connect();
        client.write_all(format!("POST /v1/completions HTTP/1.1\r\n{raw}").as_bytes()).unwrap();
        assert_eq!(read_answer(&mut client).status, 400, "{name}");
        let _ = client.read_to_end(&mut Vec::new());
        drop(gateway);
        assert!(engine.try_accept(Duration::ZERO).is_err(), "{name}: the engine was asked");
    }
}

#[test]
fn a_head_that_is_refused_is_told_why_and_ends_its_connection() {
    let gateway = Gateway::of(&[]);
    let mut client = gateway.connect();
    client.write_all(b"GET /version HTTP/1.1\r\n\r\nGET /version HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    let answer = read_answer(&mut client);
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert_eq!(answer.body, br#"{"error":"Invalid request: no Host header."}"#);
    assert!(answer.header("x-request-id").is_some());
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.is_empty(), "what follows is not served");
}

#[test]
fn chunks_of_http_1_0_are_refused() {
    let raw = format!("POST /v1/completions HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{BODY}");
    assert_eq!(send(raw.as_bytes()), Seen::Refused(400));
}

/// Plays one request to its end and returns what the engine saw.
fn normalised(raw: &[u8]) -> (Vec<u8>, Vec<(String, String)>) {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(raw).unwrap();
    let mut served = engine.accept();
    let request = served.read_request();
    assert_eq!(request.headers("content-length"), [request.body.len().to_string()], "one length");
    assert_eq!(request.header("transfer-encoding"), None, "no chunks");
    served.send(&ok("{}"));
    assert_eq!(read_answer(&mut client).status, 200);
    drop((client, gateway));
    assert!(served.is_at_end(), "nothing behind it");
    (request.body, request.headers)
}

#[test]
fn ambiguous_framing_reaches_the_engine_as_one_plain_request() {
    let size = BODY.len();
    for (name, raw) in [
        ("equal lengths", format!("content-length: {size}\r\ncontent-length: {size}\r\n\r\n{BODY}")),
        ("bare line feeds", format!("x: y\ncontent-length: {size}\n\n{BODY}")),
        (
            "length and chunks",
            format!("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{BODY}\r\n0\r\n\r\n"),
        ),
        (
            "chunks and trailers",
            format!("transfer-encoding: chunked\r\n\r\n{size:x}\r\n{BODY}\r\n0\r\nx: y\r\n\r\n"),
        ),
        (
            "chunk extensions",
            format!("transfer-encoding: chunked\r\n\r\n{size:x};a=b\r\n{BODY}\r\n0\r\n\r\n"),
        ),
    ] {
        let raw = format!("POST /v1/completions HTTP/1.1\r\nhost: h\r\n{raw}");
        let (body, headers) = normalised(raw.as_bytes());
        assert_eq!(body, BODY.as_bytes(), "{name}");
        assert!(headers.iter().all(|(name, _)| name != "trailer"), "{name}");
    }
}

#[test]
fn a_smuggled_request_is_a_request_of_its_own() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    let mut raw = post("/v1/completions", "", BODY);
    raw.extend_from_slice(b"GET /version HTTP/1.1\r\nhost: h\r\n\r\n");
    client.write_all(&raw).unwrap();
    let mut served = engine.accept();
    assert_eq!(served.read_request().body, BODY.as_bytes());
    served.send(&ok("{}"));
    assert_eq!(read_answer(&mut client).status, 200);
    let version = read_answer(&mut client);
    assert!(version.body.starts_with(br#"{"version""#), "answered here, not by the engine");
}

#[test]
fn headers_of_the_clients_connection_end_here_and_the_rest_goes_on() {
    let raw = post(
        "/v1/completions",
        "connection: keep-alive, x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
         te: trailers\r\ntrailer: x\r\nupgrade: h2c\r\nproxy-authorization: Basic x\r\nauthorization: Bearer t\r\nx-forwarded-for: 10.1.1.1\r\n\
         x-request-id: mine-1\r\nx-custom: kept\r\n",
        BODY,
    );
    let (_, headers) = normalised(&raw);
    let all = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    for gone in [
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    ] {
        assert!(all(gone).is_empty(), "{gone}");
    }
    assert_eq!(all("authorization"), ["Bearer t"]);
    assert_eq!(all("x-forwarded-for"), ["10.1.1.1, 127.0.0.1"]);
    assert_eq!(all("x-request-id"), ["mine-1"]);
    assert_eq!(all("x-custom"), ["kept"]);
}

#[test]
fn an_unprintable_or_long_request_id_is_replaced() {
    for bad in ["a b".to_string(), "\u{e4}".to_string(), "x".repeat(129)] {
        let (_, headers) = normalised(&post("/v1/completions", &format!("x-request-id: {bad}\r\n"), BODY));
        let id = &headers.iter().find(|(name, _)| name == "x-request-id").unwrap().1;
        assert_eq!(id.len(), 36, "a UUID in place of {bad:?}");
    }
}

#[test]
fn headers_of_the_engines_connection_end_here_and_the_rest_comes_back() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&post("/v1/completions", "x-request-id: mine-2\r\n", BODY)).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(
        b"HTTP/1.1 201 Created\r\nserver: uvicorn\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
          content-encoding: gzip\r\ncontent-type: application/json\r\nx-request-id: theirs\r\nx-kept: 1\r\n\
          content-length: 3\r\n\r\n\x1f\x8b\x00",
    );
    let answer = read_answer(&mut client);
    assert_eq!((answer.status, answer.body.as_slice()), (201, b"\x1f\x8b\x00".as_slice()));
    for gone in ["server", "x-hop", "keep-alive"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.header("content-encoding"), Some("gzip"), "or the bytes could not be read");
    assert_eq!(answer.headers("content-length"), ["3"]);
    assert_eq!(answer.headers("x-request-id"), ["mine-2"]);
    assert_eq!(answer.header("x-kept"), Some("1"));
}

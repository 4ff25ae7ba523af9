//! The data plane over real sockets: engines and clients are threads of the test that follow a script byte by byte.

mod beginnings;
mod endings;
mod framing;
mod hostile;
mod limits;
mod protocols;
mod rig;
mod surface;

use std::io::Write;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rig::{Engine, Gateway, chat, ok, read_answer};

#[test]
fn a_request_goes_to_the_engine_and_its_answer_comes_back() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "hello")).unwrap();

    let mut served = engine.accept();
    let request = served.read_request();
    assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(request.body, br#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#);
    assert_eq!(request.header("host"), Some(engine.authority.as_str()));
    served.send(&ok(r#"{"id":1}"#));

    let answer = read_answer(&mut client);
    assert_eq!((answer.status, answer.body.as_slice()), (200, br#"{"id":1}"#.as_slice()));
    assert_eq!(answer.header("x-request-id"), request.header("x-request-id"));
}

#[test]
fn a_stream_arrives_chunk_by_chunk_as_it_is_sent() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "hello")).unwrap();

    let mut served = engine.accept();
    served.read_request();
    served.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut client = rig::Stream::of(client);
    for event in ["data: one\n\n", "data: two\n\n", "data: [DONE]\n\n"] {
        served.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        if event.contains("one") {
            assert!(client.head().contains("200 OK"), "the head comes with the first byte of the body");
        }
        assert_eq!(client.chunk(), event.as_bytes(), "before the next one is sent");
    }
    served.send(b"0\r\n\r\n");
    assert_eq!(client.chunk(), b"", "the end");
}

#[test]
fn connections_to_engines_and_clients_are_used_again() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "one")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(&ok("1"));
    read_answer(&mut client);

    client.write_all(&chat("m", "two")).unwrap();
    served.read_request();
    served.send(&ok("2"));
    assert_eq!(read_answer(&mut client).body, b"2");
    assert_eq!(
        engine.try_accept(Duration::ZERO).err(),
        Some(RecvTimeoutError::Timeout),
        "no second connection"
    );
}

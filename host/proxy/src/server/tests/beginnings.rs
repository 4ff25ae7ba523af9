//! How answers begin: with the first byte of the body, on connections that are as good as they seem.

use std::io::Write;
use std::time::{Duration, Instant};

use super::rig::{Engine, Gateway, LONG, Served, Stream, chat, ok, post, read_answer};

/// A limit that the test lets pass.
const SHORT: Duration = Duration::from_millis(100);
/// Longer than a connection may take to end for a request over it to be sent again for free.
const WORK: Duration = Duration::from_millis(600);
/// A body that no socket takes at once, bytes.
const LARGE_BODY_BYTES: usize = 8 << 20;

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// A3: many servers send the head of a stream before the model has computed anything.
#[test]
fn the_idle_limit_begins_with_the_first_byte_of_the_body() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.timeouts.idle = SHORT);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(CHUNKED);
    std::thread::sleep(SHORT * 5);
    served.send(b"3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(read_answer(&mut client).body, b"abc");
}

/// A3: until the first byte of the body a failure is repaired by another attempt, whatever the framing.
#[test]
fn an_engine_that_dies_behind_its_head_is_replaced_by_another() {
    let heads: [&[u8]; 3] = [
        CHUNKED,
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        // The size of a chunk is no byte of the body.
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n",
    ];
    for head in heads {
        let engines = [Engine::start(), Engine::start()];
        let gateway = Gateway::of(&[&engines[0], &engines[1]]);
        let mut client = gateway.connect();
        client.write_all(&chat("m", "x")).unwrap();
        let (mut dying, other) = either(&engines);
        dying.read_request();
        dying.send(head);
        drop(dying);
        let mut served = other.accept();
        served.read_request();
        served.send(&ok("good"));
        assert_eq!(read_answer(&mut client).body, b"good", "{}", String::from_utf8_lossy(head));
    }
}

/// A3: a stream that ends with its connection, without one event, is a dead engine and not an empty answer.
#[test]
fn a_stream_without_framing_and_without_a_byte_is_a_failure() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.retries.attempts = 0);
    for (streams, status) in [("true", 502), ("false", 200)] {
        let mut client = gateway.connect();
        let body = format!(r#"{{"model":"m","stream":{streams},"messages":[]}}"#);
        client.write_all(&post("/v1/chat/completions", "", &body)).unwrap();
        let mut served = engine.accept();
        served.read_request();
        served.send(b"HTTP/1.1 200 OK\r\n\r\n");
        drop(served);
        assert_eq!(read_answer(&mut client).status, status, "stream: {streams}");
    }
}

/// A3: the budget to the first byte goes on behind the head.
#[test]
fn a_head_without_a_body_ends_in_504_when_the_budget_is_used_up() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.timeouts.response_header = SHORT);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(CHUNKED);
    assert_eq!(read_answer(&mut client).status, 504);
    served.wait_for_close();
}

/// A3: a client that leaves between head and body aborts the engine's work.
#[test]
fn a_client_that_leaves_behind_the_head_aborts_the_engines_work() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(CHUNKED);
    drop(client);
    served.wait_for_close();
    gateway.wait_until_idle();
}

/// A3: an answer without a byte of body begins with its end, and keeps its framing.
#[test]
fn empty_answers_end_at_once_as_they_are_framed() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    for (answer, header) in [
        (&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"[..], "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "content-length"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "x-request-id"),
    ] {
        served.read_request();
        served.send(answer);
        let got = read_answer(&mut client);
        assert!(got.body.is_empty() && got.header(header).is_some(), "{got:?}");
        client.write_all(&chat("m", "x")).unwrap();
    }
    served.read_request();
}

/// A7: a request that an engine worked on is not sent again for free.
#[test]
fn a_request_that_an_engine_worked_on_is_delivered_once() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.retries.attempts = 0);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "one")).unwrap();
    let mut kept = engine.accept();
    kept.read_request();
    kept.send(&ok("1"));
    read_answer(&mut client);
    client.write_all(&chat("m", "two")).unwrap();
    kept.read_request();
    std::thread::sleep(WORK);
    drop(kept);
    assert_eq!(read_answer(&mut client).status, 502);
    assert!(engine.try_accept(SHORT).is_err(), "and to no other connection");
}

/// A8: an engine may begin to answer before it reads the request.
#[test]
fn a_large_body_is_written_on_while_the_answer_comes() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut served = upload_large(&gateway, &engine, b"3\r\nabc\r\n");
    assert_eq!(served.request.len(), LARGE_BODY_BYTES);
    served.engine.send(b"3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(served.client.chunk(), b"def");
    assert_eq!(served.client.chunk(), b"");
}

/// A8: the same behind a head alone.
#[test]
fn a_large_body_is_written_on_behind_a_head() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut served = upload_large(&gateway, &engine, b"");
    assert_eq!(served.request.len(), LARGE_BODY_BYTES);
    served.engine.send(b"3\r\nabc\r\n0\r\n\r\n");
    served.client.head();
    assert_eq!(served.client.chunk(), b"abc");
}

/// A large upload under way.
struct Uploaded {
    engine: Served,
    client: Stream,
    /// The body that the engine read.
    request: Vec<u8>,
}

/// Sends a large body. The engine sends the head of a chunked answer and `first`, which the client gets, and then reads.
fn upload_large(gateway: &Gateway, engine: &Engine, first: &[u8]) -> Uploaded {
    let mut client = gateway.connect();
    let filler = "x".repeat(LARGE_BODY_BYTES - r#"{"model":"m","prompt":""}"#.len());
    client
        .write_all(&post("/v1/completions", "", &format!(r#"{{"model":"m","prompt":"{filler}"}}"#)))
        .unwrap();
    let mut served = engine.accept();
    served.send(&[CHUNKED, first].concat());
    let mut client = Stream::of(client);
    if !first.is_empty() {
        client.head();
        client.chunk();
    }
    let request = served.read_request().body;
    Uploaded { engine: served, client, request }
}

/// A8: an engine that refuses a body without reading it is heard.
#[test]
fn an_early_refusal_reaches_the_client_whole() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    let filler = "x".repeat(LARGE_BODY_BYTES);
    client
        .write_all(&post("/v1/completions", "", &format!(r#"{{"model":"m","prompt":"{filler}"}}"#)))
        .unwrap();
    let mut served = engine.accept();
    served.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge");
    drop(served);
    let answer = read_answer(&mut client);
    assert_eq!((answer.status, answer.body.as_slice()), (413, &b"large"[..]));
    gateway.wait_until_idle();
}

/// C10: the body of a 204 or 304, if it comes after all, is not the next client's answer.
#[test]
fn a_connection_whose_answer_announces_a_body_that_may_not_be_is_not_kept() {
    for head in ["204 No Content\r\ncontent-length: 3", "304 Not Modified\r\ntransfer-encoding: chunked"] {
        let engine = Engine::start();
        let gateway = Gateway::of(&[&engine]);
        let mut client = gateway.connect();
        client.write_all(&chat("m", "x")).unwrap();
        let mut served = engine.accept();
        served.read_request();
        served.send(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
        read_answer(&mut client);
        served.wait_for_close();
    }
}

/// C10: what an engine says unasked is not the next client's answer.
#[test]
fn an_idle_connection_over_which_something_comes_is_closed() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(&ok("1"));
    read_answer(&mut client);
    served.send(&ok("unasked"));
    served.wait_for_close();
    client.write_all(&chat("m", "y")).unwrap();
    let mut fresh = engine.accept();
    fresh.read_request();
    fresh.send(&ok("2"));
    assert_eq!(read_answer(&mut client).body, b"2");
}

/// C12: interim answers without end are a failure, at once.
#[test]
fn an_engine_that_sends_interim_answers_without_end_is_given_up() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    for _ in 0..100 {
        if !served.try_send(b"HTTP/1.1 102 Processing\r\n\r\n") {
            break;
        }
    }
    assert_eq!(read_answer(&mut client).status, 502);
}

/// The gateway's next connection to one of two engines, and the other one.
fn either(engines: &[Engine; 2]) -> (Served, &Engine) {
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        for (engine, other) in [(&engines[0], &engines[1]), (&engines[1], &engines[0])] {
            if let Ok(served) = engine.try_accept(Duration::from_millis(5)) {
                return (served, other);
            }
        }
    }
    panic!("the gateway connects to neither");
}

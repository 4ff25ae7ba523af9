//! Bounds: on bodies, on heads, on how many are in flight; and names, pins and aliases.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use domain::admission::BodyBytes;
use domain::route::Limits;

use super::rig::{Engine, Gateway, Served, chat, ok, post, read_answer};
use crate::server::ServerOptions;

#[test]
fn a_body_above_the_limit_is_413_however_it_is_framed() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.limits.body_bytes_max = 100);
    let body = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(100));
    let mut client = gateway.connect();
    client.write_all(&post("/v1/completions", "", &body)).unwrap();
    assert_eq!(read_answer(&mut client).status, 413);

    let mut client = gateway.connect();
    let chunked = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    client.write_all(chunked.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut client).status, 413);
}

#[test]
fn bodies_beyond_the_memory_for_all_are_503() {
    let engine = Engine::start();
    let options = ServerOptions { body_bytes: BodyBytes::new(50), ..ServerOptions::default() };
    let gateway = Gateway::start(|draft| vec![draft], &[&engine], options);
    let mut client = gateway.connect();
    client.write_all(&chat("m", &"x".repeat(50))).unwrap();
    assert_eq!(read_answer(&mut client).status, 503);
}

#[test]
fn a_compressed_body_is_415() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&post("/v1/completions", "content-encoding: gzip\r\n", "x")).unwrap();
    assert_eq!(read_answer(&mut client).status, 415);
}

#[test]
fn malformed_bodies_have_the_old_routers_answers() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let deep = format!(r#"{{"model":"m","x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    for (body, status, answer) in [
        ("{", 400, r#"{"error":"Invalid request: request body must be valid JSON."}"#),
        ("[]", 400, r#"{"error":"Invalid request: request body must be a JSON object."}"#),
        ("{}", 400, r#"{"error":"Invalid request: missing 'model' in request body."}"#),
        (&deep, 400, r#"{"error":"Invalid request: request body must be valid JSON."}"#),
        (
            r#"{"model":"y"}"#,
            404,
            r#"{"error":"Model 'y' not found. Available models can be listed at /v1/models."}"#,
        ),
    ] {
        let mut client = gateway.connect();
        client.write_all(&post("/v1/completions", "", body)).unwrap();
        let got = read_answer(&mut client);
        assert_eq!((got.status, String::from_utf8(got.body).unwrap().as_str()), (status, answer));
    }
}

#[test]
fn a_model_without_endpoints_is_503() {
    let gateway = Gateway::of(&[]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let answer = read_answer(&mut client);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, br#"{"error":"Model 'm' is temporarily unavailable. Please try again later."}"#);
}

#[test]
fn expecting_to_continue_is_answered_before_the_body() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    let request = post("/v1/completions", "expect: 100-continue\r\n", r#"{"model":"m"}"#);
    let body_at = request.len() - r#"{"model":"m"}"#.len();
    client.write_all(&request[..body_at]).unwrap();
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(&request[body_at..]).unwrap();
    let mut served = engine.accept();
    assert_eq!(served.read_request().header("expect"), None);
    served.send(&ok("{}"));
    assert_eq!(read_answer(&mut client).status, 200);
}

#[test]
fn the_engine_gets_its_own_name_of_the_model_and_every_other_byte() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client
        .write_all(&post("/v1/completions", "", r#"{ "n":1e400, "model" : "alias", "model":"alias" }"#))
        .unwrap();
    let mut served = engine.accept();
    let request = served.read_request();
    assert_eq!(request.body, br#"{ "n":1e400, "model" : "m", "model":"m" }"#);
    served.send(&ok("{}"));
    assert_eq!(read_answer(&mut client).status, 200);
}

#[test]
fn an_engine_id_pins_the_request() {
    let (one, two) = (Engine::start(), Engine::start());
    let gateway = Gateway::of(&[&one, &two]);
    for engine in [&one, &two, &one, &one] {
        let id = crate::local::engine_id(&crate::fixture::endpoint(&engine.url(), ""));
        let mut client = gateway.connect();
        client.write_all(&post(&format!("/v1/completions?id={id}"), "", r#"{"model":"m"}"#)).unwrap();
        let mut served = engine.accept();
        served.read_request();
        served.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(read_answer(&mut client).status, 200);
    }
    let mut client = gateway.connect();
    client.write_all(&post("/v1/completions?id=nobody", "", r#"{"model":"m"}"#)).unwrap();
    assert_eq!(read_answer(&mut client).status, 503);
}

#[test]
fn beyond_the_limit_requests_wait_in_line_and_beyond_the_line_they_get_429() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| {
        draft.settings.limits = Limits {
            in_flight_max: 1,
            queue_depth: 1,
            queue_wait_max: Duration::from_secs(600),
            ..Limits::default()
        };
    });
    let mut first = gateway.connect();
    first.write_all(&chat("m", "first")).unwrap();
    let mut served = engine.accept();
    served.read_request();

    let mut second = gateway.connect();
    second.write_all(&chat("m", "second")).unwrap();
    // It cannot be seen from outside when the second one waits; a third that is turned away shows it.
    let mut third = gateway.connect();
    gateway.wait_until_in_flight(2);
    third.write_all(&chat("m", "third")).unwrap();
    let shed = read_answer(&mut third);
    assert_eq!(shed.status, 429);
    assert_eq!(shed.header("retry-after"), Some("5"));

    served.send(&ok("1"));
    assert_eq!(read_answer(&mut first).body, b"1");
    assert!(served.read_request().body.windows(6).any(|window| window == b"second"), "the one that waited");
    served.send(&ok("2"));
    assert_eq!(read_answer(&mut second).body, b"2");
}

/// A gateway with one place, which is taken, and a line of two who wait so long; with the connection that has the place.
fn gateway_with_a_line(engine: &Engine, queue_wait_max: Duration) -> (Gateway, TcpStream, Served) {
    let gateway = Gateway::with(&[engine], |draft| {
        draft.settings.limits =
            Limits { in_flight_max: 1, queue_depth: 2, queue_wait_max, ..Limits::default() };
    });
    let mut first = gateway.connect();
    first.write_all(&chat("m", "first")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    (gateway, first, served)
}

#[test]
fn who_waited_too_long_is_turned_away() {
    let engine = Engine::start();
    let (gateway, mut first, mut served) = gateway_with_a_line(&engine, Duration::from_millis(100));
    let mut second = gateway.connect();
    second.write_all(&chat("m", "second")).unwrap();
    assert_eq!(read_answer(&mut second).status, 429);
    served.send(&ok("1"));
    assert_eq!(read_answer(&mut first).status, 200);
    gateway.wait_until_idle();
}

#[test]
fn who_left_the_line_is_forgotten() {
    let engine = Engine::start();
    let (gateway, mut first, mut served) = gateway_with_a_line(&engine, Duration::from_secs(600));
    let mut leaver = gateway.connect();
    leaver.write_all(&chat("m", "leaver")).unwrap();
    gateway.wait_until_in_flight(2);
    drop(leaver);
    gateway.wait_until_in_flight(1);
    served.send(&ok("1"));
    assert_eq!(read_answer(&mut first).status, 200);
    gateway.wait_until_idle();
}

#[test]
fn a_guard_that_cannot_be_enforced_is_503() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.routes[0].blocked = Some("promptGuard".into()));
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let answer = read_answer(&mut client);
    assert_eq!(answer.status, 503);
    assert!(String::from_utf8(answer.body).unwrap().contains("promptGuard"));
}

#[test]
fn own_pages_answer_head_and_options_is_not_allowed() {
    let gateway = Gateway::of(&[]);
    for (request, status) in [
        ("GET /version HTTP/1.1\r\nhost: h\r\n\r\n", 200),
        ("OPTIONS /v1/completions HTTP/1.1\r\nhost: h\r\n\r\n", 405),
        ("GET /nothing HTTP/1.1\r\nhost: h\r\n\r\n", 404),
        ("GET /v1/files HTTP/1.1\r\nhost: h\r\n\r\n", 405),
        ("POST /v1/files HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n", 501),
    ] {
        let mut client = gateway.connect();
        client.write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut client);
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.header("x-request-id").is_some());
    }
    let mut client = gateway.connect();
    client.write_all(b"HEAD /version HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut raw = String::new();
    client.read_to_string(&mut raw).unwrap();
    assert!(raw.starts_with("HTTP/1.1 200 OK") && raw.ends_with("\r\n\r\n"), "{raw}");
    assert!(raw.contains("content-length: "), "{raw}");
}

#[test]
fn an_engine_that_was_put_to_sleep_gets_nothing_until_it_is_woken() {
    let engine = Engine::start();
    let options = ServerOptions { engine_control: true, ..ServerOptions::default() };
    let gateway = Gateway::start(|draft| vec![draft], &[&engine], options);
    let id = crate::local::engine_id(&crate::fixture::endpoint(&engine.url(), ""));
    let ask = |request: &[u8]| {
        let mut client = gateway.connect();
        client.write_all(request).unwrap();
        client
    };
    let control = |path: &str| {
        let mut client =
            ask(format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").as_bytes());
        let mut served = engine.accept();
        let line = served.read_request().line;
        served.send(&ok("{}"));
        let answer = read_answer(&mut client);
        assert_eq!((answer.status, answer.body.as_slice()), (200, br#"{"status":"success"}"#.as_slice()));
        line
    };
    assert_eq!(control(&format!("/sleep?id={id}&level=1")), "POST /sleep?level=1 HTTP/1.1");
    assert_eq!(read_answer(&mut ask(&chat("m", "x"))).status, 503);
    let pinned = post(&format!("/v1/completions?id={id}"), "", r#"{"model":"m"}"#);
    assert_eq!(read_answer(&mut ask(&pinned)).status, 503, "nor when it is asked for by its id");

    control(&format!("/wake_up?id={id}"));
    let mut client = ask(&chat("m", "x"));
    let mut served = engine.accept();
    served.read_request();
    served.send(&ok("{}"));
    assert_eq!(read_answer(&mut client).status, 200);
}

#[test]
fn engine_control_is_off_unless_it_is_switched_on() {
    let gateway = Gateway::of(&[]);
    let mut client = gateway.connect();
    client.write_all(b"POST /sleep?id=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut client).status, 403);
}

//! How requests end that do not end well: engines that fail, clients that leave, shutdown.

use std::io::Write;
use std::time::{Duration, Instant};

use super::rig::{Engine, Gateway, LONG, Served, Stream, chat, ok, read_answer, within};

/// The bound on noticing that a client left.
const ABORT_MAX: Duration = Duration::from_secs(1);
/// The bound on draining beside a client that says nothing: less than the 15 s after which it is cut in any case.
const DRAIN_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_refused_connection_is_tried_elsewhere() {
    let (engine, nobody) = (Engine::start(), Engine::nobody());
    let gateway = Gateway::of(&[&engine, &nobody]);
    for _ in 0..4 {
        let mut client = gateway.connect();
        client.write_all(&chat("m", "x")).unwrap();
        let mut served = engine.accept();
        served.read_request();
        served.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n1");
        assert_eq!(read_answer(&mut client).status, 200);
    }
}

#[test]
fn nobody_to_connect_to_is_503_and_says_so() {
    let nobody = Engine::nobody();
    let gateway = Gateway::of(&[&nobody]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let answer = read_answer(&mut client);
    assert_eq!(answer.status, 503);
    assert!(answer.header("x-request-id").is_some(), "errors carry the id as well");
}

#[test]
fn a_status_is_passed_through_unless_its_retry_is_configured() {
    let (first, second) = (Engine::start(), Engine::start());
    let gateway = Gateway::of(&[&first]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = first.accept();
    served.read_request();
    served.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops");
    let answer = read_answer(&mut client);
    assert_eq!((answer.status, answer.body.as_slice()), (500, b"oops".as_slice()));

    let gateway = Gateway::with(&[&first, &second], |draft| draft.settings.retries.statuses = vec![500]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let (mut failing, working) = accept_either(&first, &second);
    failing.read_request();
    failing.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops");
    let mut served = working.accept();
    served.read_request();
    served.send(&ok("good"));
    assert_eq!(read_answer(&mut client).body, b"good");
}

/// The gateway's next connection to one of two engines, and the other one.
fn accept_either<'a>(first: &'a Engine, second: &'a Engine) -> (Served, &'a Engine) {
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        for (engine, other) in [(first, second), (second, first)] {
            if let Ok(served) = engine.try_accept(Duration::from_millis(5)) {
                return (served, other);
            }
        }
    }
    panic!("the gateway connects to neither");
}

#[test]
fn a_kept_connection_that_the_engine_closed_costs_the_client_nothing() {
    let engine = Engine::start();
    // Not one retry is allowed: the resend must come outside that budget.
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.retries.attempts = 0);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "one")).unwrap();
    let mut kept = engine.accept();
    kept.read_request();
    kept.send(&ok("1"));
    read_answer(&mut client);

    client.write_all(&chat("m", "two")).unwrap();
    // The engine takes the request over the kept connection and closes without a byte.
    kept.read_request();
    drop(kept);
    let mut fresh = engine.accept();
    assert!(fresh.read_request().body.ends_with(br#""two"}]}"#));
    fresh.send(&ok("2"));
    assert_eq!(read_answer(&mut client).body, b"2");
}

#[test]
fn a_fresh_connection_that_dies_without_an_answer_is_an_engines_failure() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.retries.attempts = 0);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    drop(served);
    assert_eq!(read_answer(&mut client).status, 502);
}

#[test]
fn garbage_is_not_passed_on() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(b"220 smtp ready\r\n");
    assert_eq!(read_answer(&mut client).status, 502);
    served.wait_for_close();
}

#[test]
fn a_silent_engine_ends_in_504_when_the_budget_is_used_up() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| {
        draft.settings.timeouts.response_header = Duration::from_millis(150);
    });
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    assert_eq!(read_answer(&mut client).status, 504);
    served.wait_for_close();
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let mut client = gateway.connect();
        client.write_all(&chat("m", "x")).unwrap();
        let mut served = engine.accept();
        served.read_request();
        served.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n").as_bytes());
        let mut client = Stream::of(client);
        client.head();
        drop(served);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains("abc") && !rest.contains("0\r\n\r\n"), "{head}: {rest:?}");
    }
    gateway.wait_until_idle();
}

#[test]
fn an_engine_that_goes_silent_midway_is_given_up() {
    let engine = Engine::start();
    let gateway =
        Gateway::with(&[&engine], |draft| draft.settings.timeouts.idle = Duration::from_millis(150));
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut client = Stream::of(client);
    client.head();
    assert_eq!(client.chunk(), b"abc");
    assert_eq!(client.rest(), b"");
    served.wait_for_close();
}

/// Plays a client that leaves: `pipelined` bytes behind its request, after `sent` of the answer.
fn leave(pipelined: &[u8], sent: &[u8]) {
    within("a client that leaves is noticed", ABORT_MAX, || noticed(pipelined, sent));
}

/// How long it takes until the engine's connection is closed.
fn noticed(pipelined: &[u8], sent: &[u8]) -> Duration {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    let mut raw = chat("m", "x");
    raw.extend_from_slice(pipelined);
    client.write_all(&raw).unwrap();
    let mut served = engine.accept();
    served.read_request();
    if !sent.is_empty() {
        served.send(sent);
        let mut byte = [0];
        std::io::Read::read_exact(&mut client, &mut byte).unwrap();
    }
    let left = Instant::now();
    drop(client);
    served.wait_for_close();
    let took = left.elapsed();
    gateway.wait_until_idle();
    took
}

#[test]
fn a_client_that_leaves_aborts_the_engines_work() {
    let stream = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    leave(b"", b"");
    leave(b"", stream);
    leave(&chat("m", "next"), b"");
    leave(&chat("m", "next"), stream);
    // More than the socket's buffer takes would hide the end of the connection behind it, from anybody.
    leave(&vec![b'x'; 32 << 10], b"");
}

#[test]
fn draining_finishes_what_is_in_flight_and_takes_nothing_new() {
    within("a client that says nothing does not hold it up", DRAIN_MAX, || {
        let engine = Engine::start();
        let gateway = Gateway::of(&[&engine]);
        let mut client = gateway.connect();
        client.write_all(&chat("m", "x")).unwrap();
        let mut served = engine.accept();
        served.read_request();
        let address = gateway.handle.addresses()[0];
        let idle = gateway.connect();
        let handle = gateway.handle;
        let begun = Instant::now();
        let draining = std::thread::spawn(move || handle.drain(LONG));
        while std::net::TcpStream::connect(address).is_ok() {
            std::thread::yield_now();
        }
        served.send(&ok("done"));
        let answer = read_answer(&mut client);
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"done".as_slice()));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(draining.join().unwrap(), 0, "nothing was cut off");
        drop(idle);
        begun.elapsed()
    });
}

#[test]
fn what_does_not_end_while_draining_is_cut_off_and_counted() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let mut client = gateway.connect();
    client.write_all(&chat("m", "x")).unwrap();
    let mut served = engine.accept();
    served.read_request();
    assert_eq!(gateway.handle.drain(Duration::from_millis(50)), 1);
    served.wait_for_close();
}

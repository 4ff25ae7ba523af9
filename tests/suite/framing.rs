//! Requests that two parsers could read differently: lengths, codings, heads, and the model that a body names.

use harness::client;
use harness::fleet::{chat, engine, soon};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::raw::Raw;

use crate::abuse::{BODY, CHAT, answers, gateway_before, head_and_body};

/// The body as a message of one chunk.
fn in_one_chunk() -> String {
    format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len())
}

/// What an attacker hopes that somebody takes for a request of its own.
fn hidden() -> String {
    let length = BODY.len();
    format!("POST {CHAT} HTTP/1.1\r\nHost: gw\r\nX-Hidden: 1\r\nContent-Length: {length}\r\n\r\n{BODY}")
}

/// Smuggling: whatever two parsers could read differently is refused, and nothing of it reaches an engine.
#[tokio::test]
async fn ambiguous_framing_is_refused_and_nothing_of_it_reaches_an_engine() {
    let engine = engine("m").await;
    let gateway = gateway_before(&engine, &[]).await;
    let length = BODY.len();
    let (chunked, hidden) = (in_one_chunk(), hidden());
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
        ("a coding before chunked", head_and_body("Transfer-Encoding: gzip, chunked\r\n", &chunked).into()),
        ("chunked twice", head_and_body("Transfer-Encoding: chunked, chunked\r\n", &chunked).into()),
        (
            "codings on two lines",
            head_and_body("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", &chunked).into(),
        ),
        ("two hosts", head_and_body(&format!("Host: other\r\nContent-Length: {length}\r\n"), BODY).into()),
        (
            "no host",
            head_and_body(&format!("Content-Length: {length}\r\n"), BODY).replace("Host: gw\r\n", "").into(),
        ),
        (
            "a space in the host",
            head_and_body(&format!("Content-Length: {length}\r\n"), BODY)
                .replace("Host: gw", "Host: gw x")
                .into(),
        ),
        (
            "a user in the host",
            head_and_body(&format!("Content-Length: {length}\r\n"), BODY)
                .replace("Host: gw", "Host: user@gw")
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
        // 408 would say that it waited for more.
        if !matches!(statuses[..], [] | [400..=407 | 409..=499] | [501 | 505]) || received > 0 {
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
    let (chunked, hidden) = (in_one_chunk(), hidden());
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

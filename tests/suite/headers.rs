//! Header lines: which of them pass, which end here, and whose credentials an engine sees.

use engine::http::{Config, Engine, Fault};
use harness::client::{self, Connection, request};
use harness::fleet::{chat, engine};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::raw::Raw;
use http::Method;
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";
/// A header line, or none.
type Line<'a> = Option<(&'a str, &'a str)>;

/// D10
#[tokio::test]
async fn request_ids_are_echoed_on_every_answer_and_reach_the_engine() {
    let engine = engine("m").await;
    let manifest = Manifest::new()
        .gateway("timeouts: {responseHeader: 3s}\nlimits: {maxBodyBytes: 4096}")
        .model("m", [engine.url()])
        .model("gone", ["http://127.0.0.1:1"])
        .model_with("guarded", [engine.url()], "nlpFilters: {promptGuard: {blockedPatterns: [x]}}");
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let large = chat("m", &"x".repeat(5_000)).to_string();
    let hang = ("x-engine-fault", "hang");
    let (broken, guarded, gone, unknown) = (
        "{".to_owned(),
        chat("guarded", "x").to_string(),
        chat("gone", "x").to_string(),
        chat("x", "x").to_string(),
    );
    let fine = chat("m", "hi").to_string();
    let cases: [(&str, &str, Line<'_>, &str, u16); 11] = [
        ("POST", CHAT, None, &fine, 200),
        ("POST", CHAT, None, &broken, 400),
        ("POST", CHAT, None, &unknown, 404),
        ("POST", "/v1/nothing", None, &fine, 404),
        ("GET", CHAT, None, "", 405),
        ("POST", CHAT, None, &large, 413),
        ("POST", CHAT, Some(("content-encoding", "gzip")), &fine, 415),
        ("POST", "/v1/files", None, "x", 501),
        ("POST", CHAT, None, &guarded, 503),
        ("POST", CHAT, None, &gone, 503),
        ("POST", CHAT, Some(hang), &fine, 504),
    ];
    for (method, path, header, body, status) in cases {
        let method: Method = method.parse().unwrap();
        let id = format!("id-{status}~!");
        let headers: Vec<(&str, &str)> = header.into_iter().chain([("X-Request-Id", id.as_str())]).collect();
        let mut connection = Connection::open(gateway.data).await;
        let answer = connection.call(method.clone(), path, &headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{status}");
        if status == 200 {
            assert_eq!(engine.last_request().unwrap().header("x-request-id"), Some(id.as_str()));
        }
        let headers: Vec<(&str, &str)> = header.into_iter().collect();
        let answer = Connection::open(gateway.data).await.call(method, path, &headers, body.to_owned()).await;
        let id = answer.header("x-request-id").expect("an id of ours").to_owned();
        let version = uuid::Uuid::parse_str(&id).expect("a uuid").get_version_num();
        assert_eq!(version, 4, "{id}");
        if status == 200 {
            let received = engine.last_request().unwrap();
            assert_eq!(received.headers.get_all("x-request-id").iter().count(), 1);
            assert_eq!(received.header("x-request-id"), Some(id.as_str()), "the same id at the engine");
        }
    }
}

/// D10: what could confuse a log or an engine is no id.
#[tokio::test]
async fn unfit_request_ids_are_replaced_by_ours() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    for unfit in ["with space".to_owned(), "x".repeat(5_000), String::new(), "tab\there".to_owned()] {
        let headers = [("x-request-id", unfit.as_str())];
        let answer = client::post(gateway.data, CHAT, &headers, chat("m", "hi").to_string()).await;
        let id = answer.header("x-request-id").expect("an id");
        uuid::Uuid::parse_str(id).unwrap_or_else(|_| panic!("{id} for {unfit:?}"));
        assert_eq!(engine.last_request().unwrap().header("x-request-id"), Some(id));
    }
}

/// D11
#[tokio::test]
async fn lines_about_the_clients_connection_end_here_and_all_others_pass() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let body = chat("m", "hi").to_string();
    let mut raw = Raw::open(gateway.data).await;
    raw.send(format!(
        "POST {CHAT}?a=b&c=%20 HTTP/1.1\r\nHost: gate.example\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers\r\nTrailer: x\r\n\
         X-Hop: secret\r\nAuthorization: Bearer client\r\n\
         Content-Type: application/json; charset=utf-8\r\nAccept-Encoding: gzip\r\nX-Twice: 1\r\nX-Twice: 2\r\n\
         X-Forwarded-For: 192.0.2.7\r\ntraceparent: 00-1-2-01\r\nCookie: a=b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let answer = raw.answer().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let received = engine.last_request().unwrap();
    for gone in [
        "connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "x-hop",
        "transfer-encoding",
        "upgrade",
    ] {
        assert_eq!(received.headers.get(gone), None, "{gone}");
    }
    let kept = [
        ("authorization", "Bearer client"),
        ("content-type", "application/json; charset=utf-8"),
        ("accept-encoding", "gzip"),
        ("traceparent", "00-1-2-01"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "192.0.2.7, 127.0.0.1"),
        ("host", &engine.addr().to_string()),
        ("content-length", &body.len().to_string()),
    ];
    for (name, value) in kept {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
    let twice: Vec<_> = received.headers.get_all("x-twice").iter().collect();
    assert_eq!(twice, ["1", "2"], "repeated lines stay apart and in order");
    assert_eq!(received.target, format!("{CHAT}?a=b&c=%20"));
    assert_eq!(received.body, body.as_bytes());
}

/// D11
#[tokio::test]
async fn lines_about_the_engines_connection_end_here_and_all_others_pass() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let lines = [
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("server", "uvicorn"),
        ("x-kept", "yes"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("retry-after", "7"),
    ];
    let headers = lines.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let body = r#"{"error":{"message":"odd", "code":418}}"#;
    engine.push_faults([Fault::Status { code: 418, body: Some(body.into()), headers }]);
    let answer = gateway.post(CHAT, &chat("m", "hi")).await;
    assert_eq!(answer.status, 418, "the engine's status is the answer's");
    assert_eq!(answer.text(), body, "and so is its body, byte for byte");
    for gone in ["x-hop", "keep-alive", "server"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!((answer.header("x-kept"), answer.header("retry-after")), (Some("yes"), Some("7")));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
}

/// D11
#[tokio::test]
async fn compressed_answers_reach_the_client_byte_for_byte_with_their_coding() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    let body = json!({"model": "m", "input": "x".repeat(2_000)}).to_string();
    for fault in ["gzip", "chunked", "none", "until-close"] {
        let headers = [("x-engine-fault", fault), ("accept-encoding", "gzip")];
        let direct = client::post(engine.addr(), "/v1/embeddings", &headers, body.clone()).await;
        let through = client::post(gateway.data, "/v1/embeddings", &headers, body.clone()).await;
        assert_eq!(through.status, 200, "{fault}");
        assert_eq!(through.body, direct.body, "{fault}");
        assert_eq!(through.header("content-encoding"), direct.header("content-encoding"), "{fault}");
        assert_eq!(through.header("content-type"), direct.header("content-type"), "{fault}");
    }
}

/// An engine's interim answers do not disturb the final one, and large heads pass.
#[tokio::test]
async fn interim_and_large_heads_of_engines_are_understood() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    for fault in ["interim=2", "big-headers=16000"] {
        let headers = [("x-engine-fault", fault)];
        let answer = client::post(gateway.data, CHAT, &headers, chat("m", "hi").to_string()).await;
        assert_eq!(answer.status, 200, "{fault}: {}", answer.text());
        assert_eq!(answer.json()["object"], "chat.completion");
    }
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
}

/// Credentials of an engine: from a Secret, or the client's own where that is wanted (resources.md, `auth`).
#[tokio::test]
async fn engines_see_the_clients_credentials_or_ours_as_the_service_says() {
    let guarded = |model: &str| Config { api_key: Some("sesame".into()), ..Config::model(model) };
    let client_first = Engine::start(guarded("client-first")).await.unwrap();
    let ours_only = Engine::start(guarded("ours-only")).await.unwrap();
    let own_header = engine("own-header").await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {token: sesame}";
    let manifest = Manifest::new()
        .model_with("client-first", [client_first.url()], "auth: {secretRef: {name: keys, key: token}}")
        .model_with(
            "ours-only",
            [ours_only.url()],
            "auth: {secretRef: {name: keys, key: token}, forwardClient: false}",
        )
        .model_with(
            "own-header",
            [own_header.url()],
            "auth: {secretRef: {name: keys, key: token}, header: X-Api-Key, forwardClient: false}",
        )
        .document(secret);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let ask = async |model: &str, headers: &[(&str, &str)]| {
        let body = chat(model, "hi").to_string();
        let mut connection = Connection::open(gateway.data).await;
        let request = request(gateway.data, Method::POST, CHAT, headers, body);
        client::read(connection.send(request).await.unwrap()).await.status.as_u16()
    };
    let client = [("authorization", "Bearer mine")];
    assert_eq!(ask("client-first", &[]).await, 200, "without one of the client's, ours");
    assert_eq!(ask("client-first", &client).await, 401, "the client's own goes before ours");
    assert_eq!(client_first.last_request().unwrap().header("authorization"), Some("Bearer mine"));
    assert_eq!(ask("ours-only", &client).await, 200, "ours in place of the client's");
    assert_eq!(ours_only.last_request().unwrap().headers.get_all("authorization").iter().count(), 1);
    assert_eq!(ask("own-header", &[("authorization", "Bearer mine"), ("x-api-key", "theirs")]).await, 200);
    let received = own_header.last_request().unwrap();
    assert_eq!(received.header("x-api-key"), Some("sesame"));
    assert_eq!(received.header("authorization"), Some("Bearer mine"), "another header is not touched");
    assert!(!gateway.log_text().contains("sesame"), "credentials are never logged");
    assert!(!gateway.admin_page("/snapshot").await.text().contains("sesame"));
}

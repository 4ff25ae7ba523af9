//! Against a real server on loopback, with and without TLS.

use domain::endpoint::EngineAuth;
use http::header::AUTHORIZATION;

use super::*;
use crate::observe::fake_engine::{FakeEngine, Script, acceptor, certificate, spec};

fn question(spec: EndpointSpec, path: &str) -> Question {
    let tls = Trust::default().config(&spec);
    Question {
        target: spec.target,
        address: None,
        auth: spec.auth,
        access: Access { tls, names: Names::default() },
        port: None,
        path: path.into(),
        accept: "text/plain",
        bytes_max: 100,
    }
}

#[tokio::test]
async fn a_request_carries_credentials_host_and_base_path() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/base/x", 200, "hello");
    let mut spec = engine.spec();
    spec.target.base_path = "/base".into();
    let auth = EngineAuth {
        header: AUTHORIZATION,
        value: HeaderValue::from_static("Bearer s"),
        forward_client: true,
    };
    spec.auth = Some(Arc::new(auth));
    assert_eq!(get_whole(&question(spec, "/x")).await.expect("200"), b"hello");
    let head = engine.asked("/base/x").await;
    for line in [&format!("host: 127.0.0.1:{}", engine.port), "accept: text/plain", "authorization: Bearer s"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
}

#[tokio::test]
async fn a_port_of_its_own_leaves_the_base_path_out() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/metrics", 200, "");
    let mut elsewhere = spec("http://127.0.0.1:1");
    elsewhere.target.base_path = "/base".into();
    let question = Question { port: Some(engine.port), ..question(elsewhere, "/metrics") };
    get_whole(&question).await.expect("200");
    assert!(engine.asked("/metrics").await.contains(&format!("host: 127.0.0.1:{}\r\n", engine.port)));
}

#[tokio::test]
async fn every_way_to_fail_is_told_apart() {
    let engine = FakeEngine::start().await;
    engine.answer("/500", 500, "x");
    engine.answer("/big", 200, &"x".repeat(101));
    engine.on("/garbage", Script::Raw(b"not http at all\r\n\r\n".to_vec()));
    engine.on("/cut", Script::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort".to_vec()));
    engine.on("/close-delimited", Script::Raw(b"HTTP/1.1 200 OK\r\n\r\nall of it".to_vec()));
    let ask = async |path: &str| get_whole(&question(engine.spec(), path)).await;
    assert!(matches!(ask("/500").await, Err(ProbeError::Status(StatusCode::INTERNAL_SERVER_ERROR))));
    assert!(matches!(ask("/big").await, Err(ProbeError::TooLarge { limit_bytes: 100 })));
    assert!(matches!(ask("/garbage").await, Err(ProbeError::Exchange(_))));
    assert!(matches!(ask("/cut").await, Err(ProbeError::Exchange(_))));
    assert_eq!(ask("/close-delimited").await.expect("200"), b"all of it");
    let nobody = question(spec("http://127.0.0.1:1"), "/");
    assert!(matches!(get_whole(&nobody).await, Err(ProbeError::Connect(_))));
}

#[tokio::test]
async fn a_certificate_is_believed_if_the_bundle_or_nobody_says_so() {
    let key = certificate(&["localhost"]);
    let engine = FakeEngine::start_with(Some(acceptor(&key))).await;
    engine.answer("/x", 200, "secret");
    let ask = async |tls: Option<EngineTls>| {
        let mut spec = spec(&format!("https://localhost:{}", engine.port));
        spec.tls = tls.map(Arc::new);
        get_whole(&question(spec, "/x")).await
    };
    let bundle = |pem: &str| EngineTls {
        ca_pem: Some(pem.as_bytes().into()),
        insecure_skip_verify: false,
        names: Vec::new(),
    };
    assert_eq!(ask(Some(bundle(&key.cert.pem()))).await.expect("trusted"), b"secret");
    let blind = EngineTls { ca_pem: None, insecure_skip_verify: true, names: Vec::new() };
    assert_eq!(ask(Some(blind)).await.expect("not verified"), b"secret");
    for untrusted in [
        None,
        Some(bundle("")),
        Some(bundle("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    ] {
        assert!(matches!(ask(untrusted).await, Err(ProbeError::Tls(_))));
    }
}

#[tokio::test]
async fn a_door_is_known_by_its_name_wherever_it_stands() {
    let key = certificate(&["router.default.svc"]);
    let engine = FakeEngine::start_with(Some(acceptor(&key))).await;
    engine.answer("/health", 200, "");
    let bundle = EngineTls {
        ca_pem: Some(key.cert.pem().as_bytes().into()),
        insecure_skip_verify: false,
        names: Vec::new(),
    };
    let access = Access { tls: trust::client_config(&bundle), names: Names::default() };
    let address = Some(SocketAddr::from(([127, 0, 0, 1], engine.port)));
    let ask = async |host: &str| {
        let target = spec(&format!("https://{host}:{}", engine.port)).target;
        knock(Door { target, address }, &access, "/health", 100).await
    };
    ask("router.default.svc").await.expect("its name is on the certificate");
    let stranger = ask("other.default.svc").await.expect_err("another name");
    assert!(matches!(stranger, ProbeError::Tls(_)));
    let told = crate::causes::with_causes(&stranger);
    assert!(told.starts_with("TLS failed: invalid peer certificate: ") && told.contains("other.default.svc"));
}

/// B2: one redirect on the same host is followed, with credentials; others are said to lead elsewhere.
#[tokio::test]
async fn one_redirect_on_the_same_host_is_followed() {
    let mut engine = FakeEngine::start().await;
    let redirect = |to: &str| {
        Script::Raw(format!("HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into())
    };
    engine.answer("/metrics/", 200, "numbers");
    engine.on("/metrics", redirect("/metrics/"));
    engine.on("/whole", redirect(&format!("http://127.0.0.1:{}/metrics/", engine.port)));
    engine.on("/twice", redirect("/metrics"));
    engine.on("/away", redirect("http://other.example/metrics/"));
    let mut spec = engine.spec();
    let value = HeaderValue::from_static("Bearer s");
    spec.auth = Some(Arc::new(EngineAuth { header: AUTHORIZATION, value, forward_client: true }));
    let ask = async |path: &str| get_whole(&question(spec.clone(), path)).await;
    for path in ["/metrics", "/whole"] {
        assert_eq!(ask(path).await.expect("followed"), b"numbers", "{path}");
        assert!(engine.asked("/metrics/").await.contains("\r\nauthorization: Bearer s\r\n"), "{path}");
    }
    let told = ask("/twice").await.expect_err("a second redirect").to_string();
    assert_eq!(told, "answered 307 Temporary Redirect, which leads to /metrics/");
    let told = ask("/away").await.expect_err("another host").to_string();
    assert_eq!(told, "answered 307 Temporary Redirect, which leads to http://other.example/metrics/");
}

/// B2: gzip is understood, within the bound; what is cut or encoded otherwise is no answer.
#[tokio::test]
async fn gzip_is_understood_and_bounded() {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    let zip = |text: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    };
    let engine = FakeEngine::start().await;
    let serve = |path: &str, encoding: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 200 X\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        engine.on(path, Script::Raw([head.as_bytes(), body].concat()));
    };
    let ask = async |path: &str| get_whole(&question(engine.spec(), path)).await;
    serve("/zipped", "GZIP", &zip(b"hello"));
    serve("/twice", "gzip", &[zip(b"hel"), zip(b"lo")].concat());
    serve("/identity", "identity", b"hello");
    for path in ["/zipped", "/twice", "/identity"] {
        assert_eq!(ask(path).await.expect("understood"), b"hello", "{path}");
    }
    serve("/bomb", "gzip", &zip(&vec![0; 32 << 10]));
    assert!(matches!(ask("/bomb").await, Err(ProbeError::TooLarge { limit_bytes: 100 })));
    let whole = zip(b"hello");
    serve("/cut", "gzip", &whole[..whole.len() - 9]);
    serve("/garbage", "gzip", b"hello");
    for path in ["/cut", "/garbage"] {
        assert!(matches!(ask(path).await, Err(ProbeError::Content)), "{path}");
    }
    serve("/br", "br", b"x");
    assert_eq!(ask("/br").await.expect_err("unknown").to_string(), "answered in content encoding br");
}

//! Web pages of other origins, paths that gateways list, and requests that ask for another protocol.

use std::io::Write;
use std::sync::Arc;

use domain::surface::{Cors, FurtherPath, ModelPlace};
use http::{HeaderValue, Method};

use super::rig::{Engine, Gateway, Message, chat, ok, post, read_answer};
use crate::fixture;
use crate::server::ServerOptions;

fn cors(origins: Option<&[&str]>) -> Option<Arc<Cors>> {
    Some(Arc::new(Cors {
        origins: origins.map(|listed| listed.iter().map(|one| (*one).into()).collect()),
        methods: Some(HeaderValue::from_static("GET, POST")),
        headers: None,
        expose: Some(HeaderValue::from_static("x-request-id")),
        credentials: origins.is_some(),
        max_age: HeaderValue::from_static("600"),
    }))
}

fn ask(gateway: &Gateway, request: &str) -> Message {
    let mut client = gateway.connect();
    client.write_all(request.as_bytes()).unwrap();
    read_answer(&mut client)
}

fn preflight(target: &str, origin: &str) -> String {
    format!(
        "OPTIONS {target} HTTP/1.1\r\nhost: h\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: authorization, x-mine\r\n\r\n"
    )
}

/// B8: a browser's question is answered here, for any path and model.
#[test]
fn preflights_are_answered_without_an_engine() {
    let gateway = Gateway::with(&[], |draft| draft.settings.cors = cors(Some(&["https://a.example"])));
    for target in ["/v1/chat/completions", "/v1/models/x", "/nowhere", "/gateways/default/g/v1/completions"] {
        let answer = ask(&gateway, &preflight(target, "https://a.example"));
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{target}");
        for (name, value) in [
            ("access-control-allow-origin", "https://a.example"),
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-allow-headers", "authorization, x-mine"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(answer.headers(name), [value], "{target}: {name}");
        }
        assert!(answer.headers("vary").contains(&"Origin") && answer.header("x-request-id").is_some());
    }
    let refused = ask(&gateway, &preflight("/v1/chat/completions", "https://b.example"));
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
    assert_eq!(refused.headers("vary"), ["Origin"]);
    let nowhere = ask(&gateway, &preflight("/gateways/default/other/v1/completions", "https://a.example"));
    assert_eq!(nowhere.status, 405, "a gateway that does not exist says nothing");
    let plain = ask(&gateway, "OPTIONS /v1/models HTTP/1.1\r\nhost: h\r\norigin: https://a.example\r\n\r\n");
    assert_eq!((plain.status, plain.header("allow")), (405, Some("GET, HEAD")), "no preflight");
    assert_eq!(plain.header("access-control-allow-origin"), Some("https://a.example"));
}

/// B8: answers carry what the gateway says, once, whatever an engine says.
#[test]
fn answers_carry_the_gateways_words_in_place_of_the_engines() {
    let engine = Engine::start();
    let origins = cors(Some(&["https://a.example"]));
    let gateway = Gateway::with(&[&engine], |draft| draft.settings.cors = origins);
    let answered = |origin: &str| {
        let mut client = gateway.connect();
        client.write_all(&post("/v1/completions", origin, r#"{"model":"m"}"#)).unwrap();
        let mut served = engine.accept();
        served.read_request();
        served.send(
            b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n\
              access-control-expose-headers: x-secret\r\nvary: Accept-Encoding\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        );
        read_answer(&mut client)
    };
    let allowed = answered("origin: https://a.example\r\n");
    assert_eq!(allowed.headers("access-control-allow-origin"), ["https://a.example"]);
    assert_eq!(allowed.headers("access-control-allow-credentials"), ["true"]);
    assert_eq!(allowed.headers("access-control-expose-headers"), ["x-request-id"]);
    assert_eq!(allowed.headers("vary"), ["Accept-Encoding", "Origin"]);
    for other in ["", "origin: https://b.example\r\n", "origin: null\r\n"] {
        let answer = answered(other);
        assert_eq!(answer.status, 200, "it is no access control");
        let said = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control"));
        assert_eq!(said.count(), 0, "{other:?}: {:?}", answer.headers);
        assert_eq!(answer.headers("vary"), ["Accept-Encoding", "Origin"]);
    }
    let mut client = gateway.connect();
    client.write_all(&post("/v1/completions", "origin: https://a.example\r\n", r#"{"model":"?"}"#)).unwrap();
    let failed = read_answer(&mut client);
    assert_eq!(
        (failed.status, failed.header("access-control-allow-origin")),
        (404, Some("https://a.example"))
    );
}

/// B8: a gateway that says nothing about pages changes nothing.
#[test]
fn without_the_setting_engines_words_pass_and_preflights_do_not() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    let answer = ask(&gateway, &preflight("/v1/chat/completions", "https://a.example"));
    assert_eq!((answer.status, answer.header("allow"), answer.header("vary")), (405, Some("POST"), None));
    let mut client = gateway.connect();
    client.write_all(&post("/v1/completions", "origin: https://a.example\r\n", r#"{"model":"m"}"#)).unwrap();
    let mut served = engine.accept();
    served.read_request();
    served.send(b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 0\r\n\r\n");
    let answer = read_answer(&mut client);
    assert_eq!(answer.headers("access-control-allow-origin"), ["*"]);
    assert_eq!(answer.header("vary"), None);
}

/// B8: of two gateways that none names, the one that routes the model says who sees its answer.
#[test]
fn the_gateway_that_answers_says_who_may_see_it() {
    let engine = Engine::start();
    let endpoint = fixture::endpoint(&engine.url(), "");
    let drafts = |mut first: domain::draft::GatewayDraft| {
        first.settings.cors = cors(None);
        let mut second = fixture::gateway("second", vec![fixture::route("other", &[endpoint])]);
        second.aliases.clear();
        second.settings.cors = cors(Some(&["https://b.example"]));
        vec![first, second]
    };
    let gateway = Gateway::start(drafts, &[&engine], ServerOptions::default());
    let mut connection = None;
    let mut seen = |model: &str, origin: &str| {
        let mut client = gateway.connect();
        let body = format!(r#"{{"model":"{model}"}}"#);
        client.write_all(&post("/v1/completions", &format!("origin: {origin}\r\n"), &body)).unwrap();
        let served = connection.get_or_insert_with(|| engine.accept());
        served.read_request();
        served.send(&ok("{}"));
        read_answer(&mut client).header("access-control-allow-origin").map(ToOwned::to_owned)
    };
    assert_eq!(seen("m", "https://a.example").as_deref(), Some("*"));
    assert_eq!(seen("other", "https://a.example"), None);
    assert_eq!(seen("other", "https://b.example").as_deref(), Some("https://b.example"));
    assert_eq!(ask(&gateway, &preflight("/v1/completions", "https://a.example")).status, 204);
    let named = ask(&gateway, &preflight("/gateways/default/second/v1/completions", "https://a.example"));
    assert_eq!(named.status, 403);
}

fn listed(path: &str, is_prefix: bool, methods: &[Method], model: ModelPlace) -> FurtherPath {
    let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ").into();
    FurtherPath { path: path.into(), is_prefix, methods: methods.to_vec(), allow, model }
}

/// B8: paths that a gateway lists go to an engine of the model, wherever requests say it.
#[test]
fn listed_paths_go_to_an_engine_of_the_model() {
    let engine = Engine::start();
    let gateway = Gateway::with(&[&engine], |draft| {
        draft.settings.paths = Arc::new([
            listed("/v1/custom", false, &[Method::POST], ModelPlace::Body),
            listed("/plugins", true, &[Method::GET, Method::POST], ModelPlace::Query),
            listed("/fixed", true, &[Method::GET, Method::PUT], ModelPlace::Fixed("alias".into())),
        ]);
    });
    let large = "x".repeat(2 << 20);
    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n";
    let cases = [
        ("POST", "/v1/custom", "", r#"{"model":"m","x":1}"#),
        ("POST", "//v1/custom/", "", r#"{"model":"m"}"#),
        ("POST", "/gateways/default/g/v1/custom?a=b", "", r#"{"model":"m"}"#),
        ("POST", "/v1/custom", "content-type: multipart/form-data; boundary=b\r\n", form),
        ("POST", "/plugins?model=m", "", "not JSON"),
        ("GET", "/plugins/a%20b?model=alias", "", ""),
        ("PUT", "/fixed/a/b", "", &large),
        ("GET", "/fixed", "", ""),
    ];
    for (method, target, headers, body) in cases {
        let length = body.len();
        let mut client = gateway.connect();
        let head =
            format!("{method} {target} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{headers}\r\n");
        client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
        let mut served = engine.accept();
        let request = served.read_request();
        let path = target.strip_prefix("/gateways/default/g").unwrap_or(target);
        let path = if path == "//v1/custom/" { "/v1/custom" } else { path };
        assert_eq!(request.line, format!("{method} {path} HTTP/1.1"));
        assert_eq!(request.body.len(), body.len(), "{target}");
        served.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        assert_eq!(read_answer(&mut client).status, 200, "{target}");
    }
    for (request, status, allow) in [
        ("POST /v1/custom/below", 404, None),
        ("POST /v1/customs", 404, None),
        ("GET /v1/custom", 405, Some("POST")),
        ("DELETE /plugins/x?model=m", 405, Some("GET, POST")),
        ("POST /plugins/x", 400, None),
        ("GET /plugins/x?model=?", 404, None),
        ("GET /plugins/../sleep?model=m", 404, None),
        ("POST /plugins/%2e%2e/sleep?model=m", 404, None),
        ("GET /gateways/default/other/fixed", 404, None),
    ] {
        let answer = ask(&gateway, &format!("{request} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"));
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{request}");
    }
}

/// B8: a client that wants a WebSocket reads why it gets none; one that offers HTTP/2 is served as it is.
#[test]
fn upgrades_are_refused_in_words() {
    let gateway = Gateway::of(&[]);
    let asked = |target: &str, upgrade: &str| {
        let connection = "connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n";
        ask(&gateway, &format!("GET {target} HTTP/1.1\r\nhost: h\r\nupgrade: {upgrade}\r\n{connection}\r\n"))
    };
    for (target, words) in [
        ("/v1/realtime?model=m", "the realtime API needs a WebSocket"),
        ("/v1/realtime", "the realtime API"),
        ("/v1/chat/completions", "upgrades no connection"),
        ("/nowhere", "upgrades no connection"),
    ] {
        let answer = asked(target, "websocket");
        assert_eq!(answer.status, 501, "{target}");
        assert!(String::from_utf8(answer.body).unwrap().contains(words), "{target}");
    }
    assert_eq!(asked("/health", "h2c").status, 200);
    let mut client = gateway.connect();
    client.write_all(&post("/v1/realtime/sessions", "", "{}")).unwrap();
    assert_eq!(read_answer(&mut client).status, 501);
}

/// B8: doubled slashes and one at the end are no other path, and the engine does not see them.
#[test]
fn careless_slashes_lead_where_they_were_meant_to() {
    let engine = Engine::start();
    let gateway = Gateway::of(&[&engine]);
    for target in [
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/gateways//default/g//v1//chat/completions/?a=b//c/",
    ] {
        let mut client = gateway.connect();
        let request = String::from_utf8(chat("m", "x")).unwrap().replacen("/v1/chat/completions", target, 1);
        client.write_all(request.as_bytes()).unwrap();
        let mut served = engine.accept();
        let query = if target.contains('?') { "?a=b//c/" } else { "" };
        assert_eq!(served.read_request().line, format!("POST /v1/chat/completions{query} HTTP/1.1"));
        served.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        assert_eq!(read_answer(&mut client).status, 200, "{target}");
    }
    assert_eq!(ask(&gateway, "GET //v1/models/ HTTP/1.1\r\nhost: h\r\n\r\n").status, 200);
}

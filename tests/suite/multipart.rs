//! Uploads: forms with files reach the engine of the model that a field names, byte for byte.

use engine::http::{Config, Engine};
use harness::client;
use harness::fleet::engine;
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;

const BOUNDARY: &str = "----form-Boundary'7";

/// A form: name, file name, bytes.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        body.extend_from_slice(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"").as_bytes(),
        );
        if let Some(file) = file {
            body.extend_from_slice(
                format!("; filename=\"{file}\"\r\nContent-Type: application/octet-stream").as_bytes(),
            );
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// Every byte there is, line ends and what looks like a boundary or a model among them.
fn file(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 256) as u8).collect();
    bytes.extend_from_slice(b"\r\n--\r\n--not the boundary\r\n\r\n\0\r\nname=\"model\"\r\n\r\nwrong\r\n");
    bytes
}

/// D29
#[tokio::test]
async fn forms_with_files_reach_their_models_engine_byte_for_byte() {
    // Their logs keep the largest of these bodies whole.
    let whole = |model: &str| Config { log_body_bytes_max: 4 << 20, ..Config::model(model) };
    let a = Engine::start(whole("a")).await.unwrap();
    let b = Engine::start(whole("b")).await.unwrap();
    let manifest = Manifest::new().model("a", [a.url()]).model("b", [b.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let content_type = format!("multipart/form-data; boundary=\"{BOUNDARY}\"");
    let headers = [("content-type", content_type.as_str())];
    let (audio, image, mask) = (file(300_000), file(2_000_000), file(1_000));
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"] {
        for (model, engine) in [("a", &a), ("b", &b)] {
            let bodies = match path {
                "/v1/images/edits" => [
                    // The model before the files, and after them.
                    form(&[
                        ("model", None, model.as_bytes()),
                        ("image", Some("a.png"), &image),
                        ("mask", Some("m.png"), &mask),
                        ("prompt", None, b"a gate"),
                        ("x_unknown", None, b"kept"),
                    ]),
                    form(&[
                        ("image", Some("a.png"), &image),
                        ("mask", Some("m.png"), &mask),
                        ("prompt", None, b"a gate"),
                        ("x_unknown", None, b"kept"),
                        ("model", None, model.as_bytes()),
                    ]),
                ],
                _ => [
                    form(&[
                        ("model", None, model.as_bytes()),
                        ("file", Some("model"), &audio),
                        ("x_unknown", None, b"kept"),
                    ]),
                    form(&[
                        ("file", Some("a.wav"), &audio),
                        ("x_unknown", None, b"kept"),
                        ("model", None, model.as_bytes()),
                    ]),
                ],
            };
            for body in bodies {
                let answer = client::post(gateway.data, path, &headers, body.clone()).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.engine()),
                    (200, engine.name()),
                    "{path}: {}",
                    answer.text()
                );
                let received = engine.last_request().unwrap();
                assert_eq!(
                    (received.path(), received.header("content-type")),
                    (path, Some(content_type.as_str()))
                );
                assert_eq!(received.body_bytes, body.len() as u64);
                assert!(received.body == body, "{path}: bytes differ");
            }
        }
    }
}

/// D29: a form without a model, or that is none, is refused.
#[tokio::test]
async fn forms_that_name_no_model_are_refused() {
    let a = engine("a").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("a", [a.url()]).yaml())).await;
    let content_type = format!("multipart/form-data; boundary=\"{BOUNDARY}\"");
    let path = "/v1/audio/transcriptions";
    let whole = form(&[("model", None, b"a"), ("file", Some("a.wav"), &file(1_000))]);
    let cases: [(&str, Vec<u8>); 4] = [
        (&content_type, form(&[("file", Some("a.wav"), &file(1_000))])),
        (&content_type, b"no form".to_vec()),
        ("multipart/form-data; boundary=another", whole.clone()),
        ("multipart/form-data", whole.clone()),
    ];
    for (content_type, body) in cases {
        let answer = client::post(gateway.data, path, &[("content-type", content_type)], body).await;
        assert!((400..500).contains(&answer.status.as_u16()), "{content_type}: {}", answer.text());
    }
    let body = form(&[("model", None, b"nobody's"), ("file", Some("a.wav"), &file(1_000))]);
    let answer = client::post(gateway.data, path, &[("content-type", &content_type)], body).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(a.counts().received, 0);
    let answer = client::post(gateway.data, path, &[("content-type", &content_type)], whole).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// B7: forms as other clients write them, which Starlette takes: odd boundaries, names of files that are not UTF-8.
#[tokio::test]
async fn forms_that_starlette_takes_reach_their_models_engine_byte_for_byte() {
    let (a, b) = (engine("a").await, engine("b").await);
    let manifest = Manifest::new().model("a", [a.url()]).model("b", [b.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    for boundary in ["a*b#c@d", "{x}$!%&^~`|", &"b".repeat(200)] {
        for name in [&b"caf\xe9.wav"[..], b"\x95\x5c.wav", "\u{4f60}.wav".as_bytes()] {
            for (model, engine) in [("a", &a), ("b", &b)] {
                let disposition = b"\r\nContent-Disposition: form-data; name=";
                let mark = format!("--{boundary}").into_bytes();
                let body = [
                    &mark,
                    &disposition[..],
                    b"\"file\"; filename=\"",
                    name,
                    b"\"\r\n\r\nRIFF\r\n",
                    &mark,
                    disposition,
                    b"\"model\"\r\n\r\n",
                    model.as_bytes(),
                    b"\r\n",
                    &mark,
                    b"--\r\n",
                ]
                .concat();
                let content_type = format!("multipart/form-data; boundary={boundary}");
                let headers = [("content-type", content_type.as_str())];
                let answer =
                    client::post(gateway.data, "/v1/audio/transcriptions", &headers, body.clone()).await;
                let seen = (answer.status.as_u16(), answer.engine());
                assert_eq!(seen, (200, engine.name()), "{content_type} {name:?}: {}", answer.text());
                assert!(engine.last_request().unwrap().body == body, "{content_type} {name:?}: bytes differ");
            }
        }
    }
}

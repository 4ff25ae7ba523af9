use std::io;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use ::http::StatusCode;

const CHAT: &str = "/v1/chat/completions";

async fn connect(engine: &EngineHandle) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(engine.addr()).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Full<Bytes>> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let mut request = Request::builder().method(method).uri(path).header("host", "e");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn chat(fault: &str, body: Value) -> Request<Full<Bytes>> {
    request("POST", CHAT, &[(FAULT_HEADER, fault)], &body)
}

fn hello(stream: bool) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": stream})
}

async fn send(engine: &EngineHandle, request: Request<Full<Bytes>>) -> (http::response::Parts, Bytes) {
    let response = connect(engine).await.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

async fn json_of(engine: &EngineHandle, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (head, body) = send(engine, request(method, path, &[], &body)).await;
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

/// The data of every event of a stream.
fn events(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

fn quick() -> CoreConfig {
    CoreConfig {
        prefill_tokens_per_second: 1e7,
        step_base: Duration::from_micros(200),
        ..CoreConfig::default()
    }
}

async fn start(config: Config) -> EngineHandle {
    Engine::start(config).await.unwrap()
}

#[tokio::test]
async fn chat_answers_whole_with_usage_and_reports_a_real_cache_hit() {
    let engine = start(Config::default().simulated(quick())).await;
    let prompt = "word ".repeat(100);
    let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": prompt}]});
    let (status, first) = json_of(&engine, "POST", CHAT, body.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(first["choices"][0]["message"]["content"], "the gate opens and water ");
    assert_eq!(first["choices"][0]["finish_reason"], "length");
    assert_eq!(first["usage"]["prompt_tokens"], 127);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let (_, second) = json_of(&engine, "POST", CHAT, body).await;
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 112, "seven full blocks of 16");
    assert_eq!(engine.totals().cached_tokens, 112);
}

#[tokio::test]
async fn stream_has_a_chunk_per_token_then_finish_usage_and_done() {
    for config in [Config::default(), Config::default().simulated(quick())] {
        let engine = start(config).await;
        let mut body = hello(true);
        body["stream_options"] = json!({"include_usage": true});
        body["max_completion_tokens"] = json!(3);
        let (head, bytes) = send(&engine, chat("none", body)).await;
        assert_eq!(head.headers["content-type"], "text/event-stream; charset=utf-8");
        let events = events(&bytes);
        let last: Vec<Value> = events.iter().filter_map(|e| serde_json::from_str(e).ok()).collect();
        let text: String = last.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "the gate opens ");
        assert_eq!(last[4]["choices"][0]["finish_reason"], "length");
        assert_eq!(last[5]["usage"]["completion_tokens"], 3);
        assert_eq!(last[5]["choices"], json!([]));
        assert_eq!(events.last().unwrap(), "[DONE]");
    }
}

#[tokio::test]
async fn every_path_answers_in_its_own_shape() {
    let engine = start(Config { adapters: vec!["lora".into()], ..Config::default() }).await;
    let cases = [
        ("/v1/completions", json!({"prompt": [1, 2, 3], "max_tokens": 1}), "/choices/0/text", json!("the ")),
        ("/v1/responses", json!({"input": "x"}), "/output/0/content/0/type", json!("output_text")),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": "x"}]}),
            "/stop_reason",
            json!("end_turn"),
        ),
        ("/v1/embeddings", json!({"input": ["a", "b"]}), "/data/1/index", json!(1)),
        ("/rerank", json!({"query": "q", "documents": ["a", "b"], "top_n": 1}), "/results/1", Value::Null),
        ("/v1/score", json!({"text_1": "a", "text_2": ["b", "c"]}), "/data/1/object", json!("score")),
        ("/tokenize", json!({"prompt": "12345"}), "/count", json!(2)),
        ("/detokenize", json!({"tokens": [0x6c6c6568, 0x6f]}), "/prompt", json!("hello")),
        ("/v1/images/generations", json!({"prompt": "x"}), "/data/0/b64_json", json!("aW1hZ2U=")),
        ("/v1/score", json!({"text_1": "a"}), "/error/code", json!(400)),
        ("/v1/chat/completions", json!({"model": "x"}), "/error/type", json!("NotFoundError")),
        ("/v1/chat/completions", json!({"model": "m"}), "/error/type", json!("BadRequestError")),
    ];
    for (path, body, pointer, expected) in cases {
        let (_, answer) = json_of(&engine, "POST", path, body).await;
        assert_eq!(*answer.pointer(pointer).unwrap_or(&Value::Null), expected, "{path}: {answer}");
    }
    let (_, models) = json_of(&engine, "GET", "/v1/models", Value::Null).await;
    assert_eq!((&models["data"][0]["id"], &models["data"][1]["parent"]), (&json!("m"), &json!("m")));
    assert_eq!((engine.counts().received, engine.counts().probes), (12, 1));
}

#[tokio::test]
async fn other_streams_speak_their_own_events() {
    let engine = start(Config::default()).await;
    let body =
        json!({"input": "x", "prompt": "x", "messages": [{"content": "x"}], "stream": true, "max_tokens": 2});
    for (path, expected) in [
        ("/v1/responses", "event: response.completed"),
        ("/v1/messages", "event: message_stop"),
        ("/v1/completions", "data: [DONE]"),
    ] {
        let (_, bytes) = send(&engine, request("POST", path, &[], &body)).await;
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains(expected) && text.contains("gate "), "{path}: {text}");
    }
}

#[tokio::test]
async fn client_that_leaves_frees_its_place_in_the_batch_at_once() {
    let slow = CoreConfig { step_base: Duration::from_millis(2), ..CoreConfig::default() };
    for stream in [true, false] {
        let engine = start(Config::default().simulated(slow.clone())).await;
        let mut body = hello(stream);
        body["max_tokens"] = json!(100_000);
        let mut sender = connect(&engine).await;
        let response = tokio::spawn(async move {
            let response = sender.send_request(chat("none", body)).await;
            match response {
                Ok(mut response) => drop(response.frame().await),
                Err(_) => drop(sender),
            }
        });
        if stream {
            response.await.unwrap();
        } else {
            engine.received(1).await;
            response.abort();
        }
        engine.aborted(1).await;
        assert_eq!((engine.load().running, engine.load().kv_usage), (0, 0.0));
        assert_eq!(engine.totals().aborted, 1);
        assert_eq!(engine.counts().in_flight, 0);
        assert_eq!(engine.last_request().unwrap().outcome, Outcome::Aborted);
    }
}

#[tokio::test]
async fn log_holds_what_arrived_and_how_it_ended() {
    let engine = start(Config { log_body_bytes_max: 10, ..Config::default() }).await;
    let headers = [("x-request-id", "r1")];
    let mut sender = connect(&engine).await;
    for _ in 0..2 {
        let response = sender
            .send_request(request("POST", "/v1/chat/completions?a=b", &headers, &hello(false)))
            .await
            .unwrap();
        assert_eq!(response.headers()["x-request-id"], "r1");
        assert_eq!(response.headers()["x-engine"], engine.name());
        response.collect().await.unwrap();
        sender.ready().await.unwrap();
    }
    let log = engine.requests();
    assert_eq!((log[1].connection, log[1].on_connection), (0, 2));
    assert_eq!((log[1].target.as_str(), log[1].path()), ("/v1/chat/completions?a=b", CHAT));
    assert_eq!(log[1].header("x-request-id"), Some("r1"));
    assert_eq!((log[1].body.len(), log[1].body_bytes), (10, hello(false).to_string().len() as u64));
    assert_eq!((log[1].outcome, log[1].status), (Outcome::Finished, Some(StatusCode::OK)));
    assert!(log[1].sent_bytes > 100);
    assert_eq!(engine.counts().in_flight_max, 1);
}

#[tokio::test]
async fn faults_that_answer_do_it_as_asked() {
    let engine = start(Config::default()).await;
    let (plain, body) = send(&engine, chat("none", hello(false))).await;
    assert_eq!(plain.headers["content-length"], body.len().to_string());

    let (head, bytes) = send(&engine, chat("status=503", hello(false))).await;
    let error: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((head.status.as_u16(), &error["error"]["code"]), (503, &json!(503)));

    let (head, bytes) = send(&engine, chat("gzip", hello(false))).await;
    assert_eq!((head.headers["content-encoding"].as_bytes(), &bytes[..2]), (&b"gzip"[..], &[0x1f, 0x8b][..]));

    let (head, bytes) = send(&engine, chat("chunked", hello(false))).await;
    assert_eq!((head.headers.get("content-length"), bytes.len()), (None, body.len()));

    let (head, bytes) = send(&engine, chat("until-close", hello(false))).await;
    assert!(head.headers.get("content-length").is_none() && head.headers.get("transfer-encoding").is_none());
    assert_eq!(bytes.len(), body.len());

    let (head, _) = send(&engine, chat("big-headers=5000", hello(false))).await;
    assert_eq!(head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-big")).count(), 5);

    let (head, bytes) = send(&engine, chat("interim=2", hello(false))).await;
    assert_eq!((head.status.as_u16(), bytes.len()), (200, body.len()));

    let (head, _) = send(&engine, chat("early=413", hello(false))).await;
    assert_eq!((head.status.as_u16(), engine.last_request().unwrap().body_bytes), (413, 0));

    let (head, _) = send(&engine, chat("nonsense", hello(false))).await;
    assert_eq!(head.status.as_u16(), 400);
}

#[tokio::test]
async fn faults_that_break_the_connection_break_it_where_asked() {
    let engine = start(Config::default()).await;
    for fault in ["close", "reset", "garbage"] {
        let outcome = connect(&engine).await.send_request(chat(fault, hello(false))).await;
        assert!(outcome.is_err(), "{fault}");
    }
    let raw = raw(&engine, "cut=7").await.unwrap();
    let body = raw.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body.len(), 7, "{raw}");
    assert_eq!(engine.finished(0).await.faulted, 4);
    assert_eq!(engine.last_request().unwrap().outcome, Outcome::Faulted);
    assert_eq!(engine.idle().await.aborted, 0);
}

/// Everything the engine sends on a connection of one request.
async fn raw(engine: &EngineHandle, fault: &str) -> io::Result<String> {
    let body = hello(false).to_string();
    let mut stream = TcpStream::connect(engine.addr()).await?;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: e\r\nx-engine-fault: {fault}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn hung_and_stalled_requests_end_with_their_client() {
    let engine = start(Config::default()).await;
    let mut sender = connect(&engine).await;
    let hung = tokio::spawn(async move { sender.send_request(chat("hang", hello(false))).await.map(drop) });
    engine.received(1).await;
    assert_eq!(engine.counts().in_flight, 1);
    hung.abort();
    engine.aborted(1).await;

    let mut sender = connect(&engine).await;
    let mut response = sender.send_request(chat("stall=4", hello(false))).await.unwrap();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap().len(), 4);
    drop((response, sender));
    assert_eq!(engine.aborted(2).await.in_flight, 0);
}

#[tokio::test]
async fn script_serves_the_queue_then_the_standing_fault_and_spares_probes() {
    let engine = start(Config::default()).await;
    engine.set_fault(Some(Fault::status(500)));
    engine.push_faults([Fault::status(429), Fault::None]);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(json_of(&engine, "POST", CHAT, hello(false)).await.0);
    }
    assert_eq!(statuses, [429, 200, 500, 500]);
    assert_eq!(json_of(&engine, "GET", "/v1/models", Value::Null).await.0, 200);
    engine.clear_faults();
    assert_eq!(json_of(&engine, "POST", CHAT, hello(false)).await.0, 200);
}

#[tokio::test]
async fn refusing_engine_keeps_its_port_and_comes_back_on_it() {
    let engine = start(Config::default()).await;
    let mut old = connect(&engine).await;
    for _ in 0..3 {
        engine.set_accept(Accept::Refuse).await;
        let refused = TcpStream::connect(engine.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        engine.set_accept(Accept::Serve).await;
        assert_eq!(json_of(&engine, "POST", CHAT, hello(false)).await.0, 200);
    }
    let answer = old.send_request(chat("none", hello(false))).await.expect("open connections stay");
    answer.collect().await.unwrap();
    engine.crash().await;
    assert_eq!(engine.counts().connections_open, 0);
    assert!(old.send_request(chat("none", hello(false))).await.is_err());
}

#[tokio::test]
async fn connection_modes_break_before_any_request() {
    let engine = start(Config::default()).await;
    for (mode, expected) in [(Accept::Close, 0), (Accept::Garbage, fault::GARBAGE.len())] {
        engine.set_accept(mode).await;
        let mut stream = TcpStream::connect(engine.addr()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len(), expected, "{mode:?}");
    }
}

#[tokio::test]
async fn idle_connection_is_closed_after_its_keep_alive_and_a_reused_one_can_be_closed_on_purpose() {
    let engine = start(Config { keep_alive: Some(Duration::from_millis(20)), ..Config::default() }).await;
    let mut sender = connect(&engine).await;
    let response = sender.send_request(chat("delay=60", hello(false))).await.unwrap();
    assert_eq!(response.status(), 200, "a busy connection is not idle");
    response.collect().await.unwrap();
    engine.until(|counts| counts.connections_open == 0).await;

    let engine = start(Config::default()).await;
    engine.set_fault(Some(Fault::CloseReused));
    let mut sender = connect(&engine).await;
    sender.send_request(request("POST", CHAT, &[], &hello(false))).await.unwrap().collect().await.unwrap();
    sender.ready().await.unwrap();
    assert!(sender.send_request(request("POST", CHAT, &[], &hello(false))).await.is_err());
}

#[tokio::test]
async fn metrics_tell_the_truth_or_what_they_are_told_under_each_name() {
    let engine = start(Config::default().simulated(quick())).await;
    json_of(&engine, "POST", CHAT, hello(false)).await;
    engine.set_signals(Some(Signals { running: 3.0, waiting: 4.0, kv_usage: 0.5 }));
    let cases = [
        (MetricsPage::Vllm, "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.5\n"),
        (MetricsPage::Vllm, "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 16.0\n"),
        (MetricsPage::Vllm, "{engine=\"0\",finished_reason=\"length\",model_name=\"m\"} 1.0\n"),
        (
            MetricsPage::Vllm,
            "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"16384\"} 1.0\n",
        ),
        (MetricsPage::VllmOld, "vllm:gpu_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.5\n"),
        (MetricsPage::Sglang, "sglang:num_queue_reqs{model_name=\"m\"} 4.0\n"),
        (MetricsPage::LlamaCpp, "llamacpp:requests_processing 3.0\n"),
        (MetricsPage::Text("x 1\n".into()), "x 1\n"),
    ];
    for (page, expected) in cases {
        engine.set_metrics(page);
        let (_, body) = send(&engine, request("GET", "/metrics", &[], &Value::Null)).await;
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[tokio::test]
async fn sleep_adapters_keys_and_health_are_obeyed() {
    let engine = start(Config { api_key: Some("k".into()), ..Config::default() }).await;
    assert_eq!(json_of(&engine, "POST", CHAT, hello(false)).await.0, 401);
    let engine = start(Config::default()).await;
    json_of(&engine, "POST", "/sleep?level=1", Value::Null).await;
    assert_eq!(json_of(&engine, "GET", "/is_sleeping", Value::Null).await.1, json!({"is_sleeping": true}));
    assert_eq!(json_of(&engine, "POST", CHAT, hello(false)).await.0, 503);
    json_of(&engine, "POST", "/wake_up", Value::Null).await;
    let mut adapted = hello(false);
    adapted["model"] = json!("a");
    assert_eq!(json_of(&engine, "POST", CHAT, adapted.clone()).await.0, 404);
    json_of(&engine, "POST", "/v1/load_lora_adapter", json!({"lora_name": "a", "lora_path": "/a"})).await;
    assert_eq!(json_of(&engine, "POST", CHAT, adapted).await.0, 200);
    engine.set_healthy(false);
    assert_eq!(json_of(&engine, "GET", "/health", Value::Null).await.0, 503);
}

#[tokio::test]
async fn canned_engine_answers_without_looking() {
    let canned = Canned { chunks: 3, ..Canned::default() };
    let engine = start(Config { mode: Mode::Canned(canned.clone()), log_max: 0, ..Config::default() }).await;
    let (_, whole) = send(&engine, chat("none", json!({"messages": "x".repeat(100_000)}))).await;
    assert_eq!(whole, canned.reply);
    let (_, stream) = send(&engine, chat("none", hello(true))).await;
    assert_eq!(events(&stream).len(), 4);
    assert_eq!((engine.counts().received, engine.requests().len()), (2, 0));
}

#[tokio::test]
async fn multipart_is_told_back_byte_for_byte() {
    let engine = start(Config::default()).await;
    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\0\r\n\u{1}\r\n--b--\r\n";
    let request = Request::post("/v1/audio/transcriptions")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(Full::new(Bytes::from(form)))
        .unwrap();
    let (_, body) = send(&engine, request).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["received"][1]["bytes"], 4, "{answer}");
    assert_eq!(engine.last_request().unwrap().body, form);
}

#[tokio::test]
async fn engine_speaks_tls_with_the_certificate_it_was_given() {
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = Tls { certificates: made.cert.pem(), key: made.signing_key.serialize_pem() };
    let engine = start(Config { tls: Some(tls.clone()), ..Config::default() }).await;
    assert!(engine.url().starts_with("https://127.0.0.1:"));

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls.certificates.as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(engine.addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request("POST", CHAT, &[], &hello(false))).await.unwrap();
    assert_eq!(response.status(), 200);

    let nonsense = Tls { certificates: "x".into(), key: "y".into() };
    assert!(Engine::start(Config { tls: Some(nonsense), ..Config::default() }).await.is_err());
}

#[tokio::test]
async fn prompts_of_a_workload_hit_over_http_as_often_as_in_the_core() {
    use crate::workload::{Mooncake, mooncake};

    const SCALE: u32 = 16;
    let workload = mooncake(Mooncake { requests: 120, requests_per_second: 10.0, seed: 5 });
    let core =
        CoreConfig { step_tokens_max: 1 << 20, ..quick() }.with_kv_tokens(400_000, workload.block_tokens);
    let config = Config { bytes_per_token: workload.bytes_per_token(SCALE), ..Config::default() };
    let engine = start(config.simulated(core.clone())).await;
    let mut pure = Core::new(core);
    let (mut over_http, mut in_core) = (0, 0);
    for (at, request) in workload.requests.iter().enumerate() {
        let mut work = request.work();
        work.output_tokens = 1;
        let now = Duration::from_secs(at as u64 * 100);
        pure.advance(now, &mut Vec::new());
        pure.submit(now, work).unwrap();
        pure.advance(now + Duration::from_secs(99), &mut Vec::new());

        let mut body: Value =
            serde_json::from_slice(&workload.chat_body(request, SCALE, ("m", false))).unwrap();
        body["max_tokens"] = json!(1);
        let (_, answer) = json_of(&engine, "POST", CHAT, body).await;
        over_http += answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        in_core = pure.totals().cached_tokens;
    }
    assert!(in_core > 100_000, "{in_core}");
    // The role before the text shifts blocks by some bytes: a prefix may miss its last block.
    let off = in_core.abs_diff(over_http) as f64 / in_core as f64;
    assert!(off < 0.02, "{over_http} over HTTP, {in_core} in the core");
}

//! A real engine, llama.cpp's own HTTP server, behind the gateway, and the official `openai` client before it.

use harness::bars;
use harness::client;
use harness::fleet::until;
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use harness::python::{LlamaCpp, openai_case};
use http::Method;
use serde_json::json;

const MODEL: &str = "tiny-random";

/// A sample of llama.cpp's metrics page.
async fn sample(server: &LlamaCpp, name: &str) -> f64 {
    let address = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let page = client::get(address, "/metrics").await.text();
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn gateway_before(server: &LlamaCpp) -> Gateway {
    let manifest = Manifest::new().gateway("errorFormat: OpenAI").model(MODEL, [&server.url]);
    Gateway::ready(Options::manifest(manifest.yaml())).await
}

/// A real engine: chat, stream with usage, completions, the model list, a 400 of the engine's own, an unknown model.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn official_client_talks_to_a_real_engine_through_the_gateway() {
    let server = LlamaCpp::start(MODEL, &[]).await;
    let gateway = gateway_before(&server).await;
    for case in ["chat", "stream", "completions", "models", "bad_request", "unknown_model"] {
        openai_case(&gateway.url(), MODEL, case).await;
    }
    let generated = format!("vllm:output_tokens_total{{server=\"{}\",model=\"{MODEL}\"}}", server.url);
    let tokens = gateway.metric(&generated).await;
    assert_eq!(tokens, Some(8.0 + 8.0 + 4.0), "the engine's own usage is counted");
    // The client above does not mind, others do: the end of a stream is there.
    let body = json!({"model": MODEL, "max_tokens": 4, "stream": true,
        "messages": [{"role": "user", "content": "Count for me, please."}]});
    let answer = gateway.post("/v1/chat/completions", &body).await;
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"), "{}", answer.text());
    // The page is read, under llama.cpp's own names.
    let age = format!("wicketgate_engine_reading_age_seconds{{server=\"{}\"}}", server.url);
    until("a reading of llama.cpp's page", || async { gateway.metric(&age).await }).await;
}

/// A real engine that embeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn official_client_gets_embeddings_of_a_real_engine() {
    let server = LlamaCpp::start(MODEL, &["--embedding"]).await;
    let gateway = gateway_before(&server).await;
    openai_case(&gateway.url(), MODEL, "embeddings").await;
}

/// Tokens that take a while.
const LONG: u32 = 1_900;

/// A real engine stops computing for a client that left, that streamed; one that waited is forgotten by the gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_stops_when_the_client_leaves() {
    let server = LlamaCpp::start(MODEL, &[]).await;
    let gateway = gateway_before(&server).await;
    let measure = async |_| generated_for_who_left(&server, &gateway).await;
    bars::shown("tokens for a client that left early", measure, |tokens| *tokens < 1_000.0).await;
    bars::shown(
        "left while it waited, and forgotten while the engine went on",
        async |_| leaves_while_it_waits(&server, &gateway).await,
        |forgotten| *forgotten,
    )
    .await;
}

/// How many tokens the engine makes for a client that leaves after the first of [`LONG`].
async fn generated_for_who_left(server: &LlamaCpp, gateway: &Gateway) -> f64 {
    let before = sample(server, "llamacpp:tokens_predicted_total ").await;
    openai_case(&gateway.url(), MODEL, "cancelled_stream").await;
    until("the engine to stop", || async {
        (sample(server, "llamacpp:requests_processing ").await == 0.0).then_some(())
    })
    .await;
    sample(server, "llamacpp:tokens_predicted_total ").await - before
}

/// Leaves while the engine is at work on an answer in one piece, and waits until the gateway counts nothing any more. False if
/// the answer was there by then: llama.cpp itself looks after a client that waits only when it has an answer for it.
async fn leaves_while_it_waits(server: &LlamaCpp, gateway: &Gateway) -> bool {
    let body = json!({"model": MODEL, "max_tokens": LONG, "ignore_eos": true,
        "messages": [{"role": "user", "content": "Talk on."}]});
    let mut connection = client::Connection::open(gateway.data).await;
    let request = client::request(gateway.data, Method::POST, "/v1/chat/completions", &[], body.to_string());
    let waiting = tokio::spawn(async move { connection.send(request).await.map(|answer| answer.status()) });
    until("the engine to begin", || async {
        let at_work = sample(server, "llamacpp:requests_processing ").await == 1.0;
        (at_work || waiting.is_finished()).then_some(())
    })
    .await;
    waiting.abort();
    if waiting.await.is_ok() {
        return false;
    }
    gateway.metric_until("wicketgate_requests_in_flight", |sum| sum == 0.0).await;
    let goes_on = sample(server, "llamacpp:requests_processing ").await == 1.0;
    until("the engine to stop", || async {
        (sample(server, "llamacpp:requests_processing ").await == 0.0).then_some(())
    })
    .await;
    goes_on
}

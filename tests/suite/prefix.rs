//! Prompts and what is believed of them: the same prefix to the same engine, in bounded memory.

use std::collections::BTreeMap;

use engine::core::CoreConfig;
use engine::http::{Accept, Canned, Config, Engine, Mode};
use harness::client::Connection;
use harness::fleet::{chat, engines, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use http::Method;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// A text of `bytes` bytes that differs from all others from its first bytes on.
fn text(seed: u64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..bytes).map(|_| random.alphanumeric()).collect()
}

/// D03
#[tokio::test]
async fn one_prefix_stays_on_one_engine_and_different_ones_spread() {
    let engines = engines(3, &Config::default()).await;
    let manifest = Manifest::new().gateway("routeStrategy: PrefixHash").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let prefix = text(1, 500);
    let ask = async |prompt: String| {
        let answer = gateway.post(CHAT, &chat("m", &prompt)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.engine().to_owned()
    };
    let home = ask(format!("{prefix} question 0")).await;
    for question in 1..20 {
        assert_eq!(ask(format!("{prefix} question {question}")).await, home, "question {question}");
    }
    let mut spread = BTreeMap::<String, u32>::new();
    for seed in 100..190 {
        *spread.entry(ask(text(seed, 500)).await).or_default() += 1;
    }
    assert_eq!(spread.len(), 3, "{spread:?}");
    assert!(spread.values().all(|count| *count >= 15), "{spread:?}");

    // The engine restarts: others serve, nobody notices, and it is used again.
    let holder = engines.iter().find(|engine| engine.name() == home).unwrap();
    holder.crash().await;
    for question in 20..40 {
        assert_ne!(ask(format!("{prefix} question {question}")).await, home, "question {question}");
    }
    holder.set_accept(Accept::Serve).await;
    let received = holder.counts().received;
    for seed in 1_000.. {
        ask(text(seed, 500)).await;
        if holder.counts().received > received {
            break;
        }
        assert!(seed < 20_000, "an engine that came back is never used again");
    }
}

/// D03: what the gateway believes is what the engine finds.
#[tokio::test]
async fn turns_of_a_conversation_find_their_history_in_the_engines_cache() {
    let core = CoreConfig {
        prefill_tokens_per_second: f64::INFINITY,
        step_base: std::time::Duration::ZERO,
        ..CoreConfig::default()
    };
    let config = Config { output_tokens: 1, ..Config::default() }.simulated(core);
    let engines = engines(3, &config).await;
    let manifest = Manifest::new().gateway("routeStrategy: PrefixHash").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let (mut cached, mut history, mut believed) = (0, 0, 0);
    for conversation in 0..6 {
        let mut messages = vec![json!({"role": "system", "content": text(conversation, 1_500)})];
        for turn in 0..6 {
            messages.push(json!({"role": "user", "content": text(1_000 * conversation + turn, 400)}));
            let answer = gateway.post(CHAT, &json!({"model": "m", "messages": messages})).await;
            let usage = &answer.json()["usage"];
            if turn > 0 {
                cached += usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
                history += usage["prompt_tokens"].as_u64().unwrap() - 100;
                let id = answer.header("x-request-id").unwrap();
                let page = gateway.admin_page(&format!("/explain/{id}")).await.json();
                believed += page["decisions"][0]["cached_tokens"].as_u64().unwrap();
            }
            messages.push(
                json!({"role": "assistant", "content": answer.json()["choices"][0]["message"]["content"]}),
            );
        }
    }
    assert!(cached as f64 >= 0.9 * history as f64, "{cached} of {history} tokens of history were found");
    let ratio = believed as f64 / cached as f64;
    assert!((0.7..1.3).contains(&ratio), "{believed} believed, {cached} found");
}

/// D04
#[tokio::test]
async fn prompts_of_every_shape_are_routed_and_left_to_the_engine() {
    let engines = engines(3, &Config::default()).await;
    let manifest = Manifest::new().gateway("routeStrategy: prefixaware").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let parts = json!([{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "this"}]);
    let cases: [(&str, Value); 14] = [
        (CHAT, json!({"messages": [{"role": "user", "content": parts}]})),
        (
            CHAT,
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": []}, {"role": "user", "content": "x"}]}),
        ),
        (CHAT, json!({"messages": [{"role": "user"}]})),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "größe 🌊 \u{0}"}], "tools": [{"type": "function"}]}),
        ),
        ("/v1/completions", json!({"prompt": "text"})),
        ("/v1/completions", json!({"prompt": ["one", "two"]})),
        ("/v1/completions", json!({"prompt": [1, 2, 3, 4_000_000_000_u64]})),
        ("/v1/completions", json!({"prompt": [[1, 2], [3]]})),
        ("/v1/completions", json!({"prompt": ""})),
        ("/v1/embeddings", json!({"input": [1, 2, 3]})),
        ("/v1/embeddings", json!({"input": ["a", "b"]})),
        ("/v1/responses", json!({"input": [{"role": "user", "content": "x"}]})),
        ("/v1/rerank", json!({"query": "q", "documents": ["d"]})),
        ("/detokenize", json!({"tokens": [1]})),
    ];
    for (path, mut body) in cases {
        body["model"] = "m".into();
        let first = gateway.post(path, &body).await;
        assert_eq!(first.status, 200, "{path} {body}: {}", first.text());
        let again = gateway.post(path, &body).await;
        assert_eq!(again.status, 200, "{path} {body}");
    }
    // What the engine refuses is the engine's to refuse.
    for body in [json!({"model": "m"}), json!({"model": "m", "messages": null, "prompt": null})] {
        let answer = gateway.post(CHAT, &body).await;
        assert_eq!((answer.status.as_u16(), answer.engine().is_empty()), (400, false), "{}", answer.text());
    }
}

/// Resident memory of the gateway, bytes.
fn resident(gateway: &Gateway) -> usize {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
}

/// How many tokens of `prompt` the gateway believes cached where it sends it.
async fn believed(gateway: &Gateway, connection: &mut Connection, prompt: &str, id: &str) -> (u64, u64) {
    let headers = [("x-request-id", id)];
    let answer = connection.call(Method::POST, CHAT, &headers, chat("m", prompt).to_string()).await;
    assert_eq!(answer.status, 200);
    let page = gateway.admin_page(&format!("/explain/{id}")).await.json();
    let decision = &page["decisions"][0];
    (
        decision["cached_tokens"].as_u64().expect("a number"),
        decision["prompt_tokens"].as_u64().expect("a number"),
    )
}

/// D05, smaller: the whole of it is a benchmark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distinct_prompts_without_end_stay_in_bounded_memory_and_hot_ones_stay_known() {
    const INDEX_BYTES: usize = 1 << 20;
    const PROMPTS: u64 = 15_000;
    const CLIENTS: u64 = 4;
    let config = Config { mode: Mode::Canned(Canned::default()), log_max: 0, ..Config::default() };
    let engines = [Engine::start(config.clone()).await.unwrap(), Engine::start(config).await.unwrap()];
    let manifest = Manifest::new().gateway("routeStrategy: PrefixHash").model("m", urls(&engines));
    let options =
        Options::manifest(manifest.yaml()).args(["--prefix-index-bytes", "1048576", "--workers", "2"]);
    let gateway = Gateway::ready(options).await;
    let hot: Vec<String> = (0..8).map(|seed| text(1_000_000 + seed, 1_024)).collect();
    let mut connection = Connection::open(gateway.data).await;
    for (at, prompt) in hot.iter().enumerate() {
        believed(&gateway, &mut connection, prompt, &format!("warm-{at}")).await;
    }
    let before = resident(&gateway);
    let clients = (0..CLIENTS).map(|client| {
        let (data, hot) = (gateway.data, hot.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(data).await;
            let filler = text(client, 1_024);
            for sent in 0..PROMPTS / CLIENTS {
                // Distinct from its first bytes on, and made cheaply.
                let number = format!("{:016x}", (client << 32 | sent).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let prompt = number + &filler[16..];
                let prompt = if sent % 10 == 0 { &hot[(sent / 10) as usize % hot.len()] } else { &prompt };
                let answer = connection.call(Method::POST, CHAT, &[], chat("m", prompt).to_string()).await;
                assert_eq!(answer.status, 200);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let after = resident(&gateway);
    println!("resident: {} KiB before, {} KiB after", before >> 10, after >> 10);
    let stat = async |name: &str| gateway.metric(name).await.expect("a sample");
    let (bytes, evicted) =
        (stat("wicketgate_prefix_index_bytes").await, stat("wicketgate_prefix_index_evictions_total").await);
    assert!(evicted > 80_000.0, "the index was filled many times over: {evicted}");
    assert!(bytes <= INDEX_BYTES as f64, "{bytes}");
    // Beside the index: buffers of connections and the allocator's slack, whatever the number of prompts.
    assert!(after <= before + INDEX_BYTES + (8 << 20), "{before} to {after}");
    // An unoptimised binary is larger than the one that the bar is about.
    assert!(after <= INDEX_BYTES + (120 << 20), "{after}");
    for (at, prompt) in hot.iter().enumerate() {
        let (cached, tokens) = believed(&gateway, &mut connection, prompt, &format!("hot-{at}")).await;
        assert!(cached as f64 >= 0.8 * tokens as f64, "hot prompt {at}: {cached} of {tokens}");
    }
}

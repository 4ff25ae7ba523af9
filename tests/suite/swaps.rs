//! Policies that are exchanged while requests are under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::http::{Config, EngineHandle};
use harness::client::Connection;
use harness::fleet::{chat_stream, engines, soon, until, urls};
use harness::gateway::{Gateway, Options, component};
use harness::manifests::Manifest;
use http::Method;
use serde_json::Value;

use crate::policies::{digest, guest, other_digest};

const CHAT: &str = "/v1/chat/completions";

/// Clients that stream without end over kept connections and check each answer.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Clients {
    /// `consistent(policy, engine)` is asked about every answer. Returns when each client has had one.
    async fn start(
        gateway: &Gateway,
        model: &str,
        count: u64,
        consistent: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let consistent = Arc::new(consistent);
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let address = gateway.data;
        let body = chat_stream(model, "hi").to_string();
        let tasks = (0..count)
            .map(|_| {
                let (stop, answered, consistent) = (stop.clone(), answered.clone(), consistent.clone());
                let body = body.clone();
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    while !stop.load(Ordering::Relaxed) {
                        let answer = connection.call(Method::POST, CHAT, &[], body.clone()).await;
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        assert!(answer.body.ends_with(b"data: [DONE]\n\n"), "{}", answer.text());
                        let policy = answer.header("x-wicketgate-policy").unwrap_or("nobody");
                        assert!(consistent(policy, answer.engine()), "{policy} at {}", answer.engine());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        until("first answers", || async { (answered.load(Ordering::Relaxed) >= count).then_some(()) }).await;
        Self { stop, answered, tasks }
    }

    /// Ends them, fails if one of them failed, and says how many answers there were.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon("the clients", task).await.expect("a client was failed");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// The name of the first policy in force for `m`.
async fn first_policy(gateway: &Gateway) -> String {
    let page = gateway.admin_page("/snapshot").await.json();
    let policy = page.pointer("/gateways/0/routes/0/policies/0/name").and_then(Value::as_str);
    policy.unwrap_or_default().to_owned()
}

/// Resident memory of the gateway, KiB.
pub(crate) fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A policy source: a file. Edits are taken up under traffic; one that does not load, or is another than the digest
/// says, never serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_file_is_read_again_under_traffic_and_a_broken_one_never_serves() {
    let engines = engines(2, &Config::default()).await;
    let manifest = guest("p", &urls(&engines), "source: {file: p.wasm}");
    let gateway = Gateway::ready(Options {
        policies: vec![("p.wasm".into(), component("round-robin"))],
        ..Options::manifest(manifest).args(["--answer-headers"])
    })
    .await;
    let clients = Clients::start(&gateway, "p", 4, |_, _| true).await;
    let first = digest(&gateway).await.expect("a component");
    gateway.write_policy("p.wasm", &component("least-in-flight"));
    let second = other_digest(&gateway, &first).await;
    gateway.write_policy("p.wasm", b"\0asm and nothing more");
    until("a finding", || async {
        let page = gateway.admin_page("/findings").await.text();
        page.contains("InvalidComponent").then_some(())
    })
    .await;
    assert_eq!(digest(&gateway).await.as_ref(), Some(&second), "the last good one stays");
    gateway.write_policy("p.wasm", &component("round-robin"));
    assert_eq!(other_digest(&gateway, &second).await, first);
    let wrong = guest("p", &urls(&engines), &format!("source: {{file: p.wasm}}\nsha256: {second:?}"));
    gateway.write("manifests.yaml", &wrong);
    until("a finding", || async {
        let page = gateway.admin_page("/findings").await.text();
        page.contains("DigestMismatch").then_some(())
    })
    .await;
    assert_eq!(digest(&gateway).await.as_ref(), Some(&first), "the last good one stays");
    gateway.write_policy("p.wasm", &component("least-in-flight"));
    assert_eq!(other_digest(&gateway, &first).await, second);
    assert!(clients.stop().await > 50);
}

/// Swaps under load: a chain and the engines that belong to it come into force together, and nobody is failed. The full
/// thousand, with latencies beside those without swaps, is the benchmark's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_swaps_under_streams_fail_nobody_mix_nothing_and_leak_nothing() {
    const SWAPS: usize = 200;
    let engines = engines(4, &Config::default()).await;
    let sides: [&[EngineHandle]; 2] = [&engines[..2], &engines[2..]];
    let strategies = ["round-robin", "least-in-flight"];
    // The other gateways keep both components known: one that has to be compiled first comes into force later than the
    // engines beside it.
    let spare = |strategy: &str| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: spare-{strategy}}}\n\
             spec: {{routeStrategy: {strategy}, routes: [{{model: spare-{strategy}, inferenceServiceRef: svc-0}}]}}"
        )
    };
    let manifest = |side: usize| {
        Manifest::new()
            .gateway(&format!("routeStrategy: {}", strategies[side]))
            .model("m", urls(sides[side]))
            .document(&spare(strategies[0]))
            .document(&spare(strategies[1]))
            .yaml()
    };
    let gateway =
        Gateway::ready(Options::manifest(manifest(0)).args(["--answer-headers", "--workers", "2"])).await;
    let names = sides.map(|side| side.iter().map(|engine| engine.name().to_owned()).collect::<Vec<_>>());
    let clients = Clients::start(&gateway, "m", 8, move |policy, engine| {
        let side = usize::from(policy == strategies[1]);
        strategies.contains(&policy) && names[side].iter().any(|name| name == engine)
    })
    .await;
    let mut resident = 0;
    for swap in 1..=SWAPS {
        gateway.write("manifests.yaml", &manifest(swap % 2));
        until("a swap", || async { (first_policy(&gateway).await == strategies[swap % 2]).then_some(()) })
            .await;
        if swap == SWAPS / 2 {
            resident = resident_kib(&gateway);
        }
    }
    let answered = clients.stop().await;
    let after = resident_kib(&gateway);
    println!("{answered} answers, {resident} KiB after half of the swaps, {after} KiB after all");
    assert!(answered > SWAPS as u64, "the clients were not held up: {answered}");
    assert!(engines.iter().all(|engine| engine.counts().finished > 0), "both sides served");
    assert!(engines.iter().all(|engine| engine.counts().in_flight == 0));
    assert!(after < resident + 16 * 1024, "{resident} KiB, then {after} KiB");
    // One for each worker: only one pool was ever asked, and old instances are dropped.
    gateway.metric_until("wicketgate_policy_instances", |instances| (1.0..=2.0).contains(&instances)).await;
}

/// Swaps of a policy's own file under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_of_a_policy_file_under_streams_fail_nobody() {
    let engines = engines(2, &Config::default()).await;
    let components = [component("round-robin"), component("least-in-flight")];
    let gateway = Gateway::ready(Options {
        policies: vec![("p.wasm".into(), components[0].clone())],
        ..Options::manifest(guest("p", &urls(&engines), "source: {file: p.wasm}")).args(["--answer-headers"])
    })
    .await;
    let clients = Clients::start(&gateway, "p", 4, |policy, _| policy == "p").await;
    let mut now = digest(&gateway).await.expect("a component");
    let mut seen = BTreeSet::from([now.clone()]);
    for swap in 1..=30 {
        gateway.write_policy("p.wasm", &components[swap % 2]);
        now = other_digest(&gateway, &now).await;
        seen.insert(now.clone());
    }
    assert_eq!(seen.len(), 2);
    assert!(clients.stop().await > 30);
}

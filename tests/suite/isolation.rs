//! What tenants of one gateway can do to each other: names, credentials, connections.

use std::collections::BTreeSet;

use engine::http::{Config, Received};
use harness::client;
use harness::fleet::{chat, engine, engines, until, urls};
use harness::gateway::{Gateway, Options};
use serde_json::Value;

use crate::policies::guest;

const CHAT: &str = "/v1/chat/completions";

/// A gateway, its service and the Secret `token` of one namespace; `gateway` and `service` are further lines of the specs.
fn tenant(namespace: &str, gateway: (&str, &str, &str), model: &str, url: &str, service: &str) -> String {
    let (name, created, lines) = gateway;
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\n\
         metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{created}'}}\nspec:\n  \
         routes: [{{model: {model}, inferenceServiceRef: s}}]\n{lines}---\n\
         apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\n\
         metadata: {{name: s, namespace: {namespace}}}\nspec:\n  modelName: m\n  \
         backendRef: {{kind: Static, urls: [\"{url}\"]}}\n{service}---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: token, namespace: {namespace}}}\n\
         stringData: {{key: of-{namespace}, chunked: chunked}}\n---\n"
    )
}

fn connections(requests: &[Received], of: &str) -> BTreeSet<u64> {
    let is_of = |request: &&Received| request.header("x-api-key") == Some(of);
    requests.iter().filter(is_of).map(|request| request.connection).collect()
}

async fn findings(gateway: &Gateway, reason: &str) -> Vec<Value> {
    let page = gateway.admin_page("/findings").await.json();
    let all = page["findings"].as_array().expect("a list").clone();
    all.into_iter().filter(|finding| finding["reason"] == reason).collect()
}

/// C2: services that name one engine with different credentials never share a connection, and each keeps its own.
#[tokio::test]
async fn services_with_different_credentials_at_one_engine_share_no_connection() {
    let engine = engine("m").await;
    let auth = "  auth: {secretRef: {name: token, key: key}, header: x-api-key, forwardClient: false}\n";
    let manifest = tenant("a", ("g", "2026-01-01T00:00:00Z", ""), "of-a", &engine.url(), auth)
        + &tenant("b", ("g", "2026-01-02T00:00:00Z", ""), "of-b", &engine.url(), auth);
    let options = Options::manifest(manifest).args(["--workers", "1"]);
    let gateway = Gateway::ready(options).await;
    for turn in 0..8 {
        let model = if turn % 2 == 0 { "of-a" } else { "of-b" };
        let answer = gateway.post(CHAT, &chat(model, "hi")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let requests = engine.requests();
    let [of_a, of_b] = ["of-a", "of-b"].map(|of| connections(&requests, of));
    assert!(of_a.is_disjoint(&of_b), "{of_a:?} {of_b:?}");
    assert_eq!((of_a.len(), of_b.len()), (1, 1), "each goes on using its own");
}

/// C2: a credential under a name that frames the request is refused: nothing of it is sent, and the finding says why.
#[tokio::test]
async fn credential_under_a_framing_header_is_refused() {
    let engine = engine("m").await;
    for header in ["transfer-encoding", "Transfer_Encoding", "content-length", "host", "x-forwarded-for"] {
        let auth = format!("  auth: {{secretRef: {{name: token, key: chunked}}, header: {header}}}\n");
        let manifest = tenant("a", ("g", "2026-01-01T00:00:00Z", ""), "of-a", &engine.url(), &auth);
        let gateway = Gateway::ready(Options::manifest(manifest)).await;
        let found = findings(&gateway, "HeaderNotPermitted").await;
        assert_eq!(found.len(), 1, "{header}: {found:?}");
        assert_eq!(found[0]["field"], "spec.auth.header", "{found:?}");
        let answer = gateway.post(CHAT, &chat("of-a", "hi")).await;
        assert_eq!(answer.status, 200, "{header}: {}", answer.text());
        let request = engine.last_request().expect("one request");
        assert!(!request.headers.values().any(|value| value == "chunked"), "{header}: {:?}", request.headers);
        assert_eq!(request.headers.get_all("content-length").iter().count(), 1, "{header}");
    }
}

/// C4: an older gateway of another namespace that lists the names of a gateway does not get its traffic.
#[tokio::test]
async fn names_of_a_gateway_cannot_be_taken_from_another_namespace() {
    let (own, other) = (engine("m").await, engine("m").await);
    let hosts = [
        "llm-gateway.prod.svc",
        "LLM-Gateway.prod.svc.",
        "llm-gateway.prod.svc.cluster.local",
        "llm-gateway.prod.svc.Example.com",
        "llm-gateway.prod",
        "llm-gateway",
        "nothing-yet.prod.svc",
    ];
    let listed = format!("  hostnames: {hosts:?}\n");
    let manifest = tenant("evil", ("trap", "2020-01-01T00:00:00Z", &listed), "m", &other.url(), "")
        + &tenant("prod", ("llm-gateway", "2026-01-01T00:00:00Z", ""), "m", &own.url(), "");
    let gateway = Gateway::ready(Options::manifest(manifest)).await;
    let body = chat("m", "hi").to_string();
    let asked = hosts.iter().filter(|host| !host.starts_with("nothing")).map(|host| (*host).to_owned());
    for host in asked.clone().chain(asked.map(|host| format!("{host}:8001"))) {
        let answer = client::post(gateway.data, CHAT, &[("host", &host)], body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.engine()), (200, own.name()), "{host}");
    }
    let refused = findings(&gateway, "HostNotPermitted").await;
    assert_eq!(refused.len(), 6, "{refused:#?}");
    assert!(refused.iter().all(|finding| finding["object"] == "InferenceGateway evil/trap"), "{refused:#?}");
    // The short name could be meant for either, so both sides are told which gateway has it.
    let conflict = findings(&gateway, "HostConflict").await;
    let objects: BTreeSet<&str> = conflict.iter().filter_map(|finding| finding["object"].as_str()).collect();
    let both = BTreeSet::from(["InferenceGateway evil/trap", "InferenceGateway prod/llm-gateway"]);
    assert_eq!(objects, both, "{conflict:#?}");
}

/// B4: a base URL as OpenAI clients have it, ending in `/v1`, is asked for `/v1/…` once, by requests and by probes.
#[tokio::test]
async fn base_url_that_ends_in_v1_reaches_the_engine() {
    let engine = engine("m").await;
    let url = format!("{}/v1", engine.url());
    let manifest = tenant("a", ("g", "2026-01-01T00:00:00Z", ""), "of-a", &url, "");
    let gateway = Gateway::ready(Options::manifest(manifest)).await;
    let answer = gateway.post(CHAT, &chat("of-a", "hi")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(engine.last_request().expect("one").path(), CHAT);
    until("a probe of its models", || async {
        engine.probes().iter().any(|probe| probe.path() == "/v1/models").then_some(())
    })
    .await;
    assert!(!engine.probes().iter().any(|probe| probe.path().starts_with("/v1/v1")));
}

/// C11: a FIFO as policy file, or a link to an endless device, costs its own policy only: edits go on coming into force.
#[tokio::test]
async fn fifo_as_a_policy_file_does_not_hold_up_the_configuration() {
    let fifo = |path: std::path::PathBuf| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let engines = engines(2, &Config::default()).await;
    let all = urls(&engines);
    let gateway =
        Gateway::ready(Options::manifest(guest("good", &all[..1], "source: {builtin: round-robin}"))).await;
    fifo(gateway.policies().join("fifo.wasm"));
    std::os::unix::fs::symlink("/dev/zero", gateway.policies().join("endless.wasm")).unwrap();
    fifo(gateway.manifests().join("fifo.yaml"));
    let odd = guest("fifo", &all, "source: {file: fifo.wasm}")
        + &guest("endless", &all, "source: {file: endless.wasm}");
    gateway.write("odd.yaml", &odd);
    let about = |name: &str| format!("`{name}`");
    for name in ["fifo", "endless"] {
        until("a finding about it", || async {
            let found = findings(&gateway, "FetchFailed").await;
            let is_it =
                |finding: &&Value| finding["message"].as_str().is_some_and(|m| m.contains(&about(name)));
            found.iter().find(is_it).map(|finding| {
                assert!(finding["message"].as_str().unwrap().contains("not a regular file"), "{finding}");
            })
        })
        .await;
        assert_eq!(gateway.post(CHAT, &chat(name, "hi")).await.status, 200);
    }
    let unreadable = findings(&gateway, "Unreadable").await;
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    gateway.write("manifests.yaml", &guest("good", &all[1..], "source: {builtin: round-robin}"));
    until("the edit to be in force", || async {
        (gateway.post(CHAT, &chat("good", "hi")).await.engine() == engines[1].name()).then_some(())
    })
    .await;
}

/// C15: what a Secret holds is not shown when it is named as a component, and neither is a password in a URL.
#[tokio::test]
async fn nothing_secret_stands_in_findings_or_in_the_log() {
    let engine = engine("m").await;
    let manifest = guest("g", &[engine.url()], "source: {secretRef: {name: token, key: key}}")
        + "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {key: hunter2-hunter2}\n---\n"
        + "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {name: s}\n\
           spec: {modelName: m, backendRef: {kind: Static, urls: ['https://user:s3cret@e.example', 'http://e?k=s3cret']}}\n---\n"
        + "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: StaticRoute\nmetadata: {name: r}\n\
           spec: {staticBackends: 'http://user:s3cret@e.example', staticModels: m2}\n---\n"
        + &guest(
            "image",
            &[engine.url()],
            "source: {oci: {image: 'user:s3cret@r.example/p:1'}}\nsha256: \"00\"",
        )
        .replace("\"00\"", &format!("\"{}\"", "0".repeat(64)));
    let gateway = Gateway::ready(Options::manifest(manifest)).await;
    let page = gateway.admin_page("/findings").await.text();
    for reason in ["InvalidComponent", "InvalidUrl", "InvalidSource"] {
        assert!(page.contains(reason), "{reason}: {page}");
    }
    let bytes: Vec<String> = b"hunter2".iter().map(|byte| format!("{byte:x}")).collect();
    for (place, text) in [("findings", page), ("log", gateway.log_text())] {
        for secret in
            ["s3cret", "hunter2", &bytes[..4].join(", "), &bytes[..4].join(" "), &bytes[..4].concat()]
        {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
    }
    let said = tokio::process::Command::new(harness::gateway::binary())
        .args(["serve", "--gpu-metrics-endpoint", "http://user:s3cret@dcgm:9400"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("gpu-metrics-endpoint") && !said.contains("s3cret"), "{said}");
}

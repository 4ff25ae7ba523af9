//! Policies as guests: hostile ones, broken ones, ones that only look on, and where they come from.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use engine::http::Config;
use harness::client::{self, Connection};
use harness::fleet::{chat, engines, until, urls};
use harness::gateway::{Gateway, Options, binary, component};
use harness::manifests::Manifest;
use http::Method;
use serde_json::Value;
use tokio::process::Command;

const CHAT: &str = "/v1/chat/completions";

/// One InferenceGateway, service and RoutingPolicy named `name`, over `urls`, with `policy` lines in the policy's spec.
pub(crate) fn guest(name: &str, urls: &[String], policy: &str) -> String {
    let mut text = format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: {name}}}\nspec:\n  \
         policies: [{{policyRef: {{name: {name}}}}}]\n  routes: [{{model: {name}, inferenceServiceRef: {name}}}]\n\
         ---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: {name}}}\n\
         spec: {{modelName: m, backendRef: {{kind: Static, urls: {urls:?}}}}}\n\
         ---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {{name: {name}}}\nspec:\n"
    );
    for line in policy.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text + "---\n"
}

/// The hostile guest with these settings.
fn hostile(name: &str, urls: &[String], config: &str, more: &str) -> String {
    guest(name, urls, &format!("source: {{file: hostile.wasm}}\nconfig: {config}\n{more}"))
}

fn with_hostile(manifest: String) -> Options {
    Options {
        policies: vec![("hostile.wasm".into(), component("testing/hostile"))],
        ..Options::manifest(manifest)
    }
}

/// Counted faults of the policy of the gateway `name`, by reason.
async fn faults(gateway: &Gateway, name: &str, reason: &str) -> f64 {
    let sample = format!(
        "wicketgate_policy_faults_total{{gateway=\"default/{name}\",model=\"m\",policy=\"{name}\",reason=\"{reason}\"}}"
    );
    gateway.metric(&sample).await.unwrap_or_default()
}

/// Behaviour, and the fault it is counted as.
const FAULTS: [(&str, &str); 19] = [
    ("loop", "fuel"),
    ("memory", "fuel"),
    ("recursion", "fuel"),
    ("panic", "trap"),
    ("trap", "trap"),
    ("many-logs", "host_calls"),
    ("giant-log", "fuel"),
    ("bad-index", "answer"),
    ("nan-scores", "answer"),
    ("short-scores", "answer"),
    ("wild-scores", "answer"),
    ("giant-list", "memory"),
    ("empty-order", "answer"),
    ("giant-string", "fuel"),
    ("bad-status", "answer"),
    ("giant-headers", "fuel"),
    ("bad-header", "answer"),
    ("disaggregated", "answer"),
    ("speculative", "answer"),
];

/// D37: whatever a guest does once it is in force, its call costs the request nothing and is counted.
#[tokio::test]
async fn guest_that_turns_hostile_in_service_costs_only_its_own_call() {
    let engines = engines(2, &Config::default()).await;
    let manifest: String = FAULTS
        .iter()
        .map(|(name, _)| {
            hostile(
                name,
                &urls(&engines),
                &format!("{{behaviour: {name}, after: 10}}"),
                "failureMode: NextPolicy",
            )
        })
        .chain([hostile("honest", &urls(&engines), "{}", "")])
        .collect();
    let gateway = Gateway::ready(with_hostile(manifest).args(["--workers", "1", "--answer-headers"])).await;
    let mut connection = Connection::open(gateway.data).await;
    let mut wrong = Vec::new();
    for (name, reason) in FAULTS {
        let mut decided = 0;
        for sent in 0..12 {
            let answer = connection.call(Method::POST, CHAT, &[], chat(name, "hi").to_string()).await;
            assert_eq!(answer.status, 200, "{name}, request {sent}: {}", answer.text());
            decided += u32::from(answer.header("x-wicketgate-policy") == Some(name));
            // Others are as before.
            let answer = connection.call(Method::POST, CHAT, &[], chat("honest", "hi").to_string()).await;
            assert_eq!((answer.status.as_u16(), answer.header("x-wicketgate-policy")), (200, Some("honest")));
        }
        assert!((10..12).contains(&decided), "{name} decided {decided} of 12");
        if faults(&gateway, name, reason).await == 0.0 {
            let page = gateway.admin_page("/metrics").await.text();
            let about = format!("wicketgate_policy_faults_total{{gateway=\"default/{name}\"");
            let counted = page.lines().filter(|line| line.starts_with(&about) && !line.ends_with(" 0"));
            wrong.push(format!("{name}, not {reason}: {:?}", counted.collect::<Vec<_>>()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(gateway.metric_sum("wicketgate_policy_faults_total{gateway=\"default/honest\"").await, 0.0);
}

/// D37: what happens to the request is the policy's owner's choice.
#[tokio::test]
async fn failure_mode_decides_about_the_request_whose_policy_fails() {
    let engines = engines(2, &Config::default()).await;
    let manifest: String = ["NextPolicy", "LeastInFlight", "Reject"]
        .iter()
        .flat_map(|mode| ["loop", "trap", "memory"].map(|behaviour| (mode, behaviour)))
        .map(|(mode, behaviour)| {
            let name = format!("{behaviour}-{}", mode.to_lowercase());
            let config = format!("{{behaviour: {behaviour}, after: 10}}");
            hostile(&name, &urls(&engines), &config, &format!("failureMode: {mode}"))
        })
        .collect();
    let gateway = Gateway::ready(with_hostile(manifest).args(["--workers", "1"])).await;
    for behaviour in ["loop", "trap", "memory"] {
        for (mode, last) in [("nextpolicy", 200), ("leastinflight", 200), ("reject", 503)] {
            let name = format!("{behaviour}-{mode}");
            for sent in 0..10 {
                let answer = gateway.post(CHAT, &chat(&name, "hi")).await;
                assert_eq!(answer.status, 200, "{name}, request {sent}: {}", answer.text());
            }
            let received = engines[0].counts().received + engines[1].counts().received;
            let answer = gateway.post(CHAT, &chat(&name, "hi")).await;
            assert_eq!(answer.status, last, "{name}: {}", answer.text());
            let now = engines[0].counts().received + engines[1].counts().received;
            assert_eq!(now - received, u64::from(last == 200), "{name}");
            assert_eq!(faults(&gateway, &name, if behaviour == "trap" { "trap" } else { "fuel" }).await, 1.0);
        }
    }
    assert_eq!(gateway.metric_sum("wicketgate_failures_total{reason=\"policy_rejected\"").await, 3.0);
}

/// Hostile guests that never get in: `check` says why, and a fresh replica is ready and serves by the last resort.
#[tokio::test]
async fn fresh_replica_with_broken_policies_is_ready_serves_and_says_why() {
    let engines = engines(2, &Config::default()).await;
    let files = ["wrong-world", "ungranted-import", "unknown-signal", "future-version", "forbidden-header"];
    let reasons = ["WrongWorld", "ImportNotGranted", "UnknownSignal", "WrongWorld", "InvalidComponent"];
    let probed =
        ["loop", "memory", "recursion", "panic", "nan-scores", "giant-string", "impure", "refuse-config"];
    let all = urls(&engines);
    let mut expected: Vec<(&str, &str)> = files.into_iter().zip(reasons).collect();
    expected.extend(probed.map(|name| match name {
        "impure" => (name, "Impure"),
        "refuse-config" => (name, "ConfigRejected"),
        _ => (name, "ProbeFailed"),
    }));
    expected.extend([
        ("missing", "FetchFailed"),
        ("garbage", "InvalidComponent"),
        ("digest", "DigestMismatch"),
    ]);
    let manifest: String = expected
        .iter()
        .map(|(name, _)| match *name {
            name if probed.contains(&name) => hostile(name, &all, &format!("{{behaviour: {name}}}"), ""),
            "digest" => hostile("digest", &all, "{}", &format!("sha256: \"{}\"", "0".repeat(64))),
            name => guest(name, &all, &format!("source: {{file: {name}.wasm}}")),
        })
        .collect();
    let mut options = with_hostile(manifest).args(["--answer-headers"]);
    options
        .policies
        .extend(files.map(|name| (format!("{name}.wasm"), component(&format!("testing/{name}")))));
    options.policies.push(("garbage.wasm".into(), b"\0asm, or so it says".to_vec()));
    let gateway = Gateway::ready(options).await;
    assert_eq!(client::get(gateway.probes, "/readyz").await.status, 200);
    for (name, _) in &expected {
        let mut served = BTreeSet::new();
        for _ in 0..2 {
            let answer = gateway.post(CHAT, &chat(name, "hi")).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            assert_eq!(answer.header("x-wicketgate-policy"), None, "{name}: nobody's policy chose");
            served.insert(answer.engine().to_owned());
        }
        assert_eq!(served.len(), 2, "{name}: ties go round");
    }
    let output = Command::new(binary())
        .args(["check", "--format", "json"])
        .arg(gateway.manifests())
        .arg("--policy-dir")
        .arg(gateway.policies())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let checked: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let served = gateway.admin_page("/findings").await.json();
    for page in [&checked, &served] {
        for (name, reason) in &expected {
            let about = |finding: &&Value| {
                finding["message"].as_str().is_some_and(|message| message.contains(&format!("`{name}`")))
            };
            let found = page["findings"].as_array().unwrap().iter().find(about);
            let found = found.unwrap_or_else(|| panic!("{name}: {page:#}"));
            assert_eq!(found["reason"], *reason, "{found}");
            assert!(found["file"].as_str().unwrap().ends_with("manifests.yaml"), "{found}");
            assert!(!found["remedy"].as_str().unwrap().is_empty(), "{found}");
        }
    }
}

/// C8: a policy that reads the header in which its service's credentials travel is left out while that is so, and found.
#[tokio::test]
async fn header_of_a_services_credentials_is_not_handed_to_its_policy() {
    let engines = engines(2, &Config::default()).await;
    let open = hostile("p", &urls(&engines), "{behaviour: header}", "");
    let auth = "spec: {modelName: m, auth: {header: x-hostile-endpoint, secretRef: {name: key, key: token}},";
    let secret = open.replace("spec: {modelName: m,", auth)
        + "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\ndata: {token: c2VzYW1l}\n";
    let gateway = Gateway::ready(with_hostile(secret).args(["--answer-headers"])).await;
    let ask = async || {
        let headers = [("x-hostile-endpoint", "0")];
        let answer = client::post(gateway.data, CHAT, &headers, chat("p", "hi").to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("x-wicketgate-policy").map(str::to_owned)
    };
    assert_eq!(ask().await, None, "the last resort chose");
    let findings = gateway.admin_page("/findings").await.text();
    assert!(findings.contains("HeaderNotGranted") && findings.contains("x-hostile-endpoint"), "{findings}");
    gateway.write("manifests.yaml", &open);
    until("the policy decides", || async { ask().await.filter(|policy| policy == "p") }).await;
}

/// The chain in force for the model: entry name and digest.
pub(crate) async fn digest(gateway: &Gateway) -> Option<String> {
    let page = gateway.admin_page("/snapshot").await.json();
    page.pointer("/gateways/0/routes/0/policies/0/digest")?.as_str().map(str::to_owned)
}

/// Waits until another component is in force than `before`.
pub(crate) async fn other_digest(gateway: &Gateway, before: &str) -> String {
    until("another component", || async { digest(gateway).await.filter(|digest| digest != before) }).await
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= group.len() { letter } else { '=' });
        }
    }
    text
}

/// Policy sources: a built-in, and the bytes of a ConfigMap in the directory, which may change.
#[tokio::test]
async fn policies_come_from_the_gateway_itself_and_from_config_maps() {
    let engines = engines(2, &Config::default()).await;
    let all = urls(&engines);
    let gateway = Gateway::ready(
        Options::manifest(guest("p", &all, "source: {builtin: round-robin}")).args(["--answer-headers"]),
    )
    .await;
    let builtin = digest(&gateway).await.expect("a component");
    let answer = gateway.post(CHAT, &chat("p", "hi")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-wicketgate-policy")), (200, Some("p")));

    let map = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: policies}}\nbinaryData:\n  p.wasm: {}\n",
            base64(&component(name))
        )
    };
    gateway.write("map.yaml", &map("least-in-flight"));
    gateway
        .write("manifests.yaml", &guest("p", &all, "source: {configMapRef: {name: policies, key: p.wasm}}"));
    let least = other_digest(&gateway, &builtin).await;
    assert_eq!(gateway.post(CHAT, &chat("p", "hi")).await.header("x-wicketgate-policy"), Some("p"));
    gateway.write("map.yaml", &map("testing/hostile"));
    let hostile = other_digest(&gateway, &least).await;
    assert_ne!(hostile, builtin);
    assert_eq!(gateway.post(CHAT, &chat("p", "hi")).await.status, 200);
}

/// `mode: Shadow`: recorded, never followed, and its faults hurt nobody.
#[tokio::test]
async fn shadow_policy_is_recorded_and_never_followed() {
    let engines = engines(2, &Config::default()).await;
    let manifest = |config: &str| {
        Manifest::new()
            .gateway(&format!(
                "policies:\n  - {{policyRef: {{name: shadow}}, mode: Shadow, config: {config}}}\n  - {{name: round-robin}}"
            ))
            .model("m", urls(&engines))
            .document(
                "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {name: shadow}\n\
                 spec: {source: {file: hostile.wasm}, failureMode: Reject}",
            )
            .yaml()
    };
    let args = ["--answer-headers", "--workers", "1"];
    let gateway = Gateway::ready(with_hostile(manifest("{behaviour: header}")).args(args)).await;
    let first = format!("http://{}", engines[0].name());
    let mut served = Vec::new();
    for _ in 0..20 {
        let headers = [("x-hostile-endpoint", "0")];
        let answer = client::post(gateway.data, CHAT, &headers, chat("m", "hi").to_string()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-wicketgate-policy")),
            (200, Some("round-robin"))
        );
        served.push(answer.header("x-wicketgate-endpoint").unwrap().to_owned());
    }
    let at_first = served.iter().filter(|url| **url == first).count();
    assert_eq!(at_first, 10, "round-robin decides: {served:?}");
    let shadow =
        "wicketgate_policy_shadow_total{gateway=\"default/gw\",model=\"m\",policy=\"shadow\",result=";
    assert_eq!(gateway.metric_sum(&format!("{shadow}\"agreed\"")).await, 10.0);
    assert_eq!(gateway.metric_sum(&format!("{shadow}\"differed\"")).await, 10.0);

    gateway.write("manifests.yaml", &manifest("{behaviour: trap, after: 10}"));
    let faults =
        "wicketgate_policy_faults_total{gateway=\"default/gw\",model=\"m\",policy=\"shadow\",reason=\"trap\"";
    let served = async || {
        let answer = gateway.post(CHAT, &chat("m", "hi")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-wicketgate-policy")),
            (200, Some("round-robin"))
        );
    };
    until("a shadow that traps is counted", || async {
        served().await;
        (gateway.metric_sum(faults).await > 0.0).then_some(())
    })
    .await;
    for _ in 0..25 {
        served().await;
    }
}

//! Components that ask a compiler for much: one tenant's, beside others who go on as before.

use std::time::{Duration, Instant};

use engine::http::Config;
use harness::bars;
use harness::client;
use harness::fleet::{chat, engines, until, urls};
use harness::gateway::{Gateway, Options, binary, component};
use serde_json::Value;
use tokio::process::Command;

use crate::policies::guest;

const CHAT: &str = "/v1/chat/completions";
/// What hostile components may add to the gateway's memory, bytes.
const ADDED_BYTES_MAX: f64 = (100 << 20) as f64;
/// The bar for another tenant's edit to be in force.
const IN_FORCE_MAX: Duration = Duration::from_secs(5);

/// Everything of one tenant: what [`guest`] makes, in a namespace of its own.
fn tenant(name: &str, file: &str, urls: &[String]) -> String {
    let text = guest(name, urls, &format!("source: {{file: {file}.wasm}}"));
    text.replace(
        &format!("metadata: {{name: {name}}}"),
        &format!("metadata: {{name: {name}, namespace: {name}}}"),
    )
}

/// A policy of the hostile tenant; no gateway needs to name it.
fn hostile(name: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\n\
         metadata: {{name: {name}, namespace: hostile}}\nspec: {{source: {{file: {name}.wasm}}}}\n---\n"
    )
}

/// Digest of the policy in force for a tenant.
async fn digest(gateway: &Gateway, tenant: &str) -> Option<String> {
    let page = gateway.admin_page("/snapshot").await.json();
    let gateways = page["gateways"].as_array()?;
    let of =
        gateways.iter().find(|gateway| gateway["name"].as_str().is_some_and(|name| name.contains(tenant)))?;
    of.pointer("/routes/0/policies/0/digest")?.as_str().map(str::to_owned)
}

/// Reason of the finding about a policy of the hostile tenant.
fn reason<'a>(findings: &'a Value, name: &str) -> Option<&'a str> {
    let object = format!("RoutingPolicy hostile/{name}");
    findings["findings"].as_array()?.iter().find(|finding| finding["object"] == object)?["reason"].as_str()
}

/// C1: hostile components of one tenant among three, all at once: the gateway's memory stays what it is, others' edits are in
/// force soon, no request fails, and every finding names the bound.
#[tokio::test]
async fn compile_bombs_of_one_tenant_are_found_and_cost_the_others_nothing() {
    let engines = engines(2, &Config::default()).await;
    let all = urls(&engines);
    let mut options = Options::manifest(tenant("anna", "anna", &all) + &tenant("bert", "bert", &all));
    options.policies =
        vec![("anna.wasm".into(), component("round-robin")), ("bert.wasm".into(), component("load-aware"))];
    let gateway = Gateway::ready(options).await;
    let before = gateway.metric("process_resident_memory_bytes").await.expect("resident memory");
    // Of those that are compiled, three: each may take half a minute of CPU time.
    let slow = ["65000-loops-1000-locals", "calls-of-250-values", "types-nested-200000-levels"];
    let bombs: Vec<_> =
        bombs::all().into_iter().filter(|bomb| bomb.bound.is_some() || slow.contains(&bomb.name)).collect();
    assert!(bombs.len() >= 30, "{}", bombs.len());
    for bomb in &bombs {
        gateway.write_policy(&format!("{}.wasm", bomb.name), &bomb.component);
    }
    gateway.write("hostile.yaml", &bombs.iter().map(|bomb| hostile(bomb.name)).collect::<String>());

    let others = [component("least-in-flight"), component("prefix-hash"), component("gpu-load-aware")];
    bars::within("another tenant's edit", IN_FORCE_MAX, async |measured| {
        let old = digest(&gateway, "anna").await;
        let began = Instant::now();
        gateway.write_policy("anna.wasm", &others[measured]);
        until("the edit in force", || async {
            let answer = gateway.post(CHAT, &chat("anna", "hi")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            (digest(&gateway, "anna").await != old).then_some(())
        })
        .await;
        began.elapsed()
    })
    .await;

    for bomb in &bombs {
        let findings = until(bomb.name, || async {
            let findings = gateway.admin_page("/findings").await.json();
            reason(&findings, bomb.name).is_some().then_some(findings)
        })
        .await;
        let reason = reason(&findings, bomb.name).expect("found");
        match bomb.bound {
            Some(bound) => assert_eq!(reason, bound, "{}", bomb.name),
            None => {
                assert!(reason.starts_with("Compile") || reason == "WrongWorld", "{}: {reason}", bomb.name);
            }
        }
    }
    for tenant in ["anna", "bert"] {
        assert_eq!(gateway.post(CHAT, &chat(tenant, "hi")).await.status, 200);
    }
    assert_eq!(client::get(gateway.probes, "/readyz").await.status, 200);
    let after = gateway.metric("process_resident_memory_bytes").await.expect("resident memory");
    assert!(after - before <= ADDED_BYTES_MAX, "{before} bytes before, {after} after");
}

/// C1, N7: `policy check` meets the same bounds, in the same words.
#[tokio::test]
async fn policy_check_refuses_a_bomb_by_its_bound() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, reason) in
        [("40000-locals-20000-loops", "TooManyLocals"), ("calls-of-250-values", "CompileMemory")]
    {
        let file = directory.path().join("bomb.wasm");
        std::fs::write(&file, bombs::named(name).component).expect("written");
        let output = Command::new(binary()).args(["policy", "check"]).arg(&file).output().await.expect("run");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("refused: {reason}: ")) && text.contains("\nremedy "), "{text}");
    }
}

/// N7: `policy run` shows a decision of a component that fails its probe, and says that no gateway would load it.
#[tokio::test]
async fn policy_run_looks_at_a_component_that_fails_its_probe() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, scenario) = (directory.path().join("p.wasm"), directory.path().join("s.json"));
    std::fs::write(&file, component("testing/hostile")).expect("written");
    let text = r#"{"config": {"behaviour": "loop"}, "pool": {"endpoints": [{"url": "http://a:1"}]}}"#;
    std::fs::write(&scenario, text).expect("written");
    let mut command = Command::new(binary());
    command.args(["policy", "run"]).arg(&file).arg("--scenario").arg(&scenario);
    let output = command.output().await.expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("refused  no gateway would load it as it is: ProbeFailed"), "{text}");
    assert!(text.contains("`pick` ran out of fuel: it used all of its 101000 units"), "{text}");
}

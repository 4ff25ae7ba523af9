//! What the gateway's own lines say, and where they say that it comes from.

use harness::fleet::engine;
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use serde_json::Value;

fn lines(gateway: &Gateway) -> Vec<Value> {
    gateway.log_text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// N10: details are the gateway's own, each line names its source in one word, no line of a start warns, and the policies
/// in force, findings and their end are said.
#[tokio::test]
async fn the_log_says_what_is_in_force_and_what_is_wrong_until_it_is_not() {
    let engine = engine("m").await;
    let manifest = |strategy: &str| {
        let gateway = format!("routeStrategy: {strategy}");
        Manifest::new().gateway(&gateway).model("m", [engine.url()]).yaml()
    };
    let options = Options::manifest(manifest("round-robin")).args(["--log-level", "debug"]);
    let gateway = Gateway::ready(options).await;
    let in_force = |policy: &'static str| {
        move |line: &Value| {
            line["message"] == "policies in force"
                && line["gateway"] == "default/gw"
                && line["policies"].as_str().is_some_and(|text| text.starts_with(policy))
        }
    };
    let line = gateway.logged(in_force("round-robin 0.1.0 (")).await;
    assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"config".into()), "{line}");
    for line in lines(&gateway) {
        let source = line["target"].as_str().expect("a source");
        assert!(!source.contains("::"), "{line}");
        assert!(!["WARN", "ERROR"].contains(&line["level"].as_str().expect("a level")), "{line}");
    }

    let from = gateway.log_len();
    gateway.write("manifests.yaml", &manifest("least-in-flight"));
    gateway.logged_after(from, in_force("least-in-flight 0.1.0 (")).await;

    let says = |start: &'static str| {
        move |line: &Value| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with(start) && text.contains("spec.routes"))
        }
    };
    let from = gateway.log_len();
    gateway.write(
        "manifests.yaml",
        &manifest("least-in-flight").replace("inferenceServiceRef: svc-0", "inferenceServiceRef: svc-7"),
    );
    let wrong = gateway.logged_after(from, says("manifests.yaml:")).await;
    assert_eq!(wrong["level"], "WARN", "{wrong}");
    assert!(!wrong["message"].as_str().unwrap().contains("error:"), "{wrong}");
    gateway.write("manifests.yaml", &manifest("least-in-flight"));
    let gone = gateway.logged_after(from, says("resolved: manifests.yaml:")).await;
    assert_eq!(gone["level"], "INFO", "{gone}");
}

//! The deterministic part: no threads, no time.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::fake::{FakePrepare, document, file_policy, gateway, service};
use crate::source::directory::Directory;

struct Place {
    dir: TempDir,
    directory: Directory,
    core: Core,
    prepare: FakePrepare,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(dir.path());
        Self { dir, directory, core: Core::new(Index::default()), prepare: FakePrepare::default() }
    }

    fn write(&mut self, text: &str) -> Option<Assembled> {
        fs::write(self.dir.path().join("all.yaml"), text).expect("written");
        self.look()
    }

    fn look(&mut self) -> Option<Assembled> {
        let burst = self.directory.look().map(Input::Burst);
        self.core.apply(burst, &self.prepare)
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.core.findings().iter().map(|finding| finding.reason).collect()
    }
}

#[test]
fn the_first_look_builds_even_nothing_and_later_only_changes_build() {
    let mut place = Place::new();
    let first = place.look().expect("the first generation");
    assert_eq!(first.snapshot.generation, Generation(1));
    assert!(place.look().is_none());
    let second =
        place.write(&(service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &[]))).expect("a change");
    assert_eq!((second.snapshot.generation, second.snapshot.endpoints.len()), (Generation(2), 1));
}

#[test]
fn findings_change_without_a_new_generation() {
    let mut place = Place::new();
    let good = service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &[]);
    place.write(&good).expect("a change");
    let before = place.reasons();
    assert!(place.write(&(good.clone() + "---\n{{{\n")).is_none(), "nothing to build");
    assert_eq!(place.reasons().len(), before.len() + 1);
    assert!(place.write(&good).is_none());
    assert_eq!(place.reasons(), before);
}

#[test]
fn nothing_is_built_before_a_source_has_spoken() {
    let mut core = Core::new(Index::default());
    assert!(core.apply([Input::Policies], &FakePrepare::default()).is_none());
}

#[test]
fn nothing_to_serve_and_something_wrong_is_hopeless_and_nothing_at_all_is_not() {
    let mut place = Place::new();
    place.look();
    assert!(!place.core.is_hopeless());
    place.write("{{{");
    assert!(place.core.is_hopeless());
    let unused = "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {name: s}\n\
                  spec: {modelName: m, backendRef: nowhere}\n";
    place.write(unused);
    assert!(place.core.findings().iter().any(|finding| finding.severity == Severity::Error));
    assert!(!place.core.is_hopeless(), "nobody uses what is wrong");
    place.write(&(service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &[]) + "---\n{{{\n"));
    assert!(!place.core.is_hopeless());
}

#[test]
fn one_policy_in_trouble_is_one_finding_per_gateway() {
    let mut place = Place::new();
    let policy = place.dir.path().join("p.wasm");
    fs::write(&policy, "bad").expect("written");
    let chain = |name: &str| gateway(name, "s", &["p", "p"]);
    let text = service("s", &["http://127.0.0.1:9"]) + &chain("g") + &chain("h") + &file_policy("p", &policy);
    place.write(&text).expect("a change");
    let mut objects: Vec<String> = place
        .core
        .findings()
        .iter()
        .filter(|finding| {
            finding.reason == "InvalidComponent" && finding.object.starts_with("InferenceGateway")
        })
        .map(|finding| finding.object.to_string())
        .collect();
    objects.sort();
    assert_eq!(objects, ["InferenceGateway default/g", "InferenceGateway default/h"]);
}

#[test]
fn a_policy_whose_settings_only_a_gateway_gives_is_judged_with_them() {
    let mut place = Place::new();
    let policy = place.dir.path().join("p.wasm");
    fs::write(&policy, "picky").expect("written");
    let services = service("s", &["http://127.0.0.1:9"]) + &file_policy("p", &policy);
    let chain = |config: &str| {
        let routes = r#"[{"model":"m","inferenceServiceRef":"s"}]"#;
        let entries =
            format!(r#"[{{"name":"round-robin"}},{{"policyRef":{{"name":"p"}},"config":{config}}}]"#);
        services.clone()
            + &document("InferenceGateway", "g", &format!(r#"{{"routes":{routes},"policies":{entries}}}"#))
    };
    let rejected = |place: &Place| {
        let findings = place.core.findings().into_iter().filter(|finding| finding.reason == "ConfigRejected");
        findings.map(|finding| (finding.severity, finding.field)).collect::<Vec<_>>()
    };
    place.write(&services).expect("a change");
    assert_eq!(rejected(&place), [(Severity::Warning, "spec.config".to_owned())], "nobody gives them");
    place.write(&chain(r#"{"marker":1}"#)).expect("a change");
    assert_eq!(rejected(&place), []);
    place.write(&chain("{}")).expect("a change");
    let entry = "spec.policies[1].config".to_owned();
    assert_eq!(rejected(&place), [(Severity::Error, entry)], "said once, where the settings belong");
}

#[test]
fn a_policy_that_is_not_there_is_found_once_even_where_it_has_to_decide() {
    let mut place = Place::new();
    let routes = r#"[{"model":"m","inferenceServiceRef":"s"}]"#;
    let spec = format!(
        r#"{{"routes":{routes},"policies":[{{"policyRef":{{"name":"gaurd"}},"failureMode":"Reject"}}]}}"#
    );
    place.write(&(service("s", &["http://127.0.0.1:9"]) + &document("InferenceGateway", "g", &spec)));
    assert_eq!(place.reasons(), ["PolicyNotFound"]);
}

#[test]
fn a_policy_is_asked_for_again_when_told_so() {
    let mut place = Place::new();
    let policy = place.dir.path().join("p.wasm");
    fs::write(&policy, "slow").expect("written");
    let text =
        service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &["p"]) + &file_policy("p", &policy);
    place.write(&text).expect("a change");
    assert!(place.core.is_preparing());
    place.prepare.finish("slow");
    let assembled = place.core.apply([Input::Policies], &place.prepare).expect("a new generation");
    assert!(assembled.troubles.is_empty() && !place.core.is_preparing());
}

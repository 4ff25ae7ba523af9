//! Rendering, as people do it, and reading what came out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Namespace and name of the release that is rendered.
pub(crate) const NAMESPACE: &str = "inference";
/// See [`NAMESPACE`].
pub(crate) const RELEASE: &str = "rel";
/// Helm 4 and Helm 3.
pub(crate) const HELMS: [&str; 2] = ["helm", "helm3"];

/// A path below the top of the checkout.
pub(crate) fn path(below: &str) -> PathBuf {
    harness::gateway::root().join(below)
}

/// The text of a file of the checkout.
pub(crate) fn text(below: &str) -> String {
    std::fs::read_to_string(path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
}

/// A tool that `tests/cluster/binaries.sh` builds.
pub(crate) fn tool(name: &str) -> Command {
    let folder =
        std::env::var_os("WICKETGATE_CLUSTER_BIN").map_or_else(|| path(".cache/cluster/bin"), PathBuf::from);
    let binary = folder.join(name);
    assert!(binary.exists(), "{} is missing: tests/cluster/binaries.sh builds it", binary.display());
    let mut command = Command::new(binary);
    // Nothing of the caller's own configuration.
    command.env("HOME", std::env::temp_dir()).env_remove("KUBECONFIG");
    command
}

/// Standard output of a command, or standard error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// `helm template` with these arguments, as text.
pub(crate) fn template(helm: &str, args: &[&str]) -> Result<String, String> {
    let mut command = tool(helm);
    command.args(["template", RELEASE]).arg(path("charts/wicketgate")).args(["--namespace", NAMESPACE]);
    command.args(args);
    run(&mut command)
}

/// The objects of `helm template` (Helm 4) with these arguments.
pub(crate) fn chart(args: &[&str]) -> Vec<Value> {
    objects(&template("helm", args).unwrap_or_else(|error| panic!("{args:?}: {error}")))
}

/// The files of `charts/wicketgate/ci`.
pub(crate) fn scenarios() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path("charts/wicketgate/ci"))
        .expect("scenarios")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 7, "scenarios are missing");
    files
}

/// The objects of every scenario, with the scenario's name; rendered once.
pub(crate) fn rendered() -> &'static [(String, Vec<Value>)] {
    static RENDERED: OnceLock<Vec<(String, Vec<Value>)>> = OnceLock::new();
    RENDERED.get_or_init(|| {
        let name = |file: &Path| file.file_name().expect("a name").to_string_lossy().into_owned();
        scenarios().iter().map(|file| (name(file), chart(&["--values", &file.to_string_lossy()]))).collect()
    })
}

/// The folders that can be given to `kubectl apply -k`.
pub(crate) const OVERLAYS: [&str; 5] =
    ["base", "overlays/dev", "overlays/production", "overlays/namespaced", "overlays/rkllama"];

/// The objects of one of [`OVERLAYS`]; rendered once.
pub(crate) fn overlay(name: &str) -> &'static [Value] {
    static RENDERED: OnceLock<BTreeMap<&str, Vec<Value>>> = OnceLock::new();
    let render = |name| {
        objects(&kustomize(&path("deploy").join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    &RENDERED.get_or_init(|| OVERLAYS.into_iter().map(|name| (name, render(name))).collect())[name]
}

/// `kustomize build`.
pub(crate) fn kustomize(folder: &Path) -> Result<String, String> {
    run(tool("kustomize").arg("build").arg(folder))
}

/// The objects of a YAML stream, sorted by kind, namespace and name.
pub(crate) fn objects(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    let mut all: Vec<Value> = all.into_iter().filter(|object| !object.is_null()).collect();
    all.sort_by_key(|object| identity(object).to_owned());
    let ids: BTreeSet<String> = all.iter().map(identity).collect();
    assert_eq!(ids.len(), all.len(), "an object twice");
    all
}

/// `Kind namespace/name` of an object.
pub(crate) fn identity(object: &Value) -> String {
    let part = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    format!("{} {}/{}", part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
}

/// The objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The only object of a kind.
pub(crate) fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}: {:?}", objects.iter().map(identity).collect::<Vec<_>>());
    found[0]
}

/// The pods of an object: its own specification if it is a pod, else its template's, with the pod's labels.
pub(crate) fn pod(object: &Value) -> Option<(&Value, &Value)> {
    match object["kind"].as_str() {
        Some("Pod") => Some((&object["spec"], &object["metadata"]["labels"])),
        Some("Deployment") => {
            let template = &object["spec"]["template"];
            Some((&template["spec"], &template["metadata"]["labels"]))
        }
        _ => None,
    }
}

/// The items of a list that may be absent.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

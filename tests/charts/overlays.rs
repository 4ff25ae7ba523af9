//! The kustomize folders.

use std::path::Path;

use serde_json::{Value, json};

use crate::render::{OVERLAYS, identity, items, kustomize, objects, of_kind, overlay, path, run, the, tool};

#[test]
fn kubectl_renders_every_overlay_as_kustomize_does() {
    for name in OVERLAYS {
        let folder = path("deploy").join(name);
        let theirs = run(tool("kubectl").arg("kustomize").arg(&folder)).map(|yaml| objects(&yaml));
        assert_eq!(theirs, kustomize(&folder).map(|yaml| objects(&yaml)), "{name}");
    }
}

/// Components that no overlay uses yet render too, on the base.
#[test]
fn every_component_renders_alone_on_the_base() {
    let components = std::fs::read_dir(path("deploy/components")).expect("components");
    for component in components.map(|entry| entry.expect("an entry").path()) {
        let folder = tempfile::tempdir_in(path("target")).expect("a folder");
        let relative =
            |to: &Path| format!("../../{}", to.strip_prefix(path("")).expect("in the checkout").display());
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{}]\ncomponents: [{}]\n",
            relative(&path("deploy/base")),
            relative(&component),
        );
        std::fs::write(folder.path().join("kustomization.yaml"), text).expect("written");
        let said = kustomize(folder.path());
        let changed = said.as_ref().map(|yaml| objects(yaml) != overlay("base"));
        assert_eq!(changed, Ok(true), "{}: {said:?}", component.display());
    }
}

#[test]
fn every_object_says_that_it_is_part_of_the_gateway() {
    for name in OVERLAYS.into_iter().filter(|name| *name != "overlays/rkllama") {
        for object in overlay(name).iter().filter(|object| object["kind"] != "CustomResourceDefinition") {
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/name"], "wicketgate", "{name}: {}", identity(object));
            assert_eq!(labels["app.kubernetes.io/part-of"], "wicketgate", "{name}: {}", identity(object));
        }
    }
}

/// What a component adds would go where the context says, away from the Deployment that it is about.
#[test]
fn everything_of_an_overlay_is_where_its_deployment_is() {
    for name in OVERLAYS.into_iter().filter(|name| *name != "overlays/rkllama") {
        let objects = overlay(name);
        let namespace = &the(objects, "Deployment")["metadata"]["namespace"];
        assert!(namespace.is_string(), "{name}");
        for object in objects {
            let kind = object["kind"].as_str().expect("a kind");
            let is_cluster_wide =
                kind.starts_with("Cluster") || ["Namespace", "CustomResourceDefinition"].contains(&kind);
            let wanted = if is_cluster_wide { &Value::Null } else { namespace };
            assert_eq!(object["metadata"]["namespace"], *wanted, "{name}: {}", identity(object));
        }
    }
}

/// The API server refuses nothing here, and nothing works: an account bound in another namespace than its own.
#[test]
fn accounts_are_bound_where_they_are() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let account = &the(objects, "ServiceAccount")["metadata"];
        for binding in objects
            .iter()
            .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding")))
        {
            let subject = &binding["subjects"][0];
            assert_eq!(subject["name"], account["name"], "{name}: {}", identity(binding));
            assert_eq!(subject["namespace"], account["namespace"], "{name}: {}", identity(binding));
        }
        let pod = &the(objects, "Deployment")["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], account["name"], "{name}");
    }
}

/// What people have scripts for: names, labels, ports and the argument for the port.
#[test]
fn the_rkllama_overlay_has_the_old_routers_names_labels_and_ports() {
    let objects = overlay("overlays/rkllama");
    for kind in ["Deployment", "ServiceAccount", "Role", "RoleBinding"] {
        let object = the(objects, kind);
        assert_eq!(object["metadata"]["name"], "rkllama-router", "{kind}");
        assert_eq!(object["metadata"]["labels"]["app"], "rkllama-router", "{kind}");
        assert!(object["metadata"].get("namespace").is_none(), "{kind} goes where the context says");
    }
    let config = the(objects, "ConfigMap");
    assert_eq!(config["metadata"]["name"], "rkllama-model-config");
    assert!(config["data"]["models.yaml"].is_string());
    let service = |name: &str| {
        let all = of_kind(objects, "Service");
        all.into_iter().find(|service| service["metadata"]["name"] == name).cloned().unwrap_or_default()["spec"].clone()
    };
    let router = service("rkllama-router");
    assert_eq!((&router["ports"][0]["port"], &router["ports"][0]["name"]), (&json!(8080), &json!("http")));
    let pods = service("rkllama-pods");
    assert_eq!((&pods["clusterIP"], &pods["selector"]), (&json!("None"), &json!({"app": "rkllama"})));
    let deployment = the(objects, "Deployment");
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"app": "rkllama-router"}));
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<&str> = items(&container["args"]).iter().filter_map(Value::as_str).collect();
    assert!(args.contains(&"--port=8080") && args.contains(&"--namespace=$(NAMESPACE)"), "{args:?}");
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/health", "port": "http"}));
    assert_eq!(container["resources"]["limits"], json!({"cpu": "200m", "memory": "128Mi"}));
}

/// The examples are right: every field is known, and nothing but what they refer to is missing.
#[test]
fn samples_lack_nothing_but_what_they_refer_to() {
    let mut check = std::process::Command::new(harness::gateway::binary());
    let output =
        check.args(["check", "--format", "json"]).arg(path("deploy/samples")).output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let known = ["BackendNotFound", "ReferenceNotFound", "NotImplemented", "NoEndpoints"];
    for finding in items(&report["findings"]) {
        let reason = finding["reason"].as_str().expect("a reason");
        assert!(known.contains(&reason), "{finding}");
    }
}

//! What is kept in more than one place is the same everywhere.

use std::collections::BTreeMap;
use std::path::Path;

use crate::render::{path, text};

fn definitions(folder: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files
        .map(|entry| entry.expect("an entry").path())
        .filter(|file| file.file_name().is_some_and(|name| name != "kustomization.yaml"))
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("a definition");
            (file.file_name().expect("a name").to_string_lossy().into_owned(), text)
        })
        .collect()
}

#[test]
fn the_definitions_are_those_that_the_binary_prints_wherever_they_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut print = std::process::Command::new(harness::gateway::binary());
    crate::render::run(print.args(["crds", "--out"]).arg(folder.path())).expect("printed");
    let printed = definitions(folder.path());
    assert_eq!(printed.len(), 8);
    for copy in ["crds", "charts/wicketgate/crds", "deploy/crds"] {
        assert!(definitions(&path(copy)) == printed, "{copy} is stale: `make manifests` writes it");
    }
    let listed = text("deploy/crds/kustomization.yaml");
    assert!(printed.keys().all(|name| listed.contains(&format!("- {name}\n"))), "{listed}");
}

#[test]
fn alerts_and_dashboard_of_the_component_are_the_charts() {
    let dashboards = ["charts/wicketgate/files", "deploy/components/monitoring"]
        .map(|at| text(&format!("{at}/dashboard.json")));
    assert!(dashboards[0] == dashboards[1], "`make manifests` copies it");
    let read = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).expect("YAML") };
    let rule = read(&text("deploy/components/monitoring/prometheusrule.yaml"));
    assert_eq!(
        rule["spec"],
        read(&text("charts/wicketgate/files/alerts.yaml")),
        "`make manifests` copies them"
    );
}

#[test]
fn the_chart_is_of_the_binarys_version() {
    let chart: serde_json::Value =
        serde_saphyr::from_str(&text("charts/wicketgate/Chart.yaml")).expect("YAML");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for kustomization in ["deploy/base", "deploy/overlays/rkllama", "deploy/overlays/production"] {
        let tag = format!("newTag: {}", env!("CARGO_PKG_VERSION"));
        assert!(text(&format!("{kustomization}/kustomization.yaml")).contains(&tag), "{kustomization}");
    }
}

//! Definitions that Helm owns. Alone, as whoever asks the API server for all kinds meanwhile sees one come and go.

use cluster::place::{Place, documents};
use serde_json::json;

use crate::charts::{helm, path};

/// Helm owns the definitions that it installed: only the command as the docs have it brings newer ones in.
#[tokio::test]
async fn definitions_that_helm_installed_are_replaced_by_the_documented_command() {
    let place = Place::new("charts-definitions").await;
    // Ours are there already, so one of them goes by another name.
    let ours =
        std::fs::read_to_string(path("crds/production-stack.vllm.ai_routingpolicies.yaml")).expect("a file");
    let other = ours.replace("production-stack.vllm.ai", "helm-owned.example");
    let chart = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(chart.path().join("crds")).expect("made");
    let written = |name: &str, text: &str| std::fs::write(chart.path().join(name), text).expect("written");
    written("Chart.yaml", "apiVersion: v2\nname: definitions\nversion: 0.1.0\n");
    written("crds/policies.yaml", &other);
    let folder = chart.path().display().to_string();
    helm(&place, "helm", &["install", "definitions", &folder]).await.ok();

    let mut newer = documents(&other).remove(0);
    newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = json!("Newer.");
    let newer = newer.to_string();
    let apply = |force: bool| {
        let force = if force { &["--force-conflicts"][..] } else { &[] };
        let args = [&["apply", "--server-side"], force, &["-f", "-"]].concat();
        let (place, newer) = (&place, &newer);
        async move { place.kubectl(&args, newer).await }
    };
    let refused = apply(false).await;
    assert!(!refused.success && refused.err.contains("conflict"), "{}", refused.err);
    apply(true).await.ok();
    for file in [
        "docs/operations.md",
        "README.md",
        "charts/wicketgate/README.md",
        "charts/wicketgate/templates/NOTES.txt",
    ] {
        let text = std::fs::read_to_string(path(file)).expect("a file");
        let told: Vec<&str> = text.split("kubectl apply --server-side ").skip(1).collect();
        assert!(!told.is_empty(), "{file} says how");
        assert!(told.iter().all(|rest| rest.starts_with("--force-conflicts ")), "{file}");
    }
    place.kubectl(&["delete", "-f", "-"], &newer).await.ok();
}

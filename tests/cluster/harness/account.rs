//! The ServiceAccount that the gateway runs as: the chart's, with the chart's rights and no others.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::inside;
use crate::place::Place;
use crate::plane;

/// Name of the ServiceAccount.
pub const NAME: &str = "wicketgate";

/// Stands for the test's namespace in what Helm rendered once for all.
const PLACEHOLDER: &str = "namespace-of-the-test";

/// All optional rights are granted: what each of them is for is part of the suite.
const VALUES: &str = "fullnameOverride=wicketgate,rbac.scope=namespace,secrets.enabled=true,gatewayServices.enabled=true,\
     gateway.engineControl=true";

/// Creates the account and its roles in the place's namespace.
pub async fn create(place: &Place) {
    place.apply(&manifests().replace(PLACEHOLDER, &place.namespace)).await;
}

/// Writes a kubeconfig for the account, leading to `server` (a URL).
pub async fn kubeconfig(place: &Place, server: &str, file: &str) -> PathBuf {
    let token = plane::token(&place.client, &place.namespace, NAME).await.expect("a token");
    let path = inside::scratch().join(format!("{}-{file}.kubeconfig", place.namespace));
    place.plane().kubeconfig_for(&path, server, &token, &place.namespace);
    path
}

/// ServiceAccount, roles and bindings of the chart.
fn manifests() -> &'static str {
    static RENDERED: OnceLock<String> = OnceLock::new();
    RENDERED.get_or_init(|| {
        let chart = harness::gateway::root().join("charts/wicketgate");
        let output = Command::new(inside::program("helm"))
            .args(["template", "w"])
            .arg(chart)
            .args(["--namespace", PLACEHOLDER, "--set", VALUES])
            .args([
                "-s",
                "templates/serviceaccount.yaml",
                "-s",
                "templates/role.yaml",
                "-s",
                "templates/rolebinding.yaml",
                "-s",
                "templates/leader-election.yaml",
            ])
            .env("HOME", inside::scratch().join("home"))
            .output()
            .expect("helm runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    })
}

//! Policies from a real registry.

use std::net::SocketAddr;
use std::process::Stdio;

use cluster::engines::{deployment, routing_manifests};
use cluster::{gateway, inside, place::Place};
use harness::client::Connection;
use harness::fleet::{chat, until};
use harness::gateway::component;
use http::Method;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A registry that ends with the test.
struct Registry {
    address: SocketAddr,
    _process: Child,
}

impl Registry {
    async fn start() -> Self {
        let mut process = Command::new(inside::program("registry"))
            .arg("127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{error}; `tests/cluster/binaries.sh registry` builds it"));
        let out = process.stdout.take().expect("piped");
        let line = BufReader::new(out).lines().next_line().await.expect("read").expect("its address");
        Self { address: line.parse().expect("an address"), _process: process }
    }

    async fn put(&self, (method, path): (Method, &str), kind: &str, body: Vec<u8>) -> String {
        let mut connection = Connection::open(self.address).await;
        let answer = connection.call(method, path, &[("content-type", kind)], body).await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        answer.header("docker-content-digest").unwrap_or_default().to_owned()
    }

    /// Pushes a component as `repository:tag`; returns the manifest's digest.
    async fn push(&self, repository: &str, tag: &str, component: &[u8]) -> String {
        const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let layer = format!("sha256:{}", sha256(component));
        for (digest, body) in [(EMPTY, b"{}".to_vec()), (&*layer, component.to_vec())] {
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            self.put((Method::POST, &path), "application/octet-stream", body).await;
        }
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{EMPTY}","size":2}},"layers":[{{"mediaType":"application/wasm","digest":"{layer}","size":{}}}]}}"#,
            component.len()
        );
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.put((Method::PUT, &path), "application/vnd.oci.image.manifest.v1+json", manifest.into_bytes())
            .await
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn policy(source: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1
kind: RoutingPolicy
metadata: {{name: mine}}
spec: {source}
"
    )
}

/// A policy in a registry, by the digest that pushing it gave, then another by a tag that its own digest pins. What the
/// registry does not have is told, and the last good one decides on.
#[tokio::test]
async fn a_policy_comes_from_a_registry_by_digest() {
    let place = Place::new("policy-oci").await;
    let _pods = deployment(&place, "llama", "llama", 2).await;
    let registry = Registry::start().await;
    let repository = format!("{}/team/policies", registry.address);
    let first = registry.push("team/policies", "v1", &component("least-in-flight")).await;
    place.apply(&policy(&format!("{{source: {{oci: {{image: \"{repository}@{first}\"}}}}}}"))).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: mine,")).await;
    let gateway = gateway::ready(&place).await;
    place.condition("RoutingPolicy", "mine", "Fetched", "True").await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    let answer = gateway.post("/v1/chat/completions", &chat("llama", "hello")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-wicketgate-policy")), (200, Some("mine")));

    let second = component("round-robin");
    registry.push("team/policies", "v2", &second).await;
    let pinned =
        format!("{{sha256: \"{}\", source: {{oci: {{image: \"{repository}:v2\"}}}}}}", sha256(&second));
    place.apply(&policy(&pinned)).await;
    let digest_of =
        async || place.get("RoutingPolicy", "mine").await.data["status"]["policy"]["digest"].clone();
    until("the second one", || async { (digest_of().await == sha256(&second)).then_some(()) }).await;

    let missing = format!("{{source: {{oci: {{image: \"{repository}@sha256:{}\"}}}}}}", "0".repeat(64));
    place.apply(&policy(&missing)).await;
    let fetched = place.condition("RoutingPolicy", "mine", "Fetched", "False").await;
    assert_eq!(fetched["reason"], "FetchFailed", "{fetched}");
    assert!(
        fetched["message"].as_str().is_some_and(|message| message.contains("does not have it")),
        "{fetched}"
    );
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    let answer = gateway.post("/v1/chat/completions", &chat("llama", "hello")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-wicketgate-policy")), (200, Some("mine")));
}

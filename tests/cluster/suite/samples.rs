//! The files that people start from.

/// The examples of the README that this project began with, under `deploy/samples`.
pub(crate) const README: [&str; 4] =
    ["basic-inference.yaml", "gpu-aware-gateway.yaml", "cache-with-pdd-and-sd.yaml", "staticroute.yaml"];

/// One of them as it is.
pub(crate) fn read(file: &str) -> String {
    let path = harness::gateway::root().join("deploy/samples").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The form of the Go types, for this namespace.
pub(crate) fn go_form(namespace: &str) -> String {
    let path = harness::gateway::root().join("host/manifest/tests/fixtures/go_form.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.replace("namespace: ml", &format!("namespace: {namespace}"))
}

/// One object of every kind.
pub(crate) fn all(namespace: &str) -> String {
    let mut text = go_form(namespace);
    for file in README {
        text += "\n---\n";
        text += &read(file);
    }
    text + "
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: RoutingPolicy
metadata: {name: mine}
spec: {source: {builtin: prefix-hash}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: ModelPlacement
metadata: {name: models}
spec: {models: {qwen: {replicas: 1}}}
"
}

/// The part of the `InferencePool` definition that the gateway reads; the real one is not ours to install.
pub(crate) fn pool_definition() -> String {
    "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: inferencepools.inference.networking.k8s.io
  annotations: {api-approved.kubernetes.io: unapproved}
spec:
  group: inference.networking.k8s.io
  scope: Namespaced
  names: {kind: InferencePool, plural: inferencepools, singular: inferencepool, shortNames: [infpool]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"
    .to_owned()
}

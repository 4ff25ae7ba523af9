//! Documents of kinds and versions that are not known.

use super::*;

fn of(api_version: &str, kind: &str) -> Decoded {
    let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n");
    decode(&Arc::from("x.yaml"), text.as_bytes())
}

#[test]
fn a_kind_or_version_of_our_group_that_is_not_known_is_an_error_and_keeps_the_file() {
    // apiVersion; kind; reason; part of the remedy.
    for (api_version, kind, reason, remedy) in [
        ("production-stack.vllm.ai/v1alpha1", "InferenceGatway", "UnknownKind", "kind: InferenceGateway"),
        ("production-stack.vllm.ai/v1alpha1", "inferenceService", "UnknownKind", "kind: InferenceService"),
        ("production-stack.vllm.ai/v1alpha1", "Nonsense", "UnknownKind", "correct the kind"),
        ("production-stack.vlm.ai/v1alpha1", "InferenceGatway", "UnknownKind", "stack.vllm.ai/v1alpha1"),
        ("v1", "InferenceGatway", "UnknownKind", "apiVersion: production-stack.vllm.ai/v1alpha1"),
        ("production-stack.vllm.ai/v1", "InferenceGateway", "UnknownVersion", "v1alpha1"),
        ("production-stack.vllm.io/v1alpha1", "InferenceGateway", "UnknownVersion", "vllm.ai/v1alpha1"),
        ("v1alpha1", "StaticRoute", "UnknownVersion", "production-stack.vllm.ai/v1alpha1"),
        ("v1", "InferenceGateway", "UnknownVersion", "production-stack.vllm.ai/v1alpha1"),
        ("production-stack.vllm.ai/v1alpha1", "Service", "UnknownVersion", "apiVersion: v1"),
    ] {
        let decoded = of(api_version, kind);
        let [finding] = decoded.findings.as_slice() else { panic!("{:?}", decoded.findings) };
        let found = (finding.severity, finding.reason, decoded.broken);
        assert_eq!(found, (Severity::Error, reason, true), "{api_version} {kind}");
        assert!(finding.remedy.contains(remedy), "{api_version} {kind}: {}", finding.remedy);
    }
}

#[test]
fn a_kind_of_somebody_else_is_ignored() {
    for (api_version, kind, severity, reason) in [
        ("apps/v1", "Deployment", Severity::Warning, "UnknownKind"),
        ("v1", "Namespace", Severity::Warning, "UnknownKind"),
        ("v1", "Servce", Severity::Warning, "UnknownKind"),
        ("example.org/v1", "InferenceGatway", Severity::Warning, "UnknownKind"),
        ("production-stack.vllm.ai/v1alpha1", "VLLMRouter", Severity::Warning, "UnknownKind"),
        ("serving.knative.dev/v1", "Service", Severity::Warning, "UnknownVersion"),
        ("serving.kserve.io/v1beta1", "InferenceService", Severity::Error, "UnknownVersion"),
    ] {
        let decoded = of(api_version, kind);
        let found: Vec<_> = decoded.findings.iter().map(|found| (found.severity, found.reason)).collect();
        assert_eq!((found, decoded.broken), (vec![(severity, reason)], false), "{api_version} {kind}");
    }
}

#[test]
fn documents_are_counted_whether_or_not_they_can_be_read() {
    for (text, expected) in [
        ("", 0),
        (" \n\n", 0),
        ("# only\n---\n# comments\n", 0),
        ("---\nnull\n", 0),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", 1),
        ("apiVersion: v1\nkind: List\nitems: []\n", 1),
        ("kind: [unclosed\n---\nplain text\n", 2),
    ] {
        assert_eq!(decode(&Arc::from("x.yaml"), text.as_bytes()).documents, expected, "{text:?}");
    }
    assert_eq!(decode(&Arc::from("x.yaml"), b"\xff").documents, 1, "what cannot be read may hold anything");
}

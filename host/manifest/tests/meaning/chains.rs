use domain::policy::{FailureMode, PolicySource};

use super::*;

const SERVICE: &str = "
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: s}
spec: {modelName: m, backendRef: {kind: Static, urls: ['http://e:1']}}
---
";

fn of(spec: &str, more: &str) -> Lowered {
    let gateway = format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: g}}\nspec:\n  \
         routes: [{{model: m, inferenceServiceRef: s}}]\n{spec}"
    );
    lowered(&[SERVICE, &gateway, more])
}

fn names(lowered: &Lowered) -> String {
    let route = route(gateway(lowered, "g"), "m");
    route.chain.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn three_fields_make_the_chain_in_a_fixed_order() {
    for (spec, expected) in [
        ("", "round-robin"),
        ("  sessionAffinity: false\n", "round-robin"),
        ("  sessionAffinity: true\n", "session-affinity"),
        ("  routeStrategy: PrefixHash\n", "prefix-hash load-aware"),
        ("  routeStrategy: prefixaware\n", "prefix-hash load-aware"),
        (
            "  routeStrategy: Prefix_Hash\n  sessionAffinity: true\n",
            "session-affinity prefix-hash load-aware",
        ),
        ("  routeStrategy: prefix-hash\n  schedulingPolicy: GPU-Load-Aware\n", "prefix-hash gpu-load-aware"),
        ("  schedulingPolicy: gpu-load-aware\n", "gpu-load-aware"),
        ("  routeStrategy: session\n  sessionAffinity: true\n", "session-affinity"),
        ("  routeStrategy: RoundRobin\n", "round-robin"),
        ("  routeStrategy: least_loaded\n", "least-in-flight"),
        ("  routeStrategy: LeastRequest\n", "least-in-flight"),
        ("  routeStrategy: loadaware\n  schedulingPolicy: load-aware\n", "load-aware"),
        ("  policies: [{name: PrefixHash}, {name: round-robin}]\n", "prefix-hash round-robin"),
    ] {
        let lowered = of(spec, "");
        assert_eq!(names(&lowered), expected, "{spec}");
        assert_eq!(serious(&lowered), Vec::<String>::new(), "{spec}");
        assert!(!route(gateway(&lowered, "g"), "m").chain_rejected);
    }
}

#[test]
fn session_affinity_prefers_before_prefix_hash_and_pins_elsewhere() {
    for (spec, expected) in [
        ("  sessionAffinity: true\n  routeStrategy: PrefixHash\n", r#"session-affinity {"mode":"prefer"}"#),
        ("  sessionAffinity: true\n  routeStrategy: round-robin\n", "session-affinity {}"),
        ("  policies: [{name: session}, {name: PrefixHash}]\n", "session-affinity {}"),
    ] {
        let lowered = of(spec, "");
        assert_eq!(chain(route(gateway(&lowered, "g"), "m"))[0], expected, "{spec}");
    }
}

#[test]
fn what_cannot_be_found_is_left_out_and_the_last_good_chain_stays() {
    for (spec, expected, rejected, reason, field) in [
        ("  routeStrategy: magic\n", "", true, "PolicyNotFound", "spec.routeStrategy"),
        ("  routeStrategy: kvaware\n", "", false, "NotImplemented", "spec.routeStrategy"),
        (
            "  routeStrategy: disaggregated_prefill\n  sessionAffinity: true\n",
            "session-affinity",
            false,
            "NotImplemented",
            "spec.routeStrategy",
        ),
        (
            "  schedulingPolicy: magic\n  sessionAffinity: true\n",
            "session-affinity",
            true,
            "PolicyNotFound",
            "spec.schedulingPolicy",
        ),
        (
            "  policies: [{policyRef: {name: round-robin}}]\n",
            "",
            true,
            "PolicyNotFound",
            "spec.policies[0].policyRef",
        ),
        ("  policies: [{name: a, policyRef: {name: b}}]\n", "", true, "InvalidEntry", "spec.policies[0]"),
        ("  policies: [{}]\n", "", true, "InvalidEntry", "spec.policies[0]"),
        (
            "  policies: [{name: load-aware}]\n  sessionAffinity: true\n",
            "load-aware",
            false,
            "ConflictingPolicies",
            "spec.policies",
        ),
        (
            "  policies: [{name: load-aware, config: 7}]\n",
            "load-aware",
            false,
            "WrongType",
            "spec.policies[0].config",
        ),
    ] {
        let lowered = of(spec, "");
        assert_eq!(names(&lowered), expected, "{spec}");
        assert_eq!(route(gateway(&lowered, "g"), "m").chain_rejected, rejected, "{spec}");
        assert_eq!(
            serious(&lowered),
            [format!("error InferenceGateway default/g {field} {reason}")],
            "{spec}"
        );
    }
}

#[test]
fn an_entry_that_must_not_be_missing_turns_requests_away() {
    let lowered = of("  policies: [{name: magic, failureMode: Reject}, {name: load-aware}]\n", "");
    let route = route(gateway(&lowered, "g"), "m");
    assert!(route.chain_rejected, "a last good chain goes first");
    assert_eq!(route.chain[0].failure_mode, FailureMode::Reject);
    assert!(
        matches!(&route.chain[0].source, PolicySource::Bytes { bytes, .. } if bytes.is_empty()),
        "it never loads"
    );
}

#[test]
fn policies_come_from_the_same_namespace_and_from_one_source() {
    let policy = |source: &str| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {{name: p}}\nspec: {{source: {source}}}\n"
        )
    };
    let found = |source: &str, more: &str| {
        let lowered = of("  routeStrategy: p\n", &format!("{}---\n{more}", policy(source)));
        let chain = &route(gateway(&lowered, "g"), "m").chain;
        (chain.first().map(|entry| entry.source.clone()), serious(&lowered))
    };
    assert_eq!(
        found("{builtin: PrefixHash}", ""),
        (Some(PolicySource::Builtin("prefix-hash".into())), vec![])
    );
    assert_eq!(
        found("{file: /policies/a.wasm}", ""),
        (Some(PolicySource::File("/policies/a.wasm".into())), vec![])
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ndata: {k: AGFzbQ==}\n";
    assert!(
        matches!(found("{secretRef: {name: c, key: k}}", secret), (Some(PolicySource::Bytes { .. }), rest) if rest.is_empty())
    );
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: AGFzbQ==}\n";
    for (source, more, field, reason) in [
        ("{configMapRef: {name: c, key: k}}", text, "spec.source.configMapRef", "InvalidSource"),
        ("{configMapRef: {name: c, key: z}}", text, "spec.source.configMapRef", "KeyNotFound"),
        ("{configMapRef: {name: d, key: k}}", text, "spec.source.configMapRef", "ReferenceNotFound"),
        ("{file: ../a.wasm}", "", "spec.source.file", "InvalidSource"),
        ("{builtin: nope}", "", "spec.source.builtin", "PolicyNotFound"),
        ("{}", "", "spec.source", "InvalidSource"),
        ("{builtin: a, file: b}", "", "spec.source", "InvalidSource"),
        ("{oci: {image: 'r/p@sha256:1'}}", "", "spec.source.oci.image", "InvalidSource"),
        ("{oci: {image: 'r.example/p:1'}}", "", "spec.source.oci.image", "InvalidSource"),
        (
            "{oci: {image: 'r.example/p@sha256:0000000000000000000000000000000000000000000000000000000000000000', pullSecretRef: {name: d}}}",
            "",
            "spec.source.oci.pullSecretRef",
            "ReferenceNotFound",
        ),
    ] {
        let (entry, findings) = found(source, more);
        assert_eq!(entry, None, "{source}");
        let own = format!("error RoutingPolicy default/p {field} {reason}");
        assert_eq!(
            findings,
            ["error InferenceGateway default/g spec.routeStrategy PolicyNotFound".to_owned(), own]
        );
    }
}

#[test]
fn a_policy_from_a_registry_is_pinned_and_carries_its_credentials() {
    let zeros = "0".repeat(64);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: pull}\ndata: {.dockerconfigjson: e30=}\n";
    let found = |spec: &str| {
        let policy = format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {{name: p}}\nspec: {spec}\n---\n{secret}"
        );
        let lowered = of("  routeStrategy: p\n", &policy);
        assert_eq!(serious(&lowered), [""; 0]);
        route(gateway(&lowered, "g"), "m").chain[0].clone()
    };
    let image = format!("r.example/team/p@sha256:{zeros}");
    let entry = found(&format!("{{source: {{oci: {{image: '{image}', pullSecretRef: {{name: pull}}}}}}}}"));
    let PolicySource::Oci { image: read, pull_secret: Some(secret) } = &entry.source else {
        panic!("{entry:?}")
    };
    assert_eq!((read.to_string(), &*secret.0), (image, &b"{}"[..]));
    assert!(!format!("{entry:?}").contains("123, 125"), "credentials are not shown");
    let entry = found(&format!("{{sha256: '{zeros}', source: {{oci: {{image: 'r.example/p:1'}}}}}}"));
    assert!(matches!(&entry.source, PolicySource::Oci { pull_secret: None, .. }));
    assert_eq!(entry.sha256.as_deref(), Some(&*zeros));
}

#[test]
fn a_policys_settings_and_the_pools_stand_side_by_side() {
    let more = "
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceCache
metadata: {name: c}
spec: {modelName: m, kvCacheTransferPolicy: {thresholdHitRate: \"0.5\"}}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: s}
spec: {modelName: m, backendRef: {kind: Static, urls: ['http://e:1']}, inferenceCacheRef: c}
";
    let lowered = of("  policies: [{name: load-aware, config: {beta: 2, pool: {x: 1}}}]\n", more);
    assert_eq!(
        chain(route(gateway(&lowered, "g"), "m")),
        [r#"load-aware {"beta":2,"pool":{"thresholdHitRate":0.5}}"#]
    );
    assert_eq!(serious(&lowered), ["warning InferenceGateway default/g spec.policies[0].config ReservedKey"]);
}

#[test]
fn a_policy_gets_what_the_host_can_give_and_its_owner_is_told() {
    let limits = |limits: &str| {
        let policy = format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {{name: p}}\n\
             spec: {{source: {{builtin: round-robin}}, limits: {limits}}}\n"
        );
        let lowered = of("  policies: [{policyRef: {name: p}}]\n", &policy);
        let limits = route(gateway(&lowered, "g"), "m").chain[0].limits;
        ((limits.memory_bytes, limits.fuel_permille), serious(&lowered))
    };
    let told = |field: &str| vec![format!("warning RoutingPolicy default/p spec.limits.{field} OutOfRange")];
    assert_eq!(limits("{memory: 4Mi, fuelFactor: 10}"), ((Some(4 << 20), Some(10_000)), Vec::new()));
    assert_eq!(limits("{memory: 64Mi}"), ((Some(16 << 20), None), told("memory")));
}

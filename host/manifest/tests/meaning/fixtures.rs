use std::time::Duration;

use domain::policy::{FailureMode, Mode, PolicySource};
use domain::route::ErrorFormat;

use super::*;

const SEED: [&str; 4] = [
    include_str!("../fixtures/seed_service.yaml"),
    include_str!("../fixtures/seed_gateway.yaml"),
    include_str!("../fixtures/seed_cache.yaml"),
    include_str!("../fixtures/seed_static_route.yaml"),
];
const SURROUNDINGS: &str = include_str!("../fixtures/seed_surroundings.yaml");
const GO: &str = include_str!("../fixtures/go_form.yaml");
const NEW: &str = include_str!("../fixtures/new_kinds.yaml");

#[test]
fn the_seeds_examples_serve_once_what_they_refer_to_is_there() {
    let mut files = SEED.to_vec();
    files.push(SURROUNDINGS);
    let lowered = lowered(&files);
    let gateway = gateway(&lowered, "llm-gateway");
    let llama = route(gateway, "llama3-70b");
    assert_eq!(urls(llama), ["http://10.0.0.1:8000", "http://10.0.0.2:8000"], "ready and staying ones only");
    assert_eq!(llama.engine_model, None);
    let pool = r#"{"pool":{"evictionThreshold":0.9,"thresholdHitRate":0.8}}"#;
    let preferring = pool.replacen('{', r#"{"mode":"prefer","#, 1);
    let links = [
        format!("session-affinity {preferring}"),
        format!("prefix-hash {pool}"),
        format!("gpu-load-aware {pool}"),
    ];
    assert_eq!(chain(llama), links);
    let mistral = route(gateway, "mistral3");
    assert_eq!(
        mistral.engine_model.as_ref().map(|m| m.as_str()),
        Some("mistralai/Mistral-3"),
        "the field is rewritten"
    );
    assert_eq!(urls(mistral), ["http://10.0.1.1:8000", "http://10.0.1.2:8000"]);
    assert_eq!(mistral.endpoints.iter().map(|e| e.weight).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        chain(mistral),
        [r#"session-affinity {"mode":"prefer"}"#, "prefix-hash {}", "gpu-load-aware {}"]
    );

    let (first, second) = (&llama.endpoints[0], &llama.endpoints[1]);
    assert_eq!((&*first.node, &*first.zone, &*first.id.pod_uid), ("node-a", "zone-1", "uid-0"));
    assert_eq!(first.pod.as_ref().map(|pod| &*pod.name), Some("llama3-0"));
    assert_eq!((&*second.node, second.asleep, first.asleep), ("node-b", true, false));
    let labels: Vec<(&str, &str)> = second.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(
        labels,
        [("app", "llama3"), ("tier", "gold")],
        "machine-made labels would make instances anew"
    );

    let sample = gateway_of_static(&lowered);
    assert_eq!(urls(route(sample, "facebook/opt-125m")), ["http://localhost:9001", "http://localhost:9003"]);
    assert_eq!(chain(route(sample, "facebook/opt-125m")), ["round-robin {}"]);

    assert_eq!(
        serious(&lowered),
        [
            "warning InferenceService default/basic-inference spec.backendRef NoEndpoints",
            "warning InferenceService default/basic-inference spec.nlpFilters.semanticCache NotImplemented",
            "warning InferenceService default/llama3-chatbot-service spec.inferenceCacheRef NotImplemented",
            "warning InferenceService default/llama3-chatbot-service spec.inferenceCacheRef NotImplemented",
            "warning PrefillDecodingDisaggregation default/pdd-llama3-chatbot  NotImplemented",
            "warning SpeculativeDecoding default/sd-llama3-chatbot  NotImplemented",
        ]
    );
}

fn gateway_of_static(lowered: &Lowered) -> &GatewayDraft {
    gateway(lowered, "staticroute-sample")
}

#[test]
fn the_seeds_examples_alone_say_what_is_missing_and_where() {
    let lowered = lowered(&SEED);
    let gateway = gateway(&lowered, "llm-gateway");
    assert_eq!(gateway.routes.len(), 2, "a model whose service is missing is known, and answered 503");
    assert!(gateway.routes.iter().all(|route| route.endpoints.is_empty()));
    let missing: Vec<(&str, u32)> = lowered
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .map(|finding| (finding.field.as_str(), finding.origin.line))
        .collect();
    assert_eq!(
        missing,
        [
            ("spec.routes[0].inferenceServiceRef", 11),
            ("spec.routes[1].inferenceServiceRef", 13),
            ("spec.backendRef", 7),
            ("spec.inferenceCacheRef", 8),
        ]
    );
    assert!(lowered.findings.iter().all(|finding| &*finding.origin.file == "m.yaml"));
}

#[test]
fn the_go_dialect_means_the_same() {
    let lowered = lowered(&[GO]);
    let gateway = gateway(&lowered, "go-gateway");
    let llama = route(gateway, "llama");
    assert_eq!(
        urls(llama),
        ["http://10.1.0.1:8080"],
        "the slice's only port, since names differ only in being empty"
    );
    let pool = r#"{"pool":{"evictionThreshold":0.95,"thresholdHitRate":0.8}}"#;
    assert_eq!(chain(llama), [format!("prefix-hash {pool}"), format!("load-aware {pool}")]);
    assert_eq!(chain(&super::gateway(&lowered, "go-static").routes[0]), ["least-in-flight {}"]);
    assert!(lowered.findings.iter().all(|f| f.severity < Severity::Error), "{:?}", lowered.findings);
    let kept: Vec<&str> =
        lowered.findings.iter().filter(|f| f.reason == "NotActedUpon").map(|f| f.field.as_str()).collect();
    for field in ["spec.topologyHint", "spec.backendRef.weight", "spec.image", "spec.engineConfig"] {
        assert!(kept.contains(&field), "{field} is not acted upon, and says so");
    }
}

#[test]
fn what_the_seeds_did_not_have_is_lowered() {
    let lowered = lowered(&[NEW]);
    let gateway = gateway(&lowered, "new");
    let settings = &gateway.settings;
    assert_eq!((settings.limits.body_bytes_max, settings.limits.in_flight_max), (1 << 20, 64));
    assert_eq!(settings.limits.queue_wait_max, Duration::from_secs(90));
    assert_eq!(settings.timeouts.connect, Duration::from_millis(500));
    assert_eq!((settings.retries.attempts, settings.retries.budget_percent), (2, 10));
    assert_eq!(settings.retries.statuses, [503, 429]);
    assert_eq!(settings.error_format, ErrorFormat::OpenAi);
    assert_eq!(settings.session_key.headers[0], "x-user");
    assert_eq!(settings.session_key.body_field.as_deref(), Some("user"));
    assert_eq!(gateway.hostnames.iter().map(|h| &**h).collect::<Vec<_>>(), ["llm.example.com"]);
    let mut aliases: Vec<(&str, &str)> = gateway.aliases.iter().map(|(a, m)| (&**a, m.as_str())).collect();
    aliases.sort_unstable();
    assert_eq!(aliases, [("gpt-4", "m"), ("old", "m")], "an alias of an alias leads to the model");

    let route = route(gateway, "m");
    assert_eq!(
        urls(route),
        ["http://10.2.0.1:8081"],
        "selected, ready, of this namespace, at the port named http"
    );
    let engine = &route.endpoints[0];
    let auth = engine.auth.as_ref().expect("there are credentials");
    assert_eq!(
        (auth.header.as_str(), auth.value.as_bytes(), auth.forward_client),
        ("authorization", &b"Bearer s3cret"[..], false)
    );
    assert_eq!((&*engine.metrics.path, engine.metrics.port), ("/stats", Some(9100)));

    let modes: Vec<_> = route.chain.iter().map(|e| (e.name.as_str(), e.mode, e.failure_mode)).collect();
    assert_eq!(
        modes,
        [
            ("session-affinity", Mode::Active, FailureMode::NextPolicy),
            ("mine", Mode::Shadow, FailureMode::LeastInFlight),
            ("mine", Mode::Active, FailureMode::Reject),
            ("least-in-flight", Mode::Active, FailureMode::NextPolicy),
        ]
    );
    assert_eq!(&*route.chain[1].config, r#"{"weight":2}"#, "an entry's settings stand for the policy's");
    assert_eq!(&*route.chain[2].config, r#"{"beta":1}"#);
    assert!(matches!(&route.chain[1].source, PolicySource::Bytes { bytes, .. } if **bytes == *b"\0asm"));
    assert_eq!(route.chain[1].limits.memory_bytes, Some(16 << 20));
    assert_eq!(route.chain[1].limits.fuel_permille, Some(1500));
    assert_eq!(serious(&lowered), ["warning ModelPlacement default/placement  NotImplemented"]);
}

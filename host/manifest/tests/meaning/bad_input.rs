use super::*;

const GOOD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n";

fn ours(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: {kind}\nmetadata:\n  name: x\nspec:\n{spec}\n"
    )
}

#[test]
fn a_document_that_is_broken_costs_itself_only() {
    let text = format!(
        "{GOOD}---\nkind: [unclosed\n---\n{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n",
        GOOD.replace("good", "too")
    );
    let decoded = read(&text);
    let names: Vec<String> = decoded.objects.iter().map(|object| object.key().to_string()).collect();
    assert_eq!(names, ["ConfigMap default/good", "ConfigMap default/too", "Secret default/s"]);
    assert!(decoded.broken);
    assert_eq!(shown(&decoded.findings), ["error   Unreadable"]);
    assert!((5..=6).contains(&decoded.findings[0].origin.line), "{}", decoded.findings[0]);
    assert!(decoded.findings[0].message.len() > "the document is not readable as YAML: ".len());
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_a_remedy() {
    let service = |rest: &str| ours("InferenceService", &format!("  modelName: m\n  backendRef: b\n{rest}"));
    let gateway = |rest: &str| ours("InferenceGateway", rest);
    // Text; field; line; reason; refused; part of the remedy.
    for (text, field, line, reason, refused, remedy) in [
        (service("  modlName: x"), "spec.modlName", 8, "UnknownField", false, "correct its name"),
        (service("  Image: x"), "spec.Image", 8, "UnknownField", false, "spell it image"),
        (
            ours("InferenceService", "  backendRef: b"),
            "spec.modelName",
            6,
            "RequiredField",
            true,
            "add modelName",
        ),
        (
            ours("InferenceService", "  modelName: 7\n  backendRef: b"),
            "spec.modelName",
            6,
            "WrongType",
            true,
            "in quotes",
        ),
        (
            ours("InferenceService", "  modelName: m\n  backendRef: 7"),
            "spec.backendRef",
            7,
            "WrongType",
            true,
            "a text or a mapping",
        ),
        (
            ours("InferenceService", "  modelName: m\n  backendRef: [b]"),
            "spec.backendRef",
            7,
            "WrongType",
            true,
            "a text or a mapping",
        ),
        (
            ours("InferenceService", "  modelName: m\n  backendRef: true"),
            "spec.backendRef",
            7,
            "WrongType",
            true,
            "a text or a mapping",
        ),
        (
            ours("InferenceService", "  modelName: m\n  backendRef: ''"),
            "spec.backendRef",
            7,
            "TooShort",
            true,
            "longer",
        ),
        (
            ours("InferenceService", "  modelName: m\n  backendRef: {port: 1}"),
            "spec.backendRef",
            7,
            "RequiredField",
            true,
            "one of them",
        ),
        (
            ours("InferenceService", "  modelName: m\n  backendRef: {name: b, port: 0}"),
            "spec.backendRef.port",
            7,
            "OutOfRange",
            true,
            "from 1 to 65535",
        ),
        (
            service("  inferenceCacheRef: {kind: InferenceCache}"),
            "spec.inferenceCacheRef.name",
            8,
            "RequiredField",
            true,
            "add name",
        ),
        (service("  metrics: {port: 99999}"), "spec.metrics.port", 8, "OutOfRange", true, "from 1 to 65535"),
        (gateway("  sessionAffinity: yes"), "spec.sessionAffinity", 6, "WrongType", true, "without quotes"),
        (gateway("  errorFormat: openai"), "spec.errorFormat", 6, "NotAllowed", true, "Compat, OpenAI"),
        (
            gateway("  limits:\n    queueTimeout: 5"),
            "spec.limits.queueTimeout",
            7,
            "WrongType",
            true,
            "write 5s",
        ),
        (
            gateway("  limits:\n    queueTimeout: 5 minutes"),
            "spec.limits.queueTimeout",
            7,
            "WrongForm",
            true,
            "write 5m",
        ),
        (gateway("  retries: {statuses: [404]}"), "spec.retries.statuses[0]", 6, "NotAllowed", true, "408"),
        (gateway("  hostnames: [a, a]"), "spec.hostnames[1]", 6, "Duplicate", true, "remove one"),
        (gateway("  routes: {model: m}"), "spec.routes", 6, "WrongType", true, "a list"),
        (
            gateway("  routes:\n    - model: m\n      inferenceServiceRef: s\n      weight: 1"),
            "spec.routes[0].weight",
            9,
            "UnknownField",
            false,
            "remove it",
        ),
        (
            ours("InferenceCache", "  modelName: m\n  kvCacheTransferPolicy:\n    thresholdHitRate: 1.5"),
            "spec.kvCacheTransferPolicy.thresholdHitRate",
            8,
            "OutOfRange",
            true,
            "from 0 to 1",
        ),
        (
            ours("InferenceCache", "  modelName: m\n  kvCacheTransferPolicy:\n    thresholdHitRate: 80%"),
            "spec.kvCacheTransferPolicy.thresholdHitRate",
            8,
            "WrongForm",
            true,
            "0.8",
        ),
        (
            ours("InferenceCache", "  modelName: m\n  cacheTTL: 1 hour"),
            "spec.cacheTTL",
            7,
            "WrongForm",
            true,
            "1h",
        ),
        (
            ours("RoutingPolicy", "  source: {builtin: round-robin}\n  limits: {fuelFactor: 100}"),
            "spec.limits.fuelFactor",
            7,
            "OutOfRange",
            true,
            "from 0.001 to 10",
        ),
        (
            ours("SpeculativeDecoding", "  numSpeculativeTokens: 33"),
            "spec.numSpeculativeTokens",
            6,
            "OutOfRange",
            true,
            "from 1 to 32",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: http}]}\n".into(),
            "spec.ports[0].port",
            4,
            "WrongType",
            true,
            "without quotes",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {port: 80}\n".into(),
            "spec.port",
            4,
            "UnknownField",
            false,
            "did you mean ports?",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n".into(),
            "kind",
            1,
            "UnknownKind",
            false,
            "remove the document",
        ),
        (
            "apiVersion: production-stack.vllm.ai/v1\nkind: StaticRoute\nmetadata: {name: x}\n".into(),
            "apiVersion",
            1,
            "UnknownVersion",
            false,
            "v1alpha1",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {generateName: x}\n".into(),
            "metadata.name",
            1,
            "NoName",
            false,
            "generateName",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a/b}\n".into(),
            "metadata.name",
            1,
            "NoName",
            false,
            "generateName",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: '!!'}\n".into(),
            "data.k",
            4,
            "WrongForm",
            true,
            "stringData",
        ),
        ("- just\n- a list\n".into(), "", 1, "NotAnObject", false, "add both"),
        ("plain text\n".into(), "", 1, "NotAnObject", false, "add both"),
    ] {
        let decoded = read(&text);
        let findings: Vec<_> =
            decoded.findings.iter().map(|f| (f.field.as_str(), f.origin.line, f.reason)).collect();
        assert_eq!(findings, [(field, line, reason)], "{text}");
        assert_eq!(!decoded.refused.is_empty(), refused, "{text}");
        assert!(decoded.findings[0].remedy.contains(remedy), "{text}: {}", decoded.findings[0].remedy);
        assert!(!refused || decoded.objects.is_empty());
    }
}

#[test]
fn empty_and_unreadable_files_are_told_apart() {
    assert!(read("").objects.is_empty() && read("").findings.is_empty());
    assert!(read("# nothing\n---\n---\n").findings.is_empty());
    let decoded = decode(&Arc::from("x"), b"a: \xff\n");
    assert_eq!((shown(&decoded.findings), decoded.broken), (vec!["error   Unreadable".to_owned()], true));
    let large = vec![b'#'; decode::FILE_BYTES_MAX + 1];
    assert!(decode(&Arc::from("x"), &large).broken);
    assert_eq!(
        decode(&Arc::from("x"), format!("\u{feff}{GOOD}").as_bytes()).objects.len(),
        1,
        "a byte order mark is no content"
    );
}

#[test]
fn nulls_count_as_absent_and_defaults_are_filled_in() {
    let decoded = read(&ours("InferenceCache", "  modelName: m\n  pddRef:\n  cacheType: null"));
    assert!(decoded.findings.is_empty(), "{:?}", decoded.findings);
    let manifest::Body::InferenceCache(cache) = &decoded.objects[0].body else { panic!("a cache") };
    assert_eq!((cache.spec.tensor_parallel_size, cache.spec.cache_ttl.as_str()), (1, "1h"));
    assert_eq!(cache.spec.pdd_ref, None);
    let decoded = read(&ours("InferenceCache", "  modelName: null"));
    assert_eq!(decoded.findings[0].reason, "RequiredField");
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = include_str!("../fixtures/new_kinds.yaml");
    let mut state = 1_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut bundle = Bundle::default();
    for _ in 0..60 {
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..1 + random(6) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = b"{}[]:-\n\" \t#&*!0a"[random(16)],
                1 => drop(bytes.drain(at..(at + random(40)).min(bytes.len()))),
                _ => bytes.truncate(at.max(1)),
            }
        }
        for object in decode(&Arc::from("x"), &bytes).objects {
            bundle.apply(Change::Applied(Arc::new(object)));
        }
        lower(&bundle, &LowerOptions::default());
    }
}

/// B6: what an API server writes or takes is taken: nulls for empty lists, base64 in lines, lists whose entries have no kind.
#[test]
fn what_an_api_server_takes_is_taken() {
    let slice =
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x}\naddressType: IPv4\n";
    for (text, objects) in [
        (format!("{slice}endpoints: null\nports: null\n"), 1),
        (slice.to_owned(), 1),
        ("apiVersion: v1\nkind: List\nitems: null\n".to_owned(), 0),
        ("apiVersion: v1\nkind: PodList\nmetadata: {}\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]\n".to_owned(), 2),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: null\n".to_owned(), 1),
    ] {
        let decoded = read(&text);
        assert_eq!(shown(&decoded.findings), [""; 0], "{text}");
        assert_eq!((decoded.objects.len(), decoded.refused.len()), (objects, 0), "{text}");
    }
    for (written, bytes) in [
        ("|\n    aGVs\n    bG8=\n", "hello"),
        ("\"aGVs\\r\\nbG8=\"", "hello"),
        ("aGVsbG9=", "hello"),
        ("''", ""),
    ] {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\ndata:\n  k: {written}");
        let decoded = read(&text);
        assert_eq!(shown(&decoded.findings), [""; 0], "{text}");
        let manifest::Body::Secret(secret) = &decoded.objects[0].body else { panic!("a secret") };
        assert_eq!(secret.data.as_ref().expect("data")["k"].0, bytes.as_bytes(), "{text}");
    }
}

/// B6: files of other tools that have no kind are ignored with a warning, and break nothing.
#[test]
fn files_of_kustomize_and_helm_are_not_errors() {
    for (file, text) in [
        ("kustomization.yaml", "resources: [a.yaml]\n"),
        ("below/kustomization.yml", "resources: [a.yaml]\n"),
        ("Chart.yaml", "apiVersion: v2\nname: x\n"),
        ("values.yaml", "replicas: 1\n"),
    ] {
        let decoded = decode(&Arc::from(file), text.as_bytes());
        assert_eq!(shown(&decoded.findings), ["warning  kind UnknownKind"], "{file}");
        assert!(!decoded.broken, "{file}");
    }
    assert!(decode(&Arc::from("other.yaml"), b"resources: [a.yaml]\n").broken);
}

use std::collections::BTreeMap;

use domain::endpoint::EndpointId;
use domain::name::ObjectName;
use manifest::{Kind, ListedModel, ObjectKey};

use super::*;

const GATEWAY: &str = "
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata: {name: g}
spec: {routes: [{model: m, inferenceServiceRef: s}]}
---
";

fn service(backend: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: s}}\n\
         spec: {{modelName: m, backendRef: {backend}}}\n---\n"
    )
}

fn core(ports: &str, slices: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: b}}\nspec: {{{ports}}}\n---\n{slices}")
}

fn slice(name: &str, family: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
         {{kubernetes.io/service-name: b}}}}\naddressType: {family}\nports: [{ports}]\nendpoints: [{endpoints}]\n---\n"
    )
}

fn found(backend: &str, core: &str) -> (Vec<String>, Vec<String>) {
    let lowered = lowered(&[GATEWAY, &service(backend), core]);
    let urls = urls(route(gateway(&lowered, "g"), "m")).into_iter().map(str::to_owned).collect();
    let own = |f: &String| f.contains("InferenceService");
    (urls, serious(&lowered).into_iter().filter(own).collect())
}

#[test]
fn the_port_is_the_one_asked_for_or_named_http_or_the_only_one_or_8000() {
    let slices = slice(
        "x",
        "IPv4",
        "{name: http, port: 1}, {name: grpc, port: 2}, {name: '', port: 8000}",
        "{addresses: [10.0.0.1]}",
    );
    let two = "ports: [{name: grpc, port: 90}, {name: http, port: 80}]";
    let odd = "ports: [{name: grpc, port: 90}, {name: web, port: 8000}]";
    for (backend, ports, expected) in [
        ("b", two, Ok("1")),
        ("{name: b, port: 90}", two, Ok("2")),
        ("{name: b, port: 7}", two, Err("spec.backendRef.port PortNotFound")),
        ("b", "ports: [{name: grpc, port: 90}]", Ok("2")),
        ("b", odd, Ok("8000")),
        ("b", "ports: [{name: x, port: 1}, {name: y, port: 2}]", Err("spec.backendRef.port PortNotFound")),
        ("b", "clusterIP: None", Ok("8000")),
    ] {
        let (urls, findings) = found(backend, &core(ports, &slices));
        match expected {
            Ok(port) => assert_eq!(
                (urls, findings),
                (vec![format!("http://10.0.0.1:{port}")], vec![]),
                "{backend} {ports}"
            ),
            Err(finding) => {
                assert_eq!(
                    findings,
                    [format!("error InferenceService default/s {finding}")],
                    "{backend} {ports}"
                );
                assert!(urls.is_empty());
            }
        }
    }
}

/// Pods of an older revision without the port that the Service means by its name get a slice of their own, without that port.
#[test]
fn a_slice_of_pods_without_the_named_port_has_no_engines() {
    let with =
        slice("new", "IPv4", "{name: http, port: 1}, {name: metrics, port: 9}", "{addresses: [10.0.0.1]}");
    let without = slice("old", "IPv4", "{name: metrics, port: 9}", "{addresses: [10.0.0.2]}");
    let ports = "ports: [{name: http, port: 80}, {name: metrics, port: 9}]";
    assert_eq!(found("b", &core(ports, &(with + &without))).0, ["http://10.0.0.1:1"]);
    let unnamed = slice("x", "IPv4", "{port: 7}", "{addresses: [10.0.0.1]}");
    assert_eq!(found("b", &core("ports: [{name: http, port: 80}]", &unnamed)).0, ["http://10.0.0.1:7"]);
}

#[test]
fn an_engine_with_two_address_families_is_one_engine() {
    let pod = "targetRef: {kind: Pod, name: p, uid: u}";
    let both = slice("a6", "IPv6", "{port: 1}", &format!("{{addresses: ['fd00::1'], {pod}}}"))
        + &slice("b4", "IPv4", "{port: 1}", &format!("{{addresses: [10.0.0.1], {pod}}}"));
    assert_eq!(found("b", &core("ports: [{port: 1}]", &both)).0, ["http://10.0.0.1:1"]);
    let six = slice("a6", "IPv6", "{port: 1}", "{addresses: ['fd00::1']}");
    assert_eq!(found("b", &core("ports: [{port: 1}]", &six)).0, ["http://[fd00::1]:1"]);
}

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec:
  selector: {matchLabels: {app: engines}}
  targetPorts: [{number: 8000}, {number: 8001}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
---
";

fn pod(name: &str, uid: &str, labels: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: {uid}, labels: {{{labels}}}}}\nstatus: {{{status}}}\n---\n"
    )
}

fn running(address: &str) -> String {
    format!("phase: Running, podIP: {address}, conditions: [{{type: Ready, status: 'True'}}]")
}

#[test]
fn an_inference_pool_is_its_ready_pods_times_its_ports() {
    let backend = "{kind: InferencePool, group: inference.networking.k8s.io, name: p}";
    let objects = POOL.to_owned()
        + &pod("a", "ua", "app: engines", &running("10.0.0.1"))
        + &pod("b", "ub", "app: engines", "phase: Running, podIP: 10.0.0.2")
        + &pod("c", "uc", "app: others", &running("10.0.0.3"));
    let (urls, findings) = found(backend, &objects);
    assert_eq!(urls, ["http://10.0.0.1:8000", "http://10.0.0.1:8001"]);
    assert_eq!(findings, Vec::<String>::new());
    let (urls, findings) = found(backend, POOL);
    assert_eq!(urls, Vec::<String>::new());
    assert_eq!(findings, ["warning InferenceService default/s spec.backendRef NoEndpoints"]);
}

/// B6: the port of a native sidecar counts, that of an init container which ends does not.
#[test]
fn a_port_named_http_is_found_in_a_native_sidecar() {
    let backend = "{kind: Pods, selector: {matchLabels: {app: e}}}";
    for (policy, url) in [("restartPolicy: Always, ", "http://10.0.0.1:9000"), ("", "http://10.0.0.1:8000")] {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{app: e}}}}\nspec: {{containers: [{{name: c}}], \
             initContainers: [{{name: s, {policy}ports: [{{name: http, containerPort: 9000}}]}}]}}\nstatus: {{{}}}\n---\n",
            running("10.0.0.1")
        );
        assert_eq!(found(backend, &pod).0, [url], "{policy}");
    }
}

/// B6: a port that no selected pod declares is said, and used all the same.
#[test]
fn ports_that_no_pod_declares_are_found() {
    let pool = "{kind: InferencePool, group: inference.networking.k8s.io, name: p}";
    let pods = "{kind: Pods, selector: {matchLabels: {app: engines}}, port: 8001}";
    let pod = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{app: engines}}}}\nspec: {{{spec}}}\nstatus: {{{}}}\n---\n",
            running("10.0.0.1")
        )
    };
    let declaring = pod("containers: [{name: c, ports: [{containerPort: 8000}]}]");
    let undeclared = |field: &str| format!("warning InferenceService default/s {field} PortNotDeclared");
    let (urls, findings) = found(pool, &(POOL.to_owned() + &declaring));
    assert_eq!((urls.len(), findings), (2, vec![undeclared("spec.backendRef")]), "8001 only");
    assert_eq!(found(pods, &declaring).1, [undeclared("spec.backendRef.port")]);
    let (urls, findings) = found(pool, &(POOL.to_owned() + &pod("containers: [{name: c}]")));
    assert_eq!(
        (urls.len(), findings),
        (2, vec![]),
        "pods that declare nothing are worth a remark, not a warning"
    );
}

/// B6: what is not ready is not asked, although its Service publishes its address as ready.
#[test]
fn engines_that_are_not_ready_are_left_out_behind_publish_not_ready_addresses() {
    let target = "targetRef: {kind: Pod, name: p, uid: u1}";
    let of = |conditions: &str| {
        let endpoint = format!("{{addresses: [10.0.0.1], conditions: {{{conditions}}}, {target}}}");
        let service = core("publishNotReadyAddresses: true, ports: [{port: 1}]", "");
        service + &slice("x", "IPv4", "{port: 1}", &endpoint)
    };
    let unready = "phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'False'}]";
    for (conditions, status, expected) in [
        ("ready: true, serving: true", running("10.0.0.1"), 1),
        ("ready: true", running("10.0.0.1"), 1),
        ("ready: true, serving: false", running("10.0.0.1"), 0),
        ("ready: true", unready.to_owned(), 0),
        ("ready: true, serving: true", "phase: Running, podIP: 10.0.0.1".to_owned(), 1),
    ] {
        let objects = of(conditions) + &pod("p", "u1", "", &status);
        assert_eq!(found("b", &objects).0.len(), expected, "{conditions}; {status}");
    }
}

#[test]
fn a_pod_that_is_gone_is_believed_before_the_slice_that_still_names_it() {
    let of = |uid: &str| {
        let target = format!("targetRef: {{kind: Pod, name: p, uid: {uid}}}");
        core(
            "ports: [{port: 1}]",
            &slice("x", "IPv4", "{port: 1}", &format!("{{addresses: [10.0.0.1], {target}}}")),
        )
    };
    let one = ["http://10.0.0.1:1".to_owned()];
    let with = |pod: &str| found("b", &(of("u1") + pod)).0;
    assert_eq!(with(""), one, "a pod that nobody told of is the slice's word");
    assert_eq!(with(&pod("p", "u1", "", &running("10.0.0.1"))), one);
    assert!(with(&pod("p", "u1", "", "phase: Failed")).is_empty(), "it failed");
    assert!(with(&pod("p", "u2", "", "phase: Pending")).is_empty(), "another pod has its name by now");
    let terminating = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, uid: u1, deletionTimestamp: '2026-01-01T00:00:00Z'}\n---\n";
    assert!(with(terminating).is_empty(), "it is terminating");
    let earlier = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, uid: u0, deletionTimestamp: '2026-01-01T00:00:00Z'}\n---\n";
    assert_eq!(with(earlier), one, "the slice tells of the one that came after it");
}

#[test]
fn a_pod_that_was_deleted_does_not_come_back_by_a_slice_that_is_behind() {
    let target = "targetRef: {kind: Pod, name: p, uid: u1}";
    let slices = slice("x", "IPv4", "{port: 1}", &format!("{{addresses: [10.0.0.1], {target}}}"));
    let pod = pod("p", "u1", "", &running("10.0.0.1"));
    let mut bundle = bundle(&[GATEWAY, &service("b"), &core("ports: [{port: 1}]", &slices), &pod]);
    let count = |bundle: &Bundle| {
        let lowered = lower(bundle, &LowerOptions::default());
        lowered.draft.gateways[0].routes[0].endpoints.len()
    };
    assert_eq!(count(&bundle), 1);
    let key = ObjectKey { kind: Kind::Pod, name: ObjectName::new("default", "p") };
    assert!(bundle.apply(Change::Removed(key)));
    assert_eq!(count(&bundle), 0);
    for object in read(&pod).objects {
        bundle.apply(Change::Applied(Arc::new(object)));
    }
    assert_eq!(count(&bundle), 1, "it was only out of sight");
}

#[test]
fn a_core_object_that_says_what_it_said_is_no_change() {
    let text = core("ports: [{port: 1}]", &slice("x", "IPv4", "{port: 1}", "{addresses: [10.0.0.1]}"))
        + &pod("p", "u1", "", &running("10.0.0.1"));
    let mut bundle = Bundle::default();
    let objects: Vec<_> = read(&text).objects.into_iter().map(Arc::new).collect();
    for (round, wanted) in [(1, true), (2, false)] {
        for object in &objects {
            let is_different = bundle.apply(Change::Applied(Arc::clone(object)));
            assert_eq!(is_different, wanted, "round {round}: {}", object.key());
        }
    }
}

#[test]
fn backends_without_endpoints_say_why() {
    for (backend, core_objects, finding) in [
        ("b", core("type: ExternalName, externalName: e.example", ""), "error spec.backendRef NoEndpoints"),
        ("b", core("clusterIP: 10.9.9.9, ports: [{port: 80}]", ""), "warning spec.backendRef NoEndpoints"),
        ("b", String::new(), "error spec.backendRef BackendNotFound"),
        ("other/b", String::new(), "error spec.backendRef RefNotPermitted"),
        (
            "{kind: InferencePool, name: p, group: inference.networking.k8s.io}",
            String::new(),
            "error spec.backendRef BackendNotFound",
        ),
        ("{kind: Deployment, name: p, group: apps}", String::new(), "error spec.backendRef InvalidReference"),
        ("{kind: Pods, name: p}", String::new(), "error spec.backendRef InvalidReference"),
        (
            "{kind: Pods, selector: {matchLabels: {a: b}}}",
            String::new(),
            "warning spec.backendRef.selector NoEndpoints",
        ),
        ("{kind: Static, name: p}", String::new(), "error spec.backendRef InvalidReference"),
        ("{kind: Static, urls: ['ftp://x']}", String::new(), "error spec.backendRef.urls[0] InvalidUrl"),
        ("{kind: Static, urls: ['https://x']}", String::new(), "error spec.tls NoTrust"),
    ] {
        let (severity, rest) = finding.split_once(' ').expect("two parts");
        let (_, findings) = found(backend, &core_objects);
        assert_eq!(findings, [format!("{severity} InferenceService default/s {rest}")], "{backend}");
    }
}

/// N12: what is said of an engine beside its URL reaches policies.
#[test]
fn engines_from_urls_have_labels_node_and_zone() {
    let backend = "{kind: Static, urls: ['http://a:1', {url: 'http://b:1', weight: 2, labels: {tier: gold, gpu: h100}, node: n1, zone: z1}]}";
    let lowered = lowered(&[GATEWAY, &service(backend)]);
    assert_eq!(serious(&lowered), [""; 0]);
    let endpoints = &route(gateway(&lowered, "g"), "m").endpoints;
    let (plain, rich) = (&endpoints[0], &endpoints[1]);
    assert_eq!((plain.labels.len(), &*plain.node, &*plain.zone, plain.weight), (0, "", "", 1));
    assert_eq!((&*rich.node, &*rich.zone, rich.weight), ("n1", "z1", 2));
    let labels: Vec<(&str, &str)> = rich.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(labels, [("gpu", "h100"), ("tier", "gold")]);
}

#[test]
fn https_engines_are_trusted_as_the_service_says() {
    let yaml = "
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: s}
spec:
  modelName: m
  backendRef: {kind: Static, urls: ['https://e/base/']}
  tls: {caRef: {name: ca}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca}
data: {ca.crt: PEM}
";
    let lowered = lowered(&[GATEWAY, yaml]);
    let endpoint = &route(gateway(&lowered, "g"), "m").endpoints[0];
    assert_eq!(
        (&*endpoint.id.url, endpoint.target.port, &*endpoint.target.base_path),
        ("https://e/base", 443, "/base")
    );
    assert_eq!(endpoint.tls.as_ref().and_then(|tls| tls.ca_pem.as_deref()), Some(&b"PEM"[..]));
}

fn listed(models: &[(&str, Option<&str>)]) -> Option<Arc<[ListedModel]>> {
    let models =
        models.iter().map(|(id, parent)| ListedModel { id: (*id).into(), parent: parent.map(Into::into) });
    Some(models.collect())
}

#[test]
fn a_list_that_lacks_the_model_excludes_and_adapters_are_models_of_their_own() {
    let backend = "{kind: Static, urls: ['http://a:1', 'http://b:1', 'http://c:1', 'http://d:1']}";
    let mut bundle = bundle(&[GATEWAY, &service(backend)]);
    let endpoint = |host: &str| EndpointId { url: format!("http://{host}:1").into(), pod_uid: "".into() };
    let mut hear = |host: &str, models: Option<Arc<[ListedModel]>>| {
        bundle.apply(Change::Models { endpoint: endpoint(host), models })
    };
    assert!(hear(
        "a",
        listed(&[("m", None), ("sql", Some("m")), ("m2", None), ("z", Some("m2")), ("w", Some("gone"))])
    ));
    assert!(!hear(
        "a",
        listed(&[("m", None), ("sql", Some("m")), ("m2", None), ("z", Some("m2")), ("w", Some("gone"))])
    ));
    hear("b", listed(&[("other", None), ("sql", Some("other"))]));
    hear("c", listed(&[("m", None), ("sql", Some("m"))]));
    let lowered = lower(&bundle, &LowerOptions::default());
    let routes: BTreeMap<&str, Vec<&str>> =
        gateway(&lowered, "g").routes.iter().map(|r| (r.model.as_str(), urls(r))).collect();
    assert_eq!(
        routes["m"],
        ["http://a:1", "http://c:1", "http://d:1"],
        "a list that is unknown excludes nobody"
    );
    assert_eq!(routes["sql"], ["http://a:1", "http://c:1"]);
    assert_eq!(routes["z"], ["http://a:1"], "an engine may serve its model under two names");
    assert_eq!(routes.len(), 3);
    let adapter = route(gateway(&lowered, "g"), "sql");
    assert_eq!((adapter.parent.as_ref().map(|p| p.as_str()), &*adapter.service.name), (Some("m"), "s"));
    assert_eq!(lowered.withheld.iter().map(|e| &*e.id.url).collect::<Vec<_>>(), ["http://b:1"]);

    for host in ["a", "b", "c"] {
        assert!(bundle.apply(Change::Models { endpoint: endpoint(host), models: None }));
    }
    let lowered = lower(&bundle, &LowerOptions::default());
    assert_eq!(urls(route(gateway(&lowered, "g"), "m")).len(), 4, "forgotten lists exclude nobody");
    assert!(lowered.withheld.is_empty());
}

#[test]
fn objects_can_be_replaced_and_removed() {
    let slices = slice("x", "IPv4", "{port: 1}", "{addresses: [10.0.0.1]}");
    let mut bundle = bundle(&[GATEWAY, &service("b"), &core("ports: [{port: 1}]", &slices)]);
    let count =
        |bundle: &Bundle| lower(bundle, &LowerOptions::default()).draft.gateways[0].routes[0].endpoints.len();
    assert_eq!(count(&bundle), 1);
    let more = read(&slice("x", "IPv4", "{port: 1}", "{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}"));
    bundle.apply(Change::Applied(Arc::new(more.objects[0].clone())));
    assert_eq!(count(&bundle), 2);
    let moved = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: {kubernetes.io/service-name: z}}\naddressType: IPv4\nendpoints: []\n";
    bundle.apply(Change::Applied(Arc::new(read(moved).objects[0].clone())));
    assert_eq!(count(&bundle), 0, "a slice that changes its service leaves the old one");
    let key = |kind, name: &str| ObjectKey { kind, name: ObjectName::new("default", name) };
    assert!(bundle.apply(Change::Removed(key(Kind::EndpointSlice, "x"))));
    assert!(!bundle.apply(Change::Removed(key(Kind::EndpointSlice, "x"))));
    assert!(bundle.apply(Change::Removed(key(Kind::InferenceGateway, "g"))));
    assert!(lower(&bundle, &LowerOptions::default()).draft.gateways.is_empty());
}

/// B1: engines behind a Service speak TLS by `appProtocol`, by the port's name, or because `tls` asks for it.
#[test]
fn engines_behind_a_service_are_asked_over_tls_where_anything_says_so() {
    let trust = "tls: {insecureSkipVerify: true}";
    let slices = |port: &str| slice("x", "IPv4", port, "{addresses: [10.0.0.1]}");
    let plain = "{name: http, port: 1}";
    let table = [
        (trust, "ports: [{name: http, port: 80}]", plain, "https://10.0.0.1:1", &[][..]),
        ("", "ports: [{name: http, port: 80, appProtocol: http}]", plain, "http://10.0.0.1:1", &[]),
        (
            "",
            "ports: [{name: http, port: 80, appProtocol: HTTPS}]",
            plain,
            "https://10.0.0.1:1",
            &["error spec.tls NoTrust"],
        ),
        (
            "",
            "ports: [{name: http, port: 80, appProtocol: kubernetes.io/wss}]",
            plain,
            "https://10.0.0.1:1",
            &["error spec.tls NoTrust"],
        ),
        (
            "",
            "ports: [{name: http, port: 80, appProtocol: kubernetes.io/h2c}]",
            plain,
            "http://10.0.0.1:1",
            &[],
        ),
        (
            "",
            "ports: [{name: http, port: 80}]",
            "{name: http, port: 1, appProtocol: https}",
            "https://10.0.0.1:1",
            &["error spec.tls NoTrust"],
        ),
        (
            "",
            "ports: [{name: https, port: 443}]",
            "{name: https, port: 1}",
            "https://10.0.0.1:1",
            &["error spec.tls NoTrust"],
        ),
        (
            "",
            "ports: [{name: https-api, port: 443}]",
            "{name: https-api, port: 1}",
            "https://10.0.0.1:1",
            &["error spec.tls NoTrust"],
        ),
        (
            "",
            "ports: [{name: https, port: 443, appProtocol: http}]",
            "{name: https, port: 1}",
            "http://10.0.0.1:1",
            &[],
        ),
        (
            trust,
            "ports: [{name: http, port: 80, appProtocol: http}]",
            plain,
            "https://10.0.0.1:1",
            &["warning spec.tls Contradiction"],
        ),
        (
            trust,
            "ports: [{name: http, port: 80}, {name: https, port: 443}]",
            "{name: http, port: 1}, {name: https, port: 2}",
            "https://10.0.0.1:2",
            &[],
        ),
        (
            "",
            "ports: [{name: grpc, port: 80}, {name: https, port: 443}]",
            "{name: grpc, port: 1}, {name: https, port: 2}",
            "https://10.0.0.1:2",
            &["error spec.tls NoTrust"],
        ),
    ];
    for (tls, ports, of_slice, url, findings) in table {
        let service = service(&format!("b, {tls}")).replace(", }", "}");
        let lowered = lowered(&[GATEWAY, &service, &core(ports, &slices(of_slice))]);
        assert_eq!(urls(route(gateway(&lowered, "g"), "m")), [url], "{tls} {ports}");
        let expected: Vec<String> = findings
            .iter()
            .map(|finding| {
                let (severity, rest) = finding.split_once(' ').expect("two parts");
                format!("{severity} InferenceService default/s {rest}")
            })
            .collect();
        let found: Vec<String> =
            serious(&lowered).into_iter().filter(|f| f.contains("InferenceService")).collect();
        assert_eq!(found, expected, "{tls} {ports}");
        let endpoint = &route(gateway(&lowered, "g"), "m").endpoints[0];
        assert_eq!(endpoint.target.tls, url.starts_with("https"));
        let names = endpoint.tls.as_ref().map(|tls| tls.names[0].to_string());
        assert_eq!(names, (!tls.is_empty()).then(|| "b.default.svc".to_owned()));
    }
}

/// B1: the same for pods and pools, by the names of container ports; a metrics port of its own is asked as it says itself.
#[test]
fn pods_and_pools_are_asked_over_tls_where_anything_says_so() {
    let pod = |ports: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, uid: u, labels: {{app: engines}}}}\n\
             spec: {{containers: [{{name: c, ports: [{ports}]}}]}}\nstatus: {{{}}}\n---\n",
            running("10.0.0.1")
        )
    };
    let pods = "{kind: Pods, selector: {matchLabels: {app: engines}}}";
    let pool = "{kind: InferencePool, name: p, group: inference.networking.k8s.io}";
    let two = "{name: http, containerPort: 1}, {name: https, containerPort: 2}";
    let trust = ", tls: {insecureSkipVerify: true}";
    let metrics = ", tls: {insecureSkipVerify: true}, metrics: {port: 9}";
    let encrypted = POOL.replace("targetPorts", "appProtocol: https\n  targetPorts");
    for (backend, extra, ports, pool, expected, is_plain) in [
        (pods, "", two, POOL, vec!["http://10.0.0.1:1"], false),
        (pods, trust, two, POOL, vec!["https://10.0.0.1:2"], false),
        (pods, trust, "{containerPort: 7}", POOL, vec!["https://10.0.0.1:8000"], false),
        (pods, "", "{name: https, containerPort: 2}", POOL, vec!["https://10.0.0.1:2"], false),
        (pods, metrics, two, POOL, vec!["https://10.0.0.1:2"], true),
        (
            pods,
            metrics,
            "{name: https, containerPort: 2}, {name: https-metrics, containerPort: 9}",
            POOL,
            vec!["https://10.0.0.1:2"],
            false,
        ),
        (
            pool,
            "",
            "{name: https, containerPort: 8001}",
            POOL,
            vec!["http://10.0.0.1:8000", "https://10.0.0.1:8001"],
            false,
        ),
        (pool, trust, "", POOL, vec!["https://10.0.0.1:8000", "https://10.0.0.1:8001"], false),
        (pool, "", "", &*encrypted, vec!["https://10.0.0.1:8000", "https://10.0.0.1:8001"], false),
    ] {
        let service = service(&format!("{backend}{extra}"));
        let lowered = lowered(&[GATEWAY, &service, pool, &pod(ports)]);
        let endpoints = &route(gateway(&lowered, "g"), "m").endpoints;
        assert_eq!(urls(route(gateway(&lowered, "g"), "m")), expected, "{backend}{extra} {ports}");
        assert!(
            endpoints.iter().all(|endpoint| endpoint.metrics.is_plain == is_plain),
            "{backend}{extra} {ports}"
        );
    }
}

/// B1: `tls` that no URL asks for is told.
#[test]
fn tls_without_an_https_url_is_said_to_have_no_effect() {
    let service = service("{kind: Static, urls: ['http://a:1']}, tls: {insecureSkipVerify: true}");
    let lowered = lowered(&[GATEWAY, &service]);
    assert_eq!(serious(&lowered), ["warning InferenceService default/s spec.tls NoEffect"]);
}

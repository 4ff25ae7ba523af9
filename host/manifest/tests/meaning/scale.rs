use std::fmt::Write as _;
use std::time::{Duration, Instant};

use manifest::{Body, Object};

use super::*;

const TEMPLATES: &str = "
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: s}
spec: {modelName: m, backendRef: b}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: b, labels: {kubernetes.io/service-name: b}}
addressType: IPv4
ports: [{name: http, port: 8000}]
endpoints:
  - {addresses: [a], conditions: {ready: true}, nodeName: n, zone: z, targetRef: {kind: Pod, name: p, uid: u}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, uid: u, labels: {app: a, tier: b}}
spec: {containers: []}
status: {phase: Running}
";

/// A gateway with `services` routes over `endpoints` endpoints each, every one with a pod.
fn of_size(services: usize, endpoints: usize) -> Bundle {
    let templates: Vec<Object> = read(TEMPLATES).objects;
    let mut bundle = Bundle::default();
    let mut routes = String::new();
    for service in 0..services {
        writeln!(routes, "    - {{model: m{service}, inferenceServiceRef: s{service}}}").expect("text");
        for template in &templates {
            for object in made_from(template, service, endpoints) {
                bundle.apply(Change::Applied(Arc::new(object)));
            }
        }
    }
    let head =
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {name: g}\nspec:\n";
    for object in read(&format!("{head}  routeStrategy: PrefixHash\n  routes:\n{routes}")).objects {
        bundle.apply(Change::Applied(Arc::new(object)));
    }
    bundle
}

fn made_from(template: &Object, service: usize, endpoints: usize) -> Vec<Object> {
    let source = &template.source;
    let object = |body| Object { source: Arc::clone(source), body };
    let pod_name = |endpoint: usize| Some(format!("p{service}-{endpoint}"));
    match &template.body {
        Body::InferenceService(template) => {
            let mut made = (**template).clone();
            made.metadata.name = Some(format!("s{service}"));
            made.spec.model_name = format!("m{service}");
            made.spec.backend_ref = manifest::kind::BackendRef::Name(format!("b{service}"));
            vec![object(Body::InferenceService(Arc::new(made)))]
        }
        Body::Service(template) => {
            let mut made = (**template).clone();
            made.metadata.name = Some(format!("b{service}"));
            vec![object(Body::Service(Arc::new(made)))]
        }
        Body::EndpointSlice(template) => {
            let mut made = (**template).clone();
            made.metadata.name = Some(format!("b{service}-x"));
            made.metadata
                .labels
                .get_or_insert_default()
                .insert("kubernetes.io/service-name".into(), format!("b{service}"));
            let one = made.endpoints.remove(0);
            for endpoint in 0..endpoints {
                let mut one = one.clone();
                one.addresses = vec![format!("10.{}.{}.{endpoint}", service / 256, service % 256)];
                let target = one.target_ref.get_or_insert_default();
                (target.name, target.uid) = (pod_name(endpoint), pod_name(endpoint));
                made.endpoints.push(one);
            }
            vec![object(Body::EndpointSlice(Arc::new(made)))]
        }
        Body::Pod(template) => {
            let pod = |endpoint| {
                let mut made = (**template).clone();
                (made.metadata.name, made.metadata.uid) = (pod_name(endpoint), pod_name(endpoint));
                object(Body::Pod(Arc::new(made)))
            };
            (0..endpoints).map(pod).collect()
        }
        other => panic!("no such template: {other:?}"),
    }
}

/// The fastest of some rounds, each of which lowers `times` times.
fn fastest(bundle: &Bundle, times: usize, rounds: usize) -> Duration {
    let once = |_| {
        let start = Instant::now();
        for _ in 0..times {
            let lowered = lower(bundle, &LowerOptions::default());
            assert!(lowered.findings.is_empty(), "{:?}", lowered.findings.first());
        }
        start.elapsed()
    };
    (0..rounds).map(once).min().expect("at least one round")
}

#[test]
fn lowering_is_linear_and_a_thousand_services_of_ten_fit_their_budget() {
    let (small, large) = (of_size(100, 10), of_size(1_000, 10));
    let lowered = lower(&large, &LowerOptions::default());
    assert_eq!(
        lowered.draft.gateways[0].routes.iter().map(|route| route.endpoints.len()).sum::<usize>(),
        10_000
    );
    // Many rounds of optimised code, so that a busy machine has one quiet moment among them. As much work on either side: what
    // is short is seldom interrupted, and would look faster than it is.
    let rounds = if cfg!(debug_assertions) { 10 } else { 40 };
    let (ten_small, large) = (fastest(&small, 10, rounds), fastest(&large, 1, rounds));
    println!("10 times 100 services: {ten_small:?}; 1,000 services: {large:?}");
    // It may take four times as long at once before this counts as worse than linear: caches end somewhere, and the machine
    // may be busy. The budget itself is for optimised code.
    assert!(large < ten_small * 4, "{ten_small:?} in tenths, {large:?} at once");
    if cfg!(not(debug_assertions)) {
        assert!(large <= Duration::from_millis(20), "{large:?}");
    }
}

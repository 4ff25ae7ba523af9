use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;

/// A gateway with `services` routes over `endpoints` endpoints each.
fn of_size(services: usize, endpoints: usize) -> Bundle {
    let mut bundle = Bundle::default();
    let mut routes = String::new();
    for service in 0..services {
        writeln!(routes, "    - {{model: m{service}, inferenceServiceRef: s{service}}}").expect("text");
        let mut text = format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: s{service}}}\n\
             spec: {{modelName: m{service}, backendRef: b{service}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: b{service}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: b{service}-x, labels: \
             {{kubernetes.io/service-name: b{service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8000}}]\nendpoints:\n"
        );
        let mut pods = String::new();
        for endpoint in 0..endpoints {
            let (name, ip) = (
                format!("p{service}-{endpoint}"),
                format!("10.{}.{}.{endpoint}", service / 256, service % 256),
            );
            writeln!(text, "  - {{addresses: [{ip}], conditions: {{ready: true}}, nodeName: n{endpoint}, targetRef: {{kind: Pod, name: {name}, uid: u-{name}}}}}").expect("text");
            write!(pods, "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: u-{name}, labels: {{app: a, tier: b}}}}\nspec: {{containers: []}}\nstatus: {{phase: Running}}\n").expect("text");
        }
        for object in read(&(text + &pods)).objects {
            bundle.apply(Change::Applied(Arc::new(object)));
        }
    }
    let gateway = format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: g}}\nspec:\n  routeStrategy: PrefixHash\n  routes:\n{routes}"
    );
    for object in read(&gateway).objects {
        bundle.apply(Change::Applied(Arc::new(object)));
    }
    bundle
}

fn fastest(bundle: &Bundle, rounds: usize) -> Duration {
    let once = |_| {
        let start = Instant::now();
        let lowered = lower(bundle, &LowerOptions::default());
        let took = start.elapsed();
        assert!(lowered.findings.is_empty(), "{:?}", lowered.findings.first());
        took
    };
    (0..rounds).map(once).min().expect("at least one round")
}

#[test]
fn lowering_is_linear_and_a_thousand_services_with_ten_endpoints_fit_their_budget() {
    let (small, large) = (of_size(100, 10), of_size(1_000, 10));
    let routes = lower(&large, &LowerOptions::default()).draft.gateways[0]
        .routes
        .iter()
        .map(|r| r.endpoints.len())
        .sum::<usize>();
    assert_eq!(routes, 10_000);
    let (small, large) = (fastest(&small, 10), fastest(&large, 5));
    println!("100 services: {small:?}; 1,000 services: {large:?}");
    // Ten times as much may take thirty times as long before this counts as worse than linear: caches end somewhere.
    assert!(large < small * 30, "{small:?} for a tenth, {large:?} for all");
    if cfg!(not(debug_assertions)) {
        assert!(large <= Duration::from_millis(20), "{large:?}");
    }
}

//! Snapshots for tests: assembled from drafts by the real assembler, with no policy in any chain.

use std::collections::HashMap;
use std::sync::Arc;

use domain::assemble::Assembler;
use domain::draft::{Draft, GatewayDraft, RouteDraft};
use domain::endpoint::{EndpointId, EndpointSpec, PodRef};
use domain::name::{ModelName, ObjectName};
use domain::policy::{EntrySpec, FailureMode, Mode, PolicyLimits, PolicySource, Preparation, Prepare};
use domain::route::GatewaySettings;
use domain::snapshot::Snapshot;

/// An endpoint at this URL; `pod` is its name, empty for none.
pub(crate) fn endpoint(url: &str, pod: &str) -> Arc<EndpointSpec> {
    let spec = EndpointSpec::at(url).unwrap();
    let name = PodRef { namespace: "default".into(), name: pod.into() };
    Arc::new(EndpointSpec {
        id: EndpointId { pod_uid: pod.into(), ..spec.id },
        pod: (!pod.is_empty()).then_some(name),
        ..spec
    })
}

/// A route of `model` to these endpoints.
pub(crate) fn route(model: &str, endpoints: &[Arc<EndpointSpec>]) -> RouteDraft {
    RouteDraft {
        model: model.into(),
        service: ObjectName::new("default", "service"),
        engine_model: None,
        parent: None,
        blocked: None,
        endpoints: endpoints.into(),
        chain: Arc::new([]),
        chain_rejected: false,
    }
}

/// A route with a chain of built-in policies of these names. None of them loads.
pub(crate) fn route_with_chain(model: &str, endpoints: &[Arc<EndpointSpec>], chain: &[&str]) -> RouteDraft {
    let entry = |name: &&str| {
        Arc::new(EntrySpec {
            name: (*name).into(),
            source: PolicySource::Builtin((*name).into()),
            sha256: None,
            config: "{}".into(),
            limits: PolicyLimits::default(),
            failure_mode: FailureMode::default(),
            mode: Mode::default(),
            tenant: "default".into(),
        })
    };
    RouteDraft { chain: chain.iter().map(entry).collect(), ..route(model, endpoints) }
}

/// A gateway `default/<name>` with these routes and one alias `alias` for the first of them.
pub(crate) fn gateway(name: &str, routes: Vec<RouteDraft>) -> GatewayDraft {
    let first = routes.first().map(|route| route.model.clone());
    GatewayDraft {
        name: ObjectName::new("default", name),
        hostnames: Vec::new(),
        has_short_host: true,
        settings: GatewaySettings::default(),
        aliases: HashMap::from_iter(first.map(|model: ModelName| ("alias".into(), model))),
        routes,
    }
}

/// The next snapshot of these gateways.
pub(crate) fn snapshot(assembler: &mut Assembler, gateways: Vec<GatewayDraft>) -> Arc<Snapshot> {
    struct Nothing;
    impl Prepare for Nothing {
        fn prepare(&self, _: &EntrySpec) -> Preparation {
            Preparation::Pending
        }
        fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}
        fn retain(&self, _: &[Arc<EntrySpec>]) {}
    }
    assembler.assemble(&Draft { gateways }, &Nothing).snapshot
}

//! Small drafts and a preparer under the test's control.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::assemble::{Assembled, Assembler};
use crate::draft::{Draft, GatewayDraft, RouteDraft};
use crate::endpoint::EndpointSpec;
use crate::name::{ModelName, ObjectName, PolicyName};
use crate::policy::{
    Description, Digest, EntrySpec, FailureMode, Mode, PolicyLimits, PolicySource, Preparation, Prepare,
    PrepareFailure, Prepared,
};
use crate::route::GatewaySettings;

pub(crate) fn endpoint(url: &str) -> Arc<EndpointSpec> {
    Arc::new(EndpointSpec::at(url).unwrap())
}

pub(crate) fn entry(policy: &str) -> Arc<EntrySpec> {
    entry_with(policy, "{}")
}

pub(crate) fn entry_with(policy: &str, config: &str) -> Arc<EntrySpec> {
    Arc::new(EntrySpec {
        name: PolicyName::from(policy),
        source: PolicySource::Builtin(PolicyName::from(policy)),
        sha256: None,
        config: config.into(),
        limits: PolicyLimits::default(),
        failure_mode: FailureMode::NextPolicy,
        mode: Mode::Active,
        tenant: "default".into(),
    })
}

pub(crate) fn route(model: &str, urls: &[&str], chain: &[Arc<EntrySpec>]) -> RouteDraft {
    RouteDraft {
        model: ModelName::from(model),
        service: ObjectName::new("default", "service"),
        engine_model: None,
        parent: None,
        blocked: None,
        endpoints: urls.iter().map(|url| endpoint(url)).collect(),
        chain: chain.into(),
        chain_rejected: false,
    }
}

pub(crate) fn gateway(name: &str, routes: Vec<RouteDraft>) -> GatewayDraft {
    GatewayDraft {
        name: ObjectName::new("default", name),
        hostnames: Vec::new(),
        has_short_host: true,
        settings: GatewaySettings::default(),
        aliases: HashMap::new(),
        routes,
    }
}

/// One gateway `gw` with these routes, assembled with every policy ready.
pub(crate) fn assemble(routes: Vec<RouteDraft>) -> Assembled {
    Assembler::default().assemble(&Draft { gateways: vec![gateway("gw", routes)] }, &Preparer::default())
}

#[derive(Debug)]
pub(crate) struct FakePolicy {
    pub(crate) config: Arc<str>,
    description: Description,
}

impl Prepared for FakePolicy {
    fn description(&self) -> &Description {
        &self.description
    }
    fn digest(&self) -> Digest {
        Digest([0xAB; 32])
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Says what it is told to of configurations named in `states`, `Ready` of all others.
#[derive(Debug, Default)]
pub(crate) struct Preparer {
    pub(crate) states: Mutex<HashMap<String, Option<PrepareFailure>>>,
}

impl Preparer {
    /// From now on this configuration is pending (`None`) or fails.
    pub(crate) fn set(&self, config: &str, state: Option<PrepareFailure>) {
        self.states.lock().unwrap().insert(config.into(), state);
    }
}

impl Prepare for Preparer {
    fn prepare(&self, spec: &EntrySpec) -> Preparation {
        match self.states.lock().unwrap().get(&*spec.config) {
            Some(None) => Preparation::Pending,
            Some(Some(failure)) => Preparation::Failed(failure.clone()),
            None => Preparation::Ready(Arc::new(FakePolicy {
                config: Arc::clone(&spec.config),
                description: Description {
                    name: spec.name.to_string(),
                    version: "1".into(),
                    summary: String::new(),
                    config_schema: String::new(),
                    signals: Vec::new(),
                    wants_owners: false,
                    wants_prefix_hashes: false,
                    needs_session: false,
                    // As a test of it asks: `reads x-a`.
                    headers: spec
                        .config
                        .strip_prefix("reads ")
                        .map(|name| name.parse().unwrap())
                        .into_iter()
                        .collect(),
                },
            })),
        }
    }
    fn on_change(&self, _wake: Box<dyn Fn() + Send + Sync>) {}
    fn retain(&self, _live: &[Arc<EntrySpec>]) {}
}

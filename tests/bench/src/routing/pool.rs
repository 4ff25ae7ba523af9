//! Pools without engines behind them: everything a chain is asked with, and no network.

use std::sync::Arc;

use domain::endpoint::{Endpoint, EndpointSpec, EndpointState, Endpoints, Slab};
use domain::name::{ModelName, ObjectName, PolicyName};
use domain::policy::{EntrySpec, FailureMode, Mode, PolicyLimits, PolicySource, PrepareFailure};
use domain::pool::{Chain, Entry, Pool, PoolKey, PoolState};
use domain::prefix::SlotMap;
use domain::ring::LazyRing;
use policy::Library;

/// One entry of a chain: an embedded policy and its configuration, JSON.
pub(crate) type Link = (&'static str, &'static str);

/// The key of every pool made here.
pub(crate) fn key() -> PoolKey {
    PoolKey::of(&gateway(), &model())
}

/// A component that stands in for an embedded policy: the policy's name and the component's bytes.
pub(crate) type StandIn = (String, Arc<[u8]>);

/// The entries of a chain, ready.
///
/// # Errors
/// When a policy does not load.
pub(crate) fn entries(
    library: &Library,
    chain: &[Link],
    stand_ins: &[StandIn],
) -> Result<Vec<Entry>, PrepareFailure> {
    let source = |name: &str| match stand_ins.iter().find(|(of, _)| of == name) {
        Some((of, bytes)) => PolicySource::Bytes { origin: of.as_str().into(), bytes: Arc::clone(bytes) },
        None => PolicySource::Builtin(PolicyName::from(name)),
    };
    let entry = |(name, config): &Link| {
        let spec = Arc::new(EntrySpec {
            name: PolicyName::from(*name),
            source: source(name),
            sha256: None,
            config: (*config).into(),
            limits: PolicyLimits::default(),
            failure_mode: FailureMode::NextPolicy,
            mode: Mode::Active,
            tenant: "default".into(),
        });
        let prepared = library.prepare_now(&spec)?;
        Ok(Entry { spec, prepared: Some(prepared) })
    };
    chain.iter().map(entry).collect()
}

/// A pool of so many fresh endpoints with these entries as its chain. Slots count from 1, in the order of endpoints.
pub(crate) fn pool(len: usize, entries: Vec<Entry>) -> Pool {
    let mut slab = Slab::default();
    let endpoints: Endpoints = (0..len).map(|index| endpoint(index, &mut slab)).collect();
    let urls = endpoints.iter().map(|endpoint| Arc::clone(&endpoint.spec.id.url)).collect();
    Pool {
        key: key(),
        signature: len as u64,
        gateway: gateway(),
        model: model(),
        slots: SlotMap::new(endpoints.iter().map(|endpoint| endpoint.state.slot)),
        ring: Arc::new(LazyRing::new(urls)),
        endpoints,
        chain: Chain::new(entries),
        state: Arc::new(PoolState::default()),
    }
}

fn gateway() -> ObjectName {
    ObjectName::new("default", "bench")
}

fn model() -> ModelName {
    ModelName::from("model")
}

fn endpoint(index: usize, slab: &mut Slab) -> Endpoint {
    // Ascending as text, as the endpoints of a pool are.
    let spec = EndpointSpec::at(&format!("http://engine-{index:04}:8000")).expect("a URL");
    Endpoint { spec: Arc::new(spec), state: Arc::new(EndpointState::in_slab(index as u32 + 1, slab)) }
}

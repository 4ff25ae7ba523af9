//! Pools that exist only to ask a policy about: for the probe, for scenarios and for tests.

use std::sync::Arc;

use domain::endpoint::{Endpoint, EndpointId, EndpointSpec, EndpointState, Endpoints, Roles, Slab, Target};
use domain::name::{ModelName, ObjectName};
use domain::pool::{Chain, Entry, Pool, PoolKey, PoolState};
use domain::prefix::SlotMap;
use domain::ring::LazyRing;

/// A pool of these endpoints, which must be sorted by URL, with nothing in flight.
pub(crate) fn pool(model: &str, specs: Vec<EndpointSpec>, entries: Vec<Entry>) -> Pool {
    let gateway = ObjectName::new("default", "made-up");
    let model = ModelName::new(model);
    let mut slab = Slab::default();
    let endpoints: Endpoints = specs
        .into_iter()
        .enumerate()
        .map(|(slot, spec)| Endpoint {
            spec: Arc::new(spec),
            state: Arc::new(EndpointState::in_slab(slot as u32 + 1, &mut slab)),
        })
        .collect();
    Pool {
        key: PoolKey::of(&gateway, &model),
        signature: endpoints.len() as u64,
        gateway,
        model,
        slots: SlotMap::new(endpoints.iter().map(|endpoint| endpoint.state.slot)),
        ring: Arc::new(LazyRing::new(endpoints.iter().map(|e| Arc::clone(&e.spec.id.url)).collect())),
        endpoints,
        chain: Chain::new(entries),
        state: Arc::new(PoolState::default()),
    }
}

/// An endpoint that nobody connects to.
pub(crate) fn endpoint(url: &str, roles: Roles, weight: u32) -> EndpointSpec {
    let id = EndpointId { url: url.into(), pod_uid: "".into() };
    let nowhere = Target { tls: false, host: "".into(), port: 0, base_path: "".into(), authority: "".into() };
    EndpointSpec { roles, weight, ..EndpointSpec::new(id, nowhere) }
}

//! Between the gateway's own types and the contract's. Everything handed to a guest is borrowed; nothing is allocated per
//! call.

use domain::endpoint::{Endpoint, Roles};
use domain::policy::Description;
use domain::pool::Pool;
use domain::request::{Fleet, RequestView};
use smallvec::SmallVec;

use crate::bindings::wicketgate::routing::types;

/// Headers handed over without an allocation.
const HEADERS_INLINE: usize = 4;

/// Calls `with` with the pool as `sync` takes it.
pub(crate) fn with_pool<R>(pool: &Pool, with: impl FnOnce(types::Pool<'_>) -> R) -> R {
    let facts: Vec<(String, Vec<(&str, &str)>)> =
        pool.endpoints.iter().map(|endpoint| (endpoint.spec.id.to_string(), labels(endpoint))).collect();
    let endpoints: Vec<types::Endpoint<'_>> = pool
        .endpoints
        .iter()
        .zip(&facts)
        .map(|(endpoint, (id, labels))| endpoint_of(endpoint, id, labels))
        .collect();
    with(types::Pool { model: pool.model.as_str(), endpoints: &endpoints })
}

fn labels(endpoint: &Endpoint) -> Vec<(&str, &str)> {
    endpoint.spec.labels.iter().map(|(key, value)| (&**key, &**value)).collect()
}

fn endpoint_of<'a>(
    endpoint: &'a Endpoint,
    id: &'a str,
    labels: &'a [(&'a str, &'a str)],
) -> types::Endpoint<'a> {
    let spec = &*endpoint.spec;
    types::Endpoint {
        id,
        url: &spec.id.url,
        roles: roles(spec.roles),
        weight: spec.weight,
        node: &spec.node,
        zone: &spec.zone,
        labels,
    }
}

fn roles(roles: Roles) -> types::Roles {
    let all = [
        (roles.serve, types::Roles::SERVE),
        (roles.prefill, types::Roles::PREFILL),
        (roles.decode, types::Roles::DECODE),
        (roles.draft, types::Roles::DRAFT),
    ];
    all.into_iter().filter(|(has, _)| *has).fold(types::Roles::empty(), |set, (_, role)| set | role)
}

/// Calls `with` with the request as this policy may see it: owners, hashes and headers only where it asked for them.
pub(crate) fn with_request<R>(
    request: &RequestView<'_>,
    description: &Description,
    with: impl FnOnce(types::Request<'_>) -> R,
) -> R {
    let headers: SmallVec<[(&str, &str); HEADERS_INLINE]> = if description.headers.is_empty() {
        SmallVec::new()
    } else {
        let wanted = request.headers.iter().filter(|(name, _)| description.headers.contains(name));
        wanted.map(|(name, value)| (name.as_str(), *value)).collect()
    };
    with(types::Request {
        ticket: request.ticket,
        seed: request.seed,
        now_ms: request.now_ms,
        attempt: request.attempt,
        priority: request.priority,
        prompt_tokens: request.prompt_tokens,
        output_tokens: request.output_tokens,
        session: request.session,
        tenant: request.tenant,
        excluded: present(request.excluded, true),
        owners: present(request.owners, description.wants_owners),
        prefix_hashes: present(request.prefix_hashes, description.wants_prefix_hashes),
        headers: present(&headers, true),
    })
}

/// An empty list costs as much as a full one, an absent one nothing.
fn present<T>(list: &[T], wanted: bool) -> Option<&[T]> {
    (wanted && !list.is_empty()).then_some(list)
}

/// The policy's own signals in its own order: as they were gathered where that is the same, else put together in `scratch`.
/// A column that was not gathered reads as unknown.
pub(crate) fn columns<'a>(
    fleet: &'a Fleet,
    description: &Description,
    scratch: &'a mut Vec<f32>,
) -> &'a [f32] {
    if let Some(columns) = fleet.columns(&description.signals) {
        return columns;
    }
    scratch.clear();
    for signal in &description.signals {
        match fleet.column(*signal) {
            Some(column) => scratch.extend_from_slice(column),
            None => scratch.resize(scratch.len() + fleet.len(), f32::NAN),
        }
    }
    scratch
}

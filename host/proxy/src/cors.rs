//! Leave for web pages of other origins (the Fetch standard): preflights are answered here, and answers carry what their
//! gateway says. An engine's own words about it are replaced where its gateway says anything.
//!
//! Which gateway: the one that routes the request; where that is not known (preflights, own pages, failures), the one that
//! path or host names; where neither names one, the oldest of all that allows the origin.

use std::sync::Arc;

use bytes::Bytes;
use domain::failure::FailureKind;
use domain::route::Gateway;
use domain::snapshot::Snapshot;
use domain::surface::Cors;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use smallvec::SmallVec;

use crate::flight::Flight;
use crate::request::address;
use crate::respond::{ORIGIN_REFUSED, X_REQUEST_ID};

/// What an answer must not say besides what its gateway says.
const WRITTEN_ANEW: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];

/// What an answer says about its web page.
#[derive(Debug)]
pub(crate) struct Sharing {
    /// The page's origin and what it may do; `None`: no page, or one that may not see the answer.
    granted: Option<(HeaderValue, Arc<Cors>)>,
}

/// What the answer to a request says. `None`, at the cost of one branch: its gateway says nothing about pages.
pub(crate) fn sharing(flight: &Flight, parts: &Parts) -> Option<Sharing> {
    let has_cors = flight.worker.router.borrow().has_cors();
    // A worker that has not loaded a snapshot yet has answered no engine's answer either: only failures come so early.
    if has_cors || flight.attempts == 0 { said(flight, parts) } else { None }
}

#[cold]
fn said(flight: &Flight, parts: &Parts) -> Option<Sharing> {
    let worker = &flight.worker;
    let snapshot = worker.router.borrow_mut().load(worker);
    let rules = rules(flight, parts, &snapshot);
    if rules.is_empty() {
        return None;
    }
    let granted = parts.headers.get(ORIGIN).and_then(|origin| {
        let cors = rules.into_iter().find(|cors| cors.allows(origin.as_bytes()))?;
        Some((origin.clone(), Arc::clone(cors)))
    });
    Some(Sharing { granted })
}

/// What the gateways in question say.
fn rules<'s>(flight: &Flight, parts: &Parts, snapshot: &'s Snapshot) -> SmallVec<[&'s Arc<Cors>; 2]> {
    let of = |gateway: &'s Arc<Gateway>| gateway.settings.cors.as_ref();
    if let Some(name) = &flight.gateway {
        return snapshot.gateway_by_name(&name.namespace, &name.name).and_then(of).into_iter().collect();
    }
    match address::named(parts, &flight.worker.shared.options.root_path, snapshot) {
        Ok(Some(gateway)) => of(gateway).into_iter().collect(),
        Ok(None) => snapshot.gateways.iter().filter_map(of).collect(),
        Err(_) => SmallVec::new(),
    }
}

impl Sharing {
    /// Writes it into the head of an answer, in place of what an engine says there.
    pub(crate) fn write(&self, headers: &mut HeaderMap, is_engines: bool) {
        if is_engines {
            WRITTEN_ANEW.iter().for_each(|name| drop(headers.remove(name)));
        }
        vary(headers, "Origin");
        let Some((origin, cors)) = &self.granted else { return };
        let origin = if cors.origins.is_none() { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if cors.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &cors.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// Adds a name to what the answer varies with.
fn vary(headers: &mut HeaderMap, name: &'static str) {
    let is_there = headers.get_all(VARY).iter().any(|line| {
        let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|one| one == b"*" || one.eq_ignore_ascii_case(name.as_bytes()))
    });
    if !is_there {
        headers.append(VARY, HeaderValue::from_static(name));
    }
}

/// The answer to a browser that asks before it sends a page's request: for any path and model, before any limit. `None`: it
/// is no such question, or no gateway in question says anything about pages.
///
/// Fails with `Forbidden` for an origin that may not ask.
#[cold]
pub(crate) fn preflight(flight: &Flight, parts: &Parts) -> Result<Option<Response<Bytes>>, FailureKind> {
    let Some(method) = parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD) else { return Ok(None) };
    if !parts.headers.contains_key(ORIGIN) {
        return Ok(None);
    }
    let Some(sharing) = said(flight, parts) else { return Ok(None) };
    let Some((_, cors)) = &sharing.granted else {
        return Err(FailureKind::Forbidden { what: ORIGIN_REFUSED });
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, flight.request_id.clone());
    // What may be anything is repeated: a star does not stand for everything, such as for `Authorization`.
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone().unwrap_or_else(|| method.clone()));
    let asked = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(allowed) = cors.headers.as_ref().or(asked) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    vary(headers, "Access-Control-Request-Method");
    vary(headers, "Access-Control-Request-Headers");
    Ok(Some(response))
}

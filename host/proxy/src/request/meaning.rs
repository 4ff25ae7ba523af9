//! What a request means once its body is in: its route, and the facts that decisions are made of.

use std::ops::Range;
use std::sync::Arc;

use domain::failure::FailureKind;
use domain::route::{Gateway, Route, SessionKey};
use domain::snapshot::{Resolution, Snapshot};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::address::Address;
use crate::dialect::{MultipartKind, Operation, query};
use crate::flight::Flight;
use crate::intake::scan::{self, Scan};
use crate::multipart::{self, Form};
use crate::route::Facts;

/// A request whose body is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) address: &'a Address<'a>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Option<&'a [u8]>,
}

/// What it means.
#[derive(Debug)]
pub(super) struct Meaning {
    pub(super) gateway: Arc<Gateway>,
    pub(super) route: Arc<Route>,
    pub(super) facts: Facts,
    /// The body with the engine's name of the model, where that is another one. The facts point into this one then.
    pub(super) rewritten: Option<Vec<u8>>,
}

/// Finds out what a request means.
///
/// Fails with what is wrong with the body, with `ModelUnknown`, or with `BodyTooLarge` for this gateway.
pub(super) fn read(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
) -> Result<Meaning, FailureKind> {
    if snapshot.generation.0 == 0 {
        return Err(FailureKind::NotReady);
    }
    match (asked.address.operation, asked.body) {
        (Operation::Multipart(kind), Some(body)) => read_form(flight, asked, snapshot, kind, body),
        (_, Some(body)) => read_json(flight, asked, snapshot, body),
        (_, None) => read_query(flight, asked, snapshot),
    }
}

fn read_json(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    body: &[u8],
) -> Result<Meaning, FailureKind> {
    let worker = std::rc::Rc::clone(&flight.worker);
    let router = worker.router.borrow();
    let mut scanned = scan::scan(body, router.session_field())?;
    let model = scanned.model.as_deref().ok_or(FailureKind::ModelMissing)?;
    let (gateway, route) = resolve(flight, asked, snapshot, model)?;
    let key = &gateway.settings.session_key;
    if key.body_field.as_deref() != router.session_field() {
        // This gateway finds sessions elsewhere than most.
        scanned = scan::scan(body, key.body_field.as_deref())?;
    }
    flight.streams = scanned.stream;
    let rewritten = engine_name(&route, scanned.model.as_deref().unwrap_or_default())
        .map(|name| scan::replace_model(body, &scanned.model_spans, name));
    let place = |range: &Range<usize>| match &rewritten {
        Some(rewritten) => moved(range, &scanned.model_spans, rewritten.len(), body.len()),
        None => range.clone(),
    };
    let facts = Facts {
        session: session(key, asked.headers, Some(&scanned)),
        tenant: scanned.user.as_deref().map(|user| xxh3_64(user.as_bytes())),
        priority: scanned.priority,
        output_tokens: scanned.max_tokens,
        prompt: place(&scanned.prompt),
        tools: place(&scanned.tools),
        ..Facts::default()
    };
    Ok(Meaning { facts, gateway, route, rewritten })
}

fn read_form(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    kind: MultipartKind,
    body: &[u8],
) -> Result<Meaning, FailureKind> {
    let content_type = asked.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let form = Form::parse(content_type, body)?;
    let model = form.model_for(kind)?;
    let (gateway, route) = resolve(flight, asked, snapshot, model)?;
    flight.streams = form.stream;
    let rewritten =
        engine_name(&route, model).map(|name| multipart::replace_model(body, &form.model_spans, name));
    let facts =
        Facts { session: session(&gateway.settings.session_key, asked.headers, None), ..Facts::default() };
    Ok(Meaning { facts, gateway, route, rewritten })
}

fn read_query(flight: &mut Flight, asked: Asked<'_>, snapshot: &Snapshot) -> Result<Meaning, FailureKind> {
    let model = query::get(asked.address.query, "model").filter(|model| !model.is_empty());
    let model = model.ok_or(FailureKind::ModelMissing)?;
    let (gateway, route) = resolve(flight, asked, snapshot, &model)?;
    let facts =
        Facts { session: session(&gateway.settings.session_key, asked.headers, None), ..Facts::default() };
    Ok(Meaning { facts, gateway, route, rewritten: None })
}

/// Which gateway and route serve `model`.
fn resolve(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    model: &str,
) -> Result<(Arc<Gateway>, Arc<Route>), FailureKind> {
    let Address { gateway, host, .. } = *asked.address;
    let resolution = snapshot.resolve(gateway, host, model);
    let routed = match &resolution {
        Resolution::Route(_, route) => Some(&route.model),
        _ => None,
    };
    // Before anything is decided: what wakes a model that was scaled to zero is this counter.
    flight.worker.recorder.incoming(routed);
    let (gateway, route) = match resolution {
        Resolution::Route(gateway, route) => (gateway, route),
        Resolution::NotRouted(gateway) => {
            flight.error_format = gateway.settings.error_format;
            return Err(FailureKind::ModelUnknown { model: model.into() });
        }
        Resolution::NoSuchGateway => return Err(FailureKind::PathUnknown),
        Resolution::Unknown => return Err(FailureKind::ModelUnknown { model: model.into() }),
    };
    flight.error_format = gateway.settings.error_format;
    flight.gateway = Some(gateway.name.clone());
    flight.model = Some(route.model.clone());
    let limit_bytes = gateway.settings.limits.body_bytes_max;
    if flight.request_bytes > limit_bytes {
        return Err(FailureKind::BodyTooLarge { limit_bytes });
    }
    Ok((Arc::clone(gateway), Arc::clone(route)))
}

/// The name to write into the body, where the engines know the model by another one than the client.
fn engine_name<'a>(route: &'a Route, asked: &str) -> Option<&'a str> {
    let name = route.engine_model.as_ref().unwrap_or(&route.model).as_str();
    (name != asked).then_some(name)
}

/// Where `range` stands after each of `spans` was replaced by a text of one length.
fn moved(range: &Range<usize>, spans: &[Range<usize>], new_len: usize, old_len: usize) -> Range<usize> {
    let cut: usize = spans.iter().map(Range::len).sum();
    let inserted = (new_len + cut - old_len).checked_div(spans.len()).unwrap_or(0);
    let before = spans.iter().filter(|span| span.end <= range.start);
    let (count, cut_before) = before.fold((0, 0), |(count, cut), span| (count + 1, cut + span.len()));
    let shift = |at: usize| at + count * inserted - cut_before;
    shift(range.start)..shift(range.end)
}

/// The session's name: the first header line of those that the gateway names, else the body's field.
fn session(key: &SessionKey, headers: &HeaderMap, scanned: Option<&Scan<'_>>) -> Option<SmallVec<[u8; 64]>> {
    // An empty name is a name, as it was for the old router.
    let named = key.headers.iter().find_map(|name| headers.get(name));
    match named {
        Some(value) => Some(SmallVec::from_slice(value.as_bytes())),
        None => Some(SmallVec::from_slice(scanned?.session.as_deref()?.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_their_bytes_when_the_model_is_renamed() {
        let body = br#"{"model":"a","messages":[1,2],"model":"longer"}"#;
        let scanned = scan::scan(body, None).unwrap();
        let rewritten = scan::replace_model(body, &scanned.model_spans, "something");
        let range = moved(&scanned.prompt, &scanned.model_spans, rewritten.len(), body.len());
        assert_eq!(&rewritten[range], b"[1,2]");
    }

    #[test]
    fn an_empty_range_stays_empty() {
        let model = 9..12;
        let moved = moved(&(0..0), std::slice::from_ref(&model), 20, 15);
        assert!(moved.is_empty());
    }
}

//! What a request means once its body is in: its route, and the facts that decisions are made of.

use std::ops::Range;
use std::sync::Arc;

use domain::failure::FailureKind;
use domain::name::ObjectName;
use domain::route::{Gateway, Route, SessionKey};
use domain::snapshot::{Resolution, Snapshot};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::address::Address;
use crate::dialect::{MultipartKind, Operation, query};
use crate::flight::Flight;
use crate::intake::scan::{self, Scan, Splice};
use crate::intake::{Body, apart};
use crate::multipart::Form;
use crate::respond::echoed;
use crate::route::Facts;
use crate::server::Worker;

/// Bytes of a session's or a tenant's name that count: two names that begin with as many equal bytes are one name.
const NAME_BYTES_MAX: usize = 64 << 10;

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
    /// Puts the engine's name of the model into the body, where that is another one. The facts point into the result then.
    pub(super) renamed: Option<Splice>,
}

/// What a large body says: read ahead of its meaning, away from the worker.
#[derive(Debug)]
pub(super) enum Reading {
    Json { scanned: Scan<'static>, session_field: Option<Box<str>> },
    Form(Form<'static>),
}

/// Reads a large body on another thread.
///
/// Fails with what is wrong with the body, or with `BodyMemory` when too many wait to be read.
pub(super) async fn read_ahead(
    worker: &Worker,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    body: Body,
) -> Result<(Body, Reading), FailureKind> {
    let apart = &worker.shared.apart;
    debug_assert!(!matches!(asked.address.operation, Operation::Opaque(_)), "its body is not looked at");
    if let Operation::Multipart(_) = asked.address.operation {
        let content_type = asked.headers.get(CONTENT_TYPE).cloned();
        let parse = move |body: &mut Body| {
            let content_type = content_type.as_ref().map(|value| value.as_bytes());
            Form::parse(content_type, body.bytes()).map(Form::into_owned)
        };
        let (body, form) = apart.run(body, parse).await?;
        return Ok((body, Reading::Form(form?)));
    }
    let likely = worker.router.borrow().session_field().map(Box::from);
    let (body, scanned) = scan_ahead(apart, body, likely.clone()).await?;
    let model = scanned.model.as_deref().unwrap_or_default();
    let Address { gateway, host, .. } = *asked.address;
    let wanted = match snapshot.resolve(gateway, host, model) {
        Resolution::Route(gateway, _) => gateway.settings.session_key.body_field.clone(),
        _ => return Ok((body, Reading::Json { scanned, session_field: likely })),
    };
    if wanted.as_deref() == likely.as_deref() {
        return Ok((body, Reading::Json { scanned, session_field: likely }));
    }
    let session_field: Option<Box<str>> = wanted.as_deref().map(Box::from);
    let (body, scanned) = scan_ahead(apart, body, session_field.clone()).await?;
    Ok((body, Reading::Json { scanned, session_field }))
}

async fn scan_ahead(
    apart: &apart::Apart,
    body: Body,
    session_field: Option<Box<str>>,
) -> Result<(Body, Scan<'static>), FailureKind> {
    let scan =
        move |body: &mut Body| scan::scan(body.bytes(), session_field.as_deref()).map(Scan::into_owned);
    let (body, scanned) = apart.run(body, scan).await?;
    Ok((body, scanned?))
}

/// Finds out what a request means. `reading`: what its body says, if that is known already.
///
/// Fails with what is wrong with the body, with `ModelUnknown`, or with `BodyTooLarge` for this gateway.
pub(super) fn read(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    reading: Option<Reading>,
) -> Result<Meaning, FailureKind> {
    if snapshot.generation.0 == 0 {
        return Err(FailureKind::NotReady);
    }
    match (reading, asked.address.operation, asked.body) {
        (Some(Reading::Json { scanned, session_field }), ..) => {
            read_json(flight, asked, snapshot, (scanned, session_field.as_deref()))
        }
        (Some(Reading::Form(form)), Operation::Multipart(kind), _) => {
            read_form(flight, asked, snapshot, (kind, form))
        }
        (_, Operation::Opaque(_), _) => read_opaque(flight, asked, snapshot),
        (_, Operation::Multipart(kind), Some(body)) => {
            let content_type = asked.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
            let form = Form::parse(content_type, body)?;
            read_form(flight, asked, snapshot, (kind, form))
        }
        (_, _, Some(body)) => {
            let worker = std::rc::Rc::clone(&flight.worker);
            let router = worker.router.borrow();
            let scanned = scan::scan(body, router.session_field())?;
            read_json(flight, asked, snapshot, (scanned, router.session_field()))
        }
        (_, _, None) => read_query(flight, asked, snapshot),
    }
}

/// Of a JSON body, scanned for this session field.
fn read_json<'a>(
    flight: &mut Flight,
    asked: Asked<'a>,
    snapshot: &Snapshot,
    (mut scanned, session_field): (Scan<'a>, Option<&str>),
) -> Result<Meaning, FailureKind> {
    let model = scanned.model.as_deref().ok_or(FailureKind::ModelMissing)?;
    let (gateway, route) = resolve(flight, asked, snapshot, model)?;
    let key = &gateway.settings.session_key;
    if key.body_field.as_deref() != session_field {
        // This gateway finds sessions elsewhere than most.
        scanned = scan::scan(asked.body.unwrap_or_default(), key.body_field.as_deref())?;
    }
    flight.streams = scanned.stream;
    let spans = std::mem::take(&mut scanned.model_spans);
    let renamed = engine_name(&route, scanned.model.as_deref().unwrap_or_default())
        .map(|name| Splice::json(spans, name));
    let place = |range: &Range<usize>| match &renamed {
        Some(splice) => splice.moved(range),
        None => range.clone(),
    };
    let facts = Facts {
        session: session(key, asked.headers, Some(&scanned)),
        tenant: scanned.user.as_deref().map(|user| xxh3_64(start(user.as_bytes()))),
        priority: scanned.priority,
        output_tokens: scanned.max_tokens,
        prompt: place(&scanned.prompt),
        tools: place(&scanned.tools),
        ..Facts::default()
    };
    Ok(Meaning { facts, gateway, route, renamed })
}

fn read_form(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    (kind, form): (MultipartKind, Form<'_>),
) -> Result<Meaning, FailureKind> {
    let model = form.model_for(kind)?;
    let (gateway, route) = resolve(flight, asked, snapshot, model)?;
    flight.streams = form.stream;
    let renamed = engine_name(&route, model).map(|name| Splice::plain(form.model_spans.clone(), name));
    let facts =
        Facts { session: session(&gateway.settings.session_key, asked.headers, None), ..Facts::default() };
    Ok(Meaning { facts, gateway, route, renamed })
}

/// Of a path that a gateway lists, where the body says nothing of the model.
fn read_opaque(flight: &mut Flight, asked: Asked<'_>, snapshot: &Snapshot) -> Result<Meaning, FailureKind> {
    let Some((lister, model)) = asked.address.fixed() else { return read_query(flight, asked, snapshot) };
    let ObjectName { namespace, name } = &lister.name;
    let resolution = snapshot.resolve(Some((namespace, name)), None, model);
    let (gateway, route) = accept(flight, asked, resolution, model)?;
    let facts =
        Facts { session: session(&gateway.settings.session_key, asked.headers, None), ..Facts::default() };
    Ok(Meaning { facts, gateway, route, renamed: None })
}

fn read_query(flight: &mut Flight, asked: Asked<'_>, snapshot: &Snapshot) -> Result<Meaning, FailureKind> {
    let model = query::get(asked.address.query, "model").filter(|model| !model.is_empty());
    let model = model.ok_or(FailureKind::ModelMissing)?;
    let (gateway, route) = resolve(flight, asked, snapshot, &model)?;
    let facts =
        Facts { session: session(&gateway.settings.session_key, asked.headers, None), ..Facts::default() };
    Ok(Meaning { facts, gateway, route, renamed: None })
}

/// Which gateway and route serve `model`.
fn resolve(
    flight: &mut Flight,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    model: &str,
) -> Result<(Arc<Gateway>, Arc<Route>), FailureKind> {
    let Address { gateway, host, .. } = *asked.address;
    accept(flight, asked, snapshot.resolve(gateway, host, model), model)
}

/// Takes what a request was found to lead to.
fn accept(
    flight: &mut Flight,
    asked: Asked<'_>,
    resolution: Resolution<'_>,
    model: &str,
) -> Result<(Arc<Gateway>, Arc<Route>), FailureKind> {
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
            return Err(FailureKind::ModelUnknown { model: echoed(model) });
        }
        Resolution::NoSuchGateway => return Err(FailureKind::PathUnknown),
        Resolution::Unknown => return Err(FailureKind::ModelUnknown { model: echoed(model) }),
    };
    flight.error_format = gateway.settings.error_format;
    if asked.address.further.is_some() && !asked.address.is_listed_by(gateway) {
        // Of several gateways that none names, this one routes the model, and another one lists the path.
        return Err(FailureKind::PathUnknown);
    }
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

/// The session's name: the first header line of those that the gateway names, else the body's field.
fn session(key: &SessionKey, headers: &HeaderMap, scanned: Option<&Scan<'_>>) -> Option<SmallVec<[u8; 64]>> {
    // An empty name is a name, as it was for the old router.
    let named = key.headers.iter().find_map(|name| headers.get(name));
    match named {
        Some(value) => Some(SmallVec::from_slice(start(value.as_bytes()))),
        None => Some(SmallVec::from_slice(start(scanned?.session.as_deref()?.as_bytes()))),
    }
}

/// What of a name counts.
fn start(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_their_bytes_when_the_model_is_renamed() {
        let body = br#"{"model":"a","messages":[1,2],"model":"longer"}"#;
        let scanned = scan::scan(body, None).unwrap();
        let splice = Splice::json(scanned.model_spans, "something");
        let rewritten = splice.apply(body);
        assert_eq!(&rewritten[splice.moved(&scanned.prompt)], b"[1,2]");
        assert_eq!(splice.length(body.len()), rewritten.len());
    }

    #[test]
    fn an_empty_range_stays_empty() {
        let splice = Splice::json(std::iter::once(9..12).collect(), "another name");
        assert!(splice.moved(&(0..0)).is_empty());
    }
}

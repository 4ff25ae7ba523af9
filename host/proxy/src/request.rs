//! The life of a request, on one screen.

pub(crate) mod address;
mod head;
mod here;
mod meaning;

use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::failure::{Failure, FailureKind};
use domain::outcome::Ending;
use domain::pool::Pool;
use domain::retry::Deadline;
use domain::route::{ErrorFormat, Route};
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::cors;
use crate::dialect::{LocalPage, Operation, UPGRADE};
use crate::dispatch::{Destination, Outgoing, Won, dispatch};
use crate::filter;
use crate::flight::Flight;
use crate::intake::scan::Splice;
use crate::intake::{self, Bounds};
use crate::local::pinned;
use crate::relay::{self, Answer};
use crate::respond::{self, BodyKind, FailureContext};
use crate::server::{Client, Worker};
use crate::upstream::listed_in_connection;
use address::Address;
use meaning::{Asked, Meaning};

/// Who answers.
enum Served {
    /// We do.
    Here(Response<Bytes>),
    /// An engine does; the second is how long it may be silent.
    Engine(Box<Won>, Duration),
}

/// Serves one request: from its head to the head of its answer. What follows is the relay's.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (mut parts, incoming) = request.into_parts();
    if let Some(uri) = address::tidied(&parts.uri) {
        parts.uri = uri;
    }
    let mut flight = Flight::begin(Rc::clone(&worker), client, &parts.headers);
    let fault = head::fault(&parts, incoming.size_hint().exact().is_some());
    let mut response = match fault {
        Some(fault) => refuse_head(flight, &parts, fault),
        None => {
            let served = live(&mut flight, &parts, incoming).await;
            answered(flight, &parts, served)
        }
    };
    // Nobody can tell what follows a head that may be read in two ways.
    if (worker.is_draining() || fault.is_some()) && parts.version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// The answer to what came of a request.
fn answered(mut flight: Flight, parts: &Parts, served: Result<Served, FailureKind>) -> Response<Answer> {
    let sharing = cors::sharing(&flight, parts);
    let is_engines = matches!(served, Ok(Served::Engine(..)));
    let mut response = match served {
        Ok(Served::Here(response)) => {
            flight.finish(Ending::Local { status: response.status().as_u16() });
            response.map(Answer::Full)
        }
        Ok(Served::Engine(won, idle)) => relay::answer(won, flight, idle),
        Err(kind) => refuse(flight, parts, kind),
    };
    if let Some(sharing) = sharing {
        sharing.write(response.headers_mut(), is_engines);
    }
    response
}

/// The target of a request, which every gateway serves or one lists.
fn address<'a>(worker: &Worker, parts: &'a Parts) -> Result<Address<'a>, FailureKind> {
    let root = &worker.shared.options.root_path;
    match Address::of(parts, root) {
        Err(FailureKind::PathUnknown) => {
            Address::further(parts, root, &worker.router.borrow_mut().load(worker))
        }
        address => address,
    }
}

async fn live(flight: &mut Flight, parts: &Parts, incoming: Incoming) -> Result<Served, FailureKind> {
    let worker = Rc::clone(&flight.worker);
    if parts.method != Method::POST
        && let Some(answer) = unlike_most(flight, parts)?
    {
        return Ok(Served::Here(answer));
    }
    let address = address(&worker, parts)?;
    flight.operation = Some(address.operation);
    let is_bodyless = match address.operation {
        Operation::Json(kind) => kind.is_bodyless(),
        Operation::Multipart(_) => false,
        Operation::Opaque(has_body) => !has_body,
        // Boxed, like what follows: it is rare, and its state would make every request's larger.
        Operation::Local(LocalPage::Metrics) => {
            let metrics = Box::pin(here::metrics(flight)).await;
            return here::page(flight, LocalPage::Metrics, &address, metrics.as_ref()).map(Served::Here);
        }
        Operation::Local(page) => return here::page(flight, page, &address, None).map(Served::Here),
        Operation::EngineControl(control) => {
            return Box::pin(here::control(flight, control, parts, &address)).await;
        }
        Operation::NotImplemented(what) => return Err(FailureKind::NotImplemented { what }),
    };

    // intake
    let mut body = None;
    if !is_bodyless {
        let bytes_max = {
            let mut router = worker.router.borrow_mut();
            // As it is now: the snapshot that this worker saw last may be older than the limit.
            router.refresh(&worker);
            router.body_bytes_max()
        };
        intake::inspect(&parts.headers, bytes_max)?;
        let memory = &worker.shared.options.body_bytes;
        let client = flight.client.watch.peer.ip();
        let read = intake::read(incoming, Bounds { bytes_max, memory, client }, &flight.timer).await?;
        flight.body_in = Instant::now();
        flight.request_bytes = read.bytes().len() as u64;
        body = Some(read);
    }
    let snapshot = worker.router.borrow_mut().load(&worker);
    let asked = Asked { address: &address, headers: &parts.headers, body: None };
    let mut reading = None;
    let is_opaque = matches!(address.operation, Operation::Opaque(_));
    if let Some(large) = body.take_if(|body| body.is_large() && !is_opaque) {
        // Boxed: it is rare, and its state would make every request's larger.
        let ahead = Box::pin(meaning::read_ahead(&worker, asked, &snapshot, large)).await?;
        (body, reading) = (Some(ahead.0), Some(ahead.1));
    }
    let asked = Asked { body: body.as_ref().map(intake::Body::bytes), ..asked };
    let Meaning { gateway, route, mut facts, renamed } = meaning::read(flight, asked, &snapshot, reading)?;
    if let Some(splice) = renamed
        && let Some(named) = body.take()
    {
        body = Some(rename(&worker, named, splice).await?);
    }

    // filter, admit
    filter::check(&route)?;
    let settings = &gateway.settings;
    let deadline = Deadline::new(flight.body_in, settings.timeouts.response_header);
    let deadline_ms = deadline.at().map_or(u64::MAX, |at| worker.clock.exact_ms(at));
    if route.pool.endpoints.is_empty() {
        return Err(FailureKind::ModelUnavailable { model: route.model.as_str().into() });
    }
    flight.permit = Some(worker.lines.admit(&gateway, &flight.timer, deadline_ms).await?);

    // route, dispatch
    facts.kind = address.operation.kind();
    facts.ticket = route.pool.state.next_ticket();
    facts.seed = worker.router.borrow_mut().random();
    flight.connect_max = settings.timeouts.connect;
    let pin = match address.engine_id() {
        Some(id) => Some(awake(&route.pool, &id).ok_or_else(|| route_unavailable(&route))?),
        None => None,
    };
    let to = Destination {
        gateway: &gateway,
        pool: &route.pool,
        generation: snapshot.generation,
        model: route.model.as_str(),
        pin,
        deadline_ms,
    };
    let path_and_query = address.forwarded();
    let outgoing = Outgoing {
        method: &parts.method,
        path_and_query: &path_and_query,
        headers: &parts.headers,
        listed: listed_in_connection(&parts.headers),
        body,
    };
    drop(snapshot);
    let won = dispatch(flight, to, &facts, outgoing).await?;
    Ok(Served::Engine(Box::new(won), settings.timeouts.idle))
}

/// What only requests with other methods than POST ask for: leave for a web page, and another protocol.
///
/// Fails with `NotImplemented`, or with `Forbidden` for a page that may not ask.
fn unlike_most(flight: &mut Flight, parts: &Parts) -> Result<Option<Response<Bytes>>, FailureKind> {
    if parts.method == Method::OPTIONS {
        return cors::preflight(flight, parts);
    }
    if parts.method == Method::GET && head::wants_upgrade(parts) {
        let known =
            Address::of(parts, &flight.worker.shared.options.root_path).map(|address| address.operation);
        let what = if let Ok(Operation::NotImplemented(what)) = known { what } else { UPGRADE };
        flight.operation = Some(Operation::NotImplemented(what));
        return Err(FailureKind::NotImplemented { what });
    }
    Ok(None)
}

/// The body with the engine's name of the model; a large one is written away from the worker.
async fn rename(
    worker: &Worker,
    mut body: intake::Body,
    splice: Splice,
) -> Result<intake::Body, FailureKind> {
    if !body.is_large() {
        body.rewrite(&splice)?;
        return Ok(body);
    }
    let rewrite = move |body: &mut intake::Body| body.rewrite(&splice);
    let (body, rewritten) = Box::pin(worker.shared.apart.run(body, rewrite)).await?;
    rewritten.map(|()| body)
}

/// The endpoint that an engine id names, unless it sleeps.
fn awake(pool: &Pool, id: &str) -> Option<u32> {
    let index = pinned(pool, id)?;
    let endpoint = pool.endpoint(index)?;
    (!endpoint.is_asleep()).then_some(index)
}

fn route_unavailable(route: &Route) -> FailureKind {
    FailureKind::ModelUnavailable { model: route.model.as_str().into() }
}

/// The shape of an error: of the request's gateway. Where the request failed before its model told which that is, of the
/// gateway that path or host name, or of the only one there is.
fn error_format(flight: &Flight, parts: &Parts) -> ErrorFormat {
    if flight.gateway.is_some() {
        return flight.error_format;
    }
    let worker = &flight.worker;
    let snapshot = worker.router.borrow_mut().load(worker);
    let named = address::named(parts, &worker.shared.options.root_path, &snapshot).ok().flatten();
    let only = if let [only] = &snapshot.gateways[..] { Some(only) } else { None };
    named.or(only).map_or_else(ErrorFormat::default, |gateway| gateway.settings.error_format)
}

/// The answer to a head with this fault.
#[cold]
fn refuse_head(mut flight: Flight, parts: &Parts, fault: &str) -> Response<Answer> {
    let context = FailureContext {
        format: error_format(&flight, parts),
        dialect: flight.client.dialect,
        ..FailureContext::new(flight.request_id())
    };
    let response = respond::bad_head(fault, &context);
    flight.finish(Ending::Local { status: response.status().as_u16() });
    response.map(Answer::Full)
}

/// The answer to a failure.
fn refuse(mut flight: Flight, parts: &Parts, kind: FailureKind) -> Response<Answer> {
    let failure = Failure::from(kind);
    let body = match flight.operation {
        Some(Operation::Multipart(_)) => BodyKind::Form,
        _ => BodyKind::Json,
    };
    let allow = match failure.kind {
        FailureKind::MethodNotAllowed => {
            let worker = &flight.worker;
            let snapshot = worker.router.borrow_mut().load(worker);
            address::allowed(parts, &worker.shared.options.root_path, &snapshot)
        }
        _ => None,
    };
    let context = FailureContext {
        format: error_format(&flight, parts),
        dialect: flight.client.dialect,
        body,
        request_id: flight.request_id(),
        allow: allow.as_deref(),
    };
    let response = respond::failure(&failure, &context);
    flight.finish(Ending::Failed { failure, status: response.status().as_u16() });
    response.map(Answer::Full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_state_of_a_request_stays_small() {
        // It is moved into place for every request, unused parts included.
        let bytes = size_of_future(serve);
        assert!(bytes < 4_096, "{bytes} bytes");
    }
}

//! Requests that the gateway answers itself: its own pages, and controls of one engine.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use domain::failure::FailureKind;
use domain::route::Timeouts;
use domain::sleep::SleepNote;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use std::future::poll_fn;
use std::task::Poll;

use super::Served;
use super::address::Address;
use crate::dialect::{Control, LocalPage};
use crate::flight::Flight;
use crate::local::{self, LocalFacts};
use crate::respond::{ENGINE_CONTROL_OFF, X_REQUEST_ID, respond};
use crate::upstream::{
    Connection, Forwarded, Framing, Piece, Upload, exchange, listed_in_connection, write_head,
};

/// Longest answer of an engine to a control, bytes.
const CONTROL_BYTES_MAX: usize = 64 << 10;

/// The text of the metrics page, from the thread that renders it. `None`: it is served elsewhere only.
pub(super) async fn metrics(flight: &Flight) -> Option<Bytes> {
    flight.worker.shared.options.metrics.as_ref()?.render().await
}

/// One of our own pages. `metrics`: the text of that one, if it was asked for.
pub(super) fn page(
    flight: &Flight,
    page: LocalPage,
    address: &Address<'_>,
    metrics: Option<&Bytes>,
) -> Result<Response<Bytes>, FailureKind> {
    let worker = &flight.worker;
    let snapshot = worker.router.borrow_mut().load(worker);
    if snapshot.generation.0 == 0 && matches!(page, LocalPage::Models | LocalPage::Engines) {
        // An empty list would be a lie that clients keep.
        return Err(FailureKind::NotReady);
    }
    let gateway = address.named(&snapshot)?;
    let options = &worker.shared.options;
    let cards = options.status.cards();
    let model = address.model_id();
    let facts = LocalFacts {
        gateway: gateway.map(|gateway| &**gateway),
        dialect: flight.client.dialect,
        request_id: flight.request_id(),
        version: &options.version,
        started_unix: options.started_unix,
        cards: &cards,
        health: options.status.health(),
        dynamic_config: None,
        metrics,
        model: &model,
    };
    Ok(local::answer(page, &snapshot, &facts))
}

/// A control of the engine that `?id=` names: forwarded to it, and remembered. The engine is one of the gateway that the
/// request is for ([`local::in_question`]).
pub(super) async fn control(
    flight: &mut Flight,
    control: Control,
    parts: &Parts,
    address: &Address<'_>,
) -> Result<Served, FailureKind> {
    let worker = std::rc::Rc::clone(&flight.worker);
    if !worker.shared.options.engine_control {
        return Err(FailureKind::Forbidden { what: ENGINE_CONTROL_OFF });
    }
    let endpoint = {
        let snapshot = worker.router.borrow_mut().load(&worker);
        let named = address.named(&snapshot)?;
        let gateways = local::in_question(&snapshot, named.map(|gateway| &**gateway))?;
        local::find_engine(&snapshot, &gateways, address.engine_id().as_deref())?.clone()
    };
    let timeouts = Timeouts::default();
    let path_and_query = address.forwarded_without_id();
    let mut head = Vec::new();
    let forwarded = Forwarded {
        method: &parts.method,
        path_and_query: &path_and_query,
        headers: &parts.headers,
        listed: &listed_in_connection(&parts.headers),
        request_id: flight.request_id(),
        client: flight.client.watch.peer.ip(),
        added: &[],
        body_bytes: (control != Control::IsSleeping).then_some(0),
    };
    write_head(&mut head, &endpoint.spec, &forwarded);
    flight.attempts = 1;
    flight.timer.set_at(worker.clock.after(timeouts.connect));
    let connecting = worker.upstream.connect(&endpoint.spec, endpoint.state.slot, &flight.timer);
    let mut connection = connecting.await.map_err(|_| FailureKind::Connect)?;
    flight.timer.set_at(worker.clock.after(timeouts.response_header));
    let mut upload = Upload::new(head, Bytes::new());
    let answer = exchange(&mut connection, &mut upload, false, &flight.timer).await;
    let mut answer = answer.map_err(|_| FailureKind::LostBeforeHead)?;
    flight.first_byte = Some(Instant::now());
    let body = collect(&mut connection, &mut answer.framing, flight).await?;
    if !answer.status.is_success() || control == Control::IsSleeping {
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        if let Some(kind) = answer.headers.remove(http::header::CONTENT_TYPE) {
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        }
        response.headers_mut().insert(X_REQUEST_ID, HeaderValue::clone(&flight.request_id));
        return Ok(Served::Here(response));
    }
    let asleep = control == Control::Sleep;
    endpoint.command_sleep(asleep);
    if let (Some(tell), Some(pod)) = (&worker.shared.tell_sleep, &endpoint.spec.pod) {
        tell(SleepNote { pod: pod.clone(), uid: endpoint.spec.id.pod_uid.clone(), asleep });
    }
    if asleep {
        // What it held is gone.
        worker.shared.index.forget(endpoint.state.slot);
    }
    let success = respond(StatusCode::OK, "application/json", r#"{"status":"success"}"#, flight.request_id());
    Ok(Served::Here(success))
}

/// The whole body of a short answer.
async fn collect(
    connection: &mut Connection,
    framing: &mut Framing,
    flight: &Flight,
) -> Result<Bytes, FailureKind> {
    let mut body = BytesMut::new();
    poll_fn(|cx| {
        loop {
            match framing.take(&mut connection.buffer) {
                Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                Ok(Piece::End) => return Poll::Ready(Ok(())),
                Ok(Piece::More) => match connection.stream.poll_read(cx, &mut connection.buffer) {
                    Poll::Ready(Ok(0)) if *framing == Framing::UntilClose => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(FailureKind::LostBeforeHead)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        return flight.timer.poll(cx).map(|()| Err(FailureKind::DeadlineExceeded));
                    }
                },
                Err(_) => return Poll::Ready(Err(FailureKind::BadAnswer)),
            }
            if body.len() > CONTROL_BYTES_MAX {
                return Poll::Ready(Err(FailureKind::BadAnswer));
            }
        }
    })
    .await?;
    Ok(body.freeze())
}

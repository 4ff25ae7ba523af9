//! Probes, metrics and the pages for operators, on runtimes of their own: load on the data path never starves them.
//!
//! Two listeners: probes (`/healthz`, `/livez`, `/readyz`), and metrics with the admin pages. Both answer plain HTTP/1.1.
//! No connection waits for a place: when all places are taken, a new one takes that of the connection that has been quiet
//! for the longest time. A connection gets one page per turn, and one that does not take its answer is closed.

mod io;
mod places;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};

use io::PatientIo;
use places::{Place, Places};

/// Most connections served at once per listener. One more takes the place of the quietest.
const CONNECTIONS_MAX: usize = 256;
/// A client that has not sent its request head by then is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests on one connection; then it is closed.
const REQUESTS_MAX: u32 = 1_000;
/// Age at which a connection is told to finish.
const AGE_MAX: Duration = Duration::from_secs(300);
/// How long a connection that was told to finish may still take.
const FINISH_GRACE: Duration = Duration::from_secs(5);
/// How long accepting pauses when it cannot go on: out of descriptors, usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One page's answer.
#[derive(Debug)]
pub(crate) struct Page {
    /// Status code.
    pub(crate) status: StatusCode,
    /// `Content-Type`.
    pub(crate) content_type: &'static str,
    /// Body.
    pub(crate) body: Bytes,
}

impl Page {
    /// Plain text.
    pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
    /// JSON.
    pub(crate) fn json(value: &serde_json::Value) -> Self {
        let body = serde_json::to_vec_pretty(value).unwrap_or_default();
        Self { status: StatusCode::OK, content_type: "application/json", body: body.into() }
    }
    /// 404.
    pub(crate) fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "not found\n")
    }
}

/// A page on its way.
pub(crate) type PageFuture = Pin<Box<dyn Future<Output = Page> + Send>>;

/// Answers `GET path?query`. Must not block: it runs on the listener's only thread.
pub(crate) type Pages = Arc<dyn Fn(&str, Option<&str>) -> PageFuture + Send + Sync>;

/// Binds a listener now, so that a port in use is an error at the start.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener =
        std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves `pages` until the runtime is shut down.
pub(crate) async fn serve(listener: std::net::TcpListener, pages: Pages) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Places::new(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                places.take(|place| connection(stream, pages, place));
                // The connection that came first is served before the next is accepted.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, pages: Pages, place: Place) {
    let served = AtomicU32::new(0);
    let service = service_fn(|request| {
        place.touch();
        let is_last = served.fetch_add(1, Relaxed) + 1 >= REQUESTS_MAX;
        let pages = &pages;
        async move {
            // One page per turn: requests that were sent ahead wait behind those of other connections.
            tokio::task::yield_now().await;
            let mut response = answer(&request, pages).await;
            if is_last {
                let close = http::HeaderValue::from_static("close");
                response.headers_mut().insert(http::header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(PatientIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = match tokio::time::timeout(AGE_MAX, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FINISH_GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended early");
    }
}

async fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let page = if matches!(*request.method(), Method::GET | Method::HEAD) {
        pages(request.uri().path(), request.uri().query()).await
    } else {
        Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET here\n")
    };
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.status;
    let content_type = http::HeaderValue::from_static(page.content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;

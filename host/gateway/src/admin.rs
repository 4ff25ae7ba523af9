//! Probes, metrics and the pages for operators, on a runtime of their own: load on the data path never starves them.
//!
//! Two listeners: probes (`/healthz`, `/livez`, `/readyz`), and metrics with the admin pages. Both answer plain HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Most connections served at once per listener; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A client that has not sent its request head by then is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Answers `GET path?query`. Must not block: it runs on the admin runtime's only thread.
pub(crate) type Pages = Arc<dyn Fn(&str, Option<&str>) -> Page + Send + Sync>;

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
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, usually: give the rest of the process a moment.
                tracing::warn!(%error, "admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &pages);
                async { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "admin connection ended early");
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let page = if matches!(*request.method(), Method::GET | Method::HEAD) {
        pages(request.uri().path(), request.uri().query())
    } else {
        Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET here\n")
    };
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.status;
    let content_type = http::HeaderValue::from_static(page.content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

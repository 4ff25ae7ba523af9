//! A plain HTTP client for tests: one connection a request unless asked otherwise, nothing hidden, every chunk timed.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use futures::future::poll_fn;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
    /// The simulated engine that answered; empty if none did.
    pub fn engine(&self) -> &str {
        self.header("x-engine").unwrap_or_default()
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("handshake");
        tokio::spawn(connection);
        Self { sender, address }
    }

    /// Sends a request; the answer's body is not read yet.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<http::Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Sends a request built from parts and reads the whole answer.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = request(self.address, method, path, headers, body);
        let response = self.send(request).await.expect("an answer");
        read(response).await
    }
}

/// A request with `Host` and, if there is a body, `Content-Type: application/json` unless `headers` name one.
pub fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let body = body.into();
    let has = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    let mut builder = Request::builder().method(method).uri(path);
    if !has("host") {
        builder = builder.header("host", address.to_string());
    }
    if !body.is_empty() && !has("content-type") {
        builder = builder.header("content-type", "application/json");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body)).expect("a request")
}

/// Reads an answer whole.
pub async fn read(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    Connection::open(address).await.call(Method::GET, path, &[], Bytes::new()).await
}

/// POST on a connection of its own.
pub async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    Connection::open(address).await.call(Method::POST, path, headers, body).await
}

/// A streamed answer, chunk by chunk.
#[derive(Debug)]
pub struct Stream {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Stream {
    /// POSTs and returns when the head is here.
    pub async fn post(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Self {
        let mut connection = Connection::open(address).await;
        let response =
            connection.send(request(address, Method::POST, path, headers, body)).await.expect("a head");
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// The next chunk and when it arrived; `None` at the end, an error if the stream was cut.
    pub async fn chunk(&mut self) -> Option<Result<(Instant, Bytes), hyper::Error>> {
        loop {
            let frame = poll_fn(|context| std::pin::Pin::new(&mut self.body).poll_frame(context)).await?;
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok((Instant::now(), data))),
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// All the rest, or the error that cut it.
    pub async fn rest(&mut self) -> Result<Vec<(Instant, Bytes)>, hyper::Error> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.chunk().await {
            chunks.push(chunk?);
        }
        Ok(chunks)
    }
}

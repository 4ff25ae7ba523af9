//! One small HTTP/1.1 client for probes: a connection a request, bounded in size, at most one redirect on the same host.
//!
//! Time is the caller's: dropping the future closes the connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use domain::endpoint::{EndpointSpec, EngineAuth, EngineTls, Target};

use super::page::Unread;

mod decode;
mod redirect;
pub(in crate::observe) mod trust;

pub(crate) use names::Names;

use decode::Decoder;

/// Most bytes of head that an engine may send.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Why a probe brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("connect failed")]
    Connect(#[source] std::io::Error),
    /// No TLS session: the certificate is not trusted, or the settings are unusable.
    #[error("TLS failed")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What came back is not HTTP, or broke off.
    #[error("exchange failed")]
    Exchange(#[source] hyper::Error),
    /// The URL cannot be put into a request.
    #[error("bad request target")]
    Target(#[source] http::Error),
    /// The body is larger than the limit.
    #[error("answer above {limit_bytes} bytes")]
    TooLarge {
        /// The limit in force.
        limit_bytes: usize,
    },
    /// A redirect that is not followed: to another host, without a usable target, or the second in a row.
    #[error("answered {status}, which leads to {location}")]
    Redirect {
        /// Its status.
        status: StatusCode,
        /// Where it leads, as the engine says it, cut at [`redirect::SHOWN_BYTES_MAX`].
        location: Box<str>,
    },
    /// The body is encoded in a way that is not understood.
    #[error("answered in content encoding {0}")]
    Encoding(Box<str>),
    /// Not 200.
    #[error("answered {0}")]
    Status(StatusCode),
    /// The body is not what the path promises.
    #[error("answer cannot be read")]
    Content,
    /// A page without a number that is known.
    #[error("answered {0}")]
    Unread(Unread),
    /// No answer within the probe's time.
    #[error("no answer in time")]
    Timeout,
}

/// Ready TLS settings, one per distinct [`EngineTls`].
#[derive(Debug, Default)]
pub(super) struct Trust {
    configs: HashMap<EngineTls, Option<Arc<ClientConfig>>>,
}

/// What asking takes, whatever the question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// TLS settings, where the target speaks it. `None` there: unusable settings.
    pub tls: Option<Arc<ClientConfig>>,
    /// Says where names lead.
    pub names: Names,
}

/// Whom to ask that is no endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// Who it is: the name in a request and on a certificate.
    pub target: Target,
    /// Where to connect, if not where that name leads.
    pub address: Option<SocketAddr>,
}

/// What to get, and from whom.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Whom to ask.
    pub target: Target,
    /// Where to connect, if not where the target's name leads.
    pub address: Option<SocketAddr>,
    /// Credentials.
    pub auth: Option<Arc<EngineAuth>>,
    /// Trust and names.
    pub access: Access,
    /// Port, if not the target's own.
    pub port: Option<u16>,
    /// Path behind the target's base path, or the whole path where `port` is set.
    pub path: Arc<str>,
    /// Value of `Accept`.
    pub accept: &'static str,
    /// Most bytes of body.
    pub bytes_max: usize,
}

impl Access {
    /// Believes whom the system believes. Reads its certificates, which takes some milliseconds.
    pub(crate) fn with_system_roots(names: Names) -> Self {
        Self { tls: trust::system_roots(), names }
    }
}

impl Trust {
    /// Settings for an endpoint; `None` where it does not speak TLS, or its CA bundle is unreadable.
    pub(super) fn config(&mut self, spec: &EndpointSpec) -> Option<Arc<ClientConfig>> {
        if !spec.target.tls {
            return None;
        }
        let settings = spec.tls.as_deref().cloned().unwrap_or_default();
        self.configs.entry(settings).or_insert_with_key(trust::client_config).clone()
    }

    /// Forgets settings that none of `live` uses.
    pub(super) fn retain<'a>(&mut self, live: impl Iterator<Item = &'a EndpointSpec>) {
        let live: std::collections::HashSet<&EngineTls> =
            live.filter_map(|spec| spec.tls.as_deref()).collect();
        self.configs.retain(|settings, _| live.contains(settings) || *settings == EngineTls::default());
    }
}

/// Asks, and hands the body over piece by piece; only a 200 has one. Follows one redirect to another path of the same
/// host: credentials go nowhere else.
pub(super) async fn get(question: &Question, mut on_piece: impl FnMut(&[u8])) -> Result<(), ProbeError> {
    let error = match ask(question, &mut on_piece).await {
        Err(error @ ProbeError::Redirect { .. }) => error,
        ended => return ended,
    };
    let ProbeError::Redirect { location, .. } = &error else { return Err(error) };
    let Some(path) = redirect::path(location, question) else { return Err(error) };
    let mut again = Question { path: path.into(), ..question.clone() };
    // The path is whole already.
    again.target.base_path = "".into();
    Box::pin(ask(&again, &mut on_piece)).await
}

/// One request and its answer.
async fn ask(question: &Question, on_piece: &mut impl FnMut(&[u8])) -> Result<(), ProbeError> {
    let target = &question.target;
    let port = question.port.unwrap_or(target.port);
    let stream = match question.address {
        Some(address) => TcpStream::connect(address).await,
        None => question.access.names.connect(&target.host, port).await.map(|(stream, _)| stream),
    };
    let stream = stream.map_err(ProbeError::Connect)?;
    stream.set_nodelay(true).map_err(ProbeError::Connect)?;
    if !target.tls {
        return exchange(stream, question, on_piece).await;
    }
    let config = question
        .access
        .tls
        .clone()
        .ok_or_else(|| ProbeError::Tls("the CA bundle is missing or unreadable".into()))?;
    let name =
        ServerName::try_from(target.host.to_string()).map_err(|error| ProbeError::Tls(error.into()))?;
    let connector = TlsConnector::from(config);
    let stream = connector.connect(name, stream).await.map_err(|error| ProbeError::Tls(error.into()))?;
    exchange(stream, question, on_piece).await
}

/// Asks a place that is no endpoint, without credentials. What it says beyond its status is dropped.
pub(crate) async fn knock(
    door: Door,
    access: &Access,
    path: &str,
    bytes_max: usize,
) -> Result<(), ProbeError> {
    let question = Question {
        target: door.target,
        address: door.address,
        auth: None,
        access: access.clone(),
        port: None,
        path: path.into(),
        accept: "*/*",
        bytes_max,
    };
    get(&question, |_| {}).await
}

/// The same, as one buffer.
pub(super) async fn get_whole(question: &Question) -> Result<Vec<u8>, ProbeError> {
    let mut body = Vec::new();
    get(question, |piece| body.extend_from_slice(piece)).await?;
    Ok(body)
}

async fn exchange<S>(
    stream: S,
    question: &Question,
    on_piece: &mut impl FnMut(&[u8]),
) -> Result<(), ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(question).map_err(ProbeError::Target)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(ProbeError::Exchange)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(ProbeError::Exchange)?;
        let status = response.status();
        if let Some(location) = response.headers().get(LOCATION).filter(|_| status.is_redirection()) {
            return Err(ProbeError::Redirect { status, location: redirect::shown(location) });
        }
        if status != StatusCode::OK {
            return Err(ProbeError::Status(status));
        }
        let decoder = Decoder::new(response.headers(), question.bytes_max, on_piece)?;
        read(response.into_body(), question.bytes_max, decoder).await
    };
    tokio::pin!(connection, answer);
    // The connection is polled here and not in a task of its own, so that dropping us ends both.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // The connection is done before the body was read: what is left stands in its channel.
            Ok(()) => answer.await,
            Err(error) => Err(ProbeError::Exchange(error)),
        },
    }
}

async fn read(
    mut body: Incoming,
    bytes_max: usize,
    mut decoder: Decoder<'_, impl FnMut(&[u8])>,
) -> Result<(), ProbeError> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ProbeError::Exchange)?;
        if let Some(piece) = frame.data_ref() {
            bytes += piece.len();
            if bytes > bytes_max {
                return Err(ProbeError::TooLarge { limit_bytes: bytes_max });
            }
            decoder.feed(piece)?;
        }
    }
    decoder.finish()
}

fn request(question: &Question) -> Result<Request<Empty<Bytes>>, http::Error> {
    let target = &question.target;
    let (path, authority) = match question.port {
        Some(port) if target.host.contains(':') => {
            (question.path.to_string(), format!("[{}]:{port}", target.host))
        }
        Some(port) => (question.path.to_string(), format!("{}:{port}", target.host)),
        None => (format!("{}{}", target.base_path, question.path), target.authority.to_string()),
    };
    let mut request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, question.accept)
        .header(USER_AGENT, concat!("wicketgate/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, HeaderValue::from_static("close"));
    if let Some(auth) = &question.auth {
        request = request.header(&auth.header, &auth.value);
    }
    request.body(Empty::new())
}

#[cfg(test)]
mod tests;

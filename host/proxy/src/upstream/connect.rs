//! Connecting to an engine: name, TCP, TLS.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use domain::endpoint::Target;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use crate::clock::Timer;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Refused, unreachable, or no such name.
    #[error("no TCP connection")]
    Tcp,
    /// The certificate is not trusted, or the handshake failed.
    #[error("no TLS session")]
    Tls,
    /// The time was up.
    #[error("connecting took too long")]
    Timeout,
}

/// Connects to `target`; with `config`, over TLS.
pub(super) async fn connect(
    target: &Target,
    config: Option<Arc<ClientConfig>>,
    timer: &Timer,
) -> Result<Stream, ConnectError> {
    let mut connecting = pin!(open(target, config));
    poll_fn(|cx| match connecting.as_mut().poll(cx) {
        std::task::Poll::Ready(result) => std::task::Poll::Ready(result),
        std::task::Poll::Pending => timer.poll(cx).map(|()| Err(ConnectError::Timeout)),
    })
    .await
}

async fn open(target: &Target, config: Option<Arc<ClientConfig>>) -> Result<Stream, ConnectError> {
    let connected = match target.host.parse::<IpAddr>() {
        Ok(address) => TcpStream::connect((address, target.port)).await,
        // The system's resolver, on a thread of the runtime's blocking pool.
        Err(_) => TcpStream::connect((&*target.host, target.port)).await,
    };
    let stream = connected.map_err(|_| ConnectError::Tcp)?;
    // A request is one write, and its last part must not wait for an acknowledgement.
    stream.set_nodelay(true).map_err(|_| ConnectError::Tcp)?;
    let Some(config) = config else {
        return Ok(Stream::Plain(stream));
    };
    let name = ServerName::try_from(target.host.to_string()).map_err(|_| ConnectError::Tls)?;
    let session = TlsConnector::from(config).connect(name, stream).await.map_err(|_| ConnectError::Tls)?;
    Ok(Stream::Tls(Box::new(session)))
}

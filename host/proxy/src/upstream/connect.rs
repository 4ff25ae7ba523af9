//! Connecting to an engine: name, TCP, TLS.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use domain::endpoint::Target;
use names::{Names, Route, is_shortage};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
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
    /// This process has run out of file descriptors, or this machine of something else. The engine was not asked.
    #[error("out of file descriptors")]
    Shortage,
}

/// Connects to `target`; with `config`, over TLS. Also says by which name it was found, if that is no address.
pub(super) async fn connect(
    names: &Names,
    target: &Target,
    config: Option<Arc<ClientConfig>>,
    timer: &Timer,
) -> Result<(Stream, Option<Route>), ConnectError> {
    let mut connecting = pin!(open(names, target, config));
    poll_fn(|cx| match connecting.as_mut().poll(cx) {
        std::task::Poll::Ready(result) => std::task::Poll::Ready(result),
        std::task::Poll::Pending => timer.poll(cx).map(|()| Err(ConnectError::Timeout)),
    })
    .await
}

async fn open(
    names: &Names,
    target: &Target,
    config: Option<Arc<ClientConfig>>,
) -> Result<(Stream, Option<Route>), ConnectError> {
    let connected = names.connect(&target.host, target.port).await;
    let (stream, route) = connected.map_err(|error| match is_shortage(&error) {
        true => ConnectError::Shortage,
        false => ConnectError::Tcp,
    })?;
    // A request is one write, and its last part must not wait for an acknowledgement.
    stream.set_nodelay(true).map_err(|_| ConnectError::Tcp)?;
    let Some(config) = config else {
        return Ok((Stream::Plain(stream), route));
    };
    let name = ServerName::try_from(target.host.to_string()).map_err(|_| ConnectError::Tls)?;
    let session = TlsConnector::from(config).connect(name, stream).await.map_err(|_| ConnectError::Tls)?;
    Ok((Stream::Tls(Box::new(session)), route))
}

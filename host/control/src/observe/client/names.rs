//! Where names lead, asked of the system's resolver, a bounded number at a time.
//!
//! That resolver holds a thread for as long as it likes, tens of seconds where name servers are silent, and cannot be
//! interrupted. The threads that may be held are few and shared with others, such as the writer of status, so look-ups
//! wait for each other here, where whoever waits can leave.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Look-ups under way at a time: half of the threads of a runtime (`BLOCKING_THREADS_MAX` in `start`).
const LOOKUPS_MAX: usize = 2;

/// Looks names up, at most [`LOOKUPS_MAX`] at a time. Clones share the bound; there is one for each runtime.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    places: Arc<Semaphore>,
}

impl Default for Names {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Names {
    /// Every address of a host, which may be an address itself: that waits for nobody.
    ///
    /// Dropping it gives the wait up; a look-up that has begun goes on, and keeps its place until its end.
    pub(in crate::observe) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let host = host.to_owned();
        self.look_up(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
    }

    async fn look_up<F>(&self, resolve: F) -> io::Result<Vec<SocketAddr>>
    where
        F: FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let found = tokio::task::spawn_blocking(move || {
            let found = resolve();
            drop(place);
            found
        });
        found.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests;

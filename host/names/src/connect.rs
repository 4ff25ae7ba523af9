//! Connecting to one of several addresses: the next one is tried whenever one fails or is slow (RFC 8305, section 5).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::io::Errno;
use tokio::net::TcpStream;

/// How long an attempt has before the next address is tried beside it.
pub const STAGGER: Duration = Duration::from_millis(250);

/// Whether connecting failed because this process or machine has run out of something. No engine is at fault then.
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}

/// What became of the addresses that were tried.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Those without a result, and when they began.
    under_way: Vec<(SocketAddr, Instant)>,
    /// Those that failed.
    pub(crate) failed: Vec<SocketAddr>,
    /// The one that connected.
    pub(crate) connected: Option<SocketAddr>,
}

impl Tried {
    /// Addresses that had their time and did not connect.
    pub(crate) fn slow(&self) -> impl Iterator<Item = SocketAddr> {
        let overdue = self.under_way.iter().filter(|(_, began)| began.elapsed() >= STAGGER);
        self.failed.iter().copied().chain(overdue.map(|(address, _)| *address))
    }

    fn ended(&mut self, address: SocketAddr) {
        self.under_way.retain(|(other, _)| *other != address);
    }
}

/// Connects to the first of `addresses` that answers, in their order, each [`STAGGER`] after the one before or as soon as
/// that has failed. The others are dropped. Dropping this drops all; `tried` tells then, too.
pub(crate) async fn race(addresses: &[SocketAddr], tried: &mut Tried) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().copied();
    let mut racing = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        match waiting.next() {
            Some(address) => {
                tried.under_way.push((address, Instant::now()));
                racing.push(async move { (address, TcpStream::connect(address).await) });
            }
            None if racing.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            biased;
            Some((address, result)) = racing.next() => {
                tried.ended(address);
                match result {
                    Ok(stream) => {
                        tried.connected = Some(address);
                        return Ok(stream);
                    }
                    // Other addresses need the same.
                    Err(error) if is_shortage(&error) => return Err(error),
                    Err(error) => {
                        tried.failed.push(address);
                        failure = error;
                    }
                }
            }
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

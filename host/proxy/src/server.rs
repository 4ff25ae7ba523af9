//! Workers and listeners: starts them, watches over them, drains them.

mod connection;
mod descriptors;
mod frames;
mod io;
mod listen;
mod status;
mod tls;
mod watch;
mod worker;

use std::fmt;
use std::io as std_io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use domain::admission::BodyBytes;
use domain::policy::Policies;
use domain::prefix::PrefixIndex;
use domain::published::Published;
use domain::sleep::SleepNote;
use names::Names;

use crate::intake::apart::Apart;
use crate::metrics::{Board, MetricsPage};
use crate::respond::Dialect;
pub(crate) use connection::Client;
pub use status::Status;
pub use tls::CertificateFiles;
pub(crate) use worker::Worker;

use connection::Speech;
use tls::Certificate;
use worker::{Bells, Desk};

/// Most workers of one process.
pub const WORKERS_MAX: usize = 256;
/// How often certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(2);
/// How often draining looks whether it is done.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// An address to listen on.
#[derive(Clone, Debug)]
pub struct ListenerSpec {
    /// Address; port 0 takes any free one.
    pub address: SocketAddr,
    /// Language of error bodies and probes there.
    pub dialect: Dialect,
    /// Set: TLS, with this certificate. Files that change are read again within two seconds.
    pub tls: Option<CertificateFiles>,
}

/// What the data plane is started with.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Listeners, at least one.
    pub listeners: Vec<ListenerSpec>,
    /// Workers, 1 to [`WORKERS_MAX`]; each is one thread with a runtime, listeners and connections of its own.
    pub workers: usize,
    /// Zero of the gateway's monotonic clock; the observer must count from the same.
    pub epoch: Instant,
    /// Bound on request bodies in memory, over all workers.
    pub body_bytes: BodyBytes,
    /// Whether `/sleep`, `/wake_up` and `/is_sleeping` work. Default no.
    pub engine_control: bool,
    /// Whether answers say who gave them: `x-wicketgate-endpoint`, `x-wicketgate-policy`. Default no.
    pub answer_headers: bool,
    /// Prefix under which every path is served as well; empty, or starts with `/` and does not end with one.
    pub root_path: String,
    /// This program's version, for `/version`.
    pub version: String,
    /// Start of the process, Unix seconds.
    pub started_unix: u64,
    /// The page `/metrics` of the data listeners; `None`: that page is served elsewhere only.
    pub metrics: Option<MetricsPage>,
    /// Where workers' counters and the decision log are seen.
    pub board: Arc<Board>,
    /// What others find out and local pages show.
    pub status: Arc<Status>,
    /// Where names of engines lead; shared with the observers.
    pub names: Names,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            workers: 1,
            epoch: Instant::now(),
            body_bytes: BodyBytes::default(),
            engine_control: false,
            answer_headers: false,
            root_path: String::new(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            started_unix: 0,
            metrics: None,
            board: Board::new(),
            status: Arc::default(),
            names: Names::default(),
        }
    }
}

/// What of the rest of the process the data plane uses.
#[derive(Clone)]
pub struct Parts {
    /// Configuration in force.
    pub published: Published,
    /// Evaluators.
    pub policies: Arc<dyn Policies>,
    /// Who is believed to hold which prompts.
    pub index: Arc<PrefixIndex>,
    /// Told of pods whose engine a client put to sleep or woke. Must not block.
    pub tell_sleep: Option<TellSleep>,
}

/// Takes a [`SleepNote`].
pub type TellSleep = Arc<dyn Fn(SleepNote) + Send + Sync>;

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) options: ServerOptions,
    pub(crate) published: Published,
    pub(crate) policies: Arc<dyn Policies>,
    pub(crate) index: Arc<PrefixIndex>,
    pub(crate) tell_sleep: Option<TellSleep>,
    /// Reads large bodies.
    pub(crate) apart: Apart,
    bells: Arc<Bells>,
    /// Client connections of one worker; beyond them nothing is accepted.
    clients_max: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The data plane.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Binds all listeners and starts the workers. Returns once every socket listens.
    ///
    /// Fails where an address cannot be bound (somebody else listens there, too), or a certificate cannot be read.
    pub fn start(options: ServerOptions, parts: Parts) -> std_io::Result<ServerHandle> {
        let workers = options.workers.clamp(1, WORKERS_MAX);
        let mut addresses = Vec::new();
        let mut certificates = Vec::new();
        let mut per_worker: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for spec in &options.listeners {
            let tls = match &spec.tls {
                Some(files) => {
                    let certificate = Certificate::load(files.clone())?;
                    let config = certificate.server_config()?;
                    certificates.push(certificate);
                    Some(config)
                }
                None => None,
            };
            let (address, sockets) = listen::bind(spec.address, workers)?;
            addresses.push(address);
            for (listeners, socket) in per_worker.iter_mut().zip(sockets) {
                listeners.push((socket, Speech { dialect: spec.dialect, tls: tls.clone() }));
            }
        }
        let desks: Vec<Arc<Desk>> = (0..workers).map(|_| Arc::default()).collect();
        let epoch = options.epoch;
        let Parts { published, policies, index, tell_sleep } = parts;
        let bells = Arc::new(Bells(desks.clone()));
        let (apart, readers) = Apart::start(workers)?;
        let clients_max = descriptors::clients_max(descriptors::raise(), workers, worker::CONNECTIONS_MAX);
        let shared =
            Arc::new(Shared { options, published, policies, index, tell_sleep, apart, bells, clients_max });
        let mut threads = Vec::new();
        for (index, listeners) in per_worker.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            // At most 256, so it fits.
            let run = move || worker::run(index as u8, shared, listeners);
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
        }
        let is_ended = Arc::new(AtomicBool::new(false));
        let refresher = refresh_certificates(certificates, Arc::clone(&is_ended))?;
        Ok(ServerHandle { addresses, desks, threads, readers, refresher, is_ended, epoch })
    }
}

/// Looks after certificate files, on a thread of its own: reading files blocks.
fn refresh_certificates(
    certificates: Vec<Arc<Certificate>>,
    is_ended: Arc<AtomicBool>,
) -> std_io::Result<Option<JoinHandle<()>>> {
    if certificates.is_empty() {
        return Ok(None);
    }
    let refresh = move || {
        while !is_ended.load(Relaxed) {
            std::thread::park_timeout(CERTIFICATE_CHECK);
            for certificate in &certificates {
                match certificate.reload() {
                    Ok(false) => {}
                    Ok(true) => tracing::info!(?certificate, "certificate reloaded"),
                    Err(error) => tracing::warn!(?certificate, %error, "certificate not reloaded"),
                }
            }
        }
    };
    std::thread::Builder::new().name("certificates".into()).spawn(refresh).map(Some)
}

/// What is known of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// Age of its last sign of life. Above a few seconds it hangs.
    pub beat_age: Duration,
    /// Requests in flight.
    pub in_flight: u32,
    /// Client connections.
    pub connections: u32,
}

/// The running data plane. Dropping it ends everything at once.
#[derive(Debug)]
pub struct ServerHandle {
    addresses: Vec<SocketAddr>,
    desks: Vec<Arc<Desk>>,
    threads: Vec<JoinHandle<std_io::Result<()>>>,
    /// Of large bodies; they end after the workers.
    readers: Vec<JoinHandle<()>>,
    refresher: Option<JoinHandle<()>>,
    is_ended: Arc<AtomicBool>,
    epoch: Instant,
}

impl ServerHandle {
    /// The addresses listened on, in the order of the options.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A view of the workers that outlives this handle, for liveness and metrics.
    pub fn workers(&self) -> Workers {
        Workers { desks: self.desks.clone(), epoch: self.epoch }
    }

    /// Stops accepting (after those who wait already), lets requests finish for at most `patience`, and ends.
    /// Returns the number of requests that were cut off. Blocks; call it from a thread that may.
    pub fn drain(self, patience: Duration) -> u32 {
        let start = Instant::now();
        for desk in &self.desks {
            desk.is_draining.store(true, Relaxed);
            desk.told.notify_waiters();
        }
        while start.elapsed() < patience && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(DRAIN_CHECK);
        }
        let running = self.desks.iter().zip(&self.threads).filter(|(_, thread)| !thread.is_finished());
        running.map(|(desk, _)| desk.in_flight.load(Relaxed)).sum()
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.is_ended.store(true, Relaxed);
        for desk in &self.desks {
            desk.is_ended.store(true, Relaxed);
            desk.is_draining.store(true, Relaxed);
            desk.told.notify_waiters();
        }
        if let Some(refresher) = self.refresher.take() {
            refresher.thread().unpark();
            let _ = refresher.join();
        }
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
        for reader in self.readers.drain(..) {
            if reader.join().is_err() {
                tracing::error!("a reader of large bodies panicked");
            }
        }
    }
}

/// A view of all workers.
#[derive(Clone, Debug)]
pub struct Workers {
    desks: Vec<Arc<Desk>>,
    epoch: Instant,
}

impl Workers {
    /// What each worker does now.
    pub fn states(&self) -> Vec<WorkerState> {
        let now_ms = self.epoch.elapsed().as_millis() as u64;
        let state = |desk: &Arc<Desk>| WorkerState {
            beat_age: Duration::from_millis(now_ms.saturating_sub(desk.beat_ms.load(Relaxed))),
            in_flight: desk.in_flight.load(Relaxed),
            connections: desk.connections.load(Relaxed),
        };
        self.desks.iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests;

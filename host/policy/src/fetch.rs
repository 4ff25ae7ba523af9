//! Gets components out of OCI registries, on a thread of its own, far from the request path.
//!
//! Every component is fetched by digest and checked against it, so it is fetched once and never again: what a registry
//! says later changes nothing. One that cannot be had is tried again until it is, or until nobody asks for it any more.

mod cache;
mod challenge;
mod client;
mod manifest;
mod registry;
mod secret;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use domain::image::{Image, PullSecret};
use domain::policy::PrepareFailure;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::inspect::refuse;
use registry::Puller;

/// Components fetched at a time; more wait.
const FETCHES_MAX: usize = 4;
/// Longest time for one attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(120);
/// After a failure it is tried again so soon, twice as late each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// And at least so often.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What of a registry is allowed, and where its answers are kept.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Directory for what was fetched (`--policy-cache-dir`), by digest; survives restarts. At most
    /// 256 MiB, the oldest goes first. Default: only memory.
    pub cache: Option<PathBuf>,
    /// Registries that may be asked (`--policy-registry`), each a host, or the beginning of `host/repository` up to a slash.
    /// Default: any.
    pub registries: Vec<Box<str>>,
    /// Registries spoken to without TLS (`--policy-insecure-registry`), by host and port. Loopback always is. Default: none.
    pub insecure: Vec<Box<str>>,
    /// First wait after a failure. Default 1 s; tests take less.
    pub retry: Option<Duration>,
}

/// One component to get.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Number of the order; another one for the same component has another.
    pub(crate) id: u64,
    pub(crate) image: Image,
    pub(crate) pull_secret: Option<PullSecret>,
    /// SHA-256 of the component, where it is known beforehand.
    pub(crate) sha256: Option<Arc<str>>,
}

/// Who ordered.
pub(crate) trait Desk: Send + Sync {
    /// Whether anybody still waits for an order.
    fn is_wanted(&self, id: u64) -> bool;
    /// What came of an attempt.
    fn deliver(&self, id: u64, result: Result<Arc<[u8]>, PrepareFailure>);
}

/// The running thread. Dropping it ends it, in the middle of whatever it does.
pub(crate) struct Fetcher {
    /// Bounded by who orders: one for each artifact that live policies name.
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Fetcher {
    /// Starts the thread.
    pub(crate) fn start(options: &FetchOptions, desk: Arc<dyn Desk>) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let puller = Arc::new(Puller::new(options));
        let retry = options.retry.unwrap_or(RETRY_MIN);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        let run = move || {
            runtime.block_on(serve(inbox, puller, desk, retry));
            // A name that is being looked up cannot be interrupted; nobody waits for it.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("policy-fetch".into()).spawn(run)?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Begins to get a component. Returns at once.
    pub(crate) fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only with us.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

async fn serve(
    mut orders: mpsc::UnboundedReceiver<Order>,
    puller: Arc<Puller>,
    desk: Arc<dyn Desk>,
    retry: Duration,
) {
    let places = Arc::new(Semaphore::new(FETCHES_MAX));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => {
                    let (puller, desk, places) = (Arc::clone(&puller), Arc::clone(&desk), Arc::clone(&places));
                    running.spawn(async move { persist(&order, &puller, &*desk, (&places, retry)).await });
                }
                None => break,
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
    running.shutdown().await;
}

/// Tries until it has the component, or nobody wants it any more.
async fn persist(order: &Order, puller: &Puller, desk: &dyn Desk, (places, retry): (&Semaphore, Duration)) {
    let mut wait = retry;
    while desk.is_wanted(order.id) {
        let Ok(place) = places.acquire().await else { return };
        let result = timeout(ATTEMPT_MAX, puller.pull(order)).await.unwrap_or_else(|_| {
            let message = format!("`{}` was not here within {} s", order.image, ATTEMPT_MAX.as_secs());
            Err(refuse(
                "FetchFailed",
                message,
                "look at the registry, or at the way to it; it is tried again",
            ))
        });
        drop(place);
        let is_done = result.is_ok();
        desk.deliver(order.id, result);
        if is_done {
            return;
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests;

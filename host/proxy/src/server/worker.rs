//! One worker: a thread with a runtime, listeners, connections and pools of its own. Nothing on the request path leaves it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use domain::admission::Bell;
use tokio::net::TcpListener;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::Shared;
use super::connection::{self, Speech};
use super::watch::{SWEEP, Watches};
use crate::admit::Lines;
use crate::clock::{Clock, TICK};
use crate::linger::Lingering;
use crate::record::Recorder;
use crate::route::Router;
use crate::upstream::Upstream;

/// Client connections of one worker, where the limit of open files allows it.
pub(super) const CONNECTIONS_MAX: usize = 16_384;
/// Tasks between two looks at the sockets.
const EVENT_INTERVAL: u32 = 61;
/// Threads for what blocks: nothing of a worker does.
const BLOCKING_THREADS_MAX: usize = 1;
/// How long accepting pauses when it cannot go on (too many open files, too many connections).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the world outside a worker may know of it and tell it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Last sign of life, milliseconds on the gateway's clock.
    pub(super) beat_ms: AtomicU64,
    /// Requests in flight.
    pub(super) in_flight: AtomicU32,
    /// Client connections.
    pub(super) connections: AtomicU32,
    /// Set: accept nothing new, finish what there is.
    pub(super) is_draining: AtomicBool,
    /// Set: end now.
    pub(super) is_ended: AtomicBool,
    /// Rung with every change of the two above.
    pub(super) told: Notify,
    /// Rung when a permit may be free.
    pub(super) bell: Notify,
}

/// Rings workers for admission.
#[derive(Debug)]
pub(super) struct Bells(pub(super) Vec<Arc<Desk>>);

impl Bell for Bells {
    fn ring(&self, worker: u8) {
        if let Some(desk) = self.0.get(usize::from(worker)) {
            desk.bell.notify_one();
        }
    }
}

/// What the phases of a request share on one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// Time.
    pub(crate) clock: Rc<Clock>,
    /// Connections to engines.
    pub(crate) upstream: Upstream,
    /// Snapshot, evaluator and what deciding needs.
    pub(crate) router: RefCell<Router>,
    /// Who waits for admission.
    pub(crate) lines: Lines,
    /// Counters and the request log.
    pub(crate) recorder: Recorder,
    /// Requests that failed quickly and go on counting as in flight.
    pub(crate) linger: Lingering,
    /// Client connections.
    pub(super) watches: Rc<Watches>,
    in_flight: Cell<u32>,
    desk: Arc<Desk>,
}

impl Worker {
    fn new(index: u8, shared: Arc<Shared>) -> Rc<Self> {
        let clock = Clock::new(shared.options.epoch);
        let desk = Arc::clone(&shared.bells.0[usize::from(index)]);
        Rc::new(Self {
            upstream: Upstream::new(Rc::clone(&clock), shared.options.names.clone()),
            router: RefCell::new(Router::new(&shared, index)),
            lines: Lines::new(index, Arc::clone(&shared.bells) as Arc<dyn Bell>),
            recorder: Recorder::new(&shared.options.board, usize::from(index)),
            linger: Lingering::default(),
            watches: Rc::default(),
            in_flight: Cell::new(0),
            clock,
            desk,
            shared,
        })
    }

    /// Counts a request in flight.
    pub(crate) fn begin(&self) {
        self.count(self.in_flight.get() + 1);
    }

    /// Uncounts it.
    pub(crate) fn end(&self) {
        self.count(self.in_flight.get() - 1);
    }

    /// Whether nothing new is taken.
    pub(crate) fn is_draining(&self) -> bool {
        self.desk.is_draining.load(Relaxed)
    }

    fn count(&self, in_flight: u32) {
        self.in_flight.set(in_flight);
        // One writer: a store, not an addition.
        self.desk.in_flight.store(in_flight, Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.in_flight.get() == 0 && self.watches.len() == 0
    }
}

/// Runs a worker on this thread until it is told to end, or has drained.
pub(super) fn run(index: u8, shared: Arc<Shared>, listeners: Vec<(StdListener, Speech)>) -> io::Result<()> {
    let runtime: LocalRuntime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(Duration::from_secs(5))
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Worker::new(index, shared);
        for (listener, speech) in listeners {
            let listener = TcpListener::from_std(listener)?;
            spawn_local(accept(Rc::clone(&worker), listener, speech));
        }
        spawn_local(serve_lines(Rc::clone(&worker)));
        beat(&worker).await;
        Ok(())
    })
}

/// The worker's pulse: timers, sweeps, and its end.
async fn beat(worker: &Rc<Worker>) {
    let desk = &worker.desk;
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut last_sweep = Instant::now();
    loop {
        interval.tick().await;
        let now = Instant::now();
        worker.clock.tick(now);
        worker.linger.sweep(worker.clock.now_ms());
        desk.beat_ms.store(worker.clock.now_ms(), Relaxed);
        desk.connections.store(u32::try_from(worker.watches.len()).unwrap_or(u32::MAX), Relaxed);
        if now.duration_since(last_sweep) >= SWEEP {
            last_sweep = now;
            worker.watches.sweep(worker.clock.now_ms());
            worker.upstream.sweep();
            worker.router.borrow_mut().refresh(worker);
        }
        if desk.is_draining.load(Relaxed) {
            worker.watches.finish(worker.clock.now_ms());
            if worker.is_idle() {
                return;
            }
        }
        if desk.is_ended.load(Relaxed) {
            return;
        }
    }
}

/// Hands permits to those who wait, whenever some may be free.
async fn serve_lines(worker: Rc<Worker>) {
    loop {
        worker.desk.bell.notified().await;
        worker.lines.serve();
    }
}

/// Accepts connections until draining; then those that already wait, and closes.
async fn accept(worker: Rc<Worker>, listener: TcpListener, speech: Speech) {
    loop {
        let told = worker.desk.told.notified();
        if worker.is_draining() {
            break;
        }
        if worker.watches.len() >= worker.shared.clients_max {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        tokio::select! {
            biased;
            () = told => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    spawn_local(connection::serve(Rc::clone(&worker), stream, peer, speech.clone()));
                    // One at a time, behind whatever is ready: who was accepted first is served first. Accepting all
                    // that wait would carry a burst of clients through in step, each as slow as the last of them.
                    tokio::task::yield_now().await;
                }
                // The client left the queue again, or files have run out: the next accept tells.
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting pauses");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Closing a listener resets whoever waits in its queue: take them first.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let Ok(()) = stream.set_nonblocking(true) else { continue };
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
        spawn_local(connection::serve(Rc::clone(&worker), stream, peer, speech.clone()));
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionRefused | K::ConnectionAborted | K::ConnectionReset)
}

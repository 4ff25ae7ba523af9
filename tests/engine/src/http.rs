//! The engine behind HTTP: the APIs real engines offer, scripted faults, and a log of what was received.
//!
//! [`Engine::start`] binds a port and serves on the runtime it is called on; the [`EngineHandle`] scripts it, watches it
//! and ends it when dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod answer;
mod body;
mod driver;
mod fault;
mod generate;
mod log;
mod metrics;
mod multipart;
mod prompt;
mod render;
mod score;
mod server;
mod wire;

pub use fault::{Accept, FAULT_HEADER, Fault, UnknownFault};
pub use log::{Counts, Outcome, Received};
pub use metrics::{MetricsPage, Signals};
pub use prompt::{Tokenized, tokenize};

use crate::core::{Core, CoreConfig, Load, Totals};
use driver::Simulator;
use wire::lock;

/// How an engine answers. Every field has a default that suits a test.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Default 127.0.0.1, any port.
    pub listen: SocketAddr,
    /// What it calls itself, in `x-engine` and `system_fingerprint`. Default: its address.
    pub name: Option<String>,
    /// Names it serves; the first is the base of adapters. Never empty. Default `["m"]`.
    pub models: Vec<String>,
    /// LoRA adapters loaded at the start.
    pub adapters: Vec<String>,
    /// Whether other models get 404. Default true.
    pub check_model: bool,
    /// Tokens of prompt and output together. Default 131,072.
    pub max_model_len: u32,
    /// What computing costs. Default [`Mode::Flat`] without any wait.
    pub mode: Mode,
    /// Bytes of prompt text that count as one token; may be a fraction. Default 4.
    pub bytes_per_token: f64,
    /// Tokens generated when the request has no limit. Default 16.
    pub output_tokens: u32,
    /// Close connections idle for so long, at the instant, as uvicorn does (5 s). Default: never.
    pub keep_alive: Option<Duration>,
    /// Names on the metrics page.
    pub metrics: MetricsPage,
    /// Demand `Authorization: Bearer` with this key under `/v1`.
    pub api_key: Option<String>,
    /// What `/version` says. Default `0.32.0-simulated`.
    pub version: String,
    /// Requests, and as many probes, kept in the log; zero keeps none (for benchmarks). Default 10,000.
    pub log_max: usize,
    /// Body bytes kept of each. Default 1 MiB.
    pub log_body_bytes_max: usize,
    /// Whether the log holds the time of every chunk sent. Default false.
    pub log_chunk_times: bool,
    /// Larger bodies get 413. Default 64 MiB.
    pub body_bytes_max: usize,
}

/// What computing costs.
#[derive(Debug, Clone)]
pub enum Mode {
    /// No simulation: the first token after `first`, each later one after `interval`. Zero sends all at once.
    Flat {
        /// Before the first token.
        first: Duration,
        /// Before each later one.
        interval: Duration,
    },
    /// A [`Core`] in real time.
    Simulated(CoreConfig),
    /// The same bytes for every generating request, which is not even parsed: the cheapest peer for a benchmark.
    Canned(Canned),
}

/// What [`Mode::Canned`] sends.
#[derive(Debug, Clone)]
pub struct Canned {
    /// The answer to a request that does not stream.
    pub reply: Bytes,
    /// One event of a stream, with its blank line.
    pub chunk: Bytes,
    /// How many of them; `data: [DONE]` follows.
    pub chunks: u32,
    /// Before each but the first.
    pub interval: Duration,
}

impl Default for Canned {
    fn default() -> Self {
        let reply = r#"{"id":"chatcmpl-0","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"the gate opens"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11}}"#;
        let chunk = "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"gate \"},\"finish_reason\":null}]}\n\n";
        Self {
            reply: Bytes::from_static(reply.as_bytes()),
            chunk: Bytes::from_static(chunk.as_bytes()),
            chunks: 16,
            interval: Duration::ZERO,
        }
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self::Flat { first: Duration::ZERO, interval: Duration::ZERO }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: None,
            models: vec!["m".to_owned()],
            adapters: Vec::new(),
            check_model: true,
            max_model_len: 131_072,
            mode: Mode::default(),
            bytes_per_token: 4.0,
            output_tokens: 16,
            keep_alive: None,
            metrics: MetricsPage::default(),
            api_key: None,
            version: "0.32.0-simulated".to_owned(),
            log_max: 10_000,
            log_body_bytes_max: 1 << 20,
            log_chunk_times: false,
            body_bytes_max: 64 << 20,
        }
    }
}

impl Config {
    /// The default, serving `model`.
    pub fn model(model: &str) -> Self {
        Self { models: vec![model.to_owned()], ..Self::default() }
    }

    /// The same, with a simulated core.
    pub fn simulated(mut self, core: CoreConfig) -> Self {
        self.mode = Mode::Simulated(core);
        self
    }

    /// The same, with so long before the first token and between tokens.
    pub fn paced(mut self, first: Duration, interval: Duration) -> Self {
        self.mode = Mode::Flat { first, interval };
        self
    }
}

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Binds and serves on the current runtime until the handle is dropped.
    ///
    /// # Errors
    /// When the address cannot be bound.
    ///
    /// # Panics
    /// When `config.models` is empty, or outside a runtime.
    pub async fn start(config: Config) -> std::io::Result<EngineHandle> {
        assert!(!config.models.is_empty(), "an engine serves at least one model");
        let (listener, reservation) = server::bind(config.listen)?;
        let addr = reservation.local_addr()?;
        let simulator = match &config.mode {
            Mode::Simulated(core) => Some(Simulator::new(Core::new(core.clone()))),
            _ => None,
        };
        let shared = Arc::new(Shared {
            name: config.name.clone().unwrap_or_else(|| addr.to_string()),
            addr,
            started: Instant::now(),
            created: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            counts: watch::Sender::new(Counts::default()),
            log: Mutex::default(),
            script: Mutex::default(),
            scripted: AtomicBool::new(false),
            accept: watch::Sender::new(Accept::Serve),
            accepting: watch::Sender::new(Accept::Serve),
            close: watch::Sender::new(0),
            adapters: Mutex::new(config.adapters.clone()),
            sleeping: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
            metrics: Mutex::new(config.metrics.clone()),
            signals: Mutex::new(None),
            next_id: AtomicU64::new(0),
            simulator,
            config,
        });
        let mut tasks = vec![tokio::spawn(server::listen(shared.clone(), listener, reservation))];
        if let Some(simulator) = &shared.simulator {
            tasks.push(tokio::spawn(Simulator::drive(Arc::downgrade(simulator))));
        }
        Ok(EngineHandle { shared, tasks })
    }
}

/// Everything the tasks of one engine share.
#[derive(Debug)]
struct Shared {
    config: Config,
    name: String,
    addr: SocketAddr,
    started: Instant,
    /// Unix seconds.
    created: u64,
    counts: watch::Sender<Counts>,
    log: Mutex<log::Log>,
    script: Mutex<fault::Script>,
    /// Whether the script has anything: spares the lock.
    scripted: AtomicBool,
    /// What is asked of the listener, and what it does.
    accept: watch::Sender<Accept>,
    accepting: watch::Sender<Accept>,
    /// Raised to close all connections that are open then.
    close: watch::Sender<u64>,
    adapters: Mutex<Vec<String>>,
    sleeping: AtomicBool,
    healthy: AtomicBool,
    metrics: Mutex<MetricsPage>,
    signals: Mutex<Option<Signals>>,
    next_id: AtomicU64,
    simulator: Option<Arc<Simulator>>,
}

impl Shared {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn block_tokens(&self) -> u32 {
        match &self.config.mode {
            Mode::Simulated(core) => core.block_tokens,
            _ => CoreConfig::default().block_tokens,
        }
    }
}

/// A running engine. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl EngineHandle {
    /// Where it listens; stays the same while it refuses connections.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// `http://` and the address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The zero of all times in the log.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// Adds faults for the next requests, one each, before the standing fault.
    pub fn push_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.change_script(|script| script.queue.extend(faults));
    }

    /// The fault of every request that has none of its own; `None` ends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.change_script(|script| script.standing = fault);
    }

    /// The fault of every probe (`/metrics`, `/v1/models`, `/health`, …); `None` ends it.
    pub fn set_probe_fault(&self, fault: Option<Fault>) {
        self.change_script(|script| script.probes = fault);
    }

    /// No faults any more.
    pub fn clear_faults(&self) {
        self.change_script(|script| *script = fault::Script::default());
    }

    /// Changes what happens to new connections; returns when it does. `Refuse` leaves open connections alone, see
    /// [`EngineHandle::close_connections`].
    pub async fn set_accept(&self, accept: Accept) {
        let mut accepting = self.shared.accepting.subscribe();
        self.shared.accept.send_replace(accept);
        // The sender is ours, so it cannot be gone.
        let _ = accepting.wait_for(|now| *now == accept).await;
    }

    /// Closes all open connections at once, whatever they carry; returns when they are closed. What they carried counts
    /// as aborted.
    pub async fn close_connections(&self) {
        server::close_all(&self.shared).await;
    }

    /// As a crash and a cold start would: refuses and closes everything, and forgets all prefixes. Serve again with
    /// `set_accept(Accept::Serve)`.
    pub async fn crash(&self) {
        self.set_accept(Accept::Refuse).await;
        server::close_all(&self.shared).await;
        if let Some(simulator) = &self.shared.simulator {
            simulator.reset_prefix_cache();
        }
    }

    /// What `/health` says.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::Relaxed);
    }

    /// What `/is_sleeping` says; a sleeping engine answers 503.
    pub fn set_sleeping(&self, sleeping: bool) {
        self.shared.sleeping.store(sleeping, Ordering::Relaxed);
    }

    /// Whether it sleeps.
    pub fn is_sleeping(&self) -> bool {
        self.shared.sleeping.load(Ordering::Relaxed)
    }

    /// Replaces the loaded adapters.
    pub fn set_adapters(&self, adapters: impl IntoIterator<Item = String>) {
        *lock(&self.shared.adapters) = adapters.into_iter().collect();
    }

    /// Replaces the metrics page.
    pub fn set_metrics(&self, page: MetricsPage) {
        *lock(&self.shared.metrics) = page;
    }

    /// Reports these numbers instead of the true ones; `None` tells the truth again.
    pub fn set_signals(&self, signals: Option<Signals>) {
        *lock(&self.shared.signals) = signals;
    }

    /// The last requests, oldest first, probes not among them.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.shared.log).requests.iter().cloned().collect()
    }

    /// The last request.
    pub fn last_request(&self) -> Option<Received> {
        lock(&self.shared.log).requests.back().cloned()
    }

    /// The last probes, oldest first.
    pub fn probes(&self) -> Vec<Received> {
        lock(&self.shared.log).probes.iter().cloned().collect()
    }

    /// Empties the log; counts go on.
    pub fn clear_log(&self) {
        let mut log = lock(&self.shared.log);
        log.requests.clear();
        log.probes.clear();
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// A receiver that sees every later change of the counts.
    pub fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }

    /// Waits until the counts are as wanted and returns them. Waits for ever if they never are: give the test a timeout.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        // The sender is ours, so it cannot be gone.
        let counts = counts.wait_for(wanted).await.map(|counts| *counts);
        counts.unwrap_or_else(|_| self.counts())
    }

    /// Waits until `n` requests in all have been received.
    pub async fn received(&self, n: u64) -> Counts {
        self.until(|counts| counts.received >= n).await
    }

    /// Waits until `n` requests in all have been aborted.
    pub async fn aborted(&self, n: u64) -> Counts {
        self.until(|counts| counts.aborted >= n).await
    }

    /// Waits until `n` requests in all have been answered to the end.
    pub async fn finished(&self, n: u64) -> Counts {
        self.until(|counts| counts.finished >= n).await
    }

    /// Waits until nothing is in flight.
    pub async fn idle(&self) -> Counts {
        self.until(|counts| counts.in_flight == 0).await
    }

    /// What the simulated core carries now; zeros without one.
    pub fn load(&self) -> Load {
        self.shared.simulator.as_ref().map(|simulator| simulator.load()).unwrap_or_default()
    }

    /// The simulated core's totals; zeros without one.
    pub fn totals(&self) -> Totals {
        self.shared.simulator.as_ref().map(|simulator| simulator.totals()).unwrap_or_default()
    }

    fn change_script(&self, change: impl FnOnce(&mut fault::Script)) {
        let mut script = lock(&self.shared.script);
        change(&mut script);
        self.shared.scripted.store(!script.is_empty(), Ordering::Release);
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;

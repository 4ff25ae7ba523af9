//! The engine behind HTTP: the APIs real engines offer, scripted faults, and a log of what was received.
//!
//! [`Engine::start`] binds a port and serves on the runtime it is called on; the [`EngineHandle`] scripts it, watches it
//! and ends it when dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;

mod answer;
mod body;
mod driver;
mod fault;
mod generate;
mod handle;
mod log;
mod metrics;
mod multipart;
mod prompt;
mod render;
mod score;
mod server;
mod tls;
mod wire;

pub use fault::{Accept, FAULT_HEADER, Fault, UnknownFault};
pub use handle::EngineHandle;
pub use log::{Counts, Outcome, Received};
pub use metrics::{MetricsPage, Signals};
pub use prompt::{Tokenized, tokenize};
pub use tls::Tls;

use crate::core::{Core, CoreConfig};
use driver::Simulator;

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
    /// Close connections idle for so long after an answer, at the instant, as uvicorn does (5 s). Default: never.
    pub keep_alive: Option<Duration>,
    /// Names on the metrics page.
    pub metrics: MetricsPage,
    /// Demand `Authorization: Bearer` with this key under `/v1`.
    pub api_key: Option<String>,
    /// Speak TLS with this certificate. Default: plain.
    pub tls: Option<Tls>,
    /// What `/version` says. Default `0.32.0-simulated`.
    pub version: String,
    /// Requests, and as many probes, kept in the log; zero keeps none (for benchmarks). Default 10,000.
    /// Whatever this says, the oldest are forgotten when their bodies are more than 64 MiB together.
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
            tls: None,
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
    /// When the address cannot be bound, or the certificate and its key are none.
    ///
    /// # Panics
    /// When `config.models` is empty, or outside a runtime.
    pub async fn start(config: Config) -> std::io::Result<EngineHandle> {
        assert!(!config.models.is_empty(), "an engine serves at least one model");
        let tls = config.tls.as_ref().map(Tls::acceptor).transpose()?;
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
            tls,
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
    tls: Option<tls::Acceptor>,
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

#[cfg(test)]
mod tests;

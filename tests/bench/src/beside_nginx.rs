//! The whole gateway beside nginx (and haproxy, if installed), in one run.
//!
//! Each proxy is alone on core 0; the clients and the mock engines share core 1. Rounds alternate between the proxies, because
//! the same machine gives the same program different numbers from minute to minute: what counts are the ratios of neighbours.

pub(crate) mod load;
pub(crate) mod mock;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod prompts;
pub(crate) mod spread;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use load::{Closed, Streams};
use peers::{AccessLog, CHAIN, GatewayOptions, Peer};
use prompts::{Prompts, Shape};
use spread::{Bar, Spread, quantile, say};

/// The proxies' core.
const PROXY_CORE: usize = 0;
/// The core of clients and engines.
const LOAD_CORE: usize = 1;
/// Engines behind each proxy.
pub(crate) const ENGINES: usize = 64;
/// Clients of a closed loop.
const CONNECTIONS: usize = 64;
/// Streams at a time.
const STREAMS: usize = 512;
/// Time over which they start.
const RAMP: Duration = Duration::from_secs(1);
/// Chunks of a stream: it lasts 4 s.
const CHUNKS: usize = 80;
/// Time between the last stream's start and the first one's end in which chunks are counted.
const STREAM_WINDOW: Duration = Duration::from_millis(2_600);

/// How tables call another build of the gateway.
const OTHER: &str = "other build";

/// `bench macro`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MacroArgs {
    /// The gateway's binary; docs/benchmarks.md has figures of target/dist/wicketgate
    #[arg(long, value_name = "FILE", default_value = "target/release/wicketgate")]
    gateway: PathBuf,
    /// Another build of the gateway, measured in the same rounds in haproxy's place
    #[arg(long, value_name = "FILE")]
    other: Option<PathBuf>,
    /// Rounds per proxy and case
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Time measured per round and case, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_500)]
    window_ms: u64,
    /// Requests per second in the cases of whole answers, the same for every proxy; by default as many as each can answer
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Only these cases: 1k, 16k, 128k, streams, log
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
    /// Lines of the gateway's `spec` that name its policies
    #[arg(long, value_name = "YAML", default_value = CHAIN)]
    chain: String,
    /// One more flag of the gateway, as --gateway-flag=--engine-scrape-interval=1h; may be given again
    #[arg(long, value_name = "FLAG")]
    gateway_flag: Vec<String>,
    /// Print the processes' ids and keep measuring the gateway alone, for a profiler
    #[arg(long)]
    profile: bool,
}

/// Runs it. Returns whether every bar was reached.
pub(crate) fn run(args: &MacroArgs) -> anyhow::Result<bool> {
    process::pin_self(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &MacroArgs) -> anyhow::Result<bool> {
    let engines = mock::start(ENGINES).await?;
    let mut bars = Vec::new();
    let mut rows = Rows::default();
    {
        let peers = start(args, &engines, AccessLog::Off).await?;
        for peer in &peers {
            say(format_args!("{}: {}", peer.name, peer.version));
        }
        for case in CASES.iter().filter(|case| args.wants(case.name)) {
            let rounds = case.rounds(args, &peers).await?;
            rows.cpu(case.title, &rounds);
            bars.extend(case.bar(&rounds));
        }
        if args.wants("streams") {
            let rounds = stream_rounds(args, &peers).await?;
            rows.cpu("SSE chunk, 512 streams", &rounds.cpu);
            bars.push(bar("CPU per SSE chunk at 512 streams, × nginx", 1.1, &ratios(&rounds.cpu)));
            rows.first_chunk(&rounds);
            bars.push(bar(
                "p99 time to first chunk while 512 streams start, × nginx",
                2.0,
                &ratios(&rounds.p99),
            ));
        }
        rows.memory(&peers);
    }
    if args.wants("log") {
        let peers = start(args, &engines, AccessLog::On).await?;
        let rounds = CASES[0].rounds(args, &peers).await?;
        rows.cpu("1 KiB prompt, request log on", &rounds);
    }
    rows.print(args.third());
    Ok(spread::print_bars(&bars))
}

impl MacroArgs {
    /// Who is measured besides the gateway and nginx.
    fn third(&self) -> &'static str {
        if self.other.is_some() { OTHER } else { "haproxy" }
    }

    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == case)
    }
}

/// The gateway first, then nginx, then whoever else is measured.
async fn start(
    args: &MacroArgs,
    engines: &[std::net::SocketAddr],
    log: AccessLog,
) -> anyhow::Result<Vec<Peer>> {
    let mut flags = args.gateway_flag.clone();
    if log == AccessLog::On {
        flags.push("--request-log".into());
    }
    let mut options = GatewayOptions {
        binary: args.gateway.clone(),
        manifest: peers::manifest(engines, &args.chain),
        policies: Vec::new(),
        workers: 1,
        core: Some(PROXY_CORE),
        flags,
    };
    let mut all = vec![peers::gateway(&options).await?];
    if args.profile {
        say(format_args!("gateway: process {:?}", all[0].process.pids()));
        return Ok(all);
    }
    all.push(peers::nginx(engines, PROXY_CORE, log).await?);
    if let Some(other) = &args.other {
        options.binary = other.clone();
        all.push(Peer { name: OTHER, ..peers::gateway(&options).await? });
    } else if log == AccessLog::Off {
        all.extend(peers::haproxy(engines, PROXY_CORE).await?);
    }
    Ok(all)
}

/// A closed loop of whole answers.
#[derive(Debug)]
struct Case {
    name: &'static str,
    title: &'static str,
    shape: Shape,
    /// The most that the gateway may cost, in nginx.
    most: Option<f64>,
}

const CASES: [Case; 3] = [
    Case { name: "1k", title: "1 KiB prompt", shape: Shape::conversation(1 << 10, 4_096), most: Some(1.25) },
    Case { name: "16k", title: "16 KiB prompt", shape: Shape::conversation(16 << 10, 1_024), most: None },
    Case {
        name: "128k",
        title: "128 KiB prompt",
        shape: Shape::conversation(128 << 10, 256),
        most: Some(1.0),
    },
];

impl Case {
    /// CPU-µs per request, `[peer][repeat]`.
    async fn rounds(&self, args: &MacroArgs, peers: &[Peer]) -> anyhow::Result<Vec<Vec<f64>>> {
        let prompts = Arc::new(Prompts::render(self.shape));
        let mut rounds = vec![Vec::new(); peers.len()];
        // The first round warms pools, indices and caches; it does not count.
        for round in 0..=args.repeats {
            for (peer, values) in peers.iter().zip(&mut rounds) {
                let micros = self.round(args, peer, &prompts).await?;
                if round > 0 {
                    values.push(micros);
                }
            }
        }
        Ok(rounds)
    }

    async fn round(&self, args: &MacroArgs, peer: &Peer, prompts: &Arc<Prompts>) -> anyhow::Result<f64> {
        let load = match args.rate {
            Some(rate) => Closed::at_rate(peer.address, prompts, CONNECTIONS, rate),
            None => Closed::start(peer.address, prompts, CONNECTIONS),
        };
        let settle = Duration::from_millis(300);
        tokio::time::sleep(settle).await;
        let before = (peer.process.cpu_micros(), load.tally.answered.load(Relaxed));
        tokio::time::sleep(Duration::from_millis(args.window_ms)).await;
        let after = (peer.process.cpu_micros(), load.tally.answered.load(Relaxed));
        let tally = Arc::clone(&load.tally);
        load.finish().await;
        let failed = tally.failed.load(Relaxed);
        anyhow::ensure!(failed == 0, "{}: {failed} requests failed ({})", peer.name, self.title);
        let answered = (after.1 - before.1) as f64;
        anyhow::ensure!(answered > 0.0, "{}: nothing was answered ({})", peer.name, self.title);
        Ok((after.0 - before.0) / answered)
    }

    fn bar(&self, rounds: &[Vec<f64>]) -> Option<Bar> {
        Some(bar(&format!("CPU per request, {}, × nginx", self.title), self.most?, &ratios(rounds)))
    }
}

/// What the rounds of streams gave, each `[peer][repeat]`.
#[derive(Debug, Default)]
struct StreamRounds {
    /// CPU-µs per chunk.
    cpu: Vec<Vec<f64>>,
    /// Median time to the first chunk, µs.
    p50: Vec<Vec<f64>>,
    /// 99th percentile of it, µs.
    p99: Vec<Vec<f64>>,
}

async fn stream_rounds(args: &MacroArgs, peers: &[Peer]) -> anyhow::Result<StreamRounds> {
    let shape = Shape { chunks: Some(CHUNKS), ..Shape::conversation(1 << 10, 4_096) };
    let prompts = Arc::new(Prompts::render(shape));
    let empty = || vec![Vec::new(); peers.len()];
    let mut rounds = StreamRounds { cpu: empty(), p50: empty(), p99: empty() };
    // The first round does not count, as with whole answers: whoever is first would pay for what the clients and engines do once.
    for round in 0..=args.repeats {
        for (index, peer) in peers.iter().enumerate() {
            let mut streams = Streams::start(peer.address, &prompts, STREAMS, RAMP);
            tokio::time::sleep(RAMP + Duration::from_millis(200)).await;
            let (start, cpu) = (Instant::now(), peer.process.cpu_micros());
            let chunks = streams.tally.chunks.load(Relaxed);
            tokio::time::sleep(STREAM_WINDOW.saturating_sub(start.elapsed())).await;
            let cpu = peer.process.cpu_micros() - cpu;
            let chunks = streams.tally.chunks.load(Relaxed) - chunks;
            streams.finish().await;
            let failed = streams.tally.failed.load(Relaxed);
            anyhow::ensure!(failed == 0, "{}: {failed} streams failed", peer.name);
            if round == 0 {
                continue;
            }
            let mut first = streams.first_chunk.lock().unwrap_or_else(PoisonError::into_inner).clone();
            first.sort_by(f64::total_cmp);
            rounds.cpu[index].push(cpu / chunks as f64);
            rounds.p50[index].push(quantile(&first, 0.5));
            rounds.p99[index].push(quantile(&first, 0.99));
        }
    }
    Ok(rounds)
}

/// Gateway ÷ nginx, round by round.
fn ratios(rounds: &[Vec<f64>]) -> Spread {
    let [gateway, nginx, ..] = rounds else { return Spread::default() };
    gateway.iter().zip(nginx).map(|(gateway, nginx)| gateway / nginx).collect()
}

fn bar(what: &str, most: f64, got: &Spread) -> Bar {
    Bar { what: what.to_owned(), most, got: got.median(), unit: "" }
}

/// The report.
#[derive(Debug, Default)]
struct Rows(Vec<String>);

impl Rows {
    fn cpu(&mut self, title: &str, rounds: &[Vec<f64>]) {
        self.row(&format!("{title}: CPU, µs"), rounds);
    }

    fn first_chunk(&mut self, rounds: &StreamRounds) {
        self.row("time to first chunk, p50, µs", &rounds.p50);
        self.row("time to first chunk, p99, µs", &rounds.p99);
    }

    fn row(&mut self, title: &str, rounds: &[Vec<f64>]) {
        // In the order in which they were started.
        let of = |peer: usize| -> Spread { rounds.get(peer).into_iter().flatten().copied().collect() };
        let line = format!("| {title} | {} | {} | {} | {} |", of(0), of(1), of(2), ratios(rounds));
        say(format_args!("{line}"));
        self.0.push(line);
    }

    fn memory(&mut self, peers: &[Peer]) {
        let of: Vec<Vec<f64>> = peers
            .iter()
            .map(|peer| vec![peer.process.resident_bytes() as f64 / f64::from(1 << 20)])
            .collect();
        self.row("RSS after all that, MiB", &of);
    }

    fn print(&self, third: &str) {
        say(format_args!(
            "\nmin–**median**–max of the rounds\n\n| what | gateway | nginx | {third} | gateway ÷ nginx |\n\
             | --- | --- | --- | --- | --- |"
        ));
        for line in &self.0 {
            say(format_args!("{line}"));
        }
    }
}

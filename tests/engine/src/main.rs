//! Simulated engines to play with: over HTTP, or under a router in virtual time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};

use engine::core::CoreConfig;
use engine::fleet::{self, FleetConfig, Report, router_by_name};
use engine::http::{Canned, Config, Engine, EngineHandle, Fault, MetricsPage, Mode};
use engine::workload::{self, Mooncake, Shape, Workload};

#[derive(Parser)]
#[command(about = "A simulated inference engine.", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the OpenAI API (the default).
    Serve(Serve),
    /// Run a workload over a fleet in virtual time and print what each router made of it.
    Simulate(Simulate),
}

#[derive(Args)]
struct Serve {
    /// Where the first engine listens.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// How many engines, on consecutive ports.
    #[arg(long, default_value_t = 1)]
    count: u16,
    /// A name the engine serves; repeat for more.
    #[arg(long, default_value = "m")]
    model: Vec<String>,
    /// A LoRA adapter it has loaded; repeat for more.
    #[arg(long)]
    adapter: Vec<String>,
    /// Answer at once instead of simulating.
    #[arg(long)]
    flat: bool,
    /// Answer everyone with the same bytes, unread: the cheapest peer for a benchmark.
    #[arg(long, conflicts_with = "flat")]
    canned: bool,
    /// With --canned: chunks of a stream.
    #[arg(long, default_value_t = 16)]
    chunks: u32,
    /// With --flat or --canned: milliseconds between tokens or chunks.
    #[arg(long, default_value_t = 0)]
    interval_ms: u64,
    /// A fault for every request, as in the x-engine-fault header: hang, close, cut=100, status=503, …
    #[arg(long)]
    fault: Option<Fault>,
    /// Names on the metrics page: vllm, vllm-old, sglang, llama-cpp, tensorrt, absent.
    #[arg(long, default_value = "vllm", value_parser = metrics_page)]
    metrics: MetricsPage,
    /// Demand this key.
    #[arg(long)]
    api_key: Option<String>,
    /// Close connections idle for so many seconds; uvicorn has 5.
    #[arg(long)]
    keep_alive_s: Option<f64>,
    #[command(flatten)]
    core: CoreArgs,
}

#[derive(Args)]
struct CoreArgs {
    /// Tokens the KV cache holds.
    #[arg(long, default_value_t = 262_144)]
    kv_tokens: u64,
    /// Tokens of one block.
    #[arg(long, default_value_t = 16)]
    block_tokens: u32,
    /// Sequences in one batch.
    #[arg(long, default_value_t = 128)]
    running_max: usize,
    /// Prompt tokens per second.
    #[arg(long, default_value_t = 8_000.0)]
    prefill_tokens_per_second: f64,
    /// Milliseconds of a step.
    #[arg(long, default_value_t = 20.0)]
    step_ms: f64,
}

impl CoreArgs {
    fn config(&self) -> CoreConfig {
        CoreConfig {
            running_max: self.running_max,
            prefill_tokens_per_second: self.prefill_tokens_per_second,
            step_base: Duration::from_secs_f64(self.step_ms.max(0.0) / 1e3),
            ..CoreConfig::default()
        }
        .with_kv_tokens(self.kv_tokens, self.block_tokens)
    }
}

#[derive(Args)]
struct Simulate {
    /// chats, shared-system, tenants, agentic, mooncake, or a trace file in Mooncake's format.
    #[arg(long, default_value = "chats")]
    workload: String,
    /// Requests; of a trace, the first so many (all by default).
    #[arg(long)]
    requests: Option<usize>,
    #[arg(long, default_value_t = 8)]
    engines: usize,
    /// Share of what the fleet can sustain; a trace keeps its own rate unless given.
    #[arg(long)]
    utilisation: Option<f64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this router; repeat for more. Default: all.
    #[arg(long)]
    router: Vec<String>,
    #[command(flatten)]
    core: CoreArgs,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(&args))
        }
        Command::Simulate(args) => simulate(&args),
    }
}

async fn serve(args: &Serve) -> anyhow::Result<()> {
    let mut engines: Vec<EngineHandle> = Vec::new();
    for n in 0..args.count {
        let mut listen = args.listen;
        if listen.port() != 0 {
            listen.set_port(listen.port().checked_add(n).context("no port left")?);
        }
        let config = Config {
            listen,
            models: args.model.clone(),
            adapters: args.adapter.clone(),
            metrics: args.metrics.clone(),
            api_key: args.api_key.clone(),
            keep_alive: args.keep_alive_s.map(Duration::from_secs_f64),
            ..Config::default()
        };
        let interval = Duration::from_millis(args.interval_ms);
        let config = if args.canned {
            let canned = Canned { chunks: args.chunks, interval, ..Canned::default() };
            Config { mode: Mode::Canned(canned), log_max: 0, ..config }
        } else if args.flat {
            config.paced(interval, interval)
        } else {
            config.simulated(args.core.config())
        };
        let engine = Engine::start(config).await.with_context(|| format!("cannot listen on {listen}"))?;
        engine.set_fault(args.fault.clone());
        say(&format!("engine {} serves {}", engine.url(), args.model.join(", ")));
        engines.push(engine);
    }
    tokio::signal::ctrl_c().await?;
    for engine in &engines {
        say(&format!("engine {}: {:?}", engine.url(), engine.counts()));
    }
    Ok(())
}

fn simulate(args: &Simulate) -> anyhow::Result<()> {
    let fleet = FleetConfig { engines: args.engines, core: args.core.config(), ..FleetConfig::default() };
    let workload = build(args, &fleet)?;
    say(&format!(
        "{}: {} requests in {:.0?}, {:.1} M prompt tokens ({:.1} % shared at best), {:.2} M output tokens, {} engines",
        workload.name,
        workload.requests.len(),
        workload.span(),
        workload.prompt_tokens() as f64 / 1e6,
        100.0 * workload.hit_rate_max(),
        workload.output_tokens() as f64 / 1e6,
        fleet.engines,
    ));
    say("router           cached  work max/mean  busy  ttft p50     p99    mean  latency p50     p99");
    let all = fleet::router_names().map(str::to_owned);
    let names = if args.router.is_empty() { all.as_slice() } else { &args.router };
    for name in names {
        let mut router = router_by_name(name).with_context(|| format!("no router `{name}`"))?;
        say(&row(name, &fleet::run(&workload, &fleet, &mut *router)));
    }
    Ok(())
}

fn row(name: &str, report: &Report) -> String {
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    format!(
        "{name:<16} {:>6.3}  {:>13.2}  {:>4.2}  {:>8}  {:>6}  {:>6}  {:>11}  {:>6}",
        report.hit_rate(),
        report.work_max_over_mean(),
        report.busy(),
        seconds(report.ttft_p50),
        seconds(report.ttft_p99),
        seconds(report.ttft_mean),
        seconds(report.latency_p50),
        seconds(report.latency_p99),
    )
}

/// The workload asked for, at the rate that gives the utilisation asked for.
fn build(args: &Simulate, fleet: &FleetConfig) -> anyhow::Result<Workload> {
    let requests = args.requests.unwrap_or(1_000 * args.engines);
    let shape = |requests_per_second| Shape { requests, requests_per_second, seed: args.seed };
    let make: Box<dyn Fn(f64) -> Workload> = match args.workload.as_str() {
        "chats" => Box::new(|rate| workload::chats(shape(rate))),
        "shared-system" => Box::new(|rate| workload::shared_system(shape(rate))),
        "tenants" => Box::new(|rate| workload::tenants(shape(rate))),
        "agentic" => Box::new(|rate| workload::agentic(shape(rate))),
        "mooncake" => Box::new(|requests_per_second| {
            workload::mooncake(Mooncake { requests, requests_per_second, seed: args.seed })
        }),
        path => {
            let trace =
                workload::read_trace(&PathBuf::from(path))?.first(args.requests.unwrap_or(usize::MAX));
            if trace.requests.is_empty() {
                bail!("the trace is empty");
            }
            let own = trace.requests.len() as f64 / trace.span().as_secs_f64().max(1e-9);
            let Some(utilisation) = args.utilisation else { return Ok(trace) };
            let capacity = fleet::capacity(&trace, fleet, &mut fleet::Oracle);
            return Ok(trace.sped_up(utilisation * capacity / own));
        }
    };
    let utilisation = args.utilisation.unwrap_or(0.7);
    let first = make(args.engines as f64);
    let rate = utilisation * fleet::capacity(&first, fleet, &mut fleet::Oracle);
    // Once more at about the right rate: how much is cached depends on it.
    Ok(make(utilisation * fleet::capacity(&make(rate), fleet, &mut fleet::Oracle)))
}

fn metrics_page(name: &str) -> Result<MetricsPage, String> {
    Ok(match name {
        "vllm" => MetricsPage::Vllm,
        "vllm-old" => MetricsPage::VllmOld,
        "sglang" => MetricsPage::Sglang,
        "llama-cpp" => MetricsPage::LlamaCpp,
        "tensorrt" => MetricsPage::TensorRt,
        "absent" => MetricsPage::Absent,
        _ => return Err(format!("no metrics page `{name}`")),
    })
}

#[expect(clippy::print_stdout, reason = "a command line tool speaks to its user")]
fn say(line: &str) {
    println!("{line}");
}

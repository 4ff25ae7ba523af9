//! The main job on real input: a conversation trace through the real gateway over simulated engines.
//!
//! Starts engines and the gateway, plays the trace in three parts, edits the gateway's manifest between them so that
//! another policy decides while requests are in flight, and prints what happened per engine and per policy.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use engine::workload::{self, Mooncake, Workload};
use harness::gateway::{Gateway, Options};

mod fleet;
mod load;
mod report;

use fleet::Fleet;
use load::Load;

/// Plays a conversation trace through the gateway and shows what its policies did.
#[derive(Debug, Parser)]
struct Args {
    /// The gateway's binary
    #[arg(long)]
    gateway: PathBuf,
    /// A trace in Mooncake's format (`.jsonl`, `.jsonl.gz`) instead of the generated one
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Requests to play
    #[arg(long, default_value_t = 2_400)]
    requests: usize,
    /// How long playing them should take, seconds
    #[arg(long, default_value_t = 75)]
    seconds: u64,
    /// Of the generated trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave everything running afterwards
    #[arg(long)]
    keep: bool,
}

/// Prompt text is this many times shorter than the trace says, so that the demo moves kilobytes and not megabytes;
/// engines count tokens as the trace does.
const TEXT_SCALE: u32 = 16;
/// Answers are this many times shorter, so that two cores can carry every event of them.
const ANSWER_SCALE: u32 = 8;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let workload = read(&args)?;
    say(format_args!(
        "trace: {} ({} requests over {:.0} s, {:.1} M prompt tokens, at most {:.1} % of blocks could hit)",
        workload.name,
        workload.requests.len(),
        workload.span().as_secs_f64(),
        workload.prompt_tokens() as f64 / 1e6,
        workload.hit_rate_max() * 100.0
    ));
    let fleet = Fleet::start(&workload, TEXT_SCALE).await?;
    let options = Options {
        binary: Some(args.gateway.clone()),
        files: fleet.manifests(),
        args: ["--answer-headers", "--workers", "1"].map(String::from).to_vec(),
        ..Options::default()
    };
    let gateway = Gateway::ready(options).await;
    say(format_args!(
        "gateway: http://{} over {} engines; manifests in {}",
        gateway.data,
        fleet.len(),
        gateway.manifests().display()
    ));

    let load = Load::new(workload, TEXT_SCALE, gateway.data);
    let results = load.play(&gateway).await;
    report::print(&results, &fleet, &gateway).await;
    let lost = results.iter().filter(|result| result.is_lost()).count();
    if args.keep {
        keep(&gateway).await?;
    }
    anyhow::ensure!(lost == 0, "requests lost: {lost}");
    say(format_args!("every request was answered whole, across both swaps."));
    Ok(())
}

fn read(args: &Args) -> anyhow::Result<Workload> {
    let whole = match &args.trace {
        Some(path) => workload::read_trace(path).with_context(|| path.display().to_string())?,
        None => {
            workload::mooncake(Mooncake { requests: args.requests, seed: args.seed, ..Mooncake::default() })
        }
    };
    let mut workload = whole.first(args.requests);
    anyhow::ensure!(!workload.requests.is_empty(), "the trace is empty");
    for request in &mut workload.requests {
        request.output_tokens = request.output_tokens.div_ceil(ANSWER_SCALE);
    }
    let factor = workload.span().as_secs_f64() / Duration::from_secs(args.seconds.max(1)).as_secs_f64();
    Ok(workload.sped_up(factor))
}

/// Prints how to use what is left running, and waits for Ctrl-C.
async fn keep(gateway: &Gateway) -> anyhow::Result<()> {
    let url = gateway.url();
    let model = fleet::CHAT_MODEL;
    say(format_args!(
        "\nStill running until Ctrl-C. Ask it something:\n\n  \
         curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{{\"model\":\"{model}\",\"max_tokens\":8,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'\n\n  \
         python3 -c 'import openai; print(openai.OpenAI(base_url=\"{url}/v1\", api_key=\"none\").chat.completions.create(model=\"{model}\", max_tokens=8, messages=[{{\"role\": \"user\", \"content\": \"Hello!\"}}]))'\n\n\
         Why did it go there?   curl http://{admin}/explain\n\
         Metrics:               curl http://{admin}/metrics\n\
         Change the policy:     edit {manifests}/gateway.yaml",
        admin = gateway.admin,
        manifests = gateway.manifests().display()
    ));
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}

/// The demo's voice: standard output, a line at a time.
#[expect(clippy::print_stdout, reason = "printing is what a demo is for")]
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

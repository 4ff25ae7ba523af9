//! Memory of the gateway: at rest, and with its prefix index full.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::beside_nginx::load::Closed;
use crate::beside_nginx::peers::{self, CHAIN, GatewayOptions, Peer};
use crate::beside_nginx::prompts::{Prompts, Shape};
use crate::beside_nginx::spread::{self, Bar, say};
use crate::beside_nginx::{ENGINES, mock};

/// What the gateway may need beside its prefix index, MiB.
const MIB_MOST: f64 = 40.0;
/// Clients that send the prompts.
const CONNECTIONS: usize = 64;

/// `bench rss`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RssArgs {
    /// The gateway's binary; docs/benchmarks.md has figures of target/dist/wicketgate
    #[arg(long, value_name = "FILE", default_value = "target/release/wicketgate")]
    gateway: PathBuf,
    /// Seconds between ready and the first look
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    rest: u64,
    /// Distinct prompts before the second look
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    prompts: u64,
    /// The gateway's `--prefix-index-bytes`
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    prefix_index_bytes: u64,
}

/// Runs it. Returns whether every bar was reached.
pub(crate) fn run(args: &RssArgs) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &RssArgs) -> anyhow::Result<bool> {
    let engines = mock::start(ENGINES).await?;
    let options = GatewayOptions {
        binary: args.gateway.clone(),
        manifest: peers::manifest(&engines, CHAIN),
        policies: Vec::new(),
        workers: 2,
        core: None,
        flags: vec!["--prefix-index-bytes".into(), args.prefix_index_bytes.to_string()],
    };
    let gateway = peers::gateway(&options).await?;
    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let at_rest = mebibytes(&gateway);
    let per_second = send(&gateway, args.prompts).await?;
    let full = mebibytes(&gateway);
    say(format_args!(
        "{ENGINES} endpoints, 2 workers: {at_rest:.1} MiB {} s after ready; {full:.1} MiB after {} distinct prompts of 1 KiB \
         ({per_second:.0} per second)",
        args.rest, args.prompts
    ));
    let index = args.prefix_index_bytes as f64 / f64::from(1 << 20);
    let bar = |what: &str, most, got| Bar { what: what.into(), most, got, unit: " MiB" };
    Ok(spread::print_bars(&[
        bar("RSS at rest, 2 workers", MIB_MOST, at_rest),
        bar("RSS with the prefix index full", index + MIB_MOST, full),
    ]))
}

/// Sends `count` prompts that have nothing in common; returns how many a second.
async fn send(gateway: &Peer, count: u64) -> anyhow::Result<f64> {
    let shape = Shape { repeated: 0.0, ..Shape::conversation(1 << 10, 8_192) };
    let start = Instant::now();
    let load = Closed::start(gateway.address, &Arc::new(Prompts::render(shape)), CONNECTIONS);
    while load.tally.answered.load(Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let failed = load.tally.failed.load(Relaxed);
        anyhow::ensure!(failed == 0, "{failed} requests failed");
    }
    let answered = load.tally.answered.load(Relaxed);
    load.finish().await;
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

fn mebibytes(gateway: &Peer) -> f64 {
    gateway.process.resident_bytes() as f64 / f64::from(1 << 20)
}

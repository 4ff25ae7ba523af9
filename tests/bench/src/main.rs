//! `bench`: the measurements that take a whole process or a whole fleet. The parts are under `benches/`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod beside_nginx;
mod routing;
mod rss;
mod swap;

/// Benchmarks of the whole; see docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything below, one after the other
    All {
        /// The gateway's binary; docs/benchmarks.md has figures of target/dist/wicketgate
        #[arg(long, value_name = "FILE", default_value = "target/release/wicketgate")]
        gateway: String,
    },
    /// CPU per request and per chunk, memory and time to first chunk, beside nginx
    Macro(beside_nginx::MacroArgs),
    /// Policy chains over simulated engines in virtual time
    Routing(routing::RoutingArgs),
    /// Memory of the gateway, at rest and with its prefix index full
    Rss(rss::RssArgs),
    /// Edits under load: how soon they are in force, and what they cost
    Swap(swap::SwapArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every bar was reached.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::All { gateway } => run_all(&gateway),
        Command::Macro(args) => beside_nginx::run(&args),
        Command::Routing(args) => routing::run(&args),
        Command::Rss(args) => rss::run(&args),
        Command::Swap(args) => swap::run(&args),
    }
}

/// Each part in a process of its own: one of them binds itself to a core.
fn run_all(gateway: &str) -> anyhow::Result<bool> {
    let mut reached = true;
    for part in [
        &["routing"][..],
        &["macro", "--gateway", gateway],
        &["rss", "--gateway", gateway],
        &["swap", "--gateway", gateway],
    ] {
        let status = std::process::Command::new(std::env::current_exe()?).args(part).status()?;
        match status.code() {
            Some(0) => {}
            Some(2) => reached = false,
            _ => anyhow::bail!("{} did not end: {status}", part[0]),
        }
    }
    Ok(reached)
}

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
    let reached = match Cli::parse().command {
        Command::Macro(args) => beside_nginx::run(&args),
        Command::Routing(args) => routing::run(&args),
        Command::Rss(args) => rss::run(&args),
        Command::Swap(args) => swap::run(&args),
    };
    match reached {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

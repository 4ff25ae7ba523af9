//! The `wicketgate` binary: arguments, wiring, admin pages, shutdown. Everything that decides lives elsewhere.

use std::process::ExitCode;

use clap::Parser;

mod admin;
mod args;
mod check;
mod crds;
mod explain;
mod pages;
mod policies;
mod probe;
mod shutdown;
mod telemetry;
mod wire;

use args::{Cli, Command};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, which count whole: 30 MiB of an idle gateway. Not every kernel can be told.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse();
    let result = match cli.command {
        None => wire::serve(&cli.serve),
        Some(Command::Serve(serve)) => wire::serve(&serve),
        Some(Command::Check(args)) => check::check(&args),
        Some(Command::Explain(args)) => explain::explain(&args),
        Some(Command::Crds(args)) => crds::print(&args),
        Some(Command::Policy(command)) => policies::run(&command),
        Some(Command::Probe(args)) => probe::probe(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say_error(format_args!("wicketgate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What a command answers, on standard output. A reader that stopped listening is no error of ours.
fn say(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Why a command failed, on standard error.
fn say_error(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

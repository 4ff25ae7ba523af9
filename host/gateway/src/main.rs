//! The `wicketgate` binary: arguments, wiring, admin pages, shutdown. Everything that decides lives elsewhere.

use std::process::ExitCode;

use clap::Parser;
use domain::redact;

mod admin;
mod args;
mod check;
mod crds;
mod explain;
mod generated;
mod notify;
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

/// Exit code where the command line says nothing that can be done.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(code) = policy::serve_compiler() {
        return code;
    }
    if std::env::args_os().len() <= 1 {
        say_error(format_args!("{}", args::short_help()));
        return ExitCode::from(USAGE);
    }
    let cli = match Cli::try_parse_from(args::go_style(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            print(&error);
            if let Some(instead) = args::instead(&error) {
                say_error(format_args!("\n{instead}"));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    if matches!(cli.command, None | Some(Command::Serve(_))) {
        without_huge_pages();
    }
    let result = match cli.command {
        None => wire::serve(&cli.serve),
        Some(Command::Serve(serve)) => wire::serve(&serve),
        Some(Command::Check(args)) => check::check(&args),
        Some(Command::Explain(args)) => explain::explain(&args),
        Some(Command::Crds(args)) => crds::print(&args),
        Some(Command::Policy(command)) => policies::run(&command),
        Some(Command::Probe(args)) => probe::probe(&args),
        Some(Command::Completions(args)) => generated::completions(&args),
        Some(Command::Man(args)) => generated::man(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say_error(format_args!("wicketgate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line. A value that may hold a credential is not repeated as it is.
fn print(error: &clap::Error) {
    let plain = error.to_string();
    let shown: String = plain.split_inclusive([' ', '\n', '\'', '"', '=', ',']).map(redact::url).collect();
    if shown == plain {
        // Nothing is lost if standard error is closed.
        let _ = error.print();
    } else {
        say_error(format_args!("{}", shown.trim_end()));
    }
}

/// The allocator asks for huge pages, which count whole: 30 MiB of an idle gateway. It has done so once before anything of
/// ours runs (4 MiB), so the process begins anew with what it has told the kernel, which an `exec` keeps. Where the kernel
/// cannot be told, or the binary is not found again, it goes on as it is.
fn without_huge_pages() {
    use std::os::unix::process::CommandExt;
    if !matches!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(false))
        || rustix::thread::disable_transparent_huge_pages(true).is_err()
        || !matches!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(true))
    {
        return;
    }
    if let Ok(binary) = std::env::current_exe() {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_else(|| binary.clone().into());
        let error = std::process::Command::new(binary).arg0(name).args(arguments).exec();
        say_error(format_args!("wicketgate: goes on with huge pages: {error}"));
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

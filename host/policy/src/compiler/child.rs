//! The compiling process: bounds itself, reads one component, writes its code, says what came of it, and ends.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal};

use super::artifact::{KEY_BYTES, digest};
use super::{ARGUMENT, Report};
use crate::bounds::{COMPONENT_BYTES_MAX, CompileLimits};
use crate::engine::{self, Reservation};

/// All that the process has as its environment: the allocator must not reserve more than it uses, as reserved counts.
pub(super) const ENVIRONMENT: [(&str, &str); 2] =
    [("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_ARENA_RESERVE", "32MiB")];
/// Address space beside what may be written to, bytes: the program itself, and what it reserves.
const ADDRESS_BYTES_BESIDE: u64 = 4 << 30;
/// Input, result and report; no file can be opened.
const DESCRIPTORS: u64 = 3;
/// Lowest priority there is: the request path goes first, and every other process too.
const NICENESS: i32 = 19;
/// First to be ended where the system runs out of memory.
const OOM_SCORE_ADJUSTMENT: &str = "1000";
/// What the compiler has against a component is cut at this many bytes.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// The arguments of the process.
pub(super) fn arguments(limits: CompileLimits, reservation: Reservation) -> [String; 5] {
    let CompileLimits { memory_bytes, cpu_seconds, code_bytes } = limits;
    [
        ARGUMENT.to_owned(),
        memory_bytes.to_string(),
        cpu_seconds.to_string(),
        code_bytes.to_string(),
        reservation.name().to_owned(),
    ]
}

/// What to do where this program was started as the compiling process, and how to end then; `None` where it was not. Call it
/// before anything else: no thread may run yet, and no argument is anybody else's.
pub fn serve() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let arguments: Option<Vec<String>> = arguments.map(OsString::into_string).map(Result::ok).collect();
    let done = arguments.as_deref().and_then(parse).map(|(limits, reservation)| {
        bound(limits).and_then(|()| compile(reservation)).and_then(|report| say(&report))
    });
    Some(match done {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            let _ = write!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
        None => {
            let _ = writeln!(io::stderr(), "`{ARGUMENT}` is for the gateway itself; see `policy check`");
            ExitCode::from(2)
        }
    })
}

fn parse(arguments: &[String]) -> Option<(CompileLimits, Reservation)> {
    let [memory, cpu, code, reservation] = arguments else { return None };
    let limits = CompileLimits {
        memory_bytes: memory.parse().ok()?,
        cpu_seconds: cpu.parse().ok()?,
        code_bytes: code.parse().ok()?,
    };
    Some((limits, Reservation::from_name(reservation)?))
}

/// Takes away what compiling does not need. All of it must succeed, but for what only makes us more polite.
fn bound(limits: CompileLimits) -> io::Result<()> {
    // The gateway's end is ours. Where it has died already, our input ends early.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let _ = rustix::process::nice(NICENESS);
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT);
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Data, limits.memory_bytes),
        (Resource::As, limits.memory_bytes.saturating_add(ADDRESS_BYTES_BESIDE)),
        (Resource::Fsize, limits.code_bytes),
        (Resource::Nofile, DESCRIPTORS),
    ] {
        // A limit that is lower already stays: only a privileged process may raise it.
        let now = rustix::process::getrlimit(resource).maximum;
        let most = now.map_or(most, |now| now.min(most));
        // One second more for the hard limit of CPU time: at the soft one the signal says which limit it was.
        let hard = now.map_or(most + 1, |now| now.min(most + 1));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(hard) })?;
    }
    Ok(())
}

fn compile(reservation: Reservation) -> io::Result<Report> {
    let mut key = [0; KEY_BYTES];
    io::stdin().read_exact(&mut key)?;
    let mut component = Vec::new();
    io::stdin().take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut component)?;
    let engine = engine::compiling(reservation).map_err(|error| io::Error::other(format!("{error:#}")))?;
    match engine.precompile_component(&component) {
        Ok(code) => {
            io::stdout().write_all(&code)?;
            io::stdout().flush()?;
            Ok(Report::Compiled(digest(&key, &code)))
        }
        Err(error) => {
            let mut error = format!("{error:#}");
            error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
            Ok(Report::Invalid(error))
        }
    }
}

fn say(report: &Report) -> io::Result<()> {
    let text = serde_json::to_vec(report)?;
    io::stderr().write_all(&text)
}

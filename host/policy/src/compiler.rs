//! Compiles components in a process of its own: a component can make a compiler need any amount of memory and time, and
//! what it needs must not be the gateway's.
//!
//! The process is this program, started again with [`ARGUMENT`]. It bounds itself before it reads a byte of the component,
//! compiles, writes the code into a file that exists only in memory, and says what came of it. The gateway seals the file,
//! checks that it is what the process wrote, and only then lets the engine use it. See docs/adr/0002.

mod artifact;
mod child;
mod load;

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use domain::policy::PrepareFailure;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::bounds::CompileLimits;
use crate::engine::Reservation;
use crate::inspect::{self, refuse};
use artifact::{Artifact, KEY_BYTES, key};

pub use child::serve as serve_compiler;

/// First argument of the compiling process. Not a command for people.
pub(crate) const ARGUMENT: &str = "compile-policy";
/// Most bytes that the compiling process may say beside its result.
const REPORT_BYTES_MAX: u64 = 64 << 10;
/// Bytes of what a dying process said that are shown.
const LAST_WORDS_BYTES_MAX: usize = 200;

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In a process of its own: this program, which must call [`serve_compiler`] first thing. The default is the running
    /// one, `/proc/self/exe`.
    Process(PathBuf),
    /// In this process, without bounds on memory and time. For tests and benchmarks, whose components are trusted.
    InProcess,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::Process("/proc/self/exe".into())
    }
}

/// Why a compilation is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It took longer than the clock allows.
    Overdue,
    /// No object names the component any more, or the library ends.
    Unwanted,
}

/// Ends a compilation from another thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leash(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    child: Option<Child>,
    cut: Option<Cut>,
}

impl Leash {
    /// Ends the compilation now, or as soon as it begins.
    pub(crate) fn cut(&self, why: Cut) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.cut.get_or_insert(why);
        if let Some(child) = &mut held.child {
            // One that has ended by itself needs no end.
            let _ = child.kill();
        }
    }

    /// Starts the process, unless its end was decided before.
    fn start(&self, command: &mut Command) -> Result<Pipes, CompileError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cut) = held.cut {
            return Err(CompileError::Cut(cut));
        }
        let mut child = command.spawn().map_err(CompileError::Unavailable)?;
        let pipes = child.stdin.take().zip(child.stderr.take());
        held.child = Some(child);
        pipes.ok_or_else(|| CompileError::Unavailable(io::ErrorKind::BrokenPipe.into()))
    }

    /// Waits for the process, which has closed its report.
    fn wait(&self) -> Result<(ExitStatus, Option<Cut>), CompileError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = held.child.take() else {
            return Err(CompileError::Unavailable(io::ErrorKind::NotFound.into()));
        };
        let status = child.wait().map_err(CompileError::Unavailable)?;
        Ok((status, held.cut))
    }
}

type Pipes = (std::process::ChildStdin, std::process::ChildStderr);

/// What the compiling process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    /// The keyed digest of the code, lower-case hex.
    Compiled(String),
    /// What the compiler has against the component.
    Invalid(String),
}

/// Why there is no compiled component.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// The compiler has something against it.
    #[error("{0}")]
    Invalid(String),
    /// The engine of this gateway does not take the code.
    #[error("the engine does not take the code")]
    Engine(#[source] wasmtime::Error),
    /// The compiling process was not to be had.
    #[error("the compiling process cannot be started")]
    Unavailable(#[source] io::Error),
    /// It needed more memory than it gets.
    #[error("out of memory")]
    Memory(CompileLimits),
    /// It needed more CPU time than it gets.
    #[error("out of CPU time")]
    Time(CompileLimits),
    /// Its code is larger than the gateway takes.
    #[error("too much code")]
    Code(CompileLimits),
    /// Ended from outside.
    #[error("ended, as it was {0}")]
    Cut(Cut),
    /// The process ended in a way it should not, or its result is not what it wrote.
    #[error("the compiling process failed: {0}")]
    Failed(String),
}

impl Compiler {
    /// Compiles a component that was looked over before, until it is done or `leash` is cut.
    pub(crate) fn compile(
        &self,
        component: &[u8],
        (engine, reservation): (&Engine, Reservation),
        leash: &Leash,
    ) -> Result<Component, CompileError> {
        let program = match self {
            Self::Process(program) => program,
            Self::InProcess => {
                return Component::new(engine, component)
                    .map_err(|error| CompileError::Invalid(format!("{error:#}")));
            }
        };
        let limits = CompileLimits::of(component.len());
        let artifact = Artifact::create().map_err(CompileError::Unavailable)?;
        let key = key().map_err(CompileError::Unavailable)?;
        let mut command = Command::new(program);
        command
            .arg0("wicketgate")
            .args(child::arguments(limits, reservation))
            .env_clear()
            .envs(child::ENVIRONMENT)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(artifact.writer().map_err(CompileError::Unavailable)?)
            .stderr(Stdio::piped());
        let report = run(&mut command, leash, &key, component);
        // The command holds the process's end of the file.
        drop(command);
        match judge(report, limits)? {
            Report::Invalid(error) => Err(CompileError::Invalid(error)),
            Report::Compiled(digest) => {
                let sealed = artifact.seal(&key, &digest, limits.code_bytes).map_err(CompileError::Failed)?;
                load::load(engine, &sealed).map_err(CompileError::Engine)
            }
        }
    }
}

/// How the process ended, whether it was made to, and what it said.
type Ended = (ExitStatus, Option<Cut>, Vec<u8>);

fn run(
    command: &mut Command,
    leash: &Leash,
    key: &[u8; KEY_BYTES],
    component: &[u8],
) -> Result<Ended, CompileError> {
    let (mut input, output) = leash.start(command)?;
    // A process that died does not read; how it died is said below.
    let _ = input.write_all(key).and_then(|()| input.write_all(component));
    drop(input);
    let mut said = Vec::new();
    let _ = output.take(REPORT_BYTES_MAX).read_to_end(&mut said);
    let (status, cut) = leash.wait()?;
    Ok((status, cut, said))
}

/// What the end of the process means.
fn judge(ended: Result<Ended, CompileError>, limits: CompileLimits) -> Result<Report, CompileError> {
    let (status, cut, said) = ended?;
    if let Some(cut) = cut {
        return Err(CompileError::Cut(cut));
    }
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if is(Signal::XCPU) {
        return Err(CompileError::Time(limits));
    }
    if is(Signal::XFSZ) {
        return Err(CompileError::Code(limits));
    }
    // Memory that is not given ends a Rust program so; nothing else of ours does.
    if is(Signal::ABORT) {
        return Err(CompileError::Memory(limits));
    }
    if status.success()
        && let Ok(report) = serde_json::from_slice(&said)
    {
        return Ok(report);
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    let words = said[..said.floor_char_boundary(LAST_WORDS_BYTES_MAX)].escape_debug();
    Err(CompileError::Failed(format!("{status}; it said: \"{words}\"")))
}

impl CompileError {
    /// Whether another attempt may end otherwise, as it depends on more than the component.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::Invalid(_) | Self::Engine(_))
    }

    /// For the policy's author.
    pub(crate) fn refusal(&self) -> PrepareFailure {
        const SMALLER: &str =
            "make it smaller: large functions compile slowly; it is tried again now and then";
        match self {
            Self::Invalid(error) => inspect::invalid(error),
            Self::Engine(error) => refuse(
                "LimitExceeded",
                format!("this gateway's engine has no room for it: {error:#}"),
                "compare it with the table of bounds in docs/policy-guide.md",
            ),
            Self::Unavailable(error) => refuse(
                "CompilerUnavailable",
                format!("the process that compiles policies cannot be started: {error}"),
                "let the gateway start its own binary again (/proc, memfd_create and fork must be allowed); it is tried \
                 again now and then",
            ),
            Self::Memory(limits) => refuse(
                "CompileMemory",
                format!(
                    "compiling it takes more than {} bytes of memory, or more stack than there is",
                    limits.memory_bytes
                ),
                SMALLER,
            ),
            Self::Time(limits) => refuse(
                "CompileTime",
                format!("compiling it takes more than {} seconds of CPU time", limits.cpu_seconds),
                SMALLER,
            ),
            Self::Code(limits) => refuse(
                "CompiledTooLarge",
                format!("its code takes more than {} bytes", limits.code_bytes),
                SMALLER,
            ),
            Self::Cut(Cut::Overdue | Cut::Unwanted) => refuse(
                "CompileOverdue",
                "it was not compiled in time: the machine is too busy",
                "give the gateway more CPU; it is tried again now and then",
            ),
            Self::Failed(why) => refuse(
                "CompilerFailed",
                format!("the process that compiles policies failed: {why}"),
                "report it with the component; it is tried again now and then",
            ),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overdue => "overdue",
            Self::Unwanted => "unwanted",
        })
    }
}

#[cfg(test)]
mod tests;

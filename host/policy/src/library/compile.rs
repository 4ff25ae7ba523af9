//! From bytes to a compiled, linked component that has described itself, on one thread of low priority.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use domain::policy::{Digest, PolicyLimits, PrepareFailure};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::bindings::RoutingPolicyPre;
use crate::description;
use crate::host_state::{HostState, PolicyLog};
use crate::inspect::{self, refuse};
use crate::instance::Recipe;
use crate::library::source::Bytes;
use crate::probe;
use crate::ready::{Compiled, Outside};

/// Compilations that went over their deadline and still run, at most; then nothing more is begun until one ends.
const OVERDUE_MAX: usize = 2;
/// Niceness of the compiling thread: the request path goes first.
const NICENESS: i32 = 10;

/// A component to compile.
pub(crate) struct Job {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    /// Name for the log.
    pub(crate) name: Box<str>,
}

/// What the supervising thread hears.
pub(crate) enum Message {
    Compile(Job),
    Compiled(u64, Result<Arc<Compiled>, PrepareFailure>),
    Stop,
}

/// Compiles one after the other and reports each through `done`, until told to stop. What takes longer than `deadline` is
/// reported as failed and left to end by itself, as a compilation cannot be interrupted.
pub(crate) fn supervise(
    messages: &Receiver<Message>,
    to_self: &Sender<Message>,
    (linker, deadline): (&Linker<HostState>, Duration),
    done: &dyn Fn(Digest, Result<Arc<Compiled>, PrepareFailure>),
) {
    let mut queue: VecDeque<Job> = VecDeque::new();
    let mut running: Option<(u64, Digest, Instant)> = None;
    let mut overdue = 0;
    let mut attempt = 0;
    loop {
        if running.is_none()
            && overdue < OVERDUE_MAX
            && let Some(job) = queue.pop_front()
        {
            attempt += 1;
            running = Some((attempt, job.digest, Instant::now() + deadline));
            spawn(job, attempt, linker.clone(), to_self.clone());
        }
        let message = match running {
            Some((.., due)) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match message {
            Ok(Message::Compile(job)) => queue.push_back(job),
            Ok(Message::Compiled(which, result)) => match running {
                Some((current, digest, _)) if current == which => {
                    running = None;
                    done(digest, result);
                }
                _ => overdue -= 1,
            },
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, digest, _)) = running.take() {
                    overdue += 1;
                    done(digest, Err(too_slow(deadline)));
                }
            }
        }
    }
}

fn too_slow(deadline: Duration) -> PrepareFailure {
    refuse(
        "TooLarge",
        format!("it was not compiled within {} seconds", deadline.as_secs()),
        "make it smaller: large functions compile slowly",
    )
}

/// Compiles on a thread of its own, which ends with its job. A panic of the compiler costs the component only.
fn spawn(job: Job, attempt: u64, linker: Linker<HostState>, done: Sender<Message>) {
    let compile = move || {
        // Without the right to be nice it runs at ordinary priority.
        let _ = rustix::process::nice(NICENESS);
        let compiled = catch_unwind(AssertUnwindSafe(|| compile(&job, &linker)));
        let compiled = compiled.unwrap_or_else(|_| Err(inspect::invalid("the compiler gave up on it")));
        // The library may have gone meanwhile.
        let _ = done.send(Message::Compiled(attempt, compiled.map(Arc::new)));
    };
    // Without threads nothing else works either; the deadline reports the component as failed.
    if let Err(error) = thread::Builder::new().name("policy-compile".into()).spawn(compile) {
        tracing::error!(%error, "no thread to compile policies on");
    }
}

fn compile(job: &Job, linker: &Linker<HostState>) -> Result<Compiled, PrepareFailure> {
    let mut imports = inspect::inspect(&job.bytes)?.imports;
    imports.sort_unstable();
    let outside = Arc::new(Outside { bytes: job.bytes.len() as u64, imports });
    let component = Component::new(linker.engine(), &*job.bytes).map_err(inspect::invalid)?;
    let pre = link(&component, linker)?;
    let description = describe(job, &pre, linker.engine())?;
    Ok(Compiled { digest: job.digest, description: Arc::new(description), outside, pre })
}

fn link(
    component: &Component,
    linker: &Linker<HostState>,
) -> Result<RoutingPolicyPre<HostState>, PrepareFailure> {
    let wrong_world = |error: wasmtime::Error| {
        refuse(
            "WrongWorld",
            format!("it does not fit the world `routing-policy`: {error:#}"),
            format!("rebuild it with the SDK and wit/routing.wit of version {}", inspect::INTERFACE_VERSION),
        )
    };
    let instance = linker.instantiate_pre(component).map_err(wrong_world)?;
    RoutingPolicyPre::new(instance).map_err(wrong_world)
}

/// Asks two instances who they are: both must say the same.
fn describe(
    job: &Job,
    pre: &RoutingPolicyPre<HostState>,
    engine: &Engine,
) -> Result<domain::policy::Description, PrepareFailure> {
    let recipe = Recipe {
        engine: engine.clone(),
        pre: pre.clone(),
        log: Arc::new(PolicyLog::new(&job.name)),
        config: "{}".into(),
        limits: PolicyLimits::default(),
    };
    let first = recipe.describe().map_err(probe::start_failure)?;
    let second = recipe.describe().map_err(probe::start_failure)?;
    if format!("{first:?}") != format!("{second:?}") {
        return Err(refuse(
            "Impure",
            "asked twice it described itself differently",
            "return the same description every time",
        ));
    }
    description::check(first)
}

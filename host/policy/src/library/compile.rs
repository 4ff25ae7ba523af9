//! From bytes to a compiled, linked component: at most [`COMPILATIONS_MAX`] at a time, one of each tenant.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use domain::policy::{Digest, PrepareFailure};
use wasmtime::component::{Component, Linker};

use crate::bindings::RoutingPolicyPre;
use crate::compiler::{CompileError, Compiler, Cut, Leash};
use crate::engine::Reservation;
use crate::host_state::HostState;
use crate::inspect::{self, refuse};
use crate::library::queue::{Queue, Tenant};
use crate::library::source::{Bytes, digest, read_file};
use crate::ready::{Compiled, Outside};

/// Compilations under way at a time. Two, so that a tenant whose component is slow leaves a place to the others.
const COMPILATIONS_MAX: usize = 2;
/// Niceness of the thread that looks a component over and links it: the request path goes first.
const NICENESS: i32 = 10;

/// A component to compile.
pub(crate) struct Job {
    pub(crate) digest: Digest,
    pub(crate) origin: Origin,
}

/// Where its bytes are, when its turn comes.
pub(crate) enum Origin {
    /// In memory, for the gateway or its configuration holds them anyway.
    Held(Bytes),
    /// In a file, which is read then: a long line of large components is not a lot of memory.
    File(PathBuf),
}

/// What the supervising thread hears.
pub(crate) enum Message {
    Compile(Tenant, Job),
    Compiled(u64, Outcome),
    /// Some components may not be wanted any more.
    Look,
    Stop,
}

/// A compiled component, or why there is none.
pub(crate) type Outcome = Result<Arc<Compiled>, Refused>;

/// Why a component is not compiled.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It will never be.
    Component(PrepareFailure),
    /// Another attempt may end otherwise.
    Attempt(PrepareFailure),
    /// Its file holds another component by now.
    Changed,
}

impl From<PrepareFailure> for Refused {
    fn from(failure: PrepareFailure) -> Self {
        Self::Component(failure)
    }
}

impl From<CompileError> for Refused {
    fn from(error: CompileError) -> Self {
        let failure = error.refusal();
        if error.may_pass() { Self::Attempt(failure) } else { Self::Component(failure) }
    }
}

/// What compiling needs besides the component.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) linker: Linker<HostState>,
    pub(crate) reservation: Reservation,
    pub(crate) compiler: Compiler,
    /// Longest time of one compilation by the clock.
    pub(crate) deadline: Duration,
}

/// Who is compiled for.
pub(crate) trait Client {
    /// Whether a component is still asked for.
    fn is_wanted(&self, digest: Digest) -> bool;
    /// What came of it.
    fn done(&self, digest: Digest, outcome: Outcome);
    /// When [`Client::ripen`] should be called next.
    fn next_retry(&self) -> Option<Instant>;
    /// Lets what failed be asked for again.
    fn ripen(&self, now: Instant);
}

/// A compilation under way.
struct Running {
    attempt: u64,
    digest: Digest,
    tenant: Tenant,
    due: Instant,
    leash: Leash,
}

/// Compiles what is asked for and reports each through `client`, until told to stop. What takes too long or is not wanted any
/// more is ended.
pub(crate) fn supervise(
    messages: &Receiver<Message>,
    to_self: &Sender<Message>,
    workshop: &Workshop,
    client: &dyn Client,
) {
    let mut queue: Queue<Job> = Queue::default();
    let mut running: Vec<Running> = Vec::new();
    let mut attempt = 0;
    loop {
        while running.len() < COMPILATIONS_MAX
            && let Some((tenant, job)) = queue.next(|tenant| running.iter().any(|one| one.tenant == *tenant))
        {
            if client.is_wanted(job.digest) && !running.iter().any(|one| one.digest == job.digest) {
                attempt += 1;
                let leash = Leash::default();
                let due = Instant::now() + workshop.deadline;
                running.push(Running { attempt, digest: job.digest, tenant, due, leash: leash.clone() });
                spawn(job, attempt, leash, workshop.clone(), to_self.clone());
            }
        }
        let due = running.iter().map(|one| one.due).chain(client.next_retry()).min();
        let message = match due {
            Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match message {
            Ok(Message::Compile(tenant, job)) => queue.push(&tenant, job),
            Ok(Message::Compiled(which, outcome)) => {
                // One that was cut was reported then.
                if let Some(at) = running.iter().position(|one| one.attempt == which) {
                    client.done(running.swap_remove(at).digest, outcome);
                }
            }
            Ok(Message::Look) => {
                queue.retain(|job| client.is_wanted(job.digest));
                running.retain(|one| {
                    let is_wanted = client.is_wanted(one.digest);
                    if !is_wanted {
                        one.leash.cut(Cut::Unwanted);
                    }
                    is_wanted
                });
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                running.iter().for_each(|one| one.leash.cut(Cut::Unwanted));
                return;
            }
            Err(RecvTimeoutError::Timeout) => end_overdue(&mut running, client),
        }
    }
}

fn end_overdue(running: &mut Vec<Running>, client: &dyn Client) {
    let now = Instant::now();
    client.ripen(now);
    running.retain(|one| {
        let is_overdue = one.due <= now;
        if is_overdue {
            one.leash.cut(Cut::Overdue);
            client.done(one.digest, Err(CompileError::Cut(Cut::Overdue).into()));
        }
        !is_overdue
    });
}

/// Works on a thread of its own, which ends with its job. A panic costs the component only.
fn spawn(job: Job, attempt: u64, leash: Leash, workshop: Workshop, done: Sender<Message>) {
    let report = done.clone();
    let compile = move || {
        // Without the right to be nice it runs at ordinary priority.
        let _ = rustix::process::nice(NICENESS);
        let outcome = catch_unwind(AssertUnwindSafe(|| compile(&job, &workshop, &leash)));
        let outcome = outcome.unwrap_or_else(|_| Err(inspect::invalid("the gateway gave up on it").into()));
        // The library may have gone meanwhile.
        let _ = done.send(Message::Compiled(attempt, outcome.map(Arc::new)));
    };
    if let Err(error) = thread::Builder::new().name("policy-compile".into()).spawn(compile) {
        let _ = report.send(Message::Compiled(attempt, Err(CompileError::Unavailable(error).into())));
    }
}

fn compile(job: &Job, workshop: &Workshop, leash: &Leash) -> Result<Compiled, Refused> {
    let bytes = match &job.origin {
        Origin::Held(bytes) => bytes.clone(),
        // A file that is gone is found, with its reason, where it is looked at next.
        Origin::File(path) => Bytes::Shared(read_file(path).map_err(|_| Refused::Changed)?.into()),
    };
    if digest(&bytes) != job.digest {
        return Err(Refused::Changed);
    }
    let mut imports = inspect::inspect(&bytes)?.imports;
    imports.sort_unstable();
    let outside = Arc::new(Outside { bytes: bytes.len() as u64, imports });
    let engine = (workshop.linker.engine(), workshop.reservation);
    let component = workshop.compiler.compile(&bytes, engine, leash)?;
    drop(bytes);
    let pre = link(&component, &workshop.linker)?;
    Ok(Compiled { digest: job.digest, outside, pre })
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

//! Makes policies ready: digest → compiled component → configured and probed policy. Everything slow happens on threads of
//! its own, and each result is kept as long as configuration needs it.

mod compile;
mod queue;
mod setback;
mod source;
mod tables;
mod threads;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use domain::policy::{
    Description, Digest, EntrySpec, Evaluate, Policies, PolicySource, Preparation, Prepare, PrepareFailure,
    Prepared,
};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::RoutingPolicy;
use crate::compiler::Compiler;
use crate::engine;
use crate::evaluate::Evaluator;
use crate::fetch::{Desk, FetchOptions, Fetcher, Order};
use crate::host_state::{HostState, LogLevel, PolicyLog};
use crate::inspect::refuse;
use crate::instance::Recipe;
use crate::probe;
use crate::ready::{Compiled, Ready};

use compile::{Outcome, Refused, Workshop};
use queue::Tenant;
use source::Whereabouts;
use tables::{Key, State, Tables};
use threads::{Probe, spawn_compiler, spawn_prober};

pub use source::digest;
pub(crate) use source::{embedded, read_argument};

/// Default of `--policy-instances`: instances that live at once, over all workers.
pub const INSTANCES_DEFAULT: u32 = 8_192;
/// Default of [`Options::compile_deadline`]. What bounds a compilation is its CPU time; the clock only ends one that gets none.
pub const COMPILE_DEADLINE_DEFAULT: Duration = Duration::from_secs(1_800);
/// Instances kept free for probing, beyond those of the workers.
const PROBE_INSTANCES: u32 = 8;

/// How to make a [`Library`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers that will ask for an evaluator; each gets its share of the instances. Default 1.
    pub workers: usize,
    /// Instances that live at once, over all workers (`--policy-instances`). Default [`INSTANCES_DEFAULT`].
    pub instances: u32,
    /// Where relative paths of `file` sources count from. Default: the working directory.
    pub directory: PathBuf,
    /// How long one compilation may take by the clock, on however busy a machine. Default [`COMPILE_DEADLINE_DEFAULT`].
    pub compile_deadline: Duration,
    /// Where components are compiled. Default: in a process of their own.
    pub compiler: Compiler,
    /// Which registries may be asked, and where their answers are kept.
    pub fetch: FetchOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 1,
            instances: INSTANCES_DEFAULT,
            directory: PathBuf::from("."),
            compile_deadline: COMPILE_DEADLINE_DEFAULT,
            compiler: Compiler::default(),
            fetch: FetchOptions::default(),
        }
    }
}

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// This host cannot run compiled policies.
    #[error("the WebAssembly engine does not start")]
    Engine(#[source] wasmtime::Error),
    /// No thread to prepare policies on.
    #[error("a thread does not start")]
    Thread(#[from] std::io::Error),
}

/// All policies of the process. Implements the control plane's side ([`Prepare`]) and the request path's ([`Policies`]).
/// Dropping it ends its threads.
pub struct Library {
    shared: Arc<Shared>,
    compiler: Sender<compile::Message>,
    prober: Sender<Probe>,
    threads: Vec<JoinHandle<()>>,
    /// Started with the first component that comes from a registry.
    fetcher: Mutex<Option<Fetcher>>,
}

struct Shared {
    options: Options,
    linker: Linker<HostState>,
    tables: Mutex<Tables>,
    /// Signalled after each end of a preparation.
    ended: Condvar,
    wake: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    next_id: AtomicU64,
}

impl Library {
    /// Starts the engine and the two threads that prepare policies.
    ///
    /// # Errors
    /// When this host cannot run compiled code, or has no threads.
    pub fn new(options: Options) -> Result<Self, LibraryError> {
        let instances = options.instances.max(options.workers as u32);
        let (engine, reservation) =
            engine::engine(instances.saturating_add(PROBE_INSTANCES)).map_err(LibraryError::Engine)?;
        let mut linker = Linker::new(&engine);
        RoutingPolicy::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |state| state)
            .map_err(LibraryError::Engine)?;
        let sources = source::Sources::new(options.directory.clone());
        let shared = Arc::new(Shared {
            options,
            linker,
            tables: Mutex::new(Tables { sources, ..Tables::default() }),
            ended: Condvar::new(),
            wake: Mutex::new(None),
            next_id: AtomicU64::new(1),
        });
        let (compiler, compile_messages) = mpsc::channel();
        let (prober, probes) = mpsc::channel();
        let workshop = Workshop {
            linker: shared.linker.clone(),
            reservation,
            compiler: shared.options.compiler.clone(),
            deadline: shared.options.compile_deadline,
        };
        let threads = vec![
            spawn_compiler(&shared, compile_messages, (compiler.clone(), prober.clone()), workshop)?,
            spawn_prober(&shared, probes)?,
        ];
        Ok(Self { shared, compiler, prober, threads, fetcher: Mutex::new(None) })
    }

    /// Prepares a policy and waits for the end, for the command line and tests.
    ///
    /// # Errors
    /// Why the policy does not load.
    pub fn prepare_now(&self, spec: &EntrySpec) -> Result<Arc<dyn Prepared>, PrepareFailure> {
        let ready = self.ready_now(spec)?;
        Ok(ready)
    }

    pub(crate) fn ready_now(&self, spec: &EntrySpec) -> Result<Arc<Ready>, PrepareFailure> {
        let mut tables = self.shared.tables();
        loop {
            match self.advance(&mut tables, spec) {
                State::Ready(ready) => return Ok(ready),
                State::Failed(failure) => return Err(failure),
                State::Pending => {
                    tables = self.shared.ended.wait(tables).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The compiled component of this digest, if it is known.
    pub(crate) fn compiled(&self, digest: Digest) -> Option<Arc<Compiled>> {
        match self.shared.tables().components.get(&digest) {
            Some(State::Ready(compiled)) => Some(Arc::clone(compiled)),
            _ => None,
        }
    }

    /// Begins to get a component from a registry.
    fn fetch(&self, order: Order) -> Result<(), PrepareFailure> {
        let mut fetcher = self.fetcher.lock().unwrap_or_else(PoisonError::into_inner);
        if fetcher.is_none() {
            let desk = Arc::clone(&self.shared) as Arc<dyn Desk>;
            let started = Fetcher::start(&self.shared.options.fetch, desk);
            *fetcher = Some(started.map_err(|error| {
                refuse("FetchFailed", format!("no thread to fetch on: {error}"), "raise the limit on threads")
            })?);
        }
        if let Some(fetcher) = &*fetcher {
            fetcher.order(order);
        }
        Ok(())
    }

    /// What a compiled component says of itself, within these limits.
    pub(crate) fn describe(&self, compiled: &Compiled, spec: &EntrySpec) -> Option<Description> {
        let log = Arc::new(PolicyLog::keeping(spec.name.as_str()));
        probe::describe(&self.recipe(compiled, spec, log)).ok()
    }

    /// How to make instances of a compiled component, whether it would serve or not.
    pub(crate) fn recipe(&self, compiled: &Compiled, spec: &EntrySpec, log: Arc<PolicyLog>) -> Recipe {
        Recipe {
            engine: self.shared.linker.engine().clone(),
            pre: compiled.pre.clone(),
            log,
            config: Arc::clone(&spec.config),
            limits: spec.limits,
        }
    }

    fn instances_per_worker(&self) -> usize {
        self.shared.options.instances as usize / self.shared.options.workers.max(1)
    }

    /// State of a spec; whatever is missing is begun.
    fn advance(&self, tables: &mut Tables, spec: &EntrySpec) -> State<Ready> {
        let (digest, bytes) = match tables.look(spec) {
            Ok(Whereabouts::Here(digest, bytes)) => (digest, bytes),
            Ok(Whereabouts::Ordered(order)) => {
                let begun = order.map_or(Ok(()), |order| self.fetch(order));
                return begun.map_or_else(State::Failed, |()| State::Pending);
            }
            Err(failure) => return State::Failed(failure),
        };
        let key = Key::of(spec, digest);
        if let Some(state) = tables.policies.get(&key) {
            return state.clone();
        }
        let tenant = tenant(spec);
        let state: State<Ready> = match tables.components.get(&digest) {
            Some(State::Ready(compiled)) => {
                // The receiver ends only with the library.
                let _ = self.prober.send(Probe::Policy(tenant, key.clone(), Arc::clone(compiled)));
                tables.policies.insert(key, State::Pending);
                return State::Pending;
            }
            Some(State::Failed(failure)) => {
                let failure = failure.clone();
                let is_due = tables.setbacks.take_due(&digest, Instant::now());
                if !is_due && !tables.waiting.contains_key(&digest) {
                    return State::Failed(failure);
                }
                // It is tried again, and fails until it does not.
                State::Failed(failure)
            }
            Some(State::Pending) => State::Pending,
            None => match tables.setbacks.failure(&digest).cloned() {
                Some(failure) => {
                    tables.components.insert(digest, State::Failed(failure.clone()));
                    return State::Failed(failure);
                }
                None => State::Pending,
            },
        };
        let waiting = tables.waiting.get(&digest).map_or(&[][..], Vec::as_slice);
        if !waiting.contains(&(tenant.clone(), key.clone())) {
            if !waiting.iter().any(|(known, _)| *known == tenant) {
                let origin = match tables.sources.origin(spec, bytes) {
                    Ok(origin) => origin,
                    Err(failure) => return State::Failed(failure),
                };
                let job = compile::Job { digest, origin };
                let _ = self.compiler.send(compile::Message::Compile(tenant.clone(), job));
            }
            tables.waiting.entry(digest).or_default().push((tenant, key));
            tables.components.entry(digest).or_insert(State::Pending);
        }
        state
    }
}

/// Whose line a policy's work stands in.
fn tenant(spec: &EntrySpec) -> Tenant {
    match spec.source {
        PolicySource::Builtin(_) => Tenant::Gateway,
        _ => Tenant::Namespace(Arc::clone(&spec.tenant)),
    }
}

impl Prepare for Library {
    fn prepare(&self, spec: &EntrySpec) -> Preparation {
        match self.advance(&mut self.shared.tables(), spec) {
            State::Ready(ready) => Preparation::Ready(ready),
            State::Pending => Preparation::Pending,
            State::Failed(failure) => Preparation::Failed(failure),
        }
    }

    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        *self.shared.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake.into());
    }

    fn retain(&self, live: &[Arc<EntrySpec>]) {
        self.shared.tables().retain(live);
        let _ = self.compiler.send(compile::Message::Look);
    }
}

impl Policies for Library {
    fn evaluator(&self, _worker: usize) -> Box<dyn Evaluate> {
        Box::new(Evaluator::new(self.instances_per_worker()))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.compiler.send(compile::Message::Stop);
        let _ = self.prober.send(Probe::Stop);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The tables. No guard of theirs is held over a compilation or a call of a guest, so a panic leaves them whole.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A component was compiled: what waited for it goes on.
    fn compiled(&self, digest: Digest, outcome: Outcome, prober: &Sender<Probe>) {
        let mut tables = self.tables();
        let tables_now = &mut *tables;
        // Forgotten meanwhile: nothing waits for it.
        let Some(waiting) = tables_now.waiting.remove(&digest) else { return };
        let failed = outcome.is_err();
        let state = match outcome {
            Ok(compiled) => {
                tables_now.setbacks.clear(&digest);
                for (tenant, key) in waiting {
                    // Two tenants may have asked for the same.
                    if tables_now.policies.insert(key.clone(), State::Pending).is_none() {
                        let _ = prober.send(Probe::Policy(tenant, key, Arc::clone(&compiled)));
                    }
                }
                State::Ready(compiled)
            }
            Err(Refused::Attempt(failure)) => {
                tables_now.setbacks.add(digest, failure.clone(), Instant::now());
                State::Failed(failure)
            }
            Err(Refused::Component(failure)) => {
                tables_now.setbacks.clear(&digest);
                State::Failed(failure)
            }
            Err(Refused::Changed) => {
                tables_now.components.remove(&digest);
                drop(tables);
                return self.wake();
            }
        };
        tables_now.components.insert(digest, state);
        drop(tables);
        if failed {
            self.wake();
        }
    }

    /// Configures and probes, and says what came of it.
    fn probe(&self, key: &Key, compiled: &Compiled) {
        let recipe = Recipe {
            engine: self.linker.engine().clone(),
            pre: compiled.pre.clone(),
            log: Arc::new(PolicyLog::new(key.name.as_str())),
            config: Arc::clone(&key.config),
            limits: key.limits,
        };
        let log = Arc::new(PolicyLog::keeping(key.name.as_str()));
        let tried = Recipe { log: Arc::clone(&log), ..recipe.clone() };
        let described = probe::describe(&tried);
        let probed = described.and_then(|description| Ok((probe::probe(&tried, &description)?, description)));
        let probed = probed.map_err(|failure| with_last_words(failure, &log));
        let mut tables = self.tables();
        if let Some(state) = tables.policies.get_mut(key) {
            *state = match probed {
                Ok((probed, description)) => {
                    let id = self.next_id.fetch_add(1, Relaxed);
                    State::Ready(Arc::new(Ready::new(id, (compiled, description), recipe, probed)))
                }
                Err(failure) => State::Failed(failure),
            };
        }
        drop(tables);
        self.wake();
    }

    fn wake(&self) {
        self.ended.notify_all();
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// What the guest said last, if it was an error: the text of a panic, as a rule.
fn with_last_words(mut failure: PrepareFailure, log: &PolicyLog) -> PrepareFailure {
    let said = log.take().into_iter().rfind(|line| line.level == LogLevel::Error);
    if let Some(said) = said {
        failure.message = format!("{}; it said: {}", failure.message, said.message.escape_debug());
    }
    failure
}

impl Desk for Shared {
    fn is_wanted(&self, id: u64) -> bool {
        self.tables().sources.is_wanted(id)
    }

    fn deliver(&self, id: u64, result: Result<Arc<[u8]>, PrepareFailure>) {
        if let Err(failure) = &result {
            tracing::debug!(%failure, "a component is not here yet");
        }
        // Hashed before the tables are taken: that takes a while.
        let result = result.map(|bytes| (digest(&bytes), bytes));
        if self.tables().sources.deliver(id, result) {
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests;

//! Makes policies ready: digest → compiled component → configured and probed policy. Everything slow happens on threads of
//! its own, and each result is kept as long as configuration needs it.

mod compile;
mod source;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use domain::name::PolicyName;
use domain::policy::{
    Digest, EntrySpec, Evaluate, Policies, PolicyLimits, Preparation, Prepare, PrepareFailure, Prepared,
};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::RoutingPolicy;
use crate::engine;
use crate::evaluate::Evaluator;
use crate::fetch::{Desk, FetchOptions, Fetcher, Order};
use crate::host_state::{HostState, LogLevel, PolicyLog};
use crate::inspect::refuse;
use crate::instance::Recipe;
use crate::probe;
use crate::ready::{Compiled, Ready};

use source::Whereabouts;

pub use source::digest;
pub(crate) use source::{embedded, read_argument};

/// Default of `--policy-instances`: instances that live at once, over all workers.
pub const INSTANCES_DEFAULT: u32 = 8_192;
/// Default of [`Options::compile_deadline`]: guests that bring an interpreter take up to 45 s.
pub const COMPILE_DEADLINE_DEFAULT: Duration = Duration::from_secs(120);
/// Instances kept free for probing, beyond those of the workers.
const PROBE_INSTANCES: u32 = 8;

/// Compiled components that are kept although nothing needs them now, so that going back to one costs no compilation.
const SPARE_COMPONENTS_MAX: usize = 4;

/// How to make a [`Library`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers that will ask for an evaluator; each gets its share of the instances. Default 1.
    pub workers: usize,
    /// Instances that live at once, over all workers (`--policy-instances`). Default [`INSTANCES_DEFAULT`].
    pub instances: u32,
    /// Where relative paths of `file` sources count from. Default: the working directory.
    pub directory: PathBuf,
    /// How long one component may compile. Default [`COMPILE_DEADLINE_DEFAULT`].
    pub compile_deadline: Duration,
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

#[derive(Default)]
struct Tables {
    sources: source::Sources,
    components: HashMap<Digest, State<Compiled>>,
    policies: HashMap<Key, State<Ready>>,
    /// Components that nothing needs now, the one given up last at the end.
    spare: VecDeque<Digest>,
}

/// What makes two specs share one policy.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    digest: Digest,
    name: PolicyName,
    config: Arc<str>,
    limits: PolicyLimits,
}

enum State<T> {
    Pending,
    Ready(Arc<T>),
    Failed(PrepareFailure),
}

/// A compiled policy to be configured and probed.
enum Probe {
    Policy(Key, Arc<Compiled>),
    Stop,
}

impl Library {
    /// Starts the engine and the two threads that prepare policies.
    ///
    /// # Errors
    /// When this host cannot run compiled code, or has no threads.
    pub fn new(options: Options) -> Result<Self, LibraryError> {
        let instances = options.instances.max(options.workers as u32);
        let engine =
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
        let threads = vec![
            spawn_compiler(&shared, compile_messages, compiler.clone(), prober.clone())?,
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
        match tables.components.get(&digest) {
            Some(State::Failed(failure)) => return State::Failed(failure.clone()),
            Some(State::Pending) => {}
            Some(State::Ready(compiled)) => {
                // The receiver ends only with the library.
                let _ = self.prober.send(Probe::Policy(key.clone(), Arc::clone(compiled)));
            }
            None => {
                let bytes = match bytes {
                    Some(bytes) => bytes,
                    None => match tables.sources.read(spec) {
                        Ok((now, bytes)) if now == digest => bytes,
                        // It changed between two looks; the next one sees it whole.
                        Ok(_) => return self.advance(tables, spec),
                        Err(failure) => return State::Failed(failure),
                    },
                };
                tables.components.insert(digest, State::Pending);
                let name = spec.name.as_str().into();
                let _ = self.compiler.send(compile::Message::Compile(compile::Job { digest, bytes, name }));
            }
        }
        tables.policies.insert(key, State::Pending);
        State::Pending
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

impl Tables {
    /// Where a spec's component is, its digest checked against the one expected.
    fn look(&mut self, spec: &EntrySpec) -> Result<Whereabouts, PrepareFailure> {
        let found = self.sources.look(spec)?;
        if let (Whereabouts::Here(digest, _), Some(expected)) = (&found, &spec.sha256)
            && !expected.eq_ignore_ascii_case(&digest.to_string())
        {
            return Err(refuse(
                "DigestMismatch",
                format!("its SHA-256 is {digest}, expected was {expected}"),
                "put the right component in its place, or correct `sha256`",
            ));
        }
        Ok(found)
    }

    fn retain(&mut self, live: &[Arc<EntrySpec>]) {
        let keys: HashSet<Key> =
            live.iter().filter_map(|spec| Some(Key::of(spec, self.sources.last_digest(spec)?))).collect();
        let digests: HashSet<Digest> = keys.iter().map(|key| key.digest).collect();
        self.policies.retain(|key, _| keys.contains(key));
        self.retain_components(&digests);
        self.sources.retain(live);
    }

    fn retain_components(&mut self, live: &HashSet<Digest>) {
        self.spare.retain(|digest| !live.contains(digest));
        for (digest, state) in &self.components {
            if matches!(state, State::Ready(_)) && !live.contains(digest) && !self.spare.contains(digest) {
                self.spare.push_back(*digest);
            }
        }
        while self.spare.len() > SPARE_COMPONENTS_MAX {
            self.spare.pop_front();
        }
        let spare = &self.spare;
        self.components.retain(|digest, _| live.contains(digest) || spare.contains(digest));
    }
}

impl Key {
    fn of(spec: &EntrySpec, digest: Digest) -> Self {
        Self { digest, name: spec.name.clone(), config: Arc::clone(&spec.config), limits: spec.limits }
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Ready(value) => Self::Ready(Arc::clone(value)),
            Self::Failed(failure) => Self::Failed(failure.clone()),
        }
    }
}

impl Shared {
    /// The tables. No guard of theirs is held over a compilation or a call of a guest, so a panic leaves them whole.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A component was compiled: what waited for it goes on.
    fn compiled(
        &self,
        digest: Digest,
        result: Result<Arc<Compiled>, PrepareFailure>,
        prober: &Sender<Probe>,
    ) {
        let mut tables = self.tables();
        // Forgotten meanwhile: nobody waits for it.
        if !tables.components.contains_key(&digest) {
            return;
        }
        for (key, state) in tables.policies.iter_mut().filter(|(key, _)| key.digest == digest) {
            match &result {
                Ok(compiled) => {
                    let _ = prober.send(Probe::Policy(key.clone(), Arc::clone(compiled)));
                }
                Err(failure) => *state = State::Failed(failure.clone()),
            }
        }
        let failed = result.is_err();
        tables.components.insert(digest, result.map_or_else(State::Failed, State::Ready));
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
        let probed = probe::probe(&tried, &compiled.description);
        let probed = probed.map_err(|failure| with_last_words(failure, &log));
        let mut tables = self.tables();
        if let Some(state) = tables.policies.get_mut(key) {
            *state = match probed {
                Ok(probed) => {
                    let id = self.next_id.fetch_add(1, Relaxed);
                    State::Ready(Arc::new(Ready::new(id, compiled, recipe, probed)))
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

fn spawn_compiler(
    shared: &Arc<Shared>,
    messages: Receiver<compile::Message>,
    to_self: Sender<compile::Message>,
    prober: Sender<Probe>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let run = move || {
        let settings = (&shared.linker, shared.options.compile_deadline);
        compile::supervise(&messages, &to_self, settings, &|digest, result| {
            shared.compiled(digest, result, &prober);
        });
    };
    thread::Builder::new().name("policy-library".into()).spawn(run)
}

/// Probing has a thread of its own: a known component with a new configuration does not wait for another's compilation.
fn spawn_prober(shared: &Arc<Shared>, probes: Receiver<Probe>) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let run = move || {
        while let Ok(Probe::Policy(key, compiled)) = probes.recv() {
            shared.probe(&key, &compiled);
        }
    };
    thread::Builder::new().name("policy-probe".into()).spawn(run)
}

#[cfg(test)]
mod tests;

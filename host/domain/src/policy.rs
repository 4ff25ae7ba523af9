//! What the request path and the control plane know of routing policies: how to prepare one, how to ask a chain, and
//! what comes back. Nothing here knows WebAssembly; the crate `policy` implements both traits, a test plugs in a closure.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::image::{Image, PullSecret};
use crate::name::PolicyName;
use crate::pool::{Chain, Pool};
use crate::request::{Fleet, RequestView};
use crate::signal::SignalSet;

/// Most endpoints that an `ordered` answer, or a fallback order, may name.
pub const ORDERED_MAX: usize = 8;
/// Most entries in one chain; more are a finding.
pub const CHAIN_MAX: usize = 8;
/// A refusal's reason is cut at this many bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// Where a policy component comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PolicySource {
    /// Embedded in the binary, by canonical name such as `prefix-hash`.
    Builtin(PolicyName),
    /// A file below the policy directory. Read again when it changes.
    File(PathBuf),
    /// Bytes from a `ConfigMap` or `Secret` key.
    Bytes {
        /// Which key of which object, for people.
        origin: Arc<str>,
        /// The component.
        bytes: Arc<[u8]>,
    },
    /// An artifact in a registry. It has a digest, or the entry names the component's own.
    Oci {
        /// Which one.
        image: Image,
        /// Credentials of the registry. `None`: anonymous.
        pull_secret: Option<PullSecret>,
    },
}

/// What happens to a call when its policy fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailureMode {
    /// As if the policy had abstained.
    #[default]
    NextPolicy,
    /// The chain ends; the last resort chooses.
    LeastInFlight,
    /// The request is turned away with 503.
    Reject,
}

/// Whether an entry decides or only watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Decides.
    #[default]
    Active,
    /// Runs beside the chain and is recorded; changes nothing.
    Shadow,
}

/// Bounds on one policy; absent values are the host's defaults (16 MiB, factor 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyLimits {
    /// Linear memory, bytes; at most [`PolicyLimits::MEMORY_BYTES_MAX`].
    pub memory_bytes: Option<u64>,
    /// Times the default fuel budget, in thousandths (1,000 is factor 1); 1 to [`PolicyLimits::FUEL_PERMILLE_MAX`].
    pub fuel_permille: Option<u32>,
}

impl PolicyLimits {
    /// Largest linear memory of one instance, bytes. A policy's own limit may be lower, never higher.
    pub const MEMORY_BYTES_MAX: u64 = 16 << 20;
    /// Largest factor on fuel that may be asked for, in thousandths.
    pub const FUEL_PERMILLE_MAX: u32 = 10_000;
}

/// One entry of a chain as configuration asks for it. Equal specs share one compiled and probed policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntrySpec {
    /// Name for people and metrics: the built-in's, or the `RoutingPolicy`'s.
    pub name: PolicyName,
    /// Where the component comes from.
    pub source: PolicySource,
    /// Expected SHA-256 of the component, lower-case hex; checked before compiling.
    pub sha256: Option<Arc<str>>,
    /// The text for `configure`: the author's settings as a JSON object, the pool's under the key `pool`.
    pub config: Arc<str>,
    /// Bounds.
    pub limits: PolicyLimits,
    /// What a failed call means.
    pub failure_mode: FailureMode,
    /// Whether the entry decides.
    pub mode: Mode,
    /// Namespace of the object that asks. Preparing is shared out among tenants, so that one does not hold up another.
    pub tenant: Arc<str>,
}

/// SHA-256 of a component.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    /// Lower-case hex; `{:.12}` prints the first 12 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = f.precision().unwrap_or(64).min(64);
        for (index, byte) in self.0.iter().enumerate() {
            match length.saturating_sub(index * 2) {
                0 => break,
                1 => write!(f, "{:x}", byte >> 4)?,
                _ => write!(f, "{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self:.12})")
    }
}

/// What a policy says of itself, checked by the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The policy's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// JSON Schema of its configuration.
    pub config_schema: String,
    /// Signals wanted, in the order of the columns.
    pub signals: Vec<crate::signal::Signal>,
    /// Wants the session's owners on the ring.
    pub wants_owners: bool,
    /// Wants the hashes of the prompt's blocks.
    pub wants_prefix_hashes: bool,
    /// Is not called for a request without a session.
    pub needs_session: bool,
    /// Request headers wanted.
    pub headers: Vec<HeaderName>,
}

/// A policy that is compiled, linked, configured and probed. Immutable; shared by every chain whose spec is equal.
pub trait Prepared: Any + Send + Sync + fmt::Debug {
    /// What the policy says of itself.
    fn description(&self) -> &Description;
    /// Digest of the component.
    fn digest(&self) -> Digest;
    /// Size of the component, where it is known.
    fn size_bytes(&self) -> Option<u64> {
        None
    }
    /// Interfaces that the component imports, sorted.
    fn imports(&self) -> Vec<String> {
        Vec::new()
    }
    /// For the implementing crate to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// State of a preparation.
#[derive(Debug)]
pub enum Preparation {
    /// Ready to decide.
    Ready(Arc<dyn Prepared>),
    /// Under way; the callback of [`Prepare::on_change`] says when to ask again.
    Pending,
    /// Cannot be used as it is. Asking again with the same spec gives the same answer until its source changes.
    Failed(PrepareFailure),
}

/// Why a policy does not load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {}", self.sentence())]
pub struct PrepareFailure {
    /// CamelCase condition reason: `FetchFailed`, `DigestMismatch`, `InvalidComponent`, `WrongWorld`, `ImportNotGranted`,
    /// `UnknownSignal`, `ConfigRejected`, `Impure`, `ProbeFailed`, or that of a bound (docs/policy-guide.md).
    pub reason: &'static str,
    /// One sentence for the policy's author.
    pub message: String,
    /// JSON Pointer into the configuration, where that is at fault.
    pub config_path: Option<String>,
    /// What to do about it; may be empty.
    pub remedy: String,
}

impl PrepareFailure {
    /// The message, and where in the configuration.
    pub fn sentence(&self) -> String {
        match &self.config_path {
            Some(path) => format!("{} (config at `{path}`)", self.message),
            None => self.message.clone(),
        }
    }

    /// The remedy as the end of a sentence; empty where there is none.
    pub fn advice(&self) -> String {
        if self.remedy.is_empty() { String::new() } else { format!("; {}", self.remedy) }
    }
}

/// The control plane's side: makes policies ready. Never called on the request path.
pub trait Prepare: Send + Sync {
    /// What is known of this spec now; starts preparing it if nobody has. Returns at once: compiling happens elsewhere.
    fn prepare(&self, spec: &EntrySpec) -> Preparation;
    /// Registers the one callback that is called when a pending preparation has ended.
    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>);
    /// Forgets everything that none of `live` needs. Called after each publish.
    fn retain(&self, live: &[Arc<EntrySpec>]);
}

/// The request path's side: hands each worker its own evaluator.
pub trait Policies: Send + Sync {
    /// An evaluator for one worker, to stay on that worker's thread.
    fn evaluator(&self, worker: usize) -> Box<dyn Evaluate>;
}

/// One decision to take.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The pool to choose from.
    pub pool: &'a Pool,
    /// The request, reduced.
    pub request: &'a RequestView<'a>,
    /// The pool as it is now. Holds at least the signals of the chain's [`Chain::wants`].
    pub fleet: &'a Fleet,
}

/// Asks a chain. Lives on one worker, keeps that worker's instances; synchronous and bounded.
pub trait Evaluate {
    /// Runs the chain of `call.pool`. Never fails: a failed policy is handled as its failure mode says.
    fn evaluate(&mut self, call: Call<'_>) -> Verdict;
    /// Drops instances of pools and policies that `live` does not hold any more. Called when a worker sees a new snapshot.
    fn retain(&mut self, live: &[Arc<Pool>]);
    /// How many instances are live on this worker.
    fn instances(&self) -> usize;
}

/// What the chain as a whole said.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The choice.
    pub choice: Choice,
    /// Headers to add to the upstream request, already checked.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What each entry did, in order of the chain.
    pub traces: SmallVec<[EntryTrace; 4]>,
}

/// The choice of a chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Choice {
    /// Exactly this endpoint; the host finds the fallback.
    Endpoint(u32),
    /// Best first.
    Ordered(SmallVec<[u32; ORDERED_MAX]>),
    /// The chain ended with scores: best first by score, ties by least in flight, then rotation; at most [`ORDERED_MAX`].
    Scored(SmallVec<[u32; ORDERED_MAX]>),
    /// Prefill on one endpoint, decode on another.
    PrefillDecode {
        /// Index of the prefill endpoint.
        prefill: u32,
        /// Index of the decode endpoint.
        decode: u32,
    },
    /// Draft on one endpoint, target on another.
    DraftTarget {
        /// Index of the draft endpoint.
        draft: u32,
        /// Index of the target endpoint.
        target: u32,
    },
    /// Turn the request away.
    Refuse(Refusal),
    /// A policy failed whose owner chose `Reject`.
    Reject,
    /// Nobody had an opinion: the last resort decides.
    #[default]
    None,
}

/// Why a policy turns a request away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 429 or 503.
    pub status: u16,
    /// For the client; at most [`REASON_BYTES_MAX`] bytes, no control characters.
    pub reason: Box<str>,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

/// What one entry of the chain did in one decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntryTrace {
    /// Index in the chain.
    pub entry: u8,
    /// What it did.
    pub step: Step,
    /// Fuel it used; 0 where it did not run.
    pub fuel: u64,
    /// Wall time of the call in nanoseconds; 0 where it did not run or is not timed.
    pub nanoseconds: u32,
}

/// What one entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Named this endpoint (first of an order, or of a pair).
    Chose(u32),
    /// Gave scores; this is the best.
    Scored(u32),
    /// No opinion.
    Abstained,
    /// Turned the request away.
    Refused,
    /// Not asked: it needs a session and there is none.
    NoSession,
    /// Not asked: the entry is not loaded, or backs off after faults.
    Unavailable,
    /// Failed; handled by its failure mode, unless it only watches.
    Fault(Fault),
    /// Shadow: would have named this endpoint (`None`: would have abstained or refused).
    Shadow(Option<u32>),
}

/// Kinds of fault, as a metrics label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Used up its fuel.
    Fuel,
    /// Asked for more memory than granted.
    Memory,
    /// Trapped.
    Trap,
    /// Answered outside the contract.
    Answer,
    /// Answer or log larger than the host copies out.
    HostCalls,
    /// An instance could not be made.
    Instantiate,
    /// Asked for a plan that this version does not execute.
    NotExecuted,
}

impl Fault {
    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fuel => "fuel",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::Answer => "answer",
            Self::HostCalls => "host_calls",
            Self::Instantiate => "instantiate",
            Self::NotExecuted => "not_executed",
        }
    }
}

/// What a chain needs gathered before it is asked: the union over its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Columns.
    pub signals: SignalSet,
    /// Owners on the session ring.
    pub owners: bool,
    /// Hashes of the prompt's blocks handed over.
    pub prefix_hashes: bool,
    /// Request headers.
    pub headers: Vec<HeaderName>,
}

impl Wants {
    /// The union over the prepared entries of a chain.
    pub fn of(entries: &[crate::pool::Entry]) -> Self {
        let mut wants = Self::default();
        for description in entries.iter().filter_map(|e| e.prepared.as_ref()).map(|p| p.description()) {
            wants.signals = wants.signals.union(description.signals.iter().copied().collect());
            wants.owners |= description.wants_owners;
            wants.prefix_hashes |= description.wants_prefix_hashes;
            for header in &description.headers {
                if !wants.headers.contains(header) {
                    wants.headers.push(header.clone());
                }
            }
        }
        wants
    }

    /// Whether the prompt has to be hashed and looked up.
    pub fn prompt(&self) -> bool {
        self.prefix_hashes || self.signals.has(crate::signal::Signal::CachedTokens)
    }
}

/// A chain without entries: every decision is the last resort's.
impl Default for Chain {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

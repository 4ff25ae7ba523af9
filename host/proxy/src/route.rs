//! Choosing: gathers what the chain of a pool wants to know, asks it, and makes a plan of its answer.
//!
//! Everything here is synchronous. The buffers are the worker's, filled anew for every decision; a request keeps from one
//! decision only what a later attempt needs.

use std::ops::Range;
use std::sync::Arc;

use domain::grudge::{self, GrudgeKeys};
use domain::name::{Generation, PolicyName};
use domain::plan::{self, Order, Plan};
use domain::policy::{Call, EntryTrace, Evaluate, Step};
use domain::pool::{Pool, PoolKey};
use domain::prefix::{BYTES_PER_TOKEN, PrefixIndex, PromptHashes, hash_prompt, prompt_seed};
use domain::published::Reader;
use domain::request::{Fleet, RequestKind, RequestView};
use domain::ring::Owners;
use domain::route::{Limits, SessionKey};
use domain::signal::Signal;
use domain::snapshot::Snapshot;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::explain::Seen;
use crate::server::{Shared, Worker};

/// What deciding needs, one per worker.
pub(crate) struct Router {
    reader: Reader,
    seen: Generation,
    /// The largest body that any gateway takes, bytes.
    body_bytes_max: u64,
    /// A gateway says which web pages may ask it.
    has_cors: bool,
    /// Where most gateways find a session in a body.
    session_field: Option<Box<str>>,
    evaluator: Box<dyn Evaluate>,
    index: Arc<PrefixIndex>,
    fleet: Fleet,
    hashes: PromptHashes,
    /// Whose hashes these are: pool and ticket.
    hashed: Option<(PoolKey, u64)>,
    excluded: Vec<u32>,
    shown: Seen,
    random: fastrand::Rng,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// Bytes of a session's name that are kept without allocating.
const SESSION_INLINE: usize = 64;

/// The facts of a request that decisions are made of; the same for every attempt. They borrow nothing from the body, which
/// is written to between attempts.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// What is asked for.
    pub(crate) kind: RequestKind,
    /// Position in the pool.
    pub(crate) ticket: u64,
    /// Random bits.
    pub(crate) seed: u64,
    /// Session name, if there is one.
    pub(crate) session: Option<SmallVec<[u8; SESSION_INLINE]>>,
    /// Hash of the tenant's name, if there is one.
    pub(crate) tenant: Option<u64>,
    /// Urgency.
    pub(crate) priority: i32,
    /// The client's output limit, tokens.
    pub(crate) output_tokens: Option<u32>,
    /// Where the raw JSON of the prompt stands in the body; empty where there is none.
    pub(crate) prompt: Range<usize>,
    /// Where the raw JSON of the tools stands; empty where there are none.
    pub(crate) tools: Range<usize>,
}

/// What a decision is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The pool to choose from.
    pub(crate) pool: &'a Pool,
    /// The request's facts.
    pub(crate) facts: &'a Facts,
    /// The body that the facts point into.
    pub(crate) body: &'a [u8],
    /// The client's header lines.
    pub(crate) headers: &'a HeaderMap,
}

impl Question<'_> {
    /// What failures of this request are remembered by.
    fn grudge_keys(&self) -> GrudgeKeys {
        let prompt = self.body.get(self.facts.prompt.clone()).unwrap_or_default();
        grudge::keys(self.facts.session.as_deref(), prompt)
    }
}

impl Facts {
    /// Estimated length of the prompt, tokens.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        (self.prompt.len() as f32 / BYTES_PER_TOKEN) as u32
    }
}

/// What was decided.
#[derive(Debug)]
pub(crate) struct Decided {
    /// What to do.
    pub(crate) plan: Plan,
    /// Header lines for the engine.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What each entry of the chain did.
    pub(crate) traces: SmallVec<[EntryTrace; 4]>,
    /// Endpoints that could be chosen.
    pub(crate) candidates: u32,
    /// Tokens of the prompt believed cached, by endpoint, where any are.
    cached: SmallVec<[(u32, f32); 8]>,
}

impl Decided {
    /// Tokens of the prompt that an endpoint is believed to hold.
    pub(crate) fn cached_tokens(&self, endpoint: u32) -> u32 {
        self.cached.iter().find(|(index, _)| *index == endpoint).map_or(0, |(_, tokens)| *tokens as u32)
    }

    /// The policy whose choice or scores the plan comes from.
    pub(crate) fn chooser(&self, pool: &Pool) -> Option<PolicyName> {
        let decided = |trace: &&EntryTrace| matches!(trace.step, Step::Chose(_) | Step::Scored(_));
        let entry = self.traces.iter().rev().find(decided)?.entry;
        Some(pool.chain.entries.get(usize::from(entry))?.spec.name.clone())
    }

    /// The plan of a request that its client pinned to one endpoint: no policy is asked.
    pub(crate) fn pinned(endpoint: u32) -> Self {
        Self::of(Plan::Single(Order::new(SmallVec::from_slice(&[endpoint]), false)), 1)
    }

    /// A plan that no policy was asked for.
    fn of(plan: Plan, candidates: u32) -> Self {
        Self { plan, headers: Vec::new(), traces: SmallVec::new(), candidates, cached: SmallVec::new() }
    }
}

impl Router {
    /// A router for one worker.
    pub(crate) fn new(shared: &Shared, worker: u8) -> Self {
        Self {
            reader: shared.published.reader(),
            seen: Generation(0),
            body_bytes_max: Limits::default().body_bytes_max,
            has_cors: false,
            session_field: SessionKey::default().body_field,
            evaluator: shared.policies.evaluator(usize::from(worker)),
            index: Arc::clone(&shared.index),
            fleet: Fleet::default(),
            hashes: PromptHashes::default(),
            hashed: None,
            excluded: Vec::new(),
            shown: Seen::default(),
            random: fastrand::Rng::new(),
        }
    }

    /// The snapshot in force. The one place where requests load it.
    pub(crate) fn load(&mut self, worker: &Worker) -> Arc<Snapshot> {
        let snapshot = Arc::clone(self.reader.load());
        if snapshot.generation != self.seen {
            self.adopt(&snapshot, worker);
        }
        snapshot
    }

    /// Lets go of what a newer snapshot has replaced, also while there are no requests.
    pub(crate) fn refresh(&mut self, worker: &Worker) {
        self.load(worker);
    }

    fn adopt(&mut self, snapshot: &Snapshot, worker: &Worker) {
        self.seen = snapshot.generation;
        let settings = || snapshot.gateways.iter().map(|gateway| &gateway.settings);
        let default = Limits::default().body_bytes_max;
        self.body_bytes_max =
            settings().map(|settings| settings.limits.body_bytes_max).max().unwrap_or(default);
        self.has_cors = settings().any(|settings| settings.cors.is_some());
        self.session_field = settings().next().and_then(|settings| settings.session_key.body_field.clone());
        self.evaluator.retain(&snapshot.pools);
        let mut slots: Vec<u32> = snapshot.endpoints.iter().map(|endpoint| endpoint.state.slot).collect();
        slots.sort_unstable();
        worker.upstream.retain(|slot| slots.binary_search(&slot).is_ok());
        worker.lines.retain(snapshot);
        worker.recorder.adopt(snapshot);
        worker.recorder.set_policy_instances(self.evaluator.instances());
    }

    /// Policy instances alive on this worker.
    pub(crate) fn policy_instances(&self) -> usize {
        self.evaluator.instances()
    }

    /// A gateway of the snapshot that was loaded last says which web pages may ask it.
    pub(crate) fn has_cors(&self) -> bool {
        self.has_cors
    }

    /// The largest body that any gateway takes, bytes.
    pub(crate) fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max
    }

    /// The body field that most probably names the session: known before the gateway is.
    pub(crate) fn session_field(&self) -> Option<&str> {
        self.session_field.as_deref()
    }

    /// Random bits.
    pub(crate) fn random(&mut self) -> u64 {
        self.random.u64(..)
    }

    /// Asks the chain of the pool, once per request: its order serves the retries too. `now_ms`: coarse time.
    pub(crate) fn decide(&mut self, question: Question<'_>, now_ms: u64) -> Decided {
        let Question { pool, facts, headers, .. } = question;
        let wants = &pool.chain.wants;
        let exclusions = plan::excluded(pool, facts.kind, now_ms, &mut self.excluded);
        if pool.state.grudges.is_active(now_ms) && !exclusions.guarded {
            self.leave_to_others(question, now_ms);
        }
        // With all of them out there is nothing to repair a probe at, and every request finds out.
        let due = exclusions.due.filter(|_| !exclusions.guarded);
        let candidates = pool.endpoints.len().saturating_sub(self.excluded.len()) as u32;
        if pool.chain.entries.is_empty() || candidates == 0 {
            let order = Order::new(SmallVec::new(), true);
            let plan = Plan::Single(due.iter().fold(order, |order, due| order.after(*due)));
            self.shown = Seen::default();
            self.note_avoided(pool, now_ms);
            return Decided::of(plan, candidates);
        }
        self.fleet.gather(pool, wants.signals, now_ms);
        let mut longest = 0.0;
        if wants.prompt() {
            self.hash(question);
            if let Some(column) = self.fleet.column_mut(Signal::CachedTokens) {
                longest = self.index.lookup(pool.key.0, &self.hashes, &pool.slots, column);
            }
        }
        let owners = match &facts.session {
            Some(session) if wants.owners => pool.ring.owners(session),
            _ => Owners::default(),
        };
        let headers = wanted(&wants.headers, headers);
        let request = RequestView {
            ticket: facts.ticket,
            seed: facts.seed,
            now_ms,
            attempt: 0,
            priority: facts.priority,
            prompt_tokens: facts.prompt_tokens(),
            output_tokens: facts.output_tokens,
            session: facts.session.as_deref().map(xxh3_64),
            tenant: facts.tenant,
            excluded: &self.excluded,
            owners: &owners,
            prefix_hashes: if wants.prefix_hashes { self.hashes.as_slice() } else { &[] },
            headers: &headers,
        };
        let verdict = self.evaluator.evaluate(Call { pool, request: &request, fleet: &self.fleet });
        let plan = match (Plan::of(verdict.choice), due) {
            (Plan::Single(order), Some(due)) => Plan::Single(order.after(due)),
            (plan, _) => plan,
        };
        let cached = if longest > 0.0 { self.cached(&plan) } else { SmallVec::new() };
        self.shown = Seen::of(&plan, &self.fleet, &self.excluded);
        self.note_avoided(pool, now_ms);
        Decided { plan, headers: verdict.headers, traces: verdict.traces, candidates, cached }
    }

    fn note_avoided(&mut self, pool: &Pool, now_ms: u64) {
        if !self.excluded.is_empty() {
            self.shown.note_avoided(pool, &self.excluded, now_ms);
        }
    }

    /// What the policies saw at the last decision.
    pub(crate) fn shown(&self) -> &Seen {
        &self.shown
    }

    /// Excludes endpoints that failed this very prompt or session of late, unless no other would be left.
    #[cold]
    fn leave_to_others(&mut self, question: Question<'_>, now_ms: u64) {
        let pool = question.pool;
        let failed = pool.state.grudges.of(&question.grudge_keys(), now_ms);
        let failed = failed.into_iter().filter_map(|slot| pool.slots.get(slot));
        self.excluded.extend(failed);
        self.excluded.sort_unstable();
        self.excluded.dedup();
        if self.excluded.len() == pool.endpoints.len() {
            // Each has failed it: none is better than the others.
            plan::excluded(pool, question.facts.kind, now_ms, &mut self.excluded);
        }
    }

    /// Notes that the endpoint of `slot` failed the prompt and the session in question: both go elsewhere for a while.
    #[cold]
    pub(crate) fn unlearn(&mut self, question: Question<'_>, slot: u32, now_ms: u64) {
        question.pool.state.grudges.note(&question.grudge_keys(), slot, now_ms);
        if question.pool.chain.wants.prompt() && !question.facts.prompt.is_empty() {
            self.hash(question);
            self.index.unlearn(question.pool.key.0, &self.hashes, slot);
        }
    }

    /// What the endpoints of a plan are believed to hold.
    fn cached(&self, plan: &Plan) -> SmallVec<[(u32, f32); 8]> {
        let (Plan::Single(order), Some(column)) = (plan, self.fleet.column(Signal::CachedTokens)) else {
            return SmallVec::new();
        };
        let ranked = order.ranked().iter();
        ranked.filter_map(|index| Some((*index, *column.get(*index as usize)?))).collect()
    }

    /// Notes that the endpoint of `slot` was sent the prompt in question.
    pub(crate) fn learn(&mut self, question: Question<'_>, slot: u32) {
        if question.pool.chain.wants.prompt() && !question.facts.prompt.is_empty() {
            self.hash(question);
            self.index.learn(question.pool.key.0, &self.hashes, slot);
        }
    }

    /// Hashes the prompt, unless the hashes of this very request are still there: nothing waits between a decision and
    /// its dispatch, but another request may have been decided before a retry.
    fn hash(&mut self, question: Question<'_>) {
        let Question { pool, facts, body, .. } = question;
        let request = Some((pool.key, facts.ticket));
        if self.hashed == request {
            return;
        }
        let part = |range: &Range<usize>| body.get(range.clone()).unwrap_or_default();
        hash_prompt(prompt_seed(pool.key.0, part(&facts.tools)), part(&facts.prompt), &mut self.hashes);
        self.hashed = request;
    }
}

/// Those of the wanted header lines that are there and are text.
fn wanted<'a>(names: &[HeaderName], headers: &'a HeaderMap) -> SmallVec<[(HeaderName, &'a str); 4]> {
    names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.to_str().ok()?))).collect()
}

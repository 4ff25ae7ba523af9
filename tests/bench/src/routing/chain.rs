//! The data plane's decision, in virtual time: the same index, ring, live numbers and policy components that a worker of
//! the gateway asks (`host/proxy/src/route.rs`), with the simulator's clock.

use std::collections::HashMap;
use std::sync::Arc;

use domain::endpoint::{EngineReading, InFlight};
use domain::outcome::{Usage, computed_tokens};
use domain::plan::{self, At, Plan};
use domain::policy::{Call, Evaluate, Policies, Step};
use domain::pool::{Entry, Pool};
use domain::prefix::{PREFIX_INDEX_BYTES_DEFAULT, PrefixIndex, PromptHashes, hash_prompt, prompt_seed};
use domain::request::{Fleet, RequestKind, RequestView};
use domain::ring::Owners;
use domain::signal::Signal;
use engine::core::Time;
use engine::fleet::{Done, FleetView, Router};
use engine::workload::{Request, Workload};
use policy::Library;
use xxhash_rust::xxh3::xxh3_64;

use super::pool;

/// Bytes of prompt per token, as everywhere in the gateway.
const TOKEN_BYTES: usize = 4;

/// Hashes of each request's prompt, by the request's place in the workload.
pub(super) struct Hashes(Vec<PromptHashes>);

impl Hashes {
    /// Hashes the workload's prompts: four bytes per token, equal as far as the block ids are.
    pub(super) fn of(workload: &Workload) -> Self {
        let block_bytes = workload.block_tokens as usize * TOKEN_BYTES;
        let mut text = Vec::new();
        let hashes = |request: &Request| {
            text.clear();
            for block in request.blocks.iter() {
                let start = text.len();
                text.extend_from_slice(&block.to_le_bytes());
                // Equal blocks are equal bytes, and no two blocks begin alike.
                text.resize(start + block_bytes, b'.');
            }
            text.truncate(request.prompt_tokens as usize * TOKEN_BYTES);
            // What closes the string; it is never hashed.
            text.push(b'"');
            let mut hashes = PromptHashes::default();
            hash_prompt(prompt_seed(pool::key().0, &[]), &text, &mut hashes);
            hashes
        };
        Self(workload.requests.iter().map(hashes).collect())
    }
}

/// What deciding came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Entries that failed or were not there.
    pub(super) faults: u64,
    /// Decisions that no policy took.
    pub(super) undecided: u64,
}

/// A request under way.
struct Sent {
    in_flight: InFlight,
    at: Time,
    /// Tokens of its prompt that were not believed cached.
    uncached_tokens: u32,
}

/// Routes by a chain of policy components.
pub(super) struct ChainRouter<'a> {
    workload: &'a Workload,
    hashes: &'a Hashes,
    pool: Pool,
    evaluator: Box<dyn Evaluate>,
    index: PrefixIndex,
    fleet: Fleet,
    excluded: Vec<u32>,
    random: fastrand::Rng,
    /// Requests under way, by their place in the workload.
    in_flight: HashMap<usize, Sent>,
    scraped_at: Option<Time>,
    pub(super) tally: Tally,
}

impl<'a> ChainRouter<'a> {
    /// A gateway that has seen nothing yet, in front of so many engines.
    pub(super) fn new(
        (library, entries): (&Library, &[Entry]),
        (workload, hashes): (&'a Workload, &'a Hashes),
        engines: usize,
    ) -> Self {
        Self {
            workload,
            hashes,
            pool: pool::pool(engines, entries.to_vec()),
            evaluator: library.evaluator(0),
            index: PrefixIndex::new(PREFIX_INDEX_BYTES_DEFAULT),
            fleet: Fleet::default(),
            excluded: Vec::new(),
            random: fastrand::Rng::with_seed(7),
            in_flight: HashMap::new(),
            scraped_at: None,
            tally: Tally::default(),
        }
    }

    /// Stores the engines' pages if they were read since the last request.
    fn observe(&mut self, view: &FleetView<'_>) {
        let scraped_at = view.now() - view.scrape_age();
        if self.scraped_at == Some(scraped_at) {
            return;
        }
        self.scraped_at = Some(scraped_at);
        for (engine, endpoint) in self.pool.endpoints.iter().enumerate() {
            let load = view.scraped(engine);
            let reading = EngineReading {
                queued: Some(load.waiting as f32),
                running: Some(load.running as f32),
                kv_usage: Some(load.kv_usage as f32),
                ..EngineReading::default()
            };
            endpoint.state.store_reading(&reading, millis(scraped_at));
        }
    }

    fn decide(&mut self, request: &Request, (place, now_ms): (usize, u64)) -> (u32, u32) {
        let hashes = &self.hashes.0[place];
        let pool = &self.pool;
        let wants = &pool.chain.wants;
        plan::excluded(pool, RequestKind::default(), now_ms, &mut self.excluded);
        self.fleet.gather(pool, wants.signals, now_ms);
        if let Some(column) = self.fleet.column_mut(Signal::CachedTokens) {
            self.index.lookup(pool.key.0, hashes, &pool.slots, column);
        }
        let session = request.session.to_string();
        let owners = if wants.owners { pool.ring.owners(session.as_bytes()) } else { Owners::default() };
        let ticket = pool.state.next_ticket();
        let view = RequestView {
            ticket,
            seed: self.random.u64(..),
            now_ms,
            attempt: 0,
            priority: 0,
            prompt_tokens: request.prompt_tokens,
            output_tokens: None,
            session: Some(xxh3_64(session.as_bytes())),
            tenant: None,
            excluded: &self.excluded,
            owners: &owners,
            prefix_hashes: if wants.prefix_hashes { hashes.as_slice() } else { &[] },
            headers: &[],
        };
        let verdict = self.evaluator.evaluate(Call { pool, request: &view, fleet: &self.fleet });
        let failed = |step: &Step| matches!(step, Step::Fault(_) | Step::Unavailable);
        self.tally.faults += verdict.traces.iter().filter(|trace| failed(&trace.step)).count() as u64;
        let chosen = match Plan::of(verdict.choice) {
            Plan::Single(mut order) => {
                self.tally.undecided += u64::from(order.ranked().is_empty());
                let at = At { kind: RequestKind::default(), tried: &[], now_ms, ticket };
                order.next(pool, &at).unwrap_or_default()
            }
            Plan::TurnAway(_) => {
                self.tally.undecided += 1;
                0
            }
        };
        let cached = self.fleet.column(Signal::CachedTokens).map_or(0.0, |column| column[chosen as usize]);
        if wants.prompt() {
            self.index.learn(pool.key.0, hashes, pool.endpoints[chosen as usize].state.slot);
        }
        (chosen, request.prompt_tokens.saturating_sub(cached as u32))
    }

    /// A request's place in the workload, which lends it to the router: found by its address.
    fn place(&self, request: &Request) -> usize {
        let first = self.workload.requests.as_ptr() as usize;
        (std::ptr::from_ref(request) as usize - first) / size_of::<Request>()
    }
}

impl Router for ChainRouter<'_> {
    fn pick(&mut self, request: &Request, view: &FleetView<'_>) -> usize {
        self.observe(view);
        let place = self.place(request);
        let (chosen, uncached) = self.decide(request, (place, millis(view.now())));
        let state = Arc::clone(&self.pool.endpoints[chosen as usize].state);
        state.recent_tokens().add(uncached as f32, millis(view.now()));
        let in_flight = InFlight::begin(state, uncached);
        self.in_flight.insert(place, Sent { in_flight, at: view.now(), uncached_tokens: uncached });
        chosen as usize
    }

    fn first_token(&mut self, _engine: usize, request: &Request, now: Time) {
        let place = self.place(request);
        if let Some(sent) = self.in_flight.get_mut(&place) {
            sent.in_flight.prefill_done();
            let waited_ms = (now - sent.at).as_secs_f32() * 1e3;
            sent.in_flight.state().requests.averages.observe_first_token(waited_ms, millis(now));
        }
    }

    fn finished(&mut self, _engine: usize, request: &Request, done: &Done) {
        let place = self.place(request);
        if let Some(sent) = self.in_flight.remove(&place) {
            // What the engine reports at the end of its answer.
            let usage = Usage {
                prompt_tokens: request.prompt_tokens.into(),
                cached_tokens: Some(done.cached_tokens.into()),
                completion_tokens: request.output_tokens.into(),
            };
            let computed = computed_tokens(sent.uncached_tokens, Some(usage), (200, 0));
            let state = sent.in_flight.state();
            let now_ms = millis(done.finished_at);
            state.recent_tokens().add(computed - sent.uncached_tokens as f32, now_ms);
            state.requests.averages.observe_end(false, now_ms);
        }
    }
}

/// The gateway's clock; 0 means never.
fn millis(time: Time) -> u64 {
    time.as_millis() as u64 + 1
}

//! Many engines in virtual time under one router.
//!
//! A run is a function of its input: the same workload, fleet and router give the same report. What the router sees of the
//! engines is as old as a scrape; what it sent and what came back it knows at once, as a gateway does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

mod report;
mod router;

pub use report::{EngineReport, Report, percentile};
pub use router::{
    LeastInFlight, LongestPrefix, Oracle, RoundRobin, SessionHash, by_name as router_by_name,
    names as router_names,
};

use crate::core::{Core, CoreConfig, Event, EventKind, Load, SequenceId, Time};
use crate::workload::{Request, Workload};

/// The engines and what is seen of them.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// How many; at least one. Default 8.
    pub engines: usize,
    /// Each of them; `block_tokens` is overruled by the workload's, the bytes of the cache stay.
    pub core: CoreConfig,
    /// How often loads are scraped; zero shows them as they are. Default 200 ms.
    pub scrape_interval: Duration,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self { engines: 8, core: CoreConfig::default(), scrape_interval: Duration::from_millis(200) }
    }
}

/// What a router is told, and decides. A closure `FnMut(&Request, &FleetView<'_>) -> usize` is a router.
pub trait Router {
    /// The engine for a request; beyond the last counts as the last.
    fn pick(&mut self, request: &Request, fleet: &FleetView<'_>) -> usize;

    /// The first token of a request came back.
    fn first_token(&mut self, _engine: usize, _request: &Request, _now: Time) {}

    /// A request ended.
    fn finished(&mut self, _engine: usize, _request: &Request, _done: &Done) {}
}

impl<F: FnMut(&Request, &FleetView<'_>) -> usize> Router for F {
    fn pick(&mut self, request: &Request, fleet: &FleetView<'_>) -> usize {
        self(request, fleet)
    }
}

/// One request's way through the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Which engine.
    pub engine: usize,
    /// When it was sent there.
    pub sent_at: Time,
    /// When its first token came.
    pub first_token_at: Time,
    /// When its last token came.
    pub finished_at: Time,
    /// Prompt tokens found in the cache.
    pub cached_tokens: u32,
}

/// The fleet at the moment of a decision.
#[derive(Debug)]
pub struct FleetView<'a> {
    now: Time,
    scraped_at: Time,
    members: &'a [Member],
}

impl FleetView<'_> {
    /// How many engines.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Never true: a fleet has at least one engine.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How old the scraped loads are.
    pub fn scrape_age(&self) -> Duration {
        self.now - self.scraped_at
    }

    /// What the engine's metrics said at the last scrape.
    pub fn scraped(&self, engine: usize) -> Load {
        self.members[engine].scraped
    }

    /// Requests sent there and not ended: what a gateway counts itself.
    pub fn in_flight(&self, engine: usize) -> u32 {
        self.members[engine].in_flight.len() as u32
    }

    /// Prompt tokens sent there whose first token has not come: what a gateway can count itself.
    pub fn prompt_tokens_in_flight(&self, engine: usize) -> u64 {
        self.members[engine].prompt_tokens_in_flight
    }

    /// The truth, for oracles: the engine's load now.
    pub fn true_load(&self, engine: usize) -> Load {
        self.members[engine].core.load()
    }

    /// The truth, for oracles: prompt tokens the engine's cache holds now.
    pub fn true_cached_tokens(&self, engine: usize, request: &Request) -> u32 {
        self.members[engine].core.cached_tokens(&request.blocks, request.prompt_tokens)
    }

    /// The truth, for oracles: about how long until the first token.
    pub fn true_time_to_first_token(&self, engine: usize, request: &Request) -> Duration {
        self.members[engine].core.time_to_first_token(self.now, &request.blocks, request.prompt_tokens)
    }
}

#[derive(Debug)]
struct Member {
    core: Core,
    scraped: Load,
    in_flight: HashMap<SequenceId, Flight>,
    prompt_tokens_in_flight: u64,
    requests: u64,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    request: usize,
    sent_at: Time,
    first_token_at: Option<Time>,
    cached_tokens: u32,
}

/// Runs a workload through a fleet until the last answer.
pub fn run(workload: &Workload, config: &FleetConfig, router: &mut dyn Router) -> Report {
    let mut fleet = Fleet::new(workload, config);
    while let Some(now) = fleet.next_at() {
        fleet.advance(now, router);
        fleet.scrape(now);
        fleet.arrive(now, router);
    }
    fleet.report()
}

/// About the most requests per second the fleet can sustain on such a workload: at 0.7 of it a fleet is 70 % utilised.
///
/// From what a run with this router left to compute: uncached prompt tokens at prefill speed, and output tokens at the
/// pace of full batches, which the KV cache may keep smaller than the configured size.
pub fn capacity(workload: &Workload, config: &FleetConfig, router: &mut dyn Router) -> f64 {
    let report = run(workload, config, router);
    let requests = report.finished.max(1) as f64;
    let core = &config.core;
    let kv_tokens = f64::from(core.kv_blocks) * f64::from(core.block_tokens);
    let held = (workload.prompt_tokens() + workload.output_tokens() / 2) as f64 / requests;
    let batch = (kv_tokens / held.max(1.0)).clamp(1.0, core.running_max.max(1) as f64);
    let per_output = core.step_base.as_secs_f64() / batch + core.step_per_sequence.as_secs_f64();
    let prefill = core.prefill_time(report.prompt_tokens - report.cached_tokens).as_secs_f64();
    let seconds = prefill + per_output * workload.output_tokens() as f64;
    config.engines.max(1) as f64 * requests / seconds.max(1e-9)
}

struct Fleet<'a> {
    workload: &'a Workload,
    scrape_interval: Duration,
    scraped_at: Time,
    members: Vec<Member>,
    /// Arrivals that may start, soonest first.
    arrivals: BinaryHeap<Reverse<(Time, usize)>>,
    /// Requests that wait for the end of another.
    followers: HashMap<usize, Vec<usize>>,
    done: Vec<Option<Done>>,
    rejected: u64,
    events: Vec<Event>,
}

impl<'a> Fleet<'a> {
    fn new(workload: &'a Workload, config: &FleetConfig) -> Self {
        let tokens = u64::from(config.core.kv_blocks) * u64::from(config.core.block_tokens);
        let core = config.core.clone().with_kv_tokens(tokens, workload.block_tokens);
        let member = || Member {
            core: Core::new(core.clone()),
            scraped: Load::default(),
            in_flight: HashMap::new(),
            prompt_tokens_in_flight: 0,
            requests: 0,
        };
        let mut arrivals = BinaryHeap::new();
        let mut followers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, request) in workload.requests.iter().enumerate() {
            match request.follows {
                Some(before) => followers.entry(before).or_default().push(at),
                None => arrivals.push(Reverse((request.arrival, at))),
            }
        }
        Self {
            workload,
            scrape_interval: config.scrape_interval,
            scraped_at: Time::ZERO,
            members: (0..config.engines.max(1)).map(|_| member()).collect(),
            arrivals,
            followers,
            done: vec![None; workload.requests.len()],
            rejected: 0,
            events: Vec::new(),
        }
    }

    /// When the next thing happens; scrapes happen only at such times, which nobody can tell.
    fn next_at(&self) -> Option<Time> {
        let arrival = self.arrivals.peek().map(|Reverse((at, _))| *at);
        let step = self.members.iter().filter_map(|member| member.core.next_event_at()).min();
        [arrival, step].into_iter().flatten().min()
    }

    fn advance(&mut self, now: Time, router: &mut dyn Router) {
        let mut events = std::mem::take(&mut self.events);
        for engine in 0..self.members.len() {
            let core = &mut self.members[engine].core;
            if core.next_event_at().is_none_or(|at| at > now) {
                continue;
            }
            core.advance(now, &mut events);
            for event in events.drain(..) {
                self.happen(engine, event, router);
            }
        }
        self.events = events;
    }

    fn happen(&mut self, engine: usize, event: Event, router: &mut dyn Router) {
        let member = &mut self.members[engine];
        let Some(flight) = member.in_flight.get_mut(&event.sequence) else { return };
        let request = &self.workload.requests[flight.request];
        match event.kind {
            EventKind::Admitted { cached_tokens } if flight.first_token_at.is_none() => {
                flight.cached_tokens = cached_tokens;
            }
            EventKind::Token { n: 1 } => {
                flight.first_token_at = Some(event.at);
                member.prompt_tokens_in_flight -= u64::from(request.prompt_tokens);
                router.first_token(engine, request, event.at);
            }
            EventKind::Finished => {
                let flight = *flight;
                member.in_flight.remove(&event.sequence);
                let done = Done {
                    engine,
                    sent_at: flight.sent_at,
                    first_token_at: flight.first_token_at.unwrap_or(event.at),
                    finished_at: event.at,
                    cached_tokens: flight.cached_tokens,
                };
                self.done[flight.request] = Some(done);
                router.finished(engine, request, &done);
                self.release_followers(flight.request, event.at);
            }
            EventKind::Admitted { .. } | EventKind::Preempted | EventKind::Token { .. } => {}
        }
    }

    fn release_followers(&mut self, request: usize, at: Time) {
        for follower in self.followers.remove(&request).unwrap_or_default() {
            let arrival = self.workload.requests[follower].arrival.max(at);
            self.arrivals.push(Reverse((arrival, follower)));
        }
    }

    fn scrape(&mut self, now: Time) {
        if now < self.scraped_at + self.scrape_interval {
            return;
        }
        // Scrapes keep their rhythm, however rarely something happens.
        let interval = self.scrape_interval.as_nanos().max(1);
        self.scraped_at = now - Duration::from_nanos((now.as_nanos() % interval) as u64);
        for member in &mut self.members {
            member.scraped = member.core.load();
        }
    }

    fn arrive(&mut self, now: Time, router: &mut dyn Router) {
        while let Some(Reverse((at, index))) = self.arrivals.peek().copied() {
            if at > now {
                return;
            }
            self.arrivals.pop();
            let request = &self.workload.requests[index];
            let view = FleetView { now, scraped_at: self.scraped_at, members: &self.members };
            let engine = router.pick(request, &view).min(self.members.len() - 1);
            let member = &mut self.members[engine];
            member.requests += 1;
            match member.core.submit(now, request.work()) {
                Ok(sequence) => {
                    let flight =
                        Flight { request: index, sent_at: now, first_token_at: None, cached_tokens: 0 };
                    member.in_flight.insert(sequence, flight);
                    member.prompt_tokens_in_flight += u64::from(request.prompt_tokens);
                }
                Err(_) => {
                    self.rejected += 1;
                    self.release_followers(index, now);
                }
            }
        }
    }

    fn report(self) -> Report {
        let engines = self
            .members
            .iter()
            .map(|member| EngineReport { requests: member.requests, totals: *member.core.totals() });
        Report::new(self.workload, engines.collect(), &self.done, self.rejected)
    }
}

#[cfg(test)]
mod tests;

//! A workload like the conversation trace of Mooncake (Qin et al., "Mooncake: A KVCache-centric Disaggregated Architecture
//! for LLM Serving", FAST '25; trace published with the paper).
//!
//! What is published of it, or follows by counting: 12,031 requests in 59 minutes, stamped every 3 seconds; blocks of 512
//! tokens; input p50 and p90 6,909 and 27,367 tokens, output 350 and 597; block 0 in every request; 36.6 % of the blocks
//! hit with a cache without bound. A third of the requests continue an earlier one, 33 to 528 seconds after it; some share
//! the first blocks of another conversation and go on differently. No byte of the trace is in here.

use std::time::Duration;

use fastrand::Rng;

use super::conversation::{Conversation, Ids};
use super::sample::{exponential, log_normal, quantile};
use super::{Request, Workload};

/// How much of it, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mooncake {
    /// Requests. Default 12,031.
    pub requests: usize,
    /// Mean arrivals per second. Default 3.4, the trace's own.
    pub requests_per_second: f64,
    /// Of the generator. Default 1.
    pub seed: u64,
}

impl Default for Mooncake {
    fn default() -> Self {
        Self { requests: 12_031, requests_per_second: 3.4, seed: 1 }
    }
}

const BLOCK_TOKENS: u32 = 512;
/// The whole trace, and the median gap within a conversation: shorter workloads keep the ratio of the two, and with it
/// the share of conversations that are cut off at the end.
const SPAN_SECONDS: f64 = 3_537.0;
const GAP_MEDIAN_SECONDS: f64 = 144.0;
const STAMP: Duration = Duration::from_secs(3);

/// Lengths of first prompts and of answers, as quantiles.
const FIRST_TOKENS: [(f64, f64); 9] = [
    (0.0, 891.0),
    (0.1, 897.0),
    (0.25, 1_340.0),
    (0.5, 5_260.0),
    (0.75, 13_060.0),
    (0.9, 25_560.0),
    (0.95, 38_500.0),
    (0.99, 89_900.0),
    (1.0, 126_000.0),
];
const OUTPUT_TOKENS: [(f64, f64); 9] = [
    (0.0, 1.0),
    (0.1, 24.0),
    (0.25, 156.0),
    (0.5, 350.0),
    (0.75, 472.0),
    (0.9, 597.0),
    (0.95, 698.0),
    (0.99, 1_120.0),
    (1.0, 2_000.0),
];
/// What a user adds to what was said.
const ADDED_TOKENS: [(f64, f64); 7] =
    [(0.0, 4.0), (0.25, 10.0), (0.5, 46.0), (0.75, 489.0), (0.9, 4_230.0), (0.99, 16_700.0), (1.0, 40_000.0)];

/// The chance that another turn follows the `n`-th, counted from zero; those who stay long stay longer.
fn goes_on(turn: u32) -> f64 {
    [0.31, 0.34, 0.44, 0.50, 0.60][turn.min(4) as usize]
}

/// The share of conversations that begin with the blocks of another one, and how many of its tokens they take at most.
const BORROWING: f64 = 0.085;

/// Generates it. Deterministic.
pub fn mooncake(params: Mooncake) -> Workload {
    let mut rng = Rng::with_seed(params.seed);
    let mut ids = Ids::default();
    let span = params.requests as f64 / params.requests_per_second.max(1e-9);
    let gap_median = GAP_MEDIAN_SECONDS * span / SPAN_SECONDS;
    let stamp = STAMP.mul_f64(span / SPAN_SECONDS).min(STAMP);
    let mut common = Conversation::new(BLOCK_TOKENS);
    common.say(BLOCK_TOKENS, &mut ids);
    let mut source = Source { rng: &mut rng, ids: &mut ids, common, gap_median, told: Vec::new() };
    let mut drafts: Vec<Draft> = Vec::new();
    // About 0.64 conversations start per request; a tenth more are made, and what comes too late is left out.
    let between = Duration::from_secs_f64(span / (0.72 * params.requests.max(1) as f64));
    let mut start = Duration::ZERO;
    while start.as_secs_f64() < span {
        source.converse(start, &mut drafts);
        start += exponential(source.rng, between);
    }
    drafts.retain(|draft| draft.at.as_secs_f64() < span);
    drafts.sort_by_key(|draft| (draft.at, draft.session, draft.turn));
    drafts.truncate(params.requests);
    let stretch = span / drafts.last().map_or(span, |draft| draft.at.as_secs_f64()).max(1e-9);
    let mut requests: Vec<Request> = drafts.into_iter().map(|draft| draft.request).collect();
    for request in &mut requests {
        let stamps = (request.arrival.as_secs_f64() * stretch / stamp.as_secs_f64().max(1e-9)).floor();
        request.arrival = stamp.mul_f64(stamps);
    }
    Workload { name: "mooncake-like".to_owned(), block_tokens: BLOCK_TOKENS, requests }
}

struct Draft {
    at: Duration,
    session: u64,
    turn: u32,
    request: Request,
}

struct Source<'a> {
    rng: &'a mut Rng,
    ids: &'a mut Ids,
    common: Conversation,
    gap_median: f64,
    /// A few earlier conversations others may begin like.
    told: Vec<Conversation>,
}

impl Source<'_> {
    fn converse(&mut self, start: Duration, drafts: &mut Vec<Draft>) {
        let session = drafts.len() as u64;
        let mut said = self.opening();
        let (mut at, mut turn) = (start, 0);
        loop {
            let output_tokens = (quantile(self.rng, &OUTPUT_TOKENS) as u32).max(1);
            drafts.push(Draft {
                at,
                session,
                turn,
                request: Request {
                    arrival: at,
                    follows: None,
                    session,
                    tenant: 0,
                    blocks: said.blocks(),
                    prompt_tokens: said.tokens(),
                    output_tokens,
                },
            });
            if self.rng.f64() >= goes_on(turn) {
                break;
            }
            turn += 1;
            at += Duration::from_secs_f64(log_normal(self.rng, self.gap_median, 0.94));
            let added = quantile(self.rng, &ADDED_TOKENS) as u32;
            said.say(output_tokens + added, self.ids);
            if said.tokens() > 128_000 {
                break;
            }
        }
        const TOLD_MAX: usize = 64;
        match self.told.len() {
            TOLD_MAX => {
                let at = self.rng.usize(..TOLD_MAX);
                self.told[at] = said;
            }
            _ => self.told.push(said),
        }
    }

    /// What a conversation begins with: block 0, now and then some of another conversation, and its own prompt.
    fn opening(&mut self) -> Conversation {
        let length = quantile(self.rng, &FIRST_TOKENS) as u32;
        let mut said = self.common.clone();
        if !self.told.is_empty() && self.rng.f64() < BORROWING {
            let other = &self.told[self.rng.usize(..self.told.len())];
            let taken = self.rng.u32(BLOCK_TOKENS..=other.tokens().max(BLOCK_TOKENS));
            said = other.fork(taken);
        }
        said.say(length.saturating_sub(said.tokens()).max(16), self.ids);
        said
    }
}

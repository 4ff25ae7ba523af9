//! Where most of the prompt is cached, unless waiting there costs more than it saves.
//!
//! Every endpoint gets a *cost*: how many tokens of prefill stand between the request and its first output token, there and now.
//!
//! - What waits ahead of it: half of the uncached prompt tokens this gateway has in flight there. They count as in flight until the
//!   first token is here, so that half of them are computed already, as a rule.
//! - Its own prompt, less what is believed cached there. That is the whole affinity: a hit is worth the prefill it saves, and the
//!   holder is let go as soon as the queue in front of it is longer than that.
//! - What is being decoded there. It delays nobody's first token by much, but without it everything would gather where a prompt
//!   that all requests share (a system prompt) was computed first: prefill is short then and queues stay empty. So the endpoint's
//!   requests in flight cost `balance` prompts per multiple of the mean. An endpoint that carries twice the mean has to save 0.4 of
//!   the prompt more than others to be worth it, and copies of what is popular spread to where there is room.
//! - What was computed there of late, prompts and answers, while the fleet is busy. An engine that was given more prompts than its
//!   cache holds computes them over and over; its requests in flight may be no more than others' all the while. On a fleet where
//!   less than one request is in flight per engine this counts the less, the quieter it is: there, work is no reason to leave a cache.
//!
//! The cheapest endpoint scores 1, the others less, the dearer the steeper, so that the next policy may choose among near-equals
//! and has to have a good reason to choose another.
//!
//! A prompt of which nobody holds anything has a *home*: the winner of a rendezvous hash of its first block over the endpoints that
//! cost hardly more than the cheapest. Gateways that know nothing of each other agree on it.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, lanes};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "balance": {
      "type": "number", "minimum": 0, "maximum": 100, "default": 0.4,
      "description": "What carrying the mean number of requests costs, in prompts. More spreads better, less hits more."
    },
    "thresholdHitRate": {
      "type": "number", "minimum": 0, "maximum": 1, "default": 0,
      "description": "Share of the prompt that must be cached for the cache to outweigh load. Default: the pool's."
    },
    "evictionThreshold": {
      "type": "number", "minimum": 0, "maximum": 1, "default": 0.9,
      "description": "KV cache usage from which an endpoint is given no new prefixes. Default: the pool's."
    },
    "pool": {"type": "object"}
  },
  "additionalProperties": false
}"#;

/// How fast the score falls: a sixteenth of the prompt dearer than the cheapest is half as good.
const STEEPNESS: f32 = 16.0;

/// How much of the prompts in flight is still to be computed, in the mean.
const LEFT: f32 = 0.5;

/// What having computed the mean of late costs on a busy fleet, in prompts. `bench routing` has the effect of it.
const WORK: f32 = 1.5;

/// A mean of recent tokens below which a difference is chance.
const FEW_TOKENS: f32 = 4096.0;

/// What a hit below the threshold is worth: it decides among equally loaded endpoints, no more.
const FAINT: f32 = 0.02;

/// How much dearer than the cheapest a home may be, in prompts.
const HOME_BOUND: f32 = 0.1;

/// Endpoints that are ranked together.
const LANES: usize = 16;

/// What the others score where there is a home.
const AWAY: f32 = 0.9;

/// The policy.
#[derive(Debug)]
pub struct PrefixHash {
    balance: f32,
    threshold: f32,
    eviction: f32,
    /// 1 ÷ weight, by endpoint.
    share: Vec<f32>,
    /// A hash of its identity, by endpoint.
    names: Vec<u32>,
}

impl Policy for PrefixHash {
    const ABOUT: About = About {
        config_schema: SCHEMA,
        signals: &[
            Signal::InFlight,
            Signal::InFlightTokens,
            Signal::RecentTokens,
            Signal::KvUsage,
            Signal::CachedTokens,
        ],
        wants_prefix_hashes: true,
        ..About::new(
            "prefix-hash",
            env!("CARGO_PKG_VERSION"),
            "Where most of the prompt is cached, unless waiting there costs more than it saves.",
        )
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        let ratio =
            |settings: &mut Settings, key: &str, default: f64| settings.number(key, default, 0.0..=1.0);
        let (threshold, eviction) = settings.pool(|pool| {
            Ok((ratio(pool, "thresholdHitRate", 0.0)?, ratio(pool, "evictionThreshold", 0.9)?))
        })?;
        Ok(Self {
            balance: settings.number("balance", 0.4, 0.0..=100.0)? as f32,
            threshold: ratio(settings, "thresholdHitRate", threshold)? as f32,
            eviction: ratio(settings, "evictionThreshold", eviction)? as f32,
            share: Vec::new(),
            names: Vec::new(),
        })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
        self.names = pool.endpoints.iter().map(|endpoint| hash(endpoint.id.as_bytes())).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let prompt = request.prompt_tokens.max(1) as f32;
        let mut costs = self.costs(prompt, fleet);
        fleet.mask(&mut costs);
        let least = lanes::min(&costs);
        if least == f32::INFINITY {
            return Decision::abstain();
        }
        // Most prompts are known somewhere; only for the others is there a home to find.
        let home = match request.prefix_hashes.as_deref() {
            Some([first, ..]) if lanes::max(fleet.column(Signal::CachedTokens)) <= 0.0 => {
                home(&self.names, &costs, least + HOME_BOUND * prompt, *first)
            }
            _ => None,
        };
        let mut scores = costs;
        let (slope, best) = (STEEPNESS / prompt, if home.is_some() { AWAY } else { 1.0 });
        for score in &mut scores {
            *score = best / (1.0 + (*score - least) * slope);
        }
        if let Some(home) = home {
            scores[home] = 1.0;
        }
        if let Some(before) = fleet.scores() {
            for (score, before) in scores.iter_mut().zip(before) {
                *score *= before;
            }
        }
        Decision::scores(scores)
    }
}

impl PrefixHash {
    /// What each endpoint costs this request, in tokens of prefill. One pass over five columns, without a branch.
    fn costs(&self, prompt: f32, fleet: &Fleet<'_>) -> Vec<f32> {
        let inflight = fleet.column(Signal::InFlight);
        let recent = fleet.column(Signal::RecentTokens);
        let mean = lanes::mean(inflight).unwrap_or(0.0);
        let mean_recent = lanes::mean(recent).unwrap_or(0.0).max(FEW_TOKENS);
        // Above zero, so that nothing cached is never enough.
        let enough = (self.threshold * prompt).max(f32::MIN_POSITIVE);
        let per_request = self.balance * prompt / mean.max(1.0);
        let per_token = WORK * prompt * mean.min(1.0) / mean_recent;
        let memory = fleet.column(Signal::CachedTokens).iter().zip(fleet.column(Signal::KvUsage));
        let load = fleet.column(Signal::InFlightTokens).iter().zip(inflight);
        let columns = memory.zip(load).zip(recent.iter().zip(&self.share));
        let cost = columns.map(|(((cached, kv), (tokens, inflight)), (recent, share))| {
            // Comparisons with what is unknown (NaN) are false: such an engine holds nothing, is not full and has nothing in flight.
            let cached = if *cached > 0.0 { *cached } else { 0.0 };
            let affine = cached >= enough;
            let held = if affine { cached } else { cached * FAINT };
            let full = (*kv >= self.eviction) & !affine;
            let inflight = if *inflight > 0.0 { *inflight } else { 0.0 };
            let waiting = if *tokens > 0.0 { *tokens } else { 0.0 };
            let recent = if *recent > 0.0 { *recent } else { 0.0 };
            let refused = if full { prompt } else { 0.0 };
            let others = waiting * LEFT + inflight * per_request + recent * per_token;
            (others + (prompt - held) + refused) * share
        });
        cost.collect()
    }
}

/// The home of a prompt: of the endpoints that cost no more than `bound`, the one whose name and the prompt's first block hash
/// highest together. One that comes or goes moves only its own prompts.
fn home(names: &[u32], costs: &[f32], bound: f32, first_block: u64) -> Option<usize> {
    let key = (first_block ^ (first_block >> 32)) as u32;
    // Positive where it may be the home, else 0. Without a branch, so that several are ranked at a time.
    let rank = |name: u32, cost: f32| ((mix(name ^ key) >> 1) as i32 | 1) & -i32::from(cost <= bound);
    let (mut highest, mut places) = ([0; LANES], [0; LANES]);
    let (names, names_left) = names.as_chunks::<LANES>();
    let (costs, costs_left) = costs.as_chunks::<LANES>();
    for (chunk, (names, costs)) in (0..).zip(names.iter().zip(costs)) {
        for lane in 0..LANES {
            let rank = rank(names[lane], costs[lane]);
            let higher = rank > highest[lane];
            highest[lane] = if higher { rank } else { highest[lane] };
            places[lane] = if higher { chunk } else { places[lane] };
        }
    }
    let start = names.len() * LANES;
    let ahead = (0..LANES).map(|lane| (highest[lane], places[lane] * LANES + lane));
    let left =
        names_left.iter().zip(costs_left).zip(start..).map(|((name, cost), at)| (rank(*name, *cost), at));
    let (rank, home) = ahead.chain(left).max_by_key(|(rank, _)| *rank)?;
    (rank > 0).then_some(home)
}

/// Spreads the bits of a number; multiplications that vector units have.
fn mix(mut number: u32) -> u32 {
    number = (number ^ (number >> 16)).wrapping_mul(0x7feb_352d);
    number = (number ^ (number >> 15)).wrapping_mul(0x846c_a68b);
    number ^ (number >> 16)
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

wicketgate_sdk::export!(PrefixHash);

#[cfg(test)]
mod tests;

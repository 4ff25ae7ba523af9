//! v1
use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, lanes};

const SCHEMA: &str =
    r#"{"type":"object","properties":{"pool":{"type":"object"}},"additionalProperties":false}"#;

/// The policy.
#[derive(Debug)]
pub struct PrefixHash {
    threshold: f32,
    eviction: f32,
    request_tokens: f32,
    gain: f32,
    steep: f32,
    share: Vec<f32>,
    names: Vec<u32>,
}

impl Policy for PrefixHash {
    const ABOUT: About = About {
        config_schema: SCHEMA,
        signals: &[Signal::CachedTokens, Signal::InFlightTokens, Signal::InFlight, Signal::KvUsage],
        wants_prefix_hashes: true,
        ..About::new("prefix-hash", env!("CARGO_PKG_VERSION"), "v1")
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        let (threshold, eviction) = settings.pool(|pool| {
            Ok((
                pool.number("thresholdHitRate", 0.0, 0.0..=1.0)? as f32,
                pool.number("evictionThreshold", 0.9, 0.0..=1.0)? as f32,
            ))
        })?;
        let request_tokens = settings.number("requestTokens", 0.0, 0.0..=1e6)? as f32;
        let steep = settings.number("steep", 4.0, 0.0..=1e6)? as f32;
        let gain = settings.number("gain", 0.5, 0.0..=1e6)? as f32;
        Ok(Self { steep, gain, threshold, eviction, request_tokens, share: Vec::new(), names: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
        self.names = pool.endpoints.iter().map(|e| fold(e.id.as_bytes())).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let prompt = request.prompt_tokens.max(1) as f32;
        let enough = self.threshold * prompt;
        let cached = fleet.column(Signal::CachedTokens);
        let tokens = fleet.column(Signal::InFlightTokens);
        let inflight = fleet.column(Signal::InFlight);
        let kv = fleet.column(Signal::KvUsage);
        let mean = lanes::mean(inflight).unwrap_or(0.0);
        let per = self.request_tokens + self.gain * prompt / mean.max(1.0);
        let mut costs: Vec<f32> = cached
            .iter()
            .zip(tokens)
            .zip(inflight.iter().zip(kv))
            .zip(&self.share)
            .map(|(((cached, tokens), (inflight, kv)), share)| {
                let held = if *cached >= enough { *cached } else { 0.0 };
                let full = if (*kv >= self.eviction) & (held == 0.0) { prompt } else { 0.0 };
                let inflight = if inflight.is_nan() { 0.0 } else { *inflight };
                let waiting = if tokens.is_nan() { inflight * prompt } else { *tokens };
                (waiting + inflight * per + (prompt - held) + full) * share
            })
            .collect();
        fleet.mask(&mut costs);
        let least = lanes::min(&costs);
        if least == f32::INFINITY {
            return Decision::abstain();
        }
        let rate = self.steep / prompt;
        match fleet.scores() {
            None => {
                for cost in &mut costs {
                    *cost = 1.0 / (1.0 + (*cost - least) * rate);
                }
            }
            Some(scores) => {
                for (cost, score) in costs.iter_mut().zip(scores) {
                    *cost = *score / (1.0 + (*cost - least) * rate);
                }
            }
        }
        Decision::scores(costs)
    }
}

fn fold(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

wicketgate_sdk::export!(PrefixHash);

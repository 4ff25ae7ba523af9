//! v1
use wicketgate_sdk::{
    About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, choose, lanes,
};

/// The policy.
#[derive(Debug)]
pub struct LoadAware {
    beta: f32,
    scale: f32,
    share: Vec<f32>,
}

impl Policy for LoadAware {
    const ABOUT: About = About {
        signals: &[Signal::InFlight, Signal::InFlightTokens],
        ..About::new("load-aware", env!("CARGO_PKG_VERSION"), "v1")
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self { scale: settings.number("scale", 1.0, 0.0..=1e9)? as f32, beta: settings.number("beta", 1.0, 0.0..=100.0)? as f32, share: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let inflight = fleet.column(Signal::InFlight);
        let tokens = fleet.column(Signal::InFlightTokens);
        let rate = self.scale / request.prompt_tokens.max(1) as f32;
        let mut values: Vec<f32> = inflight
            .iter()
            .zip(tokens)
            .zip(&self.share)
            .map(|((inflight, tokens), share)| {
                let inflight = if inflight.is_nan() { 0.0 } else { *inflight };
                let weighed = *tokens * rate;
                let weighed = if weighed.is_nan() { 0.0 } else { weighed };
                (inflight + weighed) * share
            })
            .collect();
        fleet.mask(&mut values);
        let mean = lanes::mean(&values).unwrap_or(0.0);
        let slope = self.beta / mean.max(1.0);
        match fleet.scores() {
            None => {
                for value in &mut values {
                    *value = (mean - *value) * slope;
                }
            }
            Some(scores) => {
                for (value, score) in values.iter_mut().zip(scores) {
                    *value = *score + (mean - *value) * slope;
                }
            }
        }
        let best = lanes::max(&values);
        Decision::endpoint_or_abstain(choose::by_turn(&values, best, request.ticket))
    }
}

wicketgate_sdk::export!(LoadAware);

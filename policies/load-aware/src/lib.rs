//! The best score, less what the load above the mean takes from it.
//!
//! For every endpoint: `score − beta × (load − mean) / max(1, mean)`, where `load` is the requests in flight there plus the uncached
//! prompt tokens that wait there, counted in prompts of this request's length, and `mean` is over those that may be chosen. The
//! highest wins, equals take turns. So an endpoint that the policies before this one praise keeps its lead until it carries too
//! much more than the others; without scores this is least loaded, by tokens and not only by heads.
//!
//! The answer is one endpoint and no order: if it fails, the gateway asks again without it, when the numbers are newer.

use wicketgate_sdk::{
    About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, choose, lanes,
};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "beta": {
      "type": "number", "minimum": 0, "maximum": 100, "default": 0.3,
      "description": "What twice the mean load costs, in scores from 0 to 1. More spreads better and follows scores less."
    },
    "pool": {"type": "object"}
  },
  "additionalProperties": false
}"#;

/// The policy.
#[derive(Debug)]
pub struct LoadAware {
    beta: f32,
    /// 1 ÷ weight, by endpoint.
    share: Vec<f32>,
}

impl Policy for LoadAware {
    const ABOUT: About = About {
        config_schema: SCHEMA,
        signals: &[Signal::InFlight, Signal::InFlightTokens],
        ..About::new(
            "load-aware",
            env!("CARGO_PKG_VERSION"),
            "The best score, less what the load above the mean takes from it.",
        )
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self { beta: settings.number("beta", 0.3, 0.0..=100.0)? as f32, share: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let per_token = 1.0 / request.prompt_tokens.max(1) as f32;
        let columns = fleet.column(Signal::InFlight).iter().zip(fleet.column(Signal::InFlightTokens));
        let load = |((inflight, tokens), share): ((&f32, &f32), &f32)| {
            // Comparisons with what is unknown (NaN) are false: nothing is known to be in flight there.
            let inflight = if *inflight > 0.0 { *inflight } else { 0.0 };
            let tokens = if *tokens > 0.0 { *tokens } else { 0.0 };
            (inflight + tokens * per_token) * share
        };
        let mut loads: Vec<f32> = columns.zip(&self.share).map(load).collect();
        // Whom the request may not go to is NaN from here on: no part of the mean, and never the highest.
        fleet.mask(&mut loads);
        let mean = lanes::mean(&loads).unwrap_or(0.0);
        let slope = self.beta / mean.max(1.0);
        let mut values = loads;
        match fleet.scores() {
            None => values.iter_mut().for_each(|value| *value = -*value),
            Some(scores) => {
                for (value, score) in values.iter_mut().zip(scores) {
                    *value = score - (*value - mean) * slope;
                }
            }
        }
        Decision::endpoint_or_abstain(choose::by_turn(&values, lanes::max(&values), request.ticket))
    }
}

wicketgate_sdk::export!(LoadAware);

#[cfg(test)]
mod tests {
    use wicketgate_sdk::testing::{Case, Harness, check_description, pool, refusal, weighted_pool};

    use super::*;

    fn load(inflight: [f32; 4], tokens: [f32; 4]) -> Case {
        Case::new().column(Signal::InFlight, inflight).column(Signal::InFlightTokens, tokens)
    }

    fn choose(config: &str, case: &Case) -> Option<usize> {
        Harness::<LoadAware>::new(config, &pool(4)).choose(case)
    }

    #[test]
    fn without_scores_the_least_loaded_is_chosen() {
        let table = [
            (load([3.0, 1.0, 2.0, 2.0], [0.0; 4]), Some(1)),
            (load([3.0, 1.0, 2.0, 2.0], [0.0; 4]).excluded([1]).ticket(1), Some(3)),
            (load([1.0; 4], [2_000.0, 500.0, 9_000.0, 800.0]), Some(1)),
            (load([1.0, 3.0, 9.0, 9.0], [5_000.0, 0.0, 0.0, 0.0]), Some(1)),
            (load([f32::NAN, 1.0, 1.0, 1.0], [f32::NAN; 4]), Some(0)),
            (load([0.0; 4], [0.0; 4]).excluded([0, 1, 2, 3]), None),
        ];
        for (case, expected) in table {
            assert_eq!(choose("{}", &case), expected, "{case:?}");
        }
    }

    #[test]
    fn waiting_tokens_weigh_the_more_the_shorter_the_prompt() {
        let case = load([1.0, 4.0, 9.0, 9.0], [2_000.0, 0.0, 0.0, 0.0]);
        assert_eq!(choose("{}", &case.clone().prompt_tokens(4_000)), Some(0));
        assert_eq!(choose("{}", &case.prompt_tokens(200)), Some(1));
    }

    #[test]
    fn a_score_keeps_its_lead_until_the_load_outweighs_it() {
        let scores = [0.5, 1.0, 0.5, 0.5];
        let table = [
            ([2.0, 4.0, 2.0, 2.0], "{}", 1),
            ([2.0, 9.0, 2.0, 3.0], "{}", 0),
            ([2.0, 9.0, 2.0, 3.0], r#"{"beta":0.1}"#, 1),
            ([2.0, 4.0, 2.0, 3.0], r#"{"beta":5}"#, 0),
        ];
        for (inflight, config, expected) in table {
            let case = load(inflight, [0.0; 4]).scores(scores);
            assert_eq!(choose(config, &case), Some(expected), "{config} {inflight:?}");
        }
    }

    #[test]
    fn a_nearly_idle_fleet_does_not_exaggerate() {
        // One request among four endpoints: 0.75 above the mean of 0.25, which counts as 1.
        let case = load([0.0, 1.0, 0.0, 0.0], [0.0; 4]);
        assert_eq!(choose("{}", &case.clone().scores([0.4, 1.0, 0.4, 0.4])), Some(1));
        assert_eq!(choose("{}", &case.scores([0.8, 1.0, 0.8, 0.8]).ticket(2)), Some(3));
    }

    #[test]
    fn equals_take_turns_and_nan_is_never_chosen() {
        let idle = load([0.0; 4], [0.0; 4]);
        let turns: Vec<_> = (0..4).map(|ticket| choose("{}", &idle.clone().ticket(ticket))).collect();
        assert_eq!(turns, [0, 1, 2, 3].map(Some));
        let scores = [f32::NAN, 0.0, f32::NAN, 0.0];
        let turns: Vec<_> =
            (0..4).map(|ticket| choose("{}", &idle.clone().scores(scores).ticket(ticket))).collect();
        assert_eq!(turns, [1, 3, 1, 3].map(Some));
    }

    #[test]
    fn weight_buys_room() {
        let policy = Harness::<LoadAware>::new("{}", &weighted_pool(&[1, 1, 4, 1]));
        assert_eq!(policy.choose(&load([1.0, 1.0, 3.0, 1.0], [0.0; 4])), Some(2));
    }

    #[test]
    fn settings_are_checked() {
        check_description::<LoadAware>();
        for (config, path) in [(r#"{"beta":-1}"#, "/beta"), (r#"{"alpha":1}"#, "/alpha"), ("[]", "")] {
            assert_eq!(refusal::<LoadAware>(config).path, path, "{config}");
        }
    }
}

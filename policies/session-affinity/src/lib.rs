//! A session stays with its owner on the pool's consistent-hash ring.
//!
//! The ring is the host's: it hands in the first three owners of the request's session, and an endpoint that comes or goes moves
//! only its own sessions. This policy takes the first owner that may be chosen and is not *saturated*: has more in flight than
//! `bound` times its fair share of what the pool has in flight (and `slack` requests more, so that a nearly idle pool never counts
//! as crowded). If all owners are, it has no opinion and the rest of the chain decides.
//!
//! With `mode: pin` that owner is the answer, whatever comes later in the chain. With `mode: prefer` it is only scored above the
//! others, and a policy that knows where the prompt is cached may overrule it: a ring spreads sessions evenly, and so needs every
//! prefix on every engine, where `prefix-hash` can keep those of one tenant together.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, lanes};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "mode": {
      "enum": ["pin", "prefer"], "default": "pin",
      "description": "pin: the owner serves the session. prefer: the owner gets the best score and the next policy decides."
    },
    "bound": {
      "type": "number", "minimum": 1, "maximum": 1000, "default": 1.25,
      "description": "An owner with more in flight than this many times its fair share, plus `slack`, is passed over."
    },
    "slack": {
      "type": "number", "minimum": 0, "maximum": 1000, "default": 1,
      "description": "Requests that an owner may always have in flight beyond the bound."
    },
    "pool": {"type": "object"}
  },
  "additionalProperties": false
}"#;

/// What everybody but the owner is worth under `prefer`: enough less to decide among equals, too little to outweigh a cached
/// prompt.
const OTHERS: f32 = 0.75;

/// The policy.
#[derive(Debug)]
pub struct SessionAffinity {
    mode: Mode,
    bound: f32,
    slack: f32,
    /// Weight ÷ the weight of the whole pool, by endpoint.
    fair: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pin,
    Prefer,
}

impl Policy for SessionAffinity {
    const ABOUT: About = About {
        config_schema: SCHEMA,
        signals: &[Signal::InFlight],
        wants_owners: true,
        // Without a session there is nothing to decide, and the cheapest call is none.
        needs_session: true,
        ..About::new(
            "session-affinity",
            env!("CARGO_PKG_VERSION"),
            "The session's owner on the hash ring, unless it is saturated.",
        )
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        let mode = match settings.text("mode")?.as_deref() {
            None | Some("pin") => Mode::Pin,
            Some("prefer") => Mode::Prefer,
            Some(other) => {
                return Err(settings.refuse("mode", format_args!("must be pin or prefer, not {other}")));
            }
        };
        let bound = settings.number("bound", 1.25, 1.0..=1000.0)? as f32;
        let slack = settings.number("slack", 1.0, 0.0..=1000.0)? as f32;
        Ok(Self { mode, bound, slack, fair: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        let weights = || pool.endpoints.iter().map(|endpoint| endpoint.weight.max(1) as f32);
        let total: f32 = weights().sum();
        self.fair = weights().map(|weight| weight / total).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let inflight = fleet.column(Signal::InFlight);
        let (total, _) = lanes::sum(inflight);
        let owners = request.owners.iter().flatten().map(|&owner| owner as usize);
        let mut free = owners.filter(|&owner| {
            let saturated = inflight[owner] > self.bound * total * self.fair[owner] + self.slack;
            fleet.is_candidate(owner) && !saturated
        });
        match (free.next(), self.mode) {
            (None, _) => Decision::abstain(),
            (Some(owner), Mode::Pin) => Decision::endpoint(owner),
            (Some(owner), Mode::Prefer) => Decision::scores(preferring(owner, fleet)),
        }
    }
}

/// The scores handed in, or 1 for everybody, less for all but the owner.
fn preferring(owner: usize, fleet: &Fleet<'_>) -> Vec<f32> {
    let mut scores: Vec<f32> = match fleet.scores() {
        None => vec![OTHERS; fleet.len()],
        Some(scores) => scores.iter().map(|score| score * OTHERS).collect(),
    };
    scores[owner] = fleet.scores().map_or(1.0, |scores| scores[owner]);
    scores
}

wicketgate_sdk::export!(SessionAffinity);

#[cfg(test)]
mod tests {
    use wicketgate_sdk::Choice;
    use wicketgate_sdk::testing::{Case, Harness, check_description, pool, refusal, weighted_pool};

    use super::*;

    fn session(inflight: [f32; 4]) -> Case {
        Case::new().column(Signal::InFlight, inflight).owners([2, 0, 3])
    }

    #[test]
    fn the_first_owner_that_may_be_chosen_and_is_not_saturated_serves() {
        let policy = Harness::<SessionAffinity>::new("{}", &pool(4));
        let table = [
            (session([0.0; 4]), Some(2)),
            (session([f32::NAN; 4]), Some(2)),
            (session([0.0, 0.0, 1.0, 0.0]), Some(2)),
            (session([4.0, 4.0, 6.0, 4.0]), Some(2)),
            (session([4.0, 4.0, 8.0, 4.0]), Some(0)),
            (session([9.0, 0.0, 9.0, 0.0]), Some(3)),
            (session([9.0, 0.0, 9.0, 0.0]).excluded([3]), None),
            (session([0.0; 4]).excluded([2]), Some(0)),
            (session([0.0; 4]).scores([0.1, 1.0, f32::NAN, 1.0]), Some(0)),
            (session([0.0; 4]).owners([]), None),
        ];
        for (case, expected) in table {
            assert_eq!(policy.choose(&case), expected, "{case:?}");
        }
    }

    #[test]
    fn weight_buys_room() {
        let policy = Harness::<SessionAffinity>::new("{}", &weighted_pool(&[1, 1, 5, 1]));
        assert_eq!(policy.choose(&session([4.0, 4.0, 16.0, 4.0])), Some(2));
        assert_eq!(policy.choose(&session([4.0, 4.0, 80.0, 4.0])), Some(0));
    }

    #[test]
    fn a_preference_is_the_best_score_and_folds_what_came_before() {
        let policy = Harness::<SessionAffinity>::new(r#"{"mode":"prefer"}"#, &pool(4));
        let scores = |case: &Case| policy.pick(case).choice;
        assert_eq!(scores(&session([0.0; 4])), Choice::Scores(vec![0.75, 0.75, 1.0, 0.75]));
        let folded = session([0.0; 4]).scores([1.0, 0.0, 0.5, 0.4]);
        assert_eq!(scores(&folded), Choice::Scores(vec![0.75, 0.0, 0.5, 0.3]));
        assert_eq!(scores(&session([0.0; 4]).owners([])), Choice::Abstain);
    }

    #[test]
    fn settings_are_checked() {
        check_description::<SessionAffinity>();
        let table =
            [(r#"{"bound":0.5}"#, "/bound"), (r#"{"slack":-1}"#, "/slack"), (r#"{"mode":"hold"}"#, "/mode")];
        for (config, path) in table {
            assert_eq!(refusal::<SessionAffinity>(config).path, path);
        }
        let strict = Harness::<SessionAffinity>::new(r#"{"bound":1,"slack":0}"#, &pool(4));
        assert_eq!(strict.choose(&session([1.0, 1.0, 2.0, 1.0])), Some(0));
    }
}

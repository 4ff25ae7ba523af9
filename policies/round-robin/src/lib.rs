//! Every endpoint in turn.
//!
//! The host numbers the requests of a pool over all its threads, and over reloads of this policy (`request.ticket`), so an exact
//! rotation needs no memory here: it is a remainder. With a stable pool, n requests in a row reach n different endpoints, in the
//! pool's order, which is that of their URLs.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Request, Settings};

/// The policy. It knows nothing about the pool but its size, and that comes with every request.
#[derive(Debug)]
pub struct RoundRobin;

impl Policy for RoundRobin {
    const ABOUT: About =
        About::new("round-robin", env!("CARGO_PKG_VERSION"), "Every endpoint in turn, whatever its load.");

    fn configure(_: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        if fleet.excluded().is_empty() && fleet.scores().is_none() {
            // Nearly every request: no endpoint is looked at, so the size of the pool does not matter.
            return Decision::endpoint((request.ticket % fleet.len() as u64) as usize);
        }
        // A rotation over those that are left, so that what an excluded endpoint would have got is spread over all others
        // and not heaped on its neighbour.
        match fleet.candidates().count() as u64 {
            0 => Decision::abstain(),
            left => {
                let turn = (request.ticket % left) as usize;
                Decision::endpoint_or_abstain(fleet.candidates().nth(turn))
            }
        }
    }
}

wicketgate_sdk::export!(RoundRobin);

#[cfg(test)]
mod tests {
    use wicketgate_sdk::testing::{Case, Harness, check_description, pool, refusal};

    use super::*;

    fn turns(case: &Case) -> Vec<Option<usize>> {
        let policy = Harness::<RoundRobin>::new("{}", &pool(4));
        (0..6).map(|ticket| policy.choose(&case.clone().ticket(ticket))).collect()
    }

    #[test]
    fn each_ticket_takes_the_next_endpoint() {
        assert_eq!(turns(&Case::new()), [0, 1, 2, 3, 0, 1].map(Some));
    }

    #[test]
    fn the_others_take_the_turns_of_whom_may_not_be_chosen() {
        assert_eq!(turns(&Case::new().excluded([0, 2])), [1, 3, 1, 3, 1, 3].map(Some));
        assert_eq!(turns(&Case::new().scores([f32::NAN, 0.1, 1.0, 0.2])), [1, 2, 3, 1, 2, 3].map(Some));
        assert_eq!(turns(&Case::new().excluded([0, 1, 2, 3])), [None; 6]);
    }

    #[test]
    fn a_large_ticket_is_still_a_turn() {
        let policy = Harness::<RoundRobin>::new("", &pool(3));
        assert_eq!(policy.choose(&Case::new().ticket(u64::MAX)), Some((u64::MAX % 3) as usize));
    }

    #[test]
    fn there_is_nothing_to_set() {
        check_description::<RoundRobin>();
        assert_eq!(refusal::<RoundRobin>(r#"{"stride":2}"#).path, "/stride");
        Harness::<RoundRobin>::new(r#"{"pool":{"thresholdHitRate":0.8}}"#, &pool(1));
    }
}

//! The endpoint with the fewest requests in flight for its weight.
//!
//! In flight is what this gateway sent and has not seen the end of: known at once, unlike anything an engine reports. An endpoint
//! of weight 2 is given twice as much before it counts as equally loaded. Among equals the scores of the policies before this one
//! decide, and among equals of those it is a rotation.

use wicketgate_sdk::{
    About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, choose, lanes,
};

/// The policy: what one request weighs on each endpoint.
#[derive(Debug)]
pub struct LeastInFlight {
    /// 1 ÷ weight, by endpoint.
    share: Vec<f32>,
}

impl Policy for LeastInFlight {
    const ABOUT: About = About {
        signals: &[Signal::InFlight],
        ..About::new(
            "least-in-flight",
            env!("CARGO_PKG_VERSION"),
            "The endpoint with the fewest requests in flight for its weight.",
        )
    };

    fn configure(_: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self { share: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        // An endpoint nothing is known of has nothing in flight from here.
        let weighed = |(count, share): (&f32, &f32)| if count.is_nan() { 0.0 } else { count * share };
        let loads: Vec<f32> = fleet.column(Signal::InFlight).iter().zip(&self.share).map(weighed).collect();
        let Some(scores) = fleet.scores() else {
            return Decision::endpoint_or_abstain(choose::least(fleet, loads, request.ticket));
        };
        let mut allowed = loads;
        fleet.mask(&mut allowed);
        let least = lanes::min(&allowed);
        let among_equals = |(load, score): (&f32, &f32)| if *load == least { *score } else { f32::NAN };
        let tied = allowed.iter().zip(scores).map(among_equals).collect();
        Decision::endpoint_or_abstain(choose::best(fleet, tied, request.ticket))
    }
}

wicketgate_sdk::export!(LeastInFlight);

#[cfg(test)]
mod tests {
    use wicketgate_sdk::testing::{Case, Harness, check_description, pool, weighted_pool};

    use super::*;

    fn loads(inflight: [f32; 4]) -> Case {
        Case::new().column(Signal::InFlight, inflight)
    }

    #[test]
    fn the_least_loaded_is_chosen() {
        let policy = Harness::<LeastInFlight>::new("{}", &pool(4));
        let table = [
            (loads([3.0, 1.0, 2.0, 2.0]), Some(1)),
            (loads([3.0, 1.0, 2.0, 2.0]).excluded([1]), Some(2)),
            (loads([3.0, 1.0, 2.0, 2.0]).excluded([1]).ticket(1), Some(3)),
            (loads([3.0, f32::NAN, 2.0, 2.0]), Some(1)),
            (loads([0.0; 4]).excluded([0, 1, 2, 3]), None),
        ];
        for (case, expected) in table {
            assert_eq!(policy.choose(&case), expected, "{case:?}");
        }
    }

    #[test]
    fn weight_buys_room() {
        let policy = Harness::<LeastInFlight>::new("{}", &weighted_pool(&[1, 4, 1, 1]));
        assert_eq!(policy.choose(&loads([1.0, 3.0, 1.0, 1.0])), Some(1));
        assert_eq!(policy.choose(&loads([1.0, 5.0, 1.0, 2.0]).ticket(1)), Some(2));
    }

    #[test]
    fn an_idle_fleet_is_a_rotation() {
        let policy = Harness::<LeastInFlight>::new("{}", &pool(4));
        let turns = (0..5).map(|ticket| policy.choose(&loads([0.0; 4]).ticket(ticket)));
        assert_eq!(turns.collect::<Vec<_>>(), [0, 1, 2, 3, 0].map(Some));
    }

    #[test]
    fn scores_decide_among_equals_and_only_there() {
        let policy = Harness::<LeastInFlight>::new("{}", &pool(4));
        let case = loads([1.0, 2.0, 1.0, 1.0]);
        assert_eq!(policy.choose(&case.clone().scores([0.1, 1.0, 0.7, 0.3])), Some(2));
        assert_eq!(policy.choose(&case.scores([f32::NAN, 1.0, f32::NAN, f32::NAN])), Some(1));
    }

    #[test]
    fn the_description_is_accepted() {
        check_description::<LeastInFlight>();
    }
}

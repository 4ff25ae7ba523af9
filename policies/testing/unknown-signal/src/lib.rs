//! A routing policy that asks for a signal nobody measures: the gateway refuses to load it.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Request, Settings, Signal};

/// The policy.
#[derive(Debug)]
pub struct UnknownSignal;

impl Policy for UnknownSignal {
    const ABOUT: About = About {
        signals: &[Signal::InFlight, Signal::Named("phase-of-the-moon")],
        ..About::new("unknown-signal", env!("CARGO_PKG_VERSION"), "Asks for a signal nobody measures.")
    };

    fn configure(_: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn pick(&self, _: &Request, fleet: &Fleet<'_>) -> Decision {
        Decision::endpoint_or_abstain(
            fleet.known(Signal::Named("phase-of-the-moon")).next().map(|(at, _)| at),
        )
    }
}

wicketgate_sdk::export!(UnknownSignal);

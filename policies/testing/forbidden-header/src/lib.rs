//! A routing policy that asks for the client's credentials: the gateway refuses to load it.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Request, Settings};

/// The policy.
#[derive(Debug)]
pub struct ForbiddenHeader;

impl Policy for ForbiddenHeader {
    const ABOUT: About = About {
        headers: &["authorization"],
        ..About::new("forbidden-header", env!("CARGO_PKG_VERSION"), "Asks for a header no policy may see.")
    };

    fn configure(_: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn pick(&self, _: &Request, fleet: &Fleet<'_>) -> Decision {
        Decision::endpoint_or_abstain(fleet.candidates().next())
    }
}

wicketgate_sdk::export!(ForbiddenHeader);

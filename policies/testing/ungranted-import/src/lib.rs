//! A routing policy that wants to know the time from the system: an import the gateway does not grant. The request carries the
//! time (`now_ms`), so that decisions can be replayed.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Request, Settings};

mod bindings {
    #![allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
    wit_bindgen::generate!({
        inline: "package testing:ungranted;
                 world clock { import wasi:clocks/monotonic-clock@0.2.0; }
                 package wasi:clocks@0.2.0 { interface monotonic-clock { now: func() -> u64; } }",
        generate_all,
    });
}

/// The policy.
#[derive(Debug)]
pub struct ByTheClock;

impl Policy for ByTheClock {
    const ABOUT: About =
        About::new("ungranted-import", env!("CARGO_PKG_VERSION"), "Reads a clock that no policy is given.");

    fn configure(_: &mut Settings) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn pick(&self, _: &Request, fleet: &Fleet<'_>) -> Decision {
        let now = bindings::wasi::clocks::monotonic_clock::now();
        Decision::endpoint((now % fleet.len() as u64) as usize)
    }
}

wicketgate_sdk::export!(ByTheClock);

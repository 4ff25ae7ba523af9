//! A session stays with its owner on the pool's consistent-hash ring.
//!
//! The ring is the host's: it hands in the first three owners of the request's session, and an endpoint that comes or goes moves
//! only its own sessions. This policy takes the first owner that may be chosen and is not saturated: has more in flight than
//! `bound` times the mean of the pool (and one request more, so that a nearly idle pool never counts as crowded). If all owners
//! are, it has no opinion and the rest of the chain decides.

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal, lanes};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "bound": {
      "type": "number", "minimum": 1, "maximum": 1000, "default": 1.25,
      "description": "An owner with more in flight than this many times the mean, plus one request, is passed over."
    },
    "pool": {"type": "object"}
  },
  "additionalProperties": false
}"#;

/// The policy.
#[derive(Debug)]
pub struct SessionAffinity {
    bound: f32,
    /// 1 ÷ weight, by endpoint.
    share: Vec<f32>,
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
        let bound = settings.number("bound", 1.25, 1.0..=1000.0)? as f32;
        Ok(Self { bound, share: Vec::new() })
    }

    fn sync(&mut self, pool: &Pool) {
        self.share = pool.endpoints.iter().map(|endpoint| 1.0 / endpoint.weight.max(1) as f32).collect();
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let inflight = fleet.column(Signal::InFlight);
        let (total, _) = lanes::sum(inflight);
        let (capacity, _) = lanes::sum(&self.share);
        let _ = capacity;
        let most = self.bound * total / fleet.len() as f32 + 1.0;
        let owners = request.owners.iter().flatten().map(|&owner| owner as usize);
        let mut free = owners.filter(|&owner| {
            // Not known means nothing in flight from here, and `NaN > most` is false.
            fleet.is_candidate(owner) && !(inflight[owner] * self.share[owner] > most)
        });
        Decision::endpoint_or_abstain(free.next())
    }
}

wicketgate_sdk::export!(SessionAffinity);

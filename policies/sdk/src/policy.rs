//! What a policy is: who it says it is, how it is set up, how it decides.

use crate::{ConfigError, Decision, Fleet, Pool, Request, Settings, Signal};

/// A routing policy. One value serves one pool.
///
/// `pick` takes `&self`, and that is the point: with the same request and fleet it must give the same answer, so that any recorded
/// decision can be replayed and any instance can stand in for any other. The gateway checks this before it lets a policy serve.
pub trait Policy: Sized {
    /// Who this is and what it wants to know.
    const ABOUT: About;

    /// Reads the author's settings. Keys that were not asked for are refused afterwards, except `pool`.
    ///
    /// # Errors
    /// What is wrong with the settings, with a JSON Pointer to the value. The last good configuration stays in force.
    fn configure(settings: &mut Settings) -> Result<Self, ConfigError>;

    /// Learns which endpoints there are. Called before the first `pick`, never for a mere change of load: precompute here.
    fn sync(&mut self, pool: &Pool) {
        let _ = pool;
    }

    /// Decides one request. Budget: 2 µs at 64 endpoints, 20 µs at 4,096.
    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision;
}

/// A policy's description. Start from [`About::new`] and add what is wanted.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Lower-case words joined by `-`; by custom the crate's name.
    pub name: &'static str,
    /// The policy's own version.
    pub version: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// JSON Schema (2020-12) of the settings. It must allow an object under `pool`.
    pub config_schema: &'static str,
    /// The columns that [`Fleet::column`] will have. Ask for what is read, each costs up to 2 µs at 4,096 endpoints.
    pub signals: &'static [Signal],
    /// Whether `request.owners` is filled for requests with a session.
    pub wants_owners: bool,
    /// Whether `request.prefix_hashes` is filled.
    pub wants_prefix_hashes: bool,
    /// If true, requests without a session pass by this policy without a call.
    pub needs_session: bool,
    /// Request headers, in lower case, that `request.headers` holds when the client sent them.
    pub headers: &'static [&'static str],
}

impl About {
    /// The schema of a policy that has no settings.
    pub const NO_SETTINGS: &'static str =
        r#"{"type":"object","properties":{"pool":{"type":"object"}},"additionalProperties":false}"#;

    /// A policy that has no settings and wants to know nothing.
    pub const fn new(name: &'static str, version: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            version,
            summary,
            config_schema: Self::NO_SETTINGS,
            signals: &[],
            wants_owners: false,
            wants_prefix_hashes: false,
            needs_session: false,
            headers: &[],
        }
    }
}

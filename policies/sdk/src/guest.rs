//! Between the generated interface and a [`Policy`]: what [`crate::export!`] calls. The native test harness goes through here
//! too, so a test runs the code that the component runs.

use core::cell::RefCell;

use crate::bindings::wicketgate::routing::types;
use crate::{ConfigError, Decision, Description, Fleet, Policy, Pool, Request, Settings};

/// One instance of a policy: configured once, synced at least once, then asked.
#[derive(Debug)]
pub struct Instance<P> {
    state: RefCell<Option<State<P>>>,
}

#[derive(Debug)]
struct State<P> {
    policy: P,
    endpoints: usize,
}

impl<P> Instance<P> {
    /// An instance that is not configured yet.
    pub const fn new() -> Self {
        Self { state: RefCell::new(None) }
    }
}

impl<P> Default for Instance<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Policy> Instance<P> {
    /// Reads the settings and makes the policy.
    ///
    /// # Errors
    /// What the policy, or the reading of JSON, found wrong; also a key that nobody asked for.
    pub fn configure(&self, config: &str) -> Result<(), ConfigError> {
        report_panics();
        let mut settings = Settings::parse(config)?;
        let policy = P::configure(&mut settings)?;
        settings.finish()?;
        *self.state.borrow_mut() = Some(State { policy, endpoints: 0 });
        Ok(())
    }

    /// Sets the pool.
    ///
    /// # Panics
    /// Before `configure`.
    pub fn sync(&self, pool: &Pool) {
        let mut state = self.state.borrow_mut();
        let state = state.as_mut().expect("the host configures before it syncs");
        state.endpoints = pool.endpoints.len();
        state.policy.sync(pool);
    }

    /// Decides one request.
    ///
    /// # Panics
    /// Before `configure`, or when the columns do not fit the pool.
    pub fn pick(&self, request: &Request, fleet: &types::Fleet) -> Decision {
        let state = self.state.borrow();
        let state = state.as_ref().expect("the host configures before it asks");
        let excluded = request.excluded.as_deref().unwrap_or_default();
        let columns = (P::ABOUT.signals, fleet.columns.as_slice());
        let view = Fleet::new(state.endpoints, columns, fleet.scores.as_deref(), excluded);
        state.policy.pick(request, &view)
    }
}

/// The policy's description as the contract wants it.
pub fn describe<P: Policy>() -> Description {
    report_panics();
    let about = P::ABOUT;
    Description {
        name: about.name.into(),
        version: about.version.into(),
        summary: about.summary.into(),
        config_schema: about.config_schema.into(),
        signals: about.signals.iter().map(|signal| signal.name().into()).collect(),
        wants_owners: about.wants_owners,
        wants_prefix_hashes: about.wants_prefix_hashes,
        needs_session: about.needs_session,
        headers: about.headers.iter().map(|&header| header.into()).collect(),
    }
}

/// Makes a panic say why in the gateway's log before it traps.
#[cfg(target_arch = "wasm32")]
fn report_panics() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string()))));
}

/// Natively the test runner reports panics.
#[cfg(not(target_arch = "wasm32"))]
fn report_panics() {}

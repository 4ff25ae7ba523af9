//! One instance of a policy: made for one pool, asked many times, dropped on the first error.

use std::sync::Arc;

use domain::policy::{Description, Fault, PolicyLimits};
use domain::pool::Pool;
use domain::request::RequestView;
use wasmtime::{Engine, Store, Trap};

use crate::bindings::wicketgate::routing::types;
use crate::bindings::{RoutingPolicy, RoutingPolicyPre};
use crate::convert;
use crate::engine::HOSTCALL_BYTES_MAX;
use crate::host_state::{HostState, PolicyLog};

/// Fuel of one `pick`: this much, and [`PICK_FUEL_PER_ENDPOINT`]. 5 to 7 times what honest scorers use.
pub(crate) const PICK_FUEL_BASE: u64 = 100_000;
/// Fuel of one `pick` for each endpoint.
pub(crate) const PICK_FUEL_PER_ENDPOINT: u64 = 1_000;
/// `describe`, `configure` and `sync` may each use this many times the fuel of a `pick`.
pub(crate) const SETUP_FUEL_FACTOR: u64 = 25;

/// How to make instances of one configured policy.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) engine: Engine,
    pub(crate) pre: RoutingPolicyPre<HostState>,
    pub(crate) log: Arc<PolicyLog>,
    pub(crate) config: Arc<str>,
    pub(crate) limits: PolicyLimits,
}

/// A live instance.
pub(crate) struct Instance {
    store: Store<HostState>,
    policy: RoutingPolicy,
    pick_fuel: u64,
}

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The guest did not get through a call.
    #[error(transparent)]
    Failed(CallError),
    /// The policy does not accept its configuration.
    #[error("configuration refused at {:?}: {}", .0.path, .0.message)]
    Config(types::ConfigError),
}

/// Why a call gave no answer. The instance must not be used again.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub(crate) struct CallError {
    pub(crate) fault: Fault,
    /// What was called: `pick`, `sync`, `configure`, `describe` or `instantiate`.
    call: &'static str,
    /// Fuel that the call might have used.
    fuel_limit: u64,
    /// Memory that the instance may have, bytes.
    memory_bytes: usize,
    error: wasmtime::Error,
}

impl CallError {
    fn sentence(&self) -> String {
        let Self { fault, call, fuel_limit, memory_bytes, error } = self;
        match fault {
            Fault::Fuel => format!(
                "`{call}` ran out of fuel: it used all of its {fuel_limit} units without coming to an end"
            ),
            Fault::Memory => {
                format!("`{call}` asked for more memory than the {memory_bytes} bytes it may have: {error:#}")
            }
            _ => format!("`{call}` failed: {error:#}"),
        }
    }
}

impl StartError {
    /// The fault that a request sees.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Failed(error) => error.fault,
            Self::Config(_) => Fault::Instantiate,
        }
    }
}

impl Recipe {
    /// What the policy says of itself, from an instance of its own.
    pub(crate) fn describe(&self) -> Result<types::Description, StartError> {
        let mut instance = self.instantiate(0)?;
        let policy = instance.policy.wicketgate_routing_policy();
        let described = policy.call_describe(&mut instance.store);
        described.map_err(|error| instance.failed("describe", error))
    }

    /// A configured instance that knows the pool.
    pub(crate) fn start(&self, pool: &Pool) -> Result<Instance, StartError> {
        let mut instance = self.instantiate(pool.endpoints.len())?;
        let policy = instance.policy.wicketgate_routing_policy();
        match policy.call_configure(&mut instance.store, &self.config) {
            Ok(Ok(())) => {}
            Ok(Err(refused)) => return Err(StartError::Config(refused)),
            Err(error) => return Err(instance.failed("configure", error)),
        }
        instance.begin_setup().map_err(|error| instance.failed("sync", error))?;
        convert::with_pool(pool, |pool| {
            let policy = instance.policy.wicketgate_routing_policy();
            policy.call_sync(&mut instance.store, pool).map_err(|error| instance.failed("sync", error))
        })?;
        Ok(instance)
    }

    fn instantiate(&self, endpoints: usize) -> Result<Instance, StartError> {
        let most = PolicyLimits::MEMORY_BYTES_MAX;
        let memory_bytes = self.limits.memory_bytes.map_or(most, |bytes| bytes.min(most));
        let mut store =
            Store::new(&self.engine, HostState::new(Arc::clone(&self.log), memory_bytes as usize));
        store.limiter(|state| state);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        let pick_fuel = self.pick_fuel(endpoints);
        let fuel_limit = pick_fuel.saturating_mul(SETUP_FUEL_FACTOR);
        let memory_bytes = memory_bytes as usize;
        let failed = |fault, error| {
            StartError::Failed(CallError { fault, call: "instantiate", fuel_limit, memory_bytes, error })
        };
        store.set_fuel(fuel_limit).map_err(|error| failed(Fault::Instantiate, error))?;
        match self.pre.instantiate(&mut store) {
            Ok(policy) => Ok(Instance { store, policy, pick_fuel }),
            Err(error) => {
                // A start function that traps is the guest's doing; anything else is not.
                let guest = error.is::<Trap>() || store.data().memory_refused();
                let fault = if guest { fault(&error, store.data()) } else { Fault::Instantiate };
                Err(failed(fault, error))
            }
        }
    }

    /// Fuel of one `pick` over this many endpoints.
    pub(crate) fn pick_fuel(&self, endpoints: usize) -> u64 {
        let permille = self.limits.fuel_permille.unwrap_or(1_000).clamp(1, PolicyLimits::FUEL_PERMILLE_MAX);
        let fuel = PICK_FUEL_BASE + PICK_FUEL_PER_ENDPOINT * endpoints as u64;
        fuel.saturating_mul(u64::from(permille)) / 1_000
    }
}

impl Instance {
    /// Decides one request. After an error the instance must be dropped.
    pub(crate) fn pick(
        &mut self,
        request: &RequestView<'_>,
        description: &Description,
        fleet: types::Fleet<'_>,
    ) -> Result<types::Decision, CallError> {
        self.store.data_mut().begin_pick();
        let filled = self.store.set_fuel(self.pick_fuel);
        let decided = filled.and_then(|()| {
            convert::with_request(request, description, |request| {
                self.policy.wicketgate_routing_policy().call_pick(&mut self.store, request, fleet)
            })
        });
        decided.map_err(|error| self.call_error("pick", self.pick_fuel, error))
    }

    /// Fuel that the last `pick` used.
    pub(crate) fn fuel_used(&self) -> u64 {
        self.pick_fuel.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    fn begin_setup(&mut self) -> wasmtime::Result<()> {
        self.store.data_mut().begin_setup();
        self.store.set_fuel(self.setup_fuel())
    }

    fn setup_fuel(&self) -> u64 {
        self.pick_fuel.saturating_mul(SETUP_FUEL_FACTOR)
    }

    fn failed(&self, call: &'static str, error: wasmtime::Error) -> StartError {
        StartError::Failed(self.call_error(call, self.setup_fuel(), error))
    }

    fn call_error(&self, call: &'static str, fuel_limit: u64, error: wasmtime::Error) -> CallError {
        let state = self.store.data();
        CallError {
            fault: fault(&error, state),
            call,
            fuel_limit,
            memory_bytes: state.memory_bytes_max(),
            error,
        }
    }
}

/// Which fault an error of a call is.
fn fault(error: &wasmtime::Error, state: &HostState) -> Fault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::Fuel,
        Some(_) if state.memory_refused() => Fault::Memory,
        Some(_) => Fault::Trap,
        // What is no trap arose while values were copied out: more than the host copies, unreadable, or too many lines.
        None => Fault::HostCalls,
    }
}

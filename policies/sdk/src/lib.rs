//! Write a routing policy for Wicketgate.
//!
//! A policy is a type that implements [`Policy`]; [`export!`] makes a component of it. The host *measures* and hands in columns,
//! the policy *chooses*, and keeps nothing between calls but what it derived from `configure` and `sync`.
//!
//! ```
//! use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Request, Settings, Signal, choose};
//!
//! /// Sends each request to the endpoint whose engine has the shortest queue.
//! struct ShortestQueue;
//!
//! impl Policy for ShortestQueue {
//!     const ABOUT: About = About {
//!         signals: &[Signal::Queued],
//!         ..About::new("shortest-queue", "0.1.0", "The engine with the fewest requests waiting.")
//!     };
//!
//!     fn configure(_: &mut Settings) -> Result<Self, ConfigError> {
//!         Ok(Self)
//!     }
//!
//!     fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
//!         let queued = fleet.column(Signal::Queued).to_vec();
//!         Decision::endpoint_or_abstain(choose::least(fleet, queued, request.ticket))
//!     }
//! }
//!
//! wicketgate_sdk::export!(ShortestQueue);
//! # fn main() {}
//! ```
//!
//! The same type runs natively: `testing::Harness` calls it with the very values a component would get, and checks every answer
//! as the host does.

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod allocator;
pub mod bindings;
pub mod choose;
mod decision;
mod fleet;
pub mod guest;
pub mod lanes;
pub mod log;
mod policy;
mod settings;
mod signal;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::wicketgate::routing::types::{
    Choice, ConfigError, Decision, Description, DraftTarget, Endpoint, Pool, PrefillDecode, Refusal, Request,
    Roles,
};
pub use fleet::{Candidates, Fleet};
pub use policy::{About, Policy};
pub use settings::Settings;
pub use signal::Signal;

/// Makes a component of a [`Policy`]. Once per crate, at its root; nothing happens when the crate is built natively.
#[macro_export]
macro_rules! export {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        mod wicketgate_component {
            use super::*;
            use $crate::bindings::exports::wicketgate::routing::policy as contract;

            ::std::thread_local! {
                static INSTANCE: $crate::guest::Instance<$policy> = const { $crate::guest::Instance::new() };
            }

            struct Component;

            impl contract::Guest for Component {
                fn describe() -> contract::Description {
                    $crate::guest::describe::<$policy>()
                }

                fn configure(config: ::std::string::String) -> ::core::result::Result<(), contract::ConfigError> {
                    INSTANCE.with(|instance| instance.configure(&config))
                }

                fn sync(pool: contract::Pool) {
                    INSTANCE.with(|instance| instance.sync(&pool));
                }

                fn pick(request: contract::Request, fleet: contract::Fleet) -> contract::Decision {
                    INSTANCE.with(|instance| instance.pick(&request, &fleet))
                }
            }

            $crate::bindings::export_component!(Component with_types_in $crate::bindings);
        }
    };
}

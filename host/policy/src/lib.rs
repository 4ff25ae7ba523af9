//! The only crate that knows WebAssembly: compiles, keeps, runs and checks routing policies.
//!
//! [`Library`] is both sides of it: what the control plane prepares policies with, and what hands each worker its
//! [`Evaluator`]. The contract with policies is `wit/routing.wit`.

mod answer;
mod backoff;
mod bindings;
mod bounds;
mod builtin;
mod check;
mod compiler;
mod convert;
mod description;
mod engine;
mod evaluate;
mod fetch;
mod host_state;
mod inspect;
mod instance;
mod instances;
mod library;
mod made_up;
mod probe;
mod rank;
mod ready;
mod run;
mod scenario;
#[cfg(test)]
mod testing;

pub use bounds::{BOUNDS, Bound, CompileLimits};
pub use builtin::names as builtin_names;
pub use check::{Check, check, open};
pub use compiler::{Compiler, serve_compiler};
pub use evaluate::Evaluator;
pub use fetch::FetchOptions;
pub use host_state::{LogLevel, LogLine};
pub use inspect::{COMPONENT_BYTES_MAX, FUNCTION_BYTES_MAX, INTERFACE_VERSION, Inspection, inspect};
pub use library::{COMPILE_DEADLINE_DEFAULT, INSTANCES_DEFAULT, Library, LibraryError, Options, digest};
pub use probe::Probed;
pub use run::{Answered, Decided, RunError, run};
pub use scenario::{Role, Scenario, ScenarioEndpoint, ScenarioError, ScenarioPool, ScenarioRequest};

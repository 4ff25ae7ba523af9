//! A simulated inference engine.
//!
//! [`core`] is the engine without IO: continuous batching, a finite KV cache, a real prefix cache. [`http`] puts it behind
//! the protocols real engines speak, with scripted faults and a log of what was received; [`fleet`] runs many cores in
//! virtual time under a router; [`workload`] makes the requests for both.

pub mod core;
pub mod fleet;
pub mod http;
pub mod workload;

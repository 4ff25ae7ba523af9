//! What is true and what to do about it, as functions of values.
//!
//! The shared vocabulary of the gateway: configuration in force ([`snapshot`]), live numbers ([`endpoint`]), what a
//! policy may see ([`request`]) and answer ([`policy`]), what is executed ([`plan`]), and how it ended ([`outcome`]).
//! Nothing here waits or does IO: no tokio, hyper, kube or wasmtime.

pub mod admission;
pub mod assemble;
pub mod breaker;
pub mod draft;
pub mod endpoint;
pub mod failure;
pub mod finding;
pub mod grudge;
pub mod header;
pub mod image;
pub mod load;
pub mod name;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod prefix;
pub mod published;
pub mod redact;
pub mod request;
pub mod retry;
pub mod ring;
pub mod route;
pub mod sign;
pub mod signal;
pub mod sleep;
pub mod snapshot;
pub mod surface;

#[cfg(test)]
mod fixture;

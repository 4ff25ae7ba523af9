//! The acceptance suite: the real binary over a directory of manifests, with simulated and real engines behind it and
//! real clients before it. Each test is a sentence; the scenario that it holds stands first in its documentation.

mod errors;
mod failover;
mod headers;
mod manifests;
mod network;
mod prefix;
mod routing;
mod streaming;
mod surface;

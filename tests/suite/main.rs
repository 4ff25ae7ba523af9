//! The acceptance suite: the real binary over a directory of manifests, with simulated and real engines behind it and
//! real clients before it. Each test is a sentence; the scenario that it holds stands first in its documentation.

#![expect(clippy::unwrap_used, reason = "what is not as a test expects fails it")]

mod abuse;
mod beginnings;
mod cli;
mod compiling;
mod connections;
mod demo;
mod endings;
mod errors;
mod failover;
mod framing;
mod gpu;
mod headers;
mod hostile;
mod isolation;
mod lifecycle;
mod logs;
mod manifests;
mod multipart;
mod network;
mod observation;
mod policies;
mod prefix;
mod real;
mod request_log;
mod routing;
mod sick;
mod streaming;
mod surface;
mod swaps;
mod tls;

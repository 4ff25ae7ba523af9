//! What the acceptance suite drives: the real binary over a directory of manifests, simulated engines, and a client that
//! shows every byte. Nothing sleeps to wait: the gateway's own log lines, the engines' counts and answers are awaited.

pub mod bars;
pub mod client;
pub mod dns;
pub mod fleet;
pub mod gateway;
pub mod manifests;
pub mod python;
pub mod raw;

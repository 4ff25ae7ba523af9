//! The cluster suite: the gateway on a real API server. `make test-cluster` runs it in a network of its own.

mod alone;
mod charts;
mod definitions;
mod discovery;
mod edit;
mod leader;
mod load;
mod registry;
mod rights;
mod samples;
mod signals;
mod static_route;
mod status;

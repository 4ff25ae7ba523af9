//! The cluster suite: the gateway on a real API server. `make test-cluster` runs it in a network of its own.

mod definitions;

//! What the cluster suite drives: a real API server with its store and controllers, a kubelet that pretends, engines with
//! pod addresses, and the real gateway running as a ServiceAccount. See `CONTRIBUTING.md` for how to run it.
//!
//! Nothing here starts outside the private network namespace that `tests/cluster/inside.sh` makes: see [`inside`].

pub mod account;
pub mod address;
pub mod audit;
pub mod detour;
pub mod engines;
pub mod gateway;
pub mod inside;
pub mod kubelet;
pub mod place;
pub mod plane;
pub mod service;
pub mod tool;

//! Where configuration comes from, and how it gets into force.
//!
//! A [`source`] turns what it sees into bursts of changes; [`publish`] owns the index, lowers it, has policies prepared
//! and publishes the snapshot; [`observe`] looks at the engines of that snapshot. [`start`] runs the three on threads of
//! their own; nothing here is called on the request path. Where the source is a cluster, [`controllers`] write back to it.

mod causes;
mod check;
mod clock;
mod cluster;
mod index;
mod refusals;
mod start;
mod threads;
mod watch;

#[cfg(test)]
mod fake;

pub mod controllers;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod publish;
pub mod source;
pub mod status;

pub use check::{Checked, check};
pub use clock::Clock;
pub use cluster::KubernetesSettings;
pub use controllers::status::FaultSource;
pub use index::{Index, Services};
pub use metrics::ControllerMetrics;
pub use refusals::Refusals;
pub use source::directory::Manifests;
pub use start::{Control, Ended, Ends, SLEEPS_MAX, Settings, SourceSettings, start};

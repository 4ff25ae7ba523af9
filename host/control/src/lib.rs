//! Where configuration comes from, and how it gets into force.
//!
//! A [`source`] turns what it sees into bursts of changes; [`publish`] owns the index, lowers it, has policies prepared
//! and publishes the snapshot; [`observe`] looks at the engines of that snapshot. [`start`] runs the three on threads of
//! their own; nothing here is called on the request path.

mod check;
mod clock;
mod index;
mod start;
mod watch;

#[cfg(test)]
mod fake;

pub mod lease;
pub mod metrics;
pub mod observe;
pub mod publish;
pub mod source;
pub mod status;

pub use check::{Checked, check};
pub use clock::Clock;
pub use index::{Index, Services};
pub use metrics::ControllerMetrics;
pub use start::{Control, Ends, Settings, start};

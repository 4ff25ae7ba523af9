//! What the data plane tells of engines that it put to sleep.

use std::sync::Arc;

use crate::endpoint::PodRef;

/// A client put an engine to sleep, or woke it; its pod is to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleepNote {
    /// Its pod.
    pub pod: PodRef,
    /// The pod's uid; empty when unknown. Another pod of the same name is not meant.
    pub uid: Arc<str>,
    /// Whether it sleeps now.
    pub asleep: bool,
}

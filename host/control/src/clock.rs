//! The gateway's clock: milliseconds since an instant that the data plane shares.

use std::time::Instant;

/// Monotonic milliseconds since its epoch.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that counts from `epoch`: the one that the workers count from.
    pub fn new(epoch: Instant) -> Self {
        Self { epoch }
    }

    /// Milliseconds now.
    pub fn now_ms(self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

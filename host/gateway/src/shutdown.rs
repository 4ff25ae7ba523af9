//! Waits for SIGTERM or SIGINT. What follows is in [`crate::wire`], in order: readiness fails, the drain delay passes,
//! listeners close, streams finish, the rest ends.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, registered early so that none is missed.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Registers the handlers. Must be called on a runtime.
    pub(crate) fn register() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the first signal that comes.
    pub(crate) async fn first(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

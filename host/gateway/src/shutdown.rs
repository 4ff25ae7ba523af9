//! Waits for SIGTERM or SIGINT. What follows is in [`crate::wire`], in order: readiness fails, the drain delay passes,
//! listeners close, streams finish, the rest ends.
//!
//! SIGTERM comes from what runs the gateway, which takes it out of load balancers meanwhile: that is what the delay is for.
//! SIGINT comes from a terminal: there is no delay. The next signal ends the process at once, whatever it does by then.

use std::time::Duration;

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

    /// The next signal that comes.
    pub(crate) async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::Terminate,
            _ = self.interrupt.recv() => Ask::Interrupt,
        }
    }

    /// Waits for a signal after `first`, and returns the exit code to end with at once. One SIGTERM that arrives as two (as
    /// `timeout` and some process managers send it: to the process and to its group) is one.
    pub(crate) async fn second(mut self, first: Ask) -> u8 {
        if first == Ask::Terminate {
            let same = tokio::time::sleep(SAME_SIGNAL);
            tokio::pin!(same);
            loop {
                tokio::select! {
                    () = &mut same => break,
                    ask = self.next() => if ask == Ask::Interrupt {
                        return ask.exit_code();
                    }
                }
            }
        }
        self.next().await.exit_code()
    }
}

/// Two SIGTERMs within this time are one.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// A wish that the process should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// SIGTERM.
    Terminate,
    /// SIGINT, Ctrl-C.
    Interrupt,
}

impl Ask {
    /// The signal's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// What shells expect of a process that a signal ended: 128 and its number.
    const fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
        }
    }
}

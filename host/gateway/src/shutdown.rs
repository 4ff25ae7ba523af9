//! Waits for SIGTERM or SIGINT. What follows is in [`crate::wire`], in order: readiness fails, the drain delay passes,
//! listeners close, streams finish, the rest ends.
//!
//! SIGTERM comes from what runs the gateway, which takes it out of load balancers meanwhile: that is what the delay is for.
//! SIGINT comes from a terminal: there is no delay. The next signal ends the process at once, whatever it does by then.
//!
//! SIGHUP drains where a terminal is the input, because that terminal is gone. Otherwise SIGHUP, SIGUSR1, SIGUSR2 and SIGALRM
//! change nothing: their default action would cut every request. SIGPIPE is ignored by Rust's runtime.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use proxy::Workers;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::ServeArgs;
use crate::notify::{self, Notify};
use crate::pages::BEAT_AGE_MAX;

/// All signals that are taken, registered early so that none is missed.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    alarm: Signal,
    has_terminal: bool,
}

impl Signals {
    /// Registers the handlers. Must be called on a runtime.
    pub(crate) fn register() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            alarm: signal(SignalKind::alarm())?,
            has_terminal: std::io::stdin().is_terminal(),
        })
    }

    /// The next signal that asks the process to end.
    pub(crate) async fn next(&mut self) -> Ask {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return Ask::Terminate,
                _ = self.interrupt.recv() => return Ask::Interrupt,
                _ = self.hangup.recv() => {
                    if self.has_terminal {
                        return Ask::HangUp;
                    }
                    "SIGHUP"
                }
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
                _ = self.alarm.recv() => "SIGALRM",
            };
            tracing::info!(
                signal = ignored,
                "signal ignored; manifests, policies and certificates are followed without one"
            );
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
                    ask = self.next() => if ask != Ask::Terminate {
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
    /// SIGHUP: the terminal is gone.
    HangUp,
}

impl Ask {
    /// The signal's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
        }
    }

    /// What shells expect of a process that a signal ended: 128 and its number.
    const fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
            Self::HangUp => 128 + 1,
        }
    }
}

/// How the data plane ends.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The signal's name, or what else happened.
    signal: &'static str,
    /// How long requests are still accepted.
    pub(crate) delay: Duration,
    /// How long they may finish after that.
    pub(crate) timeout: Duration,
}

impl Drain {
    /// At a terminal there are no load balancers to wait for, and with no request in flight nothing to finish.
    pub(crate) fn of(args: &ServeArgs, told: Option<Ask>, in_flight: u32) -> Self {
        let signal = told.map_or("the control plane ended", Ask::name);
        match told {
            Some(Ask::Interrupt | Ask::HangUp) => {
                let timeout = if in_flight > 0 { args.drain_timeout } else { Duration::ZERO };
                Self { signal, delay: Duration::ZERO, timeout }
            }
            _ => Self { signal, delay: args.drain_delay(), timeout: args.drain_timeout },
        }
    }

    pub(crate) fn announce(&self, in_flight: u32, notify: &Notify) {
        let Self { signal, delay, timeout } = self;
        tracing::info!(signal, in_flight, ?delay, ?timeout, "draining");
        notify.say(&format!("STOPPING=1\nSTATUS=drains, requests in flight: {in_flight}"));
        if in_flight > 0 {
            let requests =
                if in_flight == 1 { "1 request is".to_owned() } else { format!("{in_flight} requests are") };
            tracing::info!("{requests} in flight and may finish; a second signal (Ctrl-C) ends at once");
        }
    }
}

/// Ends the process at the second signal. Whatever else is still under way, such as giving the Lease back, is left out.
pub(crate) async fn end_at_once(signals: Signals, first: Ask, in_flight: impl Fn() -> u32) {
    let code = signals.second(first).await;
    tracing::warn!(cut = in_flight(), "a second signal: the gateway ends at once");
    std::process::exit(code.into());
}

/// Tells the service manager that the gateway is alive, as often as it wants to hear it and as long as every worker beats.
pub(crate) async fn watchdog(notify: Arc<Notify>, workers: Workers) {
    let Some(every) = notify::watchdog_interval() else { return };
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if workers.states().iter().all(|worker| worker.beat_age <= BEAT_AGE_MAX) {
            notify.say("WATCHDOG=1");
        }
    }
}

//! Runs a [`Core`] in real time: one task advances it, tickets receive their tokens, a dropped ticket aborts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::wire::lock;
use crate::core::{Core, Event, EventKind, Load, Rejected, SequenceId, Totals, Work};

/// A core and who waits for it.
#[derive(Debug)]
pub(super) struct Simulator {
    state: Mutex<State>,
    wake: Notify,
    started: Instant,
}

#[derive(Debug)]
struct State {
    core: Core,
    /// Each channel holds at most as many events as its sequence has tokens, and two.
    waiters: HashMap<SequenceId, mpsc::UnboundedSender<EventKind>>,
    events: Vec<Event>,
}

/// A sequence in the engine. Dropping it before its end aborts the sequence at once.
#[derive(Debug)]
pub(super) struct Ticket {
    simulator: Arc<Simulator>,
    id: SequenceId,
    events: mpsc::UnboundedReceiver<EventKind>,
    finished: bool,
}

impl Simulator {
    pub(super) fn new(core: Core) -> Arc<Self> {
        let state = State { core, waiters: HashMap::new(), events: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new(), started: Instant::now() })
    }

    pub(super) fn submit(self: &Arc<Self>, work: Work) -> Result<Ticket, Rejected> {
        let (sender, events) = mpsc::unbounded_channel();
        let now = self.started.elapsed();
        let mut state = lock(&self.state);
        state.advance(now);
        let id = state.core.submit(now, work)?;
        state.waiters.insert(id, sender);
        drop(state);
        self.wake.notify_one();
        Ok(Ticket { simulator: self.clone(), id, events, finished: false })
    }

    pub(super) fn load(&self) -> Load {
        lock(&self.state).core.load()
    }

    pub(super) fn totals(&self) -> Totals {
        *lock(&self.state).core.totals()
    }

    pub(super) fn reset_prefix_cache(&self) {
        lock(&self.state).core.reset_prefix_cache();
    }

    /// Advances the core until the simulator is gone; ends within a second of that.
    pub(super) async fn drive(this: Weak<Self>) {
        loop {
            let Some(simulator) = this.upgrade() else { return };
            let now = simulator.started.elapsed();
            let next = {
                let mut state = lock(&simulator.state);
                state.advance(now);
                state.core.next_event_at()
            };
            let until = next.unwrap_or(now + Duration::from_secs(1));
            tokio::select! {
                () = tokio::time::sleep_until(simulator.started + until) => {}
                () = simulator.wake.notified() => {}
            }
        }
    }
}

impl State {
    fn advance(&mut self, now: Duration) {
        let mut events = std::mem::take(&mut self.events);
        self.core.advance(now, &mut events);
        for event in events.drain(..) {
            let Some(waiter) = self.waiters.get(&event.sequence) else { continue };
            // A receiver that is gone has aborted, or is about to.
            let _ = waiter.send(event.kind);
            if event.kind == EventKind::Finished {
                self.waiters.remove(&event.sequence);
            }
        }
        self.events = events;
    }
}

impl Ticket {
    /// The next thing that happens; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<EventKind> {
        let kind = self.events.recv().await;
        self.finished |= matches!(kind, Some(EventKind::Finished) | None);
        kind
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut state = lock(&self.simulator.state);
        state.waiters.remove(&self.id);
        state.core.abort(self.id);
    }
}

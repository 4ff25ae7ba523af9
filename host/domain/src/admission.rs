//! Admission: how many requests of a gateway are in flight, who waits, and how many body bytes are buffered.
//!
//! Nothing here waits. [`Admission`] is what workers share: permits and the number of waiters, each one atomic, and a bit
//! for every worker that has waiters. A [`Line`] is what one worker keeps of a gateway: its waiters, first in first out.
//! How a waiter sleeps is the caller's: a line holds whatever wakes it (a waker, a channel's sender), and a [`Bell`]
//! tells a worker that a permit may be free. All limits are per replica.
//!
//! A request that wants in:
//! 1. [`Line::admit`] gives it a permit, or a place in the line, or says that the queue is full.
//! 2. With a place it waits for its permit to be handed over. If it gives up first, [`Line::leave`].
//! 3. A worker whose bell rings calls [`Line::serve`] on its lines, which hands permits to the waiters in front.
//! 4. The permit goes back when it is dropped, and rings the bell of one worker that has waiters.
//!
//! No wake-up is lost: whoever waits first shows the worker's bit and then tries again, whoever gives back a permit first
//! gives it back and then looks at the bits, all in one total order (`SeqCst`). So one of the two sees the other.

mod body;
mod line;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

pub use body::{BodyBytes, BodyHold, CLIENT_SHARES};
pub use line::{Admitted, Line, Ticket};

/// Wakes workers. One for the process; the data plane implements it.
pub trait Bell: Send + Sync {
    /// A permit may be free: worker `worker` should serve its lines. Called from any thread; must not block, and must not
    /// serve lines itself.
    fn ring(&self, worker: u8);
}

/// What one gateway allows. From its settings in force; passed in with every call, as state outlives settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Requests in flight. 0, the default: no limit, and nobody ever waits.
    pub in_flight_max: u32,
    /// Requests that wait, over all workers. 0, the default: whoever finds no permit is turned away.
    pub queue_depth: u32,
}

/// The permits of one gateway, shared by all workers. Cloning shares it.
#[derive(Clone, Default)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    /// Bit w: worker w has a line with somebody in it.
    workers: [AtomicU64; 4],
    /// Where the search for a worker to wake begins; rotates, so that no worker starves.
    turn: AtomicU32,
    /// Set by the first who waits. While nobody ever did, there is nobody to wake.
    bell: OnceLock<Arc<dyn Bell>>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_flight, waiting) = (self.in_flight(), self.waiting());
        f.debug_struct("Admission").field("in_flight", &in_flight).field("waiting", &waiting).finish()
    }
}

/// One request in flight. Dropping it gives the permit back, whatever ended the request.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.shared.in_flight.fetch_sub(1, SeqCst);
        self.admission.ring_one();
    }
}

impl Admission {
    /// A permit if one is free. Overtakes whoever waits: the request path calls [`Line::admit`] instead.
    pub fn try_enter(&self, limits: AdmissionLimits) -> Option<Permit> {
        let in_flight = &self.shared.in_flight;
        if limits.in_flight_max == 0 {
            in_flight.fetch_add(1, SeqCst);
        } else {
            let below = |now: u32| (now < limits.in_flight_max).then(|| now + 1);
            in_flight.fetch_update(SeqCst, SeqCst, below).ok()?;
        }
        Some(Permit { admission: self.clone() })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.shared.in_flight.load(SeqCst)
    }

    /// Requests that wait, over all workers.
    pub fn waiting(&self) -> u32 {
        self.shared.waiting.load(SeqCst)
    }

    /// Rings for every worker with waiters: after limits were raised, which frees permits without a request ending.
    pub fn ring_all(&self) {
        let Some(bell) = self.shared.bell.get() else { return };
        (0..=u8::MAX).filter(|worker| self.has_waiters(*worker)).for_each(|worker| bell.ring(worker));
    }

    /// Rings for one worker that has waiters, if any has.
    fn ring_one(&self) {
        // The usual case, and all it costs: no gateway of a replica that is not overloaded has waiters.
        if self.shared.waiting.load(SeqCst) == 0 {
            return;
        }
        let Some(bell) = self.shared.bell.get() else { return };
        // Low bits are meant: there are 256 workers at most.
        let first = self.shared.turn.fetch_add(1, SeqCst) as u8;
        let mut in_turn = (0..=u8::MAX).map(|step| first.wrapping_add(step));
        if let Some(worker) = in_turn.find(|worker| self.has_waiters(*worker)) {
            self.shared.turn.store(u32::from(worker) + 1, SeqCst);
            bell.ring(worker);
        }
    }

    fn has_waiters(&self, worker: u8) -> bool {
        let (word, bit) = self.bit(worker);
        word.load(SeqCst) & bit != 0
    }

    fn show_waiters(&self, worker: u8) {
        let (word, bit) = self.bit(worker);
        word.fetch_or(bit, SeqCst);
    }

    fn hide_waiters(&self, worker: u8) {
        let (word, bit) = self.bit(worker);
        word.fetch_and(!bit, SeqCst);
    }

    fn bit(&self, worker: u8) -> (&AtomicU64, u64) {
        (&self.shared.workers[usize::from(worker / 64)], 1 << (worker % 64))
    }

    /// Takes one of the places in the queue.
    fn try_wait(&self, limits: AdmissionLimits, bell: &Arc<dyn Bell>) -> bool {
        self.shared.bell.get_or_init(|| Arc::clone(bell));
        let below = |now: u32| (now < limits.queue_depth).then(|| now + 1);
        self.shared.waiting.fetch_update(SeqCst, SeqCst, below).is_ok()
    }

    fn stop_waiting(&self, count: u32) {
        self.shared.waiting.fetch_sub(count, SeqCst);
    }
}

#[cfg(test)]
mod tests;

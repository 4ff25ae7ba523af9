//! One worker's waiting line for one gateway.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Admission, AdmissionLimits, Bell, Permit};

/// A waiter's place in its [`Line`], for leaving it. Never used again by that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What became of a request that wants in.
#[derive(Debug)]
pub enum Admitted {
    /// It may go on; it is in flight until the permit is dropped.
    Now(Permit),
    /// It waits; the permit will be handed to its waiter.
    Queued(Ticket),
    /// No permit is free and the queue is full: 429.
    Full,
}

/// Who waits at one worker for a permit of one gateway, first in first out. `W` is what wakes a waiter.
///
/// Owned by its worker. The order is kept within a worker, not between workers: a free permit goes to the workers with
/// waiters in turn. A worker whose bell rings serves all of its lines, empty ones too, as these pass the bell on; one that
/// is dropped does so as well. Dropping a line gives up its waiters' places.
#[derive(Debug)]
pub struct Line<W> {
    admission: Admission,
    worker: u8,
    waiters: VecDeque<(Ticket, W)>,
    next: u64,
}

impl<W> Line<W> {
    /// An empty line of worker `worker`. One worker has one line for a gateway.
    pub fn new(admission: Admission, worker: u8) -> Self {
        Self { admission, worker, waiters: VecDeque::new(), next: 0 }
    }

    /// Lets a request in, or puts it at the end of the line. `waiter` is made only if it has to wait.
    ///
    /// Whoever comes while others wait here queues behind them.
    pub fn admit(
        &mut self,
        limits: AdmissionLimits,
        bell: &Arc<dyn Bell>,
        waiter: impl FnOnce() -> W,
    ) -> Admitted {
        if self.waiters.is_empty()
            && let Some(permit) = self.admission.try_enter(limits)
        {
            return Admitted::Now(permit);
        }
        if !self.admission.try_wait(limits, bell) {
            return Admitted::Full;
        }
        self.admission.show_waiters(self.worker);
        // Again, now that whoever gives back a permit can see us: it may have come back in between.
        if self.waiters.is_empty()
            && let Some(permit) = self.admission.try_enter(limits)
        {
            self.count_out(1);
            return Admitted::Now(permit);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiters.push_back((ticket, waiter()));
        Admitted::Queued(ticket)
    }

    /// Hands free permits to the waiters in front, until there is no more of either. For the worker whose bell rang.
    ///
    /// `hand_over` must not use this line. If a waiter is gone it drops the permit, which rings again.
    pub fn serve(&mut self, limits: AdmissionLimits, mut hand_over: impl FnMut(W, Permit)) {
        while !self.waiters.is_empty() {
            let Some(permit) = self.admission.try_enter(limits) else { return };
            if let Some((_, waiter)) = self.waiters.pop_front() {
                self.count_out(1);
                hand_over(waiter, permit);
            }
        }
        self.pass_on();
    }

    /// A waiter gives up. Returns what would have woken it; `None` if it was served already, and then it owns a permit.
    pub fn leave(&mut self, ticket: Ticket) -> Option<W> {
        let place = self.waiters.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        let (_, waiter) = self.waiters.remove(place)?;
        self.count_out(1);
        self.pass_on();
        Some(waiter)
    }

    /// Who waits here.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits here.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Takes waiters out of the shared count, and this worker out of those with waiters if it has none left.
    fn count_out(&self, count: u32) {
        if self.waiters.is_empty() {
            self.admission.hide_waiters(self.worker);
        }
        self.admission.stop_waiting(count);
    }

    /// Rings for another worker if this one has nobody left: the bell that rang here may have meant a permit that is
    /// still free. Rings at most once too often.
    fn pass_on(&self) {
        if self.waiters.is_empty() {
            self.admission.ring_one();
        }
    }
}

impl<W> Drop for Line<W> {
    fn drop(&mut self) {
        let count = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        self.waiters.clear();
        self.count_out(count);
        self.pass_on();
    }
}

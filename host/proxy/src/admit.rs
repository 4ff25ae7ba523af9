//! Admission: a permit of the gateway, now, or after waiting in this worker's line.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use domain::admission::{AdmissionLimits, Admitted, Bell, Line, Permit, Ticket};
use domain::failure::FailureKind;
use domain::name::ObjectName;
use domain::route::{Gateway, Limits};
use domain::snapshot::Snapshot;

use crate::clock::Timer;

/// Who waits on this worker, by gateway.
pub(crate) struct Lines {
    worker: u8,
    bell: Arc<dyn Bell>,
    lines: RefCell<HashMap<ObjectName, Waiting>>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("worker", &self.worker).finish_non_exhaustive()
    }
}

struct Waiting {
    line: Line<Rc<Waiter>>,
    limits: AdmissionLimits,
}

/// A request that waits.
#[derive(Debug, Default)]
struct Waiter {
    permit: RefCell<Option<Permit>>,
    waker: RefCell<Option<Waker>>,
}

impl Lines {
    pub(crate) fn new(worker: u8, bell: Arc<dyn Bell>) -> Self {
        Self { worker, bell, lines: RefCell::default() }
    }

    /// A permit of `gateway`. Waits for it as long as the gateway's settings say, but not beyond `deadline_ms`.
    ///
    /// Fails with `Overloaded` when the queue is full or the wait was too long, with `DeadlineExceeded` when the request's
    /// own time was up first. Dropping this leaves the line.
    pub(crate) async fn admit(
        &self,
        gateway: &Gateway,
        timer: &Timer,
        deadline_ms: u64,
    ) -> Result<Permit, FailureKind> {
        let settings = &gateway.settings.limits;
        let limits = limits_of(settings);
        if limits.in_flight_max == 0 {
            // Without a limit nobody waits, and every attempt succeeds.
            let permit = gateway.state.admission.try_enter(limits);
            return permit.ok_or(FailureKind::Overloaded { retry_after: settings.queue_wait_max });
        }
        let waiter = Rc::new(Waiter::default());
        let ticket = match self.enter(gateway, limits, &waiter) {
            Admitted::Now(permit) => return Ok(permit),
            Admitted::Full => return Err(overloaded(settings)),
            Admitted::Queued(ticket) => ticket,
        };
        let place = Place { lines: self, gateway: &gateway.name, ticket };
        let clock = timer.clock();
        let patience_ms = clock.after(settings.queue_wait_max);
        timer.set_at(patience_ms.min(deadline_ms));
        let permit = poll_fn(|cx| {
            if let Some(permit) = waiter.permit.borrow_mut().take() {
                return Poll::Ready(Some(permit));
            }
            *waiter.waker.borrow_mut() = Some(cx.waker().clone());
            timer.poll(cx).map(|()| None)
        })
        .await;
        drop(place);
        match permit {
            Some(permit) => Ok(permit),
            None if deadline_ms < patience_ms => Err(FailureKind::DeadlineExceeded),
            None => Err(overloaded(settings)),
        }
    }

    fn enter(&self, gateway: &Gateway, limits: AdmissionLimits, waiter: &Rc<Waiter>) -> Admitted {
        let mut lines = self.lines.borrow_mut();
        let waiting = lines.entry(gateway.name.clone()).or_insert_with(|| Waiting {
            line: Line::new(gateway.state.admission.clone(), self.worker),
            limits,
        });
        waiting.limits = limits;
        waiting.line.admit(limits, &self.bell, || Rc::clone(waiter))
    }

    /// Hands permits that are free to those who wait in front.
    pub(crate) fn serve(&self) {
        for waiting in self.lines.borrow_mut().values_mut() {
            waiting.line.serve(waiting.limits, |waiter, permit| {
                *waiter.permit.borrow_mut() = Some(permit);
                if let Some(waker) = waiter.waker.borrow_mut().take() {
                    waker.wake();
                }
            });
        }
    }

    /// Takes over changed limits, and forgets gateways that left and for whom nobody waits.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        self.lines.borrow_mut().retain(|name, waiting| {
            let gateway = snapshot.gateway_by_name(&name.namespace, &name.name);
            if let Some(gateway) = gateway {
                waiting.limits = limits_of(&gateway.settings.limits);
            }
            gateway.is_some() || !waiting.line.is_empty()
        });
        // Raised limits are permits that nobody gave back.
        self.serve();
    }
}

/// A place in a line; leaves it when dropped.
struct Place<'a> {
    lines: &'a Lines,
    gateway: &'a ObjectName,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.lines.lines.borrow_mut().get_mut(self.gateway) {
            // Served meanwhile: the permit is with the waiter, and goes back with it if nobody takes it.
            let _ = waiting.line.leave(self.ticket);
        }
    }
}

fn limits_of(limits: &Limits) -> AdmissionLimits {
    AdmissionLimits { in_flight_max: limits.in_flight_max, queue_depth: limits.queue_depth }
}

/// Come back when the queue of now has been served or given up.
fn overloaded(limits: &Limits) -> FailureKind {
    FailureKind::Overloaded { retry_after: limits.queue_wait_max.min(RETRY_AFTER_MAX) }
}

/// Longest time that a client is told to stay away.
const RETRY_AFTER_MAX: std::time::Duration = std::time::Duration::from_secs(5);

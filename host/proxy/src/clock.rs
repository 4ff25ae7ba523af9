//! A worker's time: one coarse clock, and timers that cost two stores.
//!
//! A gateway sets a deadline for every phase of every request and hardly any of them ends. So a timer here is a slot in a
//! table that the worker's tick scans: setting one is a store, and nothing is allocated or sorted. A timer fires up to
//! [`TICK`] late. Ten thousand of them take the scan about 20 µs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How often a worker looks at its timers, and how old its coarse time may be.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// Marks a timer that is not set.
const NEVER: u64 = u64::MAX;

/// The clock of one worker. Milliseconds count from an epoch that all workers and the observer share.
#[derive(Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    now_ms: Cell<u64>,
    timers: RefCell<Timers>,
}

#[derive(Debug, Default)]
struct Timers {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    at_ms: u64,
    waker: Option<Waker>,
}

impl Clock {
    /// A clock that counts from `epoch`.
    pub(crate) fn new(epoch: Instant) -> Rc<Self> {
        let clock = Self { epoch, now_ms: Cell::new(0), timers: RefCell::default() };
        clock.now_ms.set(clock.exact_ms(Instant::now()));
        Rc::new(clock)
    }

    /// Milliseconds now, at most a [`TICK`] (or the longest poll of a task) behind.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Milliseconds at `now`.
    pub(crate) fn exact_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }

    /// The coarse time that is `after` from now; never early.
    pub(crate) fn after(&self, after: Duration) -> u64 {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(NEVER / 2);
        self.exact_ms(Instant::now()).saturating_add(after_ms)
    }

    /// Whether no more than `max` has passed since the coarse time was `since_ms`. Reads the clock.
    pub(crate) fn is_within(&self, since_ms: u64, max: Duration) -> bool {
        self.exact_ms(Instant::now()).saturating_sub(since_ms) <= max.as_millis() as u64
    }

    /// Moves the coarse time on and wakes every task whose timer has come.
    pub(crate) fn tick(&self, now: Instant) {
        let now_ms = self.exact_ms(now);
        self.now_ms.set(now_ms);
        for slot in &mut self.timers.borrow_mut().slots {
            // The waker stays: a task that does nothing about its timer is woken again, until its stall is noticed.
            if slot.at_ms <= now_ms
                && let Some(waker) = &slot.waker
            {
                waker.wake_by_ref();
            }
        }
    }

    /// A timer that is not set.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let mut timers = self.timers.borrow_mut();
        let index = match timers.free.pop() {
            Some(index) => index,
            None => {
                timers.slots.push(Slot { at_ms: NEVER, waker: None });
                timers.slots.len() as u32 - 1
            }
        };
        Timer { clock: Rc::clone(self), index }
    }

    /// Timers in use.
    #[cfg(test)]
    fn live(&self) -> usize {
        let timers = self.timers.borrow();
        timers.slots.len() - timers.free.len()
    }
}

/// Finds out that a client takes nothing of its answer: the answer's timer came, and the answer was not polled then.
///
/// While a client takes data, its connection polls the answer, which looks at its own timer. When the client has stopped, the
/// connection waits for the client alone, and the answer is not polled, so its timer has no effect. The task that polls the
/// connection (HTTP/1.1) or the stream (HTTP/2) therefore asks here after each poll. It costs no look at a clock, and nothing per chunk.
#[derive(Debug)]
pub(crate) struct Stall {
    clock: Rc<Clock>,
    /// The answer's timer; [`NO_TIMER`] while no answer is on its way.
    timer: Cell<u32>,
    /// How long the client may take nothing, milliseconds.
    idle_ms: Cell<u64>,
    /// Bytes were written since the timer was last looked at.
    has_written: Cell<bool>,
}

/// Not the index of a timer.
const NO_TIMER: u32 = u32::MAX;

impl Stall {
    /// Without an answer.
    pub(crate) fn new(clock: &Rc<Clock>) -> Rc<Self> {
        Rc::new(Self {
            clock: Rc::clone(clock),
            timer: Cell::new(NO_TIMER),
            idle_ms: Cell::new(0),
            has_written: Cell::new(false),
        })
    }

    /// An answer begins that sets `timer` to `idle` with every progress. Until [`Self::clear`], which must come before the timer
    /// goes.
    pub(crate) fn watch(&self, timer: &Timer, idle: Duration) {
        self.timer.set(timer.index);
        self.idle_ms.set(u64::try_from(idle.as_millis()).unwrap_or(NEVER / 2));
    }

    /// The socket took bytes of the answer. A client so slow that the answer is not polled in time has not stalled then.
    pub(crate) fn wrote(&self) {
        self.has_written.set(true);
    }

    /// The answer has ended.
    pub(crate) fn clear(&self) {
        self.timer.set(NO_TIMER);
    }

    /// Whether the client has stalled. To be asked by the task of the answer, right after it was polled without an end; that
    /// task is woken when it is time to ask again.
    pub(crate) fn is_stalled(&self, cx: &mut Context<'_>) -> bool {
        let index = self.timer.get();
        if index == NO_TIMER {
            return false;
        }
        let mut timers = self.clock.timers.borrow_mut();
        let slot = &mut timers.slots[index as usize];
        if slot.waker.is_none() {
            slot.waker = Some(cx.waker().clone());
        }
        let now_ms = self.clock.now_ms();
        if slot.at_ms > now_ms {
            return false;
        }
        let is_slow = self.has_written.replace(false);
        if is_slow {
            slot.at_ms = now_ms.saturating_add(self.idle_ms.get());
        }
        !is_slow
    }
}

/// One timer of one task. Dropping it cancels it.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Rc<Clock>,
    index: u32,
}

impl Timer {
    /// The clock it belongs to.
    pub(crate) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// Sets it to a time of the clock.
    pub(crate) fn set_at(&self, at_ms: u64) {
        self.clock.timers.borrow_mut().slots[self.index as usize].at_ms = at_ms;
    }

    /// Sets it to `after` from the coarse now, plus a tick so that it is never early.
    pub(crate) fn set_after(&self, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(NEVER / 2);
        self.set_at(self.clock.now_ms().saturating_add(after_ms).saturating_add(TICK.as_millis() as u64));
    }

    /// Ready once the time has come; else the task is woken when it does.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut timers = self.clock.timers.borrow_mut();
        let slot = &mut timers.slots[self.index as usize];
        if slot.at_ms <= self.clock.now_ms() {
            return Poll::Ready(());
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut timers = self.clock.timers.borrow_mut();
        timers.slots[self.index as usize] = Slot { at_ms: NEVER, waker: None };
        timers.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(timer: &Timer) -> bool {
        timer.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_timer_fires_at_its_time_and_not_before() {
        let epoch = Instant::now();
        let clock = Clock::new(epoch);
        let timer = clock.timer();
        assert!(!ready(&timer), "not set");
        timer.set_at(1_000);
        clock.tick(epoch + Duration::from_millis(999));
        assert!(!ready(&timer));
        clock.tick(epoch + Duration::from_millis(1_000));
        assert!(ready(&timer));
        timer.set_after(Duration::from_millis(100));
        clock.tick(epoch + Duration::from_millis(1_099));
        assert!(!ready(&timer));
        clock.tick(epoch + Duration::from_millis(1_100) + TICK);
        assert!(ready(&timer));
    }

    #[test]
    fn a_dropped_timer_gives_its_slot_back() {
        let clock = Clock::new(Instant::now());
        let first = clock.timer();
        first.set_at(0);
        drop(first);
        let second = clock.timer();
        assert!(!ready(&second), "the slot comes back unset");
        assert_eq!(clock.live(), 1);
        drop(second);
        assert_eq!(clock.live(), 0);
    }

    /// C5.
    #[test]
    fn an_answer_that_is_not_polled_at_its_time_has_stalled() {
        let epoch = Instant::now();
        let clock = Clock::new(epoch);
        let (timer, stall) = (clock.timer(), Stall::new(&clock));
        let is_stalled = || stall.is_stalled(&mut Context::from_waker(Waker::noop()));
        timer.set_at(1_000);
        stall.watch(&timer, Duration::from_millis(500));
        assert!(!is_stalled());
        stall.wrote();
        clock.tick(epoch + Duration::from_millis(1_000));
        assert!(!is_stalled(), "the client is slow, and takes something");
        clock.tick(epoch + Duration::from_millis(1_499));
        assert!(!is_stalled());
        clock.tick(epoch + Duration::from_millis(1_500));
        assert!(is_stalled(), "it took nothing since");
        timer.set_at(2_000);
        assert!(!is_stalled(), "it went on");
        clock.tick(epoch + Duration::from_millis(2_000));
        stall.clear();
        assert!(!is_stalled(), "it has ended");
    }

    #[tokio::test]
    async fn a_waiting_task_is_woken_by_the_tick() {
        let epoch = Instant::now();
        let clock = Clock::new(epoch);
        let timer = clock.timer();
        timer.set_at(500);
        let waiting = std::future::poll_fn(|cx| timer.poll(cx));
        let ticking = async { clock.tick(epoch + Duration::from_millis(500)) };
        futures::future::join(waiting, ticking).await;
    }
}

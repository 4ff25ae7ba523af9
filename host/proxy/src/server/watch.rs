//! Looks after all client connections of a worker: who left, who is too slow, who must go because we shut down.
//!
//! hyper notices a client that leaves only while it reads, and it does not read while a pipelined request waits behind
//! the one in work. So every [`SWEEP`] the sockets of all requests in flight are asked at once (one `poll` system call)
//! whether the other side has closed. The same sweep enforces the limits on idle and slow clients, for which no timer per
//! request is then needed.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::net::TcpStream;

use crate::clock::{Clock, Stall};

/// How often connections are looked at: bounds the time until a vanished client is noticed.
pub(super) const SWEEP: Duration = Duration::from_millis(250);

/// How long a connection may be idle between requests.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(75);
/// How long a client may take to send the head of a request (or its TLS handshake), from its first byte.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Age at which an HTTP/2 connection is told to open a new one, which may land on another worker.
const H2_AGE_MAX: Duration = Duration::from_secs(300);
/// How long a connection without any request yet is spared while draining.
const FRESH_GRACE: Duration = Duration::from_secs(1);
/// How long a connection that was told to finish may stay without a request under way, counted anew from the end of each:
/// for what is still to be written of the last answer, and for an HTTP/2 client to acknowledge that it was told. One that
/// never does would stay for ever.
const FINISH_GRACE: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// Of the HTTP/2 stream whose task is being polled.
    pub(super) static STREAM_STALL: Rc<Stall>;
}

/// What must happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Finish what is in flight, take nothing new.
    Finish,
    /// Drop it, whatever is in flight.
    Drop,
}

/// One client connection, as its worker sees it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(super) clock: Rc<Clock>,
    pub(super) socket: Rc<RefCell<TcpStream>>,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// Requests in flight on it.
    in_flight: Cell<u32>,
    /// Whether it ever had one.
    has_served: Cell<bool>,
    /// When the present state began: accepted, the last request ended, or the first byte of the next came.
    since_ms: Cell<u64>,
    /// Whether anything of the next request was read.
    is_reading: Cell<bool>,
    opened_ms: u64,
    is_h2: Cell<bool>,
    order: Cell<Option<Order>>,
    /// Since it was told to finish: when that was, the last request ended, or more of an answer was written.
    finishing_ms: Cell<u64>,
    /// Notices that the client takes nothing of its answer; of HTTP/1.1, which has one answer at a time.
    pub(super) stall: Rc<Stall>,
    /// It sent more control frames than HTTP/2 needs.
    pub(super) is_flooding: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    pub(super) fn new(socket: Rc<RefCell<TcpStream>>, peer: SocketAddr, clock: &Rc<Clock>) -> Rc<Self> {
        let now_ms = clock.now_ms();
        Rc::new(Self {
            clock: Rc::clone(clock),
            socket,
            peer,
            in_flight: Cell::new(0),
            has_served: Cell::new(false),
            since_ms: Cell::new(now_ms),
            // A new connection owes us a request as if its first byte had come.
            is_reading: Cell::new(true),
            opened_ms: now_ms,
            is_h2: Cell::new(false),
            order: Cell::new(None),
            finishing_ms: Cell::new(now_ms),
            stall: Stall::new(clock),
            is_flooding: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    pub(super) fn set_h2(&self) {
        self.is_h2.set(true);
    }

    /// What notices that the client takes nothing of the answer that is being made in this very task.
    pub(crate) fn stall(&self) -> Rc<Stall> {
        let of_stream = || STREAM_STALL.try_with(Rc::clone).ok();
        let own = if self.is_h2.get() { of_stream() } else { None };
        own.unwrap_or_else(|| Rc::clone(&self.stall))
    }

    /// Bytes came from the client.
    pub(super) fn read_something(&self) {
        if self.in_flight.get() == 0 && !self.is_reading.replace(true) {
            self.since_ms.set(self.clock.now_ms());
        }
    }

    /// Bytes went to the client.
    pub(super) fn wrote_something(&self) {
        // Of HTTP/1.1 alone: a stream of HTTP/2 has its own, which its window moves.
        self.stall.wrote();
        // A slow reader may have its answer whole. Not so in HTTP/2, where whoever sends a PING makes us write.
        if self.order.get() == Some(Order::Finish) && !self.is_h2.get() {
            self.finishing_ms.set(self.clock.now_ms());
        }
    }

    /// A request began.
    pub(crate) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.has_served.set(true);
    }

    /// A request ended.
    pub(crate) fn end(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 {
            let now_ms = self.clock.now_ms();
            self.since_ms.set(now_ms);
            self.finishing_ms.set(now_ms);
            self.is_reading.set(false);
        }
    }

    /// What its task has been told. Registers the task, to be woken when it is told something.
    pub(super) fn poll_order(&self, cx: &mut Context<'_>) -> Option<Order> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.order.get()
    }

    fn tell(&self, order: Order) {
        if self.order.get() == Some(order) || self.order.get() == Some(Order::Drop) {
            return;
        }
        self.order.set(Some(order));
        self.finishing_ms.set(self.clock.now_ms());
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// What time says about it.
    fn overdue(&self, now_ms: u64) -> Option<Order> {
        let passed = |since_ms: u64, max: Duration| now_ms.saturating_sub(since_ms) >= max.as_millis() as u64;
        let is_h2 = self.is_h2.get();
        let is_old = is_h2 && passed(self.opened_ms, H2_AGE_MAX);
        if self.in_flight.get() > 0 {
            return is_old.then_some(Order::Finish);
        }
        if self.order.get() == Some(Order::Finish) && passed(self.finishing_ms.get(), FINISH_GRACE) {
            return Some(Order::Drop);
        }
        // What comes on HTTP/2 after its first request need not be the beginning of another one.
        let owes_head = if is_h2 { !self.has_served.get() } else { self.is_reading.get() };
        if owes_head && passed(self.since_ms.get(), HEAD_MAX) {
            return Some(Order::Drop);
        }
        (is_old || passed(self.since_ms.get(), KEEP_ALIVE_MAX)).then_some(Order::Finish)
    }
}

/// All client connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Watches {
    all: RefCell<Vec<Option<Rc<Watch>>>>,
    free: RefCell<Vec<usize>>,
}

/// A connection's place among those watched; leaves it on drop.
#[derive(Debug)]
pub(super) struct Watched {
    watches: Rc<Watches>,
    place: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watches.all.borrow_mut()[self.place] = None;
        self.watches.free.borrow_mut().push(self.place);
    }
}

impl Watches {
    /// Watches a connection until the answer is dropped.
    pub(super) fn add(self: &Rc<Self>, watch: Rc<Watch>) -> Watched {
        let mut all = self.all.borrow_mut();
        let place = match self.free.borrow_mut().pop() {
            Some(place) => {
                all[place] = Some(watch);
                place
            }
            None => {
                all.push(Some(watch));
                all.len() - 1
            }
        };
        Watched { watches: Rc::clone(self), place }
    }

    /// Connections.
    pub(super) fn len(&self) -> usize {
        self.all.borrow().len() - self.free.borrow().len()
    }

    /// Tells connections to finish. Fresh ones are spared until their request had time to come: their clients cannot know
    /// that we are leaving, and would take it for a failure. So this is to be called again until all are gone.
    pub(super) fn finish(&self, now_ms: u64) {
        let grace_ms = FRESH_GRACE.as_millis() as u64;
        for watch in self.all.borrow().iter().flatten() {
            if watch.has_served.get() || now_ms.saturating_sub(watch.opened_ms) >= grace_ms {
                watch.tell(Order::Finish);
            }
        }
    }

    /// Tells those that left, or took too long, to end.
    pub(super) fn sweep(&self, now_ms: u64) {
        let all = self.all.borrow();
        let mut busy = Vec::new();
        for watch in all.iter().flatten() {
            if let Some(order) = watch.overdue(now_ms) {
                watch.tell(order);
            }
            if watch.in_flight.get() > 0 {
                busy.push(watch);
            }
        }
        if busy.is_empty() {
            return;
        }
        let sockets: Vec<_> = busy.iter().map(|watch| watch.socket.borrow()).collect();
        let mut asked: Vec<_> =
            sockets.iter().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)).collect();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Should the call fail (no memory), the next sweep asks again.
        if rustix::event::poll(&mut asked, Some(&at_once)).is_ok() {
            let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            for (watch, answer) in busy.iter().zip(&asked) {
                if answer.revents().intersects(gone) {
                    watch.tell(Order::Drop);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A connection, and what the clock says once so many seconds have passed since it came.
    async fn rig() -> (Rc<Watch>, impl Fn(u64) -> u64) {
        let epoch = Instant::now();
        let clock = Clock::new(epoch);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let peer = stream.peer_addr().unwrap();
        let watch = Watch::new(Rc::new(RefCell::new(stream)), peer, &clock);
        let at = move |seconds: u64| {
            clock.tick(epoch + Duration::from_secs(seconds));
            clock.now_ms()
        };
        (watch, at)
    }

    #[tokio::test]
    async fn slow_heads_are_cut_idle_connections_finish_and_requests_take_their_time() {
        let (watch, at) = rig().await;
        assert_eq!(watch.overdue(at(14)), None);
        assert_eq!(watch.overdue(at(15)), Some(Order::Drop), "a client that says nothing");
        watch.begin();
        assert_eq!(watch.overdue(at(10_000)), None, "a request in flight");
        watch.end();
        assert_eq!(watch.overdue(at(10_074)), None);
        assert_eq!(watch.overdue(at(10_075)), Some(Order::Finish), "an idle connection");
        watch.read_something();
        assert_eq!(watch.overdue(at(10_089)), None, "counted from its first byte");
        assert_eq!(watch.overdue(at(10_090)), Some(Order::Drop), "a head that does not end");
    }

    #[tokio::test]
    async fn http_2_connections_finish_when_idle_or_old() {
        let (watch, at) = rig().await;
        watch.set_h2();
        watch.begin();
        watch.end();
        watch.read_something();
        assert_eq!(watch.overdue(at(74)), None, "an acknowledgement is no head");
        assert_eq!(watch.overdue(at(75)), Some(Order::Finish), "idle");
        watch.begin();
        assert_eq!(watch.overdue(at(299)), None);
        assert_eq!(watch.overdue(at(300)), Some(Order::Finish), "old");
    }

    #[tokio::test]
    async fn an_http_2_connection_whose_first_head_never_comes_is_cut() {
        let (watch, at) = rig().await;
        watch.set_h2();
        at(10);
        watch.read_something();
        assert_eq!(watch.overdue(at(14)), None);
        assert_eq!(watch.overdue(at(15)), Some(Order::Drop), "whatever else it says");
    }

    #[tokio::test]
    async fn what_was_told_to_finish_is_cut_after_a_grace_unless_a_request_is_under_way() {
        let (watch, at) = rig().await;
        watch.set_h2();
        watch.begin();
        at(1);
        watch.tell(Order::Finish);
        assert_eq!(watch.overdue(at(1_000)), Some(Order::Finish), "a request under way takes its time");
        watch.end();
        watch.tell(Order::Finish);
        assert_eq!(watch.overdue(at(1_004)), Some(Order::Finish));
        watch.read_something();
        watch.wrote_something();
        assert_eq!(watch.overdue(at(1_005)), Some(Order::Drop), "that it talks does not keep it");
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_gets_its_answer_whole_while_its_connection_finishes() {
        let (watch, at) = rig().await;
        watch.begin();
        watch.end();
        watch.tell(Order::Finish);
        at(4);
        watch.wrote_something();
        assert_eq!(watch.overdue(at(8)), None);
        assert_eq!(watch.overdue(at(9)), Some(Order::Drop), "it reads no more");
    }
}

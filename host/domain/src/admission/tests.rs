//! Tests of permits and waiting lines.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Remembers who was rung for.
#[derive(Default)]
struct Rung(Mutex<Vec<u8>>);

impl Bell for Rung {
    fn ring(&self, worker: u8) {
        self.0.lock().expect("no panic under it").push(worker);
    }
}

impl Rung {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().expect("no panic under it"))
    }
}

fn bell() -> (Arc<Rung>, Arc<dyn Bell>) {
    let rung = Arc::new(Rung::default());
    (Arc::clone(&rung), rung)
}

fn limits(in_flight_max: u32, queue_depth: u32) -> AdmissionLimits {
    AdmissionLimits { in_flight_max, queue_depth }
}

fn now(admitted: Admitted) -> Permit {
    match admitted {
        Admitted::Now(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn queued(admitted: &Admitted) -> Ticket {
    match admitted {
        Admitted::Queued(ticket) => *ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unlimited_by_default_but_counted() {
    let admission = Admission::default();
    let permits: Vec<Permit> =
        (0..1_000).filter_map(|_| admission.try_enter(AdmissionLimits::default())).collect();
    assert_eq!((permits.len(), admission.in_flight()), (1_000, 1_000));
    drop(permits);
    assert_eq!(admission.in_flight(), 0);
}

#[test]
fn beyond_the_permits_requests_wait_beyond_the_queue_they_are_turned_away() {
    let (rung, bell) = bell();
    let admission = Admission::default();
    let mut line = Line::new(admission.clone(), 0);
    let first = now(line.admit(limits(1, 2), &bell, || 1));
    queued(&line.admit(limits(1, 2), &bell, || 2));
    queued(&line.admit(limits(1, 2), &bell, || 3));
    assert!(matches!(line.admit(limits(1, 2), &bell, || 4), Admitted::Full));
    assert_eq!((admission.in_flight(), admission.waiting(), line.len()), (1, 2, 2));
    assert!(rung.take().is_empty());
    drop(first);
    assert_eq!(rung.take(), [0]);
}

#[test]
fn waiters_are_served_in_order_and_newcomers_queue_behind_them() {
    let (_, bell) = bell();
    let admission = Admission::default();
    let mut line = Line::new(admission.clone(), 0);
    let first = now(line.admit(limits(1, 9), &bell, || 0));
    for waiter in 1..3 {
        queued(&line.admit(limits(1, 9), &bell, || waiter));
    }
    drop(first);
    queued(&line.admit(limits(1, 9), &bell, || 3));
    let mut order = Vec::new();
    line.serve(limits(2, 9), |waiter, permit| order.push((waiter, permit)));
    assert_eq!(
        order.iter().map(|(waiter, _)| *waiter).collect::<Vec<_>>(),
        [1, 2],
        "as many as there are permits"
    );
    assert_eq!((admission.in_flight(), admission.waiting()), (2, 1));
    order.clear();
    line.serve(limits(2, 9), |waiter, permit| order.push((waiter, permit)));
    assert_eq!(order[0].0, 3);
    drop(order);
    assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
}

#[test]
fn a_waiter_that_is_gone_hands_its_permit_to_the_next() {
    let (_, bell) = bell();
    let admission = Admission::default();
    let mut line = Line::new(admission.clone(), 0);
    let first = now(line.admit(limits(1, 9), &bell, || 0));
    for waiter in 1..4 {
        queued(&line.admit(limits(1, 9), &bell, || waiter));
    }
    drop(first);
    let mut order = Vec::new();
    line.serve(limits(1, 9), |waiter, _gone| order.push(waiter));
    assert_eq!(order, [1, 2, 3]);
    assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
}

#[test]
fn whoever_leaves_frees_its_place_and_keeps_the_order_of_the_rest() {
    let (_, bell) = bell();
    let admission = Admission::default();
    let mut line = Line::new(admission.clone(), 0);
    let _held = now(line.admit(limits(1, 3), &bell, || 0));
    let tickets: Vec<Ticket> =
        (1..4).map(|waiter| queued(&line.admit(limits(1, 3), &bell, || waiter))).collect();
    assert_eq!(line.leave(tickets[1]), Some(2));
    assert_eq!(line.leave(tickets[1]), None, "left already");
    assert_eq!(admission.waiting(), 2);
    queued(&line.admit(limits(1, 3), &bell, || 4));
    let mut order = Vec::new();
    line.serve(limits(9, 3), |waiter, permit| order.push((waiter, permit)));
    assert_eq!(order.iter().map(|(waiter, _)| *waiter).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(line.leave(tickets[0]), None, "was served");
}

#[test]
fn permits_go_to_the_workers_with_waiters_in_turn() {
    let (rung, bell) = bell();
    let admission = Admission::default();
    let mut lines: Vec<Line<u8>> =
        [0, 63, 64, 255].into_iter().map(|worker| Line::new(admission.clone(), worker)).collect();
    let held: Vec<Permit> = (0..8).map(|_| now(lines[0].admit(limits(8, 99), &bell, || 0))).collect();
    for line in &mut lines[1..] {
        queued(&line.admit(limits(8, 99), &bell, || 0));
        queued(&line.admit(limits(8, 99), &bell, || 0));
    }
    drop(held);
    let rung = rung.take();
    assert_eq!(rung[..6], [63, 64, 255, 63, 64, 255], "{rung:?}");
}

#[test]
fn a_worker_with_nobody_left_passes_the_bell_on() {
    let (rung, bell) = bell();
    let admission = Admission::default();
    let mut near = Line::new(admission.clone(), 1);
    let mut far = Line::new(admission.clone(), 2);
    let held = now(near.admit(limits(1, 9), &bell, || ()));
    let ticket = queued(&near.admit(limits(1, 9), &bell, || ()));
    queued(&far.admit(limits(1, 9), &bell, || ()));
    drop(held);
    assert_eq!(rung.take(), [1]);
    assert!(near.leave(ticket).is_some(), "gives up before it is served");
    assert_eq!(rung.take(), [2]);
    let mut served = 0;
    far.serve(limits(1, 9), |(), _| served += 1);
    assert_eq!(served, 1);
}

#[test]
fn raised_limits_ring_for_everybody_who_waits_and_a_dropped_line_gives_up_its_places() {
    let (rung, bell) = bell();
    let admission = Admission::default();
    let mut lines = [3, 4].map(|worker| Line::new(admission.clone(), worker));
    let _held = now(lines[0].admit(limits(1, 9), &bell, || ()));
    for line in &mut lines {
        queued(&line.admit(limits(1, 9), &bell, || ()));
    }
    admission.ring_all();
    assert_eq!(rung.take(), [3, 4]);
    drop(lines);
    assert_eq!(rung.take(), [4], "the line that went first passes on what it may have been rung for");
    assert_eq!((admission.waiting(), admission.in_flight()), (0, 1));
    admission.ring_all();
    assert!(rung.take().is_empty());
}

/// The narrowest race: the only permit comes back while somebody begins to wait. Nobody else will ever wake them.
#[test]
fn a_permit_that_comes_back_while_somebody_queues_is_noticed() {
    let (rung, bell) = bell();
    let (round_begun, round_done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let admission = Admission::default();
    let returned: Mutex<Option<Permit>> = Mutex::new(None);
    let rounds = 20_000;
    // Spins for as long as the other thread needs if it runs, as the race is narrow; then makes room for it.
    let until = |done: &dyn Fn() -> bool| {
        (0..2_000).take_while(|_| !done()).for_each(|_| std::hint::spin_loop());
        while !done() {
            std::thread::yield_now();
        }
    };
    let reach = |counter: &AtomicUsize, round| until(&|| counter.load(SeqCst) >= round);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                reach(&round_begun, round);
                let permit = returned.lock().expect("no panic under it").take();
                // At every offset to the other thread's steps, one round or another.
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                drop(permit);
                round_done.store(round, SeqCst);
            }
        });
        for round in 1..=rounds {
            let mut line = Line::new(admission.clone(), 0);
            *returned.lock().expect("no panic under it") = Some(now(line.admit(limits(1, 9), &bell, || ())));
            round_begun.store(round, SeqCst);
            // The lock is free again once the other thread is about to give the permit back.
            until(&|| returned.lock().expect("no panic under it").is_none());
            let admitted = line.admit(limits(1, 9), &bell, || ());
            reach(&round_done, round);
            let noticed = matches!(admitted, Admitted::Now(_)) || !rung.take().is_empty();
            if !noticed {
                // Not by unwinding: the other thread waits for the next round.
                eprintln!("round {round}: the permit is free, somebody waits, and no bell rang");
                std::process::abort();
            }
            drop(admitted);
            drop(line);
            rung.take();
        }
    });
}

/// Rings workers over channels.
struct Channels(Vec<Mutex<Sender<()>>>);

impl Bell for Channels {
    fn ring(&self, worker: u8) {
        // A worker that is done hears no more.
        let _ = self.0[usize::from(worker)].lock().expect("no panic under it").send(());
    }
}

/// One worker: `requests` of them, each waits its turn, is in flight for a moment, and gives the permit back.
fn work(
    admission: &Admission,
    worker: u8,
    bell: &Arc<dyn Bell>,
    heard: &Receiver<()>,
    in_flight: &AtomicUsize,
) {
    let limits = limits(2, u32::MAX);
    let flight = |permit: Permit| {
        assert!(in_flight.fetch_add(1, Relaxed) < 2, "more in flight than permits");
        std::thread::yield_now();
        in_flight.fetch_sub(1, Relaxed);
        drop(permit);
    };
    let mut line = Line::new(admission.clone(), worker);
    for request in 0..2_000 {
        if let Admitted::Now(permit) = line.admit(limits, bell, || request) {
            flight(permit);
        }
        while line.len() > 3 || (request == 1_999 && !line.is_empty()) {
            heard.recv().expect("a wake-up was lost: this worker waits for ever");
            line.serve(limits, |_, permit| flight(permit));
        }
    }
}

#[test]
fn no_wake_up_is_lost_between_workers() {
    let admission = Admission::default();
    let in_flight = AtomicUsize::new(0);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| channel()).unzip();
    let bell: Arc<dyn Bell> = Arc::new(Channels(senders.into_iter().map(Mutex::new).collect()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u8)
            .zip(receivers)
            .map(|(worker, heard)| {
                let (admission, bell, in_flight) = (&admission, &bell, &in_flight);
                scope.spawn(move || work(admission, worker, bell, &heard, in_flight))
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("worker"));
        done.store(true, Relaxed);
    });
    assert!(done.load(Relaxed));
    assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
}

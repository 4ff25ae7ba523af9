//! Tests of ejection, probe and slow start.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;

const ERROR: Failed = Failed { cause: Cause::Error, status: 500, retry_after_ms: 0 };

fn ejected_at(now_ms: u64) -> Breaker {
    let breaker = Breaker::default();
    assert_eq!(breaker.failed(ERROR, now_ms), Some(Change::Out(ERROR)));
    breaker
}

/// A1: at a few requests a second, three failures in a row take too long to come.
#[test]
fn one_failure_ejects() {
    let breaker = Breaker::default();
    assert_eq!((breaker.admit(5), breaker.standing(5)), (Admit::Yes, Standing::In));
    breaker.failed(ERROR, 5);
    assert_eq!((breaker.admit(5), breaker.standing(5)), (Admit::No, Standing::Out));
    let ejection = Ejection { last: ERROR, since_ms: 5, until_ms: 505, probing: false };
    assert_eq!(breaker.ejection(), Some(ejection));
}

#[test]
fn only_timeouts_in_a_row_eject() {
    let breaker = Breaker::default();
    let timeout = Failed::of(Cause::Timeout);
    for _ in 0..20 {
        for _ in 1..TIMEOUTS {
            assert_eq!(breaker.failed(timeout, 5), None);
        }
        breaker.succeeded(Admit::Yes, 5);
    }
    assert_eq!(breaker.standing(5), Standing::In);
    for _ in 1..TIMEOUTS {
        breaker.failed(timeout, 5);
    }
    assert_eq!(breaker.failed(timeout, 5), Some(Change::Out(timeout)));
    assert_eq!(breaker.standing(5), Standing::Out);
}

#[test]
fn ejected_endpoint_admits_one_probe_after_its_backoff() {
    let breaker = ejected_at(100);
    assert_eq!(breaker.admit(599), Admit::No);
    assert_eq!(breaker.standing(600), Standing::Due);
    assert_eq!(breaker.admit(600), Admit::Probe);
    assert_eq!(
        (breaker.admit(600), breaker.standing(600)),
        (Admit::No, Standing::Out),
        "one probe at a time"
    );
}

/// A1: an engine is back within 15 s of its recovery, warm.
#[test]
fn backoff_doubles_with_each_failed_probe_up_to_its_bound() {
    let breaker = ejected_at(0);
    let mut now_ms = 0;
    for backoff_ms in [500, 1_000, 2_000, 4_000, 4_000, 4_000] {
        assert_eq!(breaker.admit(now_ms + backoff_ms - 1), Admit::No, "backoff {backoff_ms}");
        now_ms += backoff_ms;
        assert_eq!(breaker.admit(now_ms), Admit::Probe, "backoff {backoff_ms}");
        assert_eq!(breaker.failed(ERROR, now_ms), None, "it was out before");
    }
    for _ in 0..100 {
        now_ms += 4_000;
        assert_eq!(breaker.admit(now_ms), Admit::Probe, "never longer than its bound");
        breaker.failed(ERROR, now_ms);
    }
    let settings = BreakerSettings::default();
    assert!(settings.backoff_max_ms + settings.warm_up_ms < 15_000);
}

#[test]
fn an_overloaded_endpoint_is_left_alone_for_as_long_as_it_asks_and_no_longer_than_the_bound() {
    let overloaded = |retry_after_ms| Failed { cause: Cause::Overloaded, status: 503, retry_after_ms };
    for (asked_ms, backoff_ms) in [(0, 250), (1_000, 1_000), (60_000, 5_000)] {
        let breaker = Breaker::default();
        breaker.failed(overloaded(asked_ms), 0);
        assert!(breaker.is_overloaded());
        assert_eq!(breaker.standing(backoff_ms - 1), Standing::Out, "{asked_ms}");
        assert_eq!(breaker.standing(backoff_ms), Standing::Due, "{asked_ms}");
    }
    assert!(!ejected_at(0).is_overloaded());
}

#[test]
fn a_probe_that_succeeds_closes_and_the_weight_ramps_up() {
    let breaker = ejected_at(0);
    assert_eq!(breaker.warmth(400), 0.0);
    assert_eq!(breaker.admit(1_000), Admit::Probe);
    assert_eq!(breaker.warmth(1_000), 0.0);
    assert_eq!(breaker.succeeded(Admit::Probe, 2_000), Some(Change::Back { after_ms: 2_000 }));
    assert_eq!(breaker.admit(2_000), Admit::Yes);
    assert_eq!(breaker.warmth(2_000), WARMTH_MIN);
    assert!((breaker.warmth(6_000) - 0.55).abs() < 1e-6);
    assert_eq!(breaker.warmth(10_000), 1.0);
}

#[test]
fn only_a_row_of_good_answers_forgets_earlier_ejections() {
    let breaker = ejected_at(0);
    assert_eq!(breaker.admit(500), Admit::Probe);
    breaker.succeeded(Admit::Probe, 500);
    for _ in 1..GOOD_STREAK {
        assert_eq!(breaker.succeeded(Admit::Yes, 600), None);
    }
    breaker.failed(ERROR, 1_000);
    assert_eq!(breaker.admit(1_999), Admit::No, "failed too soon: twice the backoff");
    assert_eq!(breaker.admit(2_000), Admit::Probe);
    breaker.succeeded(Admit::Probe, 2_000);
    for _ in 0..GOOD_STREAK {
        breaker.succeeded(Admit::Yes, 3_000);
    }
    assert_eq!(breaker.ejections(), 0);
    breaker.failed(ERROR, 19_000);
    assert_eq!(breaker.admit(19_500), Admit::Probe, "the first backoff again");
}

#[test]
fn news_from_before_an_ejection_neither_prolongs_nor_ends_it() {
    let breaker = ejected_at(0);
    breaker.failed(ERROR, 400);
    assert_eq!(breaker.succeeded(Admit::Yes, 400), None);
    assert_eq!(breaker.admit(499), Admit::No);
    assert_eq!(breaker.admit(500), Admit::Probe);
    let breaker = ejected_at(0);
    assert!(breaker.succeeded(Admit::No, 300).is_some(), "sent in spite of it, and answered");
    assert_eq!(breaker.admit(300), Admit::Yes);
    assert_eq!(breaker.warmth(300), WARMTH_MIN);
}

/// A1: a request that any engine fails must not take the fleet down.
#[test]
fn a_failure_that_was_the_requests_own_is_taken_back() {
    let breaker = ejected_at(0);
    breaker.acquitted(Admit::Yes, 10);
    assert_eq!((breaker.standing(10), breaker.ejections()), (Standing::In, 0));
    let breaker = ejected_at(0);
    for probe_ms in [500, 1_000, 1_500] {
        assert_eq!(breaker.admit(probe_ms), Admit::Probe, "{probe_ms}");
        breaker.failed(ERROR, probe_ms);
        breaker.acquitted(Admit::Probe, probe_ms);
        assert_eq!(breaker.standing(probe_ms + 499), Standing::Out, "it has not shown that it is well");
    }
}

#[test]
fn a_probe_whose_client_left_or_that_never_reports_makes_way_for_another() {
    let breaker = ejected_at(0);
    assert_eq!(breaker.admit(1_000), Admit::Probe);
    breaker.abandoned(1_200);
    assert_eq!(breaker.admit(1_200), Admit::Probe);
    assert_eq!(breaker.admit(31_199), Admit::No);
    assert_eq!(breaker.admit(31_200), Admit::Probe, "the probe before counts as lost");
}

#[test]
fn an_endpoint_that_accepts_connections_again_is_asked_at_once() {
    let breaker = Breaker::default();
    breaker.failed(Failed::of(Cause::Unreachable), 0);
    breaker.hurry(5);
    assert_eq!(breaker.admit(5), Admit::Probe);
    let breaker = ejected_at(0);
    breaker.hurry(5);
    assert_eq!(breaker.admit(5), Admit::No, "it was never its connections");
}

#[test]
fn a_new_endpoint_may_start_slowly_also_at_time_zero() {
    let breaker = Breaker::default();
    assert_eq!(breaker.warmth(0), 1.0);
    breaker.warm_up(0);
    assert!(breaker.warmth(2) < 0.2);
    breaker.succeeded(Admit::Yes, 3);
    assert!(breaker.warmth(3) < 0.2, "a success does not cut the slow start short");
    assert_eq!(breaker.warmth(8_001), 1.0);
}

#[test]
fn many_threads_get_one_probe_between_them() {
    for round in 0..50 {
        let breaker = ejected_at(round);
        let probes = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    if breaker.admit(round + 1_000) == Admit::Probe {
                        probes.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(probes.load(Relaxed), 1);
    }
}

#[test]
fn every_cause_keeps_its_place_in_the_word() {
    for cause in Cause::ALL {
        let state = State { phase: Phase::Probing, streak: 31, ejections: 31, cause, at_ms: 1 << 40 };
        assert_eq!(State::unpack(state.pack()), state);
    }
}

//! Tests of ejection, probe and slow start.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;

fn ejected_at(now_ms: u64) -> Breaker {
    let breaker = Breaker::default();
    for _ in 0..3 {
        breaker.failed(now_ms);
    }
    breaker
}

#[test]
fn the_third_failure_in_a_row_ejects_and_a_success_between_starts_over() {
    let breaker = Breaker::default();
    for _ in 0..20 {
        breaker.failed(5);
        breaker.failed(5);
        breaker.succeeded(5);
    }
    assert_eq!(breaker.admit(5), Admit::Yes);
    for _ in 0..3 {
        assert!(!breaker.is_excluded(5));
        breaker.failed(5);
    }
    assert!(breaker.is_excluded(5));
    assert_eq!(breaker.admit(5), Admit::No);
}

#[test]
fn ejected_endpoint_admits_one_probe_after_its_backoff() {
    let breaker = ejected_at(100);
    assert_eq!(breaker.admit(1_099), Admit::No);
    assert!(!breaker.is_excluded(1_100), "policies may choose it again");
    assert_eq!(breaker.admit(1_100), Admit::Probe);
    assert_eq!(breaker.admit(1_100), Admit::No, "one probe at a time");
    assert!(breaker.is_excluded(1_100));
}

#[test]
fn backoff_doubles_with_each_failed_probe_up_to_its_bound() {
    let breaker = ejected_at(0);
    let mut now_ms = 0;
    for backoff_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        assert_eq!(breaker.admit(now_ms + backoff_ms - 1), Admit::No, "backoff {backoff_ms}");
        now_ms += backoff_ms;
        assert_eq!(breaker.admit(now_ms), Admit::Probe, "backoff {backoff_ms}");
        breaker.failed(now_ms);
    }
    for _ in 0..100 {
        now_ms += 60_000;
        assert_eq!(breaker.admit(now_ms), Admit::Probe, "never longer than its bound");
        breaker.failed(now_ms);
    }
}

#[test]
fn a_probe_that_succeeds_closes_and_the_weight_ramps_up() {
    let breaker = ejected_at(0);
    assert_eq!(breaker.warmth(500), 0.0);
    assert_eq!(breaker.admit(1_000), Admit::Probe);
    assert_eq!(breaker.warmth(1_000), 0.0);
    breaker.succeeded(2_000);
    assert_eq!(breaker.admit(2_000), Admit::Yes);
    assert_eq!(breaker.warmth(2_000), WARMTH_MIN);
    assert!((breaker.warmth(7_000) - 0.55).abs() < 1e-6);
    assert_eq!(breaker.warmth(12_000), 1.0);
}

#[test]
fn only_a_whole_slow_start_forgets_earlier_ejections() {
    let breaker = ejected_at(0);
    assert_eq!(breaker.admit(1_000), Admit::Probe);
    breaker.succeeded(1_000);
    breaker.succeeded(5_000);
    for _ in 0..3 {
        breaker.failed(6_000);
    }
    assert_eq!(breaker.admit(7_999), Admit::No, "failed within its slow start: twice the backoff");
    assert_eq!(breaker.admit(8_000), Admit::Probe);
    breaker.succeeded(8_000);
    breaker.succeeded(18_000);
    assert_eq!(breaker.ejections(), 0);
    for _ in 0..3 {
        breaker.failed(19_000);
    }
    assert_eq!(breaker.admit(20_000), Admit::Probe, "the first backoff again");
}

#[test]
fn late_failures_do_not_prolong_an_ejection_and_a_late_success_ends_it() {
    let breaker = ejected_at(0);
    breaker.failed(900);
    assert_eq!(breaker.admit(1_000), Admit::Probe);
    let breaker = ejected_at(0);
    breaker.succeeded(500);
    assert_eq!(breaker.admit(500), Admit::Yes);
    assert_eq!(breaker.warmth(500), WARMTH_MIN);
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
fn threshold_zero_never_ejects() {
    let breaker = Breaker::new(BreakerSettings { failures: 0, ..BreakerSettings::default() });
    for _ in 0..1_000 {
        breaker.failed(1);
    }
    assert_eq!(breaker.admit(1), Admit::Yes);
}

#[test]
fn a_new_endpoint_may_start_slowly_also_at_time_zero() {
    let breaker = Breaker::default();
    assert_eq!(breaker.warmth(0), 1.0);
    breaker.warm_up(0);
    assert!(breaker.warmth(2) < 0.2);
    breaker.succeeded(3);
    assert!(breaker.warmth(3) < 0.2, "a success does not cut the slow start short");
    assert_eq!(breaker.warmth(10_001), 1.0);
}

#[test]
fn ejections_are_ignored_only_when_all_are_ejected() {
    assert!(!ignores_ejections(0, 0));
    assert!(!ignores_ejections(3, 2));
    assert!(ignores_ejections(3, 3));
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

use domain::endpoint::Roles;
use domain::signal::SignalSet;

use super::*;
use crate::made_up;
use crate::testing::{pool, request};

const NAN: f32 = f32::NAN;

fn ranked(scores: &[f32], inflight: &[f32], ticket: u64, excluded: &[u32]) -> Vec<u32> {
    let pool = pool(scores.len(), Vec::new());
    let set = SignalSet::EMPTY.with(Signal::Inflight);
    let fleet = Fleet::from_columns(set, scores.len(), inflight.to_vec());
    best(scores, (&pool, Common::of(&pool)), &RequestView { excluded, ..request(ticket) }, &fleet).to_vec()
}

#[test]
fn best_score_first_then_least_in_flight_then_rotation() {
    type Case = (&'static [f32], &'static [f32], u64, &'static [u32], &'static [u32]);
    let cases: [Case; 6] = [
        (&[0.1, 0.9, 0.5], &[0.0, 9.0, 0.0], 0, &[], &[1, 2, 0]),
        (&[0.5, 0.5, 0.5], &[2.0, 0.0, 1.0], 0, &[], &[1, 2, 0]),
        (&[0.5, 0.5, 0.5], &[0.0, 0.0, 0.0], 0, &[], &[0, 1, 2]),
        (&[0.5, 0.5, 0.5], &[0.0, 0.0, 0.0], 5, &[], &[2, 0, 1]),
        (&[0.5, NAN, 0.5], &[0.0, 0.0, 0.0], 1, &[], &[2, 0]),
        (&[0.5, 0.9, NAN], &[0.0, 0.0, 0.0], 0, &[1], &[0]),
    ];
    for (scores, inflight, ticket, excluded, expected) in cases {
        assert_eq!(ranked(scores, inflight, ticket, excluded), expected, "{scores:?} {inflight:?} {ticket}");
    }
}

#[test]
fn only_the_best_eight_are_kept_as_a_full_sort_would_keep_them() {
    let scores: Vec<f32> = (0..500_u32).map(|at| ((at * 7_919) % 101) as f32 / 100.0).collect();
    let inflight: Vec<f32> = (0..500_u32).map(|at| ((at * 104_729) % 13) as f32).collect();
    for ticket in [0, 1, 77, 499] {
        let mut sorted: Vec<usize> = (0..500).map(|offset| (ticket + offset) % 500).collect();
        sorted.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(inflight[*a].total_cmp(&inflight[*b])));
        let expected: Vec<u32> = sorted[..ORDERED_MAX].iter().map(|index| *index as u32).collect();
        assert_eq!(ranked(&scores, &inflight, ticket as u64, &[]), expected);
    }
}

#[test]
fn endpoints_that_serve_no_whole_requests_and_light_ones_stand_back() {
    let prefill = Roles { serve: false, prefill: true, decode: false, draft: false };
    let specs = vec![
        made_up::endpoint("http://a:1", prefill, 1),
        made_up::endpoint("http://b:1", Roles::SERVE, 1),
        made_up::endpoint("http://c:1", Roles::SERVE, 4),
    ];
    let pool = made_up::pool("test", specs, Vec::new());
    let fleet = Fleet::from_columns(SignalSet::EMPTY.with(Signal::Inflight), 3, vec![0.0, 2.0, 4.0]);
    assert_eq!(best(&[1.0, 0.5, 0.5], (&pool, Common::of(&pool)), &request(0), &fleet).to_vec(), [2, 1]);
}

#[test]
fn the_first_of_the_best_is_found_wherever_it_stands() {
    assert_eq!(first_best(&[]), 0);
    assert_eq!(first_best(&[NAN, NAN]), 0);
    assert_eq!(first_best(&[NAN, 0.0, NAN]), 1);
    for at in [0, 1, 31, 32, 33, 99] {
        let mut scores = vec![0.25; 100];
        scores[at] = 0.75;
        assert_eq!(first_best(&scores), at as u32);
        scores[99] = 0.75;
        assert_eq!(first_best(&scores), at as u32, "the first of two");
    }
}

use super::*;
use crate::breaker::{Cause, Failed};
use crate::endpoint::InFlight;
use crate::fixture::{assemble, route};
use crate::policy::Refusal;

const URLS: [&str; 3] = ["http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"];

fn pool() -> std::sync::Arc<Pool> {
    let assembled = assemble(vec![route("m", &URLS, &[])]);
    std::sync::Arc::clone(&assembled.snapshot.pools[0])
}

fn eject(pool: &Pool, index: u32, now_ms: u64) {
    let endpoint = &pool.endpoints[index as usize];
    let mut admitted = endpoint.admit(RequestKind::default(), now_ms);
    endpoint.failed(&mut admitted, Failed::of(Cause::Lost), now_ms);
}

fn at(tried: &[u32], now_ms: u64, ticket: u64) -> At<'_> {
    At { kind: RequestKind::default(), tried, now_ms, ticket }
}

fn all(order: &mut Order, pool: &Pool) -> Vec<u32> {
    let mut tried = Vec::new();
    while let Some(index) = order.next(pool, &at(&tried, 0, 0)) {
        tried.push(index);
    }
    tried
}

#[test]
fn an_order_names_its_own_first_then_the_least_loaded_and_nobody_twice() {
    let pool = pool();
    let _busy = InFlight::begin(std::sync::Arc::clone(&pool.endpoints[0].state), 0);
    let Plan::Single(mut order) = Plan::of(Choice::Endpoint(1)) else { panic!("one leg") };
    assert_eq!(all(&mut order, &pool), [1, 2, 0]);
    let Plan::Single(mut order) = Plan::of(Choice::Ordered(SmallVec::from_slice(&[2, 0]))) else { panic!() };
    assert_eq!(all(&mut order, &pool), [2, 0, 1]);
    let mut closed = Order::new(SmallVec::from_slice(&[2]), false);
    assert_eq!(all(&mut closed, &pool), [2], "a pinned request goes nowhere else");
}

#[test]
fn fallbacks_skip_who_is_excluded_but_the_choice_itself_stands() {
    let pool = pool();
    eject(&pool, 0, 0);
    let mut order = Order::new(SmallVec::from_slice(&[0, 1]), true);
    assert_eq!(order.next(&pool, &at(&[], 1, 0)), Some(0), "the policy was told and chose it all the same");
    let mut order = Order::new(SmallVec::from_slice(&[2, 0]), true);
    assert_eq!(all(&mut order, &pool)[..2], [2, 1]);
}

#[test]
fn ties_of_the_last_resort_rotate_with_the_ticket() {
    let pool = pool();
    let picks: Vec<_> = (0..6).map(|ticket| last_resort(&pool, &at(&[], 0, ticket)).unwrap()).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn when_all_are_ejected_they_are_tried_all_the_same_but_sleepers_are_not() {
    let pool = pool();
    pool.endpoints[2].command_sleep(true);
    for index in 0..2 {
        eject(&pool, index, 0);
    }
    assert_eq!(last_resort(&pool, &at(&[], 1, 0)), Some(0));
    assert_eq!(last_resort(&pool, &at(&[0, 1], 1, 0)), None);
    let mut out = Vec::new();
    excluded(&pool, RequestKind::default(), 1, &mut out);
    assert_eq!(out, [2]);
    pool.endpoints[2].command_sleep(false);
    excluded(&pool, RequestKind::default(), 1, &mut out);
    assert_eq!(out, [0, 1]);
}

#[test]
fn refusals_and_rejections_are_no_legs() {
    let refusal = Refusal { status: 429, reason: "later".into(), retry_after: None };
    assert!(matches!(
        Plan::of(Choice::Refuse(refusal)),
        Plan::TurnAway(FailureKind::Refused { status: 429, .. })
    ));
    assert_eq!(Plan::of(Choice::Reject), Plan::TurnAway(FailureKind::PolicyRejected));
}

use std::collections::HashSet;

use wicketgate_sdk::Choice;
use wicketgate_sdk::testing::{Case, Harness, check_description, pool, refusal, weighted_pool};

use super::*;

/// A prompt of 1,000 tokens, of which three endpoints hold this much; nothing in flight.
fn cached(tokens: [f32; 3]) -> Case {
    let case = Case::new().column(Signal::CachedTokens, tokens).prefix_hashes([7, 8, 9]);
    load(case, [0.0; 3], [0.0; 3])
}

fn load(case: Case, inflight: [f32; 3], tokens: [f32; 3]) -> Case {
    case.column(Signal::InFlight, inflight).column(Signal::InFlightTokens, tokens)
}

fn choose(config: &str, case: &Case) -> Option<usize> {
    Harness::<PrefixHash>::new(config, &pool(3)).choose(case)
}

fn scores(case: &Case) -> Vec<f32> {
    match Harness::<PrefixHash>::new("{}", &pool(3)).pick(case).choice {
        Choice::Scores(scores) => scores,
        other => panic!("not scores: {other:?}"),
    }
}

#[test]
fn the_holder_is_let_go_when_waiting_costs_more_than_the_hit_saves() {
    let held = || cached([0.0, 600.0, 0.0]);
    let table = [
        (cached([100.0, 600.0, 300.0]), 1),
        (load(held(), [1.0; 3], [0.0, 1_100.0, 0.0]), 1),
        (load(held(), [1.0; 3], [300.0, 1_300.0, 300.0]), 1),
        (load(held(), [1.0; 3], [0.0, 1_300.0, 0.0]), 0),
        (held().excluded([1]), 0),
    ];
    for (case, expected) in table {
        assert_eq!(choose("{}", &case), Some(expected), "{case:?}");
    }
}

#[test]
fn what_everybody_shares_does_not_gather_on_one() {
    // The one holder of a system prompt that is nearly all of every request, its queue always empty.
    let shared = |inflight| choose("{}", &load(cached([900.0, 0.0, 0.0]), inflight, [0.0; 3]));
    assert_eq!(shared([2.0, 1.0, 1.0]), Some(0), "a little more is fine");
    assert_eq!(shared([9.0, 1.0, 0.0]), Some(2), "nearly all is not");
    let near = load(cached([900.0, 900.0, 0.0]), [3.0, 2.0, 0.0], [0.0; 3]);
    assert_eq!(choose("{}", &near), Some(1), "among holders load decides");
    assert_eq!(
        choose(r#"{"balance":0}"#, &load(cached([900.0, 0.0, 0.0]), [9.0, 1.0, 0.0], [0.0; 3])),
        Some(0)
    );
}

#[test]
fn an_engine_that_computed_more_than_others_gets_no_more_while_the_fleet_is_busy() {
    // Of equal holders the one that worked least; of a holder and others the holder, unless it worked far more than they.
    let worked = |cached_tokens, inflight, recent: [f32; 3]| {
        let recent = recent.map(|thousands| thousands * 1_000.0);
        choose("{}", &load(cached(cached_tokens), inflight, [0.0; 3]).column(Signal::RecentTokens, recent))
    };
    let (everywhere, holder) = ([500.0; 3], [900.0, 0.0, 0.0]);
    let table = [
        ("busy", everywhere, [4.0; 3], [90.0, 70.0, 80.0], 1),
        ("a little more", holder, [4.0; 3], [90.0, 80.0, 80.0], 0),
        ("twice as much", holder, [4.0; 3], [180.0, 80.0, 80.0], 1),
        ("all of it", holder, [1.0, 1.0, 1.0], [180.0, 0.0, 0.0], 2),
        ("all of it, on a quiet fleet", holder, [0.0; 3], [180.0, 0.0, 0.0], 0),
        ("all of it, and next to nothing", holder, [1.0; 3], [0.9, 0.0, 0.0], 0),
    ];
    for (name, cached_tokens, inflight, recent, expected) in table {
        let chosen = worked(cached_tokens, inflight, recent);
        if expected == 2 {
            assert!(matches!(chosen, Some(1 | 2)), "{name}: {chosen:?}");
        } else {
            assert_eq!(chosen, Some(expected), "{name}");
        }
    }
}

#[test]
fn below_the_threshold_a_hit_only_decides_among_equals() {
    let pool_settings = r#"{"pool":{"thresholdHitRate":0.8}}"#;
    let table = [
        ("{}", [1.0, 1.0, 0.0], 1),
        (pool_settings, [1.0, 1.0, 0.0], 2),
        (pool_settings, [1.0, 1.0, 1.0], 1),
        (r#"{"thresholdHitRate":0.5,"pool":{"thresholdHitRate":0.8}}"#, [1.0, 1.0, 0.0], 1),
    ];
    for (config, inflight, expected) in table {
        let case = load(cached([0.0, 700.0, 0.0]), inflight, [0.0; 3]);
        assert_eq!(choose(config, &case), Some(expected), "{config} {inflight:?}");
    }
}

#[test]
fn a_full_engine_gets_no_new_prefix_but_keeps_its_own() {
    let full = |case: Case| case.column(Signal::KvUsage, [0.95, 0.5, f32::NAN]);
    let busy = |case| load(case, [0.0, 1.0, 1.0], [0.0; 3]);
    assert_ne!(choose("{}", &full(busy(cached([0.0; 3])))), Some(0));
    assert_eq!(choose("{}", &full(busy(cached([900.0, 0.0, 0.0])))), Some(0));
    assert_eq!(choose(r#"{"pool":{"evictionThreshold":0.99}}"#, &full(busy(cached([0.0; 3])))), Some(0));
}

#[test]
fn an_unknown_prompt_has_one_home_and_many_prompts_have_many() {
    let policy = Harness::<PrefixHash>::new("{}", &pool(8));
    let home = |first: u64, ticket, excluded: Vec<u32>| {
        let idle = Case::new().column(Signal::InFlight, [0.0; 8]).column(Signal::InFlightTokens, [0.0; 8]);
        let case = idle.column(Signal::CachedTokens, [0.0; 8]).prefix_hashes([first, 1]).ticket(ticket);
        policy.choose(&case.excluded(excluded)).expect("somebody is chosen")
    };
    let homes: HashSet<_> = (0..200).map(|prompt| home(prompt, prompt, vec![])).collect();
    assert_eq!(homes.len(), 8);
    for prompt in 0..50 {
        let first = home(prompt, 0, vec![]);
        assert_eq!(home(prompt, 77, vec![]), first, "whoever asks, whenever");
        let away = (first as u32 + 1) % 8;
        assert_eq!(home(prompt, 0, vec![away]), first, "another one's absence moves nothing");
        assert_ne!(home(prompt, 0, vec![first as u32]), first);
    }
}

#[test]
fn the_home_is_who_ranks_highest_of_those_that_are_cheap_enough_in_a_pool_of_any_size() {
    for len in [1_usize, 15, 16, 17, 40] {
        let names: Vec<u32> = (0..len).map(|index| hash(format!("engine-{index}").as_bytes())).collect();
        let costs: Vec<f32> = (0..len).map(|index| if index % 5 == 3 { 9.0 } else { 1.0 }).collect();
        for prompt in 0..200_u64 {
            let cheap = (0..len).filter(|index| costs[*index] <= 2.0);
            let expected = cheap.max_by_key(|index| mix(names[*index] ^ prompt as u32) >> 1 | 1);
            assert_eq!(home(&names, &costs, 2.0, prompt), expected, "{len} endpoints, prompt {prompt}");
        }
        assert_eq!(home(&names, &costs, 0.0, 1), None);
        assert_eq!(home(&names, &vec![f32::NAN; len], 2.0, 1), None);
    }
}

#[test]
fn a_home_with_a_queue_is_no_home() {
    let policy = Harness::<PrefixHash>::new("{}", &pool(3));
    let cold = |tokens| load(cached([0.0; 3]), [0.0; 3], tokens);
    let home = policy.choose(&cold([0.0; 3])).expect("a home");
    let mut queue = [0.0; 3];
    queue[home] = 300.0;
    assert_ne!(policy.choose(&cold(queue)), Some(home));
}

#[test]
fn scores_before_are_folded_in() {
    let even = load(cached([500.0; 3]), [1.0; 3], [0.0; 3]);
    assert_eq!(scores(&even), [1.0; 3]);
    assert_eq!(scores(&even.clone().scores([0.5, 1.0, 0.25])), [0.5, 1.0, 0.25]);
    let masked = scores(&even.scores([f32::NAN, 0.5, 1.0]));
    assert!(masked[0].is_nan() && masked[1..] == [0.5, 1.0]);
}

#[test]
fn weight_buys_room() {
    let policy = Harness::<PrefixHash>::new("{}", &weighted_pool(&[1, 4, 1]));
    let case = load(cached([500.0; 3]), [1.0, 2.0, 1.0], [100.0, 300.0, 100.0]);
    assert_eq!(policy.choose(&case), Some(1));
}

#[test]
fn what_is_unknown_counts_for_nothing() {
    assert_eq!(choose("{}", &Case::new().column(Signal::CachedTokens, [f32::NAN, 9.0, f32::NAN])), Some(1));
    assert!(choose("{}", &Case::new().prompt_tokens(0)).is_some(), "not even the prompt's length");
    assert_eq!(choose("{}", &cached([0.0; 3]).excluded([0, 1, 2])), None);
}

#[test]
fn settings_are_checked() {
    check_description::<PrefixHash>();
    let table = [
        (r#"{"balance":-1}"#, "/balance"),
        (r#"{"thresholdHitRate":1.1}"#, "/thresholdHitRate"),
        (r#"{"pool":{"evictionThreshold":"0.9"}}"#, "/pool/evictionThreshold"),
        (r#"{"pool":7}"#, "/pool"),
        (r#"{"beta":1}"#, "/beta"),
    ];
    for (config, path) in table {
        assert_eq!(refusal::<PrefixHash>(config).path, path, "{config}");
    }
}

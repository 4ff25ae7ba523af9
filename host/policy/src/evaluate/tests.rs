use domain::policy::{Choice, EntrySpec, Evaluate as _, FailureMode, Fault, PolicyLimits, Step, Verdict};
use domain::request::RequestView;

use crate::testing::*;

/// Ten times the fuel.
const GENEROUS: PolicyLimits = PolicyLimits { fuel_permille: Some(10_000), memory_bytes: None };

fn steps(verdict: &Verdict) -> Vec<Step> {
    verdict.traces.iter().map(|trace| trace.step).collect()
}

#[test]
fn every_built_in_policy_decides() {
    let mut names: Vec<&str> = crate::builtin_names().collect();
    names.sort_unstable();
    for expected in
        ["gpu-load-aware", "least-in-flight", "load-aware", "prefix-hash", "round-robin", "session-affinity"]
    {
        assert!(names.contains(&expected), "{expected} is embedded: {names:?}");
    }
    for name in names {
        let pool = pool(5, vec![entry(spec(name, "{}"))]);
        let mut evaluator = evaluator();
        let request = RequestView { session: Some(7), owners: &[3, 1, 0], ..request(7) };
        for _ in 0..3 {
            let verdict = decide(&mut evaluator, &pool, &request);
            assert!(!matches!(verdict.traces[0].step, Step::Fault(_)), "{name}: {verdict:?}");
            assert_ne!(verdict.choice, Choice::None, "{name}");
            assert!(verdict.traces[0].fuel > 0);
        }
        assert_eq!(evaluator.instances(), 1, "one instance is kept");
    }
}

#[test]
fn round_robin_rotates_by_ticket_and_skips_the_excluded() {
    let pool = pool(3, vec![entry(spec("round-robin", "{}"))]);
    let mut evaluator = evaluator();
    let chosen: Vec<Choice> =
        (0..4).map(|ticket| decide(&mut evaluator, &pool, &request(ticket)).choice).collect();
    assert_eq!(chosen, [0, 1, 2, 0].map(Choice::Endpoint));
    let verdict = decide(&mut evaluator, &pool, &RequestView { excluded: &[0], ..request(0) });
    assert!(matches!(verdict.choice, Choice::Endpoint(1 | 2)), "{verdict:?}");
}

#[test]
fn every_hostile_behaviour_is_its_fault_and_the_next_call_is_served_by_a_new_instance() {
    let faults = [
        ("loop", "", Fault::Fuel),
        ("memory", "", Fault::Memory),
        ("recursion", "", Fault::Trap),
        ("panic", "", Fault::Trap),
        ("trap", "", Fault::Trap),
        ("many-logs", r#","amount":17"#, Fault::HostCalls),
        ("giant-log", r#","amount":100000"#, Fault::HostCalls),
        ("giant-list", r#","amount":20000"#, Fault::HostCalls),
        ("giant-string", r#","amount":100000"#, Fault::HostCalls),
        ("giant-headers", r#","amount":100"#, Fault::HostCalls),
        ("giant-headers", r#","amount":17"#, Fault::Answer),
        ("bad-index", "", Fault::Answer),
        ("excluded", "", Fault::Answer),
        ("nan-scores", "", Fault::Answer),
        ("short-scores", "", Fault::Answer),
        ("wild-scores", "", Fault::Answer),
        ("empty-order", "", Fault::Answer),
        ("bad-status", "", Fault::Answer),
        ("bad-header", "", Fault::Answer),
        ("same-pair", "", Fault::Answer),
    ];
    for (behaviour, more, fault) in faults {
        let config = format!(r#"{{"behaviour":"{behaviour}","after":4{more}}}"#);
        let hostile = EntrySpec { limits: GENEROUS, ..spec("testing/hostile", &config) };
        // Many endpoints and the largest factor, so that fuel is not what ends everything.
        let pool = pool(400, vec![entry(hostile)]);
        let mut evaluator = evaluator();
        let request = RequestView { excluded: &[2], ..request(1) };
        let verdicts: Vec<Verdict> =
            (0..6).map(|_| decide(&mut evaluator, &pool, &request)).collect();
        let notes = evaluator.take_notes();
        for honest in [0, 1, 2, 3, 5] {
            assert_eq!(verdicts[honest].choice, Choice::Endpoint(1), "{behaviour}: call {honest}: {notes:?}");
        }
        assert_eq!(steps(&verdicts[4]), [Step::Fault(fault)], "{behaviour}: {:?}", notes[4]);
        assert_eq!(verdicts[4].choice, Choice::None, "{behaviour}: as if it had abstained");
        assert_eq!(evaluator.instances(), 1, "{behaviour}: one instance, a new one");
    }
}

#[test]
fn a_fault_costs_its_own_call_as_the_failure_mode_says() {
    let cases = [
        (FailureMode::NextPolicy, Choice::Endpoint(1), 2),
        (FailureMode::LeastInFlight, Choice::None, 1),
        (FailureMode::Reject, Choice::Reject, 1),
    ];
    for (failure_mode, expected, asked) in cases {
        let failing =
            EntrySpec { failure_mode, ..spec("testing/hostile", r#"{"behaviour":"bad-index","after":4}"#) };
        let failing = vec![entry(failing), entry(spec("round-robin", "{}"))];
        let missing = vec![missing_entry(failure_mode), entry(spec("round-robin", "{}"))];
        for (entries, honest_calls) in [(failing, 4), (missing, 0)] {
            let pool = pool(3, entries);
            let mut evaluator = evaluator();
            for _ in 0..honest_calls {
                decide(&mut evaluator, &pool, &request(1));
            }
            let verdict = decide(&mut evaluator, &pool, &request(1));
            assert_eq!(verdict.choice, expected, "{failure_mode:?}");
            assert_eq!(verdict.traces.len(), asked, "{failure_mode:?}");
        }
    }
}

#[test]
fn memory_grows_little_within_a_pick() {
    let bomb = |amount: u64| EntrySpec {
        limits: GENEROUS,
        ..spec("testing/hostile", &format!(r#"{{"behaviour":"memory","after":4,"amount":{amount}}}"#))
    };
    for (amount, expected) in [(512 << 10, Step::Chose(1)), (2 << 20, Step::Fault(Fault::Memory))] {
        let pool = pool(400, vec![entry(bomb(amount))]);
        let mut evaluator = evaluator();
        let verdicts: Vec<_> = (0..5).map(|_| decide(&mut evaluator, &pool, &request(1))).collect();
        assert_eq!(steps(&verdicts[4]), [expected], "{amount} bytes: {:?}", evaluator.take_notes());
    }
}

use std::sync::Arc;

use domain::endpoint::Roles;
use domain::policy::{
    Choice, EntrySpec, Evaluate as _, FailureMode, Fault, Mode, PolicyLimits, Prepare as _, Prepared, Step,
    Verdict,
};
use domain::pool::{Entry, Pool};
use domain::request::RequestView;

use crate::evaluate::Evaluator;
use crate::library::{Library, Options};
use crate::made_up;
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
        let verdicts: Vec<Verdict> = (0..6).map(|_| decide(&mut evaluator, &pool, &request)).collect();
        for honest in [0, 1, 2, 3, 5] {
            assert_eq!(verdicts[honest].choice, Choice::Endpoint(1), "{behaviour}: call {honest}");
        }
        assert_eq!(steps(&verdicts[4]), [Step::Fault(fault)], "{behaviour}");
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
        assert_eq!(steps(&verdicts[4]), [expected], "{amount} bytes");
    }
}

/// Scores, a picker that folds them in, and others: what a chain makes of its entries.
#[test]
fn a_chain_is_composed_of_its_entries_answers() {
    let hostile_answers = |behaviour: &str| entry(after(behaviour, 0));
    let round_robin = || entry(spec("round-robin", "{}"));
    let abstains = || hostile_answers("abstain");
    let scores = || entry(spec("prefix-hash", "{}"));
    let (chose, abstained) = (Step::Chose(1), Step::Abstained);
    let cases = [
        ("an endpoint ends it", vec![round_robin(), scores()], Choice::Endpoint(1), vec![chose]),
        (
            "abstaining passes on",
            vec![abstains(), round_robin()],
            Choice::Endpoint(1),
            vec![abstained, chose],
        ),
        ("nobody has an opinion", vec![abstains(), abstains()], Choice::None, vec![abstained; 2]),
        (
            "scores without a picker are ranked, ties by rotation",
            vec![scores(), abstains()],
            Choice::Scored(smallvec::smallvec![1, 2, 0]),
            vec![Step::Scored(0), abstained],
        ),
        (
            "a picker after scores",
            vec![scores(), round_robin()],
            Choice::Endpoint(1),
            vec![Step::Scored(0), chose],
        ),
        (
            "a refusal ends it",
            vec![hostile_answers("refuse"), round_robin()],
            Choice::Refuse(domain::policy::Refusal {
                status: 429,
                reason: "as asked for".into(),
                retry_after: Some(std::time::Duration::from_secs(1)),
            }),
            vec![Step::Refused],
        ),
        (
            "without a session the cheapest call is none",
            vec![entry(spec("session-affinity", "{}")), round_robin()],
            Choice::Endpoint(1),
            vec![Step::NoSession, chose],
        ),
    ];
    for (what, entries, choice, expected) in cases {
        let verdict = decide(&mut evaluator(), &pool(3, entries), &request(1));
        assert_eq!(verdict.choice, choice, "{what}");
        assert_eq!(steps(&verdict), expected, "{what}");
    }
}

#[test]
fn an_order_is_deduplicated_and_cut_at_eight() {
    let pool = pool(10, vec![entry(after("repeated-order", 4))]);
    let mut evaluator = evaluator();
    let verdicts: Vec<Verdict> = (0..5).map(|_| decide(&mut evaluator, &pool, &request(1))).collect();
    assert_eq!(verdicts[4].choice, Choice::Ordered(smallvec::smallvec![0, 1, 2, 3, 4, 5, 6, 7]));
}

/// The hostile guest, honest in its first `calls`. Behaviours that fail the probe need at least 4.
fn after(behaviour: &str, calls: u32) -> EntrySpec {
    spec("testing/hostile", &format!(r#"{{"behaviour":"{behaviour}","after":{calls}}}"#))
}

#[test]
fn a_shadow_entry_is_recorded_and_changes_nothing() {
    let shadow =
        |spec: EntrySpec| entry(EntrySpec { mode: Mode::Shadow, failure_mode: FailureMode::Reject, ..spec });
    let entries = vec![
        shadow(after("honest", 0)),
        shadow(after("abstain", 0)),
        entry(spec("round-robin", "{}")),
        // The decision has fallen, and it still runs.
        shadow(spec("prefix-hash", "{}")),
        shadow(after("trap", 4)),
    ];
    let pool = pool(3, entries);
    let mut evaluator = evaluator();
    for call in 0..6 {
        let verdict = decide(&mut evaluator, &pool, &request(1));
        assert_eq!(verdict.choice, Choice::Endpoint(1));
        let last = if call == 4 { Step::Fault(Fault::Trap) } else { Step::Shadow(Some(1)) };
        let expected =
            [Step::Shadow(Some(1)), Step::Shadow(None), Step::Chose(1), Step::Shadow(Some(1)), last];
        assert_eq!(steps(&verdict), expected, "call {call}");
    }
}

#[test]
fn a_policy_that_keeps_failing_is_left_alone_and_tried_again_later() {
    let failing = |failure_mode| EntrySpec { failure_mode, ..after("bad-index", 4) };
    let pool = pool(3, vec![entry(failing(FailureMode::NextPolicy)), entry(spec("round-robin", "{}"))]);
    let mut evaluator = evaluator();
    let mut at =
        |now_ms: u64| steps(&decide(&mut evaluator, &pool, &RequestView { now_ms, ..request(1) }))[0];
    let mut faults = 0;
    while faults < 5 {
        match at(1_000_000) {
            Step::Fault(Fault::Answer) => faults += 1,
            step => assert_eq!(step, Step::Chose(1), "honest while a new instance begins"),
        }
    }
    assert_eq!(at(1_000_000), Step::Unavailable);
    assert_eq!(at(1_000_999), Step::Unavailable);
    assert_eq!(at(1_001_000), Step::Chose(1), "asked again after a second");
}

#[test]
fn pairs_are_faults_while_nothing_executes_them() {
    let cases = [
        (Roles { serve: true, prefill: true, decode: true, draft: true }, Fault::NotExecuted),
        (Roles::SERVE, Fault::Answer),
    ];
    for (roles, fault) in cases {
        for behaviour in ["disaggregated", "speculative"] {
            let specs = ["http://a:1", "http://b:1"].map(|url| made_up::endpoint(url, roles, 1));
            let pool = made_up::pool("test", specs.into(), vec![entry(after(behaviour, 4))]);
            let mut evaluator = evaluator();
            let verdicts: Vec<Verdict> = (0..5).map(|_| decide(&mut evaluator, &pool, &request(0))).collect();
            assert_eq!(steps(&verdicts[4]), [Step::Fault(fault)], "{behaviour}");
        }
    }
}

#[test]
fn a_policy_sees_the_headers_it_named_and_no_others() {
    let pool = pool(3, vec![entry(after("header", 0))]);
    let name = |name| http::HeaderName::from_static(name);
    let both = [(name("x-other"), "0"), (name("x-hostile-endpoint"), "2")];
    let other = [(name("x-other"), "0")];
    let mut evaluator = evaluator();
    let verdict = decide(&mut evaluator, &pool, &RequestView { headers: &both, ..request(0) });
    assert_eq!(verdict.choice, Choice::Endpoint(2));
    let verdict = decide(&mut evaluator, &pool, &RequestView { headers: &other, ..request(0) });
    assert_eq!(verdict.choice, Choice::None);
}

#[test]
fn instances_are_bounded_and_the_least_recently_used_go_first() {
    let entries = || vec![entry(spec("round-robin", "{}")), entry(spec("least-in-flight", "{}"))];
    let named = |name: &str| {
        let specs = vec![made_up::endpoint("http://a:1", Roles::SERVE, 1)];
        made_up::pool(name, specs, vec![entry(after("abstain", 0)), entries().remove(0)])
    };
    let pools: Vec<Pool> = (0..12).map(|index| named(&format!("model-{index}"))).collect();
    let mut evaluator = Evaluator::new(8);
    for round in 0..3 {
        for pool in &pools {
            let verdict = decide(&mut evaluator, pool, &request(0));
            assert_eq!(verdict.choice, Choice::Endpoint(0), "round {round}");
            assert!(evaluator.instances() <= 8, "{} live", evaluator.instances());
        }
    }
    // The last pool was used last, so it is still there; asking it again makes nothing new.
    let before = evaluator.instances();
    decide(&mut evaluator, &pools[11], &request(0));
    assert_eq!(evaluator.instances(), before);
    evaluator.retain(&[]);
    assert_eq!(evaluator.instances(), 0);
}

#[test]
fn a_thousand_swaps_leave_one_instance_and_no_policy_behind() {
    let mut evaluator = evaluator();
    let library = Library::new(Options { instances: 8, directory: "/".into(), ..in_process() }).unwrap();
    let mut gone: Vec<std::sync::Weak<dyn Prepared>> = Vec::new();
    for swap in 0..1_000 {
        let spec = Arc::new(spec("round-robin", &format!(r#"{{"pool":{{"generation":{swap}}}}}"#)));
        let prepared = library.prepare_now(&spec).unwrap();
        gone.push(Arc::downgrade(&prepared));
        let entry = Entry { spec: Arc::clone(&spec), prepared: Some(prepared) };
        let pool = Arc::new(pool(3, vec![entry]));
        evaluator.retain(&[Arc::clone(&pool)]);
        library.retain(&[spec]);
        let verdict = decide(&mut evaluator, &pool, &request(swap));
        assert_eq!(verdict.choice, Choice::Endpoint((swap % 3) as u32), "swap {swap}");
        assert_eq!(evaluator.instances(), 1, "swap {swap}");
    }
    let alive = gone.iter().filter(|policy| policy.strong_count() > 0).count();
    assert_eq!(alive, 1, "only the last is kept");
}

#[test]
fn the_same_call_gives_the_same_verdict_on_another_worker_and_again() {
    for name in ["prefix-hash", "load-aware", "gpu-load-aware", "session-affinity", "least-in-flight"] {
        let pool = pool(7, vec![entry(spec(name, "{}"))]);
        let (mut one, mut other) = (evaluator(), evaluator());
        for ticket in 0..20 {
            let hashes = [ticket, ticket + 1];
            let request = RequestView {
                session: Some(ticket),
                owners: &[4, 2],
                prefix_hashes: &hashes,
                ..request(ticket)
            };
            let first = decide(&mut one, &pool, &request);
            let again = decide(&mut one, &pool, &request);
            let elsewhere = decide(&mut other, &pool, &request);
            assert_eq!(first.choice, again.choice, "{name}");
            assert_eq!(first.choice, elsewhere.choice, "{name}");
        }
    }
}

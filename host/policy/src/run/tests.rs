use std::fs;

use super::*;
use crate::scenario::ScenarioError;
use crate::testing::{LIBRARY, component};

fn decide(policy: &str, scenario: &str) -> Result<Decided, RunError> {
    let scenario = Scenario::parse(scenario.as_bytes()).unwrap();
    run(&LIBRARY, &fs::read(component(policy)).unwrap(), &scenario)
}

const TWO: &str = r#"{"endpoints": [{"url": "http://b:8000"}, {"url": "http://a:8000"}]}"#;

#[test]
fn a_scenario_is_decided_with_its_columns_in_the_order_of_urls() {
    let scenario =
        format!(r#"{{"pool": {TWO}, "columns": {{"inflight": [9, 1]}}, "request": {{"ticket": 1}}}}"#);
    let decided = decide("least-in-flight", &scenario).unwrap();
    assert_eq!(decided.policy, "least-in-flight");
    assert_eq!(&*decided.endpoints[0], "http://a:8000");
    let inflight = decided.columns.iter().find(|(signal, _)| *signal == Signal::Inflight).unwrap();
    assert_eq!(inflight.1, [1.0, 9.0]);
    assert_eq!(decided.answer, Ok(Answered::Chose(Choice::Endpoint(0), Vec::new())));
    assert!(decided.fuel > 0 && decided.fuel < decided.fuel_limit);
}

#[test]
fn scores_come_with_the_order_they_would_lead_to() {
    let scenario = format!(r#"{{"pool": {TWO}, "scores": [0.5, null]}}"#);
    let decided = decide("prefix-hash", &scenario).unwrap();
    let Ok(Answered::Scored { scores, order, .. }) = decided.answer else {
        panic!("{decided:?}");
    };
    assert!(scores[0].is_nan(), "null rules `a` out, which is first by URL");
    assert_eq!(order, [1]);
}

#[test]
fn a_session_finds_its_owners_on_the_ring_and_without_one_it_is_not_asked() {
    let three = r#"{"endpoints": [{"url": "http://10.0.0.1:8000"}, {"url": "http://10.0.0.2:8000"}, {"url": "http://10.0.0.3:8000"}]}"#;
    let with =
        |request: &str| decide("session-affinity", &format!(r#"{{"pool": {three}, "request": {request}}}"#));
    let decided = with(r#"{"session": "session1"}"#).unwrap();
    assert!(
        matches!(&decided.answer, Ok(Answered::Chose(Choice::Endpoint(1), _)))
            || matches!(&decided.answer, Ok(Answered::Chose(Choice::Ordered(list), _)) if list[0] == 1),
        "{decided:?}"
    );
    assert_eq!(with("{}").unwrap().answer, Ok(Answered::NoSession));
}

#[test]
fn a_fault_comes_with_its_reason_and_the_lines_written_before() {
    let config = r#"{"behaviour": "panic", "after": 4}"#;
    // A new instance is honest at first, so this one answers.
    let decided = decide("testing/hostile", &format!(r#"{{"pool": {TWO}, "config": {config}}}"#)).unwrap();
    assert!(decided.answer.is_ok());
    let config = r#"{"behaviour": "many-logs", "amount": 3}"#;
    let decided = decide("testing/hostile", &format!(r#"{{"pool": {TWO}, "config": {config}}}"#)).unwrap();
    assert_eq!(
        decided.log.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(),
        ["line 0", "line 1", "line 2"]
    );
    let prefill = r#"{"endpoints": [{"url": "http://a:1", "roles": ["prefill"]}]}"#;
    let decided = decide("round-robin", &format!(r#"{{"pool": {prefill}}}"#)).unwrap();
    let (fault, reason) = decided.answer.unwrap_err();
    assert_eq!(fault, Fault::Answer);
    assert!(reason.contains("serve"), "{reason}");
}

/// N7: a component that fails its probe can be looked at: that is what its author needs.
#[test]
fn a_policy_that_fails_its_probe_is_run_all_the_same() {
    let config = r#"{"behaviour": "nan-scores"}"#;
    let decided = decide("testing/hostile", &format!(r#"{{"pool": {TWO}, "config": {config}}}"#)).unwrap();
    assert_eq!(decided.refused.unwrap().reason, "ProbeFailed");
    assert!(decided.answer.is_err(), "and the answer is the fault that it is");
    let honest = decide("round-robin", &format!(r#"{{"pool": {TWO}}}"#)).unwrap();
    assert_eq!(honest.refused, None);
    let config = r#"{"behaviour": "refuse-config"}"#;
    let refused = decide("testing/hostile", &format!(r#"{{"pool": {TWO}, "config": {config}}}"#));
    assert!(matches!(refused, Err(RunError::Start(_))), "{refused:?}");
}

#[test]
fn a_scenario_that_makes_no_sense_is_refused() {
    type Case = (&'static str, fn(&ScenarioError) -> bool);
    let cases: [Case; 6] = [
        (r#"{"pool": {"endpoints": []}}"#, |e| matches!(e, ScenarioError::NoEndpoint)),
        (r#"{"pool": {"endpoints": [{"url": "a"}, {"url": "a"}]}}"#, |e| {
            matches!(e, ScenarioError::TwiceTheSame(_))
        }),
        (r#"{"pool": {"endpoints": [{"url": "a"}]}, "columns": {"moon": [1]}}"#, |e| {
            matches!(e, ScenarioError::UnknownSignal(_))
        }),
        (r#"{"pool": {"endpoints": [{"url": "a"}]}, "columns": {"queued": [1, 2]}}"#, |e| {
            matches!(e, ScenarioError::Length { given: 2, endpoints: 1, .. })
        }),
        (r#"{"pool": {"endpoints": [{"url": "a"}]}, "request": {"excluded": [1]}}"#, |e| {
            matches!(e, ScenarioError::Index { list: "excluded", index: 1 })
        }),
        (r#"{"pool": {"endpoints": [{"url": "a"}]}, "request": {"headers": {"Upper": "x"}}}"#, |e| {
            matches!(e, ScenarioError::Header(_))
        }),
    ];
    for (scenario, expected) in cases {
        match decide("round-robin", scenario) {
            Err(RunError::Scenario(error)) => assert!(expected(&error), "{scenario}: {error}"),
            other => panic!("{scenario}: {other:?}"),
        }
    }
    for typo in [r#"{"pools": {}}"#, r#"{"pool": {"endpoints": [{"url": "a", "wieght": 2}]}}"#, "nonsense"] {
        assert!(matches!(Scenario::parse(typo.as_bytes()), Err(ScenarioError::Json(_))), "{typo}");
    }
}

use std::sync::Arc;

use super::*;
use crate::fixture;

const CHAT: RequestKind = RequestKind::new(0);
const RESPONSES: RequestKind = RequestKind::new(3);
const MISSING: Failed = Failed { cause: Cause::Missing, status: 404, retry_after_ms: 0 };

fn endpoint() -> Endpoint {
    Endpoint { spec: fixture::endpoint("http://a:1"), state: Arc::new(EndpointState::new(1)) }
}

fn good(endpoint: &Endpoint, kind: RequestKind, now_ms: u64) {
    let admitted = endpoint.admit(kind, now_ms);
    endpoint.succeeded(&admitted, now_ms);
}

/// A1: an engine that serves other requests is avoided only for what it does not know.
#[test]
fn what_an_engine_refuses_alone_keeps_only_such_requests_away() {
    let endpoint = endpoint();
    good(&endpoint, CHAT, 1_000);
    let mut admitted = endpoint.admit(RESPONSES, 2_000);
    endpoint.failed(&mut admitted, MISSING, 2_000);
    assert_eq!(endpoint.standing(CHAT, 2_001), Standing::In);
    assert_eq!(endpoint.standing(RESPONSES, 2_001), Standing::Out);
    assert!(!endpoint.is_excluded(2_001));
    assert!(matches!(endpoint.avoided(2_001), Some(Avoided::Refuses(RESPONSES, _))));
    assert_eq!(endpoint.standing(RESPONSES, 2_500), Standing::Due);
    let probe = endpoint.admit(RESPONSES, 2_500);
    assert!(probe.is_probe());
    endpoint.succeeded(&probe, 2_501);
    assert_eq!((endpoint.standing(RESPONSES, 2_501), endpoint.avoided(2_501)), (Standing::In, None));
}

#[test]
fn an_engine_that_answers_nothing_else_is_avoided_altogether() {
    let endpoint = endpoint();
    let mut admitted = endpoint.admit(RESPONSES, 2_000);
    endpoint.failed(&mut admitted, MISSING, 2_000);
    assert_eq!(endpoint.standing(CHAT, 2_001), Standing::Out);
    assert!(endpoint.is_excluded(2_001));
    let label = endpoint.avoided(2_001).map(|avoided| avoided.label());
    assert_eq!(label, Some("missing"));
    endpoint.acquitted(&admitted, 2_002);
    assert!(!endpoint.is_excluded(2_002), "the request was at fault");
}

/// A2: what the observer found counts before the first request does.
#[test]
fn an_endpoint_that_the_observer_cannot_reach_is_avoided_until_either_side_gets_through() {
    let endpoint = endpoint();
    endpoint.state.observed(false, 1_000);
    assert_eq!(endpoint.standing(CHAT, 1_001), Standing::Out);
    assert_eq!(endpoint.avoided(1_001), Some(Avoided::Unreachable { at_ms: 1_000 }));
    endpoint.state.observed(true, 2_000);
    assert_eq!(endpoint.standing(CHAT, 2_000), Standing::In);
    endpoint.state.observed(false, 3_000);
    good(&endpoint, CHAT, 3_500);
    assert_eq!(endpoint.standing(CHAT, 3_500), Standing::In, "a request got through");
    endpoint.state.observed(false, 4_000);
    assert_eq!(endpoint.standing(CHAT, 4_000 + UNREACHABLE_MS), Standing::In, "no news for long");
}

#[test]
fn a_good_answer_proves_an_endpoint_for_a_while_and_for_its_kind() {
    let endpoint = endpoint();
    assert!(!endpoint.has_answered());
    good(&endpoint, CHAT, 10_000);
    assert!(endpoint.has_answered());
    assert!(endpoint.is_proven(CHAT, 10_000 + PROVEN_MS - TICK_MS));
    assert!(!endpoint.is_proven(CHAT, 10_000 + PROVEN_MS + TICK_MS));
    assert!(!endpoint.is_proven(RESPONSES, 10_000));
    assert!(endpoint.can_answer(CHAT, 60_000) && !endpoint.can_answer(RESPONSES, 60_000));
    assert!(!endpoint.can_answer(CHAT, 80_000));
}

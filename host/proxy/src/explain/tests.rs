use std::time::Duration;

use domain::assemble::Assembler;
use domain::name::Generation;
use domain::policy::Fault;

use super::*;
use crate::fixture;
use crate::metrics::Board;
use crate::record::Recorder;

/// Decides `ids` in turn over a pool of two endpoints; returns the board.
fn decided(ids: &[&str]) -> Arc<Board> {
    let endpoints =
        [fixture::endpoint("http://10.0.0.1:8000", ""), fixture::endpoint("http://10.0.0.2:8000", "")];
    let chain = ["session-affinity", "prefix-hash", "load-aware"];
    let gateway = fixture::gateway("g", vec![fixture::route_with_chain("m", &endpoints, &chain)]);
    let snapshot = fixture::snapshot(&mut Assembler::default(), vec![gateway]);
    let board = Board::new();
    let recorder = Recorder::new(&board, 0);
    let trace = |entry, step| EntryTrace { entry, step, fuel: 500, nanoseconds: 1_500 };
    for id in ids {
        recorder.decided(&Decision {
            request_id: id,
            pool: &snapshot.pools[0],
            generation: Generation(7),
            attempt: 0,
            candidates: 2,
            prompt_tokens: 100,
            cached_tokens: 60,
            endpoint: Some(1),
            traces: &[trace(0, Step::NoSession), trace(1, Step::Chose(1))],
            took: Duration::from_micros(4),
            seen: &Seen::default(),
        });
    }
    board
}

#[test]
fn a_decision_is_found_by_its_request_and_says_who_did_what() {
    let board = decided(&["a", "b"]);
    assert_eq!(board.log().find("c"), []);
    let [found] = &board.log().find("b")[..] else { panic!("one decision") };
    let mut page = serde_json::to_value(found).unwrap();
    assert!(page.as_object_mut().unwrap().remove("at_unix_ms").unwrap().as_u64().unwrap() > 0);
    let expected = serde_json::json!({
        "request_id": "b", "gateway": "default/g", "model": "m", "generation": 7, "attempt": 0, "pool": 2,
        "candidates": 2, "prompt_tokens": 100, "cached_tokens": 60, "endpoint": "http://10.0.0.2:8000",
        "took_us": 4.0, "attempts": [],
        "entries": [
            {"policy": "session-affinity", "step": "no_session", "fuel": 500, "took_us": 1.5},
            {"policy": "prefix-hash", "step": "chose", "endpoint": "http://10.0.0.2:8000", "fuel": 500, "took_us": 1.5},
            {"policy": "load-aware", "step": "not_asked", "fuel": 0},
        ],
    });
    assert_eq!(page, expected);
}

#[test]
fn the_log_is_bounded_and_forgets_the_oldest() {
    let ids: Vec<String> = (0..DECISIONS_MAX + 10).map(|number| format!("id-{number}")).collect();
    let board = decided(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let log = board.log();
    assert_eq!(log.last(usize::MAX).len(), DECISIONS_MAX);
    assert_eq!(log.find("id-9"), []);
    assert_eq!(log.find("id-10").len(), 1);
    let last: Vec<String> = log.last(2).into_iter().map(|decision| decision.request_id).collect();
    assert_eq!(last, [format!("id-{}", DECISIONS_MAX + 8), format!("id-{}", DECISIONS_MAX + 9)]);
}

#[test]
fn a_long_id_is_cut_and_still_found() {
    let id = "é".repeat(ID_BYTES_MAX);
    let found = decided(&[&id]).log().find(&id);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].request_id.len(), ID_BYTES_MAX);
}

#[test]
fn faults_and_shadows_are_explained() {
    let endpoints = [fixture::endpoint("http://10.0.0.1:8000", "")];
    let gateway = fixture::gateway("g", vec![fixture::route_with_chain("m", &endpoints, &["a", "b"])]);
    let snapshot = fixture::snapshot(&mut Assembler::default(), vec![gateway]);
    let board = Board::new();
    let trace = |entry, step| EntryTrace { entry, step, fuel: 0, nanoseconds: 0 };
    Recorder::new(&board, 0).decided(&Decision {
        request_id: "id",
        pool: &snapshot.pools[0],
        generation: Generation(1),
        attempt: 1,
        candidates: 1,
        prompt_tokens: 0,
        cached_tokens: 0,
        endpoint: None,
        traces: &[trace(0, Step::Fault(Fault::Trap)), trace(1, Step::Shadow(Some(0)))],
        took: Duration::ZERO,
        seen: &Seen::default(),
    });
    let found = &board.log().find("id")[0];
    assert_eq!((found.entries[0].step, found.entries[0].fault), ("fault", Some("trap")));
    assert_eq!(
        (found.entries[1].step, found.entries[1].endpoint.as_deref()),
        ("shadow", Some("http://10.0.0.1:8000"))
    );
    assert_eq!(found.endpoint, None);
}

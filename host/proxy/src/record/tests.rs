use std::sync::Arc;
use std::time::Duration;

use domain::assemble::Assembler;
use domain::failure::FailureKind;
use domain::outcome::Usage;

use super::cells::FAILURES;
use super::*;
use crate::fixture;

fn outcome(ending: Ending) -> Outcome {
    Outcome {
        ending,
        attempts: 1,
        request_bytes: 10,
        response_bytes: 20,
        chunks: 2,
        duration: Duration::from_millis(200),
        first_byte: Some(Duration::from_millis(20)),
        decision: Duration::from_micros(3),
        usage: Some(Usage { prompt_tokens: 7, cached_tokens: Some(4), completion_tokens: 10 }),
    }
}

fn end<'a>(outcome: &'a Outcome, attempt: Option<&'a Attempt>) -> End<'a> {
    End {
        request_id: "id-1",
        operation: "chat_completions",
        gateway: None,
        model: None,
        attempt,
        events: 11,
        outcome,
        now_ms: 1_000,
    }
}

#[test]
fn an_attempt_counts_in_prefill_then_decoding_and_leaves_nothing_behind() {
    let endpoint = fixture::endpoint("http://10.0.0.1:8000", "");
    let gateway = fixture::gateway("g", vec![fixture::route("m", &[endpoint])]);
    let snapshot = fixture::snapshot(&mut Assembler::default(), vec![gateway]);
    let pool = &snapshot.pools[0];
    let recorder = Recorder::new(&Board::new(), 0);
    let mut attempt = recorder.attempt(pool, &pool.endpoints[0], 0);
    let server = Arc::clone(&attempt.pair.server);
    let counts = || (server.prefill.get(), server.decoding.get());
    assert_eq!(counts(), (1, 0));
    let aborted = recorder.attempt(pool, &pool.endpoints[0], 0);
    assert_eq!(counts(), (2, 0));
    drop(aborted);
    attempt.first_byte();
    attempt.first_byte();
    assert_eq!(counts(), (0, 1));
    drop(attempt);
    assert_eq!(counts(), (0, 0));
    let accepted = recorder.accept();
    assert_eq!(recorder.cells.in_flight.get(), 1);
    drop(accepted);
    assert_eq!(recorder.cells.in_flight.get(), 0);
}

#[test]
fn an_end_is_counted_where_it_happened() {
    let endpoint = fixture::endpoint("http://10.0.0.1:8000", "");
    let gateway = fixture::gateway("g", vec![fixture::route("m", &[endpoint])]);
    let snapshot = fixture::snapshot(&mut Assembler::default(), vec![gateway]);
    let pool = &snapshot.pools[0];
    let recorder = Recorder::new(&Board::new(), 0);
    let attempt = recorder.attempt(pool, &pool.endpoints[0], 0);
    recorder.finished(&end(&outcome(Ending::Answered { status: 200 }), Some(&attempt)));
    recorder.finished(&end(&outcome(Ending::Answered { status: 503 }), Some(&attempt)));
    recorder.finished(&end(&outcome(Ending::ClientGone), Some(&attempt)));
    let failure = FailureKind::ModelUnknown { model: "x".into() }.into();
    recorder.finished(&end(&outcome(Ending::Failed { failure, status: 404 }), None));
    let pair = &attempt.pair;
    assert_eq!((pair.input_tokens.get(), pair.cached_tokens.get(), pair.output_tokens.get()), (21, 12, 30));
    assert_eq!(pair.errors.iter().collect::<Vec<_>>(), [("client_gone", 1), ("status", 1)]);
    assert_eq!(pair.success.counts[2].get(), 1, "200 ms is at most 250 ms");
    assert_eq!(pair.error.counts[2].get(), 2);
    let sums = pair.server.window.sums(1_000);
    assert_eq!((sums.arrived, sums.ended, sums.streams, sums.tokens), (1, 3, 3, 30));
    assert_eq!((sums.gaps, sums.gap_us), (27, 3 * 180_000));
    let failures: Vec<_> = recorder.cells.failures.iter().collect();
    assert_eq!(failures, [("client_gone", 1), ("model_unknown", 1)]);
    assert_eq!(recorder.cells.statuses[404].get(), 1);
}

#[test]
fn every_failure_has_a_cell_of_its_own() {
    use FailureKind as K;
    let some = || "x".into();
    let kinds = [
        K::BodyNotJson,
        K::BodyNotObject,
        K::ModelMissing,
        K::ModelRepeated { max: 1 },
        K::ModelUnknown { model: some() },
        K::ModelUnavailable { model: some() },
        K::PathUnknown,
        K::MethodNotAllowed,
        K::BodyTooLarge { limit_bytes: 1 },
        K::BodyEncoded,
        K::BodyTimeout,
        K::ClientGone,
        K::Multipart(domain::failure::MultipartFault::Unreadable),
        K::EngineIdMissing,
        K::EngineIdUnknown { id: some() },
        K::NotImplemented { what: "" },
        K::Forbidden { what: "" },
        K::Guarded { reason: some() },
        K::Overloaded { retry_after: Duration::ZERO },
        K::BodyMemory,
        K::Shortage,
        K::Refused { status: 429, reason: some(), retry_after: None },
        K::PolicyRejected,
        K::DeadlineExceeded,
        K::Connect,
        K::LostBeforeHead,
        K::BadAnswer,
        K::Status { status: 500 },
        K::LostMidway,
        K::Draining,
        K::NotReady,
    ];
    for kind in kinds {
        let label = Failure::from(kind).label();
        assert!(FAILURES.contains(&label), "{label}");
    }
}

#[test]
fn what_a_snapshot_does_not_hold_is_let_go() {
    let endpoints =
        [fixture::endpoint("http://10.0.0.1:8000", ""), fixture::endpoint("http://10.0.0.2:8000", "")];
    let mut assembler = Assembler::default();
    let both =
        vec![fixture::gateway("g", vec![fixture::route("m", &endpoints), fixture::route("n", &endpoints)])];
    let first = fixture::snapshot(&mut assembler, both);
    let recorder = Recorder::new(&Board::new(), 0);
    for pool in &first.pools {
        recorder.incoming(Some(&pool.model));
        for endpoint in &pool.endpoints {
            drop(recorder.attempt(pool, endpoint, 0));
        }
    }
    let sizes = || {
        let known = recorder.known.borrow();
        (known.pairs.len(), known.servers.len(), known.incoming.len())
    };
    assert_eq!(sizes(), (4, 2, 2));
    recorder.adopt(&first);
    assert_eq!(sizes(), (4, 2, 2));
    let less = vec![fixture::gateway("g", vec![fixture::route("m", &endpoints[1..])])];
    recorder.adopt(&fixture::snapshot(&mut assembler, less));
    assert_eq!(sizes(), (1, 1, 1));
}

/// Names and values of one log line.
type Line = Vec<(&'static str, String)>;

/// Keeps the fields of every event with target `request`.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<Line>>>);

struct Fields(Line);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "request"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_request_is_one_line_of_stable_fields_and_absent_facts_are_absent() {
    let endpoint = fixture::endpoint("http://10.0.0.1:8000", "");
    let gateway = fixture::gateway("g", vec![fixture::route("m", &[endpoint])]);
    let snapshot = fixture::snapshot(&mut Assembler::default(), vec![gateway]);
    let pool = &snapshot.pools[0];
    let recorder = Recorder::new(&Board::new(), 0);
    let attempt = recorder.attempt(pool, &pool.endpoints[0], 0);
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let answered = outcome(Ending::Answered { status: 200 });
        let known =
            End { gateway: Some(&pool.gateway), model: Some(&pool.model), ..end(&answered, Some(&attempt)) };
        recorder.finished(&known);
        let failure = FailureKind::BodyNotJson.into();
        let failed = Outcome {
            attempts: 0,
            first_byte: None,
            usage: None,
            ..outcome(Ending::Failed { failure, status: 400 })
        };
        recorder.finished(&end(&failed, None));
    });
    let lines = lines.0.lock().unwrap();
    let [answered, failed] = &lines[..] else { panic!("one line each: {lines:?}") };
    let names =
        |line: &[(&'static str, String)]| line.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    assert_eq!(
        names(answered),
        "request_id operation gateway model endpoint ending status attempts request_bytes response_bytes chunks \
         duration_ms first_byte_ms decision_us prompt_tokens cached_tokens completion_tokens"
    );
    assert_eq!(
        names(failed),
        "request_id operation ending status error attempts request_bytes response_bytes chunks duration_ms decision_us"
    );
    let value = |name| &answered.iter().find(|(field, _)| *field == name).unwrap().1;
    assert_eq!((value("gateway").as_str(), value("duration_ms").as_str()), ("default/g", "200.0"));
}

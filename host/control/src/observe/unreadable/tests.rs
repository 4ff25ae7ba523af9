use domain::assemble::Assembler;
use manifest::{Change, decode, lower};

use super::*;
use crate::fake::{FakePrepare, gateway, service};

/// The snapshot of a service with these engines, and the objects that it was made of.
fn world(urls: &[&str]) -> (Arc<Snapshot>, Bundle) {
    let mut bundle = Bundle::default();
    let text = service("s", urls) + &gateway("g", "s", &[]);
    for object in decode(&"m.yaml".into(), text.as_bytes()).objects {
        bundle.apply(Change::Applied(Arc::new(object)));
    }
    let lowered = lower(&bundle, &Default::default());
    let assembled = Assembler::default().assemble(&lowered.draft, &FakePrepare::default());
    (assembled.snapshot, bundle)
}

fn id(url: &str) -> EndpointId {
    EndpointId { url: url.into(), pod_uid: "".into() }
}

const A: &str = "http://a:1";
const B: &str = "http://b:1";
const MISSING: ProbeError = ProbeError::Status(StatusCode::NOT_FOUND);

fn fail(unreadable: &mut Unreadable, url: &str, error: &ProbeError, times: u32) {
    (0..times).for_each(|_| unreadable.failed(&id(url), error));
}

/// B2: one finding per service and cause, which names the page, what came instead and what to do, and goes when it is read.
#[test]
fn what_cannot_be_read_is_one_finding_per_service_and_cause() {
    let (snapshot, bundle) = world(&[A, B]);
    let mut unreadable = Unreadable::default();
    fail(&mut unreadable, A, &MISSING, FAILURES_QUIET - 1);
    assert_eq!(unreadable.take_due(0, &snapshot, &bundle), None, "it may be starting");
    fail(&mut unreadable, A, &MISSING, 1);
    fail(&mut unreadable, B, &MISSING, FAILURES_QUIET);
    let found = unreadable.take_due(0, &snapshot, &bundle).expect("news");
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (&*finding.object, &*finding.field, finding.reason),
        ("InferenceService default/s", FIELD, "MetricsUnread")
    );
    let begins = "the metrics page http://a:1/metrics (and of other engines) gives no numbers: answered 404 Not Found; ";
    assert!(finding.message.starts_with(begins), "{}", finding.message);
    assert!(finding.remedy.contains("spec.metrics"), "{}", finding.remedy);
    assert!(finding.origin.line > 0, "{:?}", finding.origin);

    fail(&mut unreadable, A, &MISSING, 5);
    assert_eq!(unreadable.take_due(9_000, &snapshot, &bundle), None, "nothing new");
    fail(&mut unreadable, B, &ProbeError::Unread(super::super::Unread::Html), FAILURES_QUIET);
    let found = unreadable.take_due(9_000, &snapshot, &bundle).expect("another cause");
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|finding| finding.message.contains("answered an HTML page")), "{found:?}");
    unreadable.read(&id(A));
    assert_eq!(unreadable.take_due(9_999, &snapshot, &bundle), None, "not yet");
    assert_eq!(unreadable.take_due(10_000, &snapshot, &bundle).map(|found| found.len()), Some(1));
    unreadable.forget(&id(B));
    assert_eq!(unreadable.take_due(20_000, &snapshot, &bundle), Some(Vec::new()));
}

/// B2: causes that take turns are found once, and do not flood the log.
#[test]
fn causes_that_take_turns_are_found_and_do_not_flicker() {
    let (snapshot, bundle) = world(&[A]);
    let mut unreadable = Unreadable::default();
    for _ in 0..2 {
        fail(&mut unreadable, A, &MISSING, 1);
        fail(&mut unreadable, A, &ProbeError::Timeout, 1);
    }
    assert_eq!(unreadable.take_due(0, &snapshot, &bundle).map(|found| found.len()), Some(1));
    for at in 1..20 {
        fail(&mut unreadable, A, &MISSING, 1);
        fail(&mut unreadable, A, &ProbeError::Timeout, 1);
        assert_eq!(unreadable.take_due(at * 10_000, &snapshot, &bundle), None);
    }
}

#[test]
fn each_kind_of_failure_has_its_remedy() {
    let redirect =
        ProbeError::Redirect { status: StatusCode::TEMPORARY_REDIRECT, location: "http://x/".into() };
    for (error, words) in [
        (ProbeError::Status(StatusCode::UNAUTHORIZED), "spec.auth"),
        (redirect, "spec.metrics"),
        (ProbeError::TooLarge { limit_bytes: 4 << 20 }, "show less"),
        (ProbeError::Connect(std::io::ErrorKind::ConnectionRefused.into()), "spec.metrics.port"),
        (ProbeError::Tls("x".into()), "spec.tls"),
    ] {
        assert!(Cause::of(&error).remedy.contains(words), "{error}");
    }
}

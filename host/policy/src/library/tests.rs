use std::fs;
use std::sync::atomic::AtomicUsize;
use std::thread;

use domain::name::PolicyName;
use domain::policy::{Call, Choice, FailureMode, Mode, PolicyLimits, PolicySource};
use domain::pool::Entry;

use super::tables::SPARE_COMPONENTS_MAX;
use super::*;
use crate::inspect;
use crate::testing::*;

fn library() -> Library {
    Library::new(Options { instances: 8, directory: "/".into(), ..in_process() }).unwrap()
}

fn bytes(name: &str, bytes: Vec<u8>) -> EntrySpec {
    let source = PolicySource::Bytes { origin: name.into(), bytes: bytes.into() };
    EntrySpec {
        name: PolicyName::from(name),
        source,
        sha256: None,
        config: "{}".into(),
        limits: PolicyLimits::default(),
        failure_mode: FailureMode::NextPolicy,
        mode: Mode::Active,
        tenant: "default".into(),
    }
}

fn failure(spec: &EntrySpec) -> PrepareFailure {
    LIBRARY.prepare_now(spec).expect_err("it must not load")
}

#[test]
fn what_does_not_load_says_why_and_what_to_do() {
    let hostile = |config: &str| spec("testing/hostile", config);
    let broken = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let mut half = fs::read(component("round-robin")).unwrap();
    broken(&mut half);
    let builtin =
        EntrySpec { source: PolicySource::Builtin(PolicyName::from("no-such")), ..spec("round-robin", "{}") };
    let wrong_digest = EntrySpec { sha256: Some("00".repeat(32).into()), ..spec("round-robin", "{}") };
    let tiny = PolicyLimits { memory_bytes: Some(64 << 10), fuel_permille: None };
    let cases = [
        (spec("testing/wrong-world", "{}"), "WrongWorld", "wit/routing.wit"),
        (spec("testing/future-version", "{}"), "WrongWorld", "0.1.0"),
        (spec("testing/ungranted-import", "{}"), "ImportNotGranted", "wasm32-unknown-unknown"),
        (spec("testing/unknown-signal", "{}"), "UnknownSignal", "kv-usage"),
        (spec("testing/forbidden-header", "{}"), "InvalidComponent", "credentials"),
        (bytes("half", half), "InvalidComponent", "validate"),
        (bytes("module", b"\0asm\x01\0\0\0".to_vec()), "InvalidComponent", "component new"),
        (bytes("empty", Vec::new()), "InvalidComponent", "validate"),
        (bytes("large", vec![0; inspect::COMPONENT_BYTES_MAX + 1]), "TooLarge", "debug information"),
        (
            bytes("exports-nothing", component_with_function(inspect::FUNCTION_BYTES_MAX)),
            "WrongWorld",
            "routing-policy",
        ),
        (
            bytes("straight", component_with_function(inspect::FUNCTION_BYTES_MAX + 1)),
            "FunctionTooLarge",
            "split",
        ),
        (hostile(r#"{"behaviour":"refuse-config"}"#), "ConfigRejected", "policy check"),
        (hostile(r#"{"behaviour":"impure"}"#), "Impure", "ticket"),
        (hostile(r#"{"behaviour":"loop"}"#), "ProbeFailed", "fuelFactor"),
        (hostile(r#"{"behaviour":"loop","when":"sync"}"#), "ProbeFailed", "fuelFactor"),
        (hostile(r#"{"behaviour":"panic","when":"configure"}"#), "ProbeFailed", "policy run"),
        (hostile(r#"{"behaviour":"nan-scores"}"#), "ProbeFailed", "policy run"),
        (EntrySpec { limits: tiny, ..hostile("{}") }, "ProbeFailed", ""),
        (builtin, "FetchFailed", "round-robin"),
        (wrong_digest, "DigestMismatch", "sha256"),
        (
            EntrySpec { source: PolicySource::File("/no/such.wasm".into()), ..hostile("{}") },
            "FetchFailed",
            "put",
        ),
        (
            EntrySpec { source: PolicySource::File("../up.wasm".into()), ..hostile("{}") },
            "FetchFailed",
            "below",
        ),
    ];
    for (spec, reason, remedy) in cases {
        let failure = failure(&spec);
        assert_eq!(failure.reason, reason, "{failure:?}");
        assert!(failure.remedy.contains(remedy), "{remedy:?} in {failure:?}");
        assert_eq!(failure.config_path.is_some(), reason == "ConfigRejected", "{failure:?}");
    }
}

/// N7: a call that runs out of fuel is named, with what it used and what it had.
#[test]
fn out_of_fuel_names_the_call_its_use_and_its_budget() {
    for (when, call, budget) in [("sync", "sync", 25 * 104_000), ("pick", "pick", 104_000)] {
        let failure =
            failure(&spec("testing/hostile", &format!(r#"{{"behaviour":"loop","when":"{when}"}}"#)));
        let wanted = format!("`{call}` ran out of fuel: it used all of its {budget} units");
        assert!(failure.message.contains(&wanted), "{failure}");
    }
    let limits = PolicyLimits { memory_bytes: None, fuel_permille: Some(2_000) };
    let twice = EntrySpec { limits, ..spec("testing/hostile", r#"{"behaviour":"loop"}"#) };
    assert!(failure(&twice).message.contains(" 208000 units"), "the factor counts");
}

/// N7: what a policy may use to say what it is obeys its `fuelFactor` too.
#[test]
fn describe_has_the_fuel_that_the_factor_gives() {
    let limits = PolicyLimits { memory_bytes: None, fuel_permille: Some(1) };
    let poor = EntrySpec { limits, ..spec("gpu-load-aware", "{}") };
    let failure = failure(&poor);
    assert!(failure.message.contains("out of fuel") && failure.message.contains(" 2500 units"), "{failure}");
    assert!(
        LIBRARY.prepare_now(&spec("gpu-load-aware", "{}")).is_ok(),
        "the same component with a factor of 1"
    );
}

#[test]
fn a_refused_configuration_names_the_place() {
    let failure = failure(&spec("testing/hostile", r#"{"when":"later"}"#));
    assert_eq!(failure.config_path.as_deref(), Some("/when"));
}

#[test]
fn what_a_guest_said_when_it_panicked_is_in_the_reason() {
    let failure = failure(&spec("testing/hostile", r#"{"behaviour":"panic"}"#));
    assert!(failure.message.contains("hostile, as asked for"), "{failure}");
}

#[test]
fn equal_specs_share_one_policy_and_the_right_digest_is_accepted() {
    let one = LIBRARY.ready_now(&spec("round-robin", "{}")).unwrap();
    let sha256 = Some(one.digest.to_string().into());
    let same = EntrySpec {
        sha256,
        failure_mode: FailureMode::Reject,
        mode: Mode::Shadow,
        ..spec("round-robin", "{}")
    };
    assert!(Arc::ptr_eq(&one, &LIBRARY.ready_now(&same).unwrap()));
    let other = spec("round-robin", r#"{"pool":{}}"#);
    assert!(!Arc::ptr_eq(&one, &LIBRARY.ready_now(&other).unwrap()));
}

#[test]
fn a_changed_file_is_prepared_again_and_a_broken_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.wasm");
    let place = |name: &str| {
        // As editors and mounted volumes do: a new file takes the place of the old one.
        fs::copy(component(name), folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
    };
    let directory = folder.path().to_owned();
    let library = Library::new(Options { instances: 8, directory, ..in_process() }).unwrap();
    let spec = EntrySpec { source: PolicySource::File("mine.wasm".into()), ..spec("round-robin", "{}") };
    place("round-robin");
    let first = library.prepare_now(&spec).unwrap();
    assert_eq!(first.description().name, "round-robin");
    let again = library.prepare_now(&spec).unwrap();
    assert!(Arc::ptr_eq(&first, &again), "unchanged");
    place("least-in-flight");
    assert_eq!(library.prepare_now(&spec).unwrap().description().name, "least-in-flight");
    fs::write(&file, "not a component").unwrap();
    assert_eq!(library.prepare_now(&spec).unwrap_err().reason, "InvalidComponent");
    place("round-robin");
    assert_eq!(library.prepare_now(&spec).unwrap().description().name, "round-robin");
    assert_eq!(first.description().name, "round-robin", "who holds an old one keeps it");
}

#[test]
fn preparing_does_not_wait_and_says_when_it_is_worth_asking_again() {
    let library = library();
    let (sender, woken) = mpsc::channel();
    library.on_change(Box::new(move || sender.send(()).unwrap()));
    let good = spec("least-in-flight", "{}");
    assert!(matches!(library.prepare(&good), Preparation::Pending));
    assert!(matches!(library.prepare(&good), Preparation::Pending), "asking again begins nothing again");
    woken.recv().unwrap();
    assert!(matches!(library.prepare(&good), Preparation::Ready(_)));
    let bad = spec("testing/unknown-signal", "{}");
    assert!(matches!(library.prepare(&bad), Preparation::Pending));
    woken.recv().unwrap();
    assert!(matches!(library.prepare(&bad), Preparation::Failed(_)));
    assert!(woken.try_recv().is_err(), "once each");
}

#[test]
fn what_no_live_spec_needs_is_forgotten_but_for_a_few_compiled_components() {
    let library = library();
    let kept = Arc::new(spec("round-robin", "{}"));
    let first = library.ready_now(&kept).unwrap();
    let others = ["least-in-flight", "load-aware", "prefix-hash", "gpu-load-aware", "session-affinity"];
    let mut last = first.digest;
    for name in others {
        let ready = library.ready_now(&spec(name, "{}")).unwrap();
        last = ready.digest;
        let weak = Arc::downgrade(&ready);
        drop(ready);
        library.retain(&[Arc::clone(&kept)]);
        assert!(weak.upgrade().is_none(), "nobody holds {name} any more");
        assert!(library.compiled(last).is_some(), "going back to {name} would not compile it again");
    }
    assert!(Arc::ptr_eq(&first, &library.ready_now(&kept).unwrap()));
    let tables = library.shared.tables();
    assert_eq!((tables.components.len(), tables.policies.len()), (1 + SPARE_COMPONENTS_MAX, 1));
    assert!(tables.components.contains_key(&last));
}

#[test]
fn a_compilation_over_its_deadline_fails_and_holds_up_nothing() {
    let options =
        Options { instances: 8, directory: "/".into(), compile_deadline: Duration::ZERO, ..in_process() };
    let library = Library::new(options).unwrap();
    for name in ["round-robin", "least-in-flight", "load-aware", "prefix-hash"] {
        let failure = library.prepare_now(&spec(name, "{}")).unwrap_err();
        assert_eq!(failure.reason, "CompileOverdue", "{failure:?}");
    }
}

#[test]
fn many_threads_asking_for_one_component_compile_it_once() {
    let library = library();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&wakes);
    library.on_change(Box::new(move || {
        counted.fetch_add(1, Relaxed);
    }));
    let spec = spec("round-robin", "{}");
    let ready: Vec<Arc<Ready>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| library.ready_now(&spec).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ready.iter().all(|policy| Arc::ptr_eq(policy, &ready[0])));
    drop(library);
    assert_eq!(wakes.load(Relaxed), 1);
}

#[test]
fn more_instances_than_the_address_space_has_room_for_get_smaller_reservations() {
    // 40,000 times 4 GiB and more is beyond 128 TiB.
    let options = Options { instances: 40_000, directory: "/".into(), ..in_process() };
    let library = Library::new(options).unwrap();
    let entry = Entry {
        spec: Arc::new(spec("round-robin", "{}")),
        prepared: Some(library.prepare_now(&spec("round-robin", "{}")).unwrap()),
    };
    let pool = pool(3, vec![entry]);
    let mut evaluator = library.evaluator(0);
    let verdict = evaluator.evaluate(Call { pool: &pool, request: &request(1), fleet: &idle(&pool) });
    assert_eq!(verdict.choice, Choice::Endpoint(1));
}

/// C15: of bytes that are not WebAssembly nothing is shown, neither the first of them nor their digest: they may be a secret.
#[test]
fn a_secret_named_as_a_component_is_not_shown() {
    let secret = b"hunter2-and-more";
    let shown = |failure: &PrepareFailure| format!("{failure:?}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), secret).unwrap();
    let sources = [
        PolicySource::Bytes { origin: "Secret default/s key k".into(), bytes: secret.as_slice().into() },
        PolicySource::File("secret".into()),
    ];
    for source in sources {
        for sha256 in [None, Some("0".repeat(64).into())] {
            let options = Options { directory: folder.path().to_owned(), ..in_process() };
            let library = Library::new(options).unwrap();
            let spec = EntrySpec { source: source.clone(), sha256, ..spec("round-robin", "{}") };
            let Preparation::Failed(failure) = library.prepare(&spec) else {
                panic!("{source:?} is prepared")
            };
            let text = shown(&failure);
            assert_eq!(failure.reason, "InvalidComponent", "{text}");
            for part in ["hunter2", "68756e74", "68, 75", "0x68", &digest(secret).to_string()] {
                assert!(!text.to_ascii_lowercase().contains(part), "{part}: {text}");
            }
        }
    }
}

/// C11: a FIFO or a device in the place of a component is refused at once, however it is reached; nothing waits for it.
#[test]
fn a_fifo_or_device_in_the_place_of_a_component_is_refused() {
    use rustix::fs::{CWD, Mode, mkfifoat};
    let folder = tempfile::tempdir().unwrap();
    mkfifoat(CWD, folder.path().join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("endless")).unwrap();
    std::os::unix::fs::symlink("fifo", folder.path().join("link")).unwrap();
    let options = Options { directory: folder.path().to_owned(), ..in_process() };
    let library = Library::new(options).unwrap();
    for name in ["fifo", "endless", "link"] {
        let spec = EntrySpec { source: PolicySource::File(name.into()), ..spec("round-robin", "{}") };
        let Preparation::Failed(failure) = library.prepare(&spec) else { panic!("{name} is prepared") };
        assert_eq!(failure.reason, "FetchFailed", "{failure:?}");
        assert!(failure.message.contains("not a regular file"), "{failure:?}");
    }
}

/// C1: what ended without a verdict on the component is not tried again at once, though no object named it for a while.
#[test]
fn a_component_whose_compilation_failed_is_not_begun_again_when_it_comes_back() {
    let compiler = Compiler::Process("/nowhere/wicketgate".into());
    let options = Options { instances: 8, directory: "/".into(), compiler, ..Options::default() };
    let library = Library::new(options).unwrap();
    let spec = spec("round-robin", "{}");
    assert_eq!(library.prepare_now(&spec).unwrap_err().reason, "CompilerUnavailable");
    library.retain(&[]);
    let Preparation::Failed(failure) = library.prepare(&spec) else { panic!("it is tried again") };
    assert_eq!(failure.reason, "CompilerUnavailable");
}

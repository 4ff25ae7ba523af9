//! Compiling in a process of its own, with the real process: this program, started again. So it has no test harness of the
//! usual kind: `cargo test -p policy --test processes [NAME]` runs those whose name contains `NAME`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bombs::Bomb;
use domain::name::PolicyName;
use domain::policy::{EntrySpec, FailureMode, Mode, PolicyLimits, PolicySource, Preparation, Prepare};
use policy::{CompileLimits, Library, Options};

/// Longest wait for what must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// What all hostile components together may add to the memory of the gateway, KiB.
const ADDED_KIB_MAX: u64 = 100 << 10;

fn main() -> ExitCode {
    if let Some(code) = policy::serve_compiler() {
        return code;
    }
    let tests: [(&str, fn()); 5] = [
        ("a_built_in_policy_is_compiled_elsewhere_and_decides_here", elsewhere),
        ("hostile_components_are_refused_and_cost_the_gateway_little", hostile),
        ("a_tenant_with_slow_components_holds_up_no_other_tenant", fair),
        ("what_is_not_named_any_more_is_ended_at_once", unwanted),
        ("the_process_has_only_what_compiling_needs_and_ends_with_the_library", bounded),
    ];
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(&filter)) {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn library() -> Library {
    Library::new(Options { instances: 8, ..Options::default() }).unwrap()
}

fn spec(tenant: &str, name: &str, source: PolicySource) -> Arc<EntrySpec> {
    Arc::new(EntrySpec {
        name: PolicyName::from(name),
        source,
        sha256: None,
        config: "{}".into(),
        limits: PolicyLimits::default(),
        failure_mode: FailureMode::NextPolicy,
        mode: Mode::Active,
        tenant: tenant.into(),
    })
}

fn builtin(name: &str) -> Arc<EntrySpec> {
    spec("default", name, PolicySource::Builtin(PolicyName::from(name)))
}

fn bytes(tenant: &str, name: &str, component: Vec<u8>) -> Arc<EntrySpec> {
    spec(tenant, name, PolicySource::Bytes { origin: name.into(), bytes: component.into() })
}

/// A component that takes a compiler some seconds.
fn slow(tenant: &str) -> Arc<EntrySpec> {
    let Bomb { name, component, .. } = bombs::named("65000-loops-1000-locals");
    bytes(tenant, name, component)
}

/// The same with a section that nothing looks at, so that it is another component.
fn another_slow(tenant: &str, number: u8) -> Arc<EntrySpec> {
    let mut component = bombs::named("65000-loops-1000-locals").component;
    component.extend([0, 2, 1, number]);
    bytes(tenant, "another", component)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Process numbers of this process's children.
fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: Vec<String> = tasks.filter_map(Result::ok).map(of).collect();
    all.iter().flat_map(|list| list.split_whitespace()).filter_map(|number| number.parse().ok()).collect()
}

/// Most memory that this process ever had, KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// C1: the code that comes back runs, and is the policy's.
fn elsewhere() {
    let library = library();
    for name in policy::builtin_names() {
        let ready = library.prepare_now(&builtin(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(ready.description().name, name);
    }
    assert!(children().is_empty(), "each process has ended and was waited for");
}

/// C1: whatever the component, it is refused for a reason, and its memory and time are another process's.
fn hostile() {
    let library = library();
    library.prepare_now(&builtin("round-robin")).unwrap();
    let bombs = bombs::all();
    let before = peak_kib();
    for Bomb { name, component, bound } in bombs {
        let failure = library.prepare_now(&bytes("default", name, component)).expect_err(name);
        match bound {
            Some(bound) => assert_eq!(failure.reason, bound, "{name}"),
            None => assert!(
                ["CompileMemory", "CompileTime", "CompiledTooLarge", "InvalidComponent", "WrongWorld"]
                    .contains(&failure.reason),
                "{name}: {failure}"
            ),
        }
        let added = peak_kib().saturating_sub(before);
        assert!(added <= ADDED_KIB_MAX, "{name}: {added} KiB more");
    }
    let again = library.prepare_now(&builtin("round-robin"));
    assert!(again.is_ok(), "and nothing else is worse for it");
}

/// C1: two places, and one tenant takes at most one of them, however many slow components it names.
fn fair() {
    let library = library();
    let slow: Vec<_> =
        [slow("hostile")].into_iter().chain((0..6).map(|at| another_slow("hostile", at))).collect();
    for spec in &slow {
        assert!(matches!(library.prepare(spec), Preparation::Pending));
    }
    until("the first is being compiled", || (!children().is_empty()).then_some(()));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/policies/testing/hostile.wasm");
    let honest = bytes("honest", "mine", fs::read(file).unwrap());
    library.prepare_now(&honest).unwrap();
    library.prepare_now(&builtin("least-in-flight")).unwrap();
    let waiting = slow.iter().filter(|spec| matches!(library.prepare(spec), Preparation::Pending)).count();
    assert!(waiting >= 2, "all of the other tenant's components were compiled before: {waiting} wait");
}

/// C1: a component that no object names any more is not compiled on, and not begun.
fn unwanted() {
    let library = library();
    for spec in [slow("one"), another_slow("one", 1), another_slow("two", 2)] {
        assert!(matches!(library.prepare(&spec), Preparation::Pending));
    }
    until("two are being compiled", || (children().len() == 2).then_some(()));
    library.retain(&[]);
    until("both are ended", || children().is_empty().then_some(()));
    library.prepare_now(&builtin("round-robin")).unwrap();
    assert!(children().is_empty(), "and the third was skipped");
}

/// C1, N8: CPU time, memory, files and priority of the process; the clock is no bound.
fn bounded() {
    let library = library();
    let spec = slow("default");
    let PolicySource::Bytes { bytes: component, .. } = &spec.source else { unreachable!() };
    let CompileLimits { memory_bytes, cpu_seconds, code_bytes } = CompileLimits::of(component.len());
    assert!(matches!(library.prepare(&spec), Preparation::Pending));
    let child = until("a process", || children().first().copied());
    let limits = until("its limits", || {
        let limits = fs::read_to_string(format!("/proc/{child}/limits")).ok()?;
        limits.contains("Max open files            3 ").then_some(limits)
    });
    for (what, most) in [
        ("Max cpu time", cpu_seconds),
        ("Max data size", memory_bytes),
        ("Max file size", code_bytes),
        ("Max core file size", 0),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        assert_eq!(line.split_whitespace().next(), Some(most.to_string().as_str()), "{what}");
    }
    let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap();
    assert_eq!(nice, "19");
    let environment = fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
    assert!(
        environment.split('\0').all(|one| one.is_empty() || one.starts_with("MIMALLOC_")),
        "{environment}"
    );
    drop(library);
    until("the process is gone", || children().is_empty().then_some(()));
}

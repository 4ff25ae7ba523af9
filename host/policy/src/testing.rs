//! What the tests of this crate share: one library, components from the build step, and small pools.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use domain::endpoint::Roles;
use domain::name::PolicyName;
use domain::policy::{
    Call, EntrySpec, Evaluate, FailureMode, Mode, PolicyLimits, PolicySource, Prepared, Verdict,
};
use domain::pool::{Entry, Pool};
use domain::request::{Fleet, RequestView};
use domain::signal::{Signal, SignalSet};

use crate::compiler::Compiler;
use crate::evaluate::Evaluator;
use crate::library::{Library, Options};
use crate::made_up;

/// Compiling takes long in a debug build: each component is compiled once for all tests.
pub(crate) static LIBRARY: LazyLock<Library> =
    LazyLock::new(|| Library::new(Options { instances: 64, directory: "/".into(), ..in_process() }).unwrap());

/// This test is not the gateway's binary, so it cannot compile in a process of its own; `tests/processes.rs` can.
pub(crate) fn in_process() -> Options {
    Options { compiler: Compiler::InProcess, ..Options::default() }
}

/// A component of `target/policies`, such as `testing/hostile`.
pub(crate) fn component(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/policies").join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: build the policies first with `cargo run --manifest-path policies/Cargo.toml -p build`",
        path.display()
    );
    path.canonicalize().unwrap()
}

/// An entry for a component with settings; active, next policy on failure.
pub(crate) fn spec(name: &str, config: &str) -> EntrySpec {
    let name_only = name.rsplit('/').next().unwrap();
    EntrySpec {
        name: PolicyName::from(name_only),
        source: PolicySource::File(component(name)),
        sha256: None,
        config: config.into(),
        limits: PolicyLimits::default(),
        failure_mode: FailureMode::NextPolicy,
        mode: Mode::Active,
        tenant: "default".into(),
    }
}

pub(crate) fn entry(spec: EntrySpec) -> Entry {
    let prepared: Arc<dyn Prepared> = LIBRARY.prepare_now(&spec).unwrap();
    let spec = Arc::new(spec);
    Entry { spec, prepared: Some(prepared) }
}

/// An entry whose policy never loaded.
pub(crate) fn missing_entry(failure_mode: FailureMode) -> Entry {
    let spec = Arc::new(EntrySpec { failure_mode, ..spec("round-robin", "{}") });
    Entry { spec, prepared: None }
}

/// A pool of plain engines with this chain.
pub(crate) fn pool(endpoints: usize, entries: Vec<Entry>) -> Pool {
    let endpoint = |index: usize| {
        let (high, low) = ((index + 1) / 256, (index + 1) % 256);
        made_up::endpoint(&format!("http://10.0.{high}.{low}:8000"), Roles::SERVE, 1)
    };
    made_up::pool("test", (0..endpoints).map(endpoint).collect(), entries)
}

pub(crate) fn request(ticket: u64) -> RequestView<'static> {
    RequestView {
        ticket,
        seed: 1,
        now_ms: 1_000_000,
        attempt: 0,
        priority: 0,
        prompt_tokens: 100,
        output_tokens: None,
        session: None,
        tenant: None,
        excluded: &[],
        owners: &[],
        prefix_hashes: &[],
        headers: &[],
    }
}

/// A component with one function whose body has this many bytes.
pub(crate) fn component_with_function(bytes: usize) -> Vec<u8> {
    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut section = vec![id];
        leb(content.len(), &mut section);
        section.extend(content);
        section
    }
    fn leb(mut number: usize, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push((number % 0x80) as u8 | 0x80);
            number /= 0x80;
        }
        out.push(number as u8);
    }
    // No locals, `nop` again and again, `end`.
    let mut body = vec![0];
    body.resize(bytes - 1, 0x01);
    body.push(0x0b);
    let mut code = vec![1];
    leb(body.len(), &mut code);
    code.extend(body);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(1, &[1, 0x60, 0, 0]));
    module.extend(section(3, &[1, 0]));
    module.extend(section(10, &code));
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.extend(section(1, &module));
    component
}

/// A fleet in which every signal is 0, but for weights of 1.
pub(crate) fn idle(pool: &Pool) -> Fleet {
    let set: SignalSet = Signal::ALL.into_iter().collect();
    let len = pool.endpoints.len();
    let mut fleet = Fleet::from_columns(set, len, vec![0.0; set.len() * len]);
    fleet.column_mut(Signal::Weight).unwrap().fill(1.0);
    fleet
}

pub(crate) fn evaluator() -> Evaluator {
    Evaluator::new(16)
}

/// Decides one request over an idle fleet.
pub(crate) fn decide(evaluator: &mut Evaluator, pool: &Pool, request: &RequestView<'_>) -> Verdict {
    evaluator.evaluate(Call { pool, request, fleet: &idle(pool) })
}

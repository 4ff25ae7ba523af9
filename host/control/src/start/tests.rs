//! The whole control plane: real directories, real threads, a real engine on loopback, fake policies.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use domain::finding::Severity;
use domain::name::Generation;
use domain::published::published;
use domain::snapshot::Snapshot;
use prometheus::{Registry, TextEncoder};
use tempfile::TempDir;

use super::*;
use crate::fake::{
    EDIT_MAX, FakePrepare, MEASUREMENTS_MAX, PATIENCE, document, file_policy, gateway, service, soon,
};
use crate::observe::fake_engine::FakeEngine;

struct Plane {
    manifests: TempDir,
    policies: TempDir,
    published: Published,
    prepare: Arc<FakePrepare>,
    forgotten: Arc<Mutex<Vec<u32>>>,
    reports: watch::Receiver<Report>,
    registry: Registry,
    control: Control,
}

/// Nobody listens there.
const A: &str = "http://127.0.0.1:9";
const B: &str = "http://127.0.0.1:19";

impl Plane {
    fn start(files: impl FnOnce(&Path, &Path)) -> Self {
        Self::start_waiting(Duration::from_secs(3600), files)
    }

    fn start_waiting(first_wait_max: Duration, files: impl FnOnce(&Path, &Path)) -> Self {
        let manifests = tempfile::tempdir().expect("a directory");
        let policies = tempfile::tempdir().expect("a directory");
        files(manifests.path(), policies.path());
        let (publisher, published) = published();
        let prepare = Arc::new(FakePrepare::default());
        let forgotten = Arc::new(Mutex::new(Vec::new()));
        let forget = Arc::clone(&forgotten);
        let often = Duration::from_millis(20);
        let settings = Settings {
            source: SourceSettings::Directory(manifests.path().to_owned()),
            policy_directory: policies.path().to_owned(),
            index: Index::default(),
            observe: ObserveSettings { metrics_interval: often, models_interval: often },
            gpu: GpuSettings::default(),
            clock: Clock::new(Instant::now()),
            names: Names::default(),
            first_wait_max,
        };
        let registry = Registry::new();
        let ends = Ends {
            faults: Arc::new(Default::default),
            publisher,
            published: published.clone(),
            prepare: Arc::clone(&prepare) as Arc<dyn Prepare>,
            forget_slots: Box::new(move |slots| forget.lock().expect("no panic").extend_from_slice(slots)),
            metrics: ControllerMetrics::register(&registry).expect("registered once"),
            sleeps: mpsc::channel(SLEEPS_MAX).1,
        };
        let control = start(settings, ends).expect("threads");
        let reports = control.reports();
        Self { manifests, policies, published, prepare, forgotten, reports, registry, control }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.manifests.path().join(name), text).expect("written");
    }

    fn write_policy(&self, name: &str, text: &str) {
        fs::write(self.policies.path().join(name), text).expect("written");
    }

    /// Waits until the report and the snapshot are as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Report, &Snapshot) -> bool) -> Report {
        let published = self.published.clone();
        let reached = self.reports.wait_for(|report| wanted(report, &published.load_full()));
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(report) => report.expect("the control thread runs").clone(),
            Err(_) => panic!("never reached: {what}"),
        }
    }

    async fn end(self) {
        tokio::task::spawn_blocking(move || self.control.stop()).await.expect("a clean end");
    }
}

fn urls(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.endpoints.iter().map(|endpoint| &*endpoint.spec.id.url).collect()
}

/// Version of the first policy in force in the first pool.
fn version(snapshot: &Snapshot) -> Option<String> {
    let entry = snapshot.pools.first()?.chain.entries.first()?;
    Some(entry.prepared.as_ref()?.description().version.clone())
}

fn reasons(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.reason).collect()
}

#[tokio::test]
async fn a_directory_becomes_a_snapshot_and_every_edit_a_new_one() {
    let mut plane = Plane::start(|manifests, _| {
        fs::write(manifests.join("all.yaml"), service("s", &[A]) + &gateway("g", "s", &[])).expect("written");
    });
    plane.until("the first snapshot", |_, snapshot| urls(snapshot) == [A]).await;
    assert!(plane.published.is_ready());
    let state = Arc::clone(&plane.published.load_full().endpoints[0].state);
    plane.write("all.yaml", &(service("s", &[A, B]) + &gateway("g", "s", &[])));
    plane.until("both endpoints", |_, snapshot| urls(snapshot) == [B, A]).await;
    let kept =
        plane.published.load_full().endpoints.iter().any(|endpoint| Arc::ptr_eq(&endpoint.state, &state));
    assert!(kept, "live numbers outlive a generation");
    plane.write("all.yaml", &(service("s", &[B]) + &gateway("g", "s", &[])));
    plane.until("one gone", |_, snapshot| urls(snapshot) == [B]).await;
    plane.until("reported", |report, snapshot| report.generation == snapshot.generation).await;
    assert_eq!(*plane.forgotten.lock().expect("no panic"), [state.slot]);
    plane.end().await;
}

#[tokio::test]
async fn an_edit_is_in_force_within_a_tenth_of_a_second() {
    let mut plane = Plane::start(|manifests, _| {
        fs::write(manifests.join("all.yaml"), service("s", &[A]) + &gateway("g", "s", &[])).expect("written");
    });
    plane.until("the first snapshot", |_, snapshot| urls(snapshot) == [A]).await;
    let mut medians = Vec::new();
    while medians.len() < MEASUREMENTS_MAX && medians.last().is_none_or(|median| *median >= EDIT_MAX) {
        let mut waits = Vec::new();
        for url in [B, A].into_iter().cycle().take(10) {
            plane.write("all.yaml", &(service("s", &[url]) + &gateway("g", "s", &[])));
            let written = Instant::now();
            plane.until("the edit", |_, snapshot| urls(snapshot) == [url]).await;
            waits.push(written.elapsed());
        }
        waits.sort();
        medians.push(waits[5]);
    }
    assert!(medians.last().is_some_and(|median| *median < EDIT_MAX), "{medians:?}");
    plane.end().await;
}

#[tokio::test]
async fn nothing_but_broken_input_is_not_ready_and_becomes_so_when_mended() {
    let mut plane = Plane::start(|manifests, _| {
        fs::write(manifests.join("all.yaml"), "{{{ nonsense").expect("written");
    });
    let report = plane.until("findings", |report, _| !report.findings.is_empty()).await;
    assert_eq!((report.generation, report.bursts), (Generation(0), 1));
    assert!(!plane.published.is_ready());
    plane.write("all.yaml", &(service("s", &[A]) + &gateway("g", "s", &[])));
    let report =
        plane.until("mended", |report, _| report.generation.0 > 0 && report.findings.is_empty()).await;
    assert_eq!(report.bursts, 2);
    plane.write("all.yaml", "{{{ nonsense");
    plane
        .until("broken again", |report, snapshot| !report.findings.is_empty() && urls(snapshot) == [A])
        .await;
    plane.end().await;
}

#[tokio::test]
async fn broken_input_that_goes_away_leaves_nothing_to_serve_and_that_is_ready() {
    let mut plane = Plane::start(|manifests, _| {
        fs::write(manifests.join("all.yaml"), "{{{ nonsense").expect("written");
    });
    plane.until("findings", |report, _| !report.findings.is_empty()).await;
    fs::remove_file(plane.manifests.path().join("all.yaml")).expect("removed");
    plane.until("published", |report, _| report.generation.0 > 0 && reasons(report) == ["NoManifests"]).await;
    assert!(plane.published.is_ready());
    plane.end().await;
}

#[tokio::test]
async fn an_empty_directory_is_ready_and_serves_nothing() {
    let mut plane = Plane::start(|_, _| {});
    plane.until("published", |report, _| report.generation.0 > 0).await;
    assert!(plane.published.is_ready());
    plane.end().await;
}

#[tokio::test]
async fn a_changed_policy_file_decides_and_a_broken_one_leaves_the_last_good_in_force() {
    let mut plane = Plane::start(|manifests, policies| {
        let policy = policies.join("p.wasm");
        fs::write(&policy, "one").expect("written");
        let all = service("s", &[A]) + &gateway("g", "s", &["p"]) + &file_policy("p", &policy);
        fs::write(manifests.join("all.yaml"), all).expect("written");
    });
    plane.until("the first policy", |_, snapshot| version(snapshot).as_deref() == Some("one")).await;
    plane.write_policy("p.wasm", "two");
    plane.until("the second", |_, snapshot| version(snapshot).as_deref() == Some("two")).await;
    plane.write_policy("p.wasm", "bad");
    let report = plane.until("the trouble", |report, _| reasons(report) == ["InvalidComponent"]).await;
    assert_eq!(version(&plane.published.load_full()).as_deref(), Some("two"));
    let finding = &report.findings[0];
    assert_eq!((&*finding.object, &*finding.origin.file), ("InferenceGateway default/g", "all.yaml"));
    assert_eq!((finding.severity, finding.remedy.as_str()), (Severity::Error, "write a better one"));
    assert!(finding.message.contains("last good"), "{}", finding.message);
    plane.write_policy("p.wasm", "slow three");
    plane.until("preparing", |report, _| reasons(report) == ["PolicyPreparing"]).await;
    assert_eq!(version(&plane.published.load_full()).as_deref(), Some("two"), "nobody waits for a compiler");
    plane.prepare.finish("slow three");
    plane
        .until("the third", |report, snapshot| {
            version(snapshot).as_deref() == Some("slow three") && report.findings.is_empty()
        })
        .await;
    assert_eq!(plane.prepare.retained.lock().expect("no panic").len(), 1);
    plane.end().await;
}

#[tokio::test]
async fn the_very_first_snapshot_waits_for_its_policies() {
    let mut plane = Plane::start(|manifests, policies| {
        let policy = policies.join("p.wasm");
        fs::write(&policy, "slow").expect("written");
        let all = service("s", &[A]) + &gateway("g", "s", &["p"]) + &file_policy("p", &policy);
        fs::write(manifests.join("all.yaml"), all).expect("written");
    });
    plane.until("preparing", |report, _| reasons(report) == ["PolicyPreparing"]).await;
    assert!(!plane.published.is_ready());
    plane.prepare.finish("slow");
    plane.until("ready", |_, snapshot| version(snapshot).as_deref() == Some("slow")).await;
    plane.end().await;
}

#[tokio::test]
async fn the_very_first_snapshot_does_not_wait_for_ever() {
    let mut plane = Plane::start_waiting(Duration::from_millis(30), |manifests, policies| {
        let policy = policies.join("p.wasm");
        fs::write(&policy, "slow").expect("written");
        let all = service("s", &[A]) + &gateway("g", "s", &["p"]) + &file_policy("p", &policy);
        fs::write(manifests.join("all.yaml"), all).expect("written");
    });
    plane
        .until("published without it", |report, snapshot| report.generation.0 > 0 && urls(snapshot) == [A])
        .await;
    assert_eq!(version(&plane.published.load_full()), None);
    plane.end().await;
}

#[tokio::test]
async fn an_engine_whose_list_lacks_the_model_is_left_out_and_comes_back() {
    let engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, r#"{"data":[{"id":"other"}]}"#);
    let url = format!("http://127.0.0.1:{}", engine.port);
    let all = service("s", &[A, &url]) + &gateway("g", "s", &[]);
    let mut plane = Plane::start(|manifests, _| fs::write(manifests.join("all.yaml"), all).expect("written"));
    plane.until("left out", |report, snapshot| report.excluded.len() == 1 && urls(snapshot) == [A]).await;
    engine.answer("/v1/models", 200, r#"{"data":[{"id":"other"},{"id":"m"}]}"#);
    plane.until("back", |report, snapshot| report.excluded.is_empty() && urls(snapshot).len() == 2).await;
    plane.end().await;
}

#[tokio::test]
async fn a_cache_is_shown_by_what_the_engines_of_its_services_say() {
    let engines = [FakeEngine::start().await, FakeEngine::start().await];
    for (engine, hits) in engines.iter().zip([10, 50]) {
        let page = format!(
            "vllm:prefix_cache_hits_total {hits}\nvllm:prefix_cache_queries_total 100\nvllm:kv_cache_usage_perc 0.5\n\
             vllm:cache_config_info{{num_gpu_blocks=\"60\",kv_cache_memory_bytes=\"None\"}} 1.0\n"
        );
        engine.answer("/metrics", 200, &page);
    }
    let urls = engines.each_ref().map(|engine| format!("http://127.0.0.1:{}", engine.port));
    let with_cache =
        |text: String| text.replace("\"modelName\"", "\"inferenceCacheRef\":\"c\",\"modelName\"");
    let all = with_cache(service("s", &[&urls[0], &urls[1]]))
        + &document("InferenceCache", "c", r#"{"modelName":"m"}"#)
        + &document("InferenceCache", "unused", r#"{"modelName":"m"}"#)
        + &gateway("g", "s", &[]);
    let mut plane = Plane::start(|manifests, _| fs::write(manifests.join("all.yaml"), all).expect("written"));
    plane.until("both engines", |_, snapshot| snapshot.endpoints.len() == 2).await;
    let page = || TextEncoder::new().encode_to_string(&plane.registry.gather()).expect("a page");
    let row = |name: &str, value: &str| {
        format!("production_stack_cache_{name}{{namespace=\"default\",name=\"c\",model=\"m\"}} {value}\n")
    };
    let shown = || page().contains(&row("hit_rate", "0.3")) && page().contains(&row("entries", "60"));
    assert!(soon(shown).await, "{}", page());
    assert!(!page().contains("production_stack_cache_memory_bytes"), "what engines do not say is absent");
    assert!(
        page()
            .contains("controller_runtime_reconcile_total{controller=\"configuration\",result=\"success\"}")
    );
    assert!(page().contains("production_stack_resources{kind=\"InferenceCache\"} 2"));
    plane.end().await;
}

#[tokio::test]
async fn a_storm_of_swaps_ends_in_the_last_one() {
    let mut plane = Plane::start(|manifests, _| {
        fs::write(manifests.join("all.yaml"), service("s", &[A]) + &gateway("g", "s", &[])).expect("written");
    });
    plane.until("the first snapshot", |_, snapshot| urls(snapshot) == [A]).await;
    for round in 0..300 {
        let next = plane.manifests.path().join("all.yaml.next");
        let url = if round % 2 == 0 { A } else { B };
        fs::write(&next, service("s", &[url]) + &gateway("g", "s", &[])).expect("written");
        fs::rename(&next, plane.manifests.path().join("all.yaml")).expect("swapped");
    }
    plane.write("end.yaml", &gateway("end", "s", &[]));
    let last = plane.until("the end", |_, snapshot| snapshot.gateways.len() == 2).await;
    assert_eq!(urls(&plane.published.load_full()), [B]);
    assert!(last.findings.iter().all(|finding| finding.severity < Severity::Error), "{:?}", last.findings);
    plane.end().await;
}

#[test]
fn a_look_up_that_never_ends_does_not_keep_its_thread_from_ending() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let thread = thread("test", move || async move {
        drop(tokio::task::spawn_blocking(move || {
            begin.send(()).expect("the task waits");
            let _ = held.recv();
        }));
        begun.await.expect("it blocks");
    });
    let (end, ended) = std::sync::mpsc::channel();
    let thread = thread.expect("a thread");
    std::thread::spawn(move || end.send(thread.join().is_ok()));
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(true));
    drop(release);
}

#[test]
fn a_thread_that_ends_by_itself_is_told_by_what_it_did() {
    let cases = [
        ("control", Ended { source: true, observer: false }),
        ("kubernetes", Ended { source: true, observer: false }),
        ("observe", Ended { source: false, observer: true }),
        ("gpu", Ended { source: false, observer: true }),
    ];
    for (name, wanted) in cases {
        let (stop, mut told) = watch::channel(false);
        let (fail, failed) = tokio::sync::oneshot::channel::<()>();
        let well = thread("observe", move || async move { stopped(&mut told).await });
        let ill = thread(name, move || async move { failed.await.expect("a bug") });
        let control = Control {
            reports: watch::channel(Report::default()).1,
            cards: watch::channel(Arc::default()).1,
            stop,
            directory: None,
            threads: vec![well.expect("a thread"), ill.expect("a thread")],
        };
        assert_eq!(control.ended(), Ended::default());
        drop(fail);
        let begun = Instant::now();
        while control.ended() == Ended::default() && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert_eq!(control.ended(), wanted, "{name}");
        control.stop();
    }
}

//! A real client over an API server in memory, under paused time.

use std::collections::BTreeSet;

use manifest::Change;
use serde_json::{Value, json};

use super::fake_api::{FakeApi, Mood};
use super::*;

const OURS: [&str; 8] = [
    "inferencegateways",
    "inferenceservices",
    "inferencecaches",
    "speculativedecodings",
    "prefilldecodingdisaggregations",
    "staticroutes",
    "routingpolicies",
    "modelplacements",
];

struct Rig {
    api: FakeApi,
    bursts: mpsc::Receiver<Burst>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start(prepare: impl FnOnce(&FakeApi)) -> Self {
        Self::start_in(&[], prepare)
    }

    fn start_in(namespaces: &[&str], prepare: impl FnOnce(&FakeApi)) -> Self {
        let (api, client) = FakeApi::start();
        prepare(&api);
        let (bursts_in, bursts) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let namespaces = namespaces.iter().map(|name| (*name).into()).collect();
        let task = tokio::spawn(run(client, namespaces, 1, bursts_in, stopped));
        Self { api, bursts, stop, task }
    }

    /// The next burst: its changes as text, and the reasons of its findings.
    async fn next(&mut self) -> (Vec<String>, Vec<&'static str>) {
        let burst = tokio::time::timeout(Duration::from_secs(3_600), self.bursts.recv()).await;
        let burst = burst.expect("a burst within the hour").expect("the source runs");
        (told(&burst), burst.findings.iter().map(|finding| finding.reason).collect())
    }

    /// Nothing is told for this long.
    async fn nothing(&mut self, time: Duration) {
        if let Ok(burst) = tokio::time::timeout(time, self.bursts.recv()).await {
            panic!("told {burst:?}");
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

fn told(burst: &Burst) -> Vec<String> {
    let text = |change: &Change| match change {
        Change::Applied(object) => format!("+{}", object.key()),
        Change::Removed(key) => format!("-{key}"),
        other => format!("{other:?}"),
    };
    burst.changes.iter().map(text).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ours(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "production-stack.vllm.ai/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "ns", "generation": 1},
        "spec": spec,
    })
}

fn service(name: &str, backend: &str) -> Value {
    ours("InferenceService", name, &json!({"modelName": "m", "backendRef": backend}))
}

fn guarded(name: &str, secret: &str) -> Value {
    let auth = json!({"secretRef": {"name": secret, "key": "token"}});
    ours("InferenceService", name, &json!({"modelName": "m", "backendRef": "b", "auth": auth}))
}

fn secret(name: &str, token: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}, "data": {"token": token}})
}

fn slice(name: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "b"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8000}],
    })
}

fn pod(name: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": "x"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8000}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]},
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_every_list_is_in_and_then_everything_at_once() {
    let mut rig = Rig::start(|api| {
        api.apply("inferenceservices", service("s", "b"));
        api.apply("endpointslices", slice("b-1", &["10.0.0.1"]));
        api.apply("pods", pod("p", "True"));
        api.refuse("pods", Some(500));
    });
    let (changes, reasons) = rig.next().await;
    assert_eq!((changes, reasons), (vec![], vec!["WatchFailed"]), "why nothing is in force is told at most");
    rig.nothing(seconds(60)).await;
    rig.api.refuse("pods", None);
    let (changes, reasons) = rig.next().await;
    assert_eq!(changes, ["+InferenceService ns/s", "+EndpointSlice ns/b-1", "+Pod ns/p"]);
    assert_eq!(reasons, Vec::<&str>::new());
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_cluster_is_told_as_such() {
    let mut rig = Rig::start(|_| {});
    assert_eq!(rig.next().await, (vec![], vec![]));
    rig.nothing(seconds(600)).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_within_a_moment_and_many_at_once_in_one_burst() {
    let mut rig = Rig::start(|_| {});
    rig.next().await;
    let before = Instant::now();
    rig.api.apply("endpointslices", slice("b-1", &["10.0.0.1"]));
    assert_eq!(rig.next().await.0, ["+EndpointSlice ns/b-1"]);
    assert!(before.elapsed() <= BURST_MAX, "{:?}", before.elapsed());
    for index in 0..100 {
        rig.api.apply("pods", pod(&format!("p{index}"), "True"));
    }
    assert_eq!(rig.next().await.0.len(), 100);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_means_nothing_here_is_no_change() {
    let mut rig = Rig::start(|api| {
        api.apply("pods", pod("p", "True"));
        api.apply("endpointslices", slice("b-1", &["10.0.0.1"]));
    });
    rig.next().await;
    let mut same = pod("p", "True");
    same["status"]["containerStatuses"] = json!([{"name": "c", "restartCount": 3}]);
    same["metadata"]["managedFields"] = json!([{"manager": "kubelet"}]);
    rig.api.apply("pods", same);
    let mut same = slice("b-1", &["10.0.0.1"]);
    same["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "now"});
    rig.api.apply("endpointslices", same);
    rig.nothing(seconds(10)).await;
    let mut annotated = pod("p", "True");
    annotated["metadata"]["annotations"] = json!({"adapters": "sql"});
    rig.api.apply("pods", annotated);
    assert_eq!(rig.next().await.0, ["+Pod ns/p"], "its engine is worth a look");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_nobody_looked_is_gone_after_410() {
    let mut rig = Rig::start(|api| {
        for name in ["a", "b", "c"] {
            api.apply("pods", pod(name, "True"));
        }
    });
    rig.next().await;
    rig.api.cut(true);
    rig.api.delete("pods", "ns", "b");
    rig.api.apply("pods", pod("c", "False"));
    let cut = Instant::now();
    assert_eq!(rig.next().await.0, ["-Pod ns/b", "+Pod ns/c"], "what is as it was is not told again");
    assert!(cut.elapsed() < seconds(5), "{:?}", cut.elapsed());
    // Two troubles in a row would be told; here the first is long over.
    rig.nothing(seconds(20)).await;
    rig.api.expire("pods");
    rig.api.delete("pods", "ns", "a");
    assert_eq!(rig.next().await.0, ["-Pod ns/a"]);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_ten_minutes_changes_nothing_until_it_is_back() {
    let mut rig = Rig::start(|api| {
        api.apply("inferenceservices", service("s", "b"));
        api.apply("endpointslices", slice("b-1", &["10.0.0.1"]));
    });
    rig.next().await;
    rig.api.set_mood(Mood::Away);
    rig.api.cut(true);
    tokio::time::sleep(seconds(10)).await;
    let mut last = None;
    while let Ok(burst) = rig.bursts.try_recv() {
        assert_eq!(told(&burst), Vec::<String>::new());
        last = burst.findings.first().map(|finding| finding.reason);
    }
    assert_eq!(last, Some("WatchFailed"));
    rig.nothing(seconds(600)).await;
    rig.api.delete("endpointslices", "ns", "b-1");
    rig.api.apply("endpointslices", slice("b-2", &["10.0.0.2"]));
    rig.api.delete("inferenceservices", "ns", "s");
    rig.api.apply("inferenceservices", service("t", "b"));
    rig.api.set_mood(Mood::Well);
    let back = Instant::now();
    let mut changes = BTreeSet::new();
    loop {
        let (some, reasons) = rig.next().await;
        changes.extend(some);
        if changes.len() == 4 && reasons.is_empty() {
            break;
        }
    }
    assert!(back.elapsed() < seconds(5), "{:?}", back.elapsed());
    let all = [
        "+EndpointSlice ns/b-2",
        "+InferenceService ns/t",
        "-EndpointSlice ns/b-1",
        "-InferenceService ns/s",
    ];
    assert_eq!(changes.iter().map(String::as_str).collect::<Vec<_>>(), all);
    rig.nothing(seconds(600)).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_takes_requests_and_is_silent_is_not_waited_for_for_ever() {
    let mut rig = Rig::start(|api| api.set_mood(Mood::Silent));
    let began = Instant::now();
    assert_eq!(rig.next().await.1, ["WatchFailed"]);
    assert!(began.elapsed() < LIST_TIMEOUT + seconds(5), "{:?}", began.elapsed());
    rig.api.set_mood(Mood::Well);
    assert_eq!(rig.next().await, (vec![], vec![]));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_merely_ends_goes_on_where_it_was() {
    let mut rig = Rig::start(|api| api.apply("pods", pod("p", "True")));
    rig.next().await;
    rig.nothing(seconds(1)).await;
    rig.api.take_log();
    rig.api.end_watches();
    rig.api.apply("pods", pod("q", "True"));
    assert_eq!(rig.next().await.0, ["+Pod ns/q"]);
    let log = rig.api.take_log();
    assert!(
        log.contains(&"watch /api/v1/pods".to_owned()) && !log.iter().any(|l| l.starts_with("list")),
        "{log:?}"
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_forbidden_or_not_installed_is_a_finding_and_holds_up_nobody() {
    let mut rig = Rig::start(|api| {
        api.apply("inferenceservices", service("s", "b"));
        api.refuse("pods", Some(403));
        api.refuse("modelplacements", Some(404));
    });
    let (changes, reasons) = rig.next().await;
    assert_eq!(changes, ["+InferenceService ns/s"]);
    assert_eq!(reasons, ["KindNotInstalled", "Forbidden"]);
    rig.api.apply("pods", pod("p", "True"));
    rig.nothing(seconds(60)).await;
    rig.api.refuse("pods", None);
    let allowed = Instant::now();
    let (changes, reasons) = rig.next().await;
    assert_eq!((changes, reasons), (vec!["+Pod ns/p".to_owned()], vec!["KindNotInstalled"]));
    assert!(allowed.elapsed() <= RETRY_REFUSED_MAX);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_be_listed_but_not_watched_is_not_listed_all_the_time() {
    let mut rig = Rig::start(|_| {});
    rig.next().await;
    rig.api.refuse("watch pods", Some(403));
    rig.api.cut(false);
    tokio::time::sleep(seconds(20)).await;
    rig.api.take_log();
    tokio::time::sleep(seconds(100)).await;
    let asked = rig.api.take_log().iter().filter(|line| *line == "list /api/v1/pods").count();
    assert!((8..=25).contains(&asked), "{asked}");
    while let Ok(burst) = rig.bursts.try_recv() {
        assert_eq!(told(&burst), Vec::<String>::new());
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_understood_affects_only_itself_and_says_where() {
    let mut rig = Rig::start(|api| api.apply("inferenceservices", service("s", "b")));
    rig.next().await;
    let mut broken = service("s", "b");
    broken["spec"]["modelName"] = json!(7);
    rig.api.apply("inferenceservices", broken);
    rig.api.apply("inferenceservices", service("t", "b"));
    let burst = rig.bursts.recv().await.expect("a burst");
    assert_eq!(told(&burst), ["+InferenceService ns/t"], "what it said before stays");
    let finding = &burst.findings[0];
    assert_eq!((&*finding.object, finding.field.as_str()), ("InferenceService ns/s", "spec.modelName"));
    rig.api.apply("inferenceservices", service("s", "c"));
    assert_eq!(rig.next().await, (vec!["+InferenceService ns/s".to_owned()], vec![]));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_read_only_where_it_is_named_and_comes_with_its_service() {
    let mut rig = Rig::start(|api| {
        api.apply("secrets", secret("token", "YQ=="));
        api.apply("secrets", secret("other", "Yg=="));
        api.apply("inferenceservices", guarded("s", "token"));
    });
    assert_eq!(rig.next().await.0, ["+InferenceService ns/s", "+Secret ns/token"]);
    let asked: Vec<String> = rig.api.take_log().into_iter().filter(|line| line.contains("secrets")).collect();
    assert_eq!(asked, ["list /api/v1/namespaces/ns/secrets", "watch /api/v1/namespaces/ns/secrets"]);
    rig.api.slow_down("secrets", HELD_MAX / 2);
    rig.api.apply("inferenceservices", guarded("s", "other"));
    let all = ["+InferenceService ns/s", "+Secret ns/other", "-Secret ns/token"];
    let mut changes = rig.next().await.0;
    changes.sort();
    assert_eq!(changes, all, "one burst");
    rig.api.apply("secrets", secret("other", "Yw=="));
    assert_eq!(rig.next().await.0, ["+Secret ns/other"]);
    rig.api.apply("secrets", secret("token", "Yw=="));
    rig.nothing(seconds(10)).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_may_not_be_read_holds_up_nobody() {
    let mut rig = Rig::start(|api| {
        api.refuse("secrets", Some(403));
        api.apply("inferenceservices", guarded("s", "token"));
    });
    let (changes, reasons) = rig.next().await;
    assert_eq!((changes, reasons), (vec!["+InferenceService ns/s".to_owned()], vec!["Forbidden"]));
    rig.api.refuse("secrets", Some(500));
    rig.api.apply("inferenceservices", guarded("t", "more"));
    let before = Instant::now();
    while !rig.next().await.0.contains(&"+InferenceService ns/t".to_owned()) {}
    assert!(before.elapsed() <= HELD_MAX + BURST_MAX, "{:?}", before.elapsed());
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_namespaces_that_were_named_are_looked_at() {
    let mut rig = Rig::start_in(&["ns"], |api| {
        api.apply("pods", pod("p", "True"));
        let mut elsewhere = pod("q", "True");
        elsewhere["metadata"]["namespace"] = json!("other");
        api.apply("pods", elsewhere);
    });
    assert_eq!(rig.next().await.0, ["+Pod ns/p"]);
    let log = rig.api.take_log();
    assert!(log.iter().all(|line| line.contains("/namespaces/ns/")), "{log:?}");
    for plural in OURS {
        let path = format!("list /apis/production-stack.vllm.ai/v1alpha1/namespaces/ns/{plural}");
        assert!(log.contains(&path), "{path}");
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_looked_for_only_where_it_is_named() {
    let backend = json!({"kind": "InferencePool", "group": "inference.networking.k8s.io", "name": "pool"});
    let named = ours("InferenceService", "s", &json!({"modelName": "m", "backendRef": backend}));
    let mut rig = Rig::start(|api| api.refuse("inferencepools", Some(404)));
    rig.next().await;
    assert!(!rig.api.take_log().iter().any(|line| line.contains("inferencepools")));
    rig.api.apply("inferenceservices", named);
    let (changes, reasons) = rig.next().await;
    assert_eq!((changes, reasons), (vec!["+InferenceService ns/s".to_owned()], vec!["KindNotInstalled"]));
    rig.api.refuse("inferencepools", None);
    let pool = json!({
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "pool", "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "targetPorts": [{"number": 8000}]},
    });
    rig.api.apply("inferencepools", pool);
    assert_eq!(rig.next().await, (vec!["+InferencePool ns/pool".to_owned()], vec![]));
    rig.end().await;
}

//! Engines and gateways come and go while requests are under way, and many requests are under way at once.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::http::{Config, EngineHandle, Fault};
use harness::bars;
use harness::client::{self, Connection, Stream};
use harness::fleet::{chat, chat_stream, engine, engines, soon, until, urls};
use harness::gateway::{Gateway, Options, PATIENCE};
use harness::manifests::Manifest;
use http::Method;
use serde_json::Value;

const CHAT: &str = "/v1/chat/completions";

/// One pod behind an engine, as Kubernetes would show it.
#[derive(Clone, Debug)]
struct Replica {
    address: SocketAddr,
    /// `conditions` of its endpoint.
    conditions: &'static str,
    /// `status` of its pod; the address is added.
    status: &'static str,
}

const RUNNING: &str = "phase: Running, conditions: [{type: Ready, status: \"True\"}]";

impl Replica {
    fn of(engine: &EngineHandle) -> Self {
        Self { address: engine.addr(), conditions: "ready: true", status: RUNNING }
    }
}

/// The objects that a controller would keep about these replicas.
fn cluster(replicas: &[Replica]) -> String {
    let mut text = String::from(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {name: gw}\n\
         spec: {routeStrategy: round-robin, routes: [{model: m, inferenceServiceRef: svc}]}\n---\n\
         apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {name: svc}\n\
         spec: {modelName: m, backendRef: engines}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: engines}\n\
         spec: {selector: {app: m}, ports: [{name: http, port: 80, targetPort: http}]}\n",
    );
    // Each has a port of its own here, so each has a slice of its own.
    for (at, replica) in replicas.iter().enumerate() {
        let (ip, port) = (replica.address.ip(), replica.address.port());
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: engines-{at}, labels: {{kubernetes.io/service-name: engines}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: {port}}}]\nendpoints:\n  - addresses: [\"{ip}\"]\n    \
             conditions: {{{}}}\n    targetRef: {{kind: Pod, name: m-{at}, namespace: default, uid: uid-{at}}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: m-{at}, uid: uid-{at}, labels: {{app: m}}}}\n\
             status: {{podIP: \"{ip}\", {}}}\n",
            replica.conditions, replica.status
        );
    }
    text
}

/// URLs in force, sorted.
async fn endpoints(gateway: &Gateway) -> Vec<String> {
    let page = gateway.admin_page("/snapshot").await.json();
    let list =
        page.pointer("/gateways/0/routes/0/endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut urls: Vec<_> = list.iter().map(|endpoint| endpoint["url"].as_str().unwrap().to_owned()).collect();
    urls.sort();
    urls
}

/// Waits until exactly these engines are in force, and sees requests reach exactly these.
async fn served_by(gateway: &Gateway, expected: &[&EngineHandle]) {
    let mut wanted: Vec<_> = expected.iter().map(|engine| engine.url()).collect();
    wanted.sort();
    until("these endpoints", || async { (endpoints(gateway).await == wanted).then_some(()) }).await;
    let mut served: Vec<String> = Vec::new();
    // Workers have counters of their own, so it may take some turns to see all; none other is ever seen.
    for _ in 0..40 {
        let answer = gateway.post(CHAT, &chat("m", "hi")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        served.push(format!("http://{}", answer.engine()));
    }
    served.sort();
    served.dedup();
    assert_eq!(served, wanted);
}

/// D17: an endpoint that is not ready, terminating, or whose pod was evicted or is gone gets nothing; when it is ready
/// again, it does.
#[tokio::test]
async fn endpoints_leave_and_return_with_their_pods() {
    let engines = engines(3, &Config::default()).await;
    let all: Vec<Replica> = engines.iter().map(Replica::of).collect();
    let gateway = Gateway::ready(Options::manifest(cluster(&all))).await;
    let everybody: Vec<&EngineHandle> = engines.iter().collect();
    let rest = [&engines[0], &engines[2]];
    served_by(&gateway, &everybody).await;
    let changes = [
        Replica { conditions: "ready: false", ..all[1].clone() },
        Replica { conditions: "ready: false, serving: true, terminating: true", ..all[1].clone() },
        Replica { conditions: "ready: true, terminating: true", ..all[1].clone() },
        // Slices are behind what pods say of themselves.
        Replica { status: "phase: Failed, reason: Evicted", ..all[1].clone() },
        Replica { status: "phase: Succeeded", ..all[1].clone() },
    ];
    for change in changes {
        gateway.write("manifests.yaml", &cluster(&[all[0].clone(), change, all[2].clone()]));
        served_by(&gateway, &rest).await;
        gateway.write("manifests.yaml", &cluster(&all));
        served_by(&gateway, &everybody).await;
    }
    gateway.write("manifests.yaml", &cluster(&[all[0].clone(), all[2].clone()]));
    served_by(&gateway, &rest).await;
    gateway.write("manifests.yaml", &cluster(&all));
    served_by(&gateway, &everybody).await;
    // The pod is gone, and its slice does not know yet.
    let all = cluster(&all);
    let without =
        all.split("---\n").filter(|document| !document.contains("kind: Pod\nmetadata: {name: m-1,"));
    gateway.write("manifests.yaml", &without.collect::<Vec<_>>().join("---\n"));
    served_by(&gateway, &rest).await;
}

/// D17: a pod that flaps under traffic costs no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_that_flaps_costs_no_request() {
    let engines = engines(2, &Config::default()).await;
    let all: Vec<Replica> = engines.iter().map(Replica::of).collect();
    let gateway = Gateway::ready(Options::manifest(cluster(&all))).await;
    let address = gateway.data;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, count) = (stop.clone(), answered.clone());
    let client = tokio::spawn(async move {
        let mut connection = Connection::open(address).await;
        while !stopped.load(Ordering::Relaxed) {
            let body = chat_stream("m", "hi").to_string();
            let answer = connection.call(Method::POST, CHAT, &[], body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.body.ends_with(b"data: [DONE]\n\n"));
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let answered_again = || async {
        let before = answered.load(Ordering::Relaxed);
        let again = || async { (answered.load(Ordering::Relaxed) > before + 1).then_some(()) };
        until("answers meanwhile", again).await;
    };
    for _ in 0..10 {
        let flapped = [all[0].clone(), Replica { conditions: "ready: false", ..all[1].clone() }];
        gateway.write("manifests.yaml", &cluster(&flapped));
        until("one endpoint", || async { (endpoints(&gateway).await.len() == 1).then_some(()) }).await;
        answered_again().await;
        gateway.write("manifests.yaml", &cluster(&all));
        until("both endpoints", || async { (endpoints(&gateway).await.len() == 2).then_some(()) }).await;
        answered_again().await;
    }
    stop.store(true, Ordering::Relaxed);
    soon("the client", client).await.expect("no request failed");
}

/// D17: an engine whose model list fails, or that serves another model meanwhile, is kept or left out as its list says.
#[tokio::test]
async fn model_list_that_fails_once_takes_nobody_out() {
    let engines = engines(2, &Config::default()).await;
    let all: Vec<Replica> = engines.iter().map(Replica::of).collect();
    let options = Options::manifest(cluster(&all)).args(["--model-refresh-interval", "50ms"]);
    let gateway = Gateway::ready(options).await;
    served_by(&gateway, &engines.iter().collect::<Vec<_>>()).await;
    for fault in [Fault::status(500), Fault::Close, Fault::Garbage] {
        engines[1].set_probe_fault(Some(fault));
        let lists = |engine: &EngineHandle| {
            engine.probes().iter().filter(|probe| probe.path() == "/v1/models").count()
        };
        let before = lists(&engines[1]);
        until("failed model lists", || async { (lists(&engines[1]) >= before + 3).then_some(()) }).await;
        assert_eq!(endpoints(&gateway).await, {
            let mut all = urls(&engines);
            all.sort();
            all
        });
        engines[1].set_probe_fault(None);
    }
    served_by(&gateway, &engines.iter().collect::<Vec<_>>()).await;
}

const CLIENTS: usize = 2_000;
const REQUESTS: u64 = 10_000;
/// The bar for `/healthz` beside them, p99.
const HEALTH_MAX: Duration = Duration::from_millis(100);

/// D30: 2,000 clients at once on two engines: nobody is failed, the work is shared, and health answers throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_at_once_are_answered_and_health_stays_quick() {
    let config = Config { log_max: 0, output_tokens: 4, ..Config::default() };
    let engines = engines(2, &config.paced(Duration::from_millis(200), Duration::ZERO)).await;
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let measure = async |_| {
        let before: Vec<_> = engines.iter().map(|engine| engine.counts().finished).collect();
        let health = health_beside_a_storm(&gateway).await;
        let counts: Vec<_> = engines.iter().map(EngineHandle::counts).collect();
        let peak: u64 = counts.iter().map(|counts| counts.in_flight_max).sum();
        let p99 = health[health.len() * 99 / 100];
        println!("{peak} at once; health p99 {p99:?} of {}", health.len());
        let (a, b) = (counts[0].finished - before[0], counts[1].finished - before[1]);
        assert_eq!(a + b, REQUESTS);
        assert!(a.abs_diff(b) as f64 <= 0.2 * a.max(b) as f64, "{a} and {b}");
        gateway.metric_until("wicketgate_requests_in_flight", |sum| sum == 0.0).await;
        p99
    };
    bars::within("health beside a storm, p99", HEALTH_MAX, measure).await;
}

/// How long each `/healthz` took, sorted, while so many clients sent so many requests.
async fn health_beside_a_storm(gateway: &Gateway) -> Vec<Duration> {
    let (address, probes) = (gateway.data, gateway.probes);
    let sent = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let sent = sent.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let body = bytes::Bytes::from(chat("m", "hi").to_string());
                while sent.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                    let answer = connection.call(Method::POST, CHAT, &[], body.clone()).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            })
        })
        .collect();
    // A thread of its own: the clients' runtime is busy with them.
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut taken = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(client::get(probes, "/healthz").await.status, 200);
                taken.push(start.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            taken
        })
    });
    for client in clients {
        // The first of them takes about as long as all.
        tokio::time::timeout(3 * PATIENCE, client).await.expect("in time").expect("no client failed");
    }
    eprintln!("{REQUESTS} requests in {:?}", start.elapsed());
    stop.store(true, Ordering::Relaxed);
    let mut health = asked.join().expect("health was answered");
    health.sort();
    health
}

/// D36: a gateway that is told to end fails readiness first, takes requests while others notice, finishes its streams and
/// resets nobody; another one takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_under_streams_resets_nobody() {
    let engine = engine_that_streams().await;
    let manifest = Manifest::new().model("m", [engine.url()]).yaml();
    let options = || Options::manifest(manifest.clone()).args(["--drain-delay", "10s"]);
    let mut old = Gateway::ready(options()).await;
    let new = Gateway::ready(options()).await;
    let (old_data, new_data, probes) = (old.data, new.data, old.probes);
    let leaving = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let leaving = leaving.clone();
            tokio::spawn(async move {
                let (mut at_old, mut after) = (0, 0);
                while after < 2 {
                    // As a load balancer: to the old one for as long as it calls itself ready.
                    let to_new = leaving.load(Ordering::Relaxed);
                    let address = if to_new { new_data } else { old_data };
                    let mut stream =
                        Stream::post(address, CHAT, &[], chat_stream("m", "hi").to_string()).await;
                    assert_eq!(stream.status, 200);
                    let chunks = stream.rest().await.expect("no stream is cut");
                    assert!(chunks.last().unwrap().1.ends_with(b"data: [DONE]\n\n"));
                    at_old += u32::from(!to_new);
                    after += u32::from(to_new);
                }
                at_old
            })
        })
        .collect();
    soon("streams under way", engine.until(|counts| counts.in_flight >= 16)).await;
    old.terminate();
    until("readiness to fail", || async {
        (client::get(probes, "/readyz").await.status == 503).then_some(())
    })
    .await;
    // Not everybody has noticed yet: still served.
    let late = client::post(old_data, CHAT, &[], chat("m", "late").to_string()).await;
    assert_eq!(late.status, 200, "{}", late.text());
    assert_eq!(client::get(probes, "/healthz").await.status, 200, "alive until the end");
    leaving.store(true, Ordering::Relaxed);
    let mut at_old = 0;
    for client in clients {
        at_old += soon("the clients", client).await.expect("no client was failed");
    }
    assert!(at_old >= 16, "{at_old}");
    assert_eq!(old.exited().await, Some(0));
    assert_eq!(engine.counts().aborted, 0, "{:?}", engine.counts());
    assert!(tokio::net::TcpStream::connect(old_data).await.is_err(), "nobody listens there any more");
}

async fn engine_that_streams() -> EngineHandle {
    let pace = Duration::from_millis(20);
    let config = Config { output_tokens: 40, ..Config::model("m") }.paced(pace, pace);
    engine::http::Engine::start(config).await.unwrap()
}

/// D36: what does not end within the drain timeout is cut, and the gateway ends.
#[tokio::test]
async fn drain_ends_when_its_time_is_up() {
    let engine = engine("m").await;
    engine.set_fault(Some(Fault::Hang));
    let options = Options::manifest(Manifest::new().model("m", [engine.url()]).yaml());
    let mut gateway = Gateway::ready(options.args(["--drain-timeout", "500ms"])).await;
    let mut connection = Connection::open(gateway.data).await;
    let request = client::request(gateway.data, Method::POST, CHAT, &[], chat("m", "hi").to_string());
    let stuck =
        tokio::spawn(async move { connection.send(request).await.map(|answer| answer.status().as_u16()) });
    soon("the request to hang", engine.until(|counts| counts.in_flight == 1)).await;
    let start = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.exited().await, Some(0));
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    let end = soon("the client's end", stuck).await.unwrap();
    assert!(end.is_err() || end.as_ref().is_ok_and(|status| *status == 503), "{end:?}");
    soon("the engine to be told", engine.aborted(1)).await;
}

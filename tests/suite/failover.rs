//! Engines that do not answer: others do, or the client is told in time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::http::{Accept, Config, EngineHandle, Fault};
use harness::bars;
use harness::client::{self, Connection};
use harness::fleet::{chat, engine, engines, soon, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;
use http::Method;

const CHAT: &str = "/v1/chat/completions";

/// D14
#[tokio::test]
async fn requests_to_an_engine_that_refuses_connections_are_answered_by_others() {
    let engines = engines(3, &Config::default()).await;
    engines[1].set_accept(Accept::Refuse).await;
    let manifest = Manifest::new()
        .gateway("routeStrategy: round-robin\nretries: {attempts: 1}")
        .model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let mut answered = BTreeMap::<String, u32>::new();
    for sent in 0..100 {
        let answer = gateway.post(CHAT, &chat("m", "hi")).await;
        assert_eq!(answer.status, 200, "request {sent}: {}", answer.text());
        *answered.entry(answer.engine().to_owned()).or_default() += 1;
    }
    assert_eq!(answered.len(), 2, "{answered:?}");
    assert!(!answered.contains_key(engines[1].name()));
    assert!(answered.values().all(|count| (35..=65).contains(count)), "both carry it: {answered:?}");
    soon("no more requests there", ejected(&gateway, engines[1].url())).await;
}

/// D14: the same for whatever ends a request before the first byte of an answer.
#[tokio::test]
async fn requests_that_an_engine_drops_before_the_head_are_answered_by_others() {
    for fault in [Fault::Close, Fault::Reset, Fault::Garbage] {
        let engines = engines(2, &Config::default()).await;
        engines[0].set_fault(Some(fault.clone()));
        let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
        let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
        for sent in 0..10 {
            let answer = gateway.post(CHAT, &chat("m", "hi")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.engine()),
                (200, engines[1].name()),
                "{fault:?} {sent}"
            );
        }
        assert!(engines[0].counts().faulted >= 1, "{fault:?} was met");
    }
}

/// D14
#[tokio::test]
async fn statuses_of_an_engine_pass_through_unless_retries_are_asked_for() {
    let engines = engines(2, &Config::default()).await;
    let manifest = |retries: &str| {
        Manifest::new()
            .gateway(&format!("routeStrategy: round-robin\n{retries}"))
            .model("m", urls(&engines))
            .yaml()
    };
    let gateway = Gateway::ready(Options::manifest(manifest(""))).await;
    let ask = async || gateway.post(CHAT, &chat("m", "hi")).await;
    let body =
        r#"{"error":{"message":"out of memory","type":"InternalServerError","param":null,"code":500}}"#;
    let fault = |code| Fault::Status { code, body: Some(body.into()), headers: Vec::new() };

    for code in [500, 503, 429, 404] {
        engines.iter().for_each(|engine| engine.push_faults([fault(code)]));
        let before = engines[0].counts().received + engines[1].counts().received;
        let answer = ask().await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (code, body));
        assert_eq!(engines[0].counts().received + engines[1].counts().received, before + 1, "asked once");
        engines.iter().for_each(|engine| engine.clear_faults());
    }

    gateway.write("manifests.yaml", &manifest("retries: {attempts: 1, statuses: [500]}"));
    engines[0].set_fault(Some(fault(500)));
    until("a retry", || async {
        ask().await;
        gateway.metric("wicketgate_retries_total").await.filter(|retries| *retries >= 1.0)
    })
    .await;
    for _ in 0..4 {
        let answer = ask().await;
        assert_eq!((answer.status.as_u16(), answer.engine()), (200, engines[1].name()));
    }
    engines.iter().for_each(|engine| engine.set_fault(Some(fault(503))));
    assert_eq!(ask().await.status, 503, "a status that is not listed passes");
    engines.iter().for_each(|engine| engine.set_fault(Some(fault(500))));
    let answer = ask().await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (500, body),
        "nobody left: the engine's own answer"
    );
}

/// D14: nothing is tried that was not asked for, and not for ever.
#[tokio::test]
async fn without_attempts_left_the_client_gets_503_or_502() {
    let engines = engines(2, &Config::default()).await;
    let manifest = Manifest::new()
        .gateway("routeStrategy: round-robin\nretries: {attempts: 0}")
        .model("m", urls(&engines))
        .model("gone", ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    engines[0].push_faults([Fault::Close]);
    let answer = gateway.post(CHAT, &chat("m", "hi")).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(answer.text(), r#"{"error":"The engine closed the connection before it answered."}"#);
    let answer = gateway.post(CHAT, &chat("gone", "hi")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.text(), r#"{"error":"No engine could be reached. Please try again later."}"#);
}

/// Asks until the engine at `url` is ejected. That lasts a second at first, and the next request to find out renews it.
async fn ejected(gateway: &Gateway, url: String) {
    let out = format!("wicketgate_endpoint_excluded{{server=\"{url}\"}}");
    while gateway.metric(&out).await != Some(1.0) {
        assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
    }
}

/// An ejected engine is asked again, with one request, and comes back when it answers.
#[tokio::test]
async fn engine_that_comes_back_is_used_again() {
    let engines = engines(2, &Config::default()).await;
    let manifest = Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines));
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    engines[0].crash().await;
    soon("the ejection", ejected(&gateway, engines[0].url())).await;
    engines[0].set_accept(Accept::Serve).await;
    let back = async { while gateway.post(CHAT, &chat("m", "hi")).await.engine() != engines[0].name() {} };
    soon("the engine's return", back).await;
}

/// Latencies of `count` requests for `model`, sorted.
async fn latencies(gateway: &Gateway, model: &str, count: usize) -> Vec<Duration> {
    let mut connection = Connection::open(gateway.data).await;
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let answer = connection.call(Method::POST, CHAT, &[], chat(model, "hi").to_string()).await;
        assert_eq!(answer.status, 200);
        taken.push(start.elapsed());
    }
    taken.sort();
    taken
}

/// How many requests hang at once.
const STUCK: u64 = 64;
/// How long an engine may take to begin its answer, and the bar for those whose engine does not to be told so.
const HEAD_MAX: Duration = Duration::from_secs(10);
const TOLD_MAX: Duration = Duration::from_secs(16);

/// What others see of an engine that hangs.
#[derive(Debug)]
struct Beside {
    /// Sorted latencies of the other engine's requests, before and meanwhile.
    p50: [Duration; 2],
    p99: [Duration; 2],
    /// Whether all of them hung until the last of these was answered.
    all_along: bool,
    /// From the first that hung to the last that was told.
    told: Duration,
}

impl Beside {
    /// Other tests share the cores, so the tail is theirs; a request that waits for another one takes seconds.
    fn delays_nobody(&self) -> bool {
        self.all_along
            && self.p50[1] <= self.p50[0] * 2 + Duration::from_millis(5)
            && self.p99[1] <= self.p99[0] * 2 + Duration::from_millis(100)
            && self.told < TOLD_MAX
    }
}

/// D15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engine_that_hangs_before_the_head_delays_nobody_else_and_ends_in_504() {
    let (hanging, other) = (engine("hanging").await, engine("other").await);
    hanging.set_fault(Some(Fault::Hang));
    let manifest = Manifest::new()
        .gateway(&format!("timeouts: {{responseHeader: {}s}}", HEAD_MAX.as_secs()))
        .model("hanging", [hanging.url()])
        .model("other", [other.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    latencies(&gateway, "other", 50).await;
    let measure = async |_| beside(&gateway, &hanging).await;
    bars::shown("an engine that hangs delays nobody else", measure, Beside::delays_nobody).await;
}

async fn beside(gateway: &Gateway, hanging: &EngineHandle) -> Beside {
    let before = hanging.counts();
    let without = latencies(gateway, "other", 200).await;
    let start = Instant::now();
    let stuck: Vec<_> = (0..STUCK)
        .map(|_| {
            let data = gateway.data;
            tokio::spawn(
                async move { client::post(data, CHAT, &[], chat("hanging", "hi").to_string()).await },
            )
        })
        .collect();
    soon("all to hang", hanging.received(before.received + STUCK)).await;
    let with = latencies(gateway, "other", 200).await;
    let all_along = hanging.counts().in_flight == STUCK;
    for task in stuck {
        let answer = soon("the time to be up", task).await.unwrap();
        assert_eq!(answer.status, 504);
        assert_eq!(answer.text(), r#"{"error":"No engine answered in time."}"#);
    }
    let told = start.elapsed();
    assert!(told >= HEAD_MAX, "{told:?}");
    soon("the engine to be told", hanging.aborted(before.aborted + STUCK)).await;
    let received = hanging.counts().received - before.received;
    assert_eq!(received, STUCK, "what may have begun to compute is not asked again");
    Beside { p50: [without[100], with[100]], p99: [without[198], with[198]], all_along, told }
}

/// D15: an engine that falls silent within an answer ends by the idle limit, not by the one to the head.
#[tokio::test]
async fn answers_that_stall_end_by_the_idle_limit_and_slow_ones_do_not() {
    let engine = engine("m").await;
    let manifest =
        Manifest::new().gateway("timeouts: {responseHeader: 2s, idle: 3s}").model("m", [engine.url()]);
    let gateway = Gateway::ready(Options::manifest(manifest.yaml())).await;
    let body = harness::fleet::chat_stream("m", "hi").to_string();
    let stall = [("x-engine-fault", "stall=300")];
    let mut stream = client::Stream::post(gateway.data, CHAT, &stall, body.clone()).await;
    assert!(soon("the end of a stalled stream", stream.rest()).await.is_err(), "cut, not completed");
    soon("the engine to be told", engine.aborted(1)).await;
    // Seventeen pauses of 400 ms are longer than either limit together, and each is much shorter.
    let slow = [("x-engine-fault", "slow=400")];
    let start = Instant::now();
    let mut stream = client::Stream::post(gateway.data, CHAT, &slow, body).await;
    let chunks = soon("a slow stream", stream.rest()).await.expect("complete");
    assert!(start.elapsed() > Duration::from_secs(5) && chunks.len() > 10, "{:?}", start.elapsed());
}

//! The whole task against servers on loopback: a page, Prometheus, both gone bad.

use std::sync::Arc;
use std::time::Instant;

use domain::assemble::Assembler;
use domain::draft::{Draft, GatewayDraft, RouteDraft};
use domain::endpoint::{Endpoint, EndpointSpec, PodRef};
use domain::name::ObjectName;
use domain::published::{Publisher, published};
use domain::route::GatewaySettings;
use domain::signal::Signal;
use prometheus::{Registry, TextEncoder};

use super::*;
use crate::fake::{FakePrepare, soon};
use crate::metrics::ControllerMetrics;
use crate::observe::fake_engine::{FakeEngine, Script, spec};

const QUERY: &str = "/api/v1/query?query=";

struct World {
    published: Published,
    registry: Registry,
    stop: watch::Sender<bool>,
    // Their ends would stop the task.
    _publisher: Publisher,
    _report: watch::Sender<Report>,
}

fn snapshot(specs: Vec<EndpointSpec>) -> Arc<domain::snapshot::Snapshot> {
    let route = RouteDraft {
        model: "m".into(),
        service: ObjectName::new("ml", "s"),
        engine_model: None,
        parent: None,
        blocked: None,
        endpoints: specs.into_iter().map(Arc::new).collect(),
        chain: Arc::default(),
        chain_rejected: false,
    };
    let gateway = GatewayDraft {
        name: ObjectName::new("ml", "g"),
        hostnames: Vec::new(),
        has_short_host: true,
        settings: GatewaySettings::default(),
        aliases: HashMap::new(),
        routes: vec![route],
    };
    Assembler::default().assemble(&Draft { gateways: vec![gateway] }, &FakePrepare::default()).snapshot
}

fn pod(name: &str) -> EndpointSpec {
    let pod = PodRef { namespace: "ml".into(), name: name.into() };
    EndpointSpec { pod: Some(pod), ..spec(&format!("http://{name}:8000")) }
}

/// Observes two pods, `a` and `b`, through these exporters.
fn world(exporters: &[String], interval: Duration) -> World {
    let (world, observer, stopped) = parts(exporters, interval);
    tokio::spawn(observer.run(stopped));
    world
}

fn parts(exporters: &[String], interval: Duration) -> (World, GpuObserver, watch::Receiver<bool>) {
    let (publisher, published) = published();
    publisher.publish(snapshot(vec![pod("a"), pod("b")]));
    let (report, reports) = watch::channel(Report::default());
    let (stop, stopped) = watch::channel(false);
    let registry = Registry::new();
    let metrics = ControllerMetrics::register(&registry).expect("registered once").gpu();
    let exporters = exporters.iter().map(|url| url.parse().expect("a URL")).collect();
    let observer = GpuObserver {
        published: published.clone(),
        reports,
        clock: Clock::new(Instant::now()),
        settings: GpuSettings { exporters, interval, ..GpuSettings::default() },
        metrics,
        names: Names::default(),
    };
    (World { published, registry, stop, _publisher: publisher, _report: report }, observer, stopped)
}

impl World {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.published.load_full().endpoints.to_vec()
    }

    /// Utilisation of `a` and of `b`.
    fn util(&self) -> [f32; 2] {
        let of = |endpoint: &Endpoint| endpoint.read(Signal::GpuUtil, 0);
        let endpoints = self.endpoints();
        [of(&endpoints[0]), of(&endpoints[1])]
    }

    fn sample(&self, name: &str) -> Option<f64> {
        let page = TextEncoder::new().encode_to_string(&self.registry.gather()).expect("a page");
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        assert!(soon(|| wanted(self)).await, "never: {what}; {:?}", self.util());
    }
}

fn page(a: &str, b: &str) -> String {
    let line = |pod: &str, value: &str| {
        format!(
            "DCGM_FI_DEV_GPU_UTIL{{gpu=\"0\",Hostname=\"n-{pod}\",namespace=\"ml\",pod=\"{pod}\"}} {value}\n\
             DCGM_FI_DEV_FB_USED{{gpu=\"0\",Hostname=\"n-{pod}\",namespace=\"ml\",pod=\"{pod}\"}} 30\n\
             DCGM_FI_DEV_FB_FREE{{gpu=\"0\",Hostname=\"n-{pod}\",namespace=\"ml\",pod=\"{pod}\"}} 10\n"
        )
    };
    line("a", a) + &line("b", b)
}

/// Between two rounds. What was said is forgotten after three, which no test may take for the answer on a busy machine.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_page_fills_the_cells_and_what_it_takes_back_is_unknown() {
    let exporter = FakeEngine::start().await;
    exporter.answer("/metrics", 200, &page("95", "10"));
    let url = format!("http://127.0.0.1:{}/metrics", exporter.port);
    let world = world(std::slice::from_ref(&url), SHORT);
    world.until("both pods", |world| world.util() == [0.95, 0.10]).await;
    assert_eq!(world.endpoints()[0].read(Signal::GpuMemory, 0), 0.75);
    let shown = r#"production_stack_gpu_utilization_percent{namespace="ml",pod="a",node="n-a",gpu="0"}"#;
    assert_eq!(world.sample(shown), Some(95.0));
    let used = r#"production_stack_gpu_memory_used_bytes{namespace="ml",pod="b",node="n-b",gpu="0"}"#;
    assert_eq!(world.sample(used), Some(30.0 * 1_048_576.0));
    exporter.answer("/metrics", 200, &page("9223372036854775794", "20"));
    world.until("a blank", |world| world.util()[0].is_nan() && world.util()[1] == 0.20).await;
    assert_eq!(world.sample(shown), None, "unknown is absent, not 0");
}

#[tokio::test]
async fn an_exporter_that_falls_silent_is_unknown_soon_and_heard_again_later() {
    let exporter = FakeEngine::start().await;
    exporter.answer("/metrics", 200, &page("95", "10"));
    let url = format!("http://127.0.0.1:{}/metrics", exporter.port);
    let world = world(std::slice::from_ref(&url), SHORT);
    world.until("both pods", |world| world.util() == [0.95, 0.10]).await;
    exporter.answer("/metrics", 500, "");
    world.until("unknown", |world| world.util().iter().all(|util| util.is_nan())).await;
    let errors = format!("production_stack_gpu_metrics_scrape_errors_total{{exporter=\"{url}\"}}");
    let age = format!("production_stack_gpu_metrics_age_seconds{{exporter=\"{url}\"}}");
    assert!(world.sample(&errors).is_some_and(|errors| errors >= 2.0), "three rounds failed, about");
    let before = world.sample(&age).expect("an age");
    world.until("a growing age", |world| world.sample(&age).is_some_and(|age| age > before)).await;
    exporter.answer("/metrics", 200, &page("50", "60"));
    world.until("heard again", |world| world.util() == [0.50, 0.60]).await;
    world.stop.send_replace(true);
}

#[tokio::test]
async fn one_dead_page_of_many_costs_nobody_else_their_numbers() {
    let url = "http://exporters.example:9400/metrics";
    let (world, observer, _stopped) = parts(&[url.to_owned()], SHORT);
    let mut watched = watched(url.parse().expect("a URL"));
    let gpus = |text: &str| {
        let mut scanner = page::PageScanner::new(Vec::new());
        scanner.feed(text.as_bytes());
        scanner.finish()
    };
    let place = |last: u8| Some(SocketAddr::from(([10, 0, 0, last], 9400)));
    let pages = vec![(place(1), Ok(gpus(&page("95", "10")))), (place(2), Err(ProbeError::Timeout))];
    observer.take(&mut watched, Ok(Look { kind: Kind::Page, pages }));
    assert_eq!(watched.kind, Some(Kind::Page), "asked for pages next time");
    assert!(watched.failing, "and it is told");
    observer.apply(std::slice::from_ref(&watched));
    assert_eq!(world.util(), [0.95, 0.10]);
    for gone in
        [Ok(Look { kind: Kind::Page, pages: vec![(place(1), Ok(Vec::new()))] }), Err(ProbeError::Timeout)]
    {
        watched.kind = Some(Kind::Page);
        observer.take(&mut watched, gone);
        assert_eq!(watched.kind, None, "something else may stand there");
    }
}

#[tokio::test]
async fn pages_are_read_where_the_question_of_what_it_is_goes_unanswered() {
    let exporter = FakeEngine::start().await;
    exporter.on(&format!("{QUERY}{}", query::VALUES), Script::Silence);
    exporter.answer("/metrics", 200, &page("95", "10"));
    let world = world(&[format!("http://127.0.0.1:{}/metrics", exporter.port)], Duration::from_millis(1_200));
    world.until("both pods", |world| world.util() == [0.95, 0.10]).await;
}

fn vector(series: &[(&str, &str, &str)]) -> String {
    let result: Vec<String> = series
        .iter()
        .map(|(name, pod, value)| {
            let name = if name.is_empty() { String::new() } else { format!("\"__name__\":\"{name}\",") };
            format!(
                r#"{{"metric":{{{name}"gpu":"0","exported_namespace":"ml","exported_pod":"{pod}"}},"value":[1000,"{value}"]}}"#
            )
        })
        .collect();
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, result.join(","))
}

#[tokio::test]
async fn prometheus_is_told_apart_and_what_it_scraped_long_ago_is_unknown() {
    let server = FakeEngine::start().await;
    // Its own page says nothing of GPUs, and would be taken for the exporter's otherwise.
    server.answer("/metrics", 200, &page("1", "1"));
    let (values, times) = (format!("{QUERY}{}", query::VALUES), format!("{QUERY}{}", query::TIMES));
    let util = "DCGM_FI_DEV_GPU_UTIL";
    server.answer(&values, 200, &vector(&[(util, "a", "95"), (util, "b", "10")]));
    server.answer(&times, 200, &vector(&[("", "a", "990"), ("", "b", "900")]));
    let url = format!("http://127.0.0.1:{}", server.port);
    let world = world(&[url], SHORT);
    world.until("a only", |world| world.util()[0] == 0.95 && world.util()[1].is_nan()).await;
    server.answer(&times, 200, &vector(&[("", "a", "990"), ("", "b", "995")]));
    world.until("both", |world| world.util() == [0.95, 0.10]).await;
    server.on(&values, Script::Answer(200, "{\"status\":\"error\"}".to_owned()));
    // What no longer speaks Prometheus' language is looked at anew: it has a page.
    world.until("its page", |world| world.util() == [0.01, 0.01]).await;
}

#[tokio::test]
async fn several_exporters_are_asked_at_once_and_one_that_hangs_holds_up_nobody() {
    let (one, two, hung) = (FakeEngine::start().await, FakeEngine::start().await, FakeEngine::start().await);
    let (a, b) = page("95", "10").split_once("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",Hostname=\"n-b\"").map_or_else(
        || panic!("two pods"),
        |(a, b)| (a.to_owned(), format!("DCGM_FI_DEV_GPU_UTIL{{gpu=\"0\",Hostname=\"n-b\"{b}")),
    );
    one.answer("/metrics", 200, &a);
    two.answer("/metrics", 200, &b);
    hung.on(&format!("{QUERY}{}", query::VALUES), Script::Silence);
    let urls = [&one, &two, &hung].map(|server| format!("http://127.0.0.1:{}", server.port));
    let world = world(&urls, Duration::from_millis(1_200));
    world.until("both", |world| world.util() == [0.95, 0.10]).await;
    let errors = format!("production_stack_gpu_metrics_scrape_errors_total{{exporter=\"{}\"}}", urls[2]);
    world.until("an error", |world| world.sample(&errors).is_some_and(|errors| errors >= 1.0)).await;
}

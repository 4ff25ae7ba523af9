//! What GPU exporters say, and what becomes of it when they say nothing.

use engine::http::{Config, EngineHandle, Fault, MetricsPage};
use harness::bars;
use harness::fleet::{chat, engine, engines, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;

const CHAT: &str = "/v1/chat/completions";
/// Both exporters' and engines' pages are read so often. What an exporter said is forgotten after three times as long, which a
/// machine that is busy with other things must not take for a reading.
const OFTEN: [&str; 4] = ["--engine-scrape-interval", "500ms", "--gpu-metrics-interval", "1s"];
/// So many are no accident.
const COLD: u64 = 40;

/// Numbers as DCGM says that it has none.
const BLANK: &str = "9223372036854775794";

/// A DCGM exporter's page about the GPUs of pods `engine-0` and `engine-1`.
fn page(util: [&str; 2]) -> MetricsPage {
    let mut text = String::from("# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n");
    for (pod, util) in util.iter().enumerate() {
        let labels = format!(
            "{{gpu=\"{pod}\",UUID=\"GPU-{pod}\",Hostname=\"node-1\",namespace=\"default\",pod=\"engine-{pod}\"}}"
        );
        let memory = if *util == BLANK { BLANK } else { "40960" };
        text += &format!(
            "DCGM_FI_DEV_GPU_UTIL{labels} {util}\nDCGM_FI_DEV_FB_USED{labels} {memory}\nDCGM_FI_DEV_FB_FREE{labels} {memory}\n"
        );
    }
    MetricsPage::Text(text)
}

/// An engine's own page.
fn engine_page(kv_usage: f64, running: u32) -> MetricsPage {
    MetricsPage::Text(format!(
        "vllm:num_requests_running {running}.0\nvllm:num_requests_waiting 0.0\nvllm:kv_cache_usage_perc {kv_usage}\n"
    ))
}

/// A gateway over two engines that are the pods `engine-0` and `engine-1` of a Service, as their addresses sort.
fn manifest(engines: &[EngineHandle], gateway: &str) -> String {
    let mut text = format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: gw}}\n\
         spec:\n{gateway}  routes: [{{model: m, inferenceServiceRef: svc}}]\n---\n\
         apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: svc}}\n\
         spec: {{modelName: m, backendRef: engines, inferenceCacheRef: cache}}\n---\n\
         apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceCache\nmetadata: {{name: cache}}\n\
         spec: {{modelName: m, kvCacheTransferPolicy: {{thresholdHitRate: 0.5, evictionThreshold: 0.9}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: engines}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n"
    );
    for (pod, engine) in engines.iter().enumerate() {
        let port = engine.addr().port();
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: engine-{pod}, uid: uid-{pod}}}\n\
             spec: {{nodeName: node-1, containers: []}}\n\
             status: {{phase: Running, podIP: 127.0.0.1, conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: engines-{pod}, labels: {{kubernetes.io/service-name: engines}}}}\n\
             ports: [{{name: http, port: {port}}}]\n\
             endpoints: [{{addresses: [\"127.0.0.1\"], targetRef: {{kind: Pod, name: engine-{pod}, uid: uid-{pod}}}}}]\n"
        );
    }
    text
}

/// A prompt of its own from the first bytes on, long enough to be worth caching.
fn prompt(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..800).map(|_| random.alphanumeric()).collect()
}

async fn ask(gateway: &Gateway, prompt: &str) -> String {
    let answer = gateway.post(CHAT, &chat("m", prompt)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.engine().to_owned()
}

/// Waits until the metrics page shows a sample of this value.
async fn shown(gateway: &Gateway, sample: &str, value: f64) {
    let what = format!("{sample} {value}");
    until(&what, || async { (gateway.metric(sample).await == Some(value)).then_some(()) }).await;
}

fn util_of(pod: usize) -> String {
    format!(
        "production_stack_gpu_utilization_percent{{namespace=\"default\",pod=\"engine-{pod}\",node=\"node-1\",gpu=\"{pod}\"}}"
    )
}

/// Asserts that all cold prompts go to the engine of this name; those of each measurement are new, from `seed` on.
async fn cold_go_to(gateway: &Gateway, seed: u64, name: &str, why: &str) {
    let measure = async |before: usize| {
        let first = seed + before as u64 * COLD;
        let mut count = 0;
        for seed in first..first + COLD {
            count += u64::from(ask(gateway, &prompt(seed)).await == name);
        }
        count
    };
    bars::shown(why, measure, |count| *count == COLD).await;
}

/// D06: the seed's chain over two pods. New prompts go where the GPU has room; known ones stay where they are cached until
/// that engine's KV cache passes the threshold.
#[tokio::test]
async fn new_prompts_go_to_the_idle_gpu_and_known_ones_stay_until_their_engine_is_full() {
    let engines = engines(2, &Config::default()).await;
    engines.iter().for_each(|engine| engine.set_metrics(engine_page(0.3, 0)));
    let exporter = engine("exporter").await;
    exporter.set_metrics(page(["50", "50"]));
    let chain = "  routeStrategy: PrefixHash\n  sessionAffinity: true\n  schedulingPolicy: gpu-load-aware\n";
    let endpoint = format!("{}/metrics", exporter.url());
    let options =
        Options::manifest(manifest(&engines, chain)).args(OFTEN).args(["--gpu-metrics-endpoint", &endpoint]);
    let gateway = Gateway::ready(options).await;
    shown(&gateway, &util_of(0), 50.0).await;
    let (a, b) = (engines[0].name(), engines[1].name());
    let mut known = None;
    for seed in 0.. {
        assert!(seed < 1_000, "no prompt has its home on the first engine");
        if ask(&gateway, &prompt(seed)).await == a {
            known = Some(prompt(seed));
            break;
        }
    }
    let known = known.unwrap();

    exporter.set_metrics(page(["95", "10"]));
    shown(&gateway, &util_of(0), 95.0).await;
    cold_go_to(&gateway, 10_000, b, "cold prompts go to the idle GPU").await;
    for _ in 0..10 {
        assert_eq!(ask(&gateway, &known).await, a, "its cache is worth more than the other's idle GPU");
    }
    engines[0].set_metrics(engine_page(0.96875, 0));
    shown(&gateway, &format!("wicketgate_engine_kv_usage_ratio{{server=\"{}\"}}", engines[0].url()), 0.96875)
        .await;
    for _ in 0..10 {
        assert_eq!(ask(&gateway, &known).await, b, "the engine that holds it is full");
    }
}

/// D07: blank numbers, then no exporter at all. Engines' own numbers decide, then what is in flight; nobody notices.
#[tokio::test]
async fn without_an_exporters_numbers_the_engines_decide_and_no_request_fails() {
    let engines = engines(2, &Config::default()).await;
    engines.iter().for_each(|engine| engine.set_metrics(engine_page(0.3, 0)));
    let exporter = engine("exporter").await;
    exporter.set_metrics(page(["95", "10"]));
    let options = Options {
        env: vec![("GPU_METRICS_ENDPOINT".into(), exporter.url())],
        ..Options::manifest(manifest(&engines, "  schedulingPolicy: gpu-load-aware\n"))
    };
    let gateway = Gateway::ready(options.args(OFTEN)).await;
    shown(&gateway, &util_of(0), 95.0).await;
    let (a, b) = (engines[0].name(), engines[1].name());
    cold_go_to(&gateway, 0, b, "while its numbers are there they decide").await;

    // The engines' own numbers say the opposite, and are all that is left.
    let usage =
        |index: usize| format!("wicketgate_engine_kv_usage_ratio{{server=\"{}\"}}", engines[index].url());
    engines[0].set_metrics(engine_page(0.25, 0));
    shown(&gateway, &usage(0), 0.25).await;
    cold_go_to(&gateway, 0, b, "a little room in the cache outweighs no busy GPU").await;
    exporter.set_metrics(page([BLANK, "NaN"]));
    until("no utilisation", || async { gateway.metric(&util_of(0)).await.is_none().then_some(()) }).await;
    cold_go_to(&gateway, 0, a, "blank is unknown, not idle").await;

    exporter.set_metrics(page(["95", "10"]));
    shown(&gateway, &util_of(0), 95.0).await;
    exporter.crash().await;
    let age = format!("production_stack_gpu_metrics_age_seconds{{exporter=\"{}\"}}", exporter.url());
    let errors = "production_stack_gpu_metrics_scrape_errors_total";
    gateway.metric_until(errors, |count| count >= 3.0).await;
    until("no utilisation", || async { gateway.metric(&util_of(0)).await.is_none().then_some(()) }).await;
    let before = gateway.metric(&age).await.unwrap();
    assert!(before >= 0.1, "{before}");
    until("a growing age", || async { gateway.metric(&age).await.filter(|now| *now > before) }).await;
    cold_go_to(&gateway, 0, a, "what it said before it went is forgotten").await;
}

/// D07: engines that say nothing either. Machines stand for pods where there are none.
#[tokio::test]
async fn with_nothing_said_by_anybody_requests_in_flight_decide() {
    let engines = engines(2, &Config::default()).await;
    engines.iter().for_each(|engine| engine.set_metrics(MetricsPage::Absent));
    let manifest = Manifest::new().gateway("schedulingPolicy: gpu-load-aware").model("m", urls(&engines));
    let nobody = engine("exporter").await;
    nobody.set_metrics(MetricsPage::Absent);
    let options =
        Options::manifest(manifest.yaml()).args(OFTEN).args(["--gpu-metrics-endpoint", &nobody.url()]);
    let gateway = Gateway::ready(options).await;
    gateway.metric_until("production_stack_gpu_metrics_scrape_errors_total", |count| count >= 1.0).await;
    engines[1].push_faults([Fault::Hang]);
    let data = gateway.data;
    let mut hanging = Vec::new();
    // Equals take turns: one of two goes to the engine that hangs.
    for _ in 0..2 {
        hanging.push(tokio::spawn(async move {
            harness::client::post(data, CHAT, &[], chat("m", "hi").to_string()).await
        }));
    }
    engines[1].until(|counts| counts.in_flight == 1).await;
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "hi").await, engines[0].name());
    }
    hanging.iter().for_each(tokio::task::JoinHandle::abort);

    // An exporter that knows no pods speaks of its machine, which is that of both engines here.
    nobody.set_metrics(MetricsPage::Text("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 30\n".into()));
    let sample =
        "production_stack_gpu_utilization_percent{namespace=\"\",pod=\"\",node=\"127.0.0.1\",gpu=\"0\"}";
    shown(&gateway, sample, 30.0).await;
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 200);
}

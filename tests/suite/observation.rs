//! What the gateway says about itself and its engines.

use engine::http::{Config, EngineHandle, Fault, MetricsPage};
use harness::client;
use harness::fleet::{chat, chat_stream, engine, engines, until, urls};
use harness::gateway::{Gateway, Options};
use harness::manifests::Manifest;

const CHAT: &str = "/v1/chat/completions";

/// D32: after traffic, every name of the production stack's router is there with its labels, engines' own numbers are
/// theirs, and an engine that is gone is gone.
#[tokio::test]
async fn metrics_keep_their_names_and_follow_the_engines() {
    let engines = engines(2, &Config::default()).await;
    let page = |waiting: u32| {
        let mut text = format!(
            "vllm:num_requests_running 3.0\nvllm:num_requests_waiting {waiting}.0\nvllm:kv_cache_usage_perc 0.5\n"
        );
        text += "vllm:prefix_cache_queries_total 400.0\nvllm:prefix_cache_hits_total 100.0\n";
        MetricsPage::Text(text)
    };
    engines.iter().for_each(|engine| engine.set_metrics(page(7)));
    let manifest = |count: usize| {
        Manifest::new().gateway("routeStrategy: round-robin").model("m", urls(&engines[..count])).yaml()
    };
    let options = Options::manifest(manifest(2)).args(["--engine-scrape-interval", "200ms"]);
    let gateway = Gateway::ready(options).await;
    for body in [chat("m", "hi"), chat_stream("m", "hi")] {
        for _ in 0..4 {
            assert_eq!(gateway.post(CHAT, &body).await.status, 200);
        }
    }
    engines[0].push_faults([Fault::status(500)]);
    engines[1].push_faults([Fault::status(500)]);
    assert_eq!(gateway.post(CHAT, &chat("m", "hi")).await.status, 500);
    let waiting = async |engine: &EngineHandle, number: f64| {
        let sample = format!("vllm:num_requests_waiting{{server=\"{}\"}}", engine.url());
        let shown = || async { (gateway.metric(&sample).await == Some(number)).then_some(()) };
        until("the engine's own number", shown).await;
    };
    waiting(&engines[0], 7.0).await;
    waiting(&engines[1], 7.0).await;
    engines[0].set_metrics(page(9));
    waiting(&engines[0], 9.0).await;

    let rate = format!("vllm:gpu_prefix_cache_hit_rate{{server=\"{}\"}}", engines[0].url());
    assert_eq!(gateway.metric(&rate).await, Some(0.25));

    let page = gateway.admin_page("/metrics").await.text();
    let of_servers = [
        "num_requests_running",
        "num_requests_waiting",
        "current_qps",
        "num_prefill_requests",
        "num_decoding_requests",
        "avg_decoding_length",
        "avg_latency",
        "avg_itl",
        "num_requests_swapped",
        "gpu_prefix_cache_hit_rate",
        "gpu_prefix_cache_hits_total",
        "gpu_prefix_cache_queries_total",
        "healthy_pods_total",
    ];
    for name in of_servers {
        for engine in &engines {
            let sample = format!("vllm:{name}{{server=\"{}\"}} ", engine.url());
            assert!(page.lines().any(|line| line.starts_with(&sample)), "{sample}");
        }
    }
    for name in ["num_incoming_requests_total", "num_incoming_requests_created"] {
        let sample = format!("vllm:{name}{{model=\"m\"}} ");
        assert!(page.lines().any(|line| line.starts_with(&sample)), "{sample}");
    }
    for engine in &engines {
        for name in ["input_tokens_total", "output_tokens_total", "request_latency_seconds_count"] {
            let sample = format!("vllm:{name}{{server=\"{}\",model=\"m\"", engine.url());
            let value = gateway.metric_sum(&sample).await;
            assert!(value > 0.0, "{sample}: {value}");
        }
    }
    for name in ["router_cpu_usage_percent", "router_memory_usage_percent", "router_disk_usage_percent"] {
        let value = gateway.metric(name).await;
        assert!(value.is_some_and(|value| (0.0..=100.0).contains(&value)), "{name}: {value:?}");
    }
    assert_eq!(gateway.metric("vllm:num_incoming_requests_total{model=\"m\"}").await, Some(9.0));
    let errors = gateway.metric_sum("vllm:request_errors_total{").await;
    assert!(errors >= 1.0, "{errors}");

    gateway.write("manifests.yaml", &manifest(1));
    until("the other engine to be gone", || async {
        let page = gateway.admin_page("/metrics").await.text();
        (!page.contains(&engines[1].url()) && page.contains(&engines[0].url())).then_some(())
    })
    .await;
}

/// D32: what clients write into a request is no label.
#[tokio::test]
async fn names_that_clients_invent_are_no_labels() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    for at in 0..50 {
        assert_eq!(gateway.post(CHAT, &chat(&format!("invented-{at}"), "hi")).await.status, 404);
    }
    let page = gateway.admin_page("/metrics").await.text();
    assert!(!page.contains("invented"), "{page}");
    assert_eq!(gateway.metric("vllm:num_incoming_requests_total{model=\"other\"}").await, Some(50.0));
}

/// D33: no replica yet: the request is counted before it is refused, so that somebody scales up, and the next one after
/// that is answered.
#[tokio::test]
async fn request_for_a_model_without_replicas_is_counted_and_the_next_after_scaling_up_is_answered() {
    let engine = engine("m").await;
    let manifest = |endpoints: &str| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{name: gw}}\n\
             spec: {{routes: [{{model: m, inferenceServiceRef: svc}}]}}\n---\n\
             apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: svc}}\n\
             spec: {{modelName: m, backendRef: engines}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: engines}}\n\
             spec: {{ports: [{{name: http, port: 80, targetPort: http}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: engines-0, labels: {{kubernetes.io/service-name: engines}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: {}}}]\nendpoints: {endpoints}\n",
            engine.addr().port()
        )
    };
    let gateway = Gateway::ready(Options::manifest(manifest("[]"))).await;
    let counter = "vllm:num_incoming_requests_total{model=\"m\"}";
    for sent in 1..=3 {
        let answer = gateway.post(CHAT, &chat("m", "hi")).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.text().contains("temporarily unavailable"), "{}", answer.text());
        assert_eq!(gateway.metric(counter).await, Some(f64::from(sent)));
    }
    gateway.write("manifests.yaml", &manifest("[{addresses: [\"127.0.0.1\"], conditions: {ready: true}}]"));
    until("the replica to be in force", || async {
        gateway.admin_page("/snapshot").await.text().contains(&engine.url()).then_some(())
    })
    .await;
    let answer = gateway.post(CHAT, &chat("m", "hi")).await;
    assert_eq!((answer.status.as_u16(), answer.engine()), (200, engine.name()), "{}", answer.text());
    assert_eq!(gateway.metric(counter).await, Some(4.0));
}

/// Probes and pages answer on their own listeners, and the data plane shows none of them.
#[tokio::test]
async fn admin_pages_are_not_on_the_data_plane() {
    let engine = engine("m").await;
    let gateway = Gateway::ready(Options::manifest(Manifest::new().model("m", [engine.url()]).yaml())).await;
    for page in ["/metrics", "/snapshot", "/findings", "/explain"] {
        assert_eq!(gateway.admin_page(page).await.status, 200, "{page}");
        assert_ne!(client::get(gateway.probes, page).await.status, 200, "{page}");
    }
    for page in ["/snapshot", "/findings", "/explain", "/readyz"] {
        assert_eq!(gateway.get(page).await.status, 404, "{page}");
    }
    for page in ["/livez", "/healthz", "/readyz"] {
        assert_eq!(client::get(gateway.probes, page).await.status, 200, "{page}");
    }
}

/// B2: metrics that cannot be read are one finding per service, which says what came instead; the age of the numbers counts
/// from the start, and both end when the page is there.
#[tokio::test]
async fn metrics_that_cannot_be_read_are_found_and_grow_old() {
    let engines = engines(2, &Config::default()).await;
    let html = || MetricsPage::Text("<!doctype html><title>hello</title>".to_owned());
    engines.iter().for_each(|engine| engine.set_metrics(html()));
    let manifest = Manifest::new().model("m", urls(&engines)).yaml();
    let options = Options::manifest(manifest).args(["--engine-scrape-interval", "100ms"]);
    let gateway = Gateway::ready(options).await;
    let found = async || {
        let page = gateway.admin_page("/findings").await.json();
        let findings = page["findings"].as_array().cloned().unwrap_or_default();
        findings.into_iter().filter(|finding| finding["reason"] == "MetricsUnread").collect::<Vec<_>>()
    };
    until("the finding", || async { (!found().await.is_empty()).then_some(()) }).await;
    let settled = || async {
        Some(found().await).filter(|all| all[0]["message"].to_string().contains("other engines"))
    };
    let all = until("both engines in one finding", settled).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let message = all[0]["message"].to_string();
    assert!(message.contains("answered an HTML page") && message.contains("/metrics"), "{message}");
    let age = format!("wicketgate_engine_reading_age_seconds{{server=\"{}\"}}", engines[0].url());
    until("an age of what was never read", || async { gateway.metric(&age).await.filter(|age| *age > 0.0) })
        .await;
    engines
        .iter()
        .for_each(|engine| engine.set_metrics(MetricsPage::Text("vllm:num_requests_waiting 1\n".to_owned())));
    until("no finding", || async { found().await.is_empty().then_some(()) }).await;
}

/// D2: whoever asks a fresh replica as soon as it is ready sees the models that are configured, also where an engine is dead;
/// before the first configuration there is no list, rather than an empty one.
#[tokio::test]
async fn a_fresh_replica_lists_its_models_as_soon_as_it_is_ready() {
    let engine = engine("m").await;
    let manifest =
        Manifest::new().model("m", [engine.url()]).model("dead", ["http://127.0.0.1:1".to_owned()]);
    let gateway = Gateway::start(Options::manifest(manifest.yaml())).await;
    let ready = || async {
        let list = gateway.get("/v1/models").await;
        let is_ready = client::get(gateway.probes, "/readyz").await.status == 200;
        if list.status == 200 {
            assert_eq!(list.json()["data"].as_array().map(Vec::len), Some(2), "{}", list.text());
        } else {
            assert_eq!(list.status, 503, "{}", list.text());
        }
        is_ready.then_some(())
    };
    until("readiness", ready).await;
    assert_eq!(gateway.get("/v1/models").await.status, 200);
}

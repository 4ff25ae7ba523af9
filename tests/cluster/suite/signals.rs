//! What decisions are made from, and what the metrics page says of all this.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cluster::engines::{EnginePod, deployment, routing_manifests};
use cluster::gateway::Start;
use cluster::place::Place;
use harness::bars;
use harness::fleet::chat;
use harness::gateway::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A metrics page over HTTP whose text a test changes.
#[derive(Clone, Debug)]
struct Page {
    address: SocketAddr,
    text: Arc<Mutex<Option<String>>>,
}

impl Page {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let page = Self { address: listener.local_addr().expect("an address"), text: Arc::default() };
        let served = page.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or_default();
                let is_page = String::from_utf8_lossy(&request[..read]).starts_with("GET /metrics");
                let text = served.text.lock().expect("the text").clone().filter(|_| is_page);
                let status = if text.is_some() { "200 OK" } else { "404 Not Found" };
                let text = text.unwrap_or_default();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
                    text.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        page
    }

    /// Utilisation in per cent by pod; `None` makes the page go away.
    fn set(&self, namespace: &str, gpus: Option<&[(&str, &str)]>) {
        let text = gpus.map(|gpus| {
            let line = |name: &str, (pod, value): &(&str, &str)| {
                format!("{name}{{gpu=\"0\",UUID=\"GPU-{pod}\",namespace=\"{namespace}\",pod=\"{pod}\",container=\"e\"}} {value}\n")
            };
            let util: String = gpus.iter().map(|gpu| line("DCGM_FI_DEV_GPU_UTIL", gpu)).collect();
            let used: String = gpus.iter().map(|(pod, _)| line("DCGM_FI_DEV_FB_USED", &(*pod, "4000"))).collect();
            let free: String = gpus.iter().map(|(pod, _)| line("DCGM_FI_DEV_FB_FREE", &(*pod, "6000"))).collect();
            util + &used + &free
        });
        *self.text.lock().expect("the text") = text;
    }
}

/// The README's gateway over two pods, with a GPU exporter beside them.
async fn gpu_aware(name: &str) -> (Place, Vec<EnginePod>, Page, Gateway) {
    let place = Place::new(name).await;
    let page = Page::start().await;
    let pods = deployment(&place, "llama", "llama", 2).await;
    let spec = "schedulingPolicy: gpu-load-aware, routeStrategy: PrefixHash, sessionAffinity: true,";
    place.apply(&routing_manifests("llama", "llama", spec)).await;
    page.set(&place.namespace, Some(&[("llama-0", "95"), ("llama-1", "10")]));
    let gateway = Start::at(&place)
        .env("GPU_METRICS_ENDPOINT", &format!("http://{}/metrics", page.address))
        .args(&["--engine-scrape-interval=1s", "--gpu-metrics-interval=1s"])
        .ready()
        .await;
    place.condition("InferenceGateway", "gw", "PolicyProgrammed", "True").await;
    (place, pods, page, gateway)
}

/// How many of `count` cold prompts each pod gets.
async fn cold_prompts(gateway: &Gateway, pods: &[EnginePod], count: usize, salt: &str) -> Vec<usize> {
    let mut picks = vec![0; pods.len()];
    for index in 0..count {
        let prompt = format!("{salt} {index} {}", "nobody has said this before. ".repeat(20));
        let answer = gateway.post("/v1/chat/completions", &chat("llama", &prompt)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let pod = pods.iter().position(|pod| answer.engine().starts_with(&pod.address.to_string()));
        picks[pod.expect("one of ours")] += 1;
    }
    picks
}

/// D06: cold prompts go to the pod whose GPU is idle, by the exporter's page; an affine prompt stays where it is.
#[tokio::test]
async fn cold_prompts_go_where_the_gpu_is_idle() {
    let (_place, pods, _page, gateway) = gpu_aware("d06").await;
    gateway.metric_until("production_stack_gpu_utilization_percent", |sum| sum == 105.0).await;
    let measure =
        async |before: usize| cold_prompts(&gateway, &pods, 50, &format!("measured {before}")).await;
    bars::shown("cold prompts at the idle GPU", measure, |picks| picks[1] == 50).await;
}

/// D07: sentinels, garbage and an exporter that is gone make the signal unknown, never zero; no request fails.
#[tokio::test]
async fn a_gpu_exporter_that_lies_or_is_gone_costs_nobody_an_answer() {
    let (place, pods, page, gateway) = gpu_aware("d07").await;
    gateway.metric_until("production_stack_gpu_utilization_percent", |sum| sum == 105.0).await;
    let sentinel = "9223372036854775794";
    page.set(&place.namespace, Some(&[("llama-0", sentinel), ("llama-1", "NaN")]));
    gateway.metric_until("production_stack_gpu_utilization_percent", |sum| sum == 0.0).await;
    let page_text = gateway.admin_page("/metrics").await.text();
    assert!(!page_text.contains("production_stack_gpu_utilization_percent{"), "unknown is no number");
    let picks = cold_prompts(&gateway, &pods, 20, "sentinel").await;
    assert!(picks.iter().all(|count| *count > 0), "unknown for all is a preference for none: {picks:?}");
    page.set(&place.namespace, None);
    gateway.metric_until("production_stack_gpu_metrics_scrape_errors_total", |sum| sum > 0.0).await;
    let before = gateway.metric_sum("production_stack_gpu_metrics_age_seconds").await;
    gateway.metric_until("production_stack_gpu_metrics_age_seconds", |age| age > before).await;
    cold_prompts(&gateway, &pods, 10, "gone").await;
}

/// A18: the page has families of all five classes that the README promises, with numbers after traffic.
#[tokio::test]
async fn the_metrics_page_has_the_five_classes_of_the_readme() {
    let (place, pods, _page, gateway) = gpu_aware("a18").await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    cold_prompts(&gateway, &pods, 10, "a18").await;
    for family in [
        "controller_runtime_reconcile_total",
        "controller_runtime_reconcile_time_seconds_count",
        "production_stack_resource_condition",
        "production_stack_resources",
        "production_stack_gpu_utilization_percent",
        "production_stack_gpu_memory_used_bytes",
        "production_stack_route_decisions_total",
        "production_stack_route_decision_seconds_count",
    ] {
        gateway.metric_until(family, |sum| sum > 0.0).await;
    }
    let page = gateway.admin_page("/metrics").await.text();
    for family in [
        "wicketgate_prefix_index_hits_total",
        "wicketgate_cached_tokens_total",
        "production_stack_prefix_match_ratio",
        "leader_election_master_status",
        "workqueue_depth",
        "controller_runtime_active_workers",
    ] {
        assert!(page.contains(&format!("# TYPE {family} ")), "{family} is missing");
    }
}

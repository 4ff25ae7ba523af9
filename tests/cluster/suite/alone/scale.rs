//! Large clusters: memory, the way from one change to a new snapshot, many objects edited at once.

use std::time::{Duration, Instant};

use cluster::audit;
use cluster::engines::{headless_manifest, slice_manifest};
use cluster::gateway::Start;
use cluster::place::{GROUP, Place};
use futures::StreamExt;
use harness::bars;
use harness::fleet::until;
use harness::gateway::Gateway;
use serde_json::{Value, json};

/// Services of the large cluster, and the endpoints of each.
const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 10;
/// The bar for the gateway's memory over them.
const RSS_MAX: u64 = 200 << 20;
/// The bar of 50 ms is for a release build, where a benchmark holds it; this suite runs whatever was built, beside an API
/// server on the same processors.
const CHANGE_MAX: Duration = Duration::from_secs(1);
/// Requests to the API server at once.
const AT_ONCE: usize = 16;
/// A17: static routes, and the bar for all of them to settle after an edit of each.
const ROUTES: usize = 1_000;
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// How many times as long a debug build may take.
const DEBUG_FACTOR: u32 = 4;

/// The bar for all routes to settle: of the binary that runs.
fn settled_max() -> Duration {
    if harness::gateway::is_optimised() { SETTLED_MAX } else { SETTLED_MAX * DEBUG_FACTOR }
}

async fn apply_all(place: &Place, objects: Vec<Value>) {
    futures::stream::iter(objects)
        .for_each_concurrent(AT_ONCE, |object| async move {
            place
                .try_apply(&object)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", object["metadata"]["name"]));
        })
        .await;
}

/// Addresses of the network for benchmarks, to which there is no way from here: a connection fails at once.
fn endpoints(service: usize, shift: usize) -> Vec<(std::net::Ipv4Addr, bool)> {
    (0..ENDPOINTS)
        .map(|index| {
            let host = service * ENDPOINTS + index + shift;
            let [_, b, c, d] = u32::try_from(host).expect("small").to_be_bytes();
            (std::net::Ipv4Addr::new(198, 18 + b, c, d), true)
        })
        .collect()
}

/// Bar: 1,000 services of 10 endpoints in 200 MiB, and one change is a new snapshot soon.
#[tokio::test]
async fn ten_thousand_endpoints_fit_and_one_change_is_quick() {
    let place = Place::new("scale").await;
    let mut objects = Vec::new();
    for service in 0..SERVICES {
        let name = format!("s{service}");
        objects.push(headless_manifest(&name));
        objects.push(slice_manifest(&name, &endpoints(service, 0)));
        objects.push(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "InferenceService", "metadata": {"name": name},
            "spec": {"modelName": name, "backendRef": name}
        }));
    }
    let routes: Vec<_> = (0..SERVICES)
        .map(|service| json!({"model": format!("s{service}"), "inferenceServiceRef": format!("s{service}")}))
        .collect();
    objects.push(json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "InferenceGateway", "metadata": {"name": "gw"},
        "spec": {"routes": routes}
    }));
    apply_all(&place, objects).await;
    // Engines are not what is measured here: they are looked at once.
    let args = ["--engine-scrape-interval=1h", "--model-refresh-interval=1h"];
    let gateway = Start::at(&place).args(&args).ready().await;
    let all = SERVICES * ENDPOINTS;
    gateway.logged(|line| line["message"] == "published" && line["endpoints"] == all).await;

    let measure = async |before: usize| {
        let mut times = Vec::new();
        for shift in 1..=10 {
            let from = gateway.log_len();
            let shifted = endpoints(500, (10 * before + shift) * 20_000);
            place.try_apply(&slice_manifest("s500", &shifted)).await.expect("applied");
            let answered = Instant::now();
            gateway.published_after(from).await;
            times.push(answered.elapsed());
        }
        times.sort();
        eprintln!("change to snapshot: {times:?}");
        times[times.len() - 1]
    };
    bars::within("the slowest change to a snapshot", CHANGE_MAX, measure).await;
    let rss = resident(&gateway);
    eprintln!("{} MiB resident", rss >> 20);
    assert!(rss <= RSS_MAX, "{} MiB", rss >> 20);
}

/// Resident bytes of a gateway.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

/// A17: an edit of each of 1,000 static routes settles within a minute, with a bounded number of writes, and then silence.
#[tokio::test]
async fn a_thousand_static_routes_settle_and_then_nobody_writes() {
    let place = Place::new("a17").await;
    let route = |index: usize, port: usize| {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "StaticRoute", "metadata": {"name": format!("r{index}")},
            "spec": {"staticBackends": format!("http://192.0.2.15:{port}"), "staticModels": format!("m{index}"),
                     "routerRef": {"kind": "Service", "name": "none"}}
        })
    };
    apply_all(&place, (0..ROUTES).map(|index| route(index, 9)).collect()).await;
    let _gateway = Start::at(&place).start().await;
    until_settled(&place).await;
    let measure = async |before: usize| {
        let so_far = writes(&place).len();
        apply_all(&place, (0..ROUTES).map(|index| route(index, 10 + before)).collect()).await;
        let edited = Instant::now();
        until_settled(&place).await;
        let (settled, written) = (edited.elapsed(), writes(&place).len() - so_far);
        eprintln!("{ROUTES} edits settled after {settled:?} with {written} writes");
        // The ConfigMap, the status of the new generation, and what the probes of the backend say.
        assert!(written <= 4 * ROUTES, "{written} writes for {ROUTES} edits");
        settled
    };
    bars::within("an edit of every route settles", settled_max(), measure).await;
    until("silence", || async {
        let count = writes(&place).len();
        tokio::time::sleep(Duration::from_secs(5)).await;
        (writes(&place).len() == count).then_some(())
    })
    .await;
}

fn writes(place: &Place) -> Vec<audit::Request> {
    let all = audit::of(place).into_iter();
    all.filter(|request| request.is_write() && request.resource != "leases" && request.resource != "events")
        .collect()
}

/// Waits, twice as long as the bar, until every route tells its present generation and every ConfigMap has its port.
async fn until_settled(place: &Place) {
    let began = Instant::now();
    loop {
        let routes =
            place.api("StaticRoute").list(&kube::api::ListParams::default()).await.expect("listed").items;
        let current = |route: &kube::api::DynamicObject| {
            let status = &route.data["status"];
            status["observedGeneration"].as_i64() == route.metadata.generation
                && status["configMapRef"].is_string()
        };
        let done = routes.iter().filter(|route| current(route)).count();
        if done == ROUTES {
            return;
        }
        assert!(began.elapsed() < 2 * settled_max(), "{done} of {ROUTES}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

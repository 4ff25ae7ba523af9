//! An API server that is away, or comes back as another process, under traffic.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cluster::detour::Detour;
use cluster::engines::{self, deployment, headless_manifest, routing_manifests, slice_manifest};
use cluster::gateway::{self, Start};
use cluster::place::Place;
use cluster::plane::{PORT, Plane};
use engine::http::Config;
use harness::bars;
use harness::fleet::until;

use crate::discovery::{ask, until_endpoints, until_endpoints_are};
use crate::load::Load;

/// The bar for everything to be right again after the API server is back.
const RIGHT_MAX: Duration = Duration::from_secs(5);

/// D16: a pod that goes while the watch is cut is gone five seconds after the watch is back, and nobody fails meanwhile.
#[tokio::test]
async fn what_changed_while_the_api_server_was_away_is_right_five_seconds_after() {
    let place = Place::new("discovery-away").await;
    let detour = Detour::start((place.plane().address(), PORT).into()).await;
    let mut pods = deployment(&place, "llama", "llama", 3).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = Start::at(&place).through(&detour.url()).ready().await;
    until_endpoints(&gateway, 3).await;

    let load = Load::start(&gateway, "llama", 2);
    let measure = async |before: usize| {
        detour.cut();
        place.delete("Pod", &pods[0].pod).await;
        place.until_gone("Pod", &pods[0].pod).await;
        let name = format!("llama-{}", 3 + before);
        pods.push(engines::pod(&place, "llama", &name, &[], Config::model("llama")).await);
        engines::ready_endpoints(&place, "llama", 3).await;
        detour.refuses(3).await;
        until_endpoints_are(&gateway, &[&pods[0], &pods[1], &pods[2]]).await;
        detour.mend();
        let mended = Instant::now();
        until_endpoints_are(&gateway, &[&pods[1], &pods[2], &pods[3]]).await;
        let took = mended.elapsed();
        let deleted = pods.remove(0).engine;
        let picked = deleted.counts().received;
        for _ in 0..30 {
            ask(&gateway).await.expect("answered");
        }
        assert_eq!(deleted.counts().received, picked, "deleted while we were away, and picked again");
        took
    };
    bars::within("what changed meanwhile is right", RIGHT_MAX, measure).await;
    load.assert_no_failure().await;
}

/// D16: an API server that is killed and comes back over the same store: its watches have expired, so everything is listed
/// anew. Traffic goes on all the while, and what changed first after the restart is right five seconds later.
#[tokio::test]
async fn an_api_server_that_is_killed_and_restarted_costs_nobody_an_answer() {
    let plane = own_plane("restart", Ipv4Addr::new(192, 0, 2, 2)).await;
    let mut place = Place::on(plane, "restart").await;
    let mut addresses = Vec::new();
    let mut engines = Vec::new();
    for _ in 0..2 {
        let (address, engine) = engines::listen(Config::model("llama")).await;
        addresses.push(address);
        engines.push(engine);
    }
    place.apply(&headless_manifest("llama").to_string()).await;
    place.apply(&slice_manifest("llama", &[(addresses[0], true)]).to_string()).await;
    place.apply(&routing_manifests("llama", "llama", "routeStrategy: round-robin,")).await;
    let gateway = gateway::ready(&place).await;
    until_endpoints(&gateway, 1).await;

    let load = Load::start(&gateway, "llama", 2);
    let measure = async |before: usize| {
        let restart = || {
            plane.kill_server();
            plane.start_server();
        };
        tokio::task::spawn_blocking(restart).await.expect("the API server is back");
        place = place.clone().reconnected().await;
        let other = addresses[(before + 1) % 2];
        place.apply(&slice_manifest("llama", &[(other, true)]).to_string()).await;
        let changed = Instant::now();
        until("the other endpoint answers", || async {
            let engine = ask(&gateway).await.expect("answered");
            engine.starts_with(&format!("{other}:")).then_some(())
        })
        .await;
        changed.elapsed()
    };
    bars::within("a change after the restart is right", RIGHT_MAX, measure).await;
    load.assert_no_failure().await;
}

/// A control plane that a test may break, without a kubelet. It lives as long as the suite.
async fn own_plane(name: &'static str, address: Ipv4Addr) -> &'static Plane {
    let started = tokio::task::spawn_blocking(move || {
        let plane = Plane::start(name, address);
        plane.install_definitions();
        plane
    });
    Box::leak(Box::new(started.await.expect("a control plane")))
}

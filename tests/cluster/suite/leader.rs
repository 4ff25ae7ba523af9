//! One replica writes, all of them serve; and nobody writes without a reason.

use std::time::Duration;

use cluster::audit;
use cluster::engines::{deployment, routing_manifests};
use cluster::gateway::Start;
use cluster::place::Place;
use harness::fleet::until;
use harness::gateway::Gateway;
use serde_json::json;

/// How long nothing may be written but the Lease: five minutes by the issue, shorter here unless asked for.
const IDLE: Duration = Duration::from_secs(20);

pub(crate) async fn replica(place: &Place, name: &str) -> Gateway {
    Start::at(place).named(name).env("LEADER_ELECTION_ENABLED", "true").ready().await
}

/// Who holds the Lease.
pub(crate) async fn holder(place: &Place) -> String {
    place
        .until("Lease", "wicketgate", |lease| {
            lease.data["spec"]["holderIdentity"]
                .as_str()
                .filter(|holder| !holder.is_empty())
                .map(str::to_owned)
        })
        .await
}

/// No double writer: who does not lead writes nothing, and the old leader nothing after the new one has begun.
#[tokio::test]
async fn only_the_leader_writes() {
    let place = Place::new("a16-writer").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    let mut leader = replica(&place, "replica-a").await;
    holder(&place).await;
    let follower = replica(&place, "replica-b").await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    place.apply(&crate::samples::read("staticroute.yaml")).await;
    place.condition("StaticRoute", "staticroute-sample", "Programmed", "True").await;
    assert_eq!(follower.metric("leader_election_master_status{name=\"wicketgate\"}").await, Some(0.0));
    assert_eq!(leader.metric("leader_election_master_status{name=\"wicketgate\"}").await, Some(1.0));
    // The audit log may come a little after the answer, here as below.
    until("the leader's writes", || async { (!writers(&place).is_empty()).then_some(()) }).await;
    assert_eq!(writers(&place).len(), 1, "{:?}", writers(&place));

    leader.terminate();
    leader.exited().await;
    place.patch("InferenceGateway", "gw", json!({"spec": {"routeStrategy": "unheard-of"}})).await;
    place.condition("InferenceGateway", "gw", "Accepted", "False").await;
    until("the other writes", || async { (writers(&place).len() > 1).then_some(()) }).await;
    assert_eq!(writers(&place).len(), 2, "{:?}", writers(&place));
}

/// Who wrote anything but the Lease, by their tokens, in the order of the writes; one who writes again after another
/// stands there twice.
pub(crate) fn writers(place: &Place) -> Vec<String> {
    let all = audit::of(place).into_iter();
    let mut writers: Vec<_> = all
        .filter(|request| request.is_write() && request.resource != "leases")
        .map(|request| request.credential)
        .collect();
    writers.dedup();
    writers
}

/// Bar: idle, nothing is written but the Lease; and status alone causes no new generation.
#[tokio::test]
async fn idle_replicas_write_nothing_but_the_lease() {
    let place = Place::new("idle").await;
    let _pods = deployment(&place, "llama", "llama", 2).await;
    place.apply(&crate::samples::all(&place.namespace)).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    let gateway = replica(&place, "replica-a").await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    // Nobody listens at the backends of the examples: three probes, ten seconds apart, say so.
    for route in ["staticroute-sample", "go-static"] {
        place.condition("StaticRoute", route, "BackendsHealthy", "False").await;
    }
    // The last policies may still be compiling, which status tells when they are done.
    place.condition("InferenceGateway", "llm-gateway", "PolicyProgrammed", "True").await;
    let idle = std::env::var("WICKETGATE_IDLE_SECONDS")
        .map_or(IDLE, |text| Duration::from_secs(text.parse().expect("seconds")));
    until_quiet(&place).await;
    let (before, generation) = (writes(&place), gateway.metric_sum("wicketgate_generation").await);
    tokio::time::sleep(idle).await;
    let all = audit::of(&place);
    let new: Vec<_> = all
        .iter()
        .filter(|request| request.is_write() && request.resource != "leases")
        .skip(before)
        .collect();
    assert!(new.is_empty(), "{} writes in {idle:?}: {:?}", new.len(), &new[..new.len().min(5)]);
    assert!(
        all.iter().any(|request| request.resource == "leases" && request.verb == "update"),
        "no Lease renewed"
    );
    assert_eq!(gateway.metric_sum("wicketgate_generation").await, generation);
}

fn writes(place: &Place) -> usize {
    audit::of(place).iter().filter(|request| request.is_write() && request.resource != "leases").count()
}

/// Waits until nothing was written for eight seconds: what the objects caused has settled.
async fn until_quiet(place: &Place) {
    until("writes settle", || async {
        let before = writes(place);
        tokio::time::sleep(Duration::from_secs(8)).await;
        (writes(place) == before).then_some(())
    })
    .await;
}

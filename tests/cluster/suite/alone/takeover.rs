//! How soon another replica leads.

use std::time::{Duration, Instant};

use cluster::engines::{deployment, routing_manifests};
use cluster::place::{PATIENCE, Place, condition_of};
use harness::bars;
use harness::fleet::{chat, until};
use harness::gateway::Gateway;
use serde_json::json;

use crate::discovery::until_endpoints;
use crate::leader::{holder, replica, writers};

/// The bar for another replica to write after the leader has gone without a word.
const TAKEOVER_MAX: Duration = Duration::from_secs(20);
/// The bar for another replica to lead after the leader has said that it goes: a lease that is not given back lasts longer.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// A16: two replicas, one leader; after the leader is killed the other writes within 20 s, and both served all along.
#[tokio::test]
async fn when_the_leader_is_killed_another_takes_over_and_traffic_goes_on() {
    let place = Place::new("a16").await;
    let _pods = deployment(&place, "llama", "llama", 1).await;
    place.apply(&routing_manifests("llama", "llama", "")).await;
    let mut leader = replica(&place, "replica-0").await;
    until_leads(&place, "replica-0").await;
    place.condition("InferenceGateway", "gw", "Ready", "True").await;
    let measure = async |before: usize| {
        let name = format!("replica-{}", before + 1);
        let next = replica(&place, &name).await;
        for gateway in [&leader, &next] {
            until_endpoints(gateway, 1).await;
        }
        let held = holder(&place).await;
        assert!(held.contains(&format!("replica-{before}")), "{name} took a lease that {held} held");

        let killed = Instant::now();
        drop(std::mem::replace(&mut leader, next));
        status_written(&place, &leader, &format!("unheard-of-{before}")).await;
        let took = killed.elapsed();
        let lease = place.get("Lease", "wicketgate").await;
        let holds =
            lease.data["spec"]["holderIdentity"].as_str().is_some_and(|holder| holder.contains(&name));
        assert!(holds, "{}", lease.data);
        assert_eq!(lease.data["spec"]["leaseTransitions"], before + 1);
        until("the other writes", || async { (writers(&place).len() > before + 1).then_some(()) }).await;
        assert_eq!(writers(&place).len(), before + 2, "one after the other: {:?}", writers(&place));
        took
    };
    bars::within("another replica writes", TAKEOVER_MAX, measure).await;
}

/// Edits the gateway object and waits for the status of that: the new leader's first word. Requests go on meanwhile.
async fn status_written(place: &Place, serving: &Gateway, policy: &str) {
    place.patch("InferenceGateway", "gw", json!({"spec": {"routeStrategy": policy}})).await;
    let began = Instant::now();
    let mut answers = 0;
    loop {
        assert_eq!(serving.post("/v1/chat/completions", &chat("llama", "hello")).await.status, 200);
        answers += 1;
        let accepted = condition_of(&place.get("InferenceGateway", "gw").await, "Accepted");
        if accepted.is_some_and(|found| found["reason"] == "PolicyNotFound") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "nobody took over");
    }
    eprintln!("{answers} answers meanwhile");
}

/// Waits until this replica holds the Lease.
async fn until_leads(place: &Place, name: &str) {
    place
        .until("Lease", "wicketgate", |lease| {
            lease.data["spec"]["holderIdentity"].as_str().filter(|holder| holder.contains(name)).map(|_| ())
        })
        .await;
}

/// A leader that ends in an orderly way gives the Lease back: the other need not wait until it runs out.
#[tokio::test]
async fn a_leader_that_ends_gives_the_lease_back() {
    let place = Place::new("a16-release").await;
    let mut leader = replica(&place, "replica-0").await;
    until_leads(&place, "replica-0").await;
    let measure = async |before: usize| {
        let name = format!("replica-{}", before + 1);
        let next = replica(&place, &name).await;
        leader.terminate();
        let began = Instant::now();
        until_leads(&place, &name).await;
        let took = began.elapsed();
        assert_eq!(leader.exited().await, Some(0));
        leader = next;
        took
    };
    bars::within("the lease is given back", RELEASE_MAX, measure).await;
}

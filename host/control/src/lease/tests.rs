//! The elector against a scripted API server, under paused time.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::Handle;

use super::*;

struct Rig {
    api: Handle<Request<Body>, Response<Body>>,
    leads: watch::Receiver<bool>,
    fence: Fence,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn start() -> Rig {
    let (service, api) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let fence = Fence::default();
    let elector = Elector::new(Api::namespaced(Client::new(service, "ns"), "ns"), "me", fence.clone());
    let (leading, leads) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    Rig { api, leads, fence, stop, task: tokio::spawn(elector.run(leading, stopped)) }
}

fn lease(holder: &str, version: u32) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LEASE_NAME, "namespace": "ns", "resourceVersion": version.to_string()},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3,
                 "renewTime": format!("2020-01-01T00:00:{:02}.000000Z", version % 60)},
    })
}

fn failure(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "ServiceUnavailable",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "no", "code": code})
}

impl Rig {
    /// The next request, answered: with what it wrote under another version, if nothing else is given.
    async fn next(&mut self, answer: Option<Value>) -> (Method, Value) {
        let (request, send) = self.api.next_request().await.expect("a request");
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body: Value =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
        let answer = answer.unwrap_or_else(|| {
            let mut answer = body.clone();
            answer["metadata"]["resourceVersion"] = json!("1000");
            answer
        });
        let status = answer["code"].as_u64().map_or(200, |code| code as u16);
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        send.send_response(response);
        (head.method, body)
    }

    /// Answers a renewal: what was written before, then what is written now.
    async fn renew(&mut self, version: u32) {
        assert_eq!(self.next(Some(lease("me", version))).await.0, Method::GET);
        assert_eq!(self.next(None).await.0, Method::PUT);
    }

    async fn becomes(&mut self, leads: bool) {
        self.leads.wait_for(|now| *now == leads).await.expect("alive");
    }

    /// Takes a free lease.
    async fn lead(&mut self) {
        self.next(Some(lease("", 7))).await;
        self.next(None).await;
        self.becomes(true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_missing_is_created_and_held() {
    let mut rig = start();
    assert_eq!(rig.next(Some(failure(404))).await.0, Method::GET);
    let (method, body) = rig.next(None).await;
    assert_eq!(method, Method::POST);
    assert_eq!(body["spec"]["holderIdentity"], "me");
    assert_eq!(body["spec"]["leaseDurationSeconds"], 15);
    assert_eq!(body["spec"]["leaseTransitions"], 0);
    rig.becomes(true).await;
    rig.renew(1).await;
    assert!(*rig.leads.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_over_the_version_that_was_read() {
    let mut rig = start();
    rig.next(Some(lease("", 7))).await;
    let (method, body) = rig.next(None).await;
    assert_eq!(method, Method::PUT);
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    assert_eq!(body["spec"]["leaseTransitions"], 4, "it changes hands");
    assert_eq!(body["spec"]["acquireTime"], body["spec"]["renewTime"]);
    rig.becomes(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_taken_only_after_it_has_not_changed_for_as_long_as_it_lasts() {
    let mut rig = start();
    let mut changed = Instant::now();
    for version in [1, 2, 3] {
        // Its times are of 2020, and its holder still renews it.
        assert_eq!(rig.next(Some(lease("other", version))).await.0, Method::GET);
        changed = Instant::now();
    }
    loop {
        let (method, _) = rig.next(Some(lease("other", 3))).await;
        assert_eq!(method, Method::GET);
        if changed.elapsed() >= LEASE_DURATION {
            break;
        }
        assert!(!*rig.leads.borrow());
    }
    let (method, body) = rig.next(None).await;
    assert_eq!((method, &body["spec"]["holderIdentity"]), (Method::PUT, &json!("me")));
    assert!(changed.elapsed() < LEASE_DURATION + RETRY * 2, "{:?}", changed.elapsed());
    rig.becomes(true).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_who_try_one_wins_and_the_other_does_not_lead() {
    for missing in [true, false] {
        let mut rig = start();
        let read = if missing { failure(404) } else { lease("", 7) };
        rig.next(Some(read)).await;
        rig.next(Some(failure(409))).await;
        assert_eq!(rig.next(Some(lease("other", 8))).await.0, Method::GET);
        assert!(!*rig.leads.borrow());
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_while_leading_ends_it_at_once() {
    let mut rig = start();
    rig.lead().await;
    rig.next(Some(lease("me", 8))).await;
    let conflict = Instant::now();
    rig.next(Some(failure(409))).await;
    rig.becomes(false).await;
    // Not only when its time is up.
    assert_eq!(conflict.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_gives_up_before_anybody_may_take_over() {
    for hangs in [false, true] {
        let mut rig = start();
        assert!(!rig.fence.is_open());
        rig.lead().await;
        assert!(rig.fence.is_open());
        let renewed = Instant::now();
        let mut held = Vec::new();
        let mut leads = rig.leads.clone();
        let lost = async move {
            leads.wait_for(|now| !*now).await.expect("alive");
            Instant::now()
        };
        tokio::pin!(lost);
        let lost = loop {
            tokio::select! {
                biased;
                at = &mut lost => break at,
                request = rig.api.next_request() => {
                    let (_, send) = request.expect("a request");
                    if hangs {
                        held.push(send);
                    } else {
                        let mut response = Response::new(Body::from(failure(503).to_string().into_bytes()));
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                        send.send_response(response);
                    }
                }
            }
        };
        assert!(!rig.fence.is_open());
        let after = lost - renewed;
        assert!(after <= RENEW_DEADLINE + Duration::from_millis(10), "{after:?}");
        assert!(after >= RENEW_DEADLINE - RETRY, "a short failure is no reason to give up: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_the_lease_is_given_back_and_only_by_its_holder() {
    let mut rig = start();
    rig.lead().await;
    rig.stop.send_replace(true);
    let (method, body) = rig.next(None).await;
    assert_eq!(method, Method::PUT);
    assert_eq!(body["spec"]["holderIdentity"], "");
    assert_eq!(body["spec"]["leaseDurationSeconds"], 1);
    assert_eq!(body["metadata"]["resourceVersion"], "1000", "over our own last write");
    assert!(!*rig.leads.borrow(), "nobody leads while it is given back");
    assert!(!rig.fence.is_open(), "nor writes");
    rig.task.await.expect("a clean end");

    let mut rig = start();
    rig.next(Some(lease("other", 1))).await;
    rig.stop.send_replace(true);
    rig.task.await.expect("an end without a write");
}

/// A9: a lease that is deleted under its holder is made anew by the holder; the others wait for as long as it lasted.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_under_another_holder_is_not_taken_before_it_has_run_out() {
    let mut rig = start();
    let held = Instant::now();
    assert_eq!(rig.next(Some(lease("other", 1))).await.0, Method::GET);
    loop {
        let (method, _) = rig.next(Some(failure(404))).await;
        assert_eq!(method, Method::GET);
        if held.elapsed() >= LEASE_DURATION {
            break;
        }
        assert!(!*rig.leads.borrow());
    }
    assert_eq!(rig.next(None).await.0, Method::POST);
    rig.becomes(true).await;
}

/// A9: a Lease that cannot be made, read or written is told once when that begins and once when it ends.
#[tokio::test(start_paused = true)]
async fn trouble_with_the_lease_is_a_finding_until_it_is_over() {
    let (service, api) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let refusals = Refusals::default();
    let client = refusals.guard(Client::new(service, "ns"));
    let elector = Elector::new(Api::namespaced(client, "ns"), "me", Fence::default());
    let elector = elector.reporting_to(refusals.clone());
    let (leading, leads) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let (remarks_in, mut remarks) = tokio::sync::mpsc::channel(8);
    tokio::spawn(refusals.run(remarks_in, stopped.clone()));
    let task = tokio::spawn(elector.run(leading, stopped));
    let mut rig = Rig { api, leads, fence: Fence::default(), stop, task };
    let mut said = async || {
        let findings = remarks.recv().await.expect("it runs").findings;
        findings.into_iter().map(|finding| (finding.reason, finding.message)).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        rig.next(Some(failure(404))).await;
        assert_eq!(rig.next(Some(failure(403))).await.0, Method::POST);
    }
    let first = said().await;
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].0 == "Forbidden" && first[0].1.contains("create leases"), "{first:?}");
    assert!(first[0].1.contains("no replica leads"), "{first:?}");

    rig.next(Some(failure(404))).await;
    rig.next(None).await;
    rig.becomes(true).await;
    assert_eq!(said().await, [], "nothing was said in between");
    rig.next(Some(failure(503))).await;
    let now = said().await;
    assert!(now.len() == 1 && now[0].0 == "LeaseFailed", "{now:?}");
    rig.renew(2).await;
    assert_eq!(said().await, []);
    rig.stop.send_replace(true);
}

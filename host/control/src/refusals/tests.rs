//! Against an API server in memory, under paused time.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::*;
use crate::controllers::fake::FakeApi;

struct Rig {
    api: FakeApi,
    maps: Api<ConfigMap>,
    remarks: mpsc::Receiver<Remarks>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start() -> Self {
        let api = FakeApi::default();
        let refusals = Refusals::default();
        let maps = Api::namespaced(refusals.guard(api.client()), "ns");
        let (remarks_in, remarks) = mpsc::channel(8);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(refusals.run(remarks_in, stopped));
        Self { api, maps, remarks, stop, task }
    }

    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        self.maps.create(&PostParams::default(), &map).await
    }

    async fn patch(&self, name: &str) -> kube::Result<ConfigMap> {
        self.maps.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "b"}}))).await
    }

    /// The next messages that are reported.
    async fn said(&mut self) -> Vec<String> {
        let remarks = self.remarks.recv().await.expect("it runs");
        assert_eq!(remarks.source, SOURCE);
        remarks.findings.into_iter().map(|finding| finding.message).collect()
    }
}

fn is_forbidden(result: kube::Result<ConfigMap>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 403 && status.message == "no")
}

/// A9: a refused right is found with the verb, what the API server says and what is not done, and is gone when it is
/// granted.
#[tokio::test(start_paused = true)]
async fn a_refused_right_is_a_finding_until_it_is_granted() {
    let mut rig = Rig::start();
    rig.create("a").await.expect("allowed");
    rig.api.refuse(&[403, 403]);
    assert!(is_forbidden(rig.create("b").await), "the caller still hears why");
    let said = rig.said().await;
    let begins =
        "not allowed to create configmaps in namespace ns: no; meanwhile the ConfigMaps of StaticRoutes";
    assert!(said.len() == 1 && said[0].starts_with(begins), "{said:?}");

    assert!(is_forbidden(rig.patch("a").await));
    assert_eq!(rig.said().await.len(), 2, "another verb is another right");
    rig.create("b").await.expect("allowed");
    let said = rig.said().await;
    assert!(said.len() == 1 && said[0].starts_with("not allowed to patch configmaps"), "{said:?}");
    rig.patch("a").await.expect("allowed");
    assert!(rig.said().await.is_empty());
    rig.stop.send_replace(true);
    rig.task.await.expect("a clean end");
}

/// A9: many refused objects of one right are one finding; an object that is allowed does not hide one that is refused.
#[tokio::test(start_paused = true)]
async fn one_right_is_one_finding_however_many_objects_need_it() {
    let mut rig = Rig::start();
    for name in ["a", "b", "c"] {
        rig.create(name).await.expect("allowed");
    }
    rig.api.refuse(&[403, 403, 0, 403, 0]);
    assert!(is_forbidden(rig.patch("a").await));
    assert_eq!(rig.said().await.len(), 1);
    assert!(is_forbidden(rig.patch("b").await));
    rig.patch("c").await.expect("allowed");
    assert!(is_forbidden(rig.patch("b").await));
    assert!(rig.remarks.try_recv().is_err(), "nothing new was found");
    // `b` is not tried any more.
    tokio::time::advance(STALE).await;
    rig.patch("c").await.expect("allowed");
    assert!(rig.said().await.is_empty());
}

#[test]
fn a_request_says_which_right_it_needs() {
    let right = |method: Method, uri: &str| {
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request");
        Right::of(&request).map(|(right, name)| format!("{right} [{name}]"))
    };
    let lease = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
    for (method, uri, expected) in [
        (Method::GET, format!("{lease}/w"), "get leases (coordination.k8s.io) in namespace ns [w]"),
        (Method::PUT, format!("{lease}/w?"), "update leases (coordination.k8s.io) in namespace ns [w]"),
        (Method::POST, lease.to_owned(), "create leases (coordination.k8s.io) in namespace ns []"),
        (Method::GET, "/api/v1/configmaps?limit=500".to_owned(), "list configmaps []"),
        (Method::GET, "/api/v1/configmaps?a=b&watch=true".to_owned(), "watch configmaps []"),
        (Method::GET, "/api/v1/namespaces/ns".to_owned(), "get namespaces [ns]"),
        (
            Method::PATCH,
            "/apis/production-stack.vllm.ai/v1alpha1/namespaces/ns/staticroutes/r/status?force=true"
                .to_owned(),
            "patch staticroutes/status (production-stack.vllm.ai) in namespace ns [r]",
        ),
    ] {
        assert_eq!(right(method, &uri).as_deref(), Some(expected));
    }
    assert_eq!(right(Method::GET, "/version"), None);
}

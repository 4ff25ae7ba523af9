use std::sync::Arc;

use domain::endpoint::PodRef;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tower_test::mock::Handle;

use super::*;

type Api = Handle<Request<Body>, Response<Body>>;

fn note(name: &str, asleep: bool) -> SleepNote {
    SleepNote { pod: PodRef { namespace: "ns".into(), name: name.into() }, uid: Arc::from("u-1"), asleep }
}

struct Rig {
    api: Api,
    notes: mpsc::Sender<SleepNote>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn start() -> Rig {
    let (service, api) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let (notes, queue) = mpsc::channel(4);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(Client::new(service, "ns"), queue, stopped));
    Rig { api, notes, stop, task }
}

impl Rig {
    /// The next request: method, path, body; and its answer.
    async fn answer(&mut self, status: u16) -> (Method, String, Value) {
        let next = tokio::time::timeout(Duration::from_secs(60), self.api.next_request()).await;
        let (request, send) = next.expect("asked within a minute").expect("a request");
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let answer = match status {
            200 => {
                r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"p"}}"#
                    .to_owned()
            }
            code => format!(
                r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"x","message":"no","code":{code}}}"#
            ),
        };
        let mut response = Response::new(Body::from(answer.into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        send.send_response(response);
        (head.method, head.uri.path().to_owned(), serde_json::from_slice(&body).expect("JSON"))
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_labelled_when_its_engine_goes_to_sleep_and_the_label_goes_when_it_wakes() {
    let mut rig = start();
    rig.notes.send(note("p", true)).await.expect("room");
    let (method, path, body) = rig.answer(200).await;
    assert_eq!((method, path.as_str()), (Method::PATCH, "/api/v1/namespaces/ns/pods/p"));
    assert_eq!(body, json!({"metadata": {"labels": {"sleeping": "true"}, "uid": "u-1"}}));
    rig.notes.send(note("p", false)).await.expect("room");
    let (.., body) = rig.answer(200).await;
    assert_eq!(body["metadata"]["labels"], json!({"sleeping": null}), "null takes a label away");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_wish_is_tried_until_the_api_server_is_back_and_no_pod_waits_for_another() {
    let mut rig = start();
    rig.notes.send(note("p", true)).await.expect("room");
    rig.answer(503).await;
    rig.notes.send(note("p", false)).await.expect("room");
    rig.notes.send(note("q", true)).await.expect("room");
    let mut asked = Vec::new();
    for status in [500, 200, 200] {
        let (_, path, body) = rig.answer(status).await;
        asked.push((
            path.rsplit('/').next().unwrap_or_default().to_owned(),
            body["metadata"]["labels"]["sleeping"].clone(),
        ));
    }
    let wake = ("p".to_owned(), Value::Null);
    assert_eq!(asked, [wake.clone(), ("q".to_owned(), json!("true")), wake]);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_or_may_not_be_labelled_is_not_asked_for_again() {
    for status in [404, 409, 403] {
        let mut rig = start();
        rig.notes.send(note("p", true)).await.expect("room");
        rig.answer(status).await;
        rig.notes.send(note("q", true)).await.expect("room");
        assert_eq!(rig.answer(200).await.1, "/api/v1/namespaces/ns/pods/q", "{status}");
        rig.end().await;
    }
}

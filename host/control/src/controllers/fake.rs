//! An API server in memory: objects by path, optimistic locking, merge patches, server-side apply as far as our controllers
//! use it, and watches. A real client talks to it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request that was answered: method, path and body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// Sort of a patch.
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    asked: Vec<Asked>,
    watchers: Vec<UnboundedSender<Bytes>>,
    /// Statuses for the next writes, in order; 0 lets one through.
    refusals: Vec<u16>,
}

/// The server. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    /// A client of it. The server ends with the runtime of its test.
    pub(crate) fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Answer>();
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let body =
                    if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
                let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
                let asked = Asked {
                    method: head.method,
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().unwrap_or_default().to_owned(),
                    content_type: content_type.and_then(Result::ok).unwrap_or_default().to_owned(),
                    body,
                };
                send.send_response(state.lock().expect("no panic").answer(asked));
            }
        });
        Client::new(service, "ns")
    }

    /// Puts an object there as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().expect("no panic").store(path, object);
    }

    /// Deletes an object as somebody else would.
    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.0.lock().expect("no panic");
        let object = state.objects.remove(path).expect("it was there");
        state.tell("DELETED", &object);
    }

    /// The object as it is now.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().expect("no panic").objects.get(path).cloned()
    }

    /// Statuses for the next writes; 0 lets one through.
    pub(crate) fn refuse(&self, statuses: &[u16]) {
        self.0.lock().expect("no panic").refusals = statuses.to_vec();
    }

    /// Whether somebody watches.
    pub(crate) fn is_watched(&self) -> bool {
        !self.0.lock().expect("no panic").watchers.is_empty()
    }

    /// Every write so far.
    pub(crate) fn writes(&self) -> Vec<Asked> {
        let state = self.0.lock().expect("no panic");
        state.asked.iter().filter(|asked| asked.method != Method::GET).cloned().collect()
    }

    /// How often something was read so far.
    pub(crate) fn reads(&self) -> usize {
        let state = self.0.lock().expect("no panic");
        state.asked.iter().filter(|asked| asked.method == Method::GET).count()
    }

    /// Waits, in the test's own time, until something holds.
    pub(crate) async fn until<T>(&self, what: &str, holds: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..20_000 {
            if let Some(found) = holds(self) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("never: {what}; writes {:#?}", self.writes());
    }
}

impl State {
    fn answer(&mut self, asked: Asked) -> Answer {
        self.asked.push(asked.clone());
        let Asked { method, path, query, content_type, body } = asked;
        if method == Method::GET {
            return self.read(&path, &query);
        }
        if !self.refusals.is_empty() {
            let refusal = self.refusals.remove(0);
            if refusal != 0 {
                return failure(refusal);
            }
        }
        match method {
            Method::POST => {
                let name = body["metadata"]["name"].as_str().expect("a name");
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return failure(409);
                }
                let mut object = body;
                object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
                answer(&self.store(&path, object))
            }
            Method::PATCH => self.patch(&path, &content_type, &body),
            Method::DELETE => match self.objects.remove(&path) {
                Some(object) => {
                    self.tell("DELETED", &object);
                    answer(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
                }
                None => failure(404),
            },
            _ => failure(405),
        }
    }

    fn read(&mut self, path: &str, query: &str) -> Answer {
        if query.contains("watch=true") {
            let (sender, receiver): (_, UnboundedReceiver<Bytes>) = unbounded();
            self.watchers.push(sender);
            let frames = receiver.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        if let Some(object) = self.objects.get(path) {
            return answer(object);
        }
        let by_name = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
        if !query.contains("labelSelector") && by_name.is_none() {
            return failure(404);
        }
        let resource = path.rsplit('/').next().unwrap_or_default();
        let is_meant = |path: &str, object: &Value| {
            by_name.map_or_else(|| is_labelled(object), |name| path.ends_with(&format!("/{name}")))
        };
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, object)| path.contains(&format!("/{resource}/")) && is_meant(path, object))
            .map(|(_, object)| object)
            .collect();
        let version = self.version.to_string();
        answer(
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    /// An object of `status` goes to the subresource, everything else to the object.
    fn patch(&mut self, path: &str, content_type: &str, body: &Value) -> Answer {
        let (path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let Some(mut object) = self.objects.get(path).cloned() else { return failure(404) };
        for field in ["uid", "resourceVersion"] {
            let (wanted, is) = (&body["metadata"][field], &object["metadata"][field]);
            if !wanted.is_null() && wanted != is {
                return failure(409);
            }
        }
        match (content_type, is_status) {
            ("application/merge-patch+json", false) => merge_patch(&mut object, body),
            ("application/apply-patch+yaml", true) => object["status"] = body["status"].clone(),
            ("application/apply-patch+yaml", false) => apply(&mut object, body),
            _ => return failure(415),
        }
        if has_twins(&object["spec"]["ports"]) {
            return failure(422);
        }
        answer(&self.store(path, object))
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(path.to_owned(), object.clone());
        self.tell(event, &object);
        object
    }

    fn tell(&mut self, event: &str, object: &Value) {
        if is_labelled(object) {
            let line = Bytes::from(format!("{}\n", json!({"type": event, "object": object})));
            self.watchers.retain(|watcher| watcher.unbounded_send(line.clone()).is_ok());
        }
    }
}

fn is_labelled(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "wicketgate"
}

/// RFC 7396: null takes a field away, lists are replaced whole.
fn merge_patch(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            into.as_object_mut().expect("made above").remove(key);
        } else {
            merge_patch(&mut into[key], value);
        }
    }
}

/// Server-side apply to an object that was made otherwise: it takes nothing away, and ports merge by their number.
fn apply(object: &mut Value, body: &Value) {
    let ports = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
    merge(&mut object["data"], &body["data"]);
    merge(&mut object["spec"], &body["spec"]);
    merge(&mut object["metadata"]["labels"], &body["metadata"]["labels"]);
    object["metadata"]["ownerReferences"] = body["metadata"]["ownerReferences"].clone();
    if let Some(applied) = object["spec"].get_mut("ports").and_then(Value::as_array_mut) {
        let numbers: Vec<Value> = applied.iter().map(|port| port["port"].clone()).collect();
        applied.extend(ports.into_iter().filter(|port| !numbers.contains(&port["port"])));
    }
}

/// Whether two ports have one name, which the API server refuses.
fn has_twins(ports: &Value) -> bool {
    let mut names = BTreeSet::new();
    ports.as_array().into_iter().flatten().any(|port| !names.insert(port["name"].to_string()))
}

fn merge(into: &mut Value, from: &Value) {
    if let Some(fields) = from.as_object() {
        for (key, value) in fields {
            into[key] = value.clone();
        }
    }
}

fn answer(object: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(object.to_string())).boxed_unsync())
}

fn failure(code: u16) -> Answer {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "Other",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "no", "code": code});
    let mut response = answer(&status);
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

//! An API server in memory, behind a real client: lists, watches, and everything that goes wrong with them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// What the API server does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers.
    Well,
    /// Nobody is there.
    Away,
    /// Takes requests and never answers.
    Silent,
}

/// A running fake. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    /// By plural, namespace, name.
    objects: BTreeMap<(String, String, String), Value>,
    version: u64,
    /// Watches from before this version get 410.
    oldest: u64,
    history: Vec<(u64, String, Value)>,
    watches: Vec<Watch>,
    /// Status code that every request for a plural gets, or every watch of it (`watch plural`).
    refused: BTreeMap<String, u16>,
    /// How long requests for a plural take.
    waits: BTreeMap<String, Duration>,
    log: Vec<String>,
}

struct Watch {
    selection: Selection,
    events: mpsc::UnboundedSender<std::io::Result<Bytes>>,
}

/// What a request is about.
#[derive(Clone, Debug)]
struct Selection {
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Selection {
    fn of(path: &str, query: &str) -> Self {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let plural = parts.pop().unwrap_or_default().to_owned();
        let namespace = parts.iter().position(|part| *part == "namespaces").and_then(|at| parts.get(at + 1));
        let name = query
            .split('&')
            .find_map(|part| part.strip_prefix("fieldSelector="))
            .and_then(|selector| selector.strip_prefix("metadata.name%3D"));
        Self { plural, namespace: namespace.map(|ns| (*ns).to_owned()), name: name.map(str::to_owned) }
    }

    fn has(&self, plural: &str, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.plural == plural
            && self.namespace.as_deref().is_none_or(|namespace| metadata["namespace"] == namespace)
            && self.name.as_deref().is_none_or(|name| metadata["name"] == name)
    }
}

impl FakeApi {
    /// A new one without objects, and a client for it.
    pub(crate) fn start() -> (Self, Client) {
        let (service, mut requests) = tower_test::mock::pair::<Request<Body>, Answer>();
        let state = State {
            mood: Mood::Well,
            objects: BTreeMap::new(),
            version: 10,
            oldest: 0,
            history: Vec::new(),
            watches: Vec::new(),
            refused: BTreeMap::new(),
            waits: BTreeMap::new(),
            log: Vec::new(),
        };
        let fake = Self { state: Arc::new(Mutex::new(state)) };
        let server = fake.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, respond)) = requests.next_request().await {
                let mood = server.state().mood;
                match mood {
                    Mood::Well => {
                        let server = server.clone();
                        tokio::spawn(async move {
                            let wait = server.wait(&request);
                            tokio::time::sleep(wait).await;
                            respond.send_response(server.answer(&request));
                        });
                    }
                    Mood::Away => respond.send_error(std::io::Error::other("connection refused")),
                    Mood::Silent => unanswered.push(respond),
                }
            }
        });
        (fake, Client::new(service, "default"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// From now on.
    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Refuses everything about a plural with this status, or no more; only watches with `watch ` in front.
    pub(crate) fn refuse(&self, plural: &str, status: Option<u16>) {
        let mut state = self.state();
        match status {
            Some(status) => state.refused.insert(plural.to_owned(), status),
            None => state.refused.remove(plural),
        };
    }

    /// Makes requests for a plural take so long.
    pub(crate) fn slow_down(&self, plural: &str, wait: Duration) {
        self.state().waits.insert(plural.to_owned(), wait);
    }

    fn wait(&self, request: &Request<Body>) -> Duration {
        let selection = Selection::of(request.uri().path(), "");
        self.state().waits.get(&selection.plural).copied().unwrap_or_default()
    }

    /// Creates or replaces an object. Watches hear of it.
    pub(crate) fn apply(&self, plural: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] =
                json!(format!("uid-{}", object["metadata"]["name"].as_str().unwrap_or_default()));
        }
        let key = key_of(plural, &object);
        let kind = if state.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(plural, kind, &object);
    }

    /// Deletes an object. Watches hear of it.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let Some(mut object) = state.objects.remove(&key) else { panic!("no {name}") };
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell(plural, "DELETED", &object);
    }

    /// Breaks every connection off; `forget` makes the watches' places too old to be resumed.
    pub(crate) fn cut(&self, forget: bool) {
        let mut state = self.state();
        for watch in state.watches.drain(..) {
            // The client may have left before.
            let _ = watch.events.send(Err(std::io::Error::other("connection reset")));
        }
        if forget {
            state.version += 1;
            state.oldest = state.version;
            state.history.clear();
        }
    }

    /// Ends every watch as a server does after a while.
    pub(crate) fn end_watches(&self) {
        self.state().watches.clear();
    }

    /// Tells every watch of a plural that its place is too old.
    pub(crate) fn expire(&self, plural: &str) {
        let mut state = self.state();
        let gone = status(410, "Expired", "too old resource version");
        let line = line(&json!({"type": "ERROR", "object": gone}));
        state.watches.retain(|watch| {
            let is_meant = watch.selection.plural == plural;
            if is_meant {
                let _ = watch.events.send(Ok(line.clone()));
            }
            !is_meant
        });
    }

    /// Requests since the last call: `list` or `watch`, and the path.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    fn answer(&self, request: &Request<Body>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let selection = Selection::of(request.uri().path(), query);
        let mut state = self.state();
        let is_watch = query.contains("watch=true");
        state.log.push(format!("{} {}", if is_watch { "watch" } else { "list" }, request.uri().path()));
        let watches = state.refused.get(&format!("watch {}", selection.plural)).filter(|_| is_watch);
        if let Some(code) = state.refused.get(&selection.plural).or(watches) {
            let why = format!("{} is not for you", selection.plural);
            return whole(*code, &status(*code, "Forbidden", &why));
        }
        if is_watch { state.watch(selection, query) } else { state.list(&selection) }
    }
}

impl State {
    fn tell(&mut self, plural: &str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.history.push((self.version, plural.to_owned(), event.clone()));
        let line = line(&event);
        self.watches.retain(|watch| {
            !watch.selection.has(plural, object) || watch.events.send(Ok(line.clone())).is_ok()
        });
    }

    fn list(&self, selection: &Selection) -> Answer {
        let items = self.objects.iter().filter(|((plural, ..), object)| selection.has(plural, object));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let version = self.version.to_string();
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": version}, "items": items});
        whole(200, &list)
    }

    fn watch(&mut self, selection: Selection, query: &str) -> Answer {
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|text| text.parse().ok()).expect("a version");
        let (events, mut lines) = mpsc::unbounded_channel();
        if from < self.oldest {
            let gone = status(410, "Expired", "too old resource version");
            let _ = events.send(Ok(line(&json!({"type": "ERROR", "object": gone}))));
        } else {
            for (version, plural, event) in &self.history {
                if *version > from && selection.has(plural, &event["object"]) {
                    let _ = events.send(Ok(line(event)));
                }
            }
            self.watches.push(Watch { selection, events });
        }
        let lines = futures::stream::poll_fn(move |cx| lines.poll_recv(cx));
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames(lines))))
    }
}

fn frames(
    lines: impl Stream<Item = std::io::Result<Bytes>>,
) -> impl Stream<Item = std::io::Result<Frame<Bytes>>> {
    futures::StreamExt::map(lines, |line| line.map(Frame::data))
}

fn key_of(plural: &str, object: &Value) -> (String, String, String) {
    let text = |key: &str| object["metadata"][key].as_str().expect("a text").to_owned();
    (plural.to_owned(), text("namespace"), text("name"))
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code})
}

fn whole(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string()));
    let mut response = Response::new(UnsyncBoxBody::new(body.map_err(|never: Infallible| match never {})));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

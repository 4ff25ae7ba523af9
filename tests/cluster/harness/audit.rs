//! What was asked of the API server by everybody but administrators.

use serde_json::Value;

use crate::place::Place;

/// One request, answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who.
    pub user: String,
    /// With which token: one for each kubeconfig, so for each replica.
    pub credential: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// Group of the object; empty for the core group.
    pub group: String,
    /// `pods`, or `staticroutes/status`.
    pub resource: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object, if the request has one.
    pub name: String,
    /// Status of the answer.
    pub code: u64,
}

impl Request {
    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    fn read(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        Some(Self {
            user: text(&event["user"]["username"]),
            credential: text(&event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0]),
            verb: text(&event["verb"]),
            group: text(&object["apiGroup"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        })
    }
}

/// What ServiceAccounts of the place's namespace have asked so far, oldest first.
pub fn of(place: &Place) -> Vec<Request> {
    let text = std::fs::read_to_string(place.plane().audit_log()).expect("an audit log");
    let prefix = format!("system:serviceaccount:{}:", place.namespace);
    text.lines().filter_map(Request::read).filter(|request| request.user.starts_with(&prefix)).collect()
}

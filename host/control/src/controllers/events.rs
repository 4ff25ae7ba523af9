//! Events: told once, when a condition changes. They are for people; nothing depends on them, so what does not fit the
//! queue is dropped.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use manifest::{Kind, ObjectKey};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::start::stopped;
use crate::status::static_route::{CONFLICT, FAILED};
use crate::status::{Told, Transition, Truth};

/// Events that may wait.
pub(super) const EVENTS_MAX: usize = 256;
/// Longest time for one event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(4);
/// An event's note is cut at so many bytes, as the API server demands.
const NOTE_BYTES_MAX: usize = 1_000;
/// What reported it.
const REPORTER: &str = "wicketgate";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    key: ObjectKey,
    uid: Option<String>,
    is_warning: bool,
    reason: String,
    text: String,
}

/// Reasons that say where an object stands, not that something is wrong.
const NO_WARNING: [&str; 2] = ["NotReferenced", "NotRouted"];

/// What is worth an event of what changed: anything that became wrong, each cause once, and `Ready` when it became true.
pub(super) fn notes(told: &Told) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for Transition { kind, said, is_first } in &told.transitions {
        let is_warning = match said.truth {
            Truth::False => true,
            Truth::True if *kind == "Ready" || (*kind == "BackendsHealthy" && !is_first) => false,
            Truth::True | Truth::Unknown => continue,
        };
        let is_opposite = *kind == "HealthCheckFailed";
        if is_opposite || (is_warning && NO_WARNING.contains(&said.reason.as_str())) {
            continue;
        }
        let is_config_map = told.key.kind == Kind::StaticRoute && said.reason == CONFLICT;
        let reason = if is_config_map { FAILED.to_owned() } else { said.reason.clone() };
        let text = if said.message.is_empty() {
            format!("{kind} is {}", said.truth.as_str())
        } else {
            said.message.clone()
        };
        if notes.iter().any(|note| note.reason == reason && note.text == text) {
            continue;
        }
        notes.push(Note { key: told.key.clone(), uid: told.uid.clone(), is_warning, reason, text });
    }
    notes
}

/// Puts an event into the queue, if there is room.
pub(super) fn send(events: &mpsc::Sender<Note>, note: Note) {
    if events.try_send(note).is_err() {
        tracing::debug!("an event is dropped: too many wait");
    }
}

/// Publishes events one after the other, until `stop` turns true (or its sender is gone).
pub(super) async fn run(
    client: Client,
    identity: String,
    mut events: mpsc::Receiver<Note>,
    mut stop: watch::Receiver<bool>,
) {
    let reporter = Reporter { controller: REPORTER.into(), instance: Some(identity) };
    let recorder = Recorder::new(client, reporter);
    loop {
        let note = tokio::select! {
            () = stopped(&mut stop) => return,
            note = events.recv() => match note {
                Some(note) => note,
                None => return,
            },
        };
        let (event, reference) = event(&note);
        let published = tokio::select! {
            () = stopped(&mut stop) => return,
            published = timeout(EVENT_TIMEOUT, recorder.publish(&event, &reference)) => published,
        };
        match published {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an event is lost"),
            Err(_) => tracing::debug!("an event is lost: the API server does not answer"),
        }
    }
}

fn event(note: &Note) -> (Event, ObjectReference) {
    let mut text = note.text.clone();
    if text.len() > NOTE_BYTES_MAX {
        let mut end = NOTE_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    let event = Event {
        type_: if note.is_warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.clone(),
        note: Some(text),
        action: "Reconcile".into(),
        secondary: None,
    };
    let reference = ObjectReference {
        api_version: Some(note.key.kind.api_version().into()),
        kind: Some(note.key.kind.as_str().into()),
        namespace: Some(note.key.name.namespace.to_string()),
        name: Some(note.key.name.name.to_string()),
        uid: note.uid.clone(),
        ..ObjectReference::default()
    };
    (event, reference)
}

#[cfg(test)]
mod tests {
    use domain::name::ObjectName;
    use serde_json::Value;

    use super::*;
    use crate::status::Said;

    fn told(transitions: Vec<(&'static str, Said, bool)>) -> Told {
        let transitions = transitions.into_iter();
        Told {
            key: ObjectKey { kind: Kind::StaticRoute, name: ObjectName::new("ns", "r") },
            uid: None,
            version: None,
            status: Value::Null,
            is_only_live: false,
            transitions: transitions
                .map(|(kind, said, is_first)| Transition { kind, said, is_first })
                .collect(),
        }
    }

    fn reasons(transitions: Vec<(&'static str, Said, bool)>) -> Vec<String> {
        let show =
            |note: Note| format!("{} {}", if note.is_warning { "Warning" } else { "Normal" }, note.reason);
        notes(&told(transitions)).into_iter().map(show).collect()
    }

    #[test]
    fn a_cause_is_told_once_and_nothing_that_is_only_pending() {
        let no = |reason: &str| Said::no(reason, "why");
        let cases = [
            (vec![("Accepted", no("X"), true), ("Ready", no("X"), true)], vec!["Warning X"]),
            (vec![("Ready", Said::pending("soon"), true)], vec![]),
            (
                vec![("Accepted", Said::yes("Accepted", ""), true), ("Ready", Said::yes("Ready", ""), true)],
                vec!["Normal Ready"],
            ),
            (vec![("Programmed", no("NotReferenced"), true)], vec![]),
            (vec![("Accepted", no("ConfigMapConflict"), false)], vec!["Warning FailedReconcileConfigMap"]),
            (vec![("Programmed", no(FAILED), false)], vec!["Warning FailedReconcileConfigMap"]),
            (
                vec![
                    ("HealthCheckSucceeded", no("HealthCheckFailed"), false),
                    ("HealthCheckFailed", Said::yes("HealthCheckFailed", "why"), false),
                ],
                vec!["Warning HealthCheckFailed"],
            ),
            (vec![("BackendsHealthy", Said::yes("BackendsHealthy", ""), true)], vec![]),
            (
                vec![("BackendsHealthy", Said::yes("BackendsHealthy", ""), false)],
                vec!["Normal BackendsHealthy"],
            ),
        ];
        for (transitions, expected) in cases {
            assert_eq!(reasons(transitions.clone()), expected, "{transitions:?}");
        }
    }
}

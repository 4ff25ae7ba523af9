//! Labels pods whose engine a client put to sleep: `sleeping=true`, and takes the label away when it is woken.
//!
//! Every replica does this for what its own clients asked for, whoever leads. The last wish for a pod counts, and is
//! tried until the API server takes it or refuses it for good: a label that stays would keep an awake engine out.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::name::ObjectName;
use domain::sleep::SleepNote;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::start::stopped;

/// Pods with a wish at a time; further wishes wait in their queue.
const PODS_MAX: usize = 1_024;
/// Longest time for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two rounds of attempts while some fail.
const RETRY: Duration = Duration::from_secs(1);
/// The label.
const LABEL: &str = "sleeping";

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// Done, or pointless.
    Ended,
    /// Worth another attempt.
    Failed,
}

/// Labels until `stop` turns true (or its sender is gone), or nobody can wish any more.
pub(super) async fn run(
    client: Client,
    mut notes: mpsc::Receiver<SleepNote>,
    mut stop: watch::Receiver<bool>,
) {
    let mut wishes: BTreeMap<ObjectName, SleepNote> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            note = notes.recv(), if wishes.len() < PODS_MAX => match note {
                Some(note) => wish(&mut wishes, note),
                None if wishes.is_empty() => return stopped(&mut stop).await,
                None => tokio::time::sleep(RETRY).await,
            },
            () = tokio::time::sleep(RETRY), if !wishes.is_empty() => {}
        }
        while wishes.len() < PODS_MAX
            && let Ok(note) = notes.try_recv()
        {
            wish(&mut wishes, note);
        }
        let round: Vec<SleepNote> = wishes.values().cloned().collect();
        for note in round {
            let attempt = tokio::select! {
                () = stopped(&mut stop) => return,
                attempt = label(&client, &note) => attempt,
            };
            if attempt == Attempt::Ended {
                wishes.remove(&name_of(&note));
            }
        }
    }
}

fn wish(wishes: &mut BTreeMap<ObjectName, SleepNote>, note: SleepNote) {
    wishes.insert(name_of(&note), note);
}

fn name_of(note: &SleepNote) -> ObjectName {
    ObjectName { namespace: note.pod.namespace.clone(), name: note.pod.name.clone() }
}

async fn label(client: &Client, note: &SleepNote) -> Attempt {
    let (namespace, name) = (&note.pod.namespace, &note.pod.name);
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), namespace);
    let value = note.asleep.then_some("true");
    let mut metadata = json!({ "labels": { LABEL: value } });
    if !note.uid.is_empty() {
        // Another pod of this name makes it a conflict.
        metadata["uid"] = json!(&*note.uid);
    }
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let parameters = PatchParams::default();
    let patched = api.patch(name, &parameters, &patch);
    let error = match tokio::time::timeout(ATTEMPT_TIMEOUT, patched).await {
        Ok(Ok(_)) => {
            tracing::info!(%namespace, %name, asleep = note.asleep, "labelled the pod");
            return Attempt::Ended;
        }
        Ok(Err(error)) => error,
        Err(_) => {
            tracing::warn!(%namespace, %name, "labelling the pod takes too long, trying again");
            return Attempt::Failed;
        }
    };
    match &error {
        // The pod is gone, or another one has its name.
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Attempt::Ended,
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            tracing::warn!(%namespace, %name, %error, "the pod may not be labelled; allow `patch` on pods");
            Attempt::Ended
        }
        _ => {
            tracing::warn!(%namespace, %name, %error, "the pod is not labelled, trying again");
            Attempt::Failed
        }
    }
}

#[cfg(test)]
mod tests;

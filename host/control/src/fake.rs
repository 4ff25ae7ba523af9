//! What tests plug into the control plane: manifests as text, and policies that are "compiled" by reading their file.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::policy::{
    Description, Digest, EntrySpec, PolicySource, Preparation, Prepare, PrepareFailure, Prepared,
};

/// Longest wait for what must happen; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The bar for an edit to be acted upon, median of some, and how often it is measured: a busy machine can only make it longer.
pub(crate) const EDIT_MAX: Duration = Duration::from_millis(100);
pub(crate) const MEASUREMENTS_MAX: usize = 5;

/// Whether something comes to hold within [`PATIENCE`].
pub(crate) async fn soon(holds: impl Fn() -> bool) -> bool {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.is_ok()
}

/// One document of a manifest file.
pub(crate) fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\n{{\"apiVersion\":\"production-stack.vllm.ai/v1alpha1\",\"kind\":\"{kind}\",\
         \"metadata\":{{\"name\":\"{name}\"}},\"spec\":{spec}}}\n"
    )
}

/// A service of model `m` at static URLs.
pub(crate) fn service(name: &str, urls: &[&str]) -> String {
    let backend = format!("{{\"kind\":\"Static\",\"urls\":{urls:?}}}");
    document("InferenceService", name, &format!("{{\"modelName\":\"m\",\"backendRef\":{backend}}}"))
}

/// A gateway that routes `m` to `service` by a chain of `RoutingPolicy`s.
pub(crate) fn gateway(name: &str, service: &str, policies: &[&str]) -> String {
    let entries: Vec<String> =
        policies.iter().map(|policy| format!("{{\"policyRef\":{{\"name\":\"{policy}\"}}}}")).collect();
    let routes = format!("[{{\"model\":\"m\",\"inferenceServiceRef\":\"{service}\"}}]");
    let chain =
        if entries.is_empty() { String::new() } else { format!(",\"policies\":[{}]", entries.join(",")) };
    document("InferenceGateway", name, &format!("{{\"routes\":{routes}{chain}}}"))
}

/// A policy whose component is a file.
pub(crate) fn file_policy(name: &str, file: &Path) -> String {
    document("RoutingPolicy", name, &format!("{{\"source\":{{\"file\":{file:?}}}}}"))
}

/// A "compiled" policy: the text of its file.
#[derive(Debug)]
pub(crate) struct FakePolicy {
    description: Description,
}

impl Prepared for FakePolicy {
    fn description(&self) -> &Description {
        &self.description
    }
    fn digest(&self) -> Digest {
        Digest([0; 32])
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Prepares policies by the text of their file: `slow…` is pending until [`FakePrepare::finish`], `bad…` fails, `picky…` fails
/// without settings, a missing file fails, everything else is ready, with the text as its version. Built-ins are ready.
#[derive(Default)]
pub(crate) struct FakePrepare {
    finished: Mutex<BTreeSet<String>>,
    wake: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
    pub(crate) retained: Mutex<Vec<Arc<EntrySpec>>>,
}

impl FakePrepare {
    /// What was pending with this text is ready now.
    pub(crate) fn finish(&self, text: &str) {
        self.finished.lock().expect("no panic").insert(text.to_owned());
        if let Some(wake) = &*self.wake.lock().expect("no panic") {
            wake();
        }
    }
}

impl Prepare for FakePrepare {
    fn prepare(&self, spec: &EntrySpec) -> Preparation {
        let failed = |reason, message: &str| {
            let failure = PrepareFailure {
                reason,
                message: message.to_owned(),
                config_path: None,
                remedy: "write a better one".to_owned(),
            };
            Preparation::Failed(failure)
        };
        let text = match &spec.source {
            PolicySource::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(_) => return failed("FetchFailed", "the file cannot be read"),
            },
            PolicySource::Builtin(name) => name.to_string(),
            PolicySource::Bytes { .. } => "bytes".to_owned(),
            PolicySource::Oci { image, .. } => image.to_string(),
        };
        if text.starts_with("bad") {
            return failed("InvalidComponent", "it is no component");
        }
        if text.starts_with("picky") && &*spec.config == "{}" {
            let Preparation::Failed(failure) = failed("ConfigRejected", "must be set") else {
                unreachable!()
            };
            let config_path = Some("/marker".to_owned());
            return Preparation::Failed(PrepareFailure { config_path, ..failure });
        }
        if text.starts_with("slow") && !self.finished.lock().expect("no panic").contains(&text) {
            return Preparation::Pending;
        }
        let description = Description {
            name: spec.name.to_string(),
            version: text,
            summary: String::new(),
            config_schema: "{}".to_owned(),
            signals: Vec::new(),
            wants_owners: false,
            wants_prefix_hashes: false,
            needs_session: false,
            headers: Vec::new(),
        };
        Preparation::Ready(Arc::new(FakePolicy { description }))
    }

    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        *self.wake.lock().expect("no panic") = Some(wake);
    }

    fn retain(&self, live: &[Arc<EntrySpec>]) {
        *self.retained.lock().expect("no panic") = live.to_vec();
    }
}

//! Engines whose metrics page cannot be read, and what is found about them: one finding per service and cause.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::endpoint::{EndpointId, EndpointSpec};
use domain::finding::{Finding, Severity};
use domain::name::ObjectName;
use domain::snapshot::Snapshot;
use http::StatusCode;
use manifest::{Bundle, Kind, ObjectKey};

use super::client::ProbeError;
use crate::causes::with_causes;

/// So many failures in a row are found: an engine may restart, a page be late once. As many of another cause in a row
/// change what is found.
pub(super) const FAILURES_QUIET: u32 = 3;
/// Findings at a time; further ones are left out.
pub(super) const FINDINGS_MAX: usize = 256;
/// Time between two reports, milliseconds.
const INTERVAL_MS: u64 = 1_000;
/// A cause is cut at so many bytes.
const CAUSE_BYTES_MAX: usize = 384;
const FIELD: &str = "spec.metrics";

/// Why a page cannot be read, in words, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    text: String,
    remedy: &'static str,
}

/// Failures of one engine, since its page was read last.
#[derive(Debug)]
struct Trouble {
    last: Cause,
    times: u32,
    told: Option<Cause>,
}

/// Who cannot be read now.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    troubles: HashMap<EndpointId, Trouble>,
    has_news: bool,
    told_ms: Option<u64>,
}

impl Unreadable {
    /// A page was read.
    pub(super) fn read(&mut self, endpoint: &EndpointId) {
        if let Some(trouble) = self.troubles.remove(endpoint)
            && trouble.told.is_some()
        {
            self.has_news = true;
        }
    }

    /// A page was not read.
    pub(super) fn failed(&mut self, endpoint: &EndpointId, error: &ProbeError) {
        let cause = Cause::of(error);
        let Some(trouble) = self.troubles.get_mut(endpoint) else {
            let trouble = Trouble { last: cause, times: 1, told: None };
            self.troubles.insert(endpoint.clone(), trouble);
            return;
        };
        let is_same = trouble.last == cause;
        trouble.last = cause;
        // At first any failures in a row will do; what is told changes only for a cause that stays.
        trouble.times = if is_same || trouble.told.is_none() { trouble.times.saturating_add(1) } else { 1 };
        if trouble.times >= FAILURES_QUIET && trouble.told.as_ref() != Some(&trouble.last) {
            trouble.told = Some(trouble.last.clone());
            self.has_news = true;
        }
    }

    /// An engine has left.
    pub(super) fn forget(&mut self, endpoint: &EndpointId) {
        self.has_news |= self.troubles.remove(endpoint).is_some_and(|trouble| trouble.told.is_some());
    }

    /// Routes may lead elsewhere now.
    pub(super) fn rerouted(&mut self) {
        self.has_news |= self.troubles.values().any(|trouble| trouble.told.is_some());
    }

    /// Everything that is to be found, if that has changed and it is time to say so.
    pub(super) fn take_due(
        &mut self,
        now_ms: u64,
        snapshot: &Snapshot,
        bundle: &Bundle,
    ) -> Option<Vec<Finding>> {
        let is_early = self.told_ms.is_some_and(|told_ms| now_ms < told_ms + INTERVAL_MS);
        if !self.has_news || is_early {
            return None;
        }
        (self.has_news, self.told_ms) = (false, Some(now_ms));
        Some(self.findings(snapshot, bundle))
    }

    /// The findings were not taken: they are due again.
    pub(super) fn untold(&mut self) {
        self.has_news = true;
    }

    fn findings(&self, snapshot: &Snapshot, bundle: &Bundle) -> Vec<Finding> {
        let mut groups: BTreeMap<(&ObjectName, &Cause), (&Arc<EndpointSpec>, bool)> = BTreeMap::new();
        for route in snapshot.gateways.iter().flat_map(|gateway| gateway.routes.values()) {
            for endpoint in &route.pool.endpoints {
                let Some(trouble) = self.troubles.get(&endpoint.spec.id) else { continue };
                let Some(cause) = &trouble.told else { continue };
                let (first, has_more) =
                    groups.entry((&route.service, cause)).or_insert((&endpoint.spec, false));
                *has_more |= first.id != endpoint.spec.id;
                if endpoint.spec.id < first.id {
                    *first = &endpoint.spec;
                }
            }
        }
        let found = groups.into_iter().take(FINDINGS_MAX);
        found
            .map(|((service, cause), (first, has_more))| finding(bundle, service, cause, first, has_more))
            .collect()
    }
}

fn finding(
    bundle: &Bundle,
    service: &ObjectName,
    cause: &Cause,
    first: &EndpointSpec,
    has_more: bool,
) -> Finding {
    let is_service = bundle.services.contains_key(service);
    let kind = if is_service { Kind::InferenceService } else { Kind::StaticRoute };
    let key = ObjectKey { kind, name: service.clone() };
    let origin = bundle.source(&key).map(|source| source.locate(FIELD)).unwrap_or_default();
    // How many there are changes with every engine that comes or goes, and would be a new finding each time.
    let others = if has_more { " (and of other engines)" } else { "" };
    let message = format!(
        "the metrics page {}{others} gives no numbers: {}; policies treat its load as unknown",
        page(first),
        cause.text
    );
    Finding {
        severity: Severity::Warning,
        object: key.to_string().into(),
        origin,
        field: if is_service { FIELD.to_owned() } else { String::new() },
        reason: "MetricsUnread",
        message,
        remedy: cause.remedy.to_owned(),
    }
}

/// The URL that is asked.
fn page(spec: &EndpointSpec) -> String {
    let target = &spec.target;
    let scheme = if target.tls && !spec.metrics.is_plain { "https" } else { "http" };
    let path = &spec.metrics.path;
    match spec.metrics.port {
        None => format!("{}{path}", spec.id.url),
        Some(port) if target.host.contains(':') => format!("{scheme}://[{}]:{port}{path}", target.host),
        Some(port) => format!("{scheme}://{}:{port}{path}", target.host),
    }
}

impl Cause {
    fn of(error: &ProbeError) -> Self {
        let mut text = with_causes(error);
        if text.len() > CAUSE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(CAUSE_BYTES_MAX));
        }
        Self { text, remedy: remedy(error) }
    }
}

fn remedy(error: &ProbeError) -> &'static str {
    match error {
        ProbeError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "set spec.auth, or let the engine show its metrics without credentials"
        }
        ProbeError::Status(_) => {
            "let the engine show its metrics (SGLang: --enable-metrics, llama.cpp: --metrics), or correct spec.metrics"
        }
        ProbeError::Redirect { .. } => "name the page itself in spec.metrics",
        ProbeError::Unread(_) | ProbeError::Content | ProbeError::Encoding(_) => {
            "correct path or port in spec.metrics: this is not the page of an engine that is known"
        }
        ProbeError::TooLarge { .. } => "let the engine show less: only its first numbers are needed",
        ProbeError::Connect(_) => "correct spec.metrics.port, or see why nothing listens there",
        ProbeError::Tls(_) => "correct spec.tls: it says whose certificates are trusted",
        ProbeError::Timeout => {
            "see why the engine is slow: a page may take three quarters of --engine-scrape-interval"
        }
        ProbeError::Exchange(_) | ProbeError::Target(_) => "correct path or port in spec.metrics",
    }
}

#[cfg(test)]
mod tests;

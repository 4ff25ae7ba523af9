//! What the log says of a change: which policies are in force for each gateway, what is wrong now, and what no longer is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use domain::finding::{Finding, Severity};
use domain::name::ObjectName;
use domain::pool::Chain;
use domain::snapshot::Snapshot;

use super::PREPARING;

/// Most gateways named at one change; of the others only their number is logged.
const GATEWAYS_MAX: usize = 64;
/// The chain of a gateway without policies.
const NO_POLICY: &str = "none: least in flight";

/// The policies that were in force before, so that only changes are logged.
#[derive(Debug, Default)]
pub(crate) struct InForce(BTreeMap<ObjectName, String>);

impl InForce {
    /// Logs which policies decide, for each gateway where that has changed.
    pub(super) fn log(&mut self, snapshot: &Snapshot) {
        let changed = self.changed(snapshot);
        for (gateway, policies) in changed.iter().take(GATEWAYS_MAX) {
            tracing::info!(%gateway, policies, "policies in force");
        }
        if changed.len() > GATEWAYS_MAX {
            tracing::info!(
                gateways = changed.len() - GATEWAYS_MAX,
                "policies in force for more gateways, see /snapshot"
            );
        }
    }

    /// Gateways whose chains have changed, with their chains now.
    fn changed(&mut self, snapshot: &Snapshot) -> Vec<(ObjectName, String)> {
        let now = snapshot.gateways.iter().map(|gateway| {
            let chains: BTreeSet<String> =
                gateway.routes.values().map(|route| chain(&route.pool.chain)).collect();
            (gateway.name.clone(), Vec::from_iter(chains).join(" | "))
        });
        let now: BTreeMap<ObjectName, String> = now.collect();
        let changed = now.iter().filter(|(gateway, chains)| self.0.get(*gateway) != Some(chains));
        let changed = changed.map(|(gateway, chains)| (gateway.clone(), chains.clone())).collect();
        self.0 = now;
        changed
    }
}

/// `NAME VERSION (DIGEST)` of each entry in order: the version that the component says it has, and the first 12 characters
/// of its digest.
fn chain(chain: &Chain) -> String {
    let one = |entry: &domain::pool::Entry| {
        let name = entry.spec.name.as_str();
        match &entry.prepared {
            Some(prepared) => {
                format!("{name} {} ({:.12})", prepared.description().version, prepared.digest())
            }
            None => format!("{name} (not loaded)"),
        }
    };
    let entries: Vec<String> = chain.entries.iter().map(one).collect();
    if entries.is_empty() { NO_POLICY.to_owned() } else { entries.join(", ") }
}

/// Logs what was not wrong before, and what is not wrong any more, each once. That a policy is being compiled is the
/// normal course of a start: a detail.
pub(super) fn log_findings(before: &[Finding], now: &[Finding]) {
    for finding in missing_from(before, now) {
        let text = finding.sentence();
        match finding.severity {
            _ if finding.reason == PREPARING => tracing::debug!("{text}"),
            Severity::Info => tracing::info!("{text}"),
            Severity::Warning | Severity::Error => {
                tracing::warn!(severity = finding.severity.as_str(), "{text}");
            }
        }
    }
    for finding in missing_from(now, before) {
        if finding.reason != PREPARING {
            tracing::info!("resolved: {}", finding.sentence());
        }
    }
}

/// Findings of `these` that `those` does not have. Where in its file one stands does not count.
fn missing_from<'a>(those: &[Finding], these: &'a [Finding]) -> Vec<&'a Finding> {
    let what = |finding: &Finding| {
        let Finding { object, origin, field, reason, message, .. } = finding;
        (Arc::clone(object), Arc::clone(&origin.file), field.clone(), *reason, message.clone())
    };
    let those: HashSet<_> = those.iter().map(what).collect();
    these.iter().filter(|finding| !those.contains(&what(finding))).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Mutex;

    use tracing::field::{Field, Visit};

    use super::*;
    use crate::fake::{FakePrepare, file_policy, gateway, service};
    use crate::index::Index;
    use crate::publish::{Core, Input};
    use crate::source::directory::Directory;

    /// Writes `LEVEL message name=value` for every event into a string.
    #[derive(Default)]
    struct Log(Mutex<String>);

    struct Line<'a>(&'a mut String);

    impl Visit for Line<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            let _ = match field.name() {
                "message" => write!(self.0, " {value:?}"),
                name => write!(self.0, " {name}={value:?}"),
            };
        }
    }

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = self.0.lock().unwrap();
            text.push_str(event.metadata().level().as_str());
            event.record(&mut Line(&mut text));
            text.push('\n');
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// What `log` writes.
    fn written(log: impl FnOnce()) -> String {
        let lines = Arc::new(Log::default());
        tracing::subscriber::with_default(Arc::clone(&lines), log);
        lines.0.lock().unwrap().clone()
    }

    fn finding(severity: Severity, reason: &'static str, message: &str) -> Finding {
        Finding {
            severity,
            object: "InferenceGateway default/gw".into(),
            origin: domain::finding::Origin { file: "m.yaml".into(), line: 3, column: 0 },
            field: "spec.routes".to_owned(),
            reason,
            message: message.to_owned(),
            remedy: "mend it".to_owned(),
        }
    }

    /// N10: no "error:" inside a warning, no alarm for a policy that compiles, and a finding that is gone is said to be.
    #[test]
    fn a_finding_is_logged_when_it_comes_and_when_it_goes() {
        let wrong = finding(Severity::Error, "NotFound", "there is nothing");
        let compiling = finding(Severity::Info, PREPARING, "policy `p` is being prepared");
        let text =
            "m.yaml:3: InferenceGateway default/gw: spec.routes: there is nothing [NotFound] -> mend it";
        let come = written(|| log_findings(&[], &[wrong.clone(), compiling.clone()]));
        let (first, second) = come.split_once('\n').unwrap();
        assert!(first.starts_with("WARN ") && first.contains(text) && !first.contains("error:"), "{first}");
        assert!(second.starts_with("DEBUG ") && second.contains("being prepared"), "{second}");
        let moved =
            Finding { origin: domain::finding::Origin { line: 9, ..wrong.origin.clone() }, ..wrong.clone() };
        assert_eq!(written(|| log_findings(&[wrong.clone(), compiling], &[moved])), "");
        assert_eq!(written(|| log_findings(&[wrong], &[])), format!("INFO resolved: {text}\n"));
    }

    /// N10: the log says which version of which policy decides, when that changes and not otherwise.
    #[test]
    fn a_change_of_the_policies_in_force_is_logged_once_with_their_digests() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(folder.path());
        let (mut core, prepare, mut in_force) =
            (Core::new(Index::default()), FakePrepare::default(), InForce::default());
        let mut log = |text: String| {
            std::fs::write(folder.path().join("all.yaml"), text).unwrap();
            let assembled = core.apply(directory.look().map(Input::Burst), &prepare).expect("a change");
            written(|| in_force.log(&assembled.snapshot))
        };
        let plain = service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &[]);
        assert_eq!(
            log(plain.clone()),
            "INFO policies in force gateway=default/g policies=\"round-robin round-robin (000000000000)\"\n"
        );
        let other = service("t", &["http://127.0.0.1:8"]);
        assert_eq!(log(plain + &other), "", "the chain is the same");
        let component = folder.path().join("p.wasm");
        std::fs::write(&component, "good").unwrap();
        let policy = file_policy("p", &component);
        let chained = service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &["p"]) + &policy;
        let expected = "INFO policies in force gateway=default/g policies=\"p good (000000000000)\"\n";
        assert_eq!(log(chained), expected);
    }
}

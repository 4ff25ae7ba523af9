//! One look at a directory, without serving it: what `wicketgate check` prints.

use std::fmt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use domain::finding::{Finding, Severity};
use domain::policy::Prepare;

use crate::index::Index;
use crate::publish::{Core, Input};
use crate::source::directory::{Manifests, read_once};

/// What a directory of manifests amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Everything that is wrong, worst first, then by place.
    pub findings: Vec<Finding>,
    /// Gateways that would serve.
    pub gateways: usize,
    /// Models that they would route.
    pub routes: usize,
    /// Endpoints behind them.
    pub endpoints: usize,
}

impl Checked {
    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether something is not in force: exit code 1.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }
}

impl fmt::Display for Checked {
    /// One line a finding, then one line of totals; ends with a line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let [errors, warnings] = [Severity::Error, Severity::Warning].map(|severity| self.count(severity));
        let Self { gateways, routes, endpoints, .. } = self;
        let [gateways, routes, endpoints] =
            [(*gateways, "gateway"), (*routes, "route"), (*endpoints, "endpoint")].map(counted);
        let [errors, warnings] = [(errors, "error"), (warnings, "warning")].map(counted);
        writeln!(f, "{gateways}, {routes}, {endpoints}: {errors}, {warnings}")
    }
}

/// A number and its noun, which takes an s for every number but one.
fn counted((number, noun): (usize, &str)) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Loads `manifests` once, prepares their policies and says what would be in force. Blocks, at most about `wait_max` for
/// policies; one that is not ready by then is an error.
///
/// Takes over the one [`Prepare::on_change`] of `prepare`.
pub fn check(manifests: &[Manifests], index: Index, prepare: &dyn Prepare, wait_max: Duration) -> Checked {
    let deadline = Instant::now() + wait_max;
    let (wake, woken) = mpsc::sync_channel(1);
    prepare.on_change(Box::new(move || {
        // One that waits already says enough.
        let _ = wake.try_send(());
    }));
    let mut core = Core::new(index);
    let mut assembled = core.apply([Input::Burst(read_once(manifests))], prepare);
    while core.is_unsettled()
        && woken.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    {
        assembled = core.apply([Input::Policies], prepare);
    }
    let mut findings = core.findings();
    for finding in findings.iter_mut().filter(|finding| finding.reason == crate::publish::PREPARING) {
        finding.severity = Severity::Error;
        finding.message.push_str(" (not ready within the time for this check)");
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let snapshot = assembled.map(|assembled| assembled.snapshot).unwrap_or_default();
    Checked {
        findings,
        gateways: snapshot.gateways.len(),
        routes: snapshot.gateways.iter().map(|gateway| gateway.routes.len()).sum(),
        endpoints: snapshot.endpoints.len(),
    }
}

#[cfg(test)]
mod tests;

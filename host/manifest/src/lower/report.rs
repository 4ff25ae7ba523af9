//! Collects findings, and finds the line that each one is about.

use std::collections::{BTreeSet, HashSet};

use domain::finding::{Finding, Severity};
use domain::name::ObjectName;

use super::FINDINGS_MAX;
use crate::bundle::Bundle;
use crate::object::{Kind, ObjectKey};

/// The object that a finding is about.
#[derive(Clone, Debug)]
pub(super) struct About {
    key: ObjectKey,
}

impl About {
    pub(super) fn new(kind: Kind, name: &ObjectName) -> Self {
        Self { key: ObjectKey { kind, name: name.clone() } }
    }

    /// Namespace and name.
    pub(super) fn name(&self) -> &ObjectName {
        &self.key.name
    }
}

/// Findings so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    /// What was said already: one thing is often met on several ways.
    said: HashSet<(ObjectKey, String, String)>,
    /// Objects that contradict themselves.
    rejected: BTreeSet<ObjectKey>,
}

impl Report {
    pub(super) fn error(
        &mut self,
        bundle: &Bundle,
        about: &About,
        field: &str,
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(bundle, about, (Severity::Error, reason), field, message.into(), remedy.into());
    }

    /// An error for which the whole object is not acceptable: an earlier version of it should serve.
    pub(super) fn reject(
        &mut self,
        bundle: &Bundle,
        about: &About,
        field: &str,
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.rejected.insert(about.key.clone());
        self.error(bundle, about, field, reason, message, remedy);
    }

    /// Objects that are not acceptable, sorted.
    pub(super) fn take_rejected(&mut self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.rejected).into_iter().collect()
    }

    pub(super) fn warning(
        &mut self,
        bundle: &Bundle,
        about: &About,
        field: &str,
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(bundle, about, (Severity::Warning, reason), field, message.into(), remedy.into());
    }

    pub(super) fn info(
        &mut self,
        bundle: &Bundle,
        about: &About,
        field: &str,
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(bundle, about, (Severity::Info, reason), field, message.into(), remedy.into());
    }

    fn add(
        &mut self,
        bundle: &Bundle,
        about: &About,
        (severity, reason): (Severity, &'static str),
        field: &str,
        message: String,
        remedy: String,
    ) {
        if self.findings.len() >= FINDINGS_MAX
            || !self.said.insert((about.key.clone(), field.to_owned(), message.clone()))
        {
            return;
        }
        let origin = bundle.source(&about.key).map(|source| source.locate(field)).unwrap_or_default();
        let object = about.key.to_string().into();
        self.findings.push(Finding {
            severity,
            object,
            origin,
            field: field.to_owned(),
            reason,
            message,
            remedy,
        });
    }

    /// All findings: of each object together, errors first.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.findings.sort_by(|a, b| {
            let severity = b.severity.cmp(&a.severity);
            let place = || a.origin.line.cmp(&b.origin.line).then_with(|| a.field.cmp(&b.field));
            a.object.cmp(&b.object).then(severity).then_with(place)
        });
        self.findings
    }
}

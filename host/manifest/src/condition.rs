//! What findings mean for an object's conditions. Whether things are in force right now is for others to add: here is only
//! what the objects themselves say.

use domain::finding::{Finding, Severity};

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object makes sense by itself.
    Accepted,
    /// Everything that it refers to is there.
    ResolvedRefs,
    /// What was asked for is served.
    Ready,
}

impl ConditionType {
    /// The type as status spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Ready => "Ready",
        }
    }
}

/// A condition without its times: those depend on what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionDraft {
    /// Its type.
    pub kind: ConditionType,
    /// `True` or `False`.
    pub status: bool,
    /// CamelCase reason: the type's own name when true.
    pub reason: &'static str,
    /// What is wrong and what to do about it; empty when true.
    pub message: String,
}

/// Reasons that speak of what an object refers to.
const REFERENCES: [&str; 6] = [
    "ReferenceNotFound",
    "BackendNotFound",
    "KeyNotFound",
    "InvalidReference",
    "RefNotPermitted",
    "PolicyNotFound",
];
/// Reasons that leave an object acceptable, but not served as asked.
const NOT_SERVED: [&str; 4] = ["NotImplemented", "NoEndpoints", "ModelNotServed", "NoTrust"];

/// Reasons among them that the object itself is to blame for: what is written there can never be right.
const WRITTEN_WRONG: [&str; 2] = ["InvalidReference", "PolicyNotFound"];

/// Conditions of one object from its findings. A `PolicyNotFound` counts against `Accepted` too, as clients of the
/// resources expect.
pub fn conditions<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> [ConditionDraft; 3] {
    let findings: Vec<&Finding> = findings.into_iter().collect();
    let is_contradiction = |f: &Finding| {
        f.severity == Severity::Error
            && (WRITTEN_WRONG.contains(&f.reason) || !REFERENCES.contains(&f.reason))
            && !NOT_SERVED.contains(&f.reason)
    };
    let is_dangling = |f: &Finding| f.severity == Severity::Error && REFERENCES.contains(&f.reason);
    let is_missing = |f: &Finding| {
        f.severity == Severity::Error || (f.severity == Severity::Warning && NOT_SERVED.contains(&f.reason))
    };
    let first = |wrong: &dyn Fn(&Finding) -> bool| findings.iter().copied().find(|finding| wrong(finding));
    [
        draft(ConditionType::Accepted, first(&is_contradiction)),
        draft(ConditionType::ResolvedRefs, first(&is_dangling)),
        draft(ConditionType::Ready, first(&is_missing)),
    ]
}

/// A finding as a condition's message: the field, what is wrong, and what to do about it.
pub fn message(finding: &Finding) -> String {
    let Finding { field, message, remedy, .. } = finding;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
    format!("{field}{message}{remedy}")
}

fn draft(kind: ConditionType, wrong: Option<&Finding>) -> ConditionDraft {
    let Some(finding) = wrong else {
        return ConditionDraft { kind, status: true, reason: kind.as_str(), message: String::new() };
    };
    ConditionDraft { kind, status: false, reason: finding.reason, message: message(finding) }
}

#[cfg(test)]
mod tests {
    use domain::finding::Origin;

    use super::*;

    fn finding(severity: Severity, reason: &'static str) -> Finding {
        Finding {
            severity,
            object: "InferenceGateway a/b".into(),
            origin: Origin::default(),
            field: "spec.x".into(),
            reason,
            message: "no".into(),
            remedy: "do".into(),
        }
    }

    #[test]
    fn reasons_decide_which_conditions_are_false() {
        for (severity, reason, expected) in [
            (Severity::Error, "ConflictingRoutes", [false, true, false]),
            (Severity::Error, "PolicyNotFound", [false, false, false]),
            (Severity::Error, "ReferenceNotFound", [true, false, false]),
            (Severity::Error, "InvalidReference", [false, false, false]),
            (Severity::Error, "NotImplemented", [true, true, false]),
            (Severity::Warning, "NotImplemented", [true, true, false]),
            (Severity::Warning, "ModelConflict", [true, true, true]),
            (Severity::Info, "NotActedUpon", [true, true, true]),
        ] {
            let conditions = conditions(&[finding(Severity::Info, "Other"), finding(severity, reason)]);
            assert_eq!(conditions.each_ref().map(|c| c.status), expected, "{reason}");
            for condition in conditions {
                let (reason, message) =
                    if condition.status { (condition.kind.as_str(), "") } else { (reason, "spec.x: no; do") };
                assert_eq!((condition.reason, &*condition.message), (reason, message));
            }
        }
        assert!(conditions(&[]).iter().all(|condition| condition.status));
    }
}

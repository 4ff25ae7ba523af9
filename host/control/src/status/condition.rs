//! Conditions while they are being decided, and how they follow those that were told before.

use domain::finding::{Finding, Severity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use manifest::condition::{self, ConditionDraft};

use super::Transition;

/// A condition's message is cut at so many bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 4_096;
/// Findings that the message of a condition which is true may name.
const REMARKS_MAX: usize = 5;

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It is not known yet.
    Unknown,
}

impl Truth {
    /// As status spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition without its type and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether it is so.
    pub truth: Truth,
    /// CamelCase reason.
    pub reason: String,
    /// For people; may be empty.
    pub message: String,
}

impl Said {
    /// It is so.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self { truth: Truth::True, reason: reason.into(), message: message.into() }
    }

    /// It is not so.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { truth: Truth::False, reason: reason.into(), message: message.into() }
    }

    /// It is not known yet.
    pub fn pending(message: impl Into<String>) -> Self {
        Self { truth: Truth::Unknown, reason: "Pending".into(), message: message.into() }
    }

    /// What a condition said before, if there was one: somebody else may have found it out, who led before us.
    pub(super) fn before(conditions: &[Condition], kind: &str) -> Option<Self> {
        let known = conditions.iter().find(|known| known.type_ == kind)?;
        let truth = [Truth::True, Truth::False].into_iter().find(|truth| known.status == truth.as_str());
        let truth = truth.unwrap_or(Truth::Unknown);
        Some(Self { truth, reason: known.reason.clone(), message: known.message.clone() })
    }

    fn is(&self, truth: Truth) -> bool {
        self.truth == truth
    }
}

/// Conditions of one object, by type, in the order in which they are told.
#[derive(Clone, Debug)]
pub(super) struct Conditions(Vec<(&'static str, Said)>);

impl Conditions {
    /// `Accepted`, `ResolvedRefs` and `Ready`, as far as the object's findings decide them.
    pub(super) fn of(findings: &[&Finding]) -> Self {
        let drafts = condition::conditions(findings.iter().copied());
        let mut conditions =
            Self(drafts.into_iter().map(|draft| (draft.kind.as_str(), said(draft))).collect());
        let accepted = conditions.get_mut("Accepted");
        if accepted.is(Truth::True) {
            accepted.message = remarks(findings);
        }
        conditions
    }

    /// What a condition says. One that was not decided is pending.
    pub(super) fn get(&self, kind: &str) -> Option<&Said> {
        self.0.iter().find(|(known, _)| *known == kind).map(|(_, said)| said)
    }

    fn get_mut(&mut self, kind: &'static str) -> &mut Said {
        let at = self.0.iter().position(|(known, _)| *known == kind);
        let at = at.unwrap_or_else(|| {
            self.0.push((kind, Said::pending("")));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Decides a condition.
    pub(super) fn set(&mut self, kind: &'static str, said: Said) {
        *self.get_mut(kind) = said;
    }

    /// Whether a condition is true.
    pub(super) fn is_true(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|said| said.is(Truth::True))
    }

    /// `kind` is no better than `said`: what is false stays false, and for its own reason.
    pub(super) fn limit(&mut self, kind: &'static str, said: Said) {
        let now = self.get_mut(kind);
        let worse = match (now.truth, said.truth) {
            (Truth::False, _) | (_, Truth::True) => false,
            (Truth::Unknown, truth) => truth == Truth::False,
            (Truth::True, _) => true,
        };
        if worse {
            *now = said;
        }
    }

    /// Adds `Reconciling` while something is pending, and `Stalled` where waiting will not help: both only while true.
    pub(super) fn with_progress(mut self) -> Self {
        let pending = self.0.iter().find(|(_, said)| said.is(Truth::Unknown)).map(|(_, said)| said.clone());
        let stalled = self.0.iter().find(|(kind, said)| is_stalled(kind, said)).map(|(_, said)| said.clone());
        if let Some(said) = stalled {
            self.0.push(("Stalled", Said { truth: Truth::True, ..said }));
        } else if let Some(said) = pending {
            self.0.push(("Reconciling", Said { truth: Truth::True, ..said }));
        }
        self
    }

    /// Type and status of each.
    pub(super) fn summary(&self) -> Vec<(&'static str, &'static str)> {
        self.0.iter().map(|(kind, said)| (*kind, said.truth.as_str())).collect()
    }

    /// Conditions whose status is another than before.
    pub(super) fn transitions(&self, before: &[Condition]) -> Vec<Transition> {
        let changes = self.0.iter().filter_map(|(kind, said)| {
            let known = before.iter().find(|condition| condition.type_ == *kind);
            let is_same = known.is_some_and(|condition| condition.status == said.truth.as_str());
            (!is_same).then(|| Transition { kind, said: said.clone(), is_first: known.is_none() })
        });
        changes.collect()
    }

    /// The conditions with their times: the time of the last change of status, which nothing else moves.
    pub(super) fn finish(
        self,
        before: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Vec<Condition> {
        let finish = |(kind, said): (&'static str, Said)| {
            let known = before.iter().find(|known| known.type_ == kind);
            let same = known.filter(|known| known.status == said.truth.as_str());
            Condition {
                type_: kind.to_owned(),
                status: said.truth.as_str().to_owned(),
                reason: said.reason,
                message: cut(said.message),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
            }
        };
        self.0.into_iter().map(finish).collect()
    }
}

/// Whether only its owner can make a condition true: the object contradicts itself, asks for what is not there yet, or
/// names a policy that does not load.
fn is_stalled(kind: &str, said: &Said) -> bool {
    let is_final = kind == "Accepted" || kind == "PolicyProgrammed" || said.reason == "NotImplemented";
    // Whoever is missing may still come.
    said.is(Truth::False) && is_final && said.reason != "PolicyNotFound"
}

fn said(draft: ConditionDraft) -> Said {
    let truth = if draft.status { Truth::True } else { Truth::False };
    Said { truth, reason: draft.reason.to_owned(), message: draft.message }
}

/// What is worth knowing although it makes no condition false.
fn remarks(findings: &[&Finding]) -> String {
    let remarks: Vec<String> = findings
        .iter()
        .filter(|finding| finding.severity < Severity::Error)
        .map(|finding| condition::message(finding))
        .collect();
    let mut text = remarks.iter().take(REMARKS_MAX).cloned().collect::<Vec<_>>().join(". ");
    if remarks.len() > REMARKS_MAX {
        text.push_str(&format!(". And {} more", remarks.len() - REMARKS_MAX));
    }
    text
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX - '…'.len_utf8();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

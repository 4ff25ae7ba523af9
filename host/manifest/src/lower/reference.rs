//! Follows references: same namespace only, and only to the kind that the field means.

use domain::finding::Origin;
use domain::name::ObjectName;

use super::Lowering;
use super::report::About;
use crate::bundle::{Held, Table};
use crate::kind::{GROUP, NameOrRef};
use crate::object::Kind;
use crate::spelling;

/// Why an object is not there.
pub(super) struct Missing {
    pub(super) message: String,
    /// What to do about it; `None`: create it, or refer to another.
    pub(super) remedy: Option<String>,
}

/// A place in brackets, such as ` (a.yaml:3)`; empty where it is not known.
fn place(origin: &Origin) -> String {
    match (origin.file.is_empty(), origin.line) {
        (true, _) => String::new(),
        (false, 0) => format!(" ({})", origin.file),
        (false, line) => format!(" ({}:{line})", origin.file),
    }
}

impl<'a> Lowering<'a> {
    /// The name that a reference means. `None`: it is not allowed, which is found.
    pub(super) fn referent(
        &mut self,
        about: &About,
        field: &str,
        kind: Kind,
        to: &NameOrRef,
    ) -> Option<ObjectName> {
        let bundle = self.bundle;
        // The Go dialect's schema allows no other kind than InferenceService, wherever the reference points.
        let natural = kind.as_str();
        if let Some(written) =
            to.kind().filter(|written| *written != natural && *written != "InferenceService")
        {
            let message = format!("kind {written} stands where {natural} is meant");
            let remedy = format!("write kind: {natural}, or leave it out");
            self.report.error(bundle, about, field, "InvalidReference", message, remedy);
            return None;
        }
        if let Some(group) = to.group().filter(|group| !group.is_empty() && *group != GROUP) {
            let message = format!("group {group} has no {natural} that is known here");
            let remedy = format!("write {GROUP}, or leave it out");
            self.report.error(bundle, about, field, "InvalidReference", message, remedy);
            return None;
        }
        self.same_namespace(about, field, to.namespace())?;
        Some(ObjectName::new(about.name().namespace.clone(), to.bare_name()))
    }

    /// Refuses to leave the object's namespace.
    pub(super) fn same_namespace(&mut self, about: &About, field: &str, written: Option<&str>) -> Option<()> {
        match written {
            Some(other) if *other != *about.name().namespace => {
                let message = format!("the reference leaves the namespace, to {other}");
                let remedy = "refer to an object of the same namespace: nothing grants more yet";
                self.report.error(self.bundle, about, field, "RefNotPermitted", message, remedy);
                None
            }
            _ => Some(()),
        }
    }

    /// Why an object that is referred to is not there, the cause first: it is refused, it is in another namespace, its name is
    /// spelt otherwise. `known`: all objects of its kind.
    pub(super) fn missing<'k>(
        &self,
        kind: Kind,
        name: &ObjectName,
        known: impl Iterator<Item = (&'k ObjectName, Origin)> + Clone,
    ) -> Missing {
        let kind = kind.as_str();
        if let Some(why) = self.bundle.refused.get(format!("{kind} {name}").as_str()) {
            let place = place(&why.origin);
            let field = if why.field.is_empty() { String::new() } else { format!("{}: ", why.field) };
            let message = format!("{kind} {name} is refused{place}: {field}{}", why.message);
            return Missing { message, remedy: Some(format!("mend it there: {}", why.remedy)) };
        }
        // Only of files: in a cluster it is not the owner's of one namespace to know what is in another.
        let is_namesake = |(other, origin): &(&ObjectName, Origin)| {
            other.name == name.name && other.namespace != name.namespace && !origin.file.is_empty()
        };
        if let Some((other, origin)) = known.clone().find(is_namesake) {
            let message = format!(
                "{kind} {} is in namespace {}{}, not in {}",
                name.name,
                other.namespace,
                place(&origin),
                name.namespace
            );
            let remedy = "move one of the two: a reference stays within its namespace".to_owned();
            return Missing { message, remedy: Some(remedy) };
        }
        let own = known.filter(|(other, _)| other.namespace == name.namespace).map(|(other, _)| &*other.name);
        let remedy =
            spelling::nearest(&name.name, own).map(|near| format!("did you mean {near}? else create it"));
        Missing { message: format!("there is no {kind} {name}"), remedy }
    }

    /// The object that a reference means. `None`: not allowed, or missing, which is found.
    pub(super) fn follow<T>(
        &mut self,
        about: &About,
        field: &str,
        (kind, table): (Kind, &'a Table<T>),
        to: &NameOrRef,
    ) -> Option<(ObjectName, &'a Held<T>)> {
        let name = self.referent(about, field, kind, to)?;
        let Some(held) = table.get(&name) else {
            let known = table.iter().map(|(name, held)| (name, held.source.origin.clone()));
            let Missing { message, remedy } = self.missing(kind, &name, known);
            let remedy = remedy.unwrap_or_else(|| format!("create it, or correct {field}"));
            self.report.error(self.bundle, about, field, "ReferenceNotFound", message, remedy);
            return None;
        };
        Some((name, held))
    }
}

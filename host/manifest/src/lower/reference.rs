//! Follows references: same namespace only, and only to the kind that the field means.

use domain::name::ObjectName;

use super::Lowering;
use super::report::About;
use crate::bundle::{Held, Table};
use crate::kind::{GROUP, NameOrRef};
use crate::object::Kind;

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
            let message = format!("there is no {} {name}", kind.as_str());
            let remedy = format!("create it, or correct {field}");
            self.report.error(self.bundle, about, field, "ReferenceNotFound", message, remedy);
            return None;
        };
        Some((name, held))
    }
}

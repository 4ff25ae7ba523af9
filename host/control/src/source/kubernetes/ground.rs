//! What all watches have seen, and what of it is still to be told. A value: no IO, no time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::finding::{Finding, Severity};
use domain::name::ObjectName;
use manifest::{Change, Kind, Object, ObjectKey};

use super::follow::{Heard, News, Scope, Trouble, WatchId};
use super::named::named;
use super::reduce::Sight;
use super::watches::NAMED_MAX;
use super::{SOURCE, trouble};
use crate::source::Burst;

/// A watch that has told everything once is not complained about before it fails this often in a row.
const FAILURES_QUIET: u32 = 2;

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Ground {
    stores: BTreeMap<WatchId, Store>,
    /// What is still to be told; of each object the last word only.
    changes: BTreeMap<ObjectKey, Change>,
    /// Every list was in once, and what they held was told.
    has_begun: bool,
    /// Findings as they were told last; `None`: nothing was told yet.
    told: Option<Vec<Finding>>,
    /// What each object names.
    names: HashMap<ObjectKey, Vec<ObjectKey>>,
    have_names_changed: bool,
    surplus: Vec<ObjectKey>,
    /// Findings may be different.
    is_unsure: bool,
}

/// What one watch has seen.
#[derive(Debug, Default)]
struct Store {
    /// Print of each object.
    known: HashMap<ObjectName, u64>,
    findings: BTreeMap<ObjectName, Vec<Finding>>,
    /// What a list that is not complete holds so far.
    listing: Option<Vec<Sight>>,
    /// It has had a complete list at least once.
    is_synced: bool,
    /// Why it does not work, and for how many times in a row.
    trouble: Option<(Trouble, u32)>,
}

impl Ground {
    /// Nothing seen yet by these watches.
    pub(super) fn new(watches: impl Iterator<Item = WatchId>) -> Self {
        let stores = watches.map(|id| (id, Store::default())).collect();
        Self { stores, is_unsure: true, ..Self::default() }
    }

    /// Takes over what a watch heard. A watch that has ended is not listened to.
    pub(super) fn hear(&mut self, news: News) {
        let News { watch, heard } = news;
        let Some(store) = self.stores.get_mut(&watch) else { return };
        match heard {
            Heard::Listing => store.listing = Some(Vec::new()),
            Heard::Listed(sight) => store.listing.get_or_insert_default().push(sight),
            Heard::Complete => self.complete(&watch),
            Heard::Applied(sight) => self.see(&watch, sight),
            Heard::Gone(name) => self.lose(&watch, &name),
            Heard::Trouble(trouble, failures) => {
                store.listing = None;
                store.trouble = Some((trouble, failures));
                self.is_unsure = true;
            }
        }
    }

    fn complete(&mut self, watch: &WatchId) {
        let Some(store) = self.stores.get_mut(watch) else { return };
        let listed = store.listing.take().unwrap_or_default();
        self.is_unsure |= !store.is_synced || store.trouble.is_some();
        (store.is_synced, store.trouble) = (true, None);
        let here: HashSet<&ObjectName> = listed.iter().map(|sight| &sight.name).collect();
        let gone: Vec<ObjectName> = store.known.keys().filter(|name| !here.contains(name)).cloned().collect();
        for name in gone {
            self.lose(watch, &name);
        }
        for sight in listed {
            self.see(watch, sight);
        }
    }

    fn see(&mut self, watch: &WatchId, sight: Sight) {
        let Some(store) = self.stores.get_mut(watch) else { return };
        let Sight { name, print, object, findings } = sight;
        if store.known.insert(name.clone(), print) == Some(print) {
            return;
        }
        let has_findings = !findings.is_empty();
        let before =
            if has_findings { store.findings.insert(name, findings) } else { store.findings.remove(&name) };
        self.is_unsure |= has_findings || before.is_some();
        if let Some(object) = object {
            let key = object.key();
            self.learn_names(&key, &object);
            self.changes.insert(key, Change::Applied(object));
        }
    }

    fn lose(&mut self, watch: &WatchId, name: &ObjectName) {
        let Some(store) = self.stores.get_mut(watch) else { return };
        if store.known.remove(name).is_none() {
            return;
        }
        self.is_unsure |= store.findings.remove(name).is_some();
        self.forget(ObjectKey { kind: watch.kind, name: name.clone() });
    }

    fn forget(&mut self, key: ObjectKey) {
        self.have_names_changed |= self.names.remove(&key).is_some();
        self.changes.insert(key.clone(), Change::Removed(key));
    }

    fn learn_names(&mut self, key: &ObjectKey, object: &Object) {
        let names = named(object);
        if names.is_empty() {
            self.have_names_changed |= self.names.remove(key).is_some();
        } else if self.names.get(key) != Some(&names) {
            self.names.insert(key.clone(), names);
            self.have_names_changed = true;
        }
    }

    /// Which config maps, secrets and pools are named now, if that has changed since the last call.
    pub(super) fn take_wanted(&mut self) -> Option<BTreeSet<ObjectKey>> {
        std::mem::take(&mut self.have_names_changed).then(|| self.names.values().flatten().cloned().collect())
    }

    /// Watches of single objects have begun and ended; what an ended one has seen is gone. `surplus`: named, not watched.
    pub(super) fn follow(&mut self, added: Vec<WatchId>, ended: Vec<WatchId>, surplus: &[ObjectKey]) {
        for id in ended {
            for name in self.stores.remove(&id).into_iter().flat_map(|store| store.known.into_keys()) {
                self.forget(ObjectKey { kind: id.kind, name });
            }
        }
        for id in added {
            self.stores.insert(id, Store::default());
        }
        self.surplus = surplus.to_vec();
        self.is_unsure = true;
    }

    /// Whether nobody has to be waited for. At first that is until every watch has had a list, or is refused one; later on
    /// nobody waits for a watch that does not work.
    pub(super) fn is_settled(&self) -> bool {
        self.stores.values().all(|store| match &store.trouble {
            _ if store.is_synced => true,
            Some((trouble, _)) => self.has_begun || trouble.is_refusal(),
            None => false,
        })
    }

    /// Whether there may be something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.is_unsure || (!self.changes.is_empty() && self.may_tell())
    }

    fn may_tell(&self) -> bool {
        self.has_begun || self.is_settled()
    }

    /// What is to be told. `None`: nothing after all.
    ///
    /// Before every list is in that is at most why it is not: whoever hears of no error takes what he has for everything.
    pub(super) fn take(&mut self) -> Option<Burst> {
        self.is_unsure = false;
        let begins = !self.has_begun && self.is_settled();
        self.has_begun |= begins;
        let findings = self.findings();
        let is_known = self.told.as_ref() == Some(&findings);
        if !self.has_begun && (is_known || findings.iter().all(|finding| finding.severity < Severity::Error))
        {
            return None;
        }
        let changes = if self.has_begun { std::mem::take(&mut self.changes) } else { BTreeMap::new() };
        if changes.is_empty() && is_known && !begins {
            return None;
        }
        self.told = Some(findings.clone());
        Some(Burst { source: SOURCE, changes: changes.into_values().collect(), findings })
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.stores.values().flat_map(|store| store.findings.values().flatten().cloned()).collect();
        let refused = self.stores.iter().filter_map(|(id, store)| {
            let (trouble, _) = store.trouble.as_ref()?;
            refusal(id, trouble)
        });
        findings.extend(refused);
        findings.extend(self.failure());
        findings.extend(self.surplus.iter().map(|key| {
            let message = format!(
                "more than {NAMED_MAX} config maps, secrets and pools are named; this one is not read"
            );
            let remedy = "let several objects name the same one";
            trouble(Severity::Error, &key.to_string(), "TooManyReferences", message, remedy)
        }));
        findings
    }

    /// One finding for all watches that fail: usually the API server is away, for all of them.
    fn failure(&self) -> Option<Finding> {
        let failing = self.stores.iter().filter_map(|(id, store)| match &store.trouble {
            Some((Trouble::Failed(why), failures)) if !store.is_synced || *failures >= FAILURES_QUIET => {
                Some((id, why))
            }
            _ => None,
        });
        let failing: Vec<(&WatchId, &String)> = failing.collect();
        let (first, why) = failing.first()?;
        // How many fail changes all the time while the API server goes and comes; that is not worth telling each time.
        let what = if failing.len() > 1 {
            "the API server cannot be watched"
        } else {
            &format!("{first} cannot be watched")
        };
        let (severity, then) = if self.has_begun {
            (Severity::Warning, "what is known stays in force")
        } else {
            (Severity::Error, "until everything was listed once, nothing is in force")
        };
        let message = format!("{what}: {why}; {then}");
        let remedy = "check the API server and the way to it";
        Some(trouble(severity, "", "WatchFailed", message, remedy))
    }
}

fn refusal(id: &WatchId, why: &Trouble) -> Option<Finding> {
    let kind = id.kind.as_str();
    let is_named = matches!(id.scope, Scope::Object(_));
    let object = if is_named { id.to_string() } else { String::new() };
    // Without gateways there is nothing to serve, and nothing to call ready.
    let is_vital = is_named || id.kind == Kind::InferenceGateway;
    let severity = if is_vital { Severity::Error } else { Severity::Warning };
    let finding = match why {
        Trouble::Failed(_) => return None,
        Trouble::NotInstalled => {
            let message = format!("the API server does not know kind {kind} ({})", id.kind.api_version());
            let remedy = if id.kind.is_ours() {
                "install the definitions: kubectl apply --server-side --force-conflicts -f crds/"
            } else {
                "install its definition"
            };
            trouble(severity, &object, "KindNotInstalled", message, remedy)
        }
        Trouble::Forbidden(why) => {
            let message = format!("{id} may not be watched: {why}");
            let remedy = "allow list and watch, or name the namespaces with --watch-namespaces";
            trouble(severity, &object, "Forbidden", message, remedy)
        }
    };
    Some(finding)
}

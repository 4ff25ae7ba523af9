//! What a library knows: sources, components and policies, and what waits for them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use domain::name::PolicyName;
use domain::policy::{Digest, EntrySpec, PolicyLimits, PrepareFailure};

use super::queue::Tenant;
use super::setback::Setbacks;
use super::source::{self, Whereabouts};
use crate::inspect::refuse;
use crate::ready::{Compiled, Ready};

/// Compiled components that are kept although nothing needs them now, so that going back to one costs no compilation.
pub(super) const SPARE_COMPONENTS_MAX: usize = 4;

/// All of it, behind one lock.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) sources: source::Sources,
    pub(super) components: HashMap<Digest, State<Compiled>>,
    pub(super) setbacks: Setbacks,
    /// What waits for components that stand in line or are being compiled, and in whose lines they stand.
    pub(super) waiting: HashMap<Digest, Vec<(Tenant, Key)>>,
    pub(super) policies: HashMap<Key, State<Ready>>,
    /// Components that nothing needs now, the one given up last at the end.
    pub(super) spare: VecDeque<Digest>,
}

/// What makes two specs share one policy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) digest: Digest,
    pub(super) name: PolicyName,
    pub(super) config: Arc<str>,
    pub(super) limits: PolicyLimits,
}

pub(super) enum State<T> {
    Pending,
    Ready(Arc<T>),
    Failed(PrepareFailure),
}

impl Tables {
    /// Where a spec's component is, its digest checked against the one expected.
    pub(super) fn look(&mut self, spec: &EntrySpec) -> Result<Whereabouts, PrepareFailure> {
        let found = self.sources.look(spec)?;
        if let (Whereabouts::Here(digest, _), Some(expected)) = (&found, &spec.sha256)
            && !expected.eq_ignore_ascii_case(&digest.to_string())
        {
            return Err(refuse(
                "DigestMismatch",
                format!("its SHA-256 is {digest}, expected was {expected}"),
                "put the right component in its place, or correct `sha256`",
            ));
        }
        Ok(found)
    }

    pub(super) fn retain(&mut self, live: &[Arc<EntrySpec>]) {
        let keys: HashSet<Key> =
            live.iter().filter_map(|spec| Some(Key::of(spec, self.sources.last_digest(spec)?))).collect();
        let digests: HashSet<Digest> = keys.iter().map(|key| key.digest).collect();
        self.policies.retain(|key, _| keys.contains(key));
        self.retain_components(&digests);
        self.waiting.retain(|_, waiting| {
            waiting.retain(|(_, key)| keys.contains(key));
            !waiting.is_empty()
        });
        self.sources.retain(live);
    }

    fn retain_components(&mut self, live: &HashSet<Digest>) {
        self.spare.retain(|digest| !live.contains(digest));
        for (digest, state) in &self.components {
            if matches!(state, State::Ready(_)) && !live.contains(digest) && !self.spare.contains(digest) {
                self.spare.push_back(*digest);
            }
        }
        while self.spare.len() > SPARE_COMPONENTS_MAX {
            self.spare.pop_front();
        }
        let spare = &self.spare;
        self.components.retain(|digest, _| live.contains(digest) || spare.contains(digest));
    }
}

impl Key {
    pub(super) fn of(spec: &EntrySpec, digest: Digest) -> Self {
        Self { digest, name: spec.name.clone(), config: Arc::clone(&spec.config), limits: spec.limits }
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Ready(value) => Self::Ready(Arc::clone(value)),
            Self::Failed(failure) => Self::Failed(failure.clone()),
        }
    }
}

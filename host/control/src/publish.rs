//! From changes to the published snapshot.
//!
//! [`Core`] is the deterministic part: changes in, an assembled snapshot and findings out, without IO or time. [`run`] is
//! the shell around it, one task on the control thread that hears sources, policies and model lists, and owns the write
//! end of the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::assemble::{Assembled, Assembler, PolicyTrouble};
use domain::endpoint::EndpointSpec;
use domain::finding::{Finding, Severity};
use domain::name::Generation;
use domain::policy::{EntrySpec, Prepare};
use manifest::Kind;

use crate::index::Index;
use crate::observe::ObservedModels;
use crate::source::Burst;

mod policy_files;
pub(crate) mod run;

pub use run::ForgetSlots;

/// Reason of the finding for a policy whose preparation is still under way.
pub const PREPARING: &str = "PolicyPreparing";

/// What is in force, and what is wrong with what is not. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The snapshot published last; 0 before the first.
    pub generation: Generation,
    /// Everything that is wrong now, worst first, then by place.
    pub findings: Arc<[Finding]>,
    /// Endpoints that are left out because their model lists lack the model; they are looked at until they have it.
    pub excluded: Arc<[Arc<EndpointSpec>]>,
    /// Bursts of all sources that have been taken over.
    pub bursts: u64,
}

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// A source has changes.
    Burst(Burst),
    /// An engine's model list has changed.
    Models(ObservedModels),
    /// A policy has finished preparing, or the file of one has changed.
    Policies,
}

/// Turns inputs into snapshots.
#[derive(Debug)]
pub struct Core {
    index: Index,
    assembler: Assembler,
    sources: BTreeMap<&'static str, Vec<Finding>>,
    troubles: Vec<PolicyTrouble>,
    bursts: u64,
}

impl Core {
    /// Nothing known yet.
    pub fn new(index: Index) -> Self {
        Self {
            index,
            assembler: Assembler::default(),
            sources: BTreeMap::new(),
            troubles: Vec::new(),
            bursts: 0,
        }
    }

    /// Takes over what has happened and builds the next snapshot. `None`: nothing of it changes what should be in force
    /// (findings may have changed all the same).
    pub fn apply(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        prepare: &dyn Prepare,
    ) -> Option<Assembled> {
        self.take(inputs).then(|| self.build(prepare))
    }

    /// The first half of [`Self::apply`]: true if a snapshot should be built.
    pub(crate) fn take(&mut self, inputs: impl IntoIterator<Item = Input>) -> bool {
        let (mut relower, mut rebuild) = (false, false);
        for input in inputs {
            match input {
                Input::Burst(Burst { source, changes, findings }) => {
                    self.bursts += 1;
                    rebuild |= self.sources.insert(source, findings).is_none();
                    relower |= self.index.apply(changes);
                }
                Input::Models(list) => relower |= self.index.observe(list),
                Input::Policies => rebuild = true,
            }
        }
        if relower {
            self.index.lower();
        }
        (relower || rebuild) && !self.sources.is_empty()
    }

    /// The second half: a new generation of what is asked for now.
    pub(crate) fn build(&mut self, prepare: &dyn Prepare) -> Assembled {
        let assembled = self.assembler.assemble(self.index.draft(), prepare);
        self.troubles.clone_from(&assembled.troubles);
        assembled
    }

    /// Every chain entry that is asked for.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &Arc<EntrySpec>> {
        self.index
            .draft()
            .gateways
            .iter()
            .flat_map(|gateway| &gateway.routes)
            .flat_map(|route| route.chain.iter())
    }

    /// How many objects of each kind of ours are known.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Kind, usize)> + use<> {
        self.index.counts()
    }

    /// Whether there is nothing to serve and something wrong: not worth being called ready.
    pub fn is_hopeless(&self) -> bool {
        self.index.is_empty() && self.findings().iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Whether a policy is still being prepared.
    pub fn is_preparing(&self) -> bool {
        self.troubles.iter().any(|trouble| trouble.failure.is_none())
    }

    /// Endpoints that their model lists keep out.
    pub fn excluded(&self) -> Arc<[Arc<EndpointSpec>]> {
        self.index.excluded()
    }

    /// Bursts taken over so far.
    pub fn bursts(&self) -> u64 {
        self.bursts
    }

    /// Everything that is wrong now, worst first, then by place.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.sources.values().flatten().cloned().collect();
        findings.extend_from_slice(self.index.findings());
        let troubles_from = findings.len();
        for trouble in &self.troubles {
            let finding = self.describe(trouble);
            // Every pool of a gateway has the same trouble with the same policy.
            if !findings[troubles_from..].contains(&finding) {
                findings.push(finding);
            }
        }
        findings.sort_by(|a, b| {
            let place =
                |finding: &Finding| (finding.origin.file.clone(), finding.origin.line, finding.origin.column);
            b.severity.cmp(&a.severity).then_with(|| place(a).cmp(&place(b)))
        });
        findings
    }

    fn describe(&self, trouble: &PolicyTrouble) -> Finding {
        let instead = if trouble.last_good_serves {
            "the last good one decides in its place"
        } else {
            "its place in the chain is left out"
        };
        let policy = &trouble.spec.name;
        let origin = self.index.gateway_origin(&trouble.gateway);
        let object = format!("InferenceGateway {}", trouble.gateway).into();
        let base = Finding {
            severity: Severity::Info,
            object,
            origin,
            field: String::new(),
            reason: PREPARING,
            message: format!("policy `{policy}` is being prepared; {instead}"),
            remedy: String::new(),
        };
        let Some(failure) = &trouble.failure else { return base };
        let at = failure.config_path.as_ref().map_or(String::new(), |path| format!(" (config at `{path}`)"));
        Finding {
            severity: Severity::Error,
            reason: failure.reason,
            message: format!("policy `{policy}` does not load: {}{at}; {instead}", failure.message),
            remedy: failure.remedy.clone(),
            ..base
        }
    }
}

#[cfg(test)]
mod tests;

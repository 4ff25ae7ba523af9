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
use domain::name::{Generation, ObjectName};
use domain::policy::{EntrySpec, FailureMode, PolicySource, Preparation, Prepare};
use manifest::{Bundle, Kind, ObjectKey};

use crate::index::{Index, Services};
use crate::observe::ObservedModels;
use crate::source::Burst;

pub(crate) mod news;
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
    /// Every engine of the first snapshot was asked for its models, and what they answered is in force. From the first
    /// answers on this stays true.
    pub answered: bool,
    /// What all of it was made from and what came of it, for whoever writes status.
    pub facts: Arc<Facts>,
}

/// The objects, and what came of them. Everything is of one moment.
#[derive(Debug, Default)]
pub struct Facts {
    /// The objects as they were written.
    pub bundle: Bundle,
    /// Services of ours, lowered.
    pub services: Arc<Services>,
    /// Objects that contradict themselves, sorted: an earlier version serves in their place, if there is one.
    pub rejected: Vec<ObjectKey>,
    /// What is wrong with the objects themselves, of each together, worst first: without policies that do not load.
    pub findings: Vec<Finding>,
    /// Policies of chains that are not in force as asked.
    pub troubles: Vec<PolicyTrouble>,
    /// Every `RoutingPolicy` that has a usable source, whether a chain names it or not.
    pub policies: BTreeMap<ObjectName, PolicyState>,
}

/// A `RoutingPolicy` by itself.
#[derive(Clone, Debug)]
pub struct PolicyState {
    /// What is to be prepared.
    pub spec: Arc<EntrySpec>,
    /// What has come of it.
    pub preparation: Arc<Preparation>,
}

/// What a part beside the sources found wrong: with engines, or with what the API server refuses. It changes nothing that is
/// in force, and is neither status nor a reason to be unready.
#[derive(Debug)]
pub struct Remarks {
    /// Which part; its findings replace those of its previous remarks.
    pub source: &'static str,
    /// Everything that is wrong there now. The part bounds them.
    pub findings: Vec<Finding>,
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
    /// A part beside the sources has other findings.
    Remarks(Remarks),
    /// Every engine of the first snapshot has answered, or failed to.
    Answered,
}

/// Turns inputs into snapshots.
#[derive(Debug)]
pub struct Core {
    index: Index,
    assembler: Assembler,
    sources: BTreeMap<&'static str, Vec<Finding>>,
    remarks: BTreeMap<&'static str, Vec<Finding>>,
    troubles: Vec<PolicyTrouble>,
    policies: BTreeMap<ObjectName, PolicyState>,
    bursts: u64,
    answered: bool,
}

impl Core {
    /// Nothing known yet.
    pub fn new(index: Index) -> Self {
        Self {
            index,
            assembler: Assembler::default(),
            sources: BTreeMap::new(),
            remarks: BTreeMap::new(),
            troubles: Vec::new(),
            policies: BTreeMap::new(),
            bursts: 0,
            answered: false,
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
                    relower |= self.index.refuse(self.sources.values().flatten());
                }
                Input::Models(list) => relower |= self.index.observe(list),
                Input::Policies => rebuild = true,
                Input::Answered => self.answered = true,
                Input::Remarks(Remarks { source, findings }) => {
                    self.remarks.insert(source, findings);
                }
            }
        }
        if relower {
            self.index.lower();
        }
        (relower || rebuild) && !self.sources.is_empty()
    }

    /// The second half: a new generation of what is asked for now.
    pub(crate) fn build(&mut self, prepare: &dyn Prepare) -> Assembled {
        let mut assembled = self.assembler.assemble(self.index.draft(), prepare);
        self.troubles.clone_from(&assembled.troubles);
        // After the chains: what nobody uses waits for what somebody does.
        self.policies.clear();
        for (name, spec) in self.index.policies() {
            let preparation = Arc::new(self.preparation(name, spec, prepare));
            self.policies.insert(name.clone(), PolicyState { spec: Arc::clone(spec), preparation });
            if !assembled.specs.iter().any(|known| known.name == spec.name && known == spec) {
                assembled.specs.push(Arc::clone(spec));
            }
        }
        assembled
    }

    /// What came of a policy by itself. One that wants settings which only gateways give is judged as the first of them has it.
    fn preparation(&self, name: &ObjectName, spec: &EntrySpec, prepare: &dyn Prepare) -> Preparation {
        let alone = prepare.prepare(spec);
        let wants_settings = matches!(&alone, Preparation::Failed(failure) if failure.config_path.is_some());
        if !wants_settings {
            return alone;
        }
        let gateways = self.index.draft().gateways.iter();
        let routes = gateways.filter(|g| g.name.namespace == name.namespace).flat_map(|g| &g.routes);
        let mut entries = routes.flat_map(|route| route.chain.iter());
        let in_a_chain = entries.find(|entry| entry.name == spec.name && entry.source == spec.source);
        in_a_chain.map_or(alone, |entry| prepare.prepare(entry))
    }

    /// Every chain entry that is asked for, and every policy by itself.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &Arc<EntrySpec>> {
        let routes = self.index.draft().gateways.iter().flat_map(|gateway| &gateway.routes);
        routes.flat_map(|route| route.chain.iter()).chain(self.index.policies().values())
    }

    /// The objects and what came of them. Copies references, one for each object.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            bundle: self.index.bundle().clone(),
            services: Arc::clone(self.index.services()),
            rejected: self.index.rejected().to_vec(),
            findings: self.sources.values().flatten().chain(self.index.findings()).cloned().collect(),
            troubles: self.troubles.clone(),
            policies: self.policies.clone(),
        }
    }

    /// How many objects of each kind of ours are known.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Kind, usize)> + use<> {
        self.index.counts()
    }

    /// Whether there is nothing to serve, and that is because something is wrong: not worth being called ready. An object that
    /// no gateway uses may be as wrong as it likes.
    pub fn is_hopeless(&self) -> bool {
        let routes = |finding: &Finding| {
            ["", "InferenceGateway", "StaticRoute"].contains(&finding.object.split(' ').next().unwrap_or(""))
        };
        let of_sources = self.sources.values().flatten();
        let of_routes = self.index.findings().iter().filter(|finding| routes(finding));
        let is_wrong = |finding: &Finding| finding.severity == Severity::Error;
        self.index.is_empty() && of_sources.chain(of_routes).any(is_wrong)
    }

    /// Whether a policy is still being prepared.
    pub fn is_preparing(&self) -> bool {
        self.troubles.iter().any(|trouble| trouble.failure.is_none())
    }

    /// Whether some policy is still being prepared, be it one that nobody uses.
    pub(crate) fn is_unsettled(&self) -> bool {
        let is_pending = |state: &PolicyState| matches!(*state.preparation, Preparation::Pending);
        self.is_preparing() || self.policies.values().any(is_pending)
    }

    /// Endpoints that their model lists keep out.
    pub fn excluded(&self) -> Arc<[Arc<EndpointSpec>]> {
        self.index.excluded()
    }

    /// Whether the engines' first answers were taken over.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Bursts taken over so far.
    pub fn bursts(&self) -> u64 {
        self.bursts
    }

    /// Everything that is wrong now, worst first, then by place.
    pub fn findings(&self) -> Vec<Finding> {
        let parts = self.sources.values().chain(self.remarks.values());
        let mut findings: Vec<Finding> = parts.flatten().cloned().collect();
        findings.extend_from_slice(self.index.findings());
        let troubles_from = findings.len();
        // A policy that is not there at all is found where it is named, with the remedy.
        let is_there =
            |source: &PolicySource| !matches!(source, PolicySource::Bytes { bytes, .. } if bytes.is_empty());
        for trouble in self.troubles.iter().filter(|trouble| is_there(&trouble.spec.source)) {
            let finding = self.describe(trouble);
            // Every pool of a gateway has the same trouble with the same policy.
            if !findings[troubles_from..].contains(&finding) {
                findings.push(finding);
            }
        }
        findings.extend(self.policies.iter().filter_map(|(name, state)| self.describe_alone(name, state)));
        findings.sort_by(|a, b| {
            let place =
                |finding: &Finding| (finding.origin.file.clone(), finding.origin.line, finding.origin.column);
            b.severity.cmp(&a.severity).then_with(|| place(a).cmp(&place(b)))
        });
        findings
    }

    fn describe(&self, trouble: &PolicyTrouble) -> Finding {
        let instead = instead(trouble);
        let policy = &trouble.spec.name;
        let key = ObjectKey { kind: Kind::InferenceGateway, name: trouble.gateway.clone() };
        let field = self.field(trouble).unwrap_or_default();
        let origin = self.index.bundle().source(&key).map(|source| source.locate(&field)).unwrap_or_default();
        let object = format!("InferenceGateway {}", trouble.gateway).into();
        let base = Finding {
            severity: Severity::Info,
            object,
            origin,
            field,
            reason: PREPARING,
            message: format!("policy `{policy}` is being prepared; {instead}"),
            remedy: String::new(),
        };
        let Some(failure) = &trouble.failure else { return base };
        Finding {
            severity: Severity::Error,
            reason: failure.reason,
            message: format!("policy `{policy}` does not load: {}; {instead}", failure.sentence()),
            remedy: failure.remedy.clone(),
            ..base
        }
    }

    /// Which entry of its gateway's chain is in trouble: the first of this name. `None` where the chain is no list.
    fn field(&self, trouble: &PolicyTrouble) -> Option<String> {
        let gateway = self.index.bundle().gateways.get(&trouble.gateway)?;
        let names = gateway.value.spec.policies.iter().map(|entry| match (&entry.name, &entry.policy_ref) {
            (Some(name), _) => name.as_str(),
            (None, Some(to)) => to.name.as_str(),
            (None, None) => "",
        });
        let policy = trouble.spec.name.as_str();
        let at = names.into_iter().position(|name| name.eq_ignore_ascii_case(policy))?;
        let is_config = trouble.failure.as_ref().is_some_and(|failure| failure.config_path.is_some());
        Some(format!("spec.policies[{at}]{}", if is_config { ".config" } else { "" }))
    }

    /// A policy that does not load by itself, unless a gateway that names it says so already.
    fn describe_alone(&self, name: &ObjectName, state: &PolicyState) -> Option<Finding> {
        let Preparation::Failed(failure) = &*state.preparation else { return None };
        let is_said = |trouble: &PolicyTrouble| {
            trouble.gateway.namespace == name.namespace
                && trouble.spec.name.as_str() == &*name.name
                && trouble.failure.is_some()
        };
        if self.troubles.iter().any(is_said) {
            return None;
        }
        let key = ObjectKey { kind: Kind::RoutingPolicy, name: name.clone() };
        // No gateway names it, or that one's finding would be here: its settings may be still to come.
        let (severity, field) = match failure.config_path {
            Some(_) => (Severity::Warning, "spec.config"),
            None => (Severity::Error, "spec.source"),
        };
        let origin = self.index.bundle().source(&key).map(|source| source.locate(field)).unwrap_or_default();
        Some(Finding {
            severity,
            object: key.to_string().into(),
            origin,
            field: field.to_owned(),
            reason: failure.reason,
            message: format!("the policy does not load: {}", failure.sentence()),
            remedy: failure.remedy.clone(),
        })
    }
}

/// What happens to requests meanwhile.
pub(crate) fn instead(trouble: &PolicyTrouble) -> &'static str {
    match trouble.spec.failure_mode {
        _ if trouble.last_good_serves => "the last good chain decides",
        FailureMode::Reject => "requests that come to it are refused",
        FailureMode::LeastInFlight => "the least busy endpoint is taken when it is its turn",
        FailureMode::NextPolicy => "its place in the chain is left out",
    }
}

#[cfg(test)]
mod tests;

//! Finds the policy that a chain names: a built-in, or a `RoutingPolicy` of the same namespace.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use domain::image::{Image, PullSecret};
use domain::name::{ObjectName, PolicyName};
use domain::policy::{EntrySpec, FailureMode, Mode, PolicyLimits, PolicySource};
use domain::redact;
use serde_json::Value;

use super::Lowering;
use super::chain::{alias_names, canonical, failure_mode, is_not_yet};
use super::report::About;
use crate::kind::inference_service::KeyRef;
use crate::kind::routing_policy::OciSource;
use crate::kind::{RoutingPolicy, RoutingPolicySpec};
use crate::object::Kind;
use crate::spelling;

/// Where a Secret of type `kubernetes.io/dockerconfigjson` holds its credentials.
const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";

/// A policy that was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resolved {
    pub(super) name: PolicyName,
    pub(super) source: PolicySource,
    pub(super) sha256: Option<Arc<str>>,
    /// Settings of the `RoutingPolicy`.
    pub(super) config: Option<Value>,
    pub(super) limits: PolicyLimits,
    pub(super) failure_mode: FailureMode,
}

impl Resolved {
    /// A policy that never loads.
    pub(super) fn unusable(name: &PolicyName) -> Self {
        let origin = format!("{name}, which is not available").into();
        let source = PolicySource::Bytes { origin, bytes: Vec::new().into() };
        Self { source, failure_mode: FailureMode::Reject, ..Self::builtin(name.as_str()) }
    }

    fn builtin(name: &str) -> Self {
        let name = PolicyName::from(name);
        Self {
            source: PolicySource::Builtin(name.clone()),
            name,
            sha256: None,
            config: None,
            limits: PolicyLimits::default(),
            failure_mode: FailureMode::NextPolicy,
        }
    }
}

/// A policy that was not found, which is found.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) name: PolicyName,
    /// The last good chain should stay in force.
    pub(super) rejects: bool,
    pub(super) failure_mode: FailureMode,
}

impl Lowering<'_> {
    /// The policy of this name: a built-in in any spelling, else a `RoutingPolicy`.
    pub(super) fn policy_by_name(
        &mut self,
        about: &About,
        field: &str,
        name: &str,
    ) -> Result<Resolved, Missing> {
        let builtin = canonical(&self.options.builtins, name);
        if self.options.builtins.contains(builtin) {
            return Ok(Resolved::builtin(builtin));
        }
        let object = ObjectName::new(Arc::clone(&about.name().namespace), name);
        if !self.bundle.policies.contains_key(&object) && is_not_yet(name) {
            let message = format!("this version has no policy {name}; the chain goes on without it");
            let remedy = "use one of the built-in policies, or a RoutingPolicy of your own";
            self.report.error(self.bundle, about, field, "NotImplemented", message, remedy);
            return Err(Missing { name: name.into(), rejects: false, failure_mode: FailureMode::NextPolicy });
        }
        self.policy_by_ref(about, field, name)
    }

    /// The `RoutingPolicy` of this name.
    pub(super) fn policy_by_ref(
        &mut self,
        about: &About,
        field: &str,
        name: &str,
    ) -> Result<Resolved, Missing> {
        let bundle = self.bundle;
        let object = ObjectName::new(Arc::clone(&about.name().namespace), name);
        let Some(held) = bundle.policies.get(&object) else {
            let known: Vec<&str> = self.options.builtins.iter().map(|name| &**name).collect();
            let all = bundle.policies.iter().map(|(name, held)| (name, held.source.origin.clone()));
            let missing = self.missing(Kind::RoutingPolicy, &object, all);
            let message = if missing.message.starts_with("there is no") {
                format!("there is no policy {name}: neither a built-in one nor a RoutingPolicy {object}")
            } else {
                missing.message
            };
            let own = bundle.policies.keys().filter(|known| known.namespace == object.namespace);
            let near = self
                .near_policy(name)
                .or_else(|| spelling::nearest(name, own.map(|known| &*known.name)).map(str::to_owned));
            let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
            let remedy = format!("{near}create it, or use one of {}", known.join(", "));
            self.report.error(bundle, about, field, "PolicyNotFound", message, remedy);
            return Err(Missing { name: name.into(), rejects: true, failure_mode: FailureMode::NextPolicy });
        };
        let spec = &held.value.spec;
        let mode = failure_mode(spec.failure_mode);
        let Some(source) = self.policy_source(&object, spec) else {
            let message = format!(
                "RoutingPolicy {object} has no usable source; the last good chain stays in force, if there is one"
            );
            let remedy = format!("see RoutingPolicy {object}");
            self.report.error(bundle, about, field, "PolicyNotFound", message, remedy);
            return Err(Missing { name: name.into(), rejects: true, failure_mode: mode });
        };
        Ok(Resolved {
            name: name.into(),
            source,
            sha256: spec.sha256.as_deref().map(Into::into),
            config: spec.config.as_ref().map(|config| config.0.clone()),
            limits: self.policy_limits(&object, spec),
            failure_mode: mode,
        })
    }

    /// Looks at a `RoutingPolicy` that perhaps nobody uses.
    pub(super) fn policy_alone(&mut self, name: &ObjectName, policy: &RoutingPolicy) {
        let about = About::new(Kind::RoutingPolicy, name);
        let limits = self.policy_limits(name, &policy.spec);
        if let Some(source) = self.policy_source(name, &policy.spec) {
            let config = policy.spec.config.as_ref().map(|config| config.0.clone());
            let spec = EntrySpec {
                name: PolicyName::from(&*name.name),
                source,
                sha256: policy.spec.sha256.as_deref().map(Into::into),
                config: Value::Object(self.config(&about, "spec.config", &config)).to_string().into(),
                limits,
                failure_mode: failure_mode(policy.spec.failure_mode),
                mode: Mode::Active,
                tenant: Arc::clone(&name.namespace),
            };
            self.policies.insert(name.clone(), Arc::new(spec));
        }
        let builtin = canonical(&self.options.builtins, &name.name);
        if self.options.builtins.contains(builtin) {
            let message =
                format!("{} is the name of a built-in policy, which wins where a chain names it", name.name);
            let remedy = "rename the object, or name it by policyRef";
            self.report.warning(self.bundle, &about, "metadata.name", "NameConflict", message, remedy);
        }
    }

    /// The built-in policy that a misspelt name is near to, spelt in the way of that name.
    fn near_policy(&self, name: &str) -> Option<String> {
        let mut known: Vec<&str> = self.options.builtins.iter().map(|name| &**name).collect();
        known.extend(alias_names());
        let near = canonical(&self.options.builtins, spelling::nearest(name, known)?);
        if !self.options.builtins.contains(near) {
            return None;
        }
        let capital = |word: &str| {
            let mut letters = word.chars();
            letters
                .next()
                .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
        };
        let is_camel = name.contains(|c: char| c.is_ascii_uppercase());
        Some(if is_camel { near.split('-').map(capital).collect() } else { near.to_owned() })
    }

    fn policy_source(&mut self, name: &ObjectName, spec: &RoutingPolicySpec) -> Option<PolicySource> {
        let bundle = self.bundle;
        let about = About::new(Kind::RoutingPolicy, name);
        let source = &spec.source;
        let given = [
            source.builtin.is_some(),
            source.file.is_some(),
            source.config_map_ref.is_some(),
            source.secret_ref.is_some(),
            source.oci.is_some(),
        ];
        if given.into_iter().filter(|is_given| *is_given).count() != 1 {
            let message = "a source is exactly one of builtin, file, configMapRef, secretRef and oci";
            self.report.reject(bundle, &about, "spec.source", "InvalidSource", message, "keep one of them");
            return None;
        }
        if let Some(builtin) = &source.builtin {
            let known = canonical(&self.options.builtins, builtin);
            if self.options.builtins.contains(known) {
                return Some(PolicySource::Builtin(known.into()));
            }
            let message = format!("there is no built-in policy {builtin}");
            let names: Vec<&str> = self.options.builtins.iter().map(|name| &**name).collect();
            let near =
                self.near_policy(builtin).map_or_else(String::new, |near| format!("did you mean {near}? "));
            let remedy = format!("{near}use one of {}", names.join(", "));
            self.report.error(bundle, &about, "spec.source.builtin", "PolicyNotFound", message, remedy);
        } else if let Some(file) = &source.file {
            return self.policy_file(&about, file);
        } else if let Some(to) = &source.config_map_ref {
            return self.policy_bytes(&about, "spec.source.configMapRef", Kind::ConfigMap, to);
        } else if let Some(to) = &source.secret_ref {
            return self.policy_bytes(&about, "spec.source.secretRef", Kind::Secret, to);
        } else if let Some(oci) = &source.oci {
            return self.policy_artifact(&about, oci, spec.sha256.is_some());
        }
        None
    }

    fn policy_file(&mut self, about: &About, file: &str) -> Option<PolicySource> {
        let path = Path::new(file);
        let leaves = path.components().any(|component| matches!(component, Component::ParentDir));
        if leaves || file.contains('\0') || file.is_empty() {
            let message = format!("{file:?} leads out of the policy directory");
            let remedy = "write a path below it, without ..";
            self.report.error(self.bundle, about, "spec.source.file", "InvalidSource", message, remedy);
            return None;
        }
        Some(PolicySource::File(PathBuf::from(path)))
    }

    fn policy_bytes(&mut self, about: &About, field: &str, kind: Kind, to: &KeyRef) -> Option<PolicySource> {
        let value = self.key(about, field, kind, to)?;
        if value.is_text {
            let message = format!("key {} stands in data, which holds texts", to.key);
            let remedy = "put the component into binaryData";
            self.report.error(self.bundle, about, field, "InvalidSource", message, remedy);
            return None;
        }
        let origin = format!("{} {}/{} key {}", kind.as_str(), about.name().namespace, to.name, to.key);
        Some(PolicySource::Bytes { origin: origin.into(), bytes: Arc::clone(&value.bytes) })
    }

    fn policy_artifact(&mut self, about: &About, oci: &OciSource, has_sha256: bool) -> Option<PolicySource> {
        let field = "spec.source.oci.image";
        let image = match Image::parse(&oci.image) {
            Ok(image) if image.digest.is_some() || has_sha256 => image,
            Ok(_) => {
                let message = "an image without a digest could become another at any time";
                let remedy = "append @sha256:… of the manifest, or set spec.sha256 to that of the component";
                self.report.error(self.bundle, about, field, "InvalidSource", message, remedy);
                return None;
            }
            Err(why) => {
                let message = format!("{:?} {why}", redact::url(&oci.image));
                let remedy = "write registry/repository@sha256:…";
                self.report.error(self.bundle, about, field, "InvalidSource", message, remedy);
                return None;
            }
        };
        let pull_secret = match &oci.pull_secret_ref {
            None => None,
            Some(to) => {
                let to = KeyRef { name: to.name.clone(), key: DOCKER_CONFIG_KEY.to_owned() };
                let held = self.key(about, "spec.source.oci.pullSecretRef", Kind::Secret, &to)?;
                Some(PullSecret(Arc::clone(&held.bytes)))
            }
        };
        Some(PolicySource::Oci { image, pull_secret })
    }

    fn policy_limits(&mut self, name: &ObjectName, spec: &RoutingPolicySpec) -> PolicyLimits {
        let Some(limits) = &spec.limits else { return PolicyLimits::default() };
        let about = About::new(Kind::RoutingPolicy, name);
        let memory_bytes = limits.memory.as_ref().and_then(|memory| {
            let bytes = memory.bytes();
            if bytes.is_none() {
                let message = format!("{:?} is no amount of memory; it is ignored", memory.0);
                self.report.error(
                    self.bundle,
                    &about,
                    "spec.limits.memory",
                    "WrongForm",
                    message,
                    "write one such as 16Mi",
                );
            }
            if bytes.is_some_and(|bytes| bytes > PolicyLimits::MEMORY_BYTES_MAX) {
                let message = format!("{} is more than a policy may have; it gets 16Mi", memory.0);
                let remedy = "write at most 16Mi";
                self.report.warning(self.bundle, &about, "spec.limits.memory", "OutOfRange", message, remedy);
            }
            bytes.map(|bytes| bytes.min(PolicyLimits::MEMORY_BYTES_MAX))
        });
        let fuel_permille = limits.fuel_factor.and_then(|factor| {
            let permille = (factor * 1000.0).round();
            if !(1.0..=f64::from(PolicyLimits::FUEL_PERMILLE_MAX)).contains(&permille) {
                let message = format!("{factor} is out of range; it is ignored");
                let remedy = "write a number from 0.001 to 10";
                self.report.error(
                    self.bundle,
                    &about,
                    "spec.limits.fuelFactor",
                    "OutOfRange",
                    message,
                    remedy,
                );
                return None;
            }
            Some(permille as u32)
        });
        PolicyLimits { memory_bytes, fuel_permille }
    }
}

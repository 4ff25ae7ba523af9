//! A policy that is compiled, linked, configured and probed.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use domain::policy::{Description, Digest, PolicyLimits, Prepared};

use crate::bindings::RoutingPolicyPre;
use crate::host_state::HostState;
use crate::instance::Recipe;
use crate::probe::Probed;

/// A compiled component of the right world.
pub(crate) struct Compiled {
    pub(crate) digest: Digest,
    pub(crate) outside: Arc<Outside>,
    pub(crate) pre: RoutingPolicyPre<HostState>,
}

/// What a component shows from outside.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Bytes of the component.
    pub(crate) bytes: u64,
    /// Names of its imports, sorted.
    pub(crate) imports: Vec<String>,
}

/// What chains hold.
pub(crate) struct Ready {
    /// Number of this policy in its library, from 1; never used again. Instances are known by it.
    pub(crate) id: u64,
    pub(crate) digest: Digest,
    pub(crate) description: Arc<Description>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) recipe: Recipe,
    pub(crate) probed: Probed,
}

impl Ready {
    pub(crate) fn new(
        id: u64,
        (compiled, description): (&Compiled, Description),
        recipe: Recipe,
        probed: Probed,
    ) -> Self {
        Self {
            id,
            digest: compiled.digest,
            description: Arc::new(description),
            outside: Arc::clone(&compiled.outside),
            recipe,
            probed,
        }
    }

    /// Bounds it runs in.
    pub(crate) fn limits(&self) -> PolicyLimits {
        self.recipe.limits
    }
}

impl Prepared for Ready {
    fn description(&self) -> &Description {
        &self.description
    }
    fn digest(&self) -> Digest {
        self.digest
    }
    fn size_bytes(&self) -> Option<u64> {
        Some(self.outside.bytes)
    }
    fn imports(&self) -> Vec<String> {
        self.outside.imports.clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("policy", &self.description.name)
            .field("digest", &self.digest)
            .field("limits", &self.limits())
            .finish_non_exhaustive()
    }
}

//! What `lower` makes of the manifests: a snapshot without live state and without compiled policies.

use std::collections::HashMap;
use std::sync::Arc;

use crate::endpoint::EndpointSpec;
use crate::name::{ModelName, ObjectName};
use crate::policy::EntrySpec;
use crate::route::GatewaySettings;

/// Everything that the manifests ask for. Every reference in it resolves; what did not is left out and found.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Gateways, oldest first (ties by namespace and name): the order that decides who owns a model.
    pub gateways: Vec<GatewayDraft>,
}

/// A gateway, lowered.
#[derive(Clone, Debug)]
pub struct GatewayDraft {
    /// Namespace and name.
    pub name: ObjectName,
    /// Host names that select it beside its own names, lower case, without port and final dot.
    pub hostnames: Vec<Box<str>>,
    /// Whether its name alone, without the namespace, selects it. False where another Service is reached by that name.
    pub has_short_host: bool,
    /// Settings.
    pub settings: GatewaySettings,
    /// Other names of its models.
    pub aliases: HashMap<Box<str>, ModelName>,
    /// Routes, each model once.
    pub routes: Vec<RouteDraft>,
}

/// A route, lowered.
#[derive(Clone, Debug)]
pub struct RouteDraft {
    /// The name that clients send.
    pub model: ModelName,
    /// The service that serves it.
    pub service: ObjectName,
    /// The name that the engines know, where it differs.
    pub engine_model: Option<ModelName>,
    /// For an adapter: the model it adapts.
    pub parent: Option<ModelName>,
    /// Why every request to it is turned away, if a guard cannot be enforced.
    pub blocked: Option<Box<str>>,
    /// Routable endpoints (asleep ones too), in any order, each URL once.
    pub endpoints: Arc<[Arc<EndpointSpec>]>,
    /// The chain asked for, at most [`crate::policy::CHAIN_MAX`] entries.
    pub chain: Arc<[Arc<EntrySpec>]>,
    /// The chain names a policy that does not exist: the last good chain of this pool stays in force, and `chain` (what
    /// is left of it) serves only if there never was one.
    pub chain_rejected: bool,
}

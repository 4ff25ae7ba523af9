//! What controllers did and found out: the parts of status that neither objects nor snapshot hold.

use std::collections::BTreeMap;

use domain::name::{ObjectName, PolicyName};
use k8s_openapi::jiff::Timestamp;

use super::Said;

/// Outcomes by object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// ConfigMaps of static routes.
    pub config_maps: BTreeMap<ObjectName, ConfigMapOutcome>,
    /// Backends of static routes.
    pub backends: BTreeMap<ObjectName, BackendHealth>,
    /// Routers of static routes.
    pub routers: BTreeMap<ObjectName, RouterHealth>,
    /// Services of gateways.
    pub services: BTreeMap<ObjectName, ServiceOutcome>,
}

/// What became of the ConfigMap of a static route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigMapOutcome {
    /// It says what it should.
    Written {
        /// Its name.
        name: String,
        /// When its content was last changed by us, if this process did.
        at: Option<Timestamp>,
        /// What the other router cannot be told as it was written; empty where it can.
        remark: String,
    },
    /// One of that name belongs to somebody else.
    Conflict {
        /// Who, and what to do about it.
        message: String,
    },
    /// It could not be written; that is tried again.
    Failed {
        /// Why.
        message: String,
    },
}

/// What probes of a static route's backends say. Absent before the first round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHealth {
    /// How many backends are probed.
    pub total: usize,
    /// Those that do not answer, and why, by URL.
    pub dead: BTreeMap<String, String>,
}

/// What probes of the router that a static route names say. Absent before the first threshold is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterHealth {
    /// There is no such Service, or it has no port to ask.
    Missing {
        /// What is missing.
        message: String,
    },
    /// It answers.
    Healthy,
    /// It does not.
    Unhealthy {
        /// Why.
        message: String,
    },
}

/// What became of the Service named after a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOutcome(pub Said);

/// Calls of policies that failed since the process started, by gateway and policy: how many, and the latest kind.
pub type Faults = BTreeMap<(ObjectName, PolicyName), (u64, String)>;

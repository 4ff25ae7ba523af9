//! A gateway and its routes: which model goes to which pool, under which limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::admission::Admission;
use crate::name::{ModelName, ObjectName};
use crate::pool::Pool;
use crate::retry::RetryBudget;
use crate::surface::{Cors, FurtherPath};

/// Bounds of one gateway. All are per replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request body, bytes. Default 32 MiB.
    pub body_bytes_max: u64,
    /// Requests in flight; 0 is no bound. Default 0.
    pub in_flight_max: u32,
    /// Requests that may wait for a permit; 0 sheds at once. Default 0.
    pub queue_depth: u32,
    /// How long one may wait. Default 30 s.
    pub queue_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            in_flight_max: 0,
            queue_depth: 0,
            queue_wait_max: Duration::from_secs(30),
        }
    }
}

/// Timeouts of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP (and TLS) connect. Default 2 s.
    pub connect: Duration,
    /// From the end of the request's body to the first byte of the answer's body: the budget of queueing, connecting,
    /// retries and prefill together. Default 600 s (a long prefill on an NPU takes minutes).
    pub response_header: Duration,
    /// Between two chunks of an answer, from its first byte on. Default 300 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            response_header: Duration::from_secs(600),
            idle: Duration::from_secs(300),
        }
    }
}

/// Failover before the first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts beyond the first, at most 7. Default 1.
    pub attempts: u32,
    /// Statuses of an engine that count as a failure. Default none: an engine's answer is the answer.
    pub statuses: Vec<u16>,
    /// Retries allowed as a share of recent requests, percent. Default 20.
    pub budget_percent: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 1, statuses: Vec::new(), budget_percent: 20 }
    }
}

/// Shape of error bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFormat {
    /// `{"error":"…"}`, as the production stack's router.
    #[default]
    Compat,
    /// `{"error":{"message","type","param","code"}}`, as OpenAI.
    OpenAi,
}

/// Where a request's session name is found. The header wins over the body field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// Headers tried in order.
    pub headers: Vec<HeaderName>,
    /// Top-level field of a JSON body.
    pub body_field: Option<Box<str>>,
}

impl Default for SessionKey {
    /// Header `x-session-id`, then header or body field `session_id`.
    fn default() -> Self {
        Self {
            headers: vec![HeaderName::from_static("x-session-id"), HeaderName::from_static("session_id")],
            body_field: Some("session_id".into()),
        }
    }
}

/// What of a gateway's configuration the request path reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Bounds.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Failover.
    pub retries: Retries,
    /// Error bodies.
    pub error_format: ErrorFormat,
    /// Session name.
    pub session_key: SessionKey,
    /// Which web pages may ask. `None`: this gateway says nothing about it.
    pub cors: Option<Arc<Cors>>,
    /// Further paths, in the order of the manifest; the first that matches counts.
    pub paths: Arc<[FurtherPath]>,
}

impl GatewaySettings {
    /// The entry of a further path.
    pub fn further(&self, path: &str) -> Option<&FurtherPath> {
        self.paths.iter().find(|entry| entry.matches(path))
    }
}

/// State of a gateway that outlives generations.
#[derive(Debug)]
pub struct GatewayState {
    /// Permits of requests in flight.
    pub admission: Admission,
    /// Budget of retries.
    pub retry_budget: RetryBudget,
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Namespace and name.
    pub name: ObjectName,
    /// Host names that select it, lower case, without port and final dot; its own names are not among them.
    pub hostnames: Vec<Box<str>>,
    /// Whether its name alone, without the namespace, selects it.
    pub has_short_host: bool,
    /// Settings.
    pub settings: GatewaySettings,
    /// Other names of its models.
    pub aliases: HashMap<Box<str>, ModelName>,
    /// Routes by the name that clients send.
    pub routes: HashMap<ModelName, Arc<Route>>,
    /// What outlives generations.
    pub state: Arc<GatewayState>,
}

impl Gateway {
    /// The route of a model or alias. `None`: not routed here.
    pub fn route(&self, model: &str) -> Option<&Arc<Route>> {
        match self.routes.get(model) {
            Some(route) => Some(route),
            None => self.routes.get(self.aliases.get(model)?.as_str()),
        }
    }
}

/// One routed model.
#[derive(Debug)]
pub struct Route {
    /// The name that clients send.
    pub model: ModelName,
    /// The service that serves it.
    pub service: ObjectName,
    /// The name to write into the body: set where the engines know the model by another name than `model`.
    pub engine_model: Option<ModelName>,
    /// LoRA adapters name the model they adapt.
    pub parent: Option<ModelName>,
    /// Set: every request is answered 503 with this reason, because the service names a guard that cannot be enforced.
    pub blocked: Option<Box<str>>,
    /// Its endpoints and chain.
    pub pool: Arc<Pool>,
}

//! Objects as the bundle takes them: what they are called, where they stand, and what they say.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use domain::finding::Origin;
use domain::name::ObjectName;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kind::{
    InferenceCache, InferenceGateway, InferencePool, InferenceService, ModelPlacement,
    PrefillDecodingDisaggregation, RoutingPolicy, SpeculativeDecoding, StaticRoute,
};

/// Namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Kinds that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `InferenceGateway`.
    InferenceGateway,
    /// `InferenceService`.
    InferenceService,
    /// `InferenceCache`.
    InferenceCache,
    /// `SpeculativeDecoding`.
    SpeculativeDecoding,
    /// `PrefillDecodingDisaggregation`.
    PrefillDecodingDisaggregation,
    /// `StaticRoute`.
    StaticRoute,
    /// `RoutingPolicy`.
    RoutingPolicy,
    /// `ModelPlacement`.
    ModelPlacement,
    /// Core `Service`.
    Service,
    /// `EndpointSlice` of group `discovery.k8s.io`.
    EndpointSlice,
    /// Core `Pod`.
    Pod,
    /// `InferencePool` of group `inference.networking.k8s.io`.
    InferencePool,
    /// Core `ConfigMap`.
    ConfigMap,
    /// Core `Secret`.
    Secret,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::InferenceGateway,
        Self::InferenceService,
        Self::InferenceCache,
        Self::SpeculativeDecoding,
        Self::PrefillDecodingDisaggregation,
        Self::StaticRoute,
        Self::RoutingPolicy,
        Self::ModelPlacement,
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::InferencePool,
        Self::ConfigMap,
        Self::Secret,
    ];

    /// The name as `kind:` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InferenceGateway => "InferenceGateway",
            Self::InferenceService => "InferenceService",
            Self::InferenceCache => "InferenceCache",
            Self::SpeculativeDecoding => "SpeculativeDecoding",
            Self::PrefillDecodingDisaggregation => "PrefillDecodingDisaggregation",
            Self::StaticRoute => "StaticRoute",
            Self::RoutingPolicy => "RoutingPolicy",
            Self::ModelPlacement => "ModelPlacement",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::InferencePool => "InferencePool",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// The `apiVersion` that is read.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Pod | Self::ConfigMap | Self::Secret => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::InferencePool => crate::kind::inference_pool::API_VERSION,
            _ => crate::kind::API_VERSION,
        }
    }

    /// Whether it is one of our own resources.
    pub fn is_ours(self) -> bool {
        self.api_version() == crate::kind::API_VERSION
    }
}

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    /// `Kind namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// Where an object and its fields stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Where the object begins.
    pub origin: Origin,
    /// Line and column of its fields by path (such as `spec.routes[0].model`); empty where they are not known.
    pub fields: HashMap<Box<str>, (u32, u32)>,
}

impl Source {
    /// A source of which only the origin is known.
    pub fn new(origin: Origin) -> Self {
        Self { origin, fields: HashMap::new() }
    }

    /// Where the field at `path` stands; of a field that is absent, the nearest one around it.
    pub fn locate(&self, path: &str) -> Origin {
        let mut path = path;
        while !path.is_empty() {
            if let Some((line, column)) = self.fields.get(path) {
                return Origin { file: Arc::clone(&self.origin.file), line: *line, column: *column };
            }
            path = path.rfind(['.', '[']).map_or("", |cut| &path[..cut]);
        }
        self.origin.clone()
    }
}

/// An object, typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Where it stands.
    pub source: Arc<Source>,
    /// What it says.
    pub body: Body,
}

/// An object's content by kind.
#[derive(Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is the kind it is named after")]
pub enum Body {
    InferenceGateway(Arc<InferenceGateway>),
    InferenceService(Arc<InferenceService>),
    InferenceCache(Arc<InferenceCache>),
    SpeculativeDecoding(Arc<SpeculativeDecoding>),
    PrefillDecodingDisaggregation(Arc<PrefillDecodingDisaggregation>),
    StaticRoute(Arc<StaticRoute>),
    RoutingPolicy(Arc<RoutingPolicy>),
    ModelPlacement(Arc<ModelPlacement>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Pod(Arc<Pod>),
    InferencePool(Arc<InferencePool>),
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
}

/// The kind only: contents may be secret, and are long.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())
    }
}

impl Object {
    /// What it is called.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind(), name: name_of(self.metadata()) }
    }

    /// Where it begins.
    pub fn origin(&self) -> &Origin {
        &self.source.origin
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// Whether `other` asks for the same: at most status and bookkeeping differ, which nothing is made of.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.source == other.source
            && asked_metadata(self.metadata()) == asked_metadata(other.metadata())
            && self.body.asks_the_same(&other.body)
    }

    /// What Kubernetes knows of it.
    pub fn metadata(&self) -> &ObjectMeta {
        match &self.body {
            Body::InferenceGateway(object) => &object.metadata,
            Body::InferenceService(object) => &object.metadata,
            Body::InferenceCache(object) => &object.metadata,
            Body::SpeculativeDecoding(object) => &object.metadata,
            Body::PrefillDecodingDisaggregation(object) => &object.metadata,
            Body::StaticRoute(object) => &object.metadata,
            Body::RoutingPolicy(object) => &object.metadata,
            Body::ModelPlacement(object) => &object.metadata,
            Body::Service(object) => &object.metadata,
            Body::EndpointSlice(object) => &object.metadata,
            Body::Pod(object) => &object.metadata,
            Body::InferencePool(object) => &object.metadata,
            Body::ConfigMap(object) => &object.metadata,
            Body::Secret(object) => &object.metadata,
        }
    }
}

impl Body {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::InferenceGateway(_) => Kind::InferenceGateway,
            Self::InferenceService(_) => Kind::InferenceService,
            Self::InferenceCache(_) => Kind::InferenceCache,
            Self::SpeculativeDecoding(_) => Kind::SpeculativeDecoding,
            Self::PrefillDecodingDisaggregation(_) => Kind::PrefillDecodingDisaggregation,
            Self::StaticRoute(_) => Kind::StaticRoute,
            Self::RoutingPolicy(_) => Kind::RoutingPolicy,
            Self::ModelPlacement(_) => Kind::ModelPlacement,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(_) => Kind::Pod,
            Self::InferencePool(_) => Kind::InferencePool,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// Equal but for metadata and status. Kinds that are not ours have to be equal as a whole.
    fn asks_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InferenceGateway(a), Self::InferenceGateway(b)) => a.spec == b.spec,
            (Self::InferenceService(a), Self::InferenceService(b)) => a.spec == b.spec,
            (Self::InferenceCache(a), Self::InferenceCache(b)) => a.spec == b.spec,
            (Self::SpeculativeDecoding(a), Self::SpeculativeDecoding(b)) => a.spec == b.spec,
            (Self::PrefillDecodingDisaggregation(a), Self::PrefillDecodingDisaggregation(b)) => {
                a.spec == b.spec
            }
            (Self::StaticRoute(a), Self::StaticRoute(b)) => a.spec == b.spec,
            (Self::RoutingPolicy(a), Self::RoutingPolicy(b)) => a.spec == b.spec,
            (Self::ModelPlacement(a), Self::ModelPlacement(b)) => a.spec == b.spec,
            _ => self == other,
        }
    }
}

/// What of the metadata something may be made of.
fn asked_metadata(metadata: &ObjectMeta) -> impl PartialEq + use<'_> {
    let ObjectMeta { name, namespace, uid, labels, annotations, creation_timestamp, .. } = metadata;
    (name, namespace, uid, labels, annotations, creation_timestamp, &metadata.deletion_timestamp)
}

/// Namespace (`default` where none is named) and name.
pub(crate) fn name_of(metadata: &ObjectMeta) -> ObjectName {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    ObjectName::new(namespace.unwrap_or(DEFAULT_NAMESPACE), metadata.name.as_deref().unwrap_or_default())
}

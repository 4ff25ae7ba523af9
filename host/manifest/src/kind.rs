//! The custom resources, one file per kind, and the types that several of them share.
//!
//! Group `production-stack.vllm.ai`, version `v1alpha1`, all namespaced, all with a `status` subresource. The types hold
//! every field of every dialect that exists, since an API server drops what a schema does not name. What the fields mean
//! is said by [`crate::lower`], not here.

#![expect(clippy::duplicated_attributes, reason = "printer columns of one kind share types and paths")]

pub mod inference_cache;
pub mod inference_gateway;
pub mod inference_pool;
pub mod inference_service;
pub mod model_placement;
pub mod number;
pub mod opaque;
pub mod prefill_decoding_disaggregation;
pub mod reference;
pub mod routing_policy;
pub mod speculative_decoding;
pub mod static_route;
pub mod status;
pub mod surface;
pub mod text;

pub use inference_cache::{InferenceCache, InferenceCacheSpec, InferenceCacheStatus};
pub use inference_gateway::{InferenceGateway, InferenceGatewaySpec, InferenceGatewayStatus};
pub use inference_pool::InferencePool;
pub use inference_service::{InferenceService, InferenceServiceSpec, InferenceServiceStatus};
pub use model_placement::{ModelPlacement, ModelPlacementSpec, ModelPlacementStatus};
pub use number::NumberOrString;
pub use prefill_decoding_disaggregation::{
    PrefillDecodingDisaggregation, PrefillDecodingDisaggregationSpec, PrefillDecodingDisaggregationStatus,
};
pub use reference::{BackendRef, NameOrRef};
pub use routing_policy::{RoutingPolicy, RoutingPolicySpec, RoutingPolicyStatus};
pub use speculative_decoding::{SpeculativeDecoding, SpeculativeDecodingSpec, SpeculativeDecodingStatus};
pub use static_route::{StaticRoute, StaticRouteSpec, StaticRouteStatus};

/// API group of all our kinds.
pub const GROUP: &str = "production-stack.vllm.ai";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// Their `apiVersion`.
pub const API_VERSION: &str = "production-stack.vllm.ai/v1alpha1";

/// A default of `true`.
pub(crate) const fn yes() -> bool {
    true
}

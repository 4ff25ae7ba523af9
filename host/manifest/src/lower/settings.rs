//! Limits, timeouts, retries, error format and session key of a gateway.

use std::time::Duration;

use domain::retry::RETRYABLE_STATUSES;
use domain::route::{self, GatewaySettings, Limits, Retries, Timeouts};
use http::HeaderName;

use super::Lowering;
use super::report::About;
use crate::kind::InferenceGatewaySpec;
use crate::kind::inference_gateway::{ErrorFormat, SessionKey};
use crate::kind::text::Span;

/// Most attempts beyond the first.
const RETRIES_MAX: i32 = 7;

impl Lowering<'_> {
    pub(super) fn settings(&mut self, about: &About, spec: &InferenceGatewaySpec) -> GatewaySettings {
        GatewaySettings {
            limits: self.limits(about, spec),
            timeouts: self.timeouts(about, spec),
            retries: self.retries(about, spec),
            error_format: match spec.error_format {
                ErrorFormat::Compat => route::ErrorFormat::Compat,
                ErrorFormat::OpenAI => route::ErrorFormat::OpenAi,
            },
            session_key: spec
                .session_key
                .as_ref()
                .map_or_else(Default::default, |key| self.session_key(about, key)),
            cors: self.cors(about, spec),
            // Known only with the routes: some name a model.
            paths: Vec::new().into(),
        }
    }

    fn limits(&mut self, about: &About, spec: &InferenceGatewaySpec) -> Limits {
        let Some(limits) = &spec.limits else { return Limits::default() };
        let default = Limits::default();
        let count = |number: Option<i32>| u32::try_from(number.unwrap_or_default()).unwrap_or_default();
        let result = Limits {
            body_bytes_max: limits
                .max_body_bytes
                .and_then(|bytes| u64::try_from(bytes).ok())
                .filter(|bytes| *bytes > 0)
                .unwrap_or(default.body_bytes_max),
            in_flight_max: count(limits.max_in_flight),
            queue_depth: count(limits.queue_depth),
            queue_wait_max: self.span(
                about,
                "spec.limits.queueTimeout",
                &limits.queue_timeout,
                default.queue_wait_max,
            ),
        };
        if result.queue_depth > 0 && result.in_flight_max == 0 {
            let message = "queueDepth has no effect without maxInFlight: no request ever waits";
            self.report.warning(
                self.bundle,
                about,
                "spec.limits.queueDepth",
                "NoEffect",
                message,
                "set maxInFlight",
            );
        }
        result
    }

    fn timeouts(&mut self, about: &About, spec: &InferenceGatewaySpec) -> Timeouts {
        let Some(timeouts) = &spec.timeouts else { return Timeouts::default() };
        let default = Timeouts::default();
        let mut positive = |name: &str, span: &Option<Span>, default: Duration| {
            let field = format!("spec.timeouts.{name}");
            let duration = self.span(about, &field, span, default);
            if duration.is_zero() {
                let message = format!("a timeout of nothing lets nothing through; {default:?} is used");
                self.report.error(
                    self.bundle,
                    about,
                    &field,
                    "OutOfRange",
                    message,
                    "write a duration above zero",
                );
                return default;
            }
            duration
        };
        Timeouts {
            connect: positive("connect", &timeouts.connect, default.connect),
            response_header: positive("responseHeader", &timeouts.response_header, default.response_header),
            idle: positive("idle", &timeouts.idle, default.idle),
        }
    }

    fn retries(&mut self, about: &About, spec: &InferenceGatewaySpec) -> Retries {
        let Some(retries) = &spec.retries else { return Retries::default() };
        let default = Retries::default();
        let bounded = |number: Option<i32>, most: i32, default: u32| {
            number.map_or(default, |number| number.clamp(0, most).unsigned_abs())
        };
        let mut statuses = Vec::new();
        for (index, status) in retries.statuses.iter().flatten().enumerate() {
            match u16::try_from(*status).ok().filter(|status| RETRYABLE_STATUSES.contains(status)) {
                Some(status) => statuses.push(status),
                None => {
                    let field = format!("spec.retries.statuses[{index}]");
                    let message = format!("{status} is never retried; it is ignored");
                    let remedy = "use any of 408, 429, 500, 502, 503, 504";
                    self.report.error(self.bundle, about, &field, "OutOfRange", message, remedy);
                }
            }
        }
        Retries {
            attempts: bounded(retries.attempts, RETRIES_MAX, default.attempts),
            statuses,
            budget_percent: bounded(retries.budget_percent, 100, default.budget_percent),
        }
    }

    fn session_key(&mut self, about: &About, key: &SessionKey) -> route::SessionKey {
        let mut headers = Vec::new();
        if let Some(name) = &key.header {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(header) => headers.push(header),
                Err(_) => {
                    let message = format!("{name:?} is no header name; it is ignored");
                    let remedy = "write one such as x-session-id";
                    self.report.error(
                        self.bundle,
                        about,
                        "spec.sessionKey.header",
                        "Invalid",
                        message,
                        remedy,
                    );
                }
            }
        }
        if key.header.is_none() && key.body_field.is_none() {
            let message = "a session key needs a header or a body field; the default is used";
            self.report.reject(
                self.bundle,
                about,
                "spec.sessionKey",
                "Invalid",
                message,
                "add header or bodyField",
            );
        }
        let body_field = key.body_field.as_deref().filter(|field| !field.is_empty()).map(Into::into);
        if headers.is_empty() && body_field.is_none() {
            return route::SessionKey::default();
        }
        route::SessionKey { headers, body_field }
    }

    pub(super) fn span(
        &mut self,
        about: &About,
        field: &str,
        span: &Option<Span>,
        default: Duration,
    ) -> Duration {
        let Some(span) = span else { return default };
        span.duration().unwrap_or_else(|| {
            let message = format!("{:?} is no duration; {default:?} is used", span.0);
            self.report.error(
                self.bundle,
                about,
                field,
                "WrongForm",
                message,
                "write one such as 30s or 1m30s",
            );
            default
        })
    }
}

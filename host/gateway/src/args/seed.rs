//! Flags of the production stack's controller, so that a Deployment's `args:` can be kept.
//!
//! Those that mean something here are fields of [`super::ServeArgs`]; the rest is accepted, with a warning where what was
//! asked for is not what happens.

use std::ffi::OsString;

use clap::Args;

/// Flags without an effect.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Accepted for the production stack's manifests, without an effect")]
pub(crate) struct Inert {
    /// Metrics are served as plain HTTP
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    metrics_secure: Option<bool>,
    /// Metrics are served over HTTP/1.1
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    enable_http2: Option<bool>,
    /// There is no webhook
    #[arg(long, value_name = "DIR")]
    webhook_cert_path: Option<String>,
    /// There is no webhook
    #[arg(long, value_name = "FILE")]
    webhook_cert_name: Option<String>,
    /// There is no webhook
    #[arg(long, value_name = "FILE")]
    webhook_cert_key: Option<String>,
    /// Metrics are served as plain HTTP
    #[arg(long, value_name = "DIR")]
    metrics_cert_path: Option<String>,
    /// Metrics are served as plain HTTP
    #[arg(long, value_name = "FILE")]
    metrics_cert_name: Option<String>,
    /// Metrics are served as plain HTTP
    #[arg(long, value_name = "FILE")]
    metrics_cert_key: Option<String>,
    /// See --log-level
    #[arg(long, value_name = "LEVEL")]
    zap_log_level: Option<String>,
    /// See --log-level
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    zap_devel: Option<bool>,
    /// See --log-format
    #[arg(long, value_name = "ENCODER")]
    zap_encoder: Option<String>,
    /// Nothing here prints stack traces
    #[arg(long, value_name = "LEVEL")]
    zap_stacktrace_level: Option<String>,
    /// Times are RFC 3339
    #[arg(long, value_name = "ENCODING")]
    zap_time_encoding: Option<String>,
}

impl Inert {
    /// Says once of each flag what happens instead of what it asks for.
    pub(crate) fn warn(&self) {
        for (flag, instead) in self.ignored() {
            tracing::warn!("--{flag} has no effect: {instead}");
        }
    }

    fn ignored(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let plain = "metrics are plain HTTP/1.1; put a proxy or a mesh in front of them";
        let no_webhook = "there is no webhook; the API server checks by schema, and status says the rest";
        let [level, format] = ["use --log-level", "use --log-format"];
        let given = [
            // What they say is how it is: nothing to warn of.
            ("metrics-secure", self.metrics_secure == Some(true), plain),
            ("enable-http2", self.enable_http2 == Some(true), plain),
            ("webhook-cert-path", self.webhook_cert_path.is_some(), no_webhook),
            ("webhook-cert-name", self.webhook_cert_name.is_some(), no_webhook),
            ("webhook-cert-key", self.webhook_cert_key.is_some(), no_webhook),
            ("metrics-cert-path", self.metrics_cert_path.is_some(), plain),
            ("metrics-cert-name", self.metrics_cert_name.is_some(), plain),
            ("metrics-cert-key", self.metrics_cert_key.is_some(), plain),
            ("zap-log-level", self.zap_log_level.is_some(), level),
            ("zap-devel", self.zap_devel == Some(true), level),
            ("zap-encoder", self.zap_encoder.is_some(), format),
            ("zap-stacktrace-level", self.zap_stacktrace_level.is_some(), "stack traces are never printed"),
            ("zap-time-encoding", self.zap_time_encoding.is_some(), "times are RFC 3339"),
        ];
        given.into_iter().filter(|(_, is_given, _)| *is_given).map(|(flag, _, instead)| (flag, instead))
    }
}

/// `true`, `false`, and their first letters and numbers, as Go reads them.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" | "" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Go programs take `-flag` for `--flag`; so do we, except for single letters and negative numbers.
pub(crate) fn go_style(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    args.map(|arg| match arg.to_str().and_then(|text| text.strip_prefix('-')) {
        Some(name) if name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            OsString::from(format!("--{name}"))
        }
        _ => arg,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    #[test]
    fn a_controllers_own_arguments_are_taken_and_those_without_effect_named() {
        let args = [
            "wicketgate",
            "--metrics-bind-address=:8443",
            "-health-probe-bind-address=:8081",
            "--leader-elect",
            "--metrics-secure=false",
            "--enable-http2",
            "--zap-log-level=debug",
            "--webhook-cert-path",
            "/certs",
        ];
        let cli = Cli::parse_from(go_style(args.into_iter().map(Into::into)));
        assert!(cli.serve.leader_elect);
        assert_eq!(cli.serve.metrics_address().map(|address| address.port()), Some(8443));
        let ignored: Vec<&str> = cli.serve.inert.ignored().map(|(flag, _)| flag).collect();
        assert_eq!(ignored, ["enable-http2", "webhook-cert-path", "zap-log-level"]);
    }
}

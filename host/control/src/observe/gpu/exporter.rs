//! The URL of an exporter.

use std::str::FromStr;
use std::sync::Arc;

use domain::endpoint::Target;

/// Where a DCGM exporter's page or a Prometheus server is; which of the two is found out by asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    url: Arc<str>,
    target: Target,
}

impl Exporter {
    /// The URL, for people and labels. It holds no credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host, port and path.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The path of the page, if it is one.
    pub(super) fn page_path(&self) -> &str {
        match &*self.target.base_path {
            "" => "/metrics",
            path => path,
        }
    }

    /// What stands in front of Prometheus' own paths, if it is one.
    pub(super) fn api_base(&self) -> &str {
        let path = &*self.target.base_path;
        path.strip_suffix("/metrics").unwrap_or(path)
    }
}

impl FromStr for Exporter {
    type Err = &'static str;

    /// Reads `http://host:9400/metrics` or the base URL of a Prometheus server.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (url, target) = manifest::lower::parse_base_url(text)?;
        Ok(Self { url, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exporter_is_a_page_or_a_base_url() {
        for (text, page, base) in [
            ("http://dcgm:9400/metrics", "/metrics", ""),
            ("http://dcgm:9400", "/metrics", ""),
            ("http://dcgm:9400/", "/metrics", ""),
            ("http://prometheus:9090/prom", "/prom", "/prom"),
            ("http://prometheus:9090/prom/metrics", "/prom/metrics", "/prom"),
        ] {
            let exporter: Exporter = text.parse().expect(text);
            assert_eq!((exporter.page_path(), exporter.api_base()), (page, base), "{text}");
        }
        assert!("dcgm:9400".parse::<Exporter>().is_err());
    }
}

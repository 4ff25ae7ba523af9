//! Answers of Prometheus' query API.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use super::rows::{Family, Gather, Gpu};

/// Asks for all families at once, ready for a URL.
pub(super) const VALUES: &str =
    "%7B__name__%3D~%22DCGM_FI_%28DEV_GPU_UTIL%7CDEV_FB_USED%7CDEV_FB_FREE%7CPROF_GR_ENGINE_ACTIVE%29%22%7D";
/// Asks when the samples of each GPU were scraped, ready for a URL. One family speaks for all, which share a page; an
/// exporter may leave the first out.
pub(super) const TIMES: &str = "timestamp%28DCGM_FI_DEV_GPU_UTIL%29%20or%20timestamp%28DCGM_FI_DEV_FB_USED%29%20or%20\
    timestamp%28DCGM_FI_PROF_GR_ENGINE_ACTIVE%29";

#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: HashMap<String, String>,
    /// When it was evaluated, Unix seconds, and the number as text.
    value: (f64, String),
}

/// The GPUs of an answer to [`VALUES`], with their ages from an answer to [`TIMES`] where there is a usable one. `None`: it
/// is no answer of this API.
pub(super) fn read(values: &[u8], times: Option<&[u8]>) -> Option<Vec<Gpu>> {
    let mut gather = Gather::default();
    for series in parse(values)? {
        let family = series.metric.get("__name__").and_then(|name| Family::from_name(name.as_bytes()));
        let value = series.value.1.parse::<f64>().ok().filter(|value| value.is_finite());
        if let (Some(family), Some(value)) = (family, value) {
            gather.add(family, &labels(series.metric), value);
        }
    }
    for series in times.and_then(parse).unwrap_or_default() {
        let (now, scraped) = (series.value.0, series.value.1.parse::<f64>());
        if let Some(scraped) = scraped.ok().filter(|time| time.is_finite()) {
            // Both times are of Prometheus' own clock, so ours may differ.
            gather.set_age(&labels(series.metric), ((now - scraped).max(0.0) * 1e3) as u64);
        }
    }
    Some(gather.finish())
}

fn parse(text: &[u8]) -> Option<Vec<Series>> {
    let answer: Answer = serde_json::from_slice(text).ok()?;
    let data = answer.data.filter(|data| answer.status == "success" && data.result_type == "vector")?;
    Some(data.result)
}

fn labels(metric: HashMap<String, String>) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    metric.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests;

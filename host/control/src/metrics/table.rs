//! A family of numbers whose rows come and go together: nobody who looks sees half of a change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::family::Family;

/// Rows by label values. Cheap to clone; clones are the same table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    family: Family,
    desc: Arc<Desc>,
    rows: Arc<Mutex<BTreeMap<Vec<String>, f64>>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(family: Family) -> Self {
        Self { family, desc: Arc::new(family.desc()), rows: Arc::default() }
    }

    /// Exchanges every row whose first labels are `first` for these, given by their remaining labels.
    pub(crate) fn replace_under(&self, first: &[String], rows: impl IntoIterator<Item = (Vec<String>, f64)>) {
        let fresh = rows.into_iter().map(|(rest, value)| ([first, &rest].concat(), value));
        let fresh: Vec<(Vec<String>, f64)> = fresh.collect();
        let mut held = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let under = held.range(first.to_vec()..).take_while(|(labels, _)| labels.starts_with(first));
        let old: Vec<Vec<String>> = under.map(|(labels, _)| labels.clone()).collect();
        old.iter().for_each(|labels| _ = held.remove(labels));
        held.extend(fresh);
    }

    fn metric(&self, labels: &[String], value: f64) -> Metric {
        let pairs = self.family.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        if self.family.is_counter() {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }
}

impl Collector for Table {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        let kind = if self.family.is_counter() { MetricType::COUNTER } else { MetricType::GAUGE };
        family.set_field_type(kind);
        family.set_metric(rows.iter().map(|(labels, value)| self.metric(labels, *value)).collect());
        vec![family]
    }
}

//! What is installed: the chart and the kustomize overlays as rendered, their monitoring, and the image's contents.
//! None of these tests needs a cluster; those that do are in `tests/cluster/suite/charts.rs`.

mod chart;
mod copies;
mod image;
mod monitoring;
mod overlays;
mod render;
mod rights;
mod values;
mod wanted;

//! What exporters say of GPUs, and whose GPUs they are.

use std::borrow::Cow;
use std::collections::HashMap;

use domain::endpoint::EndpointSpec;

/// Most GPUs (times the pods that share one) of one page or answer; further ones are left out.
pub(super) const GPUS_MAX: usize = 16_384;
/// A label's value above this is no name of anything, bytes.
const LABEL_BYTES_MAX: usize = 256;
/// More is no memory of a GPU, mebibytes; the sentinels for "blank" are far above.
const MEBIBYTES_MAX: f64 = 1e8;

/// One of the families that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Util,
    /// Share of time in which the engine was busy, 0 to 1: the only one that holds for an instance of a partitioned GPU.
    Active,
    Used,
    Free,
}

impl Family {
    /// The family of that name.
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"DCGM_FI_DEV_GPU_UTIL" => Some(Self::Util),
            b"DCGM_FI_PROF_GR_ENGINE_ACTIVE" => Some(Self::Active),
            b"DCGM_FI_DEV_FB_USED" => Some(Self::Used),
            b"DCGM_FI_DEV_FB_FREE" => Some(Self::Free),
            _ => None,
        }
    }
}

/// Which GPU of which machine, and which pod uses it. Texts are empty where the exporter does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct GpuName {
    pub(crate) namespace: Box<str>,
    pub(crate) pod: Box<str>,
    pub(crate) node: Box<str>,
    /// Index, or UUID; with the instance behind a slash where the GPU is partitioned.
    pub(crate) gpu: Box<str>,
}

/// One GPU as one pod, or nobody, uses it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gpu {
    pub(crate) name: GpuName,
    /// Names and addresses of its machine.
    pub(crate) machine: Vec<Box<str>>,
    /// Utilisation, 0 to 100.
    pub(crate) util_percent: Option<f64>,
    /// The same by the profiler, 0 to 1: what counts for an instance, and where the other one is not told.
    pub(super) active: Option<f64>,
    /// Memory in use.
    pub(crate) used_bytes: Option<f64>,
    /// Memory that is free.
    pub(crate) free_bytes: Option<f64>,
    /// How old the numbers were when they were read: Prometheus scrapes at a pace of its own.
    pub(crate) age_ms: u64,
}

impl Gpu {
    fn memory(&self) -> Option<f64> {
        let (used, free) = (self.used_bytes?, self.free_bytes?);
        (used + free > 0.0).then(|| used / (used + free))
    }

    /// Decides which utilisation counts. Of an instance DCGM says 0 whatever it does, so that is no number.
    fn settled(mut self) -> Self {
        let by_profiler = self.active.map(|share| share * 100.0);
        self.util_percent = if self.name.gpu.contains('/') {
            by_profiler.or(self.util_percent.filter(|percent| *percent > 0.0))
        } else {
            self.util_percent.or(by_profiler)
        };
        self
    }

    fn put(&mut self, family: Family, value: f64) {
        let mebibytes = || Some(value).filter(|value| (0.0..=MEBIBYTES_MAX).contains(value));
        let (cell, value) = match family {
            Family::Active => (&mut self.active, Some(value).filter(|v| (0.0..=1.0).contains(v))),
            // Blank is above 100, whatever the width of the number that it was.
            Family::Util => (&mut self.util_percent, Some(value).filter(|v| (0.0..=100.0).contains(v))),
            Family::Used => (&mut self.used_bytes, mebibytes().map(|value| value * 1_048_576.0)),
            Family::Free => (&mut self.free_bytes, mebibytes().map(|value| value * 1_048_576.0)),
        };
        if value.is_some() {
            *cell = value;
        }
    }
}

/// Labels of one sample.
pub(super) type Labels<'a> = [(Cow<'a, str>, Cow<'a, str>)];

/// Samples put together by GPU.
#[derive(Debug, Default)]
pub(super) struct Gather {
    machine: Vec<Box<str>>,
    gpus: HashMap<GpuName, Gpu>,
}

impl Gather {
    /// For a page of a machine that goes by these names; none where pages of many are mixed.
    pub(super) fn new(machine: Vec<Box<str>>) -> Self {
        Self { machine, gpus: HashMap::new() }
    }

    /// Takes a sample. One that names no GPU, or comes when there are too many, is left out.
    pub(super) fn add(&mut self, family: Family, labels: &Labels<'_>, value: f64) {
        let Some(name) = self.name(labels) else { return };
        if self.gpus.len() >= GPUS_MAX && !self.gpus.contains_key(&name) {
            return;
        }
        let machine = &self.machine;
        let gpu = self.gpus.entry(name).or_insert_with_key(|name| {
            let told = ["Hostname", "node", "kubernetes_node"].iter().filter_map(|key| get(labels, key));
            let instance = get(labels, "instance").map(host);
            let mut machine: Vec<Box<str>> = machine.clone();
            machine.extend(told.chain(instance).map(|name| name.to_ascii_lowercase().into()));
            Gpu { name: name.clone(), machine, ..Gpu::default() }
        });
        gpu.put(family, value);
    }

    /// Says how old the samples of a GPU were.
    pub(super) fn set_age(&mut self, labels: &Labels<'_>, age_ms: u64) {
        if let Some(name) = self.name(labels)
            && let Some(gpu) = self.gpus.get_mut(&name)
        {
            gpu.age_ms = age_ms;
        }
    }

    /// All GPUs, in no order.
    pub(super) fn finish(self) -> Vec<Gpu> {
        self.gpus.into_values().map(Gpu::settled).collect()
    }

    fn name(&self, labels: &Labels<'_>) -> Option<GpuName> {
        if labels.iter().any(|(_, value)| value.len() > LABEL_BYTES_MAX) {
            return None;
        }
        let gpu = ["gpu", "UUID", "device"].iter().find_map(|key| get(labels, key))?;
        let gpu = match get(labels, "GPU_I_ID") {
            Some(instance) => format!("{gpu}/{instance}").into(),
            None => gpu.into(),
        };
        // Prometheus keeps `pod` and `namespace` for the exporter itself, and renames what the exporter says.
        // Older exporters say `pod_name` and `pod_namespace`, which nothing renames.
        let pairs =
            [("exported_pod", "exported_namespace"), ("pod_name", "pod_namespace"), ("pod", "namespace")];
        let named =
            pairs.into_iter().find_map(|(pod, namespace)| Some((get(labels, pod)?, get(labels, namespace))));
        let (pod, namespace) = named.map_or((None, None), |(pod, namespace)| (Some(pod), namespace));
        let node = get(labels, "Hostname")
            .or_else(|| get(labels, "node"))
            .or_else(|| get(labels, "instance").map(host))
            .or_else(|| self.machine.first().map(|name| &**name));
        let text = |text: Option<&str>| text.unwrap_or_default().into();
        // A namespace without a pod says nothing of who uses the GPU.
        let namespace = if pod.is_some() { text(namespace) } else { text(None) };
        Some(GpuName { namespace, pod: text(pod), node: text(node), gpu })
    }
}

/// A label's value; an empty one is none.
fn get<'a>(labels: &'a Labels<'_>, key: &str) -> Option<&'a str> {
    let found = labels.iter().find(|(name, _)| name == key)?;
    Some(&*found.1).filter(|value| !value.is_empty())
}

/// The host of `host:port`, without brackets.
fn host(instance: &str) -> &str {
    let host = match instance.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => instance,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What the GPUs of one endpoint do, 0 to 1; `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) util: Option<f32>,
    pub(super) memory: Option<f32>,
}

/// GPUs by whom they may belong to.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    by_pod: HashMap<(&'a str, &'a str), Vec<&'a Gpu>>,
    by_machine: HashMap<&'a str, Vec<&'a Gpu>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(gpus: impl Iterator<Item = &'a Gpu>) -> Self {
        let mut rows = Self::default();
        for gpu in gpus {
            let GpuName { namespace, pod, .. } = &gpu.name;
            if !pod.is_empty() {
                rows.by_pod.entry((namespace, pod)).or_default().push(gpu);
            }
            for name in &gpu.machine {
                let there = rows.by_machine.entry(name).or_default();
                if !there.last().is_some_and(|last| std::ptr::eq(*last, gpu)) {
                    there.push(gpu);
                }
            }
        }
        rows
    }

    /// What the GPUs of an endpoint do: those of its pod; without a pod, or where the exporter knows of none, those of its
    /// machine.
    pub(super) fn of(&self, spec: &EndpointSpec) -> Usage {
        let node = spec.node.to_ascii_lowercase();
        let on_machine = || {
            let of_node = self.by_machine.get(node.as_str()).filter(|_| !node.is_empty());
            of_node.or_else(|| self.by_machine.get(&*spec.target.host)).into_iter().flatten().copied()
        };
        match &spec.pod {
            None => usage(on_machine()),
            Some(pod) => match self.by_pod.get(&(&*pod.namespace, &*pod.name)) {
                Some(gpus) => usage(gpus.iter().copied()),
                // What other pods use is none of its.
                None => usage(on_machine().filter(|gpu| gpu.name.pod.is_empty())),
            },
        }
    }
}

/// Mean utilisation, and memory of the fullest: that one runs out first.
fn usage<'a>(gpus: impl Iterator<Item = &'a Gpu>) -> Usage {
    let (mut sum, mut known, mut memory) = (0.0, 0_u32, None::<f64>);
    for gpu in gpus {
        if let Some(percent) = gpu.util_percent {
            sum += percent / 100.0;
            known += 1;
        }
        if let Some(share) = gpu.memory() {
            memory = Some(memory.map_or(share, |most| most.max(share)));
        }
    }
    let util = (known > 0).then(|| (sum / f64::from(known)) as f32);
    Usage { util, memory: memory.map(|share| share as f32) }
}

#[cfg(test)]
mod tests;

use std::sync::Arc;

use domain::endpoint::PodRef;

use super::*;
use crate::observe::fake_engine::spec;

fn labels<'a>(text: &'a str) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.into(), value.into())).collect()
}

/// GPUs from lines of labels, utilisation, used and free mebibytes.
fn gpus(lines: &[(&str, f64, f64, f64)]) -> Vec<Gpu> {
    let mut gather = Gather::default();
    for (text, util, used, free) in lines {
        for (family, value) in [(Family::Util, util), (Family::Used, used), (Family::Free, free)] {
            gather.add(family, &labels(text), *value);
        }
    }
    gather.finish()
}

fn with_pod(url: &str, name: &str) -> EndpointSpec {
    let pod = PodRef { namespace: "ml".into(), name: name.into() };
    EndpointSpec { pod: Some(pod), ..spec(url) }
}

fn of(gpus: &[Gpu], spec: &EndpointSpec) -> (Option<f32>, Option<f32>) {
    let usage = Rows::new(gpus.iter()).of(spec);
    (usage.util, usage.memory)
}

#[test]
fn blank_numbers_are_unknown_and_never_zero() {
    const BLANKS: [f64; 8] = [
        9_223_372_036_854_775_792.0,
        9_223_372_036_854_775_794.0,
        2_147_483_632.0,
        140_737_488_355_328.0,
        f64::INFINITY,
        f64::NAN,
        -1.0,
        1e300,
    ];
    for blank in BLANKS {
        let found = gpus(&[("gpu=0,namespace=ml,pod=a", blank, blank, blank)]);
        assert_eq!(of(&found, &with_pod("http://a:1", "a")), (None, None), "{blank}");
        let found = gpus(&[("gpu=0,namespace=ml,pod=a", 50.0, blank, 10.0)]);
        assert_eq!(of(&found, &with_pod("http://a:1", "a")), (Some(0.5), None), "{blank}");
    }
    let none = gpus(&[("gpu=0,namespace=ml,pod=a", 0.0, 0.0, 0.0)]);
    assert_eq!(of(&none, &with_pod("http://a:1", "a")), (Some(0.0), None), "no memory at all has no share");
}

#[test]
fn a_blank_number_does_not_undo_a_known_one() {
    let mut gather = Gather::default();
    gather.add(Family::Util, &labels("gpu=0,pod=a,namespace=ml"), 40.0);
    gather.add(Family::Util, &labels("gpu=0,pod=a,namespace=ml"), 9.3e18);
    assert_eq!(gather.finish()[0].util_percent, Some(40.0));
}

#[test]
fn several_gpus_of_a_pod_are_mean_utilisation_and_fullest_memory() {
    let found = gpus(&[
        ("gpu=0,namespace=ml,pod=a", 90.0, 10.0, 30.0),
        ("gpu=1,namespace=ml,pod=a", 30.0, 30.0, 10.0),
        ("gpu=2,namespace=ml,pod=a", 9.3e18, 9.3e18, 1.0),
        ("gpu=3,namespace=ml,pod=b", 1.0, 1.0, 99.0),
        ("gpu=4,namespace=other,pod=a", 1.0, 1.0, 99.0),
    ]);
    assert_eq!(of(&found, &with_pod("http://a:1", "a")), (Some(0.6), Some(0.75)));
}

#[test]
fn who_uses_a_gpu_is_what_the_exporter_says_not_where_the_exporter_runs() {
    let found = gpus(&[(
        "gpu=0,namespace=monitoring,pod=dcgm-1,exported_namespace=ml,exported_pod=a,Hostname=N1",
        70.0,
        1.0,
        3.0,
    )]);
    assert_eq!(of(&found, &with_pod("http://a:1", "a")), (Some(0.7), Some(0.25)));
    assert_eq!((&*found[0].name.namespace, &*found[0].name.pod, &*found[0].name.node), ("ml", "a", "N1"));
}

#[test]
fn without_pods_the_machine_decides_by_node_or_by_address() {
    let found = gpus(&[
        ("gpu=0,Hostname=Node-1", 20.0, 1.0, 3.0),
        ("gpu=0,instance=10.0.0.2:9400", 40.0, 2.0, 2.0),
        ("gpu=1,Hostname=node-3,namespace=ml,pod=c", 60.0, 3.0, 1.0),
        ("gpu=0,instance=[fd00::4]:9400", 80.0, 3.0, 1.0),
    ]);
    let node = |node: &str, url: &str| EndpointSpec { node: Arc::from(node), ..spec(url) };
    let table = [
        (spec("http://node-1:8000"), Some(0.2)),
        (spec("http://10.0.0.2:8000"), Some(0.4)),
        (node("node-1", "http://10.9.9.9:8000"), Some(0.2)),
        (node("nowhere", "http://10.0.0.2:8000"), Some(0.4)),
        // Who uses what there is not known, but it is what the machine does.
        (spec("http://node-3:8000"), Some(0.6)),
        (spec("http://10.0.0.5:8000"), None),
        // An exporter that knows no pods speaks of the machine.
        (EndpointSpec { node: "node-1".into(), ..with_pod("http://10.9.9.9:8000", "a") }, Some(0.2)),
        // One that knows others' says that this one has none.
        (EndpointSpec { node: "node-3".into(), ..with_pod("http://10.9.9.9:8000", "a") }, None),
    ];
    for (spec, util) in table {
        assert_eq!(of(&found, &spec).0, util, "{spec:?}");
    }
    let mut address = spec("http://x:8000");
    address.target.host = "fd00::4".into();
    assert_eq!(of(&found, &address).0, Some(0.8));
}

#[test]
fn partitions_of_a_gpu_are_gpus_of_their_own() {
    let found = gpus(&[
        ("gpu=0,GPU_I_ID=1,namespace=ml,pod=a", 20.0, 1.0, 3.0),
        ("gpu=0,GPU_I_ID=2,namespace=ml,pod=a", 40.0, 1.0, 3.0),
        ("UUID=GPU-9,namespace=ml,pod=b", 10.0, 1.0, 1.0),
    ]);
    let mut names: Vec<&str> = found.iter().map(|gpu| &*gpu.name.gpu).collect();
    names.sort_unstable();
    assert_eq!(names, ["0/1", "0/2", "GPU-9"]);
    assert_eq!(of(&found, &with_pod("http://a:1", "a")).0, Some(0.3));
}

/// B3: of an instance of a partitioned GPU the profiler's share is the number; 0 beside it is no idleness, and unknown
/// alone.
#[test]
fn zero_utilisation_of_an_instance_is_unknown_and_the_profilers_share_counts() {
    let util = |samples: &[(Family, &str, f64)]| {
        let mut gather = Gather::default();
        for (family, text, value) in samples {
            gather.add(*family, &labels(text), *value);
        }
        of(&gather.finish(), &with_pod("http://a:1", "a")).0
    };
    const INSTANCE: &str = "gpu=0,GPU_I_ID=3,GPU_I_PROFILE=1g.10gb,namespace=ml,pod=a";
    const WHOLE: &str = "gpu=0,namespace=ml,pod=a";
    assert_eq!(util(&[(Family::Util, INSTANCE, 0.0)]), None);
    assert_eq!(util(&[(Family::Util, INSTANCE, 0.0), (Family::Active, INSTANCE, 0.75)]), Some(0.75));
    assert_eq!(util(&[(Family::Active, INSTANCE, 0.0)]), Some(0.0), "the profiler's zero is idleness");
    assert_eq!(util(&[(Family::Util, WHOLE, 0.0), (Family::Active, WHOLE, 0.75)]), Some(0.0));
    assert_eq!(util(&[(Family::Active, WHOLE, 0.75)]), Some(0.75), "the other one is not told");
    assert_eq!(util(&[(Family::Active, WHOLE, 9.2e18)]), None, "blank");
}

/// B3: labels of older exporters name pods too, also beside those that Prometheus adds for the exporter itself.
#[test]
fn older_labels_name_pods_too() {
    for text in [
        "gpu=0,pod_name=a,pod_namespace=ml,container_name=vllm",
        "gpu=0,pod_name=a,pod_namespace=ml,container_name=vllm,pod=dcgm-1,namespace=monitoring",
    ] {
        let found = gpus(&[(text, 70.0, 1.0, 3.0)]);
        assert_eq!(of(&found, &with_pod("http://a:1", "a")), (Some(0.7), Some(0.25)), "{text}");
    }
}

#[test]
fn floods_and_giant_names_are_cut() {
    let mut gather = Gather::default();
    for index in 0..GPUS_MAX + 10 {
        gather.add(Family::Util, &labels(&format!("gpu={index}")), 1.0);
    }
    gather.add(Family::Util, &labels("gpu=0"), 2.0);
    gather.add(Family::Util, &[("gpu".into(), "x".repeat(LABEL_BYTES_MAX + 1).into())], 1.0);
    gather.add(Family::Util, &labels("pod=a"), 1.0);
    let found = gather.finish();
    assert_eq!(found.len(), GPUS_MAX);
    assert!(found.iter().any(|gpu| gpu.util_percent == Some(2.0)), "who is known is still heard");
}

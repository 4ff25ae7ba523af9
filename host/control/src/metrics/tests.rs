use domain::name::ObjectName;
use prometheus::TextEncoder;

use super::*;

struct World {
    registry: Registry,
    metrics: ControllerMetrics,
}

fn world() -> World {
    let registry = Registry::new();
    let metrics = ControllerMetrics::register(&registry).expect("registered once");
    World { registry, metrics }
}

impl World {
    /// The samples of one family, as printed.
    fn samples(&self, family: &str) -> Vec<String> {
        let page = TextEncoder::new().encode_to_string(&self.registry.gather()).expect("a page");
        let of_family = |line: &&str| line.split(['{', ' ']).next() == Some(family);
        page.lines().filter(of_family).map(|line| line[family.len()..].to_owned()).collect()
    }
}

fn object(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::StaticRoute, name: ObjectName::new("ml", name) }
}

#[test]
fn reconciliations_count_as_controller_runtime_counts_them() {
    let world = world();
    world.metrics.controller("staticroute", 4);
    assert_eq!(
        world.samples("controller_runtime_reconcile_errors_total"),
        [r#"{controller="staticroute"} 0"#]
    );
    let running = world.metrics.reconciling("staticroute");
    assert_eq!(world.samples("controller_runtime_active_workers"), [r#"{controller="staticroute"} 1"#]);
    running.ended(Reconciled::Success);
    world.metrics.reconciled("staticroute", Reconciled::Error, Duration::from_millis(30));
    drop(world.metrics.reconciling("staticroute"));
    assert_eq!(world.samples("controller_runtime_active_workers"), [r#"{controller="staticroute"} 0"#]);
    assert_eq!(
        world.samples("controller_runtime_reconcile_total"),
        [
            r#"{controller="staticroute",result="error"} 1"#,
            r#"{controller="staticroute",result="requeue"} 0"#,
            r#"{controller="staticroute",result="requeue_after"} 0"#,
            r#"{controller="staticroute",result="success"} 1"#,
        ]
    );
    assert_eq!(
        world.samples("controller_runtime_reconcile_errors_total"),
        [r#"{controller="staticroute"} 1"#]
    );
    assert_eq!(
        world.samples("controller_runtime_reconcile_time_seconds_count"),
        [r#"{controller="staticroute"} 2"#]
    );
    assert_eq!(
        world.samples("controller_runtime_max_concurrent_reconciles"),
        [r#"{controller="staticroute"} 4"#]
    );
}

#[test]
fn queues_and_leases_are_told_by_name() {
    let world = world();
    world.metrics.queued("status", 3);
    world.metrics.queue_depth("status", 2);
    world.metrics.unqueued("status", Duration::from_micros(50));
    world.metrics.leader("wicketgate", true);
    assert_eq!(world.samples("workqueue_adds_total"), [r#"{name="status"} 3"#]);
    assert_eq!(world.samples("workqueue_depth"), [r#"{name="status"} 2"#]);
    assert_eq!(world.samples("workqueue_queue_duration_seconds_sum"), [r#"{name="status"} 0.00005"#]);
    assert_eq!(world.samples("leader_election_master_status"), [r#"{name="wicketgate"} 1"#]);
    world.metrics.leader("wicketgate", false);
    assert_eq!(world.samples("leader_election_master_status"), [r#"{name="wicketgate"} 0"#]);
}

#[test]
fn conditions_have_one_status_each_and_go_with_their_object() {
    let world = world();
    world.metrics.conditions(&object("a"), [("Ready", "True"), ("Accepted", "True")]);
    world.metrics.conditions(&object("ab"), [("Ready", "Unknown")]);
    world.metrics.conditions(&object("a"), [("Ready", "False")]);
    let sample = |name: &str, status: &str, value: u8| {
        format!(
            r#"{{kind="StaticRoute",namespace="ml",name="{name}",type="Ready",status="{status}"}} {value}"#
        )
    };
    let all = |name: &str, values: [u8; 3]| {
        let statuses = ["False", "True", "Unknown"];
        statuses.iter().zip(values).map(|(status, value)| sample(name, status, value)).collect::<Vec<_>>()
    };
    assert_eq!(
        world.samples("production_stack_resource_condition"),
        [all("a", [1, 0, 0]), all("ab", [0, 0, 1])].concat()
    );
    world.metrics.forget(&object("a"));
    assert_eq!(
        world.samples("production_stack_resource_condition"),
        all("ab", [0, 0, 1]),
        "another whose name begins alike stays"
    );
}

#[test]
fn resources_are_those_of_now() {
    let world = world();
    world.metrics.resources([(Kind::StaticRoute, 2), (Kind::RoutingPolicy, 1)]);
    world.metrics.resources([(Kind::StaticRoute, 1)]);
    assert_eq!(world.samples("production_stack_resources"), [r#"{kind="StaticRoute"} 1"#]);
}

/// `docs/metrics.md` tells operators what the page shows; `BLESS=1` writes its second half, the first is the data plane's.
#[test]
fn the_reference_equals_the_table_of_families() {
    const HEAD: &str = "\n## Control plane\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let page = std::fs::read_to_string(path).expect("the reference");
    let (first, second) = page.split_at(page.find(HEAD).unwrap_or(page.len()));
    let expected = format!(
        "{HEAD}\nWritten by `BLESS=1 cargo test -p control metrics`. `controller` and `name` are fixed names of \
         controllers, queues and leases; `configuration` is what turns manifests into what is in force. Families of \
         leader election and conditions need a cluster.\n\n{}",
        family::reference()
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{first}{expected}")).expect("written");
    } else {
        assert_eq!(second, expected, "run with BLESS=1");
    }
}

use super::*;
use crate::workload::{Shape, chats, shared_system};

fn request(arrival_ms: u64, first_block: u64, follows: Option<usize>) -> Request {
    Request {
        arrival: Duration::from_millis(arrival_ms),
        follows,
        session: first_block,
        tenant: 0,
        blocks: (first_block..first_block + 4).collect(),
        prompt_tokens: 64,
        output_tokens: 2,
    }
}

fn workload(requests: Vec<Request>) -> Workload {
    Workload { name: "test".into(), block_tokens: 16, requests }
}

fn config(engines: usize) -> FleetConfig {
    let core = CoreConfig {
        prefill_tokens_per_second: 1_000.0,
        step_base: Duration::from_millis(10),
        step_per_sequence: Duration::ZERO,
        ..CoreConfig::default()
    };
    FleetConfig { engines, core, ..FleetConfig::default() }
}

#[test]
fn report_counts_hits_work_and_times() {
    let work = workload(vec![request(0, 0, None), request(1_000, 0, None), request(1_001, 50, None)]);
    let report = run(&work, &config(2), &mut RoundRobin::default());
    assert_eq!((report.finished, report.rejected), (3, 0));
    assert_eq!(report.cached_tokens, 0, "the second went to the other engine");
    assert_eq!(report.engines[0].totals.work_tokens(), 2 * 66);
    assert_eq!(report.work_max_over_mean(), 132.0 / 99.0);
    assert_eq!(report.ttft_p50, Duration::from_millis(74));
    assert_eq!(report.latency_p99, Duration::from_millis(84));
    let report = run(&work, &config(2), &mut Oracle);
    assert_eq!(report.cached_tokens, 48, "three of four blocks");
}

#[test]
fn follower_waits_for_the_answer_it_follows() {
    let work = workload(vec![request(0, 0, None), request(1, 9, Some(0)), request(500, 20, Some(0))]);
    let mut sent = Vec::new();
    run(&work, &config(1), &mut |request: &Request, fleet: &FleetView<'_>| {
        sent.push((request.session, fleet.now().as_millis()));
        0
    });
    assert_eq!(sent, [(0, 0), (9, 84), (20, 500)]);
}

#[test]
fn scraped_loads_are_old_and_own_counts_are_not() {
    let work = workload((0..40).map(|i| request(i * 10, i * 10, None)).collect());
    let mut seen = Vec::new();
    let mut fleet = config(1);
    fleet.scrape_interval = Duration::from_millis(100);
    run(&work, &fleet, &mut |_: &Request, fleet: &FleetView<'_>| {
        let truth = fleet.true_load(0);
        assert_eq!(fleet.in_flight(0), truth.running + truth.waiting);
        assert!(fleet.scrape_age() < Duration::from_millis(100));
        let scraped = fleet.scraped(0);
        seen.push((fleet.now().as_millis() / 100, scraped.running + scraped.waiting));
        0
    });
    seen.dedup();
    assert_eq!(seen.len(), 4, "one value per scrape: {seen:?}");
}

#[test]
fn router_is_told_of_every_first_token_and_end() {
    #[derive(Default)]
    struct Counting {
        first: u32,
        ended: u32,
        cached: u32,
    }
    impl Router for Counting {
        fn pick(&mut self, _: &Request, _: &FleetView<'_>) -> usize {
            usize::MAX
        }
        fn first_token(&mut self, engine: usize, _: &Request, _: Time) {
            assert_eq!(engine, 2, "beyond the last is the last");
            self.first += 1;
        }
        fn finished(&mut self, _: usize, _: &Request, done: &Done) {
            assert!(done.sent_at < done.first_token_at && done.first_token_at < done.finished_at);
            self.ended += 1;
            self.cached += done.cached_tokens;
        }
    }
    let work = workload((0..10).map(|i| request(i * 500, 0, None)).collect());
    let mut router = Counting::default();
    run(&work, &config(3), &mut router);
    assert_eq!((router.first, router.ended, router.cached), (10, 10, 9 * 48));
}

#[test]
fn same_run_gives_the_same_report_and_routers_differ_as_known() {
    let shape = Shape { requests: 300, requests_per_second: 6.0, seed: 1 };
    let fleet = FleetConfig { engines: 4, ..FleetConfig::default() };
    let chats = chats(shape);
    let run = |work: &Workload, name: &str| run(work, &fleet, &mut *router_by_name(name).unwrap());
    assert_eq!(run(&chats, "oracle"), run(&chats, "oracle"));
    assert!(run(&chats, "session-hash").hit_rate() > 2.0 * run(&chats, "round-robin").hit_rate());
    assert!(run(&chats, "oracle").hit_rate() > 0.95 * run(&chats, "session-hash").hit_rate());
    let shared = shared_system(shape);
    assert!(
        run(&shared, "longest-prefix").work_max_over_mean() > 3.0,
        "everyone shares a prefix: it collapses"
    );
    assert!(run(&shared, "oracle").work_max_over_mean() < 1.2);
}

#[test]
fn offered_capacity_keeps_a_fleet_busy_and_half_of_it_does_not_queue() {
    let shape = |rate| Shape { requests: 400, requests_per_second: rate, seed: 1 };
    let fleet = FleetConfig { engines: 2, ..FleetConfig::default() };
    let most = capacity(&shared_system(shape(10.0)), &fleet, &mut Oracle);
    let report = run(&shared_system(shape(0.5 * most)), &fleet, &mut Oracle);
    assert_eq!(report.finished, 400);
    assert!(report.ttft_p99 < Duration::from_secs(1), "{:?}", report.ttft_p99);
}

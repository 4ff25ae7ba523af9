use super::*;

const BLOCK: u32 = 16;

/// One step is 10 ms, one prompt token 1 ms, decoding sequences are free: times can be read off.
fn config(kv_blocks: u32) -> CoreConfig {
    CoreConfig {
        block_tokens: BLOCK,
        kv_blocks,
        running_max: 8,
        waiting_max: 4,
        step_tokens_max: 64,
        prefill_tokens_per_second: 1_000.0,
        step_base: ms(10),
        step_per_sequence: Duration::ZERO,
        prefix_cache: true,
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A prompt of `tokens` whose blocks are `first`, `first + 1`, …
fn work(first: u64, tokens: u32, output: u32) -> Work {
    let blocks = (first..first + u64::from(tokens / BLOCK)).collect();
    Work { blocks, prompt_tokens: tokens, output_tokens: output }
}

fn run(core: &mut Core) -> Vec<Event> {
    let mut events = Vec::new();
    core.advance(Duration::from_secs(3_600), &mut events);
    events
}

fn times(events: &[Event], id: SequenceId) -> Vec<u64> {
    let tokens = events.iter().filter(|e| e.sequence == id && matches!(e.kind, EventKind::Token { .. }));
    tokens.map(|e| e.at.as_millis() as u64).collect()
}

fn cached(events: &[Event], id: SequenceId) -> Vec<u32> {
    let of = |e: &Event| match e.kind {
        EventKind::Admitted { cached_tokens } if e.sequence == id => Some(cached_tokens),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn first_token_costs_the_prompt_and_each_later_one_a_step() {
    let mut core = Core::new(config(100));
    let id = core.submit(ms(5), work(0, 32, 3)).unwrap();
    let events = run(&mut core);
    assert_eq!(times(&events, id), [5 + 10 + 32, 57, 67]);
    assert_eq!(events.last().unwrap().kind, EventKind::Finished);
    assert_eq!((core.load().running, core.load().kv_usage), (0, 0.0));
    assert_eq!(core.totals().busy, ms(62));
}

#[test]
fn long_prompts_are_computed_in_chunks_beside_the_decoding_of_others() {
    let mut core = Core::new(config(100));
    let a = core.submit(ms(0), work(0, 16, 3)).unwrap();
    let b = core.submit(ms(1), work(50, 100, 1)).unwrap();
    let events = run(&mut core);
    // a alone until 26; then 63 of b's tokens beside a's second, then the rest of b beside a's third.
    assert_eq!(times(&events, a), [26, 26 + 73, 99 + 47]);
    assert_eq!(times(&events, b), [146]);
}

#[test]
fn prefix_cache_hits_whole_blocks_and_never_the_whole_prompt() {
    let cases = [
        ("the same prompt again lacks its last block", work(0, 64, 1), 48),
        ("a longer one hits all full blocks", work(0, 70, 1), 64),
        ("another beginning hits nothing", work(7, 64, 1), 0),
        ("a shorter one hits what it has", work(0, 33, 1), 32),
    ];
    for (why, second, expected) in cases {
        let mut core = Core::new(config(100));
        core.submit(ms(0), work(0, 64, 1)).unwrap();
        run(&mut core);
        assert_eq!(core.cached_tokens(&second.blocks, second.prompt_tokens), expected, "{why}");
        let id = core.submit(ms(9_000), second).unwrap();
        assert_eq!(cached(&run(&mut core), id), [expected], "{why}");
        assert_eq!(core.totals().cached_tokens, u64::from(expected), "{why}");
    }
}

#[test]
fn sequences_that_compute_the_same_prefix_at_once_end_up_sharing_it() {
    let mut core = Core::new(config(100));
    core.submit(ms(0), work(90, 16, 1)).unwrap();
    core.submit(ms(1), work(0, 32, 5)).unwrap();
    core.submit(ms(1), work(0, 32, 5)).unwrap();
    let mut events = Vec::new();
    core.advance(ms(26 + 10 + 64), &mut events);
    // Two prompt blocks shared, one block of output each.
    assert_eq!(core.load().kv_usage, 4.0 / 100.0);
}

#[test]
fn least_recently_used_prefix_is_evicted_first_and_its_tail_before_its_head() {
    let mut core = Core::new(config(8));
    for (at, first) in [(0, 0), (1_000, 100)] {
        core.submit(ms(at), work(first, 48, 1)).unwrap();
        run(&mut core);
    }
    assert_eq!(core.cached_tokens(&work(0, 48, 1).blocks, 100), 48);
    core.submit(ms(2_000), work(200, 48, 1)).unwrap();
    run(&mut core);
    // Nine blocks of prompts in eight: the oldest prompt lost its last block, the younger ones nothing.
    let kept: Vec<u32> =
        [0, 100, 200].map(|first| core.cached_tokens(&work(first, 48, 1).blocks, 100)).into();
    assert_eq!(kept, [32, 48, 48]);
}

#[test]
fn full_cache_makes_newcomers_wait_in_order() {
    let mut core = Core::new(config(8));
    let a = core.submit(ms(0), work(0, 80, 4)).unwrap();
    let b = core.submit(ms(1), work(20, 64, 1)).unwrap();
    let c = core.submit(ms(1), work(40, 16, 1)).unwrap();
    assert_eq!((core.load().running, core.load().waiting), (1, 2));
    assert_eq!(core.load().pending_prefill_tokens, 160);
    let events = run(&mut core);
    let end = |id| *times(&events, id).last().unwrap();
    assert!(end(a) < end(b), "b waits for a's blocks");
    assert!(end(a) < end(c), "c would fit but does not overtake b");
    assert_eq!(core.totals().preempted, 0);
}

#[test]
fn growing_output_preempts_the_youngest_which_still_finishes() {
    let mut core = Core::new(config(6));
    let a = core.submit(ms(0), work(0, 32, 40)).unwrap();
    let b = core.submit(ms(1), work(20, 32, 40)).unwrap();
    let events = run(&mut core);
    assert!(core.totals().preempted >= 1);
    assert_eq!(times(&events, a).len(), 40);
    assert_eq!(times(&events, b).len(), 40, "no token is generated twice");
    assert!(events.iter().all(|e| e.sequence == b || e.kind != EventKind::Preempted), "the older one stays");
    assert_eq!(core.totals().finished, 2);
}

#[test]
fn aborted_sequence_leaves_at_once_and_frees_its_blocks() {
    let mut core = Core::new(config(8));
    let a = core.submit(ms(0), work(0, 80, 9)).unwrap();
    let b = core.submit(ms(0), work(20, 64, 2)).unwrap();
    assert!(core.abort(a));
    assert!(!core.abort(a), "only once");
    assert_eq!(core.load().running, 0);
    let events = run(&mut core);
    assert!(times(&events, a).is_empty());
    // The step that computed a's first chunk still takes its time.
    assert_eq!(times(&events, b), [74 + 74, 158]);
    assert_eq!((core.totals().aborted, core.totals().finished), (1, 1));
    let late = core.submit(ms(999), work(0, 16, 1)).unwrap();
    assert!(core.abort(late));
}

#[test]
fn what_cannot_fit_is_rejected_and_so_is_what_overfills_the_queue() {
    let mut core = Core::new(config(8));
    assert_eq!(core.submit(ms(0), work(0, 120, 9)), Err(Rejected::TooLong));
    for _ in 0..5 {
        core.submit(ms(0), work(0, 100, 9)).unwrap();
    }
    assert_eq!(core.submit(ms(0), work(0, 16, 1)), Err(Rejected::QueueFull));
    assert_eq!(core.totals().submitted, 5);
}

#[test]
fn reset_forgets_prefixes_but_not_running_sequences() {
    let mut core = Core::new(config(20));
    core.submit(ms(0), work(0, 48, 1)).unwrap();
    run(&mut core);
    let id = core.submit(ms(500), work(0, 64, 4)).unwrap();
    core.reset_prefix_cache();
    assert_eq!(times(&run(&mut core), id).len(), 4);
    assert_eq!(core.cached_tokens(&work(0, 64, 1).blocks, 64), 0);
    assert_eq!(core.load().kv_usage, 0.0);
}

#[test]
fn same_work_gives_the_same_events_however_time_is_cut() {
    let trace: Vec<_> =
        (0..60u64).map(|i| (ms(i * 37), work(i % 7 * 10, 20 + (i as u32 * 13) % 90, 5))).collect();
    let play = |step: u64| {
        let mut core = Core::new(CoreConfig { waiting_max: 100, ..config(24) });
        let mut events = Vec::new();
        for (at, work) in &trace {
            let from = core.next_event_at().map_or(0, |t| t.as_millis() as u64);
            for now in (from..at.as_millis() as u64).step_by(step as usize) {
                core.advance(ms(now), &mut events);
            }
            core.advance(*at, &mut events);
            core.submit(*at, work.clone()).unwrap();
        }
        core.advance(Duration::from_secs(600), &mut events);
        (events, *core.totals())
    };
    assert_eq!(play(1), play(1_000));
}

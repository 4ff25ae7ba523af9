//! The observing task against real servers on loopback. Conditions are awaited, nothing sleeps.

use std::time::Instant;

use domain::endpoint::{Endpoint, EndpointState};
use domain::name::Generation;
use domain::published::{Publisher, published};
use domain::snapshot::Snapshot;
use tokio::task::JoinHandle;

use super::fake_engine::{FakeEngine, Script, spec};
use super::*;
use crate::fake::soon;

struct Observed {
    publisher: Publisher,
    reports: watch::Sender<Report>,
    lists: mpsc::Receiver<ObservedModels>,
    answered: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    generation: u64,
}

impl Observed {
    fn start(interval: Duration) -> Self {
        let (publisher, published) = published();
        let (reports, heard) = watch::channel(Report::default());
        let (lists_in, lists) = mpsc::channel(8);
        let (stop, stopped) = watch::channel(false);
        let settings = ObserveSettings { metrics_interval: interval, models_interval: interval };
        let clock = Clock::new(Instant::now());
        let cards = watch::Sender::default();
        let (_, changed_pods) = mpsc::channel(1);
        let (remarks_in, _) = mpsc::channel(8);
        let (answered_in, answered) = watch::channel(false);
        let names = Names::default();
        let observer = Observer {
            published,
            reports: heard,
            changed_pods,
            lists: lists_in,
            remarks: remarks_in,
            answered: answered_in,
            cards,
            clock,
            settings,
            names,
        };
        let task = tokio::spawn(observer.run(stopped));
        Self { publisher, reports, lists, answered, stop, task, generation: 0 }
    }

    fn publish(&mut self, endpoints: &[Endpoint], excluded: &[Arc<EndpointSpec>]) {
        let generation = self.publish_snapshot(endpoints);
        self.reports.send_modify(|report| {
            report.generation = generation;
            report.excluded = excluded.into();
        });
    }

    fn publish_snapshot(&mut self, endpoints: &[Endpoint]) -> Generation {
        self.generation += 1;
        let generation = Generation(self.generation);
        self.publisher.publish(Arc::new(Snapshot::new(
            generation,
            Vec::new(),
            Vec::new(),
            endpoints.to_vec(),
        )));
        generation
    }

    async fn next_list(&mut self) -> Option<Vec<String>> {
        let list = self.lists.recv().await.expect("the observer runs");
        list.models.map(|models| models.iter().map(|model| model.id.to_string()).collect())
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

fn endpoint(spec: EndpointSpec) -> Endpoint {
    Endpoint { spec: Arc::new(spec), state: Arc::new(EndpointState::new(1)) }
}

fn models(names: &[&str]) -> String {
    let cards: Vec<String> = names.iter().map(|name| format!("{{\"id\":\"{name}\"}}")).collect();
    format!("{{\"object\":\"list\",\"data\":[{}]}}", cards.join(","))
}

const OFTEN: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_page_becomes_the_endpoints_numbers_and_a_broken_page_leaves_them() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/metrics", 200, "vllm:num_requests_waiting 4\nvllm:num_requests_running 2\n");
    let endpoint = endpoint(engine.spec());
    let mut observed = Observed::start(OFTEN);
    observed.publish(std::slice::from_ref(&endpoint), &[]);
    // On a busy machine the first answer may not be in time; it is asked again.
    assert!(soon(|| endpoint.state.reading().queued.is_some()).await, "never: a reading");
    let reading = endpoint.state.reading();
    assert_eq!((reading.queued, reading.running, reading.kv_usage), (Some(4.0), Some(2.0), None));
    for broken in
        [Script::Answer(500, "vllm:num_requests_waiting 9\n".to_owned()), Script::Raw(b"?".to_vec())]
    {
        engine.on("/metrics", broken);
        engine.forget();
        for _ in 0..3 {
            engine.asked("/metrics").await;
        }
        assert_eq!(endpoint.state.reading(), reading);
    }
    observed.end().await;
}

#[tokio::test]
async fn a_model_list_is_told_when_it_changes_and_only_then() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, &models(&["a"]));
    let mut observed = Observed::start(OFTEN);
    observed.publish(&[endpoint(engine.spec())], &[]);
    assert_eq!(observed.next_list().await, Some(vec!["a".to_owned()]));
    for _ in 0..3 {
        engine.asked("/v1/models").await;
    }
    engine.answer("/v1/models", 200, &models(&["a", "adapter"]));
    assert_eq!(
        observed.next_list().await,
        Some(vec!["a".to_owned(), "adapter".to_owned()]),
        "nothing in between"
    );
    observed.end().await;
}

#[tokio::test]
async fn failed_probes_change_no_list_and_an_engine_without_one_is_believed_after_three_answers() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, &models(&["a"]));
    let mut observed = Observed::start(OFTEN);
    observed.publish(&[endpoint(engine.spec())], &[]);
    assert_eq!(observed.next_list().await, Some(vec!["a".to_owned()]));
    let failures = [
        Script::Answer(503, String::new()),
        Script::Raw(Vec::new()),
        Script::Answer(200, "<html>".to_owned()),
        Script::Answer(404, String::new()),
    ];
    for failure in failures {
        engine.on("/v1/models", failure);
        engine.asked("/v1/models").await;
        engine.asked("/v1/models").await;
        assert!(observed.lists.try_recv().is_err());
    }
    assert_eq!(observed.next_list().await, None, "three times 404: it has no list");
    observed.end().await;
}

#[tokio::test]
async fn an_engine_without_openai_paths_is_asked_what_it_has_loaded() {
    let engine = FakeEngine::start().await;
    engine.answer("/api/ps", 200, r#"{"models":[{"name":"qwen","model":"qwen"}]}"#);
    let mut observed = Observed::start(OFTEN);
    observed.publish(&[endpoint(engine.spec())], &[]);
    assert_eq!(observed.next_list().await, Some(vec!["qwen".to_owned()]));
    observed.end().await;
}

#[tokio::test]
async fn an_excluded_engine_is_asked_for_its_models_and_nothing_else_until_it_is_back() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, &models(&["other"]));
    let endpoint = endpoint(engine.spec());
    let mut observed = Observed::start(OFTEN);
    observed.publish(&[], &[Arc::clone(&endpoint.spec)]);
    assert_eq!(observed.next_list().await, Some(vec!["other".to_owned()]));
    for _ in 0..5 {
        let head = engine.heads.recv().await.expect("the server runs");
        assert!(head.starts_with("GET /v1/models "), "{head}");
    }
    observed.publish(&[endpoint], &[]);
    engine.asked("/metrics").await;
    observed.end().await;
}

#[tokio::test]
async fn an_engine_that_goes_out_for_its_list_is_never_taken_for_one_that_left() {
    let engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, &models(&["a"]));
    let mut observed = Observed::start(OFTEN);
    let endpoint = endpoint(engine.spec());
    observed.publish(std::slice::from_ref(&endpoint), &[]);
    assert_eq!(observed.next_list().await, Some(vec!["a".to_owned()]));
    // Its list keeps it out: the snapshot is in force, and a report from before it is heard first.
    let generation = observed.publish_snapshot(&[]);
    observed.reports.send_modify(|report| report.bursts += 1);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    observed.reports.send_modify(|report| {
        report.generation = generation;
        report.excluded = [endpoint.spec].into();
    });
    engine.answer("/v1/models", 200, &models(&["b"]));
    assert_eq!(
        observed.next_list().await,
        Some(vec!["b".to_owned()]),
        "it was asked on, and never forgotten"
    );
    observed.end().await;
}

#[tokio::test]
async fn the_list_of_an_engine_that_left_is_withdrawn() {
    let engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, &models(&["a"]));
    let mut observed = Observed::start(OFTEN);
    observed.publish(&[endpoint(engine.spec())], &[]);
    assert_eq!(observed.next_list().await, Some(vec!["a".to_owned()]));
    observed.publish(&[], &[]);
    assert_eq!(observed.next_list().await, None);
    observed.end().await;
}

#[tokio::test]
async fn a_sleeping_engine_is_marked_and_unmarked() {
    let mut engine = FakeEngine::start().await;
    engine.answer("/is_sleeping", 200, r#"{"is_sleeping":true}"#);
    let endpoint = endpoint(engine.spec());
    let mut observed = Observed::start(OFTEN);
    observed.publish(std::slice::from_ref(&endpoint), &[]);
    for (answer, asleep) in [(true, true), (false, false)] {
        engine.answer("/is_sleeping", 200, &format!("{{\"is_sleeping\":{answer}}}"));
        // The first may have been asked before the answer changed.
        for _ in 0..3 {
            engine.asked("/is_sleeping").await;
        }
        assert_eq!(endpoint.is_asleep(), asleep);
    }
    observed.end().await;
}

#[tokio::test]
async fn an_engine_that_says_it_is_awake_is_in_whatever_its_label_says() {
    // What an engine is asked often, and whether its label then still counts.
    for (status, often, asleep) in
        [(200, "/is_sleeping", false), (503, "/is_sleeping", true), (404, "/v1/models", true)]
    {
        let mut engine = FakeEngine::start().await;
        engine.answer("/is_sleeping", status, r#"{"is_sleeping":false}"#);
        let endpoint = endpoint(EndpointSpec { asleep: true, ..engine.spec() });
        let mut observed = Observed::start(OFTEN);
        observed.publish(std::slice::from_ref(&endpoint), &[]);
        engine.asked("/is_sleeping").await;
        for _ in 0..3 {
            engine.asked(often).await;
        }
        assert_eq!(endpoint.is_asleep(), asleep, "{status}");
        observed.end().await;
    }
}

#[tokio::test]
async fn silent_engines_hold_up_neither_the_others_nor_the_end() {
    let mut silent = Vec::new();
    for _ in 0..8 {
        let engine = FakeEngine::start().await;
        for path in ["/metrics", "/v1/models", "/is_sleeping"] {
            engine.on(path, Script::Silence);
        }
        silent.push(engine);
    }
    let mut lively = FakeEngine::start().await;
    lively.answer("/metrics", 200, "vllm:num_requests_running 1\n");
    let mut endpoints: Vec<Endpoint> = silent.iter().map(|engine| endpoint(engine.spec())).collect();
    endpoints.push(endpoint(lively.spec()));
    let mut observed = Observed::start(OFTEN);
    observed.publish(&endpoints, &[]);
    for _ in 0..5 {
        lively.asked("/metrics").await;
    }
    let state = &endpoints.last().expect("the lively one").state;
    assert!(soon(|| state.reading().running == Some(1.0)).await, "never: the lively one's reading");
    observed.end().await;
}

/// D2: the first answers are in when every engine has answered or failed to, and what they list was told before.
#[tokio::test]
async fn first_answers_are_in_when_every_engine_has_answered_or_failed() {
    let engine = FakeEngine::start().await;
    engine.answer("/v1/models", 200, &models(&["a"]));
    let mut observed = Observed::start(OFTEN);
    assert!(!*observed.answered.borrow());
    let nobody = spec("http://127.0.0.1:1");
    observed.publish(&[endpoint(engine.spec()), endpoint(nobody)], &[]);
    observed.answered.wait_for(|answered| *answered).await.expect("the observer runs");
    assert_eq!(observed.lists.try_recv().expect("told before").models.map(|models| models.len()), Some(1));
    observed.end().await;
}

/// D2: a snapshot without engines has nothing to wait for.
#[tokio::test]
async fn nobody_is_waited_for_where_there_is_no_engine() {
    let mut observed = Observed::start(OFTEN);
    observed.publish(&[], &[]);
    observed.answered.wait_for(|answered| *answered).await.expect("the observer runs");
    observed.end().await;
}

/// B2: a page that is asked for and never read has an age from the start on, which is no number for policies.
#[tokio::test]
async fn a_page_that_was_never_read_has_an_age_from_the_start() {
    use domain::signal::Signal;

    let mut engine = FakeEngine::start().await;
    let endpoint = endpoint(engine.spec());
    let mut observed = Observed::start(OFTEN);
    assert_eq!(endpoint.state.unread_ms(5_000), None, "not asked for yet");
    observed.publish(std::slice::from_ref(&endpoint), &[]);
    engine.asked("/metrics").await;
    engine.asked("/metrics").await;
    let age = endpoint.state.unread_ms(90_000_000).expect("asked for");
    assert!(age > 60_000_000, "{age}");
    assert!(endpoint.read(Signal::AgeMs, 90_000_000).is_nan());
    observed.end().await;
}

use std::sync::Arc;

use domain::assemble::Assembler;
use domain::draft::RouteDraft;
use domain::failure::FailureKind;

use super::*;
use crate::fixture;

struct World {
    snapshot: Arc<Snapshot>,
    cards: Cards,
}

/// Two gateways: the first routes an adapter, its base and a model without endpoints, the second the base and another.
fn world() -> World {
    let pods =
        [fixture::endpoint("http://10.0.0.1:8000", "vllm-0"), fixture::endpoint("http://10.0.0.2:8000", "")];
    let adapter = RouteDraft { parent: Some("base".into()), ..fixture::route("adapter", &pods[..1]) };
    let renamed =
        RouteDraft { engine_model: Some("org/other".into()), ..fixture::route("other", &pods[1..]) };
    let first =
        fixture::gateway("a", vec![fixture::route("base", &pods), adapter, fixture::route("gone", &[])]);
    let second = fixture::gateway("b", vec![renamed, fixture::route("base", &pods[1..])]);
    let card = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let cards = Cards::from_iter([
        (
            "base".into(),
            card(
                r#"{"permission":[{"id":"x"}],"id":"base","created":7,"owned_by":"me","root":"/m","max_model_len":2048}"#,
            ),
        ),
        (
            "org/other".into(),
            card(
                r#"{"id":"org/other","object":"model","created":8,"parent":null,"big":12345678901234567890}"#,
            ),
        ),
        ("adapter".into(), card("[1]")),
    ]);
    World { snapshot: fixture::snapshot(&mut Assembler::default(), vec![first, second]), cards }
}

fn facts(world: &World) -> LocalFacts<'_> {
    LocalFacts {
        gateway: None,
        dialect: Dialect::Json,
        request_id: "id-1",
        version: "1.2.3",
        started_unix: 1_754_000_000,
        cards: &world.cards,
        health: Health::Healthy,
        dynamic_config: None,
        metrics: None,
        model: "",
    }
}

fn page<'a>(world: &'a World, page: LocalPage, change: impl FnOnce(&mut LocalFacts<'a>)) -> (u16, String) {
    let mut facts = facts(world);
    change(&mut facts);
    let answer = answer(page, &world.snapshot, &facts);
    assert_eq!(answer.headers()["x-request-id"], "id-1");
    (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap())
}

const ADAPTER: &str =
    r#"{"id":"adapter","object":"model","created":1754000000,"owned_by":"vllm","root":null,"parent":"base"}"#;
const BASE: &str = r#"{"id":"base","object":"model","created":7,"owned_by":"me","root":"/m","parent":null,"permission":[{"id":"x"}],"max_model_len":2048}"#;
const OTHER: &str = r#"{"id":"other","object":"model","created":8,"owned_by":"vllm","root":null,"parent":null,"big":12345678901234567890}"#;

/// D21.
#[test]
fn models_are_listed_once_with_what_engines_said_and_without_aliases() {
    let world = world();
    let expected = format!(r#"{{"object":"list","data":[{ADAPTER},{BASE},{OTHER}]}}"#);
    assert_eq!(page(&world, LocalPage::Models, |_| {}), (200, expected));
    let named = page(&world, LocalPage::Models, |facts| facts.gateway = Some(&world.snapshot.gateways[1]));
    assert_eq!(named, (200, format!(r#"{{"object":"list","data":[{BASE},{OTHER}]}}"#)));
}

/// B8: one model by its id, an alias included; what is not listed is not found, in OpenAI's words.
#[test]
fn a_model_is_shown_by_its_id() {
    let world = world();
    let of = |id: &'static str| page(&world, LocalPage::Model, |facts| facts.model = id);
    assert_eq!(of("base"), (200, BASE.to_owned()));
    assert_eq!(of("other"), (200, OTHER.to_owned()));
    assert_eq!(of("alias"), (200, BASE.replace(r#""id":"base""#, r#""id":"alias""#)));
    for id in ["gone", "org/other", "nobody's:1/\u{e9}"] {
        let (status, body) = of(id);
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, error["error"]["code"].as_str()), (404, Some("model_not_found")), "{body}");
        assert_eq!(error["error"]["param"], "model");
    }
    let named = |id| {
        page(&world, LocalPage::Model, |facts| {
            (facts.model, facts.gateway) = (id, Some(&*world.snapshot.gateways[1]));
        })
    };
    assert_eq!((named("adapter").0, named("base").0), (404, 200));
}

/// D21.
#[test]
fn engine_ids_are_of_the_pods_name_or_of_the_url() {
    let world = world();
    let url_id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"http://10.0.0.2:8000");
    let expected = format!(
        r#"[{{"engine_id":"1e834a65-7d39-5ae5-954b-81f3e40b7b9e","serving_models":["adapter","base"],"created":1754000000}},{{"engine_id":"{url_id}","serving_models":["base","org/other"],"created":1754000000}}]"#
    );
    assert_eq!(page(&world, LocalPage::Engines, |_| {}), (200, expected));
}

#[test]
fn an_engine_is_found_by_its_id() {
    let world = world();
    let gateways = in_question(&world.snapshot, None).unwrap();
    let url =
        |id| find_engine(&world.snapshot, &gateways, id).map(|endpoint| endpoint.spec.id.url.to_string());
    assert_eq!(url(Some("1e834a65-7d39-5ae5-954b-81f3e40b7b9e")).as_deref(), Ok("http://10.0.0.1:8000"));
    assert_eq!(url(None), Err(FailureKind::EngineIdMissing));
    assert_eq!(url(Some("")), Err(FailureKind::EngineIdMissing));
    assert_eq!(url(Some("X")), Err(FailureKind::EngineIdUnknown { id: "X".into() }));
    let pool = &world.snapshot.gateways[0].route("base").unwrap().pool;
    assert_eq!(pinned(pool, "1e834a65-7d39-5ae5-954b-81f3e40b7b9e"), Some(0));
    assert_eq!(pinned(pool, "nobody"), None);
}

/// C14: engines of another gateway are unknown, pods of the same name in another namespace among them.
#[test]
fn an_engine_is_found_only_in_the_gateway_in_question() {
    let pods = [
        ("http://10.0.0.1:8000", "vllm-0"),
        ("http://10.0.0.2:8000", "vllm-0"),
        ("http://10.0.0.3:8000", ""),
    ]
    .map(|(url, pod)| fixture::endpoint(url, pod));
    let draft = |namespace: &str, endpoints: &[Arc<EndpointSpec>]| {
        let mut draft = fixture::gateway("llm", vec![fixture::route(namespace, endpoints)]);
        draft.name.namespace = namespace.into();
        draft
    };
    let drafts = vec![draft("a", &pods[..1]), draft("b", &pods[1..])];
    let snapshot = fixture::snapshot(&mut Assembler::default(), drafts);
    let of = |index: usize, id: Uuid| {
        let gateways = in_question(&snapshot, Some(&snapshot.gateways[index])).unwrap();
        let found = find_engine(&snapshot, &gateways, Some(&id.to_string()));
        found.map(|endpoint| endpoint.spec.id.url.to_string())
    };
    let (shared, plain) = (engine_id(&pods[0]), engine_id(&pods[2]));
    assert_eq!(of(0, shared).as_deref(), Ok("http://10.0.0.1:8000"));
    assert_eq!(of(1, shared).as_deref(), Ok("http://10.0.0.2:8000"), "the same id, of the other namespace");
    assert_eq!(of(1, plain).as_deref(), Ok("http://10.0.0.3:8000"));
    assert_eq!(of(0, plain), Err(FailureKind::EngineIdUnknown { id: plain.to_string().into() }));
    let unnamed = in_question(&snapshot, None).map(|gateways| gateways.len());
    assert_eq!(unnamed, Err(FailureKind::Forbidden { what: GATEWAY_UNNAMED }), "two namespaces");
    let page = answer(
        LocalPage::Engines,
        &snapshot,
        &facts(&World { snapshot: Arc::clone(&snapshot), cards: Cards::new() }),
    );
    assert_eq!(page.status(), 403);
}

#[test]
fn version_and_health_have_their_compatible_shapes() {
    let world = world();
    let config = RawValue::from_string(r#"{"routing_logic":"roundrobin"}"#.to_owned()).unwrap();
    assert_eq!(page(&world, LocalPage::Version, |_| {}), (200, r#"{"version":"1.2.3"}"#.to_owned()));
    type Change = fn(&mut LocalFacts<'_>);
    let table: [(Change, u16, &str); 4] = [
        (|_| {}, 200, r#"{"status":"healthy"}"#),
        (
            |facts| facts.health = Health::DiscoveryDown,
            503,
            r#"{"status":"Service discovery module is down."}"#,
        ),
        (|facts| facts.health = Health::ScraperDown, 503, r#"{"status":"Engine stats scraper is down."}"#),
        (|facts| facts.dialect = Dialect::Text, 200, r#"{"status":"ok"}"#),
    ];
    for (change, status, body) in table {
        assert_eq!(page(&world, LocalPage::Health, change), (status, body.to_owned()));
    }
    let answer = answer(
        LocalPage::Health,
        &world.snapshot,
        &LocalFacts { dynamic_config: Some(&config), ..facts(&world) },
    );
    assert_eq!(answer.body(), r#"{"status":"healthy","dynamic_config":{"routing_logic":"roundrobin"}}"#);
}

#[test]
fn metrics_are_served_where_there_is_a_page() {
    let world = world();
    assert_eq!(page(&world, LocalPage::Metrics, |_| {}), (404, r#"{"detail":"Not Found"}"#.to_owned()));
    let text = Bytes::from("seen_total 0\n");
    let facts = LocalFacts { metrics: Some(&text), ..facts(&world) };
    let answer = answer(LocalPage::Metrics, &world.snapshot, &facts);
    assert!(str::from_utf8(answer.body()).unwrap().contains("seen_total 0"));
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
}

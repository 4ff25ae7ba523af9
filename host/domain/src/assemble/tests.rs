use super::*;
use crate::fixture::{FakePolicy, Preparer, entry, entry_with, gateway, route};

const A: &str = "http://10.0.0.1:8000";
const B: &str = "http://10.0.0.2:8000";

fn one(routes: Vec<RouteDraft>) -> Draft {
    Draft { gateways: vec![gateway("gw", routes)] }
}

fn failure() -> PrepareFailure {
    PrepareFailure { reason: "Impure", message: String::new(), config_path: None, remedy: String::new() }
}

/// The configuration that decides at the first place of the first pool.
fn deciding(assembled: &Assembled) -> Option<String> {
    let prepared = assembled.snapshot.pools[0].chain.entries[0].prepared.as_ref()?;
    Some(prepared.as_any().downcast_ref::<FakePolicy>()?.config.to_string())
}

#[test]
fn live_state_outlives_a_generation_and_is_shared_between_pools() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let draft = one(vec![route("m", &[B, A], &[]), route("n", &[A], &[])]);
    let first = assembler.assemble(&draft, &prepare);
    let pools = &first.snapshot.pools;
    assert_eq!(&*pools[0].endpoints[0].spec.id.url, A, "sorted by URL");
    assert!(Arc::ptr_eq(&pools[0].endpoints[0].state, &pools[1].endpoints[0].state));
    pools[0].state.next_ticket();
    let second = assembler.assemble(&draft, &prepare);
    assert!(Arc::ptr_eq(&pools[0].endpoints[1].state, &second.snapshot.pools[0].endpoints[1].state));
    assert_eq!(second.snapshot.pools[0].state.next_ticket(), 1, "rotation goes on");
    assert_eq!(second.snapshot.generation.0, first.snapshot.generation.0 + 1);
    assert_eq!(second.snapshot.endpoints.len(), 2, "each endpoint once");
}

#[test]
fn an_endpoint_that_left_is_named_once_and_comes_back_as_a_stranger() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let both = assembler.assemble(&one(vec![route("m", &[A, B], &[])]), &prepare);
    let slot = both.snapshot.pools[0].endpoints[1].state.slot;
    let alone = assembler.assemble(&one(vec![route("m", &[A], &[])]), &prepare);
    drop(both);
    assert_eq!(alone.gone_slots, [slot]);
    let again = assembler.assemble(&one(vec![route("m", &[A, B], &[])]), &prepare);
    assert!(again.gone_slots.is_empty());
    assert_ne!(again.snapshot.pools[0].endpoints[1].state.slot, slot, "slots are never used again");
}

#[test]
fn a_pool_changes_its_signature_exactly_when_a_policy_would_learn_something() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let mut signature = |urls: &[&str]| {
        let draft = one(vec![route("m", urls, &[entry("p")])]);
        assembler.assemble(&draft, &prepare).snapshot.pools[0].signature
    };
    let first = signature(&[A, B]);
    assert_eq!(signature(&[B, A]), first, "order of configuration does not matter");
    assert_ne!(signature(&[A]), first);
}

#[test]
fn a_policy_that_fails_leaves_the_last_good_one_in_force() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let with = |config: &str| one(vec![route("m", &[A], &[entry_with("p", config)])]);
    assert_eq!(deciding(&assembler.assemble(&with("1"), &prepare)).as_deref(), Some("1"));
    prepare.set("2", None);
    let pending = assembler.assemble(&with("2"), &prepare);
    assert_eq!(deciding(&pending).as_deref(), Some("1"), "while the new one compiles");
    assert!(pending.troubles[0].failure.is_none() && pending.troubles[0].last_good_serves);
    prepare.set("2", Some(failure()));
    let failed = assembler.assemble(&with("2"), &prepare);
    assert_eq!(deciding(&failed).as_deref(), Some("1"));
    assert_eq!(failed.troubles[0].failure, Some(failure()));
    let needed: Vec<&str> = failed.specs.iter().map(|spec| &*spec.config).collect();
    assert_eq!(needed, ["2", "1"], "the library must keep both");
}

#[test]
fn without_a_last_good_one_the_entry_is_left_out_and_the_rest_serves() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    prepare.set("bad", Some(failure()));
    let draft = one(vec![route("m", &[A], &[entry_with("p", "bad"), entry("q")])]);
    let assembled = assembler.assemble(&draft, &prepare);
    let entries = &assembled.snapshot.pools[0].chain.entries;
    assert!(entries[0].prepared.is_none() && entries[1].prepared.is_some());
    assert!(!assembled.troubles[0].last_good_serves);
}

#[test]
fn a_new_chain_comes_into_force_whole_or_not_at_all() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let chain = |names: &[&str]| -> Draft {
        let entries: Vec<_> = names.iter().map(|name| entry_with(name, name)).collect();
        one(vec![route("m", &[A], &entries)])
    };
    let names = |assembled: &Assembled| -> Vec<String> {
        assembled.snapshot.pools[0].chain.entries.iter().map(|entry| entry.spec.name.to_string()).collect()
    };
    assert_eq!(names(&assembler.assemble(&chain(&["a", "b"]), &prepare)), ["a", "b"]);
    prepare.set("slow", None);
    let meanwhile = assembler.assemble(&chain(&["a", "slow"]), &prepare);
    assert_eq!(names(&meanwhile), ["a", "b"], "never half of each");
    assert_eq!(meanwhile.troubles.len(), 1);
    prepare.states.lock().unwrap().clear();
    assert_eq!(names(&assembler.assemble(&chain(&["a", "slow"]), &prepare)), ["a", "slow"]);
}

#[test]
fn a_rejected_chain_keeps_the_last_good_chain_and_serves_what_is_left_if_there_was_none() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let mut rejected = route("m", &[A], &[entry("left")]);
    rejected.chain_rejected = true;
    let names = |assembled: &Assembled| -> Vec<String> {
        assembled.snapshot.pools[0].chain.entries.iter().map(|entry| entry.spec.name.to_string()).collect()
    };
    assert_eq!(names(&assembler.assemble(&one(vec![rejected.clone()]), &prepare)), ["left"]);
    assembler.assemble(&one(vec![route("m", &[A], &[entry("good"), entry("left")])]), &prepare);
    assert_eq!(names(&assembler.assemble(&one(vec![rejected]), &prepare)), ["good", "left"]);
}

#[test]
fn tables_do_not_grow_with_what_has_gone() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    for round in 0..50 {
        let url = format!("http://10.0.1.{round}:8000");
        let model = format!("m{round}");
        assembler.assemble(&one(vec![route(&model, &[&url], &[entry("p")])]), &prepare);
    }
    let sizes =
        [assembler.endpoints.len(), assembler.pools.len(), assembler.rings.len(), assembler.last_good.len()];
    assert_eq!(sizes, [1, 1, 1, 1]);
}

/// C8: the header that a service sends credentials in is for its engines: no policy of its pool is handed it, be it asked for
/// before or after the service names it.
#[test]
fn a_policy_that_reads_the_header_of_a_services_credentials_is_left_out() {
    let (mut assembler, prepare) = (Assembler::default(), Preparer::default());
    let with_auth = |header: Option<&'static str>| {
        let mut route = route("m", &[A], &[entry_with("p", "reads x-key")]);
        let mut spec = (*route.endpoints[0]).clone();
        spec.auth = header.map(|name| {
            let (header, value) = (HeaderName::from_static(name), http::HeaderValue::from_static("sesame"));
            Arc::new(crate::endpoint::EngineAuth { header, value, forward_client: false })
        });
        route.endpoints = [Arc::new(spec)].into();
        one(vec![route])
    };
    let wants = |assembled: &Assembled| assembled.snapshot.pools[0].chain.wants.headers.len();
    let before = assembler.assemble(&with_auth(Some("authorization")), &prepare);
    assert_eq!((wants(&before), before.troubles.len()), (1, 0), "it is an ordinary header so far");
    let after = assembler.assemble(&with_auth(Some("x-key")), &prepare);
    assert_eq!(wants(&after), 0, "nor does the last good chain have it");
    let trouble = &after.troubles[0];
    assert_eq!(trouble.failure.as_ref().map(|failure| failure.reason), Some("HeaderNotGranted"));
    assert!(!trouble.last_good_serves);
    assert_eq!(wants(&assembler.assemble(&with_auth(None), &prepare)), 1);
}

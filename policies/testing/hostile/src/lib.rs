//! A routing policy that misbehaves as its settings say: what the host's tests and `policy check` are tried against.
//!
//! ```json
//! {"behaviour": "loop", "when": "pick", "after": 10, "amount": 1000}
//! ```
//!
//! `behaviour` is one of [`Behaviour`]'s names (default `honest`: a rotation by ticket). `when` says in which call it happens:
//! `configure`, `sync` or `pick` (default). In `pick`, the first `after` calls are honest (default 0), so that a guest can pass
//! the probe and fail in service. `amount` sizes what has a size; each behaviour has its own default.

mod behaviour;

use core::cell::Cell;

use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Pool, Request, Settings, Signal};

pub use behaviour::Behaviour;

/// The header this policy may see, and obeys under the behaviour `header`.
pub const HEADER: &str = "x-hostile-endpoint";

/// The policy.
#[derive(Debug)]
pub struct Hostile {
    behaviour: Behaviour,
    when: When,
    after: u64,
    amount: Option<u64>,
    /// What a policy must not have: a memory of its calls.
    calls: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Configure,
    Sync,
    Pick,
}

impl Policy for Hostile {
    const ABOUT: About = About {
        config_schema: r#"{"type":"object","properties":{"behaviour":{"type":"string"},"when":{"enum":["configure","sync","pick"]},"after":{"type":"integer","minimum":0},"amount":{"type":"integer","minimum":0},"pool":{"type":"object"}},"additionalProperties":false}"#,
        signals: &[Signal::InFlight],
        headers: &[HEADER],
        ..About::new("hostile", env!("CARGO_PKG_VERSION"), "Misbehaves as its settings say.")
    };

    fn configure(settings: &mut Settings) -> Result<Self, ConfigError> {
        let name = settings.text("behaviour")?.unwrap_or_else(|| "honest".into());
        let Some(behaviour) = Behaviour::named(&name) else {
            return Err(
                settings.refuse("behaviour", format_args!("`{name}` is none of the known behaviours"))
            );
        };
        if behaviour == Behaviour::RefuseConfig {
            return Err(settings.refuse("behaviour", "refused, as asked for"));
        }
        let when = match settings.text("when")?.as_deref() {
            None | Some("pick") => When::Pick,
            Some("sync") => When::Sync,
            Some("configure") => When::Configure,
            Some(other) => return Err(settings.refuse("when", format_args!("`{other}` is no call"))),
        };
        let after = settings.integer("after", 0, 0..=u64::MAX)?;
        let amount = settings.integer("amount", u64::MAX, 0..=u64::MAX)?;
        let amount = (amount != u64::MAX).then_some(amount);
        if when == When::Configure {
            behaviour.act(amount);
        }
        Ok(Self { behaviour, when, after, amount, calls: Cell::new(0) })
    }

    fn sync(&mut self, _: &Pool) {
        if self.when == When::Sync {
            self.behaviour.act(self.amount);
        }
    }

    fn pick(&self, request: &Request, fleet: &Fleet<'_>) -> Decision {
        let call = self.calls.get();
        self.calls.set(call + 1);
        if self.when != When::Pick || call < self.after {
            return behaviour::honest(request, fleet);
        }
        self.behaviour.act(self.amount);
        self.behaviour.answer(request, fleet, (call, self.amount))
    }
}

wicketgate_sdk::export!(Hostile);

#[cfg(test)]
mod tests {
    use wicketgate_sdk::Choice;
    use wicketgate_sdk::testing::{Case, Harness, check_description, pool, refusal};

    use super::*;

    fn pick(config: &str, case: &Case) -> Choice {
        Harness::<Hostile>::new(config, &pool(3)).pick(case).choice
    }

    #[test]
    fn without_settings_it_is_honest() {
        check_description::<Hostile>();
        assert_eq!(pick("{}", &Case::new().ticket(4)), Choice::Endpoint(1));
        assert_eq!(pick(r#"{"behaviour":"loop","after":2}"#, &Case::new()), Choice::Endpoint(0));
        assert_eq!(pick(r#"{"behaviour":"slow","amount":1000}"#, &Case::new()), Choice::Endpoint(0));
    }

    #[test]
    fn every_name_is_known_and_others_are_refused() {
        for (name, behaviour) in Behaviour::NAMES {
            assert_eq!(Behaviour::named(name), Some(behaviour));
        }
        assert_eq!(refusal::<Hostile>(r#"{"behaviour":"nice"}"#).path, "/behaviour");
        assert_eq!(refusal::<Hostile>(r#"{"behaviour":"refuse-config"}"#).path, "/behaviour");
        assert_eq!(refusal::<Hostile>(r#"{"when":"later"}"#).path, "/when");
    }

    #[test]
    fn the_harness_notices_what_the_host_will() {
        let faults = [
            "bad-index",
            "excluded",
            "nan-scores",
            "short-scores",
            "wild-scores",
            "empty-order",
            "bad-status",
            "same-pair",
            "impure",
            "panic",
        ];
        for name in faults {
            let config = format!(r#"{{"behaviour":"{name}"}}"#);
            let case = Case::new().excluded([2]);
            assert!(std::panic::catch_unwind(|| pick(&config, &case)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_header_says_where_to_go() {
        let mut case = Case::new();
        case.request.headers = Some(vec![(HEADER.into(), "2".into())]);
        assert_eq!(pick(r#"{"behaviour":"header"}"#, &case), Choice::Endpoint(2));
        assert_eq!(pick(r#"{"behaviour":"header"}"#, &Case::new()), Choice::Abstain);
    }
}

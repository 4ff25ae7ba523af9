//! Flags of the routers that this gateway replaces. What they said stands in resources now, so they are refused, with the way
//! to say it. `docs/migration.md` has the same list with more words.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to write instead of a router's flag; a `*` at its end stands for anything.
const INSTEAD: &[(&[&str], &str)] = &[
    (&["--host"], "--listen ADDR"),
    (
        &["--service-discovery", "--static-backends", "--static-models"],
        "a StaticRoute, or `backendRef: {kind: Static, urls}` or `{kind: Pods, selector, port}` of an InferenceService",
    ),
    (
        &["--k8s-namespace", "--k8s-label-selector", "--k8s-port", "--k8s-service-discovery-type"],
        "`backendRef: {kind: Pods, selector, port}` of an InferenceService, or the name of a Service",
    ),
    (&["--routing-logic"], "`routeStrategy` of an InferenceGateway"),
    (&["--session-key"], "`sessionKey: {header, bodyField}` of an InferenceGateway"),
    (&["--static-aliases"], "`aliases` of an InferenceGateway"),
    (&["--static-model-types"], "nothing: every path of an engine is routed to it"),
    (
        &["--static-backend-health-check*", "--backend-health-check-timeout-seconds"],
        "nothing: each engine has a breaker; or `healthCheck` of a StaticRoute",
    ),
    (&["--k8s-watcher-timeout-seconds"], "nothing: watches are renewed by themselves"),
    (&["--max-instance-failover-reroute-attempts"], "`retries.attempts` of an InferenceGateway"),
    (&["--engine-stats-interval"], "--engine-scrape-interval"),
    (&["--request-stats-window"], "nothing: it is one minute"),
    (&["--log-stats*"], "the pages /metrics and /snapshot, or --request-log"),
    (&["--prefix-min-match-length"], "`thresholdHitRate` of the policy prefix-hash"),
    (&["--dynamic-config-*"], "nothing: resources are followed as they change"),
    (&["--selector"], "`backendRef` of an InferenceService"),
    (&["--config", "--sync-interval"], "nothing: resources are followed as they change"),
];

/// How to say what an unknown flag of a router said. `None`: no router knew it either.
pub(crate) fn instead(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = flag.split('=').next().unwrap_or_default();
    let is_it =
        |known: &&str| known.strip_suffix('*').map_or(*known == flag, |start| flag.starts_with(start));
    let (_, instead) = INSTEAD.iter().find(|(flags, _)| flags.iter().any(is_it))?;
    Some(format!(
        "{flag} belongs to a router that this gateway replaces. Instead of it: {instead}. See docs/migration.md"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, go_style};
    use super::*;

    fn refused(flag: &str) -> Option<String> {
        let args = ["wicketgate", flag].map(Into::into);
        instead(&Cli::try_parse_from(go_style(args.into_iter())).expect_err("refused"))
    }

    #[test]
    fn every_flag_of_the_old_routers_is_taken_or_refused_with_its_replacement() {
        let migration = include_str!("../../../../docs/migration.md");
        let table = migration.split("## The Python router's flags").nth(1).expect("its section");
        let table = table.split("\n## ").next().expect("its section");
        let row = |line: &str| {
            line.strip_prefix("| `").map(|_| line.split(" | ").map(str::to_owned).collect::<Vec<_>>())
        };
        let rows: Vec<Vec<String>> = table.lines().filter_map(row).collect();
        assert!(rows.len() > 15, "{rows:?}");
        for row in rows {
            let is_told = !row[1].starts_with("same name") && !row[1].starts_with("not there");
            let flags = row[0].split('`').filter(|word| word.starts_with("--"));
            for flag in
                flags.filter_map(|text| text.split_whitespace().next()).filter(|flag| !flag.ends_with('*'))
            {
                if Cli::try_parse_from(["wicketgate", &format!("{flag}=1")]).is_ok() {
                    continue;
                }
                let kind = Cli::try_parse_from(["wicketgate", flag]).expect_err("refused").kind();
                assert!(!is_told || kind != ErrorKind::UnknownArgument || refused(flag).is_some(), "{flag}");
            }
        }
    }

    #[test]
    fn the_replacement_is_named_whatever_way_the_flag_is_written() {
        for flag in ["--routing-logic", "--routing-logic=session", "-routing-logic"] {
            let told = refused(flag).expect("told");
            assert!(told.starts_with("--routing-logic ") && told.contains("routeStrategy"), "{told}");
        }
        assert_eq!(refused("--nobody-knew-this"), None);
        assert_eq!(refused("--workers=many"), None);
    }
}

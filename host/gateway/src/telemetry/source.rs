//! The part of the gateway that a log line is about: one word, the same in lines and in `--log-level`.

/// Target of the line that `--request-log` writes for each request.
pub(super) const REQUEST_LINE: &str = "request";

/// Modules of ours and the word for each. The longest module that fits counts.
const WORDS: &[(&str, &str)] = &[
    ("control", "config"),
    ("control::cluster", "cluster"),
    ("control::controllers", "cluster"),
    ("control::lease", "cluster"),
    ("control::observe", "engine"),
    ("domain", "config"),
    ("manifest", "config"),
    ("policy", "policy"),
    ("proxy", "engine"),
    ("proxy::server", "server"),
    ("wicketgate", "gateway"),
];

/// The word for a target. That of a dependency is itself.
pub(super) fn word(target: &str) -> &str {
    of_ours(target).unwrap_or(target)
}

/// The word for a target of ours. `None`: a dependency's.
pub(super) fn of_ours(target: &str) -> Option<&'static str> {
    if target == REQUEST_LINE {
        return Some(REQUEST_LINE);
    }
    let modules = WORDS.iter().filter(|(module, _)| is_in(target, module));
    modules.max_by_key(|(module, _)| module.len()).map(|(_, word)| *word)
}

/// Whether `target` is `module`, or a module in it.
pub(super) fn is_in(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N10: sources are words, not module paths.
    #[test]
    fn every_module_of_ours_has_one_word_and_a_dependency_keeps_its_path() {
        let cases = [
            ("control::publish::run", "config"),
            ("control::observe", "engine"),
            ("control::observe::gpu", "engine"),
            ("control::observer", "config"),
            ("proxy::server::worker", "server"),
            ("proxy::upstream::connect", "engine"),
            ("policy::evaluate", "policy"),
            ("wicketgate::wire", "gateway"),
            ("request", "request"),
            ("policy_server", "policy_server"),
            ("hyper::proto::h1", "hyper::proto::h1"),
        ];
        for (target, expected) in cases {
            assert_eq!(word(target), expected, "{target}");
        }
        assert!(WORDS.iter().all(|(_, word)| !word.contains(':')));
    }
}

//! `--log-level`: which lines are written.

use tracing::Metadata;
use tracing_subscriber::filter::LevelFilter;

use super::source::{self, REQUEST_LINE};

/// Most parts that one filter may name.
const RULES_MAX: usize = 64;

/// A level for the gateway, and others for parts of it or for libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    /// Of everything of ours that no rule names. Libraries stop at warnings, unless a rule names them: their details
    /// are about themselves (a compiler writes thousands of lines for one policy).
    ours: LevelFilter,
    /// A word of [`source`] or a module's path, and its level.
    rules: Vec<(Box<str>, LevelFilter)>,
    /// Whether each request has a line.
    request_log: bool,
}

impl Levels {
    /// Reads `info`, or `info,policy=debug,hyper=trace`. A word alone that is not a level is an error: taken for the name
    /// of a part, it would silence everything else.
    pub(super) fn read(text: &str, request_log: bool) -> Result<Self, String> {
        let mut levels = Self { ours: LevelFilter::INFO, rules: Vec::new(), request_log };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item.split_once('=') {
                Some((part, level)) => levels.rules.push((part.trim().into(), one(level.trim())?)),
                None => levels.ours = one(item)?,
            }
        }
        if levels.rules.len() > RULES_MAX {
            return Err(format!("{} parts; at most {RULES_MAX} may be named", levels.rules.len()));
        }
        Ok(levels)
    }

    /// Whether this line is written.
    pub(super) fn lets_through(&self, event: &Metadata<'_>) -> bool {
        *event.level() <= self.of(event.target())
    }

    /// The most detailed level that anything has.
    pub(super) fn most(&self) -> LevelFilter {
        let requests = if self.request_log { LevelFilter::INFO } else { LevelFilter::OFF };
        let rules = self.rules.iter().map(|(_, level)| *level);
        rules.chain([self.ours, requests]).max().unwrap_or(LevelFilter::OFF)
    }

    /// The level of a target: of the longest rule that fits, the last of equals.
    fn of(&self, target: &str) -> LevelFilter {
        if target == REQUEST_LINE {
            return if self.request_log { LevelFilter::INFO } else { LevelFilter::OFF };
        }
        let word = source::of_ours(target);
        let fits = |part: &str| word == Some(part) || source::is_in(target, part);
        let rules = self.rules.iter().filter(|(part, _)| fits(part));
        match rules.max_by_key(|(part, _)| part.len()) {
            Some((_, level)) => *level,
            None if word.is_some() => self.ours,
            None => self.ours.min(LevelFilter::WARN),
        }
    }
}

/// A level, as the production stack's router spells them too.
fn one(word: &str) -> Result<LevelFilter, String> {
    match word.to_ascii_lowercase().as_str() {
        "warning" => Ok(LevelFilter::WARN),
        "critical" => Ok(LevelFilter::ERROR),
        _ => word.parse().map_err(|_| {
            format!("{word:?} is not a level; write off, error, warn, info, debug or trace, or PART=LEVEL")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str) -> Levels {
        Levels::read(text, false).unwrap()
    }

    #[test]
    fn a_slip_in_the_log_level_is_refused_instead_of_silencing_everything() {
        for level in
            ["info", "off", "WARN", "info,policy=debug", "error,control=trace", "warning", "Critical"]
        {
            assert!(Levels::read(level, false).is_ok(), "{level}");
        }
        for level in ["warnings", "inof", "info,verbose", "info,policy=debgu", "policy"] {
            assert!(Levels::read(level, true).is_err(), "{level}");
        }
    }

    /// N10: debug is our own debug; a library's is asked for by its name.
    #[test]
    fn more_detail_of_the_gateway_is_not_more_detail_of_its_libraries() {
        let libraries =
            ["wasmtime::runtime", "cranelift_codegen::isa", "hyper::proto", "h2::codec", "kube_client"];
        for level in ["info", "debug", "trace"] {
            for target in libraries {
                assert_eq!(levels(level).of(target), LevelFilter::WARN, "{level} {target}");
            }
            let expected: LevelFilter = level.parse().unwrap();
            for target in ["control::publish::run", "policy::evaluate", "wicketgate::wire", "proxy::dispatch"]
            {
                assert_eq!(levels(level).of(target), expected, "{target}");
            }
        }
        assert_eq!(levels("error").of("hyper::proto"), LevelFilter::ERROR);
        let asked = levels("info,h2=trace,engine=debug,control::observe::gpu=error");
        assert_eq!(asked.of("h2::codec"), LevelFilter::TRACE);
        assert_eq!(asked.of("hyper"), LevelFilter::WARN);
        assert_eq!(asked.of("control::observe"), LevelFilter::DEBUG);
        assert_eq!(asked.of("control::observe::gpu"), LevelFilter::ERROR);
        assert_eq!(asked.of("control::publish"), LevelFilter::INFO);
        assert_eq!(asked.most(), LevelFilter::TRACE);
    }

    /// N1: the line of each request depends on its flag alone.
    #[test]
    fn the_request_log_is_let_through_at_every_level_and_only_when_asked_for() {
        for level in ["off", "error", "info", "trace", "off,request=off"] {
            let asked = Levels::read(level, true).unwrap();
            assert_eq!(
                (asked.of("request"), asked.most() >= LevelFilter::INFO),
                (LevelFilter::INFO, true),
                "{level}"
            );
            assert_eq!(levels(level).of("request"), LevelFilter::OFF, "{level}");
        }
    }
}

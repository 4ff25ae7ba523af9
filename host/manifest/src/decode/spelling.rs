//! What somebody may have meant by a `kind` or an `apiVersion` that we do not know.

use strsim::osa_distance;

use crate::kind::GROUP;
use crate::object::Kind;

/// Letters that may be wrong in a name before it counts as another name. Any two of our kinds differ in more.
const TYPOS_MAX: usize = 3;
/// Kinds of the production stack's own operator: its group is ours, and what they say is for that operator alone.
const OF_THE_OPERATOR: [&str; 4] = ["CacheServer", "LoraAdapter", "VLLMRouter", "VLLMRuntime"];

/// Whether a document is meant for us: it is of our group, as far as one can tell with a few letters wrong.
pub(super) fn is_ours(api_version: &str, kind: &str) -> bool {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    !OF_THE_OPERATOR.contains(&kind) && is_close(group, GROUP)
}

/// The kind of ours that is spelt most nearly like `kind`, if any is close.
pub(super) fn nearest(kind: &str) -> Option<Kind> {
    let ours = Kind::ALL.into_iter().filter(|known| known.is_ours());
    let close = ours.filter(|known| is_close(kind, known.as_str()));
    close.min_by_key(|known| distance(kind, known.as_str()))
}

fn is_close(text: &str, known: &str) -> bool {
    // Also keeps the cost down: a text may be as large as a file.
    text.len().abs_diff(known.len()) <= TYPOS_MAX && distance(text, known) <= TYPOS_MAX
}

/// Letters to insert, remove, replace or swap to get from one text to the other; case does not count.
fn distance(one: &str, other: &str) -> usize {
    osa_distance(&one.to_ascii_lowercase(), &other.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_few_letters_wrong_is_close_to_the_right_one_only() {
        for (kind, expected) in [
            ("InferenceGatway", Some("InferenceGateway")),
            ("inferencegateway", Some("InferenceGateway")),
            ("InferenceGateways", Some("InferenceGateway")),
            ("InferenceServise", Some("InferenceService")),
            ("InferencCahce", Some("InferenceCache")),
            ("StaticRoutes", Some("StaticRoute")),
            ("InferenceModel", None),
            ("VLLMRouter", None),
            ("Gateway", None),
            ("Deployment", None),
            ("", None),
        ] {
            assert_eq!(nearest(kind).map(Kind::as_str), expected, "{kind}");
        }
    }

    #[test]
    fn the_distance_counts_what_is_missing_surplus_and_wrong() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("abc", "", 3),
            ("abc", "ABC", 0),
            ("abcd", "acbd", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}

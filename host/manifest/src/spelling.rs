//! What somebody may have meant by a word that is not known.

use strsim::osa_distance;

/// Longest word that is compared, bytes: a text may be as large as a file.
const WORD_BYTES_MAX: usize = 253;

/// The word among `known` that is spelt most nearly like `word`, if any is close. Case does not count, nor do hyphens and
/// underscores; two letters that changed places are one mistake.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let folded = fold(word);
    // A short word with two letters wrong is another word.
    let typos_max = match folded.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    let distances = known.into_iter().map(|known| (osa_distance(&folded, &fold(known)), known));
    distances
        .filter(|(distance, _)| *distance <= typos_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Lower case, without hyphens and underscores.
pub(crate) fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D1: a word with a few letters wrong is near the right one only.
    #[test]
    fn the_nearest_word_is_found_and_none_where_none_is_near() {
        let fields = ["model", "modelName", "weight", "url", "routes", "node", "tls"];
        for (word, expected) in [
            ("modle", Some("model")),
            ("Model", Some("model")),
            ("model_name", Some("modelName")),
            ("wieght", Some("weight")),
            ("rutes", Some("routes")),
            ("ulr", Some("url")),
            ("tsl", Some("tls")),
            ("noed", Some("node")),
            ("to", None),
            ("image", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1_000), fields), None);
    }
}

//! Model cards as engines give them on `/v1/models`: what the gateway's own list shows of a model. Nothing decides by them.

use std::collections::HashMap;

use domain::endpoint::EndpointId;
use domain::name::ModelName;
use serde_json::value::RawValue;

/// Cards (one JSON object each) by the name that the engines know.
pub type Cards = HashMap<ModelName, Box<RawValue>>;

/// A larger card is not kept, bytes.
pub const CARD_BYTES_MAX: usize = 16 << 10;
/// Engines put the time into every answer, so cards change all the time; they are handed on at most so often, unless a
/// model comes or goes, milliseconds.
const REFRESH_MS: u64 = 1_000;

/// Who told which card, and what has to be handed on.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    by_model: HashMap<ModelName, (EndpointId, Box<RawValue>)>,
    has_news: bool,
    has_other_models: bool,
    told_ms: u64,
}

impl Catalogue {
    /// Takes over what one engine told. The first engine that told of a model goes on telling of it.
    pub(super) fn learn(&mut self, endpoint: &EndpointId, cards: Vec<(ModelName, Box<RawValue>)>) {
        let kept = |model: &ModelName| cards.iter().any(|(known, _)| known == model);
        let before = self.by_model.len();
        self.by_model.retain(|model, (owner, _)| owner != endpoint || kept(model));
        self.has_other_models |= self.by_model.len() != before;
        for (model, card) in cards.into_iter().filter(|(_, card)| card.get().len() <= CARD_BYTES_MAX) {
            match self.by_model.get_mut(&model) {
                Some((owner, known)) if owner == endpoint && known.get() != card.get() => {
                    *known = card;
                    self.has_news = true;
                }
                Some(_) => {}
                None => {
                    self.by_model.insert(model, (endpoint.clone(), card));
                    self.has_other_models = true;
                }
            }
        }
    }

    /// The engine has left. Another one that has its models tells of them when it is asked next.
    pub(super) fn forget(&mut self, endpoint: &EndpointId) {
        self.learn(endpoint, Vec::new());
    }

    /// All cards, if it is time to hand them on.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Cards> {
        let is_due = self.has_other_models || self.has_news && now_ms >= self.told_ms + REFRESH_MS;
        if !is_due {
            return None;
        }
        (self.has_news, self.has_other_models, self.told_ms) = (false, false, now_ms);
        Some(self.by_model.iter().map(|(model, (_, card))| (model.clone(), card.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> EndpointId {
        EndpointId { url: name.into(), pod_uid: "".into() }
    }

    fn card(model: &str, text: &str) -> (ModelName, Box<RawValue>) {
        (model.into(), RawValue::from_string(format!("\"{text}\"")).unwrap())
    }

    fn texts(cards: Option<Cards>) -> Option<Vec<(String, String)>> {
        let mut texts: Vec<_> =
            cards?.iter().map(|(model, card)| (model.to_string(), card.get().to_owned())).collect();
        texts.sort();
        Some(texts)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(model, text)| ((*model).to_owned(), format!("\"{text}\""))).collect())
    }

    #[test]
    fn the_first_engine_that_tells_of_a_model_goes_on_telling_of_it() {
        let (a, b) = (endpoint("a"), endpoint("b"));
        let mut cards = Catalogue::default();
        cards.learn(&a, vec![card("m", "1")]);
        cards.learn(&b, vec![card("m", "2"), card("n", "3")]);
        assert_eq!(texts(cards.take_due(0)), pairs(&[("m", "1"), ("n", "3")]));
        cards.forget(&a);
        assert_eq!(texts(cards.take_due(0)), pairs(&[("n", "3")]));
        cards.learn(&b, vec![card("m", "2"), card("n", "3")]);
        assert_eq!(texts(cards.take_due(0)), pairs(&[("m", "2"), ("n", "3")]));
    }

    #[test]
    fn new_models_are_told_at_once_and_new_texts_now_and_then() {
        let a = endpoint("a");
        let mut cards = Catalogue::default();
        cards.learn(&a, vec![card("m", "1")]);
        assert!(cards.take_due(5_000).is_some());
        cards.learn(&a, vec![card("m", "1")]);
        assert_eq!(texts(cards.take_due(9_000)), None, "nothing new");
        cards.learn(&a, vec![card("m", "2")]);
        assert_eq!(texts(cards.take_due(5_999)), None, "not yet");
        assert_eq!(texts(cards.take_due(6_000)), pairs(&[("m", "2")]));
    }

    #[test]
    fn a_giant_card_is_left_out() {
        let mut cards = Catalogue::default();
        cards.learn(&endpoint("a"), vec![card("m", &"x".repeat(CARD_BYTES_MAX)), card("n", "1")]);
        assert_eq!(texts(cards.take_due(0)), pairs(&[("n", "1")]));
    }
}

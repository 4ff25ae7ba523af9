//! The engine's own word on whether it sleeps, and how it ranks beside the label of its pod.
//!
//! The label comes from people and from other replicas, and outlives a restart of the container that it was about. So the
//! engine's word counts where there is one, but only under the label it was given under: a label that came or went since
//! is newer, and counts until the engine is asked again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

/// The engine has said something.
const KNOWN: u32 = 1;
/// It said that it sleeps.
const ASLEEP: u32 = 2;
/// Its pod's label said so at that time.
const LABELLED: u32 = 4;
/// One command to sleep or to wake: how many there were stands in the bits above the others, and wraps.
const COMMAND: u32 = 8;

/// What the engine said last. One word, so that a command and an answer cannot pass each other.
#[derive(Debug, Default)]
pub(super) struct SleepWord(AtomicU32);

/// Where things stood when a probe asked whether the engine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct SleepQuestion {
    commands: u32,
    labelled: bool,
}

impl SleepWord {
    /// To be taken before the question is sent.
    pub(super) fn ask(&self, labelled: bool) -> SleepQuestion {
        SleepQuestion { commands: self.0.load(SeqCst) / COMMAND, labelled }
    }

    /// The answer to a question. Ignored if a command was carried out since: it may be from before.
    pub(super) fn answer(&self, question: SleepQuestion, asleep: bool) {
        let said = said(asleep, question.labelled);
        let after =
            |word: u32| (word / COMMAND == question.commands).then_some((question.commands * COMMAND) | said);
        // Refused means ignored.
        let _ = self.0.fetch_update(SeqCst, SeqCst, after);
    }

    /// It was told to sleep, or to wake, and did.
    pub(super) fn command(&self, asleep: bool, labelled: bool) {
        let said = said(asleep, labelled);
        let after = |word: u32| Some((word / COMMAND * COMMAND).wrapping_add(COMMAND) | said);
        let _ = self.0.fetch_update(SeqCst, SeqCst, after);
    }

    /// Whether it sleeps, by its own word under this label. `None`: it has given none.
    pub(super) fn heard(&self, labelled: bool) -> Option<bool> {
        let word = self.0.load(Relaxed);
        let is_current = word & (KNOWN | LABELLED) == said(false, labelled);
        is_current.then_some(word & ASLEEP != 0)
    }
}

fn said(asleep: bool, labelled: bool) -> u32 {
    KNOWN | if asleep { ASLEEP } else { 0 } | if labelled { LABELLED } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::endpoint::{Endpoint, EndpointSpec, EndpointState};

    #[test]
    fn an_answer_to_a_question_from_before_a_command_does_not_undo_it() {
        let word = SleepWord::default();
        let before = word.ask(false);
        word.command(true, false);
        word.answer(before, false);
        assert_eq!(word.heard(false), Some(true));
        word.answer(word.ask(false), false);
        assert_eq!(word.heard(false), Some(false));
    }

    #[test]
    fn commands_are_told_apart_when_their_number_wraps() {
        let word = SleepWord(AtomicU32::new(u32::MAX / COMMAND * COMMAND));
        let before = word.ask(false);
        word.command(true, false);
        word.answer(before, false);
        assert_eq!((word.heard(false), word.ask(false).commands), (Some(true), 0));
    }

    /// An endpoint whose pod's label says whether it sleeps, and the same under the other label.
    fn under_both_labels(labelled: bool) -> [Endpoint; 2] {
        let spec = EndpointSpec::at("http://a:1").expect("a URL");
        let endpoint = Endpoint {
            spec: Arc::new(EndpointSpec { asleep: labelled, ..spec.clone() }),
            state: Arc::new(EndpointState::new(1)),
        };
        let other = Endpoint {
            spec: Arc::new(EndpointSpec { asleep: !labelled, ..spec }),
            state: Arc::clone(&endpoint.state),
        };
        [endpoint, other]
    }

    #[test]
    fn the_engines_word_wins_over_its_label_and_the_label_counts_without_one() {
        for labelled in [true, false] {
            let [endpoint, _] = under_both_labels(labelled);
            assert_eq!(endpoint.is_asleep(), labelled, "it has said nothing");
            for asleep in [true, false] {
                endpoint.state.answer_sleep(endpoint.state.ask_sleep(&endpoint.spec), asleep);
                assert_eq!(endpoint.is_asleep(), asleep, "under a label that says {labelled}");
            }
            for asleep in [true, false] {
                endpoint.command_sleep(asleep);
                assert_eq!(endpoint.is_asleep(), asleep, "under a label that says {labelled}");
            }
        }
    }

    #[test]
    fn a_label_that_came_or_went_counts_until_the_engine_is_asked_again() {
        for labelled in [true, false] {
            let [before, after] = under_both_labels(labelled);
            let question = before.state.ask_sleep(&before.spec);
            before.state.answer_sleep(question, labelled);
            assert_eq!(after.is_asleep(), !labelled, "another replica did it, and said so by the label");
            after.state.answer_sleep(question, labelled);
            assert_eq!(after.is_asleep(), !labelled, "asked before the label changed");
            after.state.answer_sleep(after.state.ask_sleep(&after.spec), labelled);
            assert_eq!(after.is_asleep(), labelled, "its own word");
        }
    }
}

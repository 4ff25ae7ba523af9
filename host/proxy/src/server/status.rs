//! What the rest of the process finds out and the gateway's own pages show.

use std::sync::{Arc, PoisonError, RwLock};

use crate::local::{Cards, Health};

/// Cards of models and health of parts. Written now and then, read by pages only: not on the way to an engine.
#[derive(Debug, Default)]
pub struct Status {
    cards: RwLock<Arc<Cards>>,
    health: RwLock<Health>,
}

impl Status {
    /// Replaces the model cards that engines gave.
    pub fn set_cards(&self, cards: Cards) {
        *self.cards.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(cards);
    }

    /// Says how the gateway's parts fare.
    pub fn set_health(&self, health: Health) {
        *self.health.write().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// The cards now.
    pub fn cards(&self) -> Arc<Cards> {
        Arc::clone(&self.cards.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The health now.
    pub fn health(&self) -> Health {
        *self.health.read().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The bounded number of connections that a listener serves, and which of them gives way to a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Places for connections. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    table: Arc<Mutex<Table>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts every connection and every request: the order in which they came.
    order: u64,
    taken: HashMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    /// Of its last request; before the first, of the connection.
    order: u64,
    /// `None` for the moment until it runs.
    task: Option<AbortHandle>,
}

/// A connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    id: u64,
}

impl Places {
    /// So many places, all free.
    pub(super) fn new(max: usize) -> Self {
        Self { table: Arc::default(), max }
    }

    /// Runs a connection as a task in a place. Without a free place, the connection whose last request (or, without one,
    /// whose beginning) is longest ago is ended. Must be called on a runtime.
    pub(super) fn take<F>(&self, connection: impl FnOnce(Place) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.reserve();
        let place = Place { places: self.clone(), id };
        let task = tokio::spawn(connection(place)).abort_handle();
        // One that has ended already has left.
        if let Some(taken) = self.lock().taken.get_mut(&id) {
            taken.task = Some(task);
        }
    }

    /// A place of this number, free or made free.
    fn reserve(&self) -> u64 {
        let mut table = self.lock();
        if table.taken.len() >= self.max {
            let quietest = table.taken.iter().min_by_key(|(_, taken)| taken.order).map(|(id, _)| *id);
            if let Some(Taken { task: Some(task), .. }) = quietest.and_then(|id| table.taken.remove(&id)) {
                task.abort();
            }
        }
        table.order += 1;
        let id = table.order;
        table.taken.insert(id, Taken { order: id, task: None });
        id
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A request came.
    pub(super) fn touch(&self) {
        let mut table = self.places.lock();
        table.order += 1;
        let order = table.order;
        if let Some(taken) = table.taken.get_mut(&self.id) {
            taken.order = order;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.id);
    }
}

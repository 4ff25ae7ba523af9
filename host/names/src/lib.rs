//! Where the names of engines lead, and connections to them. One [`Names`] serves the whole process: requests and observers
//! share each look-up and its answer.
//!
//! What one name costs stays its own: look-ups are tasks and not threads, each is bounded in time, and nothing waits for
//! the look-up of another name (up to [`LOOKUPS_MAX`] at a time). The system's `getaddrinfo` is not used, because it holds
//! a thread for as long as name servers are silent. `/etc/resolv.conf` and `/etc/hosts` are read, and read again when they
//! change. Addresses and `localhost` never wait.

mod ask;
mod connect;
mod entry;
mod files;
mod message;
mod names;

pub use ask::{LOOKUP_MAX, LOOKUPS_MAX, Settings};
pub use connect::{STAGGER, is_shortage};
pub use entry::{ADDRESSES_MAX, FRESH_MAX, SLOW_FOR, STALE_MAX};
pub use names::{NAMES_MAX, Names, Route};

#[cfg(test)]
mod tests;

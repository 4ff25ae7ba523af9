//! Threads that give way to the data path.

use std::thread::JoinHandle;

/// Niceness of the control plane's threads. Workers and these share the cores that the operator gives us; when both want one, a
/// request goes first and a change of configuration waits some milliseconds longer. Niceness 5 is a third of a worker's weight
/// (335 of 1024, the kernel's `sched_prio_to_weight`), so that saturated workers cannot starve a lease's renewal.
const NICENESS: i32 = 5;

/// Starts a thread that gives way. What it starts in turn inherits that.
///
/// # Errors
/// If the system gives us no thread.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let run = move || {
        // On Linux this is the thread's own. Where it is refused, it runs at ordinary priority.
        let _ = rustix::process::nice(NICENESS);
        run();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_gives_way_and_nobody_else_does() {
        let nice = || rustix::process::nice(0).expect("readable");
        let (before, (send, receive)) = (nice(), std::sync::mpsc::channel());
        let thread = spawn("test", move || send.send(nice()).expect("awaited")).expect("a thread");
        assert_eq!(receive.recv().expect("sent"), (before + NICENESS).min(19));
        thread.join().expect("it ends");
        assert_eq!(nice(), before);
    }
}

//! How busy the machine is, as the old router's dashboards show it. Absent where the kernel does not say.

use std::fs;
use std::sync::{Mutex, PoisonError};

use super::family::{self, Page};

/// Remembers the CPU's times at the last look.
#[derive(Debug, Default)]
pub(super) struct Machine {
    last: Mutex<Times>,
}

/// Clock ticks since the start of the machine, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    idle: u64,
    total: u64,
}

impl Machine {
    /// Looks.
    pub(super) fn collect(&self, page: &mut Page) {
        let cpu = fs::read_to_string("/proc/stat").ok().and_then(|text| times(&text)).map(|now| {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            busy_percent(std::mem::replace(&mut last, now), now)
        });
        page.add_known(family::CPU, &[], cpu);
        let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_percent(&text));
        page.add_known(family::MEMORY, &[], memory);
        page.add_known(family::DISK, &[], disk_percent());
    }
}

/// The first line of `/proc/stat`: `cpu user nice system idle iowait irq softirq steal …`.
fn times(text: &str) -> Option<Times> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // Guest times, from the ninth on, are contained in user and nice.
    let numbers: Vec<u64> =
        line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    Some(Times { idle: numbers.get(3)? + numbers.get(4).unwrap_or(&0), total: numbers.iter().sum() })
}

fn busy_percent(last: Times, now: Times) -> f64 {
    let total = now.total.saturating_sub(last.total);
    let idle = now.idle.saturating_sub(last.idle).min(total);
    if total == 0 { 0.0 } else { (total - idle) as f64 / total as f64 * 100.0 }
}

fn memory_percent(text: &str) -> Option<f64> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<f64>().ok()
    };
    let total = field("MemTotal:")?;
    Some((total - field("MemAvailable:")?) / total * 100.0).filter(|percent| percent.is_finite())
}

/// As `df` counts: of what is not reserved for root.
fn disk_percent() -> Option<f64> {
    let stat = rustix::fs::statvfs("/").ok()?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let all = used + stat.f_bavail;
    (all > 0).then(|| used as f64 / all as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_not_idle_since_the_last_look() {
        let first = times("cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 1 1\n").unwrap();
        assert_eq!(first, Times { idle: 80, total: 100 });
        let second = times("cpu  60 0 10 110 20 0 0 0 0 0").unwrap();
        assert_eq!(busy_percent(first, second), 50.0);
        assert_eq!(busy_percent(second, second), 0.0);
        assert_eq!(times("intr 1"), None);
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        assert_eq!(memory_percent("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:  250 kB\n"), Some(75.0));
        assert_eq!(memory_percent("MemTotal: 1000 kB\n"), None);
    }
}

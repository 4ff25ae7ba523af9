//! Work of several tenants, taken in turn: one tenant's line does not make another's longer.

use std::collections::VecDeque;
use std::sync::Arc;

/// Who asks for work: a namespace; or the gateway itself, for built-in policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tenant {
    /// The gateway's own work comes first, and is not held to one piece at a time.
    Gateway,
    /// The namespace of the object that asks.
    Namespace(Arc<str>),
}

/// Lines of work, one per tenant that has any. Its length is bounded by what configuration names.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    lines: VecDeque<(Tenant, VecDeque<T>)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lines: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// Adds work at the end of its tenant's line. A new line comes last.
    pub(crate) fn push(&mut self, tenant: &Tenant, work: T) {
        if let Some((_, line)) = self.lines.iter_mut().find(|(known, _)| known == tenant) {
            return line.push_back(work);
        }
        let line = (tenant.clone(), VecDeque::from([work]));
        if *tenant == Tenant::Gateway { self.lines.push_front(line) } else { self.lines.push_back(line) }
    }

    /// The next piece: the gateway's own, else that of the tenant whose turn it is, of those that are not `busy`.
    pub(crate) fn next(&mut self, busy: impl Fn(&Tenant) -> bool) -> Option<(Tenant, T)> {
        let at = self.lines.iter().position(|(tenant, _)| *tenant == Tenant::Gateway || !busy(tenant))?;
        let (tenant, mut line) = self.lines.remove(at)?;
        let work = line.pop_front()?;
        if !line.is_empty() {
            match tenant {
                Tenant::Gateway => self.lines.push_front((tenant.clone(), line)),
                Tenant::Namespace(_) => self.lines.push_back((tenant.clone(), line)),
            }
        }
        Some((tenant, work))
    }

    /// Drops what is not `wanted` any more.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        for (_, line) in &mut self.lines {
            line.retain(&wanted);
        }
        self.lines.retain(|(_, line)| !line.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Tenant {
        Tenant::Namespace(name.into())
    }

    fn queue(work: &[(&str, u32)]) -> Queue<u32> {
        let mut queue = Queue::default();
        for (name, piece) in work {
            queue.push(&namespace(name), *piece);
        }
        queue
    }

    /// C1: a tenant with a hundred components delays another's by one.
    #[test]
    fn tenants_take_turns_however_much_one_of_them_asks_for() {
        let mut queue = queue(&[("a", 1), ("a", 2), ("a", 3), ("b", 10), ("a", 4), ("c", 20)]);
        let order: Vec<u32> = std::iter::from_fn(|| queue.next(|_| false)).map(|(_, piece)| piece).collect();
        assert_eq!(order, [1, 10, 20, 2, 3, 4]);
    }

    /// C1: a slow component holds up its own tenant only, and never a built-in policy.
    #[test]
    fn a_busy_tenant_waits_and_others_go_before_it() {
        let mut queue = queue(&[("a", 1), ("b", 10)]);
        let busy = |tenant: &Tenant| *tenant == namespace("a") || *tenant == Tenant::Gateway;
        assert_eq!(queue.next(busy), Some((namespace("b"), 10)));
        assert_eq!(queue.next(busy), None, "what is left is the busy tenant's");
        queue.push(&Tenant::Gateway, 0);
        assert_eq!(queue.next(busy), Some((Tenant::Gateway, 0)));
        assert_eq!(queue.next(|_| false), Some((namespace("a"), 1)));
    }

    #[test]
    fn what_is_not_wanted_any_more_is_skipped() {
        let mut queue = queue(&[("a", 1), ("a", 2), ("b", 3)]);
        queue.retain(|piece| *piece == 2);
        assert_eq!(queue.next(|_| false), Some((namespace("a"), 2)));
        assert_eq!(queue.next(|_| false), None);
    }
}

//! Guards: whether a route may be used at all.

use domain::failure::FailureKind;
use domain::route::Route;

/// Refuses requests to a route that asks for a guard which this version cannot enforce: it fails closed.
pub(crate) fn check(route: &Route) -> Result<(), FailureKind> {
    match &route.blocked {
        Some(reason) => Err(FailureKind::Guarded { reason: reason.clone() }),
        None => Ok(()),
    }
}

//! From numbers to one endpoint: the usual last step of a policy.

use crate::{Fleet, lanes};

/// The candidate with the smallest load. Ties are taken in turn by `ticket`, so that an idle fleet is a rotation.
///
/// `loads` holds one number per endpoint, NaN: not to be chosen. `None` when no candidate has a number.
pub fn least(fleet: &Fleet<'_>, mut loads: Vec<f32>, ticket: u64) -> Option<usize> {
    fleet.mask(&mut loads);
    by_turn(&loads, lanes::min(&loads), ticket)
}

/// The candidate with the best score, ties in turn by `ticket`. As [`least`], the other way round.
pub fn best(fleet: &Fleet<'_>, mut scores: Vec<f32>, ticket: u64) -> Option<usize> {
    fleet.mask(&mut scores);
    by_turn(&scores, lanes::max(&scores), ticket)
}

/// The endpoint that holds the value `wanted`; if several do, they take turns by `ticket`.
pub fn by_turn(values: &[f32], wanted: f32, ticket: u64) -> Option<usize> {
    match lanes::count(values, wanted) {
        0 => None,
        ties => lanes::find(values, wanted, (ticket % u64::from(ties)) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signal;

    fn fleet<'a>(endpoints: usize, excluded: &'a [u32]) -> Fleet<'a> {
        const NONE: &[Signal] = &[];
        Fleet::new(endpoints, (NONE, &[]), None, excluded)
    }

    #[test]
    fn ties_take_turns_and_the_excluded_never_win() {
        let loads = vec![1.0, 0.0, 0.0, 5.0, 0.0];
        let excluded = [2];
        let turns: Vec<_> = (0..4).map(|ticket| least(&fleet(5, &excluded), loads.clone(), ticket)).collect();
        assert_eq!(turns, [Some(1), Some(4), Some(1), Some(4)]);
    }

    #[test]
    fn unknown_never_wins_and_nothing_known_is_no_choice() {
        assert_eq!(best(&fleet(3, &[]), vec![f32::NAN, 0.2, 0.1], 0), Some(1));
        assert_eq!(best(&fleet(2, &[]), vec![f32::NAN; 2], 0), None);
    }

    #[test]
    fn long_columns_agree_with_the_plain_loops() {
        let values: Vec<f32> =
            (0..1_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 22) as f32).collect();
        let plain = values.iter().copied().fold(f32::INFINITY, f32::min);
        assert_eq!(lanes::min(&values), plain);
        assert_eq!(lanes::max(&values), values.iter().copied().fold(0.0, f32::max));
        assert_eq!(lanes::sum(&values), (values.iter().sum::<f32>(), 1_003.0));
        let hits: Vec<_> = (0..1_003).filter(|at| values[*at] == plain).collect();
        for (nth, hit) in hits.iter().enumerate() {
            assert_eq!(lanes::find(&values, plain, nth as u32), Some(*hit));
        }
        assert_eq!(lanes::find(&values, plain, hits.len() as u32), None);
    }
}

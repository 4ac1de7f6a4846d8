//! Moments in the whole data's time, found without a list of all times.

use super::Customer;

/// Parts that the time in question is divided into at each pass.
const PARTS: u64 = 1 << 16;

/// The event time that stands at `rank` (from 0) when all are sorted; 0 when there are not so many. Reads the
/// times in order a few times over, so that histories on disk are read as they lie.
pub(super) fn at_rank(customers: &[Customer], rank: u64) -> i64 {
    let times = || customers.iter().flat_map(|customer| &customer.times).copied();
    let (Some(mut from), Some(last)) = (times().min(), times().max()) else { return 0 };
    // The moment lies in `from..=from + width`, and so many come before.
    let (mut width, mut before) = (last.abs_diff(from), 0);
    while width > 0 {
        let part = width / PARTS + 1;
        let mut counts = vec![0_u64; (width / part + 1) as usize];
        for time in times().filter(|&time| time >= from && time.abs_diff(from) <= width) {
            counts[(time.abs_diff(from) / part) as usize] += 1;
        }
        let mut found = 0;
        for (at, count) in counts.iter().enumerate() {
            found = at as u64;
            if before + count > rank {
                break;
            }
            before += count;
        }
        from = from.saturating_add_unsigned(found * part);
        width = (part - 1).min(last.abs_diff(from));
    }
    from
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_time_that_sorting_would_find(
            times in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![-9..9_i64, any::<i64>(), 1_600_000_000_000..1_700_000_000_000_i64], 0..12),
                1..6,
            ),
            rank in 0..70_u64,
        ) {
            let mut all: Vec<i64> = times.concat();
            all.sort_unstable();
            let customers: Vec<Customer> =
                times.into_iter().map(|times| Customer { times: times.into(), ..Customer::default() }).collect();
            if let Some(&expected) = all.get(rank as usize) {
                prop_assert_eq!(at_rank(&customers, rank), expected);
            }
        }
    }
}

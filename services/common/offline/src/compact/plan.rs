//! Which neighbours become one.

use std::ops::Range;

/// Manifests of one merge at most, however few rows they have.
const MOST: usize = 1_024;
/// Manifests that are worth a merge while more rows may still join them.
const WORTH: usize = 8;

/// Runs of neighbours, by their rows, that become one of `target` rows at most.
///
/// A run that is full is merged. Of the last one, which is not, a member that is larger than all behind it is left as
/// it is: so a row is written again about as often as its run doubles.
pub(super) fn runs(rows: &[usize], target: usize) -> Vec<Range<usize>> {
    let (mut runs, mut begin, mut sum) = (Vec::new(), 0, 0);
    for (at, of) in rows.iter().enumerate() {
        if at > begin && (sum + of > target || at - begin == MOST) {
            runs.extend((at - begin > 1).then_some(begin..at));
            (begin, sum) = (at, 0);
        }
        sum += of;
    }
    while begin < rows.len() && rows[begin] > sum - rows[begin] {
        sum -= rows[begin];
        begin += 1;
    }
    runs.extend((rows.len() - begin >= WORTH).then_some(begin..rows.len()));
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_runs_are_merged_and_the_last_one_when_it_is_worth_it() {
        let runs = |rows: &[usize], target| -> Vec<(usize, usize)> {
            super::runs(rows, target).into_iter().map(|run| (run.start, run.end)).collect()
        };
        assert!(runs(&[], 100).is_empty() && runs(&[100, 100], 100).is_empty() && runs(&[1; 7], 100).is_empty());
        assert_eq!(runs(&[30, 30, 30, 30, 30], 100), [(0, 3)], "two are few");
        assert_eq!(runs(&[500, 30, 70, 30], 100), [(1, 3)]);
        assert_eq!(runs(&[1; 8], 100), [(0, 8)]);
        assert_eq!(runs(&[[50].as_slice(), &[1; 9]].concat(), 100), [(1, 10)], "the large one waits");
        assert_eq!(runs(&[[50].as_slice(), &[6; 8]].concat(), 97), [(0, 8)], "it is full");
        assert_eq!(runs(&[0; 3_000], 100), [(0, 1_024), (1_024, 2_048), (2_048, 3_000)]);
    }

    proptest! {
        #[test]
        fn runs_follow_one_another_and_do_not_outgrow_the_target(
            rows in prop::collection::vec(0usize..120, 0..200), target in 1usize..300,
        ) {
            let mut behind = 0;
            for run in runs(&rows, target) {
                prop_assert!(run.start >= behind && run.len() > 1 && run.end <= rows.len());
                prop_assert!(rows[run.clone()].iter().sum::<usize>() <= target);
                behind = run.end;
            }
        }

        #[test]
        fn a_stream_of_small_flushes_is_written_again_a_few_times_only(target in 500usize..3_000) {
            let (mut log, mut written): (Vec<usize>, usize) = (Vec::new(), 0);
            for _ in 0..400 {
                log.extend([7; 5]);
                for run in runs(&log, target).into_iter().rev() {
                    let sum = log[run.clone()].iter().sum();
                    written += sum;
                    log.splice(run, [sum]);
                }
            }
            prop_assert_eq!(log.iter().sum::<usize>(), 400 * 35);
            prop_assert!(written <= 10 * 400 * 35, "{} of {}", written, 400 * 35);
            prop_assert!(log.len() < 400 * 35 / target * 3 + 40, "{} files", log.len());
        }
    }
}

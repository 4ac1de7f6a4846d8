//! How many customers any two items have in common, without a copy of the histories.

/// A customer's newest items that count, so that a bot costs no more than a person.
const NEWEST: usize = 1_000;
/// Bytes of the counts that are held at once: of all items where they fit, else of some of them at a time, each
/// time reading the histories again.
const BLOCK_BYTES: usize = 128 << 20;

/// Takes an item, how many customers it has in common with every item, and how many each item has.
type Each<'a> = dyn FnMut(usize, &[u32], &[u32]) + 'a;

/// Hands each item from 1 on to `each`, with how many customers it has in common with every item (with itself:
/// its own), and how many customers each item has. Histories are item indexes from 1, `width` is the number of
/// items + 1.
pub(crate) fn each_item(histories: &[&[u32]], width: usize, each: &mut Each<'_>) {
    in_blocks(histories, width, BLOCK_BYTES, each);
}

fn in_blocks(histories: &[&[u32]], width: usize, bytes: usize, each: &mut Each<'_>) {
    let mut customers = vec![0_u32; width];
    let mut set = Vec::new();
    for history in histories {
        distinct(history, &mut set);
        set.iter().for_each(|&item| customers[item as usize] += 1);
    }
    let block = (bytes / (4 * width.max(1))).clamp(1, width.max(1));
    let mut common = vec![0_u32; block * width];
    for from in (1..width).step_by(block) {
        let to = width.min(from + block);
        common.fill(0);
        for history in histories {
            distinct(history, &mut set);
            let first = set.partition_point(|&item| (item as usize) < from);
            for &item in set[first..].iter().take_while(|&&item| (item as usize) < to) {
                let row = &mut common[(item as usize - from) * width..][..width];
                set.iter().for_each(|&other| row[other as usize] += 1);
            }
        }
        for item in from..to {
            each(item, &common[(item - from) * width..][..width], &customers);
        }
    }
}

/// The newest items, each once, ascending.
fn distinct(history: &[u32], set: &mut Vec<u32>) {
    set.clear();
    set.extend_from_slice(&history[history.len().saturating_sub(NEWEST)..]);
    set.sort_unstable();
    set.dedup();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_held_at_once_the_counts_are_those_of_the_definition(
            histories in proptest::collection::vec(proptest::collection::vec(1..9_u32, 0..20), 0..8), bytes in 0..400_usize
        ) {
            let rows: Vec<&[u32]> = histories.iter().map(Vec::as_slice).collect();
            let both = |a: usize, b: usize| {
                rows.iter().filter(|row| row.contains(&(a as u32)) && row.contains(&(b as u32))).count() as u32
            };
            let mut seen = 0;
            in_blocks(&rows, 9, bytes, &mut |item, common, customers| {
                seen += 1;
                assert_eq!(item, seen);
                assert!((1..9).all(|other| common[other] == both(item, other) && customers[other] == both(other, other)));
            });
            prop_assert_eq!(seen, 8);
        }
    }
}

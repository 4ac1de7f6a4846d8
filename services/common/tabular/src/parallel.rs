use std::ops::Range;

/// Runs `work` over `0..count` cut into one range a thread, and returns the results in order: the
/// answer does not depend on `threads`.
pub fn map<T: Send>(threads: usize, count: usize, work: impl Fn(Range<usize>) -> Vec<T> + Sync) -> Vec<T> {
    let threads = threads.clamp(1, count.max(1));
    if threads == 1 {
        return work(0..count);
    }
    let work = &work;
    std::thread::scope(|scope| {
        let part = |thread: usize| thread * count / threads..(thread + 1) * count / threads;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(part(thread)))).collect();
        let mut results = work(part(0));
        for other in others {
            match other.join() {
                Ok(part) => results.extend(part),
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }
        results
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for threads in [0, 1, 3, 20] {
            let squares = super::map(threads, 7, |range| range.map(|i| i * i).collect());
            assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36]);
        }
        assert!(super::map(4, 0, |range| range.collect::<Vec<_>>()).is_empty());
    }
}

//! The bounded queue between async callers and worker threads, with gathering into batches.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Why a push was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// First in, first out; many producers that never wait, many consumers that take batches.
pub(crate) struct BatchQueue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    bound: usize,
}

struct State<T> {
    waiting: VecDeque<(Instant, T)>,
    closed: bool,
}

impl<T> BatchQueue<T> {
    pub(crate) fn new(bound: usize) -> Self {
        let state = State { waiting: VecDeque::with_capacity(bound.min(1024)), closed: false };
        Self { state: Mutex::new(state), arrived: Condvar::new(), bound }
    }

    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    pub(crate) fn push(&self, entry: T) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.bound {
            return Err(Refused::Full);
        }
        state.waiting.push_back((Instant::now(), entry));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next batch: all that waits up to `max`, and what arrives until the first of them has
    /// waited `max_wait`. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, max: usize, max_wait: Duration) -> Option<Vec<(Instant, T)>> {
        let mut state = self.lock();
        loop {
            if let Some(&(first, _)) = state.waiting.front() {
                let left = max_wait.saturating_sub(first.elapsed());
                if state.waiting.len() >= max || state.closed || left.is_zero() {
                    let count = state.waiting.len().min(max.max(1));
                    let batch = state.waiting.drain(..count).collect();
                    let more = !state.waiting.is_empty();
                    drop(state);
                    if more {
                        self.arrived.notify_one();
                    }
                    return Some(batch);
                }
                state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if state.closed {
                return None;
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Nothing more comes in; what waits is still handed out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Closes and drops what waits, so that its callers learn of it.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        drop(left);
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    fn values(batch: Option<Vec<(Instant, u32)>>) -> Vec<u32> {
        batch.unwrap_or_default().into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn a_full_queue_refuses_and_takes_again_after_a_batch_left() {
        let queue = BatchQueue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(Refused::Full)));
        assert_eq!(values(queue.take(8, Duration::ZERO)), [1, 2]);
        assert_eq!(queue.push(3), Ok(()));
    }

    #[test]
    fn a_batch_is_full_before_its_wait_ends() {
        let queue = BatchQueue::new(8);
        (0..5).for_each(|i| queue.push(i).unwrap());
        assert_eq!(values(queue.take(3, Duration::from_secs(3600))), [0, 1, 2]);
    }

    #[test]
    fn a_closed_queue_hands_out_what_waits_and_then_ends() {
        let queue = BatchQueue::new(8);
        queue.push(7).unwrap();
        queue.close();
        assert_eq!(queue.push(8), Err(Refused::Closed));
        assert_eq!(values(queue.take(3, Duration::from_secs(3600))), [7]);
        assert!(queue.take(3, Duration::from_secs(3600)).is_none());
    }

    #[test]
    fn every_entry_reaches_exactly_one_of_many_consumers() {
        let queue = Arc::new(BatchQueue::new(10_000));
        let consumers: Vec<_> = (0..4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let mut seen = Vec::new();
                    while let Some(batch) = queue.take(7, Duration::from_micros(50)) {
                        seen.extend(batch.into_iter().map(|(_, value): (_, u32)| value));
                    }
                    seen
                })
            })
            .collect();
        (0..10_000).for_each(|i| queue.push(i).unwrap());
        queue.close();
        let mut seen: Vec<u32> = consumers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
    }
}

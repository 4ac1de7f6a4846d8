//! Calls: as many as possible to find out how many that are, then so many a second whatever happens.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::sync::Semaphore;

use super::{
    balancer::Balancer,
    checker::{Failure, Retry},
    samples::Samples,
};

/// Callers that each make their next call when they have the answer to the last one.
const CALLERS: usize = 32;
/// Calls that may be under way at once at a rate; the next one waits, and that is part of its latency.
const UNDER_WAY: usize = 4_096;

pub struct Calls {
    balancer: Arc<Balancer>,
    customers: Arc<Vec<String>>,
}

/// What the callers heard.
#[derive(Default)]
pub struct Heard {
    pub planned: u64,
    pub samples: Samples,
    pub failures: Vec<Failure>,
}

impl Calls {
    pub fn new(balancer: Arc<Balancer>, customers: Arc<Vec<String>>) -> Self {
        Self { balancer, customers }
    }

    /// Answers a second.
    ///
    /// # Panics
    /// A call fails: nothing has been killed yet.
    pub async fn as_many_as_possible(&self, during: Duration) -> f64 {
        let (started, answers) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let caller = |n: usize| {
            let (balancer, customers, answers) =
                (Arc::clone(&self.balancer), Arc::clone(&self.customers), Arc::clone(&answers));
            tokio::spawn(async move {
                let mut customer = n * customers.len() / CALLERS;
                while started.elapsed() < during {
                    let answer = balancer.ask(balancer.pick(None), &customers[customer % customers.len()]).await;
                    answer.outcome.unwrap_or_else(|why| panic!("a call fails before anything was killed: {why}"));
                    answers.fetch_add(1, Ordering::Relaxed);
                    customer += 1;
                }
            })
        };
        for caller in join_all((0..CALLERS).map(caller)).await {
            caller.expect("every caller was answered");
        }
        answers.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
    }

    /// Calls at their times, whether or not the ones before have been answered; latencies count from when a
    /// call was due, so that a stall is felt by every call that it delays (no coordinated omission).
    pub async fn at_a_rate(&self, rate: f64, began: Instant, lasts: Duration) -> Heard {
        let planned = (rate * lasts.as_secs_f64()) as u64;
        let under_way = Arc::new(Semaphore::new(UNDER_WAY));
        let heard = Arc::new(Mutex::new(Heard { planned, ..Heard::default() }));
        for n in 0..planned {
            let due = Duration::from_secs_f64(n as f64 / rate);
            let early = due.saturating_sub(began.elapsed());
            if !early.is_zero() {
                tokio::time::sleep(early).await;
            }
            let permit = Arc::clone(&under_way).acquire_owned().await.expect("the semaphore is never closed");
            // A stride that shares no factor with the number of customers visits all of them.
            let customer = self.customers[(n as usize).wrapping_mul(7_919) % self.customers.len()].clone();
            let (balancer, heard) = (Arc::clone(&self.balancer), Arc::clone(&heard));
            tokio::spawn(async move {
                one(&balancer, &customer, due, began, &heard).await;
                drop(permit);
            });
        }
        let all = u32::try_from(UNDER_WAY).unwrap_or(u32::MAX);
        drop(under_way.acquire_many(all).await.expect("the semaphore is never closed"));
        std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call, and once more when it fails.
async fn one(balancer: &Balancer, customer: &str, due: Duration, began: Instant, heard: &Mutex<Heard>) {
    let sent = began.elapsed();
    let first = balancer.ask(balancer.pick(None), customer).await;
    let keep = |scorer, list, retried| {
        let latency = began.elapsed().saturating_sub(due);
        heard.lock().unwrap_or_else(PoisonError::into_inner).samples.push(due, latency, scorer, list, retried);
    };
    let why = match first.outcome {
        Ok(list) => return keep(first.scorer, list, false),
        Err(why) => why,
    };
    let failed = began.elapsed();
    let second = balancer.ask(balancer.pick(Some(first.scorer)), customer).await;
    let retry = match second.outcome {
        Ok(list) => {
            keep(second.scorer, list, true);
            Retry::Answered
        }
        Err(again) => Retry::Failed(again),
    };
    let failure = Failure { scorer: first.scorer, sent, failed, why, retry };
    heard.lock().unwrap_or_else(PoisonError::into_inner).failures.push(failure);
}

//! Writes lists behind the answers: those that a call has just made, and fresh ones for customers
//! whose list was served a few events old. One refresh for each customer at a time, a bounded
//! number at once, a bounded queue; what does not fit is left to the next read.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use rapport_events::Tenant;
use rapport_runtime::Lifecycle;
use tokio::{sync::mpsc, task::JoinSet};

use crate::recommender::Recommender;

/// Whose list it is: the id as it is stored.
pub type Customer = (Tenant, String);

enum Job {
    Store { customer: Customer, list: Vec<u8> },
    Refresh { customer: Customer },
}

/// The requests' end.
pub struct Keeper {
    jobs: mpsc::Sender<Job>,
    /// Customers whose refresh is queued or under way.
    refreshing: Mutex<HashSet<Customer>>,
}

/// The other end, for [`keep`].
pub struct Jobs(mpsc::Receiver<Job>);

impl Keeper {
    pub fn new(queue: usize) -> (Self, Jobs) {
        let (jobs, receiver) = mpsc::channel(queue.max(1));
        (Self { jobs, refreshing: Mutex::default() }, Jobs(receiver))
    }

    /// Writes a list that has just been made.
    pub fn store(&self, customer: Customer, list: Vec<u8>) {
        if self.jobs.try_send(Job::Store { customer, list }).is_err() {
            count("store", "dropped");
        }
    }

    /// Makes and writes a new list, unless that is under way already. Returns whether it was queued.
    pub fn refresh(&self, customer: Customer) -> bool {
        if !self.refreshing().insert(customer.clone()) {
            return false;
        }
        match self.jobs.try_send(Job::Refresh { customer }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) => {
                if let Job::Refresh { customer } = job {
                    self.refreshing().remove(&customer);
                }
                count("refresh", "dropped");
                false
            }
        }
    }

    fn refreshing(&self) -> std::sync::MutexGuard<'_, HashSet<Customer>> {
        self.refreshing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(what: &'static str, outcome: &'static str) {
    metrics::counter!("rapport_scorer_lists_written_total", "why" => what, "outcome" => outcome).increment(1);
}

/// Takes jobs until a drain is asked for, then finishes those that are under way: a list that is
/// not written is only made once more.
pub async fn keep(recommender: Arc<Recommender>, jobs: Jobs, at_once: usize, lifecycle: Lifecycle) {
    let Jobs(mut jobs) = jobs;
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            Some(finished) = running.join_next(), if !running.is_empty() => log_panic(finished),
            job = jobs.recv(), if running.len() < at_once.max(1) => match job {
                Some(job) => { running.spawn(work(recommender.clone(), job)); }
                None => break,
            },
            () = lifecycle.drain_requested() => break,
        }
    }
    while let Some(finished) = running.join_next().await {
        log_panic(finished);
    }
}

fn log_panic(finished: Result<(), tokio::task::JoinError>) {
    if let Err(error) = finished {
        tracing::error!(%error, "writing a list failed");
    }
}

async fn work(recommender: Arc<Recommender>, job: Job) {
    match job {
        Job::Store { customer, list } => {
            let written = recommender.write_list(&customer, list).await;
            count("store", if written { "ok" } else { "failed" });
        }
        Job::Refresh { customer } => {
            let _under_way = UnderWay { keeper: recommender.keeper(), customer: &customer };
            let outcome = match recommender.remake_list(&customer).await {
                Some(list) => recommender.write_list(&customer, list).await,
                None => false,
            };
            count("refresh", if outcome { "ok" } else { "failed" });
        }
    }
}

/// Ends with the refresh, however it ends.
struct UnderWay<'a> {
    keeper: &'a Keeper,
    customer: &'a Customer,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.keeper.refreshing().remove(self.customer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_refreshed_once_at_a_time_and_a_full_queue_drops() {
        let (keeper, mut jobs) = Keeper::new(1);
        let customer = |id: &str| (Tenant::parse("acme").unwrap(), id.to_owned());
        assert!(keeper.refresh(customer("ann")));
        assert!(!keeper.refresh(customer("ann")), "under way");
        assert!(!keeper.refresh(customer("bob")), "no room");
        assert!(jobs.0.try_recv().is_ok());
        assert!(keeper.refresh(customer("bob")), "a dropped one may be asked for again");
    }
}

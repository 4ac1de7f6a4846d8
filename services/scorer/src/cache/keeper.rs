//! Writes lists behind the answers: those that a call has just made, and fresh ones for customers
//! whose list was served a few events old. One refresh for each customer at a time, a bounded
//! number at once, bounded queues; what does not fit is left to the next read.
//!
//! A list that is made already is worth more than one that is yet to be made, and costs a write: the two have
//! queues of their own, and a refresh whose turn comes after a call has made the list is left out. In one queue,
//! lists of calls waited behind refreshes when the model was busy, so that more calls found none and made their
//! own, which made it busier.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rapport_events::Tenant;
use rapport_runtime::Lifecycle;
use tokio::{sync::mpsc, task::JoinSet};

use crate::recommender::Recommender;

/// Whose list it is: the id as it is stored.
pub type Customer = (Tenant, String);

/// Where a customer's refresh is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    Waits,
    Runs,
}

/// The requests' end.
pub struct Keeper {
    lists: mpsc::Sender<(Customer, Vec<u8>)>,
    refreshes: mpsc::Sender<Customer>,
    refreshing: Mutex<HashMap<Customer, Refresh>>,
}

/// The other end, for [`keep`].
pub struct Jobs {
    lists: mpsc::Receiver<(Customer, Vec<u8>)>,
    refreshes: mpsc::Receiver<Customer>,
}

impl Keeper {
    /// With room for so many of either kind.
    pub fn new(queue: usize) -> (Self, Jobs) {
        let (lists, made) = mpsc::channel(queue.max(1));
        let (refreshes, asked) = mpsc::channel(queue.max(1));
        (Self { lists, refreshes, refreshing: Mutex::default() }, Jobs { lists: made, refreshes: asked })
    }

    /// Writes a list that has just been made. A refresh that waits has nothing left to do.
    pub fn store(&self, customer: Customer, list: Vec<u8>) {
        match self.lists.try_send((customer.clone(), list)) {
            Ok(()) => {
                let mut refreshing = self.refreshing();
                if refreshing.get(&customer) == Some(&Refresh::Waits) {
                    refreshing.remove(&customer);
                }
            }
            Err(_) => count("store", "dropped"),
        }
    }

    /// Makes and writes a new list, unless that is under way already. Returns whether it was queued.
    pub fn refresh(&self, customer: Customer) -> bool {
        {
            let mut refreshing = self.refreshing();
            if refreshing.contains_key(&customer) {
                return false;
            }
            refreshing.insert(customer.clone(), Refresh::Waits);
        }
        match self.refreshes.try_send(customer) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(customer) | mpsc::error::TrySendError::Closed(customer)) => {
                self.refreshing().remove(&customer);
                count("refresh", "dropped");
                false
            }
        }
    }

    /// Whether a refresh whose turn has come is still wanted; then it runs until the guard goes.
    fn begin<'a>(&'a self, customer: &'a Customer) -> Option<UnderWay<'a>> {
        let mut refreshing = self.refreshing();
        let stage = refreshing.get_mut(customer).filter(|stage| **stage == Refresh::Waits)?;
        *stage = Refresh::Runs;
        Some(UnderWay { keeper: self, customer })
    }

    fn refreshing(&self) -> std::sync::MutexGuard<'_, HashMap<Customer, Refresh>> {
        self.refreshing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(what: &'static str, outcome: &'static str) {
    metrics::counter!("rapport_scorer_lists_written_total", "why" => what, "outcome" => outcome).increment(1);
}

/// Takes jobs until a drain is asked for, then finishes those that are under way: a list that is
/// not written is only made once more. `at_once` of either kind.
pub async fn keep(recommender: Arc<Recommender>, jobs: Jobs, at_once: usize, lifecycle: Lifecycle) {
    let Jobs { mut lists, mut refreshes } = jobs;
    let (mut writing, mut making) = (JoinSet::new(), JoinSet::new());
    let at_once = at_once.max(1);
    loop {
        tokio::select! {
            Some(finished) = writing.join_next(), if !writing.is_empty() => log_panic(finished),
            Some(finished) = making.join_next(), if !making.is_empty() => log_panic(finished),
            job = lists.recv(), if writing.len() < at_once => match job {
                Some((customer, list)) => { writing.spawn(write(recommender.clone(), customer, list)); }
                None => break,
            },
            job = refreshes.recv(), if making.len() < at_once => match job {
                Some(customer) => { making.spawn(remake(recommender.clone(), customer)); }
                None => break,
            },
            () = lifecycle.drain_requested() => break,
        }
    }
    for mut running in [writing, making] {
        while let Some(finished) = running.join_next().await {
            log_panic(finished);
        }
    }
}

fn log_panic(finished: Result<(), tokio::task::JoinError>) {
    if let Err(error) = finished {
        tracing::error!(%error, "writing a list failed");
    }
}

async fn write(recommender: Arc<Recommender>, customer: Customer, list: Vec<u8>) {
    let written = recommender.write_list(&customer, list).await;
    count("store", if written { "ok" } else { "failed" });
}

async fn remake(recommender: Arc<Recommender>, customer: Customer) {
    let Some(_under_way) = recommender.keeper().begin(&customer) else {
        return count("refresh", "needless");
    };
    let outcome = match recommender.remake_list(&customer).await {
        Some(list) => recommender.write_list(&customer, list).await,
        None => false,
    };
    count("refresh", if outcome { "ok" } else { "failed" });
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

    fn customer(id: &str) -> Customer {
        (Tenant::parse("acme").unwrap(), id.to_owned())
    }

    #[test]
    fn a_customer_is_refreshed_once_at_a_time_and_a_full_queue_drops() {
        let (keeper, mut jobs) = Keeper::new(1);
        assert!(keeper.refresh(customer("ann")));
        assert!(!keeper.refresh(customer("ann")), "under way");
        assert!(!keeper.refresh(customer("bob")), "no room");
        assert!(jobs.refreshes.try_recv().is_ok());
        assert!(keeper.refresh(customer("bob")), "a dropped one may be asked for again");
    }

    #[test]
    fn a_list_that_a_call_made_finds_room_beside_waiting_refreshes_and_makes_its_own_needless() {
        let (keeper, mut jobs) = Keeper::new(1);
        let (ann, bob) = (customer("ann"), customer("bob"));
        assert!(keeper.refresh(ann.clone()));
        keeper.store(ann.clone(), vec![1]);
        assert_eq!(jobs.lists.try_recv().unwrap(), (ann.clone(), vec![1]), "it does not wait behind the refresh");
        assert!(keeper.begin(&ann).is_none(), "a call has made it");

        // One that runs already is not called off, and there is no second one beside it.
        assert!(jobs.refreshes.try_recv().is_ok() && keeper.refresh(bob.clone()));
        let under_way = keeper.begin(&bob).unwrap();
        keeper.store(bob.clone(), vec![2]);
        assert!(!keeper.refresh(bob.clone()) && keeper.begin(&bob).is_none());
        drop(under_way);
        assert!(jobs.refreshes.try_recv().is_ok() && keeper.refresh(bob), "the next stale list is refreshed again");
    }
}

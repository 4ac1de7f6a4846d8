//! Events at a steady rate through both collectors, each sent until it is acknowledged, and the count of
//! them in the features afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_proto::{
    collect::{CollectBatchRequest, collector_client::CollectorClient, outcome},
    events::Event,
    features::{GetFeaturesRequest, feature_store_client::FeatureStoreClient},
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Plan, checker::Counted, fleet::Fleet, prepare::ITEMS};
use crate::{
    events::{interaction, now_ms},
    harness::{
        Service,
        clients::{Called, Caller, channel},
    },
    walks::Walks,
};

/// Events in a request.
const BATCH: usize = 10;
/// Requests that may be under way at once: two seconds of Kafka's sleep at the usual rate.
const UNDER_WAY: usize = 256;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const BACK_OFF: Duration = Duration::from_millis(100);
/// For how long a batch is sent again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ids in one read of features.
const READ: usize = 500;

/// Events of one customer, as they were sent.
#[derive(Default)]
struct Sent {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

pub struct Flow {
    stop: Arc<AtomicBool>,
    customers: Arc<Vec<Sent>>,
    again: Arc<AtomicU64>,
    task: JoinHandle<()>,
    base: u64,
}

/// What became of the events, customer by customer.
pub struct Account {
    pub counts: Vec<Counted>,
    pub sent_again: u64,
}

impl Flow {
    /// On top of `base` events of each customer.
    pub fn start(fleet: &Fleet, plan: &Plan, base: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let customers: Arc<Vec<Sent>> = Arc::new((0..plan.customers).map(|_| Sent::default()).collect());
        let again = Arc::new(AtomicU64::new(0));
        let doors = fleet.doors(Service::Collector);
        let clients: Vec<_> =
            doors.iter().map(|(_, door)| CollectorClient::with_interceptor(channel(door), Caller)).collect();
        let task = tokio::spawn(flow(
            clients,
            Arc::clone(&customers),
            Arc::clone(&again),
            Arc::clone(&stop),
            Duration::from_secs_f64(BATCH as f64 / f64::from(plan.events)),
            plan.seed,
        ));
        Self { stop, customers, again, task, base }
    }

    /// Stops, waits for the last acknowledgements, and then until the features hold everything.
    pub async fn end(mut self, fleet: &Fleet, within: Duration) -> Account {
        self.stop.store(true, Ordering::Release);
        (&mut self.task).await.expect("whoever sends events does not panic");
        let deadline = Instant::now() + within;
        loop {
            let counts = self.counted(fleet).await;
            let is_complete = |counts: &[Counted]| counts.iter().all(|c| c.counted >= c.acknowledged);
            match counts {
                Ok(counts) if is_complete(&counts) || Instant::now() > deadline => {
                    return Account { counts, sent_again: self.again.load(Ordering::Relaxed) };
                }
                Err(why) => assert!(Instant::now() < deadline, "features cannot be read: {why}"),
                Ok(_) => {}
            }
            sleep(BACK_OFF).await;
        }
    }

    async fn counted(&self, fleet: &Fleet) -> Result<Vec<Counted>, String> {
        let (_, door) = fleet.doors(Service::FeatureStore).swap_remove(0);
        let mut store = FeatureStoreClient::with_interceptor(channel(&door), Caller);
        let ids: Vec<String> = (0..self.customers.len()).map(Walks::customer).collect();
        let mut counts = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ) {
            let request = GetFeaturesRequest { entity_ids: ids.to_vec(), ..Default::default() };
            let answer = store.get_features(request).await.map_err(|status| status.to_string())?;
            for vector in &answer.get_ref().vectors {
                let one = &self.customers[counts.len()];
                let acknowledged = one.acknowledged.load(Ordering::Relaxed);
                let open = one.sent.load(Ordering::Relaxed) - acknowledged;
                counts.push(Counted { acknowledged, open, counted: vector.version.saturating_sub(self.base) });
            }
        }
        Ok(counts)
    }
}

async fn flow(
    clients: Vec<CollectorClient<Called>>,
    customers: Arc<Vec<Sent>>,
    again: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    every: Duration,
    seed: u64,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    let mut ticks = tokio::time::interval(every);
    for batch in 0.. {
        ticks.tick().await;
        if stop.load(Ordering::Acquire) {
            break;
        }
        let permit = Arc::clone(&under_way).acquire_owned().await.expect("the semaphore is never closed");
        let batch_of = (0..BATCH).map(|n| {
            let customer = rng.random_range(0..customers.len());
            let item = format!("item-{:04}", rng.random_range(0..ITEMS));
            let id = format!("load-{seed}-{batch}-{n}");
            (customer, interaction(&id, "view", &Walks::customer(customer), &item, now_ms()))
        });
        let events: Vec<(usize, Event)> = batch_of.collect();
        let (clients, customers, again) = (clients.clone(), Arc::clone(&customers), Arc::clone(&again));
        tokio::spawn(async move {
            until_acknowledged(&clients, batch, events, &customers, &again).await;
            drop(permit);
        });
    }
    let all = u32::try_from(UNDER_WAY).unwrap_or(u32::MAX);
    drop(under_way.acquire_many(all).await.expect("the semaphore is never closed"));
}

async fn until_acknowledged(
    clients: &[CollectorClient<Called>],
    mut door: usize,
    mut events: Vec<(usize, Event)>,
    customers: &[Sent],
    again: &AtomicU64,
) {
    for (customer, _) in &events {
        customers[*customer].sent.fetch_add(1, Ordering::Relaxed);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = CollectBatchRequest { events: events.iter().map(|(_, event)| event.clone()).collect() };
        let mut client = clients[door % clients.len()].clone();
        if let Ok(Ok(answer)) = timeout(ANSWER_WITHIN, client.collect_batch(request)).await {
            let mut outcomes = answer.get_ref().outcomes.iter();
            events.retain(|(customer, _)| {
                let accepted = outcomes.next().is_some_and(|o| o.status() == outcome::Status::Accepted);
                if accepted {
                    customers[*customer].acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                !accepted
            });
        }
        if events.is_empty() || Instant::now() > deadline {
            return;
        }
        again.fetch_add(events.len() as u64, Ordering::Relaxed);
        door += 1;
        sleep(BACK_OFF).await;
    }
}

//! The rules of the cache and of degradation, with a map in place of Redis.

mod cold_start;
mod outcomes;
mod placements;
mod segments;
mod stages;
mod trials;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use rapport_events::{EventTime, Tenant};
use rapport_inference::raw::{RawInput, RawOutput, Signature};
use rapport_runtime::Lifecycle;

use crate::{
    cache::keeper::{self, Keeper},
    catalog::{Catalog, Entry},
    meters::Meters,
    models::{LiveModel, Models, Standing},
    pipeline::{Pipeline, Tag},
    recommender::{Answer, Ask, Reason, Recommender, Rules, Served, Similar, Visit},
    shadow::{self, Trials},
    store::{Guarded, Known, SeenItems, Store, StoreError, With},
    trends::{self, Board, Trends},
};

/// A store in memory that can be taken down and counts what is done to it.
#[derive(Default)]
struct Memory {
    customers: Mutex<HashMap<String, Known>>,
    lists: Mutex<HashMap<String, Vec<u8>>>,
    trends: Mutex<Trends>,
    /// Of segments, by name.
    popular: Mutex<HashMap<String, Trends>>,
    down: AtomicBool,
    hangs: AtomicBool,
    rebuilding: AtomicBool,
    histories: AtomicUsize,
    writes: AtomicUsize,
}

impl Memory {
    async fn there(&self) -> Result<(), StoreError> {
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(SeqCst) { Err(StoreError::Failed("connection refused".into())) } else { Ok(()) }
    }
}

struct Shared(Arc<Memory>);

impl Store for Shared {
    fn customer<'a>(
        &'a self,
        _: &'a Tenant,
        customer: &'a str,
        with: With,
    ) -> BoxFuture<'a, Result<Option<Known>, StoreError>> {
        Box::pin(async move {
            self.0.there().await?;
            let known = self.0.customers.lock().unwrap().get(customer).cloned();
            Ok(known.map(|known| match with {
                With::List => {
                    let list = self.0.lists.lock().unwrap().get(customer).cloned();
                    Known { list, history: Vec::new(), segment: None, ..known }
                }
                With::History => {
                    self.0.histories.fetch_add(1, SeqCst);
                    known
                }
            }))
        })
    }

    fn put_list<'a>(
        &'a self,
        _: &'a Tenant,
        customer: &'a str,
        list: Vec<u8>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.0.there().await?;
            assert!(ttl >= Duration::from_secs(50), "every list expires, none at once");
            self.0.lists.lock().unwrap().insert(customer.to_owned(), list);
            self.0.writes.fetch_add(1, SeqCst);
            Ok(())
        })
    }

    fn trends<'a>(&'a self, _: &'a Tenant, segment: Option<&'a str>) -> BoxFuture<'a, Result<Trends, StoreError>> {
        Box::pin(async move {
            self.0.there().await?;
            match segment {
                Some(name) => Ok(self.0.popular.lock().unwrap().get(name).cloned().unwrap_or_default()),
                None => Ok(self.0.trends.lock().unwrap().clone()),
            }
        })
    }

    fn rebuilding(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            self.0.there().await?;
            Ok(self.0.rebuilding.load(SeqCst))
        })
    }
}

/// A recommender over a [`Memory`], with the task that writes its lists.
struct House {
    memory: Arc<Memory>,
    recommender: Arc<Recommender>,
    lifecycle: Lifecycle,
    tenant: Tenant,
    /// What waits for a version on trial.
    tried: shadow::Queue,
}

/// Items `a` to `f`: the model likes them in the order of the alphabet, turned by the last item.
const ITEMS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn model(epoch: u64) -> Standing {
    let mut model = LiveModel::for_tests(&ITEMS, |history| {
        let last = *history.last().unwrap();
        (0..7).map(|i| if i == 0 { f32::NEG_INFINITY } else { -((i - last).rem_euclid(6) as f32) }).collect()
    });
    model.stamp.epoch = epoch;
    Standing { model: Some(Arc::new(model)), ..Standing::default() }
}

impl House {
    fn new(list_length: usize) -> Self {
        Self::with_grace(list_length, Duration::ZERO)
    }

    /// One that serves lists of the model before for so long after a swap.
    fn with_grace(list_length: usize, swap_grace: Duration) -> Self {
        let memory = Arc::new(Memory::default());
        *memory.trends.lock().unwrap() = Trends::of(&[("hit", 9.0), ("f", 5.0)]);
        let (keep, jobs) = Keeper::new(16);
        let (trials, tried) = Trials::new();
        let tenant = Tenant::parse("acme").unwrap();
        let guarded =
            Guarded::new(Box::new(Shared(memory.clone())), Duration::from_millis(20), Duration::from_secs(60));
        let catalog = Catalog::default();
        catalog.set_caught_up();
        let recommender = Arc::new(Recommender {
            store: Arc::new(guarded),
            models: Arc::new(Models::default()),
            catalog: Arc::new(catalog),
            trends: Arc::new(Board::default()),
            new_items: Arc::default(),
            pipeline: Pipeline::new(Duration::from_millis(500), Duration::from_millis(50)),
            rules: Rules { max_stale_events: 2, list_length, swap_grace, refresh_budget: Duration::from_secs(1) },
            meters: Meters::default(),
            keep,
            trials,
        });
        recommender.models.set(&tenant, model(1));
        let lifecycle = Lifecycle::new();
        tokio::spawn(keeper::keep(recommender.clone(), jobs, 2, lifecycle.clone()));
        tokio::spawn(trends::keep_fresh(
            recommender.trends.clone(),
            recommender.models.clone(),
            recommender.store.clone(),
            tenant.clone(),
            Duration::from_millis(50),
            lifecycle.clone(),
        ));
        Self { memory, recommender, lifecycle, tenant, tried }
    }

    /// The customer's events so far: each names an item.
    fn history(&self, customer: &str, items: &[&str]) {
        let known = Known {
            version: items.len() as u64,
            newest: Some(EventTime::from_ms(items.len() as i64)),
            seen: SeenItems::of(items),
            list: None,
            history: items.iter().map(|i| (*i).to_owned()).collect(),
            history_times: Vec::new(),
            history_types: Vec::new(),
            segment: None,
        };
        self.memory.customers.lock().unwrap().insert(customer.to_owned(), known);
    }

    async fn ask(&self, ask: Ask) -> Answer {
        self.recommender.recommend(&self.tenant, ask, Instant::now() + Duration::from_secs(5)).await
    }

    async fn written(&self, writes: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.memory.writes.load(SeqCst) < writes {
            assert!(Instant::now() < deadline, "no list was written");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many lists have been written once everything that was asked for before has been.
    async fn all_writes(&self) -> usize {
        let before = self.memory.writes.load(SeqCst);
        self.recommender.models.set(&self.tenant, model(99));
        self.history("marker", &["a"]);
        self.ask(Ask { customer: "marker".into(), limit: 1, ..Ask::default() }).await;
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.memory.lists.lock().unwrap().contains_key("marker") {
            assert!(Instant::now() < deadline, "the marker was not written");
            tokio::task::yield_now().await;
        }
        assert!(self.memory.writes.load(SeqCst) > before);
        self.memory.writes.load(SeqCst) - 1
    }

    fn list(&self, customer: &str) -> Vec<u8> {
        self.memory.lists.lock().unwrap()[customer].clone()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

fn ann(limit: usize) -> Ask {
    Ask { customer: "ann".into(), limit, ..Ask::default() }
}

fn items(answer: &Answer) -> Vec<&str> {
    answer.items.iter().map(|placed| placed.pick.item.as_str()).collect()
}

#[tokio::test]
async fn the_second_call_is_a_hit_and_gives_the_same() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    let first = house.ask(ann(3)).await;
    assert_eq!((first.served, items(&first)), (Served::Miss, vec!["c", "d", "e"]));
    house.written(1).await;
    let second = house.ask(ann(3)).await;
    assert_eq!((second.served, items(&second)), (Served::Hit, vec!["c", "d", "e"]));
    assert_eq!((second.list_version, second.customer_version), (1, 1));
    assert_eq!(second.newest, Some(EventTime::from_ms(1)));
    assert_eq!(house.memory.histories.load(SeqCst), 1, "a hit does not read the history");
}

#[tokio::test]
async fn a_list_that_lags_a_little_is_served_without_what_was_seen_and_refreshed_once() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    house.ask(ann(3)).await;
    house.written(1).await;
    house.history("ann", &["b", "c"]);
    let calls = futures::future::join_all((0..8).map(|_| house.ask(ann(3)))).await;
    for stale in &calls {
        assert_eq!((stale.served, items(stale)), (Served::Stale, vec!["d", "e", "f"]));
        assert_eq!((stale.list_version, stale.customer_version), (1, 2));
    }
    house.written(2).await;
    let fresh = house.ask(ann(3)).await;
    assert_eq!((fresh.served, fresh.list_version), (Served::Hit, 2));
    assert_eq!(house.memory.writes.load(SeqCst), 2, "eight stale answers, one refresh");
}

#[tokio::test]
async fn a_list_that_lags_far_or_is_asked_for_fresh_is_made_for_the_call() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    house.ask(ann(3)).await;
    house.written(1).await;
    house.history("ann", &["b", "c"]);
    let fresh = house.ask(Ask { fresh: true, ..ann(2) }).await;
    assert_eq!((fresh.served, fresh.list_version), (Served::Miss, 2));
    house.written(2).await;
    house.history("ann", &["b", "c", "d", "e", "a"]);
    let far = house.ask(ann(2)).await;
    assert_eq!((far.served, far.list_version), (Served::Miss, 5));
}

#[tokio::test]
async fn another_epoch_makes_every_list_old_and_a_rollback_is_the_same() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    house.ask(ann(3)).await;
    house.written(1).await;
    house.recommender.models.set(&house.tenant, model(2));
    let promoted = house.ask(ann(3)).await;
    assert_eq!((promoted.served, promoted.model.unwrap().stamp.epoch), (Served::Miss, 2));
    house.written(2).await;
    assert_eq!(house.ask(ann(3)).await.served, Served::Hit);
}

#[tokio::test]
async fn for_a_while_after_a_swap_nobody_waits_for_a_new_list_and_the_answer_says_whose_it_is() {
    let house = House::with_grace(10, Duration::from_secs(60));
    house.history("ann", &["b"]);
    house.ask(ann(3)).await;
    house.written(1).await;
    house.recommender.models.set(&house.tenant, model(2));
    house.history("ann", &["b", "c"]);
    let calls = futures::future::join_all((0..8).map(|_| house.ask(ann(3)))).await;
    for old in &calls {
        let made_by = old.made_by.as_ref().map(|before| before.stamp.epoch);
        assert_eq!((old.served, items(old), made_by), (Served::Stale, vec!["d", "e", "f"], Some(1)));
    }
    house.written(2).await;
    let new = house.ask(ann(3)).await;
    assert_eq!((new.served, new.made_by.is_none(), new.list_version), (Served::Hit, true, 2));
    assert_eq!(house.memory.writes.load(SeqCst), 2, "eight answers, one new list");

    // A model that is two swaps old is nobody's, and who asks for what is fresh gets it.
    house.history("bob", &["b"]);
    house.ask(Ask { customer: "bob".into(), ..ann(3) }).await;
    house.written(3).await;
    house.recommender.models.set(&house.tenant, model(3));
    assert_eq!(house.ask(Ask { fresh: true, ..ann(3) }).await.served, Served::Miss);
    house.recommender.models.set(&house.tenant, model(4));
    assert_eq!(house.ask(Ask { customer: "bob".into(), ..ann(3) }).await.served, Served::Miss);
}

#[tokio::test]
async fn reads_in_every_variant_leave_the_cached_list_as_it_is() {
    let house = House::new(4);
    house.history("ann", &["b"]);
    house.ask(ann(2)).await;
    house.written(1).await;
    let before = house.list("ann");
    let excluded = Ask { excluded: ["c".to_owned()].into(), ..ann(2) };
    let answer = house.ask(excluded).await;
    assert_eq!((answer.served, items(&answer)), (Served::Hit, vec!["d", "e"]), "from the reserve");
    let too_long = house.ask(ann(6)).await;
    assert_eq!((too_long.served, items(&too_long).len()), (Served::Miss, 6), "the reserve does not suffice");
    let with_seen = house.ask(Ask { include_seen: true, ..ann(1) }).await;
    assert_eq!((with_seen.served, items(&with_seen)), (Served::Miss, vec!["b"]));
    assert_eq!(house.all_writes().await, 1, "variants are not cached");
    assert_eq!(house.list("ann"), before);
}

#[tokio::test]
async fn an_item_that_sells_out_leaves_cached_lists_at_once() {
    let house = House::new(4);
    house.history("ann", &["b"]);
    house.ask(ann(2)).await;
    house.written(1).await;
    let put = |item: &str, available| {
        let record = rapport_proto::catalog::Item { item_id: item.into(), available, ..Default::default() };
        let key = format!("acme/{item}");
        house.recommender.catalog.apply(key.as_bytes(), Some(&prost::Message::encode_to_vec(&record))).unwrap();
    };
    ITEMS.iter().for_each(|item| put(item, true));
    put("c", false);
    let answer = house.ask(ann(2)).await;
    assert_eq!((answer.served, items(&answer)), (Served::Hit, vec!["d", "e"]));
    let category = Ask { category: Some("none".into()), ..ann(2) };
    assert!(house.ask(category).await.items.is_empty());
    let entry = Entry { categories: vec!["x".into()], available: true, ..Entry::default() };
    house.recommender.catalog.of(&house.tenant).put("f", entry);
    let category = house.ask(Ask { category: Some("x".into()), ..ann(2) }).await;
    assert_eq!(items(&category), ["f"]);
}

#[tokio::test]
async fn a_stranger_gets_what_is_trending_and_nothing_is_cached_for_it() {
    let house = House::new(10);
    let answer = house.ask(ann(5)).await;
    assert_eq!(items(&answer), ["hit", "f"]);
    assert!(answer.items[0].pick.sources.holds(Tag::Trending) && answer.degraded.is_empty());
    assert_eq!((answer.customer_version, answer.served), (0, Served::Miss));
    assert_eq!(house.all_writes().await, 0);
}

#[tokio::test]
async fn before_any_model_a_customer_gets_trends_without_what_was_seen() {
    let house = House::new(10);
    house.recommender.models.set(&house.tenant, Standing::default());
    house.history("ann", &["hit"]);
    let answer = house.ask(ann(5)).await;
    assert_eq!(items(&answer), ["f"]);
    assert!(answer.model.is_none() && answer.degraded.is_empty());
}

#[tokio::test]
async fn without_redis_answers_come_from_memory_quickly_and_recovery_needs_no_hand() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    house.ask(Ask { customer: "stranger".into(), ..ann(1) }).await;
    house.memory.hangs.store(true, SeqCst);
    let started = Instant::now();
    for _ in 0..50 {
        let answer = house.ask(ann(2)).await;
        assert_eq!(items(&answer), ["hit", "f"]);
        assert_eq!(answer.degraded.names(), ["features", "cache"]);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "three time limits, not fifty");
    house.memory.hangs.store(false, SeqCst);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !house.ask(ann(2)).await.degraded.is_empty() {
        assert!(Instant::now() < deadline, "it never recovered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(items(&house.ask(ann(2)).await), ["c", "d"]);
}

#[tokio::test]
async fn a_model_that_fails_gives_way_to_trends_and_the_list_is_not_kept() {
    let house = House::new(10);
    let mut broken = LiveModel::for_tests(&ITEMS, |_| Vec::new());
    broken.ranker = Box::new(Broken);
    house.recommender.models.set(&house.tenant, Standing { model: Some(Arc::new(broken)), ..Standing::default() });
    house.history("ann", &["b"]);
    let answer = house.ask(ann(2)).await;
    assert_eq!(items(&answer), ["hit", "f"]);
    assert_eq!(answer.degraded.names(), ["model"]);
    assert_eq!(house.all_writes().await, 0);
}

struct Broken;
impl crate::models::Ranker for Broken {
    fn scores(
        &self,
        _: rapport_inference::Asked,
        _: Instant,
    ) -> BoxFuture<'_, Result<Arc<Vec<f32>>, rapport_inference::Error>> {
        Box::pin(std::future::ready(Err(rapport_inference::Error::Run("no memory".into()))))
    }

    fn signature(&self) -> &Signature {
        static NONE: Signature = Signature { inputs: Vec::new(), outputs: Vec::new(), width: 0 };
        &NONE
    }

    fn raw(&self, _: Vec<RawInput>, _: Instant) -> BoxFuture<'_, Result<Vec<RawOutput>, rapport_inference::Error>> {
        Box::pin(std::future::ready(Err(rapport_inference::Error::Stopped)))
    }
}

#[tokio::test]
async fn bytes_that_are_no_list_are_made_anew() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    house.memory.lists.lock().unwrap().insert("ann".into(), b"garbage".to_vec());
    assert_eq!(house.ask(ann(2)).await.served, Served::Miss);
    house.written(1).await;
    assert_eq!(house.ask(ann(2)).await.served, Served::Hit);
}

#[tokio::test]
async fn ranking_orders_what_the_caller_gave_and_similar_items_need_a_known_item() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    let deadline = Instant::now() + Duration::from_secs(5);
    let given = ["zz", "f", "c", "hit"].map(Arc::from).to_vec();
    let ranked = house.recommender.rank(&house.tenant, "ann", given, deadline).await;
    assert_eq!(items(&ranked), ["c", "f", "hit", "zz"]);
    let similar = |item: &str| Similar { item: item.into(), limit: 5, category: None };
    assert!(house.recommender.similar(&house.tenant, &similar("zz"), deadline).await.is_none());
    let cold = house.recommender.similar(&house.tenant, &similar("a"), deadline).await.unwrap();
    assert_eq!(items(&cold), ["hit", "f"], "no neighbours yet: what is trending");
}

#[tokio::test]
async fn while_the_store_is_made_anew_answers_say_so_and_their_lists_are_not_kept() {
    let house = House::new(10);
    house.history("ann", &["a"]);
    house.memory.rebuilding.store(true, SeqCst);
    let deadline = Instant::now() + Duration::from_secs(5);
    let ask = || Ask { customer: "ann".into(), limit: 2, ..Ask::default() };
    while house.ask(ask()).await.degraded.is_empty() {
        assert!(Instant::now() < deadline, "it is not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let writes = house.memory.writes.load(SeqCst);
    let answer = house.ask(Ask { fresh: true, ..ask() }).await;
    assert!(answer.degraded.parts().any(|part| part == crate::degraded::Part::Features));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(house.memory.writes.load(SeqCst), writes);
}

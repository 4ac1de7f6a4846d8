//! Training sees what serving sees: the same log through both paths gives the same features, to the bit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_events::{EventTime, LoggedEvent, Tenant};
use rapport_features::{Entity, Replay, Views, vector_at};
use rapport_integration_tests::{
    events::interaction,
    harness::{Service, Stack, stack::TENANT, wait::check, wait_until},
    offline,
};
use rapport_proto::{
    events::Event,
    features::{GetFeaturesRequest, GetHistoryRequest, ListViewsRequest},
};

use crate::doors::collect;

const CUSTOMERS: usize = 40;
const ITEMS: usize = 70;
/// More than a customer keeps states of: the quietest is forgotten in both paths alike.
const CATEGORIES: usize = 45;
const PHASE_EVENTS: usize = 2_500;
const DAY_MS: i64 = 86_400_000;
const START_MS: i64 = 1_764_547_200_000;
const WITHIN: Duration = Duration::from_secs(60);

/// Events of all kinds between two moments, out of order, with and without items and values.
pub fn events(phase: u64, from_ms: i64, to_ms: i64) -> Vec<Event> {
    let mut rng = ChaCha8Rng::seed_from_u64(phase);
    let kinds = ["view", "view", "view", "rating", "purchase", "add_to_cart", "search", "message", "my.own:kind"];
    (0..PHASE_EVENTS)
        .map(|n| {
            // A few customers do most of it.
            let customer = rng.random_range(0..CUSTOMERS).min(rng.random_range(0..CUSTOMERS));
            let kind = kinds[rng.random_range(0..kinds.len())];
            let item = format!("i{}", rng.random_range(0..ITEMS));
            let at = rng.random_range(from_ms..to_ms);
            let mut event = interaction(&format!("p{phase}-{n}"), kind, &format!("c{customer}"), &item, at);
            if matches!(kind, "search" | "message") {
                event.item_id.clear();
            }
            if rng.random_bool(0.8) {
                event.category = format!("k{}", rng.random_range(0..CATEGORIES));
            }
            if rng.random_bool(0.7) {
                // Values whose sums round: the order of the fold shows in the last bit.
                event.value = Some(rng.random_range(-1e6..1e6) / 3.0);
            }
            event
        })
        .collect()
}

/// Vectors as bits, by entity id: floats that print alike may differ, and NaN is not itself.
type Bits = BTreeMap<String, Vec<u64>>;

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What the feature store says: names, and a vector for each id.
async fn online(stack: &Stack, entity: Entity, ids: &BTreeSet<String>, at: EventTime) -> (Vec<String>, Bits) {
    let (mut names, mut vectors) = (Vec::new(), Bits::new());
    let ids: Vec<String> = ids.iter().cloned().collect();
    for some in ids.chunks(1_000) {
        let request = GetFeaturesRequest {
            entity: entity.name().to_owned(),
            entity_ids: some.to_vec(),
            at: Some(at.to_proto()),
            ..Default::default()
        };
        let answer = stack.feature_store().get_features(request).await.unwrap().into_inner();
        names = answer.names;
        for vector in answer.vectors {
            assert!(vector.found, "{entity} {} is not known", vector.entity_id);
            vectors.insert(vector.entity_id, bits(&vector.values));
        }
    }
    (names, vectors)
}

/// What the trainer's path says: the log up to `at`, folded by the shared code.
fn from_log(views: &Arc<Views>, log: &[LoggedEvent], entity: Entity, ids: &BTreeSet<String>, at: EventTime) -> Bits {
    let tenant = Tenant::parse(TENANT).unwrap();
    let mut replay = Replay::new(views);
    log.iter().filter(|logged| logged.event.time <= at).for_each(|logged| replay.apply(logged));
    ids.iter()
        .map(|id| {
            let values = match entity {
                Entity::Customer => vector_at(views, log, &tenant, id, at),
                Entity::Item | Entity::Segment => {
                    replay.shared(entity, &tenant, id).expect("an item of the log").read(at)
                }
                Entity::CustomerCategory | Entity::Session => {
                    let (customer, part) = id.split_once('|').unwrap();
                    replay.customer(&tenant, customer).expect("a customer of the log").read_part(entity, part, at)
                }
            };
            (id.clone(), bits(&values))
        })
        .collect()
}

fn ids(log: &[Event], entity: Entity) -> BTreeSet<String> {
    let of = |event: &Event| match entity {
        Entity::Customer => Some(event.customer_id.clone()),
        Entity::Item => (!event.item_id.is_empty()).then(|| event.item_id.clone()),
        Entity::CustomerCategory => {
            (!event.category.is_empty()).then(|| format!("{}|{}", event.customer_id, event.category))
        }
        // The built-in views have none of visits and segments; the flows `sessions` and `segments` have.
        Entity::Session | Entity::Segment => None,
    };
    log.iter().filter_map(of).collect()
}

/// Ids of (customer, category) pairs that the state still has: a forgotten one is not found online.
fn kept(views: &Arc<Views>, log: &[LoggedEvent], pairs: BTreeSet<String>) -> BTreeSet<String> {
    let tenant = Tenant::parse(TENANT).unwrap();
    let mut replay = Replay::new(views);
    log.iter().for_each(|logged| replay.apply(logged));
    let known = |pair: &String| {
        let (customer, category) = pair.split_once('|').unwrap();
        replay.customer(&tenant, customer).is_some_and(|state| state.part(Entity::CustomerCategory, category).is_some())
    };
    pairs.into_iter().filter(known).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_log_through_the_online_and_the_offline_path_gives_the_same_features_bit_by_bit() {
    let mut stack = Stack::new("same-features");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let views = Arc::new(Views::built_in().unwrap());
    let listed = stack.feature_store().list_views(ListViewsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.schema_hash, views.schema_hash(), "both paths read the same views");

    let phases =
        [events(1, START_MS, START_MS + 20 * DAY_MS), events(2, START_MS + 20 * DAY_MS, START_MS + 45 * DAY_MS)];
    let moments = [START_MS + 20 * DAY_MS, START_MS + 46 * DAY_MS + 7_654_321].map(EventTime::from_ms);
    let mut sent: Vec<Event> = Vec::new();
    let mut seen_online = Vec::new();
    for (phase, at) in phases.iter().zip(moments) {
        for batch in phase.chunks(500) {
            collect(&stack, batch.to_vec()).await;
        }
        sent.extend_from_slice(phase);
        let log = wait_until("the offline log to have everything", WITHIN, async || {
            let log = offline::read(&stack).map_err(|e| e.to_string())?;
            check(log.len() == sent.len(), || format!("{} of {}", log.len(), sent.len()))?;
            Ok(log)
        })
        .await;
        let customers = ids(&sent, Entity::Customer);
        let items = ids(&sent, Entity::Item);
        for (entity, of_entity, expected) in [
            (Entity::Customer, &customers, sent.len()),
            (Entity::Item, &items, sent.iter().filter(|event| !event.item_id.is_empty()).count()),
        ] {
            wait_until("Redis to have everything", WITHIN, async || {
                let request = GetFeaturesRequest {
                    entity: entity.name().to_owned(),
                    entity_ids: of_entity.iter().cloned().collect(),
                    ..Default::default()
                };
                let answer = stack.feature_store().get_features(request).await.map_err(|e| e.to_string())?.into_inner();
                let applied: u64 = answer.vectors.iter().map(|vector| vector.version).sum();
                check(applied == expected as u64, || format!("{applied} of {expected} for {entity}"))
            })
            .await;
        }
        for entity in Entity::ALL.into_iter().filter(|entity| views.keeps(*entity)) {
            let mut of_entity = ids(&sent, entity);
            if entity == Entity::CustomerCategory {
                let all = of_entity.len();
                of_entity = kept(&views, &log, of_entity);
                assert!(of_entity.len() > all / 2, "only {} of {all} categories are kept", of_entity.len());
            }
            let (names, vectors) = online(&stack, entity, &of_entity, at).await;
            assert_eq!(names, views.names(entity), "the columns of {entity}");
            assert_eq!(vectors.len(), of_entity.len());
            seen_online.push((entity, of_entity, at, vectors));
        }
    }

    // Only now, with the whole log at hand: what it gives for each moment must be what serving saw then.
    let log = offline::read(&stack).unwrap();
    for (entity, of_entity, at, online) in seen_online {
        let offline = from_log(&views, &log, entity, &of_entity, at);
        let names = views.names(entity);
        let mut different = Vec::new();
        for (id, values) in &online {
            for (column, (here, there)) in values.iter().zip(&offline[id]).enumerate() {
                if here != there {
                    let (here, there) = (f64::from_bits(*here), f64::from_bits(*there));
                    different.push(format!("{id} {}: online {here:e}, from the log {there:e}", names[column]));
                }
            }
        }
        let (compared, wrong) = (online.len() * names.len(), different.len());
        assert!(compared > 500, "{compared} values prove little");
        assert_eq!(wrong, 0, "{wrong} of {compared} values of {entity} at {at}: {:?}", &different[..wrong.min(5)]);
    }

    // The history that the scorer gives its model is the log's, too.
    let customers: Vec<String> = ids(&sent, Entity::Customer).into_iter().collect();
    let request = GetHistoryRequest { customer_ids: customers, limit: 0 };
    let histories = stack.feature_store().get_history(request).await.unwrap().into_inner().histories;
    let tenant = Tenant::parse(TENANT).unwrap();
    let mut replay = Replay::new(&views);
    log.iter().for_each(|logged| replay.apply(logged));
    for history in histories {
        let state = replay.customer(&tenant, &history.customer_id).unwrap();
        assert_eq!(history.version, state.version());
        let online: Vec<_> = history.interactions.iter().map(|i| i.item_id.as_str()).collect();
        let offline: Vec<_> = state.history().iter().map(|i| i.item_id.as_str()).collect();
        assert_eq!(online, offline, "the history of {}", history.customer_id);
    }
}

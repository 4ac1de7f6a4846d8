//! The offline log, folded to the moments of a spine.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rapport_events::{CleanEvent, EventTime, LoggedEvent, Tenant};
use rapport_features::{CustomerState, Entity, Known, Moments, State, Views, item_hash, merged};
use rapport_offline::{OfflineLog, Place, Selection};

use super::spine::Key;

/// Events in memory at once (some 300 bytes each). What a spine needs beyond that is read in further passes.
pub const EVENTS_AT_ONCE: usize = 3_000_000;

/// What is read, and how.
pub struct Past<'a> {
    pub log: &'a OfflineLog,
    pub tenant: &'a Tenant,
    pub views: &'a Arc<Views>,
    pub known: Known,
    /// Events of the very moment do not count: for spines that are made of events.
    pub before: bool,
    pub events_at_once: usize,
}

/// The vectors of one entity kind, a column each: NaN where a feature has no value, and where the row names no
/// such entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    pub entity: Entity,
    pub names: Vec<String>,
    pub columns: Vec<Vec<f64>>,
    /// The features whose values are lists, likewise: empty where there is nothing.
    pub list_names: Vec<String>,
    pub lists: Vec<Vec<Vec<String>>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Joined {
    pub vectors: Vec<Vectors>,
    /// Events of the log that the rows are made of, once for a customer, an item and a segment each, and how often the
    /// log was read for them.
    pub events: u64,
    pub passes: u32,
    /// The newest event of the tenant in the log.
    pub newest: Option<EventTime>,
}

/// Customers, items and segments are apart, though their ids may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Customer,
    /// Items or segments.
    Shared(Entity),
}

impl Kind {
    const ALL: [Self; 3] = [Self::Customer, Self::Shared(Entity::Item), Self::Shared(Entity::Segment)];

    /// Which one an event is about.
    fn id_of(self, event: &CleanEvent) -> Option<&str> {
        match self {
            Self::Customer => Some(&event.customer_id),
            Self::Shared(entity) => entity.shared_of(event),
        }
    }
}

/// The rows that want one entity.
#[derive(Default)]
struct Wanted<'a> {
    customers: HashMap<&'a str, Vec<usize>>,
    items: HashMap<&'a str, Vec<usize>>,
    segments: HashMap<&'a str, Vec<usize>>,
}

/// A share of the entities: those whose hash lies in it.
#[derive(Debug, Clone, Copy)]
struct Share {
    from: u64,
    until: u64,
}

impl Share {
    fn has(self, hash: u64) -> bool {
        (self.from..=self.until).contains(&hash)
    }
}

type Kept<'a> = HashMap<(Kind, &'a str), Vec<Arc<LoggedEvent>>>;

impl Past<'_> {
    /// A vector for each key. `progress` is told how many events have been read.
    ///
    /// # Errors
    /// The log is away or corrupt.
    pub fn join(&self, keys: &[Key], mut progress: impl FnMut(u64)) -> anyhow::Result<Joined> {
        let mut joined = Joined { vectors: self.vectors(keys), ..Joined::default() };
        let wanted = Wanted::of(keys);
        // Every pass reads the same log, however it grows meanwhile.
        let mut place = Place::default();
        self.log.manifests()?.iter().for_each(|manifest| place.pass(manifest));

        let (mut from, mut read) = (0, 0);
        loop {
            let mut share = Share { from, until: u64::MAX };
            let (mut kept, mut events): (Kept<'_>, usize) = (HashMap::new(), 0);
            joined.passes += 1;
            self.log.each_file(&Selection::of(self.tenant), Some(&place), &mut |of_file| {
                read += of_file.len() as u64;
                progress(read);
                for logged in of_file.into_iter().map(Arc::new) {
                    joined.newest = joined.newest.max(Some(logged.event.time));
                    let about = Kind::ALL
                        .into_iter()
                        .filter_map(|kind| Some((kind, wanted.id(kind, kind.id_of(&logged.event)?)?)));
                    for entity in about.filter(|(_, id)| share.has(item_hash(id))) {
                        kept.entry(entity).or_default().push(Arc::clone(&logged));
                        events += 1;
                    }
                }
                while events > self.events_at_once && share.from < share.until {
                    share.until = share.from + (share.until - share.from) / 2;
                    kept.retain(|(_, id), _| share.has(item_hash(id)));
                    events = kept.values().map(Vec::len).sum();
                }
                Ok::<(), anyhow::Error>(())
            })?;
            joined.events += events as u64;
            for kind in Kind::ALL {
                for (id, rows) in wanted.of_kind(kind).iter().filter(|(id, _)| share.has(item_hash(id))) {
                    let mut events = kept.remove(&(kind, *id)).unwrap_or_default();
                    events.sort_unstable_by_key(|logged| logged.position);
                    self.fold(kind, &events, rows, keys, &mut joined.vectors);
                }
            }
            match share.until.checked_add(1) {
                Some(next) => from = next,
                None => return Ok(joined),
            }
        }
    }

    /// Empty columns for every kind of entity that a row names.
    fn vectors(&self, keys: &[Key]) -> Vec<Vectors> {
        let named = |entity: Entity| {
            keys.iter().any(|key| match entity {
                Entity::Customer => key.customer.is_some(),
                Entity::Item => key.item.is_some(),
                Entity::CustomerCategory => key.customer.is_some() && key.category.is_some(),
                Entity::Session => key.customer.is_some(),
                Entity::Segment => key.segment.is_some(),
            })
        };
        let of = |entity| {
            let (names, list_names) = (self.views.names(entity).to_vec(), self.views.list_names(entity).to_vec());
            Vectors {
                entity,
                columns: vec![vec![f64::NAN; keys.len()]; names.len()],
                lists: vec![vec![Vec::new(); keys.len()]; list_names.len()],
                names,
                list_names,
            }
        };
        Entity::ALL
            .into_iter()
            .filter(|entity| named(*entity) && self.views.declared(*entity).next().is_some())
            .map(of)
            .collect()
    }

    fn until(&self, at: EventTime) -> EventTime {
        if self.before { EventTime::from_ms(at.as_ms().saturating_sub(1)) } else { at }
    }

    /// One entity's events, in log order, into the vectors of its rows.
    fn fold(&self, kind: Kind, events: &[Arc<LoggedEvent>], rows: &[usize], keys: &[Key], vectors: &mut [Vectors]) {
        let mut rows: Vec<(EventTime, usize)> = rows.iter().filter_map(|&n| Some((keys.get(n)?.at, n))).collect();
        rows.sort_unstable();
        match kind {
            Kind::Customer => {
                let events = events.iter().map(|logged| &logged.event);
                let mut moments = Moments::new(CustomerState::new(self.views), events, self.known);
                for (at, row) in rows {
                    let state = moments.at(self.until(at));
                    let Some(key) = keys.get(row) else { continue };
                    for vectors in vectors.iter_mut() {
                        let entity = vectors.entity;
                        let name = match entity {
                            Entity::Customer => {
                                vectors.put(row, state.read(at), state.read_lists(at));
                                continue;
                            }
                            Entity::CustomerCategory => key.category.as_deref(),
                            // A row that names no visit is about the newest one.
                            Entity::Session => Some(key.session.as_deref().unwrap_or_default()),
                            Entity::Item | Entity::Segment => None,
                        };
                        if let Some(name) = name {
                            let lists = state.part(entity, name).map(|state| state.read_lists(at));
                            vectors.put(row, state.read_part(entity, name, at), lists.unwrap_or_default());
                        }
                    }
                }
            }
            Kind::Shared(entity) => {
                let mut partitions: BTreeMap<i32, Vec<&CleanEvent>> = BTreeMap::new();
                for logged in events {
                    partitions.entry(logged.position.partition).or_default().push(&logged.event);
                }
                let empty = State::new(self.views, entity);
                let mut partials: Vec<_> =
                    partitions.into_values().map(|events| Moments::new(empty.clone(), events, self.known)).collect();
                for (at, row) in rows {
                    let until = self.until(at);
                    // A partition that had nothing by then had no state.
                    let by_then: Vec<&State> = partials
                        .iter_mut()
                        .map(|partial| partial.at(until))
                        .filter(|state| state.events() > 0)
                        .collect();
                    let sum = merged(self.views, entity, by_then.into_iter());
                    let state = sum.as_ref().unwrap_or(&empty);
                    for vectors in vectors.iter_mut().filter(|vectors| vectors.entity == entity) {
                        vectors.put(row, state.read(at), state.read_lists(at));
                    }
                }
            }
        }
    }
}

impl Vectors {
    fn put(&mut self, row: usize, values: Vec<f64>, lists: Vec<Vec<String>>) {
        for (column, list) in self.lists.iter_mut().zip(lists) {
            if let Some(cell) = column.get_mut(row) {
                *cell = list;
            }
        }
        for (column, value) in self.columns.iter_mut().zip(values) {
            if let Some(cell) = column.get_mut(row) {
                *cell = value;
            }
        }
    }

    /// Only the columns and the lists of these, in their order.
    pub fn keep(&mut self, columns: &[usize], lists: &[usize]) {
        self.list_names = lists.iter().filter_map(|&n| self.list_names.get(n).cloned()).collect();
        self.lists = lists.iter().filter_map(|&n| self.lists.get_mut(n).map(std::mem::take)).collect();
        self.names = columns.iter().filter_map(|&n| self.names.get(n).cloned()).collect();
        self.columns = columns.iter().filter_map(|&n| self.columns.get_mut(n).map(std::mem::take)).collect();
    }
}

impl<'a> Wanted<'a> {
    fn of(keys: &'a [Key]) -> Self {
        let mut wanted = Self::default();
        for (n, key) in keys.iter().enumerate() {
            if let Some(id) = &key.customer {
                wanted.customers.entry(id).or_default().push(n);
            }
            if let Some(id) = &key.item {
                wanted.items.entry(id).or_default().push(n);
            }
            if let Some(id) = &key.segment {
                wanted.segments.entry(id).or_default().push(n);
            }
        }
        wanted
    }

    const fn of_kind(&self, kind: Kind) -> &HashMap<&'a str, Vec<usize>> {
        match kind {
            Kind::Customer => &self.customers,
            Kind::Shared(Entity::Segment) => &self.segments,
            Kind::Shared(_) => &self.items,
        }
    }

    /// The id as the spine has it, when it is wanted.
    fn id(&self, kind: Kind, id: &str) -> Option<&'a str> {
        self.of_kind(kind).get_key_value(id).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use rapport_events::Position;
    use rapport_features::{Replay, vector_at};
    use rapport_offline::{LogWriter, OfflineArgs, WriterSettings};

    use super::*;

    const PARTITIONS: i32 = 3;

    fn event(rng: &mut ChaCha8Rng, n: i64) -> LoggedEvent {
        let customer = rng.random_range(0..30);
        LoggedEvent {
            position: Position { partition: customer % PARTITIONS, offset: n },
            event: CleanEvent {
                tenant: Tenant::parse(if rng.random_bool(0.1) { "other" } else { "demo" }).unwrap(),
                event_id: n.to_string(),
                kind: ["view", "purchase", "rating"][rng.random_range(0..3)].into(),
                customer_id: format!("{customer}"),
                item_id: rng.random_bool(0.9).then(|| format!("{}", rng.random_range(0..20))),
                category: rng.random_bool(0.8).then(|| format!("k{}", rng.random_range(0..4))),
                session_id: rng.random_bool(0.8).then(|| format!("s{}", n / 100)),
                segment: rng.random_bool(0.6).then(|| ["free", "pro"][rng.random_range(0..2)].to_owned()),
                time: EventTime::from_ms(n * 60_000 - rng.random_range(0..3_600_000)),
                received_at: EventTime::from_ms(n * 60_000),
                value: rng.random_bool(0.7).then(|| rng.random_range(-1e6..1e6) / 3.0),
            },
        }
    }

    fn written(events: &[LoggedEvent]) -> (tempfile::TempDir, OfflineLog) {
        let folder = tempfile::tempdir().unwrap();
        let log = OfflineLog::open(&OfflineArgs::at(folder.path().to_string_lossy())).unwrap();
        let mut writer = LogWriter::new(log.clone(), WriterSettings::default());
        for partition in 0..PARTITIONS {
            writer.take_over(partition).unwrap();
        }
        for some in events.chunks(500) {
            for logged in some {
                writer.append(logged.clone()).unwrap();
            }
            for partition in 0..PARTITIONS {
                writer.flush(partition).unwrap();
            }
        }
        (folder, log)
    }

    fn bits(values: impl IntoIterator<Item = f64>) -> Vec<u64> {
        values.into_iter().map(f64::to_bits).collect()
    }

    /// The built-in views, one of visits and one of segments.
    fn with_visits_and_segments() -> String {
        let visit = "
  - name: visit
    entity: session
    features: [{name: events, aggregate: count}, {name: spend, aggregate: sum, window: 1h}, {name: kinds, aggregate: top_k, k: 2, of: category}]
  - name: plan
    entity: segment
    features: [{name: events, aggregate: count, window: 7d}, {name: members, aggregate: distinct, of: customer}, {name: hits, aggregate: top_k, k: 3, of: item}]
";
        format!("{}{visit}", include_str!("../../../common/features/src/default_views.yaml"))
    }

    #[test]
    fn every_row_is_what_a_replay_of_the_log_up_to_its_moment_says_in_one_pass_or_many() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let events: Vec<_> = (0..3_000).map(|n| event(&mut rng, n)).collect();
        let (_folder, log) = written(&events);
        let tenant = Tenant::parse("demo").unwrap();
        let views = Arc::new(Views::parse(&with_visits_and_segments()).unwrap());
        let keys: Vec<Key> = (0..300)
            .map(|_| Key {
                // Some whom nobody knows, and some rows without the one or the other.
                customer: rng.random_bool(0.8).then(|| format!("{}", rng.random_range(0..33))),
                item: rng.random_bool(0.5).then(|| format!("{}", rng.random_range(0..22))),
                category: rng.random_bool(0.5).then(|| format!("k{}", rng.random_range(0..5))),
                session: rng.random_bool(0.5).then(|| format!("s{}", rng.random_range(0..31))),
                segment: rng.random_bool(0.5).then(|| ["free", "pro", "gold"][rng.random_range(0..3)].to_owned()),
                at: EventTime::from_ms(rng.random_range(-60_000..3_100 * 60_000)),
            })
            .collect();
        let past = |events_at_once| Past {
            log: &log,
            tenant: &tenant,
            views: &views,
            known: Known::ByTime,
            before: false,
            events_at_once,
        };
        let joined = past(1 << 20).join(&keys, |_| {}).unwrap();
        assert_eq!(joined.passes, 1);

        for (n, key) in keys.iter().enumerate() {
            let mut replay = Replay::new(&views);
            events.iter().filter(|logged| logged.event.time <= key.at).for_each(|logged| replay.apply(logged));
            let mut expected = Vec::new();
            for vectors in &joined.vectors {
                let nothing = || vec![f64::NAN; vectors.names.len()];
                expected.extend(match (vectors.entity, &key.customer, &key.item, &key.category) {
                    (Entity::Customer, Some(customer), ..) => vector_at(&views, &events, &tenant, customer, key.at),
                    (Entity::Item, _, Some(item), _) => {
                        replay.item(&tenant, item).unwrap_or_else(|| State::new(&views, Entity::Item)).read(key.at)
                    }
                    (Entity::CustomerCategory, Some(customer), _, Some(category)) => {
                        let nobody = CustomerState::new(&views);
                        let state = replay.customer(&tenant, customer).unwrap_or(&nobody);
                        state.read_part(Entity::CustomerCategory, category, key.at)
                    }
                    (Entity::Session, Some(customer), ..) => {
                        let nobody = CustomerState::new(&views);
                        let state = replay.customer(&tenant, customer).unwrap_or(&nobody);
                        state.read_part(Entity::Session, key.session.as_deref().unwrap_or_default(), key.at)
                    }
                    (Entity::Segment, ..) if let Some(segment) = &key.segment => {
                        let nobody = || State::new(&views, Entity::Segment);
                        replay.shared(Entity::Segment, &tenant, segment).unwrap_or_else(nobody).read(key.at)
                    }
                    _ => nothing(),
                });
            }
            let row = joined.vectors.iter().flat_map(|vectors| vectors.columns.iter().map(|column| column[n]));
            assert_eq!(bits(row), bits(expected), "row {n}: {key:?}");
        }

        let many = past(400).join(&keys, |_| {}).unwrap();
        assert!(many.passes > 4, "{}", many.passes);
        assert_eq!(many.events, joined.events);
        for (one, other) in joined.vectors.iter().zip(&many.vectors) {
            assert_eq!(one.names, other.names);
            one.columns.iter().zip(&other.columns).for_each(|(a, b)| {
                assert_eq!(bits(a.iter().copied()), bits(b.iter().copied()));
            });
        }
    }

    #[test]
    fn an_event_does_not_count_in_its_own_row_when_rows_are_made_of_events() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let events: Vec<_> =
            (0..200).map(|n| event(&mut rng, n)).filter(|logged| logged.event.tenant.as_str() == "demo").collect();
        let (_folder, log) = written(&events);
        let (tenant, views) = (Tenant::parse("demo").unwrap(), Arc::new(Views::built_in().unwrap()));
        let key = |logged: &LoggedEvent| Key {
            customer: Some(logged.event.customer_id.clone()),
            item: None,
            category: None,
            session: None,
            segment: None,
            at: logged.event.time,
        };
        let keys: Vec<Key> = events.iter().map(key).collect();
        let past = Past {
            log: &log,
            tenant: &tenant,
            views: &views,
            known: Known::ByTime,
            before: true,
            events_at_once: EVENTS_AT_ONCE,
        };
        let joined = past.join(&keys, |_| {}).unwrap();
        for (n, key) in keys.iter().enumerate() {
            let earlier: Vec<_> = events.iter().filter(|logged| logged.event.time < key.at).cloned().collect();
            let expected = vector_at(&views, &earlier, &tenant, key.customer.as_deref().unwrap(), key.at);
            assert_eq!(bits(joined.vectors[0].columns.iter().map(|column| column[n])), bits(expected), "row {n}");
        }
    }
}

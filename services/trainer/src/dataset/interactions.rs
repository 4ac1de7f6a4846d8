//! Interactions, interned: customers and items become small numbers.

use std::collections::HashMap;

use rapport_registry::ItemTable;

use super::{
    Counts, Dataset,
    histories::Histories,
    side::Gathered,
    sorter::{Memory, Raw, Sorter},
};
use crate::Error;

/// How much one training may learn from. What of it is in memory says [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events with an item.
    pub events: usize,
    /// Distinct items; beyond it the rarest are left out.
    pub items: usize,
}

/// An event with an item, as a source tells it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    pub customer: &'a str,
    pub item: &'a str,
    /// What the customer gave the item.
    pub rating: Option<f32>,
    /// The event's type.
    pub kind: Option<&'a str>,
    /// What the event calls its item's category.
    pub category: Option<&'a str>,
    /// In milliseconds; `partition` and `offset` order the events of one moment.
    pub time: i64,
    pub partition: i32,
    pub offset: i64,
}

/// Collects interactions in any order.
#[derive(Debug)]
pub struct Builder {
    limits: Limits,
    customers: HashMap<String, u32>,
    items: HashMap<String, u32>,
    /// How many events have each item, and each type's number.
    counts_of: [Vec<u64>; 2],
    sorter: Sorter,
    counts: Counts,
    side: Gathered,
}

impl Builder {
    pub fn new(limits: Limits) -> Self {
        Self::within(limits, Memory::default())
    }

    /// With so many bytes for events in memory; what does not fit goes to disk.
    pub fn within(limits: Limits, memory: Memory) -> Self {
        Self {
            limits,
            customers: HashMap::new(),
            items: HashMap::new(),
            counts_of: [Vec::new(), vec![0]],
            sorter: Sorter::new(memory),
            counts: Counts::default(),
            side: Gathered::default(),
        }
    }

    /// An event that names no item: counted only.
    pub fn skip(&mut self) {
        self.counts.read += 1;
        self.counts.without_item += 1;
    }

    /// An interaction at `time` (ms); `partition` and `offset` order those of one moment.
    ///
    /// # Errors
    /// There are more than the limit, or the disk is full.
    pub fn add(&mut self, customer: &str, item: &str, time: i64, partition: i32, offset: i64) -> Result<(), Error> {
        self.add_event(&Seen { customer, item, time, partition, offset, ..Seen::default() })
    }

    /// The same with all that the event says.
    ///
    /// # Errors
    /// As [`Builder::add`].
    pub fn add_event(&mut self, seen: &Seen<'_>) -> Result<(), Error> {
        if self.sorter.len() >= self.limits.events {
            return Err(Error::TooManyEvents { limit: self.limits.events });
        }
        self.counts.read += 1;
        let &Seen { time, partition, offset, .. } = seen;
        let (customer, item) = (intern(&mut self.customers, seen.customer), intern(&mut self.items, seen.item));
        let kind = self.side.kind(seen.kind);
        if let Some(category) = seen.category {
            self.side.category(item, (time, partition, offset), category);
        }
        for (counts, number) in self.counts_of.iter_mut().zip([item as usize, kind.into()]) {
            counts.resize(counts.len().max(number + 1), 0);
            counts[number] += 1;
        }
        let rating = seen.rating.unwrap_or(f32::NAN);
        self.sorter.push(Raw { customer, item, rating, kind, time, partition, offset })
    }

    /// Orders everything. The same events give the same data set, whatever of them is in memory.
    ///
    /// # Errors
    /// Nothing to learn from: no event with an item, one customer, one item. Or the disk is full.
    pub fn finish(mut self, tenant: &str) -> Result<Dataset, Error> {
        if self.sorter.len() == 0 {
            return Err(Error::EmptyLog { tenant: tenant.into(), events: self.counts.read });
        }
        let two = |what, found| if found < 2 { Err(Error::TooFew { what, found, needed: 2 }) } else { Ok(()) };
        two("customers", self.customers.len())?;
        two("items", self.items.len())?;
        let [of_items, of_kinds] = &self.counts_of;
        let (items, index) = by_popularity(&self.items, of_items, self.limits.items);
        let (side, kinds) = self.side.finish(of_kinds, &index, items.len());
        let mut histories = match self.sorter.spilled() {
            true => Histories::on_disk(self.sorter.memory().clone(), self.customers.len())?,
            false => Histories::in_memory(self.customers.len()),
        };
        let counts = &mut self.counts;
        self.sorter.finish(&mut |raw| match index[raw.item as usize] {
            0 => {
                counts.rare_items += 1;
                Ok(())
            }
            item => {
                counts.used += 1;
                histories.push(raw.customer, item, raw.time, raw.rating, kinds[raw.kind as usize])
            }
        })?;
        let mut customers = histories.finish()?;
        // In the order of their ids, so that a log read in another order gives the same data set.
        let mut ids: Vec<_> = self.customers.into_iter().collect();
        ids.sort_unstable();
        let customers = ids
            .iter()
            .map(|&(_, i)| std::mem::take(&mut customers[i as usize]))
            .filter(|customer| !customer.items.is_empty())
            .collect();
        let items = ItemTable::from_ids(items).map_err(Error::Items)?;
        Ok(Dataset { items, customers, counts: self.counts, side })
    }
}

fn intern(known: &mut HashMap<String, u32>, id: &str) -> u32 {
    if let Some(&index) = known.get(id) {
        return index;
    }
    // Bounded by the number of events, which is checked before.
    let index = known.len() as u32;
    known.insert(id.to_owned(), index);
    index
}

/// Item ids by new index (padding first, most popular next, ties by id), and the new index of each
/// old one: 0 for those beyond `limit`.
fn by_popularity(known: &HashMap<String, u32>, count: &[u64], limit: usize) -> (Vec<String>, Vec<u32>) {
    let mut order: Vec<(&String, u32)> = known.iter().map(|(id, &i)| (id, i)).collect();
    order.sort_unstable_by(|a, b| count[b.1 as usize].cmp(&count[a.1 as usize]).then(a.0.cmp(b.0)));
    order.truncate(limit.max(2));
    let mut index = vec![0_u32; known.len()];
    let mut ids = vec![String::new()];
    for (id, old) in order {
        index[old as usize] = ids.len() as u32;
        ids.push(id.clone());
    }
    (ids, index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::sorter::EVENT_BYTES, *};
    use crate::dataset::Customer;

    const LIMITS: Limits = Limits { events: 1000, items: 100 };

    #[test]
    fn histories_are_ordered_by_event_time_and_then_by_arrival() {
        let mut builder = Builder::new(LIMITS);
        for (customer, item, time, offset) in
            [("a", "late", 30, 0), ("a", "second", 10, 2), ("a", "first", 10, 1), ("b", "first", 5, 3)]
        {
            builder.add(customer, item, time, 0, offset).unwrap();
        }
        let data = builder.finish("demo").unwrap();
        let names: Vec<_> = data.customers[0].items.iter().map(|&i| data.items.id(i as usize).unwrap()).collect();
        assert_eq!(names, ["first", "second", "late"]);
        assert_eq!(data.items.id(1), Some("first"), "the most popular item comes first");
    }

    #[test]
    fn a_log_that_teaches_nothing_is_refused_with_the_reason() {
        let mut empty = Builder::new(LIMITS);
        empty.skip();
        let error = empty.finish("demo").unwrap_err().to_string();
        assert_eq!(error, "the log of tenant demo holds no event with an item: 1 events were read");
        let mut lonely = Builder::new(LIMITS);
        lonely.add("a", "x", 1, 0, 0).unwrap();
        lonely.add("a", "y", 2, 0, 1).unwrap();
        assert!(matches!(lonely.finish("demo").unwrap_err(), Error::TooFew { what: "customers", found: 1, .. }));
        let mut single = Builder::new(LIMITS);
        single.add("a", "x", 1, 0, 0).unwrap();
        single.add("b", "x", 2, 0, 1).unwrap();
        assert!(matches!(single.finish("demo").unwrap_err(), Error::TooFew { what: "items", found: 1, .. }));
    }

    #[test]
    fn beyond_the_limit_the_rarest_items_are_left_out_and_counted() {
        let mut builder = Builder::new(Limits { events: 10, items: 2 });
        for (i, item) in ["x", "x", "x", "y", "y", "z"].into_iter().enumerate() {
            builder.add(if i % 2 == 0 { "a" } else { "b" }, item, i as i64, 0, i as i64).unwrap();
        }
        let data = builder.finish("demo").unwrap();
        assert_eq!((data.items.len(), data.counts.rare_items, data.counts.used), (2, 1, 5));
        let mut full = Builder::new(Limits { events: 1, items: 2 });
        full.add("a", "x", 1, 0, 0).unwrap();
        assert!(matches!(full.add("a", "x", 1, 0, 1), Err(Error::TooManyEvents { limit: 1 })));
    }

    #[test]
    fn types_are_numbered_by_frequency_and_an_item_has_the_category_of_its_newest_event_that_names_one() {
        let mut builder = Builder::new(LIMITS);
        let events = [
            ("a", "x", Some("buy"), Some("new"), 30),
            ("a", "y", Some("view"), None, 20),
            ("b", "x", Some("view"), Some("old"), 10),
            ("b", "y", None, None, 5),
            ("b", "x", Some("view"), None, 40),
        ];
        for (customer, item, kind, category, time) in events {
            builder.add_event(&Seen { customer, item, kind, category, time, ..Seen::default() }).unwrap();
        }
        let data = builder.finish("demo").unwrap();
        assert_eq!(data.side.types, ["view", "buy"]);
        assert_eq!(data.customers.iter().map(|c| c.types.clone()).collect::<Vec<_>>(), [vec![1, 2], vec![0, 1, 1]]);
        let of = |id| data.side.categories[data.items.index_of(id).unwrap() as usize].as_deref();
        assert_eq!((of("x"), of("y")), (Some("new"), None));
        assert_eq!((data.side.type_number("buy"), data.side.type_number("sell")), (Some(2), None));
    }

    proptest! {
        #[test]
        fn neither_the_order_of_reading_matters_nor_what_is_in_memory(
            events in proptest::collection::vec((0..4_u8, 0..6_u8, 0..9_i64), 8..60), seed: u64, in_memory in 1..40_usize
        ) {
            let mut order: Vec<usize> = (0..events.len()).collect();
            order.sort_by_key(|&i| (i as u64).wrapping_mul(seed | 1).rotate_left(17));
            let build = |order: &[usize], bytes: usize| {
                let mut builder = Builder::within(LIMITS, Memory { bytes, ..Memory::default() });
                for &i in order {
                    let (customer, item, time) = events[i];
                    let kind = (item % 3).to_string();
                    builder
                        .add_event(&Seen {
                            customer: &customer.to_string(),
                            item: &item.to_string(),
                            kind: Some(&kind),
                            category: (time % 2 == 0).then_some(kind.as_str()),
                            time,
                            rating: (item != 3).then_some(f32::from(item)),
                            offset: i as i64,
                            ..Seen::default()
                        })
                        .unwrap();
                }
                builder.finish("demo").ok()
            };
            let (whole, parts) = (build(&(0..events.len()).collect::<Vec<_>>(), 1 << 20), build(&order, in_memory * EVENT_BYTES));
            prop_assert_eq!(whole.is_some(), parts.is_some());
            let (Some(whole), Some(parts)) = (whole, parts) else { return Ok(()) };
            prop_assert_eq!((whole.on_disk(), parts.on_disk()), (false, in_memory < events.len()));
            let ratings = |data: &Dataset| -> Vec<Option<f32>> {
                data.customers.iter().flat_map(|c| (0..c.items.len()).map(|at| c.rating(at))).collect()
            };
            prop_assert_eq!(ratings(&whole), ratings(&parts));
            let rest = |data: Dataset| {
                let histories = |c: &Customer| (c.items.to_vec(), c.times.to_vec(), c.types.to_vec());
                (data.items, data.customers.iter().map(histories).collect::<Vec<_>>(), data.counts, data.side)
            };
            prop_assert_eq!(rest(whole), rest(parts));
        }
    }
}

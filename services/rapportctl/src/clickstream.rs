//! A made-up shop's clickstream: the same events for the same seed. Pure: the caller gives the time.
//!
//! Items are popular by Zipf's law within their category, every customer has a few favourite
//! categories, and moves through sessions of views that may become carts, purchases and ratings.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_events::EventTime;
use rapport_proto::events::Event;

/// Share of a customer's views that stay within the favourite categories.
const LOYALTY: f64 = 0.8;
/// From one step of a session to the next: of views, of carts, of purchases.
const VIEW_TO_CART: f64 = 0.15;
const CART_TO_PURCHASE: f64 = 0.4;
const PURCHASE_TO_RATING: f64 = 0.3;
/// A session ends after a view with this chance: ten views on average.
const LEAVES: f64 = 0.1;
/// Sessions that go on at the same time.
const OPEN_SESSIONS: usize = 256;
const FAVOURITES: usize = 3;

/// Something that can be looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    pub item: String,
    pub category: String,
}

/// What the shop is like.
#[derive(Debug, Clone)]
pub struct Shape {
    pub seed: u64,
    pub customers: u32,
    /// Exponent of the popularity; 1 is the classic law, 0 makes all items alike.
    pub zipf: f64,
    /// What event and customer ids start with, so that two runs do not meet.
    pub run: String,
}

/// Items of one category with the sums of their weights.
struct Shelf {
    category: String,
    items: Vec<String>,
    /// `cumulative[i]` is the weight of items 0..=i.
    cumulative: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Step {
    View,
    Cart,
    Purchase,
    Rating,
}

struct Session {
    customer: u32,
    /// Shelf and place of the item in hand.
    item: (usize, usize),
    next: Step,
}

/// An endless stream of events.
pub struct Clickstream {
    random: ChaCha8Rng,
    shape: Shape,
    shelves: Vec<Shelf>,
    sessions: Vec<Session>,
    made: u64,
}

impl Clickstream {
    /// `None` when there is nothing to sell or nobody to buy.
    pub fn new(shape: Shape, products: &[Product]) -> Option<Self> {
        if products.is_empty() || shape.customers == 0 {
            return None;
        }
        let mut shelves: Vec<Shelf> = Vec::new();
        for product in products {
            match shelves.iter_mut().find(|shelf| shelf.category == product.category) {
                Some(shelf) => shelf.items.push(product.item.clone()),
                None => shelves.push(Shelf {
                    category: product.category.clone(),
                    items: vec![product.item.clone()],
                    cumulative: Vec::new(),
                }),
            }
        }
        for shelf in &mut shelves {
            let mut sum = 0.0;
            shelf.cumulative = (1..=shelf.items.len())
                .map(|rank| {
                    #[allow(clippy::cast_precision_loss)] // ranks stay far below 2^52
                    let weight = (rank as f64).powf(-shape.zipf);
                    sum += weight;
                    sum
                })
                .collect();
        }
        let random = ChaCha8Rng::seed_from_u64(shape.seed);
        Some(Self { random, shape, shelves, sessions: Vec::new(), made: 0 })
    }

    /// The next event, which happens at `time`.
    pub fn next_at(&mut self, time: EventTime) -> Event {
        let place = if self.sessions.len() < OPEN_SESSIONS {
            let customer = self.random.random_range(0..self.shape.customers);
            let item = self.pick(customer);
            self.sessions.push(Session { customer, item, next: Step::View });
            self.sessions.len() - 1
        } else {
            self.random.random_range(0..self.sessions.len())
        };
        let (customer, item, step) = {
            let session = &self.sessions[place];
            (session.customer, session.item, session.next)
        };
        let event = self.event(customer, item, step, time);
        match self.after(step) {
            Some(Step::View) => {
                let item = self.pick(customer);
                let session = &mut self.sessions[place];
                (session.item, session.next) = (item, Step::View);
            }
            Some(next) => self.sessions[place].next = next,
            None => {
                self.sessions.swap_remove(place);
            }
        }
        event
    }

    /// What a session does after `step`; `None` ends it.
    fn after(&mut self, step: Step) -> Option<Step> {
        let goes_on = |random: &mut ChaCha8Rng| (!random.random_bool(LEAVES)).then_some(Step::View);
        let random = &mut self.random;
        match step {
            Step::View if random.random_bool(VIEW_TO_CART) => Some(Step::Cart),
            Step::Cart if random.random_bool(CART_TO_PURCHASE) => Some(Step::Purchase),
            Step::Purchase if random.random_bool(PURCHASE_TO_RATING) => Some(Step::Rating),
            Step::View | Step::Cart | Step::Purchase | Step::Rating => goes_on(random),
        }
    }

    /// An item that this customer would look at: mostly of a favourite category, by popularity.
    fn pick(&mut self, customer: u32) -> (usize, usize) {
        let shelf = if self.random.random_bool(LOYALTY) {
            // The same favourites every time, without keeping them for every customer.
            let favourite = self.random.random_range(0..FAVOURITES as u64);
            let mixed = (u64::from(customer) * 31 + favourite).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.shape.seed;
            usize::try_from(mixed % self.shelves.len() as u64).unwrap_or(0)
        } else {
            self.random.random_range(0..self.shelves.len())
        };
        let cumulative = &self.shelves[shelf].cumulative;
        let total = cumulative.last().copied().unwrap_or(1.0);
        let mark = self.random.random_range(0.0..total);
        let place = cumulative.partition_point(|&sum| sum <= mark).min(cumulative.len() - 1);
        (shelf, place)
    }

    fn event(&mut self, customer: u32, (shelf, place): (usize, usize), step: Step, time: EventTime) -> Event {
        let (kind, value, currency) = match step {
            Step::View => ("view", None, ""),
            Step::Cart => ("add_to_cart", None, ""),
            Step::Purchase => ("purchase", Some(f64::from(self.random.random_range(199u32..20_000)) / 100.0), "EUR"),
            Step::Rating => ("rating", Some(f64::from(self.random.random_range(1u32..=5))), ""),
        };
        self.made += 1;
        let shelf = &self.shelves[shelf];
        Event {
            event_id: format!("{}-{}", self.shape.run, self.made),
            r#type: kind.to_owned(),
            customer_id: format!("{}-c{customer}", self.shape.run),
            item_id: shelf.items[place].clone(),
            category: shelf.category.clone(),
            event_time: Some(time.to_proto()),
            value,
            currency: currency.to_owned(),
            ..Event::default()
        }
    }
}

/// Items for a shop whose catalog is empty.
pub fn made_up_products(items: u32, categories: u32) -> Vec<Product> {
    (0..items)
        .map(|n| Product { item: format!("item-{n}"), category: format!("category-{}", n % categories.max(1)) })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn stream(seed: u64, zipf: f64) -> Clickstream {
        let shape = Shape { seed, customers: 50, zipf, run: "sim".into() };
        Clickstream::new(shape, &made_up_products(200, 8)).unwrap()
    }

    fn take(stream: &mut Clickstream, count: usize) -> Vec<Event> {
        (0..count).map(|n| stream.next_at(EventTime::from_ms(n as i64))).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_events_and_another_seed_others() {
        assert_eq!(take(&mut stream(1, 1.0), 500), take(&mut stream(1, 1.0), 500));
        assert_ne!(take(&mut stream(1, 1.0), 500), take(&mut stream(2, 1.0), 500));
    }

    #[test]
    fn every_event_has_an_id_of_its_own_and_a_purchase_follows_a_cart() {
        let events = take(&mut stream(3, 1.0), 20_000);
        let ids: HashSet<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids.len(), events.len());
        let count = |kind: &str| events.iter().filter(|event| event.r#type == kind).count();
        assert!(count("view") > count("add_to_cart"), "most events are views");
        assert!(count("add_to_cart") > count("purchase") && count("purchase") > count("rating"));
        assert!(count("rating") > 0);
        let carts: HashSet<(&str, &str)> = events
            .iter()
            .filter(|event| event.r#type == "add_to_cart")
            .map(|event| (event.customer_id.as_str(), event.item_id.as_str()))
            .collect();
        for event in events.iter().filter(|event| event.r#type == "purchase") {
            assert!(carts.contains(&(event.customer_id.as_str(), event.item_id.as_str())));
        }
    }

    #[test]
    fn with_zipf_a_few_items_get_most_of_the_views() {
        let share_of_top_ten = |zipf: f64| {
            let mut counts: HashMap<String, usize> = HashMap::new();
            for event in take(&mut stream(4, zipf), 20_000) {
                *counts.entry(event.item_id).or_default() += 1;
            }
            let mut counts: Vec<usize> = counts.into_values().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            counts.iter().take(10).sum::<usize>()
        };
        assert!(share_of_top_ten(1.2) > 2 * share_of_top_ten(0.0));
    }

    #[test]
    fn a_shop_without_items_or_customers_has_no_stream() {
        let shape = Shape { seed: 1, customers: 0, zipf: 1.0, run: "r".into() };
        assert!(Clickstream::new(shape.clone(), &made_up_products(5, 2)).is_none());
        assert!(Clickstream::new(Shape { customers: 5, ..shape }, &[]).is_none());
    }
}

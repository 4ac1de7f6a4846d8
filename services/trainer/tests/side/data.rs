//! Made-up customers, each of whom goes by one sign alone.

use rapport_trainer::dataset::{Builder, Dataset, Limits, Seen};

pub const LIMITS: Limits = Limits { events: 1_000_000, items: 20_000 };
pub const TYPES: [&str; 3] = ["view", "cart", "buy"];

/// A number that looks random, of a number.
pub fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
}

/// What decides how far a customer goes on a circle of items.
#[derive(Clone, Copy, PartialEq)]
pub enum Sign {
    /// The type of the event before.
    Action,
    /// How long ago the event before was, after the one before it.
    Since,
    /// How long it takes until the next event.
    Until,
    /// The type of the next event.
    Outcome,
}

/// Customers on a circle of 60 items, who go on by 1, 8 or 17: which of them, a sign tells.
pub fn circle(sign: Sign) -> Dataset {
    const STEPS: [u64; 3] = [1, 8, 17];
    const GAPS: [i64; 3] = [60, 3_600, 86_400];
    let mut builder = Builder::new(LIMITS);
    for customer in 0..240_u64 {
        let draws: Vec<usize> = (0..16).map(|at| (mixed(customer * 100 + at) % 3) as usize).collect();
        let (mut item, mut time) = (mixed(customer) % 60, 1_000_000_000);
        for at in 0..14 {
            let (drawn, next) = (draws[at], draws[at + 1]);
            time += match sign {
                // The draw of the event before decides about the step to this one.
                Sign::Since | Sign::Until => GAPS[drawn],
                Sign::Action | Sign::Outcome => 3_600,
            };
            let kind = match sign {
                Sign::Action | Sign::Outcome => TYPES[drawn],
                Sign::Since | Sign::Until => "view",
            };
            builder
                .add_event(&Seen {
                    customer: &customer.to_string(),
                    item: &item.to_string(),
                    kind: Some(kind),
                    time: time * 1000,
                    ..Seen::default()
                })
                .unwrap();
            let step = match sign {
                Sign::Action | Sign::Since => drawn,
                Sign::Outcome | Sign::Until => next,
            };
            item = (item + STEPS[step]) % 60;
        }
    }
    builder.finish("demo").unwrap()
}

/// Customers who go from category to category, whatever the item: 30 categories of 25 items, each seldom seen.
pub fn categories() -> Dataset {
    let mut builder = Builder::new(LIMITS);
    for customer in 0..300_u64 {
        for at in 0..12 {
            let category = (customer * 7 + at) % 30;
            let item = format!("{category}-{}", mixed(customer * 1000 + at) % 25);
            builder
                .add_event(&Seen {
                    customer: &customer.to_string(),
                    item: &item,
                    category: Some(&format!("c{category}")),
                    time: ((at * 300 + customer) * 1000) as i64,
                    ..Seen::default()
                })
                .unwrap();
        }
    }
    builder.finish("demo").unwrap()
}

//! What events say beside who took what when: their type, and the category of their item.

use std::{collections::HashMap, sync::Arc};

/// Types that are told apart; beyond it the rarest count as unknown.
const TYPES: usize = 255;

/// What the data say of types and categories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// Event types, the most frequent first: a customer's `types` are their places from 1, 0 is unknown.
    pub types: Vec<String>,
    /// What the newest event that names a category of an item calls it, by the item's index. Empty when no
    /// event names one.
    pub categories: Vec<Option<Arc<str>>>,
}

impl Side {
    /// The number of an event type; `None` when no event has it.
    pub fn type_number(&self, name: &str) -> Option<u16> {
        self.types.iter().position(|known| known == name).map(|at| at as u16 + 1)
    }

    /// Gives the item at `index` a category, in the place of what the events say; a table has `width` rows.
    pub fn set_category(&mut self, index: u32, width: usize, category: &str) {
        self.categories.resize(width.max(index as usize + 1), None);
        self.categories[index as usize] = Some(category.into());
    }
}

/// Where an event stands among all: time, partition, offset.
pub(super) type Place = (i64, i32, i64);

/// Gathers types and categories in whatever order events come.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Numbers from 1.
    types: HashMap<String, u16>,
    categories: HashMap<u32, (Place, Arc<str>)>,
    /// Each name once.
    names: HashMap<Arc<str>, ()>,
}

impl Gathered {
    /// A number for the type of an event, 0 where it has none.
    pub fn kind(&mut self, name: Option<&str>) -> u16 {
        let Some(name) = name else { return 0 };
        if let Some(&number) = self.types.get(name) {
            return number;
        }
        // A log of so many types has none: what is beyond counts as unknown.
        let Ok(number) = u16::try_from(self.types.len() + 1) else { return 0 };
        self.types.insert(name.to_owned(), number);
        number
    }

    /// Notes what an event calls its item's category.
    pub fn category(&mut self, item: u32, place: Place, name: &str) {
        if self.categories.get(&item).is_some_and(|(newest, _)| *newest > place) {
            return;
        }
        let name = match self.names.get_key_value(name) {
            Some((known, ())) => Arc::clone(known),
            None => {
                let name: Arc<str> = name.into();
                self.names.insert(Arc::clone(&name), ());
                name
            }
        };
        self.categories.insert(item, (place, name));
    }

    /// `counts` says how many events have each number; `index` is the new index of each item, 0 for those
    /// that are left out, and a table has `width` rows. Returns the new number of each type too.
    pub fn finish(self, counts: &[u64], index: &[u32], width: usize) -> (Side, Vec<u16>) {
        let count = |number: u16| counts.get(number as usize).copied().unwrap_or(0);
        let mut order: Vec<(String, u16)> = self.types.into_iter().collect();
        order.sort_unstable_by(|a, b| count(b.1).cmp(&count(a.1)).then_with(|| a.0.cmp(&b.0)));
        order.truncate(TYPES);
        let mut numbers = vec![0; counts.len()];
        for (at, (_, old)) in order.iter().enumerate() {
            if let Some(number) = numbers.get_mut(*old as usize) {
                *number = at as u16 + 1;
            }
        }
        let mut side = Side { types: order.into_iter().map(|(name, _)| name).collect(), categories: Vec::new() };
        for (item, (_, name)) in self.categories {
            let index = index[item as usize] as usize;
            if index > 0 {
                side.categories.resize(width, None);
                side.categories[index] = Some(name);
            }
        }
        (side, numbers)
    }
}

//! What a data set knows of its items and events, as a network wants it.

use std::{collections::BTreeMap, rc::Rc};

use tch::{Device, Tensor};

use super::{OutcomeRecipe, SideRecipe, vectors};
use crate::{Error, dataset::Dataset};

/// Stands between the categories of an item that has several.
const SEPARATOR: char = '|';
/// Categories that are told apart; beyond it the rarest count as none.
const CATEGORIES: usize = 65_536;

/// The categories of all items: those of item i are `indexes[offsets[i]..offsets[i + 1]]`.
#[derive(Debug)]
pub struct Bags {
    pub indexes: Tensor,
    pub offsets: Tensor,
    pub count: i64,
}

/// Of one data set, as far as a recipe asks for it.
#[derive(Debug)]
pub struct Facts {
    /// Items + 1.
    pub width: usize,
    pub categories: Option<Bags>,
    /// Vectors of texts, `[width, width of texts]`; zeros where an item has none.
    pub text: Option<Tensor>,
    /// Event types.
    pub types: usize,
    /// The type that is asked for when nobody says; 0 where the network is not told.
    pub outcome: i64,
}

impl Facts {
    /// Nothing beside items.
    pub fn none(width: usize) -> Rc<Self> {
        Rc::new(Self { width, categories: None, text: None, types: 0, outcome: 0 })
    }

    /// How many categories and types there are, how long vectors of texts are, and what is asked for.
    pub fn sizes(&self) -> [i64; 4] {
        let categories = self.categories.as_ref().map_or(0, |bags| bags.count);
        [categories, self.types as i64, self.text.as_ref().map_or(0, |text| text.size()[1]), self.outcome]
    }

    /// What `recipe` asks for. Reads the file of vectors.
    ///
    /// # Errors
    /// The data do not say what the recipe asks for.
    pub fn of(model: &'static str, recipe: &SideRecipe, data: &Dataset, device: Device) -> Result<Rc<Self>, Error> {
        if recipe.is_off() {
            return Ok(Self::none(data.width()));
        }
        let refused = |reason: String| Error::CannotTrain { model, reason };
        let categories = match recipe.category {
            true => Some(bags(data, device).map_err(refused)?),
            false => None,
        };
        let text = match &recipe.text {
            Some(path) => {
                let read =
                    vectors::read(path, &data.items).map_err(|reason| refused(format!("side.text: {reason}")))?;
                let shape = [data.width() as i64, read.width as i64];
                Some(Tensor::from_slice(&read.values).view(shape).to_device(device))
            }
            None => None,
        };
        if recipe.looks_at_types() && data.side.types.is_empty() {
            let reason = "side.action and side.outcome: the events have no types; give a column \"type\" in the file";
            return Err(refused(reason.into()));
        }
        let outcome = match recipe.outcome() {
            None => 0,
            Some(OutcomeRecipe::Commonest(_)) => 1,
            Some(OutcomeRecipe::Named(name)) => match data.side.type_number(name) {
                Some(number) => number.into(),
                None => {
                    let known = data.side.types.join(", ");
                    return Err(refused(format!("side.outcome: no event is a {name:?}; their types are: {known}")));
                }
            },
        };
        Ok(Rc::new(Self { width: data.width(), categories, text, types: data.side.types.len(), outcome }))
    }
}

fn bags(data: &Dataset, device: Device) -> Result<Bags, String> {
    let of_item = |index: usize| {
        let category = data.side.categories.get(index).and_then(Option::as_deref).unwrap_or_default();
        category.split(SEPARATOR).map(str::trim).filter(|name| !name.is_empty())
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    (1..data.width()).flat_map(of_item).for_each(|name| *counts.entry(name).or_default() += 1);
    if counts.is_empty() {
        return Err("side.category: no event names a category; give a column \"category\", or a file of items".into());
    }
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by_key(|&(_, count)| std::cmp::Reverse(count)); // stable: equals by name
    names.truncate(CATEGORIES);
    let numbers: BTreeMap<&str, i64> = names.iter().zip(0..).map(|(&(name, _), number)| (name, number)).collect();
    let (mut indexes, mut offsets) = (Vec::new(), Vec::with_capacity(data.width()));
    offsets.push(0_i64); // padding
    for index in 1..data.width() {
        offsets.push(indexes.len() as i64);
        indexes.extend(of_item(index).filter_map(|name| numbers.get(name).copied()));
    }
    let tensor = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
    Ok(Bags { indexes: tensor(&indexes), offsets: tensor(&offsets), count: numbers.len() as i64 })
}

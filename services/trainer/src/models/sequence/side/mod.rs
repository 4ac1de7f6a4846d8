//! Side information: what a network is told beside the order of items.
//!
//! Category and text are parts of an item's vector: when a model is written they are folded into its table
//! of items, and nobody who serves it knows of them. Event types, gaps and the outcome are added to the
//! vectors of the past's places; the encoders behind see vectors of a table made for the occasion, and
//! know nothing of it either.

mod events;
mod facts;
mod recipe;
mod vectors;

use std::rc::Rc;

use tch::{Tensor, nn};

pub use facts::Facts;
pub use recipe::{OutcomeRecipe, SideRecipe};

use self::events::EventTables;
use super::encoders::Inputs;
use crate::{
    Error,
    export::{Graph, Value},
};

/// Standard deviation of fresh vectors: that of the items'.
const INIT: f64 = super::INIT;
/// `embedding_bag`'s mean.
const MEAN: i64 = 1;

/// The weights of side information.
pub struct Side {
    pub facts: Rc<Facts>,
    /// `[categories, dim]`.
    categories: Option<Tensor>,
    /// From vectors of texts to items' vectors, `[width of texts, dim]`.
    projection: Option<Tensor>,
    events: EventTables,
}

impl Side {
    /// Fresh weights under `path`, drawn by libtorch's generator; none for what the recipe leaves off.
    pub fn new(path: &nn::Path<'_>, recipe: &SideRecipe, dim: i64, facts: Rc<Facts>) -> Self {
        let fresh = |name: &str, rows: i64| path.randn(name, &[rows, dim], 0.0, INIT);
        Self {
            categories: facts.categories.as_ref().map(|bags| fresh("categories", bags.count)),
            projection: facts.text.as_ref().map(|text| fresh("text", text.size()[1])),
            events: EventTables::new(path, recipe, dim, &facts),
            facts,
        }
    }

    /// The vectors of items with all that is known of them, `[items + 1, dim]`.
    pub fn table(&self, items: &Tensor) -> Tensor {
        // Never in place: the items' own vectors are what is learned.
        let mut table = items.shallow_clone();
        if let (Some(categories), Some(bags)) = (&self.categories, &self.facts.categories) {
            let (means, ..) = Tensor::embedding_bag(
                categories,
                &bags.indexes,
                &bags.offsets,
                false,
                MEAN,
                false,
                None::<&Tensor>,
                false,
            );
            table = &table + means;
        }
        if let (Some(projection), Some(text)) = (&self.projection, &self.facts.text) {
            table = &table + text.matmul(projection);
        }
        table
    }

    /// What is added to each place of the past, `[batch, length, dim]`; `None` when nothing is.
    pub fn added(&self, inputs: &Inputs) -> Option<Tensor> {
        self.events.added(inputs)
    }

    /// Whether the answer after a place depends on what was asked there: a pass then answers one question.
    pub fn one_question(&self) -> bool {
        self.events.takes_outcome()
    }

    /// Asks at the newest place of each row for the recipe's own outcome.
    pub fn ask(&self, inputs: &mut Inputs) {
        if self.events.takes_outcome() {
            let length = inputs.next_types.size()[1];
            inputs.next_types = inputs.next_types.copy();
            drop(inputs.next_types.narrow(1, length - 1, 1).fill_(self.facts.outcome));
        }
    }

    /// As [`Self::added`], in a graph.
    ///
    /// # Errors
    /// libtorch does not hand out the weights.
    pub fn export(&self, g: &mut Graph) -> Result<Option<Value>, Error> {
        self.events.export(g, self.facts.outcome)
    }
}

/// Inputs for an encoder whose vectors are `vectors` `[batch, length, dim]` themselves, of no table: each
/// place has a row of its own in the table that comes with them. Padding stays padding.
pub fn of_no_table(vectors: &Tensor, inputs: &Inputs) -> (Tensor, Inputs) {
    let size = vectors.size();
    let table = vectors.reshape([-1, size[2]]).constant_pad_nd([0, 0, 1, 0]);
    let items = Tensor::arange_start(1, size[0] * size[1] + 1, (tch::Kind::Int64, vectors.device()));
    let items = items.view([size[0], size[1]]) * inputs.items.gt(0).to_kind(tch::Kind::Int64);
    (table, Inputs { items, ..inputs.shallow_clone() })
}

//! Types, gaps and outcomes: what is added to the places of the past.

use tch::{Kind, Tensor, nn};

use super::{Facts, INIT, SideRecipe};
use crate::{
    Error,
    export::{Attribute, Graph, NOW, Value},
    models::sequence::encoders::Inputs,
};

/// A gap's bucket is the number of powers of two, from one second on, that it reaches: compared as whole
/// numbers, so that libtorch and ONNX Runtime cannot round differently.
const POWERS: u32 = 31;
const BUCKETS: i64 = POWERS as i64 + 1;

fn powers() -> Vec<i64> {
    (0..POWERS).map(|power| 1_i64 << power).collect()
}

/// A vector for each number; each is there where the recipe asks for it. Type 0 is unknown and adds nothing.
pub struct EventTables {
    /// `[types, dim]`.
    action: Option<Tensor>,
    /// `[types, dim]`.
    outcome: Option<Tensor>,
    /// Since the item before, and until the item after or the question, `[BUCKETS, dim]`.
    gaps: Option<[Tensor; 2]>,
}

impl EventTables {
    pub fn new(path: &nn::Path<'_>, recipe: &SideRecipe, dim: i64, facts: &Facts) -> Self {
        let fresh = |name: &str, rows: i64| path.randn(name, &[rows, dim], 0.0, INIT);
        let types = facts.types as i64;
        Self {
            action: recipe.action.then(|| fresh("action", types)),
            outcome: recipe.outcome().map(|_| fresh("outcome", types)),
            gaps: recipe.gaps.then(|| [fresh("since", BUCKETS), fresh("until", BUCKETS)]),
        }
    }

    pub fn takes_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    /// `[batch, length, dim]`, or `None` when nothing is added.
    pub fn added(&self, inputs: &Inputs) -> Option<Tensor> {
        let row = |table: &Tensor, at: &Tensor| Tensor::embedding(table, at, -1, false, false);
        let mut parts = Vec::new();
        parts.extend(self.action.as_ref().map(|table| row(&with_unknown(table), &inputs.types)));
        parts.extend(self.outcome.as_ref().map(|table| row(&with_unknown(table), &inputs.next_types)));
        if let Some([since, until]) = &self.gaps {
            let [since_before, until_next] = gaps(inputs);
            parts.push(row(since, &since_before));
            parts.push(row(until, &until_next));
        }
        parts.into_iter().reduce(|sum, part| sum + part)
    }

    /// As [`Self::added`], in a graph. `outcome` is what is asked for when the caller gives 0.
    ///
    /// # Errors
    /// libtorch does not hand out the weights.
    pub fn export(&self, g: &mut Graph, outcome: i64) -> Result<Option<Value>, Error> {
        let mut parts = Vec::new();
        let row = |g: &mut Graph, table: &str, at: &str| g.op("Gather", &[table, at], &[Attribute::Int("axis", 0)]);
        if let Some(table) = &self.action {
            let (table, types) = (g.weights("side_action", &with_unknown(table))?, g.types());
            parts.push(row(g, &table, &types));
        }
        if let Some(table) = &self.outcome {
            let table = g.weights("side_outcome", &with_unknown(table))?;
            let (types, asked) = (g.types(), g.outcome());
            let zero = g.ints("zero", &[], &[0]);
            let own = g.ints("own_outcome", &[], &[outcome]);
            let unsaid = g.op("Equal", &[&asked, &zero], &[]);
            let asked = g.op("Where", &[&unsaid, &own, &asked], &[]);
            let next = g.next(&types, &asked);
            parts.push(row(g, &table, &next));
        }
        if let Some([since, until]) = &self.gaps {
            let (since, until) = (g.weights("side_since", since)?, g.weights("side_until", until)?);
            let (items, times) = (g.items(), g.times());
            let (before, had) = (before(g, &times), before(g, &items));
            let next = g.next(&times, NOW);
            let zero = g.ints("zero", &[], &[0]);
            let had = g.op("Greater", &[&had, &zero], &[]);
            let had = g.op("Cast", &[&had], &[Attribute::Int("to", 7)]); // 7 = int64
            let passed = g.op("Sub", &[&times, &before], &[]);
            let passed = g.op("Mul", &[&passed, &had], &[]);
            let passed = bucket(g, &passed);
            parts.push(row(g, &since, &passed));
            let left = g.op("Sub", &[&next, &times], &[]);
            let left = bucket(g, &left);
            parts.push(row(g, &until, &left));
        }
        let mut sum: Option<Value> = None;
        for part in parts {
            sum = Some(match sum {
                None => part,
                Some(sum) => g.op("Add", &[&sum, &part], &[]),
            });
        }
        Ok(sum)
    }
}

/// The table with a row of zeros before it.
fn with_unknown(table: &Tensor) -> Tensor {
    table.constant_pad_nd([0, 0, 1, 0])
}

/// Buckets of the time since the item before (0 where there is none) and until the next one or the
/// question, `[batch, length]` each.
fn gaps(inputs: &Inputs) -> [Tensor; 2] {
    let before = |x: &Tensor| {
        let rest = x.narrow(1, 0, x.size()[1] - 1);
        Tensor::cat(&[&x.narrow(1, 0, 1), &rest], 1)
    };
    let had = before(&inputs.items).gt(0).to_kind(Kind::Int64);
    let passed = (&inputs.times - before(&inputs.times)) * had;
    let left = &inputs.next_times - &inputs.times;
    let powers = Tensor::from_slice(&powers()).to_device(inputs.items.device());
    [passed, left]
        .map(|gap| gap.unsqueeze(-1).ge_tensor(&powers).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Int64))
}

/// What stands one place before, `[batch, length]`; the first stands before itself.
fn before(g: &mut Graph, x: &str) -> Value {
    let middle = g.ints("middle_axis", &[1], &[1]);
    let (start, one, last) =
        (g.ints("from_the_start", &[1], &[0]), g.ints("from_one", &[1], &[1]), g.ints("last", &[1], &[-1]));
    let first = g.op("Slice", &[x, &start, &one, &middle], &[]);
    let rest = g.op("Slice", &[x, &start, &last, &middle], &[]);
    g.op("Concat", &[&first, &rest], &[Attribute::Int("axis", 1)])
}

fn bucket(g: &mut Graph, gap: &str) -> Value {
    let inner = g.ints("inner_axis", &[1], &[2]);
    let powers = g.ints("powers", &[POWERS.into()], &powers());
    let gap = g.op("Unsqueeze", &[gap, &inner], &[]);
    let reached = g.op("GreaterOrEqual", &[&gap, &powers], &[]);
    let reached = g.op("Cast", &[&reached], &[Attribute::Int("to", 7)]);
    g.op("ReduceSum", &[&reached, &inner], &[Attribute::Int("keepdims", 0)])
}

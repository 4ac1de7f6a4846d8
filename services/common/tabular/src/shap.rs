//! TreeSHAP: exact Shapley values of a tree in polynomial time, path-dependent (Lundberg, Erion and
//! Lee 2018, "Consistent Individualized Feature Attribution for Tree Ensembles", algorithm 2). An
//! absent column is averaged over by the cover of the branches, so no background data is needed.

use crate::bins::Binned;
use crate::tree::{Node, Tree};

/// A column on the way from the root, and the state of the subsets of columns by size.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// `None` for the root, which tests nothing.
    column: Option<usize>,
    /// Share of the cover that flows on where the column is absent.
    absent: f64,
    /// 1 where the row itself flows on, else 0.
    present: f64,
    /// Weight of the subsets that hold as many columns as this step's place in the path.
    weight: f64,
}

/// `[columns]`: the sum over the trees of each column's Shapley value for the row's leaf value.
/// Together with the trees' means they sum to the trees' values.
pub fn contributions(trees: &[Tree], data: &Binned, row: usize) -> Vec<f64> {
    let mut sums = vec![0.0; data.bins.len()];
    for tree in trees {
        walk(tree, data, row, 0, Vec::new(), (None, 1.0, 1.0), &mut sums);
    }
    sums
}

fn walk(
    tree: &Tree,
    data: &Binned,
    row: usize,
    node: usize,
    mut path: Vec<Step>,
    (column, absent, present): (Option<usize>, f64, f64),
    sums: &mut [f64],
) {
    extend(&mut path, column, absent, present);
    match &tree.nodes[node] {
        Node::Leaf { value, .. } => {
            let cold = cold_part(&path);
            for (index, step) in path.iter().enumerate() {
                let Some(column) = step.column else { continue };
                let hot = || unwound_weight(&path, index) * (step.present - step.absent);
                sums[column] += value * if step.present == 0.0 { cold } else { hot() };
            }
        }
        Node::Split { column, rule, left, right, cover } => {
            let to_left = rule.goes_left(data.bin(*column, row));
            let (hot, cold) = if to_left { (*left, *right) } else { (*right, *left) };
            let (mut absent, mut present) = (1.0, 1.0);
            // A column tested before counts once: take its earlier step out and multiply it in.
            if let Some(index) = path.iter().position(|step| step.column == Some(*column)) {
                (absent, present) = (path[index].absent, path[index].present);
                unwind(&mut path, index);
            }
            let share = |child: usize| tree.nodes[child].cover() / cover;
            let column = Some(*column);
            walk(tree, data, row, hot, path.clone(), (column, absent * share(hot), present), sums);
            walk(tree, data, row, cold, path, (column, absent * share(cold), 0.0), sums);
        }
    }
}

/// EXTEND of algorithm 2: the subsets grow by one column.
fn extend(path: &mut Vec<Step>, column: Option<usize>, absent: f64, present: f64) {
    let length = path.len();
    path.push(Step { column, absent, present, weight: if length == 0 { 1.0 } else { 0.0 } });
    let size = (length + 1) as f64;
    for i in (0..length).rev() {
        path[i + 1].weight += present * path[i].weight * (i + 1) as f64 / size;
        path[i].weight = absent * path[i].weight * (length - i) as f64 / size;
    }
}

/// UNWIND of algorithm 2: undoes the extension by the step at `index`.
fn unwind(path: &mut Vec<Step>, index: usize) {
    let mut weights = vec![0.0; path.len() - 1];
    unwound(path, index, |size, weight| weights[size] = weight);
    path.remove(index);
    // The steps move up, but a weight belongs to a size of subset, not to a step.
    path.iter_mut().zip(weights).for_each(|(step, weight)| step.weight = weight);
}

/// `unwound_weight * (present - absent)` of any step that the row does not take: there the share
/// `absent` cancels, so that one sum does for all of them (Yang 2021, "Fast TreeSHAP").
fn cold_part(path: &[Step]) -> f64 {
    let last = path.len() - 1;
    let parts = path.iter().take(last).enumerate().map(|(size, step)| step.weight / (last - size) as f64);
    -(path.len() as f64) * parts.sum::<f64>()
}

fn unwound_weight(path: &[Step], index: usize) -> f64 {
    let mut sum = 0.0;
    unwound(path, index, |_, weight| sum += weight);
    sum
}

/// Gives `take` the weight of each size of subset in the path without the step at `index`, the
/// largest size first. The path is not empty: it has that step.
fn unwound(path: &[Step], index: usize, mut take: impl FnMut(usize, f64)) {
    let last = path.len() - 1;
    let length = path.len() as f64;
    let Step { absent, present, .. } = path[index];
    let mut next = path[last].weight;
    for size in (0..last).rev() {
        let weight = if present != 0.0 {
            let weight = next * length / ((size + 1) as f64 * present);
            next = path[size].weight - weight * absent * (last - size) as f64 / length;
            weight
        } else {
            path[size].weight * length / (absent * (last - size) as f64)
        };
        take(size, weight);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::Rule;

    const COLUMNS: usize = 4;

    /// A tree grown from random choices, deep or wide: columns repeat on a path, covers are uneven.
    fn tree(choices: &[(usize, usize, u8, f64, f64)]) -> Tree {
        let mut nodes = vec![Node::Leaf { value: 0.5, cover: 100.0 }];
        for &(chosen, column, bin, share, value) in choices {
            let leaves = (0..nodes.len()).filter(|&node| matches!(nodes[node], Node::Leaf { .. }));
            let leaves: Vec<usize> = leaves.collect();
            let index = leaves[chosen % leaves.len()];
            let cover = nodes[index].cover();
            let first = nodes.len();
            let rule = if column == 3 {
                Rule::Among([u64::from(bin) | 1, 0, 0, 0])
            } else {
                Rule::AtMost { bin, missing_left: bin > 2 }
            };
            nodes[index] = Node::Split { column, rule, left: first, right: first + 1, cover };
            nodes.push(Node::Leaf { value, cover: cover * share });
            nodes.push(Node::Leaf { value: value * value - 0.7, cover: cover * (1.0 - share) });
        }
        Tree { nodes }
    }

    /// E[f(x) | the columns in the set] by cover (algorithm 1 of the paper).
    fn expectation(tree: &Tree, data: &Binned, node: usize, set: usize) -> f64 {
        match &tree.nodes[node] {
            Node::Leaf { value, .. } => *value,
            Node::Split { column, rule, left, right, cover } => {
                if set >> column & 1 == 1 {
                    let child = if rule.goes_left(data.bin(*column, 0)) { *left } else { *right };
                    return expectation(tree, data, child, set);
                }
                let part = |child: usize| tree.nodes[child].cover() / cover * expectation(tree, data, child, set);
                part(*left) + part(*right)
            }
        }
    }

    fn brute_force(tree: &Tree, data: &Binned) -> Vec<f64> {
        let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
        let value = |column: usize| {
            let without = (0..1usize << COLUMNS).filter(|set| set >> column & 1 == 0);
            let part = |set: usize| {
                let size = set.count_ones();
                let weight = factorial(size) * factorial(COLUMNS as u32 - size - 1) / factorial(COLUMNS as u32);
                weight * (expectation(tree, data, 0, set | 1 << column) - expectation(tree, data, 0, set))
            };
            without.map(part).sum()
        };
        (0..COLUMNS).map(value).collect()
    }

    proptest! {
        #[test]
        fn it_agrees_with_brute_force_over_all_subsets_and_adds_up(
            choices in proptest::collection::vec((0usize..64, 0..COLUMNS, 1u8..5, 0.05f64..0.95, -2.0f64..2.0), 0..16),
            row in proptest::collection::vec(0u8..6, COLUMNS),
        ) {
            let tree = tree(&choices);
            let data = Binned {
                rows: 1,
                bins: row.into_iter().map(|bin| vec![bin]).collect(),
                sizes: vec![6; COLUMNS],
                categorical: vec![false; COLUMNS],
            };
            let fast = contributions(std::slice::from_ref(&tree), &data, 0);
            for (fast, slow) in fast.iter().zip(brute_force(&tree, &data)) {
                prop_assert!((fast - slow).abs() < 1e-9, "{} {}", fast, slow);
            }
            let sum = tree.mean() + fast.iter().sum::<f64>();
            prop_assert!((sum - tree.value(&data, 0)).abs() < 1e-9);
        }
    }
}

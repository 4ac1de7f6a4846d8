//! Tables that items are looked up in as int8, with a scale for each row.

use std::collections::HashSet;

use super::{
    Error,
    exported::{Exported, cast_to_float, int_attribute, ints_attribute, is, is_row_lookup, node, only_attribute},
    integer::{Activations, Weights},
    products::{bytes_of_floats, bytes_of_integers, constants},
    quantise,
};
use crate::export::onnx_messages::{NodeProto, data_type};

const KIND: &str = "int8-rows";
/// Constants that lookups share: the axis along which the scale of a row, `[batch, length]`, is
/// repeated. Last: for each of the row's values. Middle: for each row of the other factor.
const LAST_AXIS: &str = "scale_last_axis";
const MIDDLE_AXIS: &str = "scale_middle_axis";

/// The table of items, or the ridge's tables, as int8 with a scale for each row. Looking up costs a
/// cast and a multiplication more; scoring all items against the table is done in int8. Where rows
/// are summed up with weights, as the ridge does, the weights are multiplied with the scales instead
/// of the rows, which are far longer.
///
/// The best items are not scored again in float32: that needs the table in float32 too, so that the
/// file becomes larger than the original, to mend what needs no mending (models of MovieLens 100K
/// keep 9.9 of their 10 best items, and ndcg on the data they learned from moves by 0.3 %).
///
/// # Errors
/// The model is not one of the exporter's, is compressed already, or has no such table.
pub fn int8_rows(model: &[u8]) -> Result<Vec<u8>, Error> {
    let mut model = Exported::open(model)?;
    if quantise(&mut model)? == 0 {
        return Err(Error::NothingToCompress { kind: KIND });
    }
    Ok(model.close(KIND))
}

/// Returns how many tables were quantised.
pub(super) fn quantise(model: &mut Exported) -> Result<usize, Error> {
    let found = Tables::find(model);
    for name in &found.names {
        let Some(matrix) = model.matrix(name)? else { continue };
        let quantised = quantise::by_row(&matrix);
        let [integers, scales] = constants(name);
        let dims = [matrix.rows, matrix.columns];
        model.add_constant(&integers, &dims, data_type::INT8, bytes_of_integers(&quantised.integers));
        model.add_constant(&scales, &[matrix.rows], data_type::FLOAT, bytes_of_floats(&quantised.scales));
    }
    for (axis, value) in [(LAST_AXIS, -1_i64), (MIDDLE_AXIS, 1)] {
        model.add_constant(axis, &[1], data_type::INT64, value.to_le_bytes().to_vec());
    }
    let mut activations = Activations::default();
    let mut nodes = Vec::with_capacity(model.nodes.len());
    for node in std::mem::take(&mut model.nodes) {
        match found.read_by(&node) {
            Some(Read::Lookup { table, summed }) => nodes.extend(lookup(&node, table, summed)),
            Some(Read::Scoring { table }) => nodes.extend(scoring(&node, table, &mut activations)),
            Some(Read::Sum { rows }) => nodes.extend(scaled_sum(&node, rows)),
            None => nodes.push(node),
        }
    }
    model.nodes = nodes;
    model.drop_unread(&[found.names.as_slice(), &[LAST_AXIS.into(), MIDDLE_AXIS.into()]].concat());
    Ok(found.names.len())
}

/// The tables to quantise, and who reads them.
struct Tables {
    /// Values that hold items.
    items: HashSet<String>,
    /// Constant matrices that rows of items are looked up in and that nothing reads in a way which
    /// is unknown here. Each once, in the order of the graph.
    names: Vec<String>,
    /// Rows of them that nothing reads but products that sum them up, `[.., length] x [batch, length,
    /// columns]`. The weights on the left are a matrix, or one for each history: the exporter has no
    /// others.
    summed: HashSet<String>,
}

/// How a node reads a table.
enum Read<'a> {
    Lookup {
        table: &'a str,
        summed: bool,
    },
    /// Scores of all items, a `Gemm`.
    Scoring {
        table: &'a str,
    },
    /// A sum of rows that were looked up.
    Sum {
        rows: &'a str,
    },
}

impl Tables {
    fn find(model: &Exported) -> Self {
        let items = model.item_values();
        let known =
            |node: &NodeProto, table: &str| looked_up(node, &items) == Some(table) || scored(node) == Some(table);
        let (mut names, mut summed) = (Vec::new(), HashSet::new());
        for (lookup, table) in model.nodes.iter().filter_map(|node| Some((node, looked_up(node, &items)?))) {
            if !model.is_float_matrix(table) || !model.readers(table).all(|node| known(node, table)) {
                continue;
            }
            if !names.iter().any(|name| name == table) {
                names.push(table.to_owned());
            }
            let rows = lookup.output.first();
            summed.extend(rows.filter(|rows| model.readers(rows).all(|node| is_sum(node, rows))).cloned());
        }
        Self { items, names, summed }
    }

    fn read_by<'a>(&'a self, node: &'a NodeProto) -> Option<Read<'a>> {
        let mine = |table: &&str| self.names.iter().any(|name| name == table);
        if let Some(table) = looked_up(node, &self.items).filter(mine) {
            let summed = node.output.first().is_some_and(|rows| self.summed.contains(rows));
            return Some(Read::Lookup { table, summed });
        }
        if let Some(table) = scored(node).filter(mine) {
            return Some(Read::Scoring { table });
        }
        let rows = node.input.get(1).filter(|rows| is_sum(node, rows))?;
        self.summed.get(rows).map(|rows| Read::Sum { rows })
    }
}

/// The table in which the node looks up rows of items.
fn looked_up<'a>(node: &'a NodeProto, items: &HashSet<String>) -> Option<&'a str> {
    match node.input.as_slice() {
        [table, index] if is_row_lookup(node) && items.contains(index) => Some(table),
        _ => None,
    }
}

/// The table against which the node scores all items.
fn scored(node: &NodeProto) -> Option<&str> {
    match node.input.as_slice() {
        [_, table] | [_, table, _] if is(node, "Gemm") && only_attribute(node, "transB", 1) => Some(table),
        _ => None,
    }
}

/// Whether the node sums up `rows` with weights, and does not read them otherwise.
fn is_sum(node: &NodeProto, rows: &str) -> bool {
    is(node, "MatMul") && matches!(node.input.as_slice(), [weights, second] if second == rows && weights != rows)
}

/// `[batch, length]` to `[batch, length, columns]`: integers times the scale of their row, or, where
/// the rows are `summed` up, the integers alone, and beside them the scales `[batch, 1, length]`. A
/// node without an output, which the exporter does not write, does nothing and leaves nothing.
fn lookup(gather: &NodeProto, table: &str, summed: bool) -> Vec<NodeProto> {
    let (Some(items), Some(rows)) = (gather.input.get(1), gather.output.first()) else { return Vec::new() };
    let [table_integers, table_scales] = constants(table);
    let [integers, real, scales] = ["integers", "real", "scales"].map(|part| format!("{rows}_{part}"));
    let spread = spread(rows);
    let real = if summed { rows } else { &real };
    let axis = || vec![int_attribute("axis", 0)];
    let mut nodes = vec![
        node("Gather", &[&table_integers, items], &[&integers], axis()),
        cast_to_float(&integers, real),
        node("Gather", &[&table_scales, items], &[&scales], axis()),
        node("Unsqueeze", &[&scales, if summed { MIDDLE_AXIS } else { LAST_AXIS }], &[&spread], vec![]),
    ];
    if !summed {
        nodes.push(node("Mul", &[real, &spread], &[rows], vec![]));
    }
    nodes
}

/// The product with weights that are multiplied with the scales of the `rows` which it sums up.
fn scaled_sum(product: &NodeProto, rows: &str) -> Vec<NodeProto> {
    let (Some(weights), Some(sum)) = (product.input.first(), product.output.first()) else { return Vec::new() };
    let scaled = format!("{sum}_weights");
    vec![node("Mul", &[weights, &spread(rows)], &[&scaled], vec![]), node("MatMul", &[&scaled, rows], &[sum], vec![])]
}

/// The scales of rows that were looked up, as wide as what they are multiplied with.
fn spread(rows: &str) -> String {
    format!("{rows}_spread")
}

/// `[batch, columns]` to the scores `[batch, rows]`. The table is stored once: as it lies for the
/// lookups, and turned when the model is loaded (constants are folded).
fn scoring(gemm: &NodeProto, table: &str, activations: &mut Activations) -> Vec<NodeProto> {
    let (Some(hidden), Some(output)) = (gemm.input.first(), gemm.output.first()) else { return Vec::new() };
    let name = gemm.name.as_deref().unwrap_or(table);
    let [integers, scales] = constants(table);
    let turned = format!("{name}_turned");
    let mut nodes = vec![node("Transpose", &[&integers], &[&turned], vec![ints_attribute("perm", &[1, 0])])];
    let weights = Weights { integers: &turned, scales: &scales };
    let bias = gemm.input.get(2).map(String::as_str);
    nodes.extend(activations.product(name, hidden, &weights, bias, output));
    nodes
}

//! A small builder of ONNX graphs for next-item models.

use prost::Message as _;
use rapport_inference::SEQUENCE_LENGTH_PROPERTY;

use super::onnx_messages::{
    AttributeProto, Dimension, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
    data_location, data_type,
};

/// Operator set: 17 is the first with LayerNormalization, and every runtime since 2022 has it.
pub const OPSET: i64 = 17;
/// The IR version that came with it.
const IR_VERSION: i64 = 8;

/// Who wrote the model, as the file says.
pub const PRODUCER: &str = "rapport-trainer";

/// The graph's input: item indexes `[batch, length]`.
pub const INPUT: &str = "items";
/// A second input of models that look at time: when each item was taken, in whole seconds `[batch,
/// length]`; 0 for padding.
pub const TIMES: &str = "times";
/// A third: the moment of the question in whole seconds, `[batch]`.
pub const NOW: &str = "now";
/// An input of models that look at types of events: which type took each item, 0 for padding and where it is
/// unknown `[batch, length]`.
pub const TYPES: &str = "types";
/// An input of models that are told what is asked for: the type of the event, 0 for the model's own `[batch]`.
pub const OUTCOME: &str = "outcome";
/// The graph's output: scores `[batch, items + 1]`.
pub const OUTPUT: &str = "scores";
/// The output of a graph that makes queries, `[batch, dim]`.
pub const QUERY: &str = "query";

/// Name of a value in the graph.
pub type Value = String;

/// A graph that grows from its input to its output. Values are named after what makes them.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Before the names of constants: two models in one graph must not share them.
    scope: String,
    times: bool,
    types: bool,
    outcome: bool,
    /// Indexes into a table that was made for the occasion ([`Self::of_no_table`]), in the place of items.
    own_items: Option<Value>,
    /// How many of the newest items the part that is built now looks at, and these; all when `None`.
    newest: Option<(i64, Value)>,
}

/// Scores that are inner products: of a query `[batch, dim]` with a constant, the items' vectors `[items + 1, dim]`.
pub struct Factors {
    pub query: Value,
    pub vectors: Value,
}

/// A model in two parts.
pub struct Parts {
    /// The graph that makes queries; the items' vectors are not in it, it refers to their file.
    pub graph: Vec<u8>,
    /// Little endian, row after row.
    pub vectors: Vec<u8>,
}

/// An attribute of a node.
pub enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
}

impl Graph {
    /// Constants that come now belong to the part called `name`.
    pub fn scope(&mut self, name: &str) {
        self.scope = format!("{name}/");
    }

    /// From here on a part looks at the newest `length` items only, until [`Self::all_items`].
    pub fn newest_items(&mut self, length: i64) {
        let items = self.cut(INPUT, length);
        self.newest = Some((length, items));
    }

    fn cut(&mut self, input: &str, length: i64) -> Value {
        let starts = self.ints(&format!("newest_{length}"), &[1], &[-length]);
        let (ends, axis) = (self.ints("to_the_end", &[1], &[i64::MAX]), self.ints("middle_axis", &[1], &[1]));
        self.op("Slice", &[input, &starts, &ends, &axis], &[])
    }

    /// The opposite of [`Self::newest_items`].
    pub fn all_items(&mut self) {
        self.newest = None;
    }

    /// Item indexes that the part looks at, `[batch, length]`.
    pub fn items(&self) -> Value {
        let newest = || self.newest.as_ref().map(|(_, items)| items.clone());
        self.own_items.clone().or_else(newest).unwrap_or_else(|| INPUT.into())
    }

    /// From here on, until [`Self::of_the_table`], the items of the part that is built now are rows of a table
    /// of their own, which is returned: their vectors in `table` and what is `added` to each, `[batch, length,
    /// dim]`. Padding stays 0, whose row is zeros.
    pub fn of_no_table(&mut self, table: &str, added: &str, dim: i64) -> Value {
        let items = self.items();
        let vectors = self.op("Gather", &[table, &items], &[Attribute::Int("axis", 0)]);
        let vectors = self.op("Add", &[&vectors, added], &[]);
        let flat_shape = self.ints("flat_shape", &[2], &[-1, dim]);
        let flat = self.op("Reshape", &[&vectors, &flat_shape], &[]);
        let padding = self.floats("no_vector", &[1, dim], &vec![0.0; dim as usize]);
        let own = self.op("Concat", &[&padding, &flat], &[Attribute::Int("axis", 0)]);
        let (zero, one) = (self.ints("zero", &[], &[0]), self.ints("one", &[], &[1]));
        let count = self.op("Size", &[&items], &[]);
        let end = self.op("Add", &[&count, &one], &[]);
        let rows = self.op("Range", &[&one, &end, &one], &[]);
        let shape = self.op("Shape", &[&items], &[]);
        let rows = self.op("Reshape", &[&rows, &shape], &[]);
        let present = self.op("Greater", &[&items, &zero], &[]);
        self.own_items = Some(self.op("Where", &[&present, &rows, &zero], &[]));
        own
    }

    /// The opposite of [`Self::of_no_table`].
    pub fn of_the_table(&mut self) {
        self.own_items = None;
    }

    /// Types of the events that took these items, `[batch, length]`: the graph takes [`TYPES`] too.
    pub fn types(&mut self) -> Value {
        self.types = true;
        self.newest_of(TYPES)
    }

    /// The type that is asked for, `[batch]`: the graph takes [`OUTCOME`] too.
    pub fn outcome(&mut self) -> Value {
        self.outcome = true;
        OUTCOME.into()
    }

    /// Times of these items, `[batch, length]`: the graph takes [`TIMES`] and [`NOW`] too.
    pub fn times(&mut self) -> Value {
        self.times = true;
        self.newest_of(TIMES)
    }

    fn newest_of(&mut self, input: &str) -> Value {
        match self.newest.as_ref().map(|&(length, _)| length) {
            None => input.into(),
            Some(length) => self.cut(input, length),
        }
    }

    /// A constant tensor of floats.
    pub fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) -> Value {
        self.constant(name, dims, data_type::FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant tensor of integers.
    pub fn ints(&mut self, name: &str, dims: &[i64], values: &[i64]) -> Value {
        self.constant(name, dims, data_type::INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn constant(&mut self, name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> Value {
        let name = format!("{}{name}", self.scope);
        if !self.initializers.iter().any(|i| i.name.as_deref() == Some(&name)) {
            self.initializers.push(TensorProto {
                dims: dims.to_vec(),
                data_type: Some(data_type),
                name: Some(name.clone()),
                raw_data: Some(raw_data),
                ..TensorProto::default()
            });
        }
        name
    }

    /// A node with one output.
    pub fn op(&mut self, op_type: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> Value {
        let name = format!("{}_{}", op_type.to_lowercase(), self.nodes.len());
        self.node(op_type, inputs, std::slice::from_ref(&name), attributes);
        name
    }

    /// A node whose wanted output is its second one; the first is left out.
    pub fn second(&mut self, op_type: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> Value {
        let name = format!("{}_{}", op_type.to_lowercase(), self.nodes.len());
        self.node(op_type, inputs, &[String::new(), name.clone()], attributes);
        name
    }

    /// A node that cuts its input into `N` equal parts along the last axis.
    pub fn split<const N: usize>(&mut self, input: &str) -> [Value; N] {
        let base = self.nodes.len();
        let names: [Value; N] = std::array::from_fn(|i| format!("split_{base}_{i}"));
        self.node("Split", &[input], &names, &[Attribute::Int("axis", -1)]);
        names
    }

    fn node(&mut self, op_type: &str, inputs: &[&str], outputs: &[Value], attributes: &[Attribute<'_>]) {
        let attribute = attributes
            .iter()
            .map(|attribute| {
                let new = |name: &str, kind| AttributeProto {
                    name: Some(name.into()),
                    r#type: Some(kind),
                    ..AttributeProto::default()
                };
                match *attribute {
                    Attribute::Int(name, i) => AttributeProto { i: Some(i), ..new(name, attribute_type::INT) },
                    Attribute::Float(name, f) => AttributeProto { f: Some(f), ..new(name, attribute_type::FLOAT) },
                    Attribute::Ints(name, ints) => {
                        AttributeProto { ints: ints.to_vec(), ..new(name, attribute_type::INTS) }
                    }
                }
            })
            .collect();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: outputs.to_vec(),
            name: Some(format!("{}_{}", op_type.to_lowercase(), self.nodes.len())),
            op_type: Some(op_type.into()),
            attribute,
        });
    }

    /// The number of items in the input's rows, a scalar.
    pub fn length(&mut self) -> Value {
        let shape = self.op("Shape", &[&self.items()], &[]);
        let one = self.ints("one", &[], &[1]);
        self.op("Gather", &[&shape, &one], &[Attribute::Int("axis", 0)])
    }

    /// What is added to scores so that padding can never be recommended: minus infinity at index 0.
    fn padding_mask(&mut self, width: usize) -> Value {
        let mut mask = vec![0.0; width];
        mask[0] = f32::NEG_INFINITY;
        self.floats("padding_mask", &[width as i64], &mask)
    }

    /// The whole model, encoded. `scores` `[batch, items + 1]` becomes the output, without padding.
    pub fn finish(mut self, scores: &str, kind: &str, width: usize, sequence_length: usize) -> Vec<u8> {
        let mask = self.padding_mask(width);
        self.node("Add", &[scores, &mask], &[OUTPUT.into()], &[]);
        let about = "score of every item as the next one; index 0 is padding and minus infinity";
        self.close((OUTPUT, width, about), kind, sequence_length)
    }

    /// The part before the items are scored, encoded, and the items' vectors, which stand in the file `beside` it.
    /// `None` where they are no constant.
    pub fn finish_query(
        mut self,
        factors: &Factors,
        beside: &str,
        kind: &str,
        sequence_length: usize,
    ) -> Option<Parts> {
        let table = self.initializers.iter_mut().find(|i| i.name.as_ref() == Some(&factors.vectors))?;
        let (vectors, dim) = (table.raw_data.take()?, usize::try_from(*table.dims.get(1)?).ok()?);
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        table.external_data = vec![
            entry("location", beside.into()),
            entry("offset", "0".into()),
            entry("length", vectors.len().to_string()),
        ];
        table.data_location = Some(data_location::EXTERNAL);
        self.node("Identity", &[&factors.query], &[QUERY.into()], &[]);
        let about = "the score of an item is the inner product with its vector";
        Some(Parts { graph: self.close((QUERY, dim, about), kind, sequence_length), vectors })
    }

    /// The model, encoded, with one output `[batch, columns]`.
    fn close(self, (output, columns, about): (&str, usize, &str), kind: &str, sequence_length: usize) -> Vec<u8> {
        let named = |name: &str| DimensionProto { value: Some(Dimension::Param(name.into())) };
        let fixed = DimensionProto { value: Some(Dimension::Value(columns as i64)) };
        let value = |name: &str, elem_type, dim, doc: &str| ValueInfoProto {
            name: Some(name.into()),
            r#type: Some(TypeProto {
                tensor_type: Some(TensorTypeProto {
                    elem_type: Some(elem_type),
                    shape: Some(TensorShapeProto { dim }),
                }),
            }),
            doc_string: Some(doc.into()),
        };
        let input = value(
            INPUT,
            data_type::INT64,
            vec![named("batch"), named("length")],
            "item indexes, oldest first, padded on the left with 0",
        );
        let mut inputs = vec![input];
        if self.times {
            let when = "when each item was taken, in whole seconds; 0 for padding";
            inputs.push(value(TIMES, data_type::INT64, vec![named("batch"), named("length")], when));
            inputs.push(value(
                NOW,
                data_type::INT64,
                vec![named("batch")],
                "when scores are asked for, in whole seconds",
            ));
        }
        if self.types {
            let which = "which type of event took each item, numbered as the manifest's event_types; 0 is unknown";
            inputs.push(value(TYPES, data_type::INT64, vec![named("batch"), named("length")], which));
        }
        if self.outcome {
            let which = "the type of event that is asked for, numbered in the same way; 0 leaves it to the model";
            inputs.push(value(OUTCOME, data_type::INT64, vec![named("batch")], which));
        }
        let output = value(output, data_type::FLOAT, vec![named("batch"), fixed], about);
        let property = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(PRODUCER.into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            doc_string: Some(format!("next-item model ({kind})")),
            graph: Some(GraphProto {
                node: self.nodes,
                name: Some(kind.into()),
                initializer: self.initializers,
                input: inputs,
                output: vec![output],
            }),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            metadata_props: vec![
                property(SEQUENCE_LENGTH_PROPERTY, sequence_length.to_string()),
                property("rapport.kind", kind.into()),
            ],
        }
        .encode_to_vec()
    }
}

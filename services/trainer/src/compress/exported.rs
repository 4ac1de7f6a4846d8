//! A model of the exporter, opened for a change and closed again.

use std::collections::HashSet;

use prost::Message as _;

use super::Error;
use crate::export::{
    INPUT, OPSET, PRODUCER,
    onnx_messages::{
        AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, attribute_type,
        data_type,
    },
};

/// ONNX metadata property that says how a model was compressed; exported models have none.
pub const COMPRESSION_PROPERTY: &str = "rapport.compression";

/// The exporter's model with its graph taken out.
pub(super) struct Exported {
    model: ModelProto,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    graph: GraphProto,
}

/// A constant matrix, `[rows, columns]`, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

impl Exported {
    /// # Errors
    /// The bytes are no model, or the model holds what the exporter never writes, or it was
    /// compressed before.
    pub(super) fn open(bytes: &[u8]) -> Result<Self, Error> {
        let mut model = ModelProto::decode(bytes)?;
        if model.producer_name.as_deref() != Some(PRODUCER) {
            let producer = model.producer_name.as_deref().unwrap_or("nobody");
            return Err(Error::foreign(format!("it was written by {producer}, not by {PRODUCER}")));
        }
        let compression = model.metadata_props.iter().find(|p| p.key.as_deref() == Some(COMPRESSION_PROPERTY));
        if let Some(property) = compression {
            return Err(Error::AlreadyCompressed { kind: property.value.clone().unwrap_or_default() });
        }
        let opsets: Vec<(&str, i64)> = model
            .opset_import
            .iter()
            .map(|o| (o.domain.as_deref().unwrap_or_default(), o.version.unwrap_or_default()))
            .collect();
        if opsets != [("", OPSET)] {
            return Err(Error::foreign(format!("its operator sets are {opsets:?}; want ONNX's own {OPSET} alone")));
        }
        // A field that the messages here do not know would be lost without a word.
        if model.encode_to_vec() != bytes {
            return Err(Error::foreign("it holds fields that the exporter does not write"));
        }
        let mut graph = model.graph.take().ok_or_else(|| Error::foreign("it has no graph"))?;
        graph.initializer.iter().try_for_each(check_constant)?;
        let (nodes, initializers) = (std::mem::take(&mut graph.node), std::mem::take(&mut graph.initializer));
        Ok(Self { model, nodes, initializers, graph })
    }

    /// The changed model, encoded, which says `kind` of itself.
    pub(super) fn close(mut self, kind: &str) -> Vec<u8> {
        self.model
            .metadata_props
            .push(StringStringEntryProto { key: Some(COMPRESSION_PROPERTY.into()), value: Some(kind.into()) });
        self.graph.node = self.nodes;
        self.graph.initializer = self.initializers;
        self.model.graph = Some(self.graph);
        self.model.encode_to_vec()
    }

    /// The floats of a constant matrix; `None` when `name` is no constant, or no matrix of floats.
    ///
    /// # Errors
    /// A value is not finite: there is no scale that holds an infinity.
    pub(super) fn matrix(&self, name: &str) -> Result<Option<Matrix>, Error> {
        let tensor = self.initializers.iter().find(|t| t.name.as_deref() == Some(name));
        let Some(tensor) = tensor.filter(|tensor| is_float_matrix(tensor)) else { return Ok(None) };
        let values = floats(tensor);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { name: name.into() });
        }
        let columns = tensor.dims.last().map_or(0, |&columns| columns as usize);
        Ok(Some(Matrix { rows: values.len().checked_div(columns).unwrap_or_default(), columns, values }))
    }

    /// Names of the constants that are the weights of a product: a `MatMul`'s second input. Each
    /// once, in the order of the graph.
    pub(super) fn product_weights(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let products = self.nodes.iter().filter(|node| is(node, "MatMul")).filter_map(|node| node.input.get(1));
        products.filter(|name| self.is_float_matrix(name) && seen.insert(name.as_str())).cloned().collect()
    }

    /// Names of the values that hold items of the histories, `[batch, length]`: the input, and what
    /// parts of the model take from it (the newest items, or all of them in another order).
    pub(super) fn item_values(&self) -> HashSet<String> {
        let mut values = HashSet::from([INPUT.to_owned()]);
        for node in self.nodes.iter().filter(|node| is(node, "Slice") || is(node, "GatherElements")) {
            if node.input.first().is_some_and(|from| values.contains(from)) {
                values.extend(node.output.iter().cloned());
            }
        }
        values
    }

    pub(super) fn is_float_matrix(&self, name: &str) -> bool {
        self.initializers.iter().any(|tensor| tensor.name.as_deref() == Some(name) && is_float_matrix(tensor))
    }

    /// The nodes that read `value`.
    pub(super) fn readers(&self, value: &str) -> impl Iterator<Item = &NodeProto> {
        self.nodes.iter().filter(move |node| node.input.iter().any(|input| input == value))
    }

    /// Takes out those of the constants that no node reads any more.
    pub(super) fn drop_unread(&mut self, constants: &[String]) {
        let read: HashSet<&str> = self.nodes.iter().flat_map(|n| &n.input).map(String::as_str).collect();
        self.initializers.retain(|tensor| {
            let name = tensor.name.as_deref().unwrap_or_default();
            read.contains(name) || !constants.iter().any(|constant| constant == name)
        });
    }

    /// Replaces the values of a constant of floats.
    pub(super) fn set_floats(&mut self, name: &str, values: &[f32]) {
        for tensor in self.initializers.iter_mut().filter(|t| t.name.as_deref() == Some(name)) {
            tensor.raw_data = Some(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        }
    }

    pub(super) fn add_constant(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) {
        self.initializers.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(data_type),
            name: Some(name.into()),
            raw_data: Some(raw_data),
            ..TensorProto::default()
        });
    }
}

/// The values of a constant of floats.
pub(super) fn floats(tensor: &TensorProto) -> Vec<f32> {
    let (values, _) = tensor.raw_data.as_deref().unwrap_or_default().as_chunks::<4>();
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn is_float_matrix(tensor: &TensorProto) -> bool {
    tensor.dims.len() == 2 && tensor.data_type == Some(data_type::FLOAT)
}

/// # Errors
/// The constant is of a type that the exporter does not write, or its values do not fill its shape.
fn check_constant(tensor: &TensorProto) -> Result<(), Error> {
    let name = tensor.name.as_deref().unwrap_or_default();
    let size = match tensor.data_type {
        Some(data_type::FLOAT) => size_of::<f32>(),
        Some(data_type::INT64) => size_of::<i64>(),
        other => return Err(Error::foreign(format!("{name} has the type {}", other.unwrap_or_default()))),
    };
    let dims = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok());
    let wanted = dims.into_iter().try_fold(size, |product, dim| product.checked_mul(dim?));
    if wanted != tensor.raw_data.as_ref().map(Vec::len) {
        return Err(Error::foreign(format!("the values of {name} do not fill its shape {:?}", tensor.dims)));
    }
    Ok(())
}

/// Whether the node is such an operation.
pub(super) fn is(node: &NodeProto, op_type: &str) -> bool {
    node.op_type.as_deref() == Some(op_type)
}

/// Whether the node looks up rows of its first input.
pub(super) fn is_row_lookup(node: &NodeProto) -> bool {
    is(node, "Gather") && only_attribute(node, "axis", 0)
}

/// Whether the node has this attribute and no other.
pub(super) fn only_attribute(node: &NodeProto, name: &str, value: i64) -> bool {
    matches!(node.attribute.as_slice(), [a] if a.name.as_deref() == Some(name) && a.i == Some(value))
}

/// A node of the standard operators, named after its only or its first output.
pub(super) fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: outputs.iter().map(|&output| output.into()).collect(),
        name: outputs.first().map(|&output| output.into()),
        op_type: Some(op_type.into()),
        attribute: attributes,
    }
}

/// A node that makes another type of number of its input.
pub(super) fn cast_to_float(input: &str, output: &str) -> NodeProto {
    node("Cast", &[input], &[output], vec![int_attribute("to", i64::from(data_type::FLOAT))])
}

pub(super) fn int_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        i: Some(value),
        r#type: Some(attribute_type::INT),
        ..AttributeProto::default()
    }
}

pub(super) fn ints_attribute(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        ints: values.to_vec(),
        r#type: Some(attribute_type::INTS),
        ..AttributeProto::default()
    }
}

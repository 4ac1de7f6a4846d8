//! Models as ONNX: built message by message (libtorch's C++ API has no exporter), then compared
//! with libtorch in ONNX Runtime.

mod graph;
mod layers;
pub mod onnx_messages;
mod verify;

pub use graph::{Attribute, Factors, Graph, INPUT, NOW, OPSET, PRODUCER, Parts, Value};
pub use verify::{verify, verify_parts};

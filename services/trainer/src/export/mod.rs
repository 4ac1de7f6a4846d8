//! Models as ONNX: built message by message (libtorch's C++ API has no exporter), then compared
//! with libtorch in ONNX Runtime.

mod graph;
mod onnx_messages;
mod ridge;
mod sequence;
mod verify;

pub use graph::OPSET;
pub use ridge::ridge;
pub use sequence::sequence;
pub use verify::verify;

//! ONNX Runtime on threads of its own.

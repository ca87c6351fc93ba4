"""The loader for ONNX models, and inference with the one that is served."""

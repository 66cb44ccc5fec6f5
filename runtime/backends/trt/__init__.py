"""TensorRT and TensorRT-RTX: engines, and what runs them."""

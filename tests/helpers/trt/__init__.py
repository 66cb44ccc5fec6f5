"""TensorRT without a GPU."""

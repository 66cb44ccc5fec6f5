"""The folded core and its gradients as ONNX graphs."""

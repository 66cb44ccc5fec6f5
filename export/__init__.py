"""Workstation side: research checkpoint → folded core → ONNX → artifact, with its parity."""

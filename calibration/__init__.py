"""Device side: unit embeddings for new sessions, fitted with numpy and onnxruntime.

Nothing is built here yet; the package exists so that the import rules that it must obey
(no torch, no onnx, no typer) are already tested.
"""

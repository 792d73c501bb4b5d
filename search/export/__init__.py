"""Trained machines as programs that run without machgraph: plain Python, ``.pt2`` and ONNX."""

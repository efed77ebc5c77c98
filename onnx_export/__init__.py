"""Checkpoints into ONNX bundles. The only package that may import torch."""

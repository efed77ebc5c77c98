"""Rerank bundles of checkpoints: BLIP-2, BLIP, cross-encoders."""

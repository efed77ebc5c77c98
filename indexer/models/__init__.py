"""Encoders: bundles on disk, and the vectors they give."""

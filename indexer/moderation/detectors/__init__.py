"""Detectors, one kind a module: each gives a probability for every item of a block, NaN where it does not apply."""

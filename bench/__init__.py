"""Benchmarks: speed as ratios within one run. `make bench` runs them all; docs/benchmarks.md keeps what they said."""

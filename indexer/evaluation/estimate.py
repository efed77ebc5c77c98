"""A figure that was measured on a sample, and how far off it may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure, and the bounds between which it lies in 95 of 100 samples of the same kind."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As JSON has it."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}

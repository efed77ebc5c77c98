"""Whether reranking helps: the same queries' figures with and without it, and how sure one can be of the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from indexer.evaluation.estimate import Estimate
from indexer.evaluation.measure import Measured, gain_of

LEAST_PAIRS = 30
"""Below that a bootstrap's bounds say little, and nothing is recommended."""
_FIRST = "recall@1"


@dataclass(frozen=True)
class Gain:
    """One direction, with and without reranking."""

    before: Measured
    after: Measured
    gain: dict[str, Estimate]
    """By figure: what reranking adds to it."""

    @property
    def direction(self) -> str:
        """`text_to_image`, ..."""
        return self.before.direction

    @property
    def is_recommended(self) -> bool:
        """Whether the first answer is right more often with it, and that is hardly chance."""
        return len(self.before.queries) >= LEAST_PAIRS and self.gain[_FIRST].low > 0

    @property
    def verdict(self) -> str:
        """What to do, and why, in a sentence."""
        gained = self.gain[_FIRST]
        measured = f"R@1 changes by {gained.value:+.3f} ({gained.low:+.3f} to {gained.high:+.3f})"
        if self.is_recommended:
            return f"recommended: {measured}"
        if len(self.before.queries) < LEAST_PAIRS:
            return f"not recommended: {measured}, and {len(self.before.queries)} pairs are too few to tell"
        why = "it makes answers worse" if gained.high < 0 else "which may be chance" if gained.value > 0 else "no gain"
        return f"not recommended: {measured}: {why}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "pairs": len(self.before.queries),
            "before": {name: each.as_dict() for name, each in self.before.metrics.items()},
            "after": {name: each.as_dict() for name, each in self.after.metrics.items()},
            "gain": {name: each.as_dict() for name, each in self.gain.items()},
            "recommended": self.is_recommended,
            "verdict": self.verdict,
        }


def gains(before: Sequence[Measured], after: Sequence[Measured]) -> list[Gain]:
    """What reranking adds, by direction; those that were not measured with it are left out."""
    with_it = {each.direction: each for each in after}
    return [
        Gain(each, with_it[each.direction], gain_of(_ranks(each), _ranks(with_it[each.direction])))
        for each in before
        if each.direction in with_it
    ]


def _ranks(measured: Measured) -> list[int | None]:
    return [each.rank for each in measured.queries]

"""A filter without the conditions that no point meets, or each: "no texts" where there are none, "photos" among photos.

The engine checks each condition at each point that it comes by; what is nowhere in a payload index, or everywhere, it
can tell at once. So what makes no difference is left out, and where nothing can pass nothing is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import qdrant_edge as edge


@dataclass(slots=True)
class Simplifier:
    """Looks conditions up in a shard, each once for several filters."""

    shard: edge.EdgeShard
    _known: dict[tuple[str, type, Any], tuple[edge.FieldCondition, bool | None]] = field(default_factory=dict)
    """Conditions that all points meet (True), none (False), or some (None)."""

    def still(self) -> bool:
        """Whether what no point met, or each, still is so: writes go on meanwhile."""
        return all(was is None or self._look_up(condition) is was for condition, was in self._known.values())

    def simplified(self, among: edge.Filter | None) -> edge.Filter | None:
        """A filter without the conditions that make no difference; None where it lets everything through.

        Raises:
            NothingPasses: it lets nothing through.
        """
        if among is None:
            return None
        must, must_not = self._demanded(among.must or [])
        must_not += self._forbidden(among.must_not or [])
        if not (must or must_not or among.should or among.min_should):
            return None
        return edge.Filter(
            must=must or None, must_not=must_not or None, should=among.should, min_should=among.min_should
        )

    def _demanded(self, conditions: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What is left to be demanded, and what to be forbidden."""
        must: list[Any] = []
        must_not: list[Any] = []
        for condition in conditions:
            if not isinstance(condition, edge.Filter):
                met = self._met(condition)
                if met is False:
                    raise NothingPasses
                if met is None:
                    must.append(condition)
            elif (inner := self.simplified(condition)) is not None:
                if inner.should or inner.min_should:
                    must.append(inner)
                else:  # one level less to go through
                    must += inner.must or []
                    must_not += inner.must_not or []
        return must, must_not

    def _forbidden(self, conditions: Sequence[Any]) -> list[Any]:
        """What is left to be forbidden."""
        left: list[Any] = []
        for condition in conditions:
            if isinstance(condition, edge.Filter):
                with suppress(NothingPasses):
                    inner = self.simplified(condition)
                    if inner is None:
                        break  # all is forbidden
                    left.append(inner)
            elif (met := self._met(condition)) is None:
                left.append(condition)
            elif met:
                break
        else:
            return left
        raise NothingPasses

    def _met(self, condition: Any) -> bool | None:
        """Whether all points meet a condition, or none; None for some, or where that cannot be told at once."""
        if not isinstance(condition, edge.FieldCondition) or not isinstance(condition.match, edge.MatchValue):
            return None
        value = condition.match.value
        asked = condition.key, type(value), value
        if asked not in self._known:
            self._known[asked] = condition, self._look_up(condition)
        return self._known[asked][1]

    def _look_up(self, condition: edge.FieldCondition) -> bool | None:
        # Estimates cost microseconds, and so does counting exactly where they say none. They count too much, not too
        # little, where points were deleted.
        about = self._count(condition)
        if about == 0 and self._count(condition, exact=True) == 0:
            return False
        if about < self.shard.count(edge.CountRequest(exact=False)):
            return None
        # Exactly as many as there are points: then no other value may be there, and no point without one.
        values = self.shard.facet(edge.FacetRequest(condition.key, 2, False))
        everywhere = len(values) == 1 and self._count(edge.IsEmptyCondition(condition.key)) == 0
        return True if everywhere else None

    def _count(self, condition: edge.FieldCondition | edge.IsEmptyCondition, *, exact: bool = False) -> int:
        return self.shard.count(edge.CountRequest(exact=exact, filter=edge.Filter(must=[condition])))


class NothingPasses(Exception):
    """A filter lets nothing through."""

"""A filter without the conditions that no point meets, which most collections have: "no text" where there are no texts.

The engine checks each condition at each point that it comes by; that a value is nowhere in a payload index it can tell
at once. So what no point meets is left out where it is forbidden, and where it is demanded nothing is searched at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import qdrant_edge as edge


@dataclass(slots=True)
class Absent:
    """What no point of a shard meets, looked up once for several filters."""

    shard: edge.EdgeShard
    _known: dict[tuple[str, type, Any], tuple[edge.FieldCondition, bool]] = field(default_factory=dict)

    def still(self) -> bool:
        """Whether what was absent still is: writes go on meanwhile."""
        return all(self._met_by_none(condition) for condition, absent in self._known.values() if absent)

    def without(self, among: edge.Filter | None) -> edge.Filter | None:
        """The filter without its absent conditions; None where it lets everything through.

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
                if self._is_absent(condition):
                    raise NothingPasses
                must.append(condition)
            elif (inner := self.without(condition)) is not None:
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
            if not isinstance(condition, edge.Filter):
                if not self._is_absent(condition):
                    left.append(condition)
                continue
            with suppress(NothingPasses):
                inner = self.without(condition)
                if inner is None:
                    break  # all is forbidden
                left.append(inner)
        else:
            return left
        raise NothingPasses

    def _is_absent(self, condition: Any) -> bool:
        if not isinstance(condition, edge.FieldCondition) or not isinstance(condition.match, edge.MatchValue):
            return False
        value = condition.match.value
        asked = condition.key, type(value), value
        if asked not in self._known:
            self._known[asked] = condition, self._met_by_none(condition)
        return self._known[asked][1]

    def _met_by_none(self, condition: edge.FieldCondition) -> bool:
        among = edge.Filter(must=[condition])
        # An estimate costs microseconds, and so does counting exactly where it says none.
        return all(self.shard.count(edge.CountRequest(exact=exact, filter=among)) == 0 for exact in (False, True))


class NothingPasses(Exception):
    """A filter lets nothing through."""

"""What a search answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from indexer.items import Record

if TYPE_CHECKING:
    from indexer.store.points import Stored
    from search_api.lane import Ranked


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One result."""

    id: str
    """As the caller named the item, or its own."""
    score: float | None
    """Cosine with the query; None where there was none."""
    relevance: float | None
    """The probability of a match; None where nothing can be said."""
    record: Record
    payload: dict[str, Any]
    explanation: list[dict[str, Any]] | None = None
    rerank: dict[str, Any] | None = None
    """What reranking made of it, where that was to be explained."""
    members: list[SearchResult] = field(default_factory=list)
    """The best of its group besides itself."""

    @property
    def source(self) -> str:
        """Where the item was first seen."""
        return self.record.locations[0].source

    def as_dict(self, *, for_moderator: bool = False) -> dict[str, Any]:
        """As it is answered in JSON.

        `text` is there for texts and pages that have one; `seconds`, `page` and `parent` for frames and pages;
        `verdict` for moderators, of what was judged.
        """
        answer: dict[str, Any] = {
            "id": self.id,
            "score": None if self.score is None else round(self.score, 6),
            "relevance": None if self.relevance is None else round(self.relevance, 4),
            "kind": self.record.kind.value,
            "source": self.source,
            "payload": self.payload,
        }
        for name in ("text", "seconds", "page", "parent"):
            if (value := getattr(self.record, name)) is not None:
                answer[name] = value
        if self.explanation is not None:
            answer["explain"] = self.explanation
        if self.rerank is not None:
            answer["rerank"] = self.rerank
        if for_moderator and self.record.verdict is not None:
            answer["verdict"] = self.record.verdict
        if self.members:
            answer["members"] = [member.as_dict(for_moderator=for_moderator) for member in self.members]
        return answer


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a search found, best first, and how."""

    results: list[SearchResult]
    took_ms: float
    model: str
    fingerprint: str
    exact: bool = False
    devices: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds of each stage."""
    relevance_from: dict[str, str] = field(default_factory=dict)
    """What relevance rests on, by direction: pairs it was fitted on, the model, or the collection's background."""
    warnings: list[str] = field(default_factory=list)
    cursor: str | None = None
    reranked: int | None = None
    """How many of the best results were compared with the query's texts; None where that was not asked for."""

    @property
    def reranking(self) -> str | None:
        """How many were reranked and how long that took, for people; None where none was."""
        return f"reranked {self.reranked} in {self.stages.get('rerank', 0.0):.0f} ms" if self.reranked else None

    def as_dict(self, *, for_moderator: bool = False) -> dict[str, Any]:
        """As it is answered in JSON."""
        answer = {
            "results": [result.as_dict(for_moderator=for_moderator) for result in self.results],
            "took_ms": round(self.took_ms, 2),
            "stages": {stage: round(ms, 2) for stage, ms in self.stages.items()},
            "model": self.model,
            "fingerprint": self.fingerprint,
            "devices": self.devices,
            "exact": self.exact,
            "relevance_from": self.relevance_from,
            "warnings": self.warnings,
            "cursor": self.cursor,
        }
        return answer if self.reranked is None else {**answer, "reranked": self.reranked}


def row_of(ranked: Ranked) -> dict[str, Any]:
    """What a list that is kept for its next pages holds of a result."""
    row: dict[str, Any] = {"id": ranked.hit.id, "score": ranked.hit.score, "relevance": ranked.relevance}
    said = {"explain": ranked.explanation, "rerank": ranked.rerank}
    return row | {name: value for name, value in said.items() if value is not None}


def result_of(item: Stored, row: dict[str, Any], members: Sequence[SearchResult] = ()) -> SearchResult:
    """An item as a result, with what its row says of it; in a walk that is nothing."""
    return SearchResult(
        id=item.record.name or item.id,
        score=row.get("score"),
        relevance=row.get("relevance"),
        record=item.record,
        payload=item.payload,
        explanation=row.get("explain"),
        rerank=row.get("rerank"),
        members=list(members),
    )

"""What a search answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from indexer.items import Record


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

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON.

        `text` is there for texts and pages that have one; `seconds`, `page` and `parent` for frames and pages.
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
        if self.members:
            answer["members"] = [member.as_dict() for member in self.members]
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

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON."""
        answer = {
            "results": [result.as_dict() for result in self.results],
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

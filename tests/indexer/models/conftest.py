"""What several tests of models watch."""

from typing import Any

import pytest

from indexer.models.sessions import Graph


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Notes the feed of every run of a graph."""
    fed: list[dict[str, Any]] = []
    real = Graph.compute

    def noted(graph: Graph, feed: Any) -> Any:
        fed.append(dict(feed))
        return real(graph, feed)

    monkeypatch.setattr(Graph, "compute", noted)
    return fed

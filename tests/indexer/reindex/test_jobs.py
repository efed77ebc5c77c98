"""A job that runs while its collection's model is changed goes on with the new one."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from indexer.errors import ModelMismatch
from indexer.settings import Settings
from indexer.store import Collection, open_store
from indexer.store.collection import ITEMS_OF, SUCCESSOR
from workers import embedding
from workers.shard import Outcome, Span


def test_a_shard_that_was_refused_by_the_old_collection_is_indexed_into_the_new_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(settings) as store:
        store.create("media", "old", "a" * 16, 4)
        new = store.create("media__b", "new", "b" * 16, 4, metadata={ITEMS_OF: "media"})
        asked: list[str] = []

        def index(_runtime: Any, collection: Collection, _part: Any, _name: str) -> Outcome:
            asked.append(collection.physical)
            if collection.physical == "media":
                store.note(collection, SUCCESSOR, new.physical)
                raise ModelMismatch("It has changed its model.")
            return Outcome(1, 0, 0, [])

        monkeypatch.setattr(embedding, "_index", index)
        runtime = SimpleNamespace(store=store, stopping=threading.Event(), jobs=SimpleNamespace(note=lambda *_: None))
        job = SimpleNamespace(id="job", collection="media")
        items = [{"source": "a.jpg"}]
        outcome = embedding._patiently(runtime, job, 0, items, Span(begin=0, end=1))  # type: ignore[arg-type]
        assert (asked, outcome.indexed, outcome.failures) == (["media", "media__b"], 1, [])

        def refuse(*_: Any) -> Outcome:
            raise ModelMismatch("It is not installed here.")

        monkeypatch.setattr(embedding, "_index", refuse)  # and where nothing changed, it is the items' failure
        failed = embedding._patiently(runtime, job, 0, items, Span(begin=0, end=1))  # type: ignore[arg-type]
        assert [each["code"] for each in failed.failures] == ["model_mismatch"]

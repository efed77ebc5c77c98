"""Labels in the payload: written once, from vectors alone; filters and facets find them; a changed set is written anew."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import models

from indexer.classify import tagging
from indexer.classify.classifier import Classifier
from indexer.classify.labels import LabelSet, parse_label_set
from indexer.classify.stored import MOST_SETS, delete_label_set, label_set, label_sets, put_label_set
from indexer.classify.tagging import Tagged, tag_collection, tag_ids
from indexer.errors import InvalidRequest, LabelSetNotFound
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import Collection, Store, open_store
from tests.bundles import COLOURS, picture


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[Store]:
    """One index process for all of these tests."""
    with open_store(Settings(data=tmp_path_factory.mktemp("tagging") / "data", model=str(colours))) as store:
        yield store


@pytest.fixture
def collection(store: Store, settings: Settings, encoder: Encoder, tmp_path: Path) -> Iterator[Collection]:
    for colour in COLOURS:
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    (tmp_path / "words.jsonl").write_text('{"text": "all is red", "payload": {"tag": "warm"}}\n')
    made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
    sources = [str(tmp_path / f"{colour}.png") for colour in COLOURS] + [str(tmp_path / "words.jsonl")]
    assert ingest(sources, collection=made, encoder=encoder, settings=settings).failed == 0
    yield made
    store.delete("media")


def labels_of(*names: str, **more: object) -> LabelSet:
    return parse_label_set({"name": "colour", "labels": list(names), **more})


def written(collection: Collection, field: str = "colour") -> dict[str, list[str]]:
    return {
        Path(item.record.locations[0].source).stem: item.payload["labels"][field]
        for item in collection.scan()
        if item.record.text is None
    }


def test_filters_and_facets_find_what_was_written(store: Store, collection: Collection, encoder: Encoder) -> None:
    before = {item.id: item for item in collection.scan()}
    done = tag_collection(store, collection, Classifier(encoder, labels_of("red", "green", "blue")))
    assert (done.written, done.unchanged, done.failures) == (len(COLOURS) + 1, 0, [])
    found = written(collection)
    assert {colour: found[colour] for colour in ("red", "green", "blue")} == {c: [c] for c in ("red", "green", "blue")}
    assert found["black"] == found["white"] == []
    there = store.get("media")
    assert there.fields["labels.colour"] == "keyword"
    assert there.facet("labels.colour")["red"] == 2  # the picture and the text
    red = models.FieldCondition(key="labels.colour", match=models.MatchValue(value="red"))
    assert there.count(models.Filter(must=[red])) == 2
    for item in there.scan():  # what was there is there, and nobody touched the vectors
        assert item.record == before[item.id].record
        assert {key: value for key, value in item.payload.items() if not key.startswith("labels")} == before[
            item.id
        ].payload
    assert len(there.vectors(list(before))) == len(before)


def test_again_is_no_change_and_a_changed_set_is_written_anew(
    store: Store, collection: Collection, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag_collection(store, collection, Classifier(encoder, labels_of("red", "green")))
    writes: list[int] = []
    overwrite = Collection.overwrite

    def counted(self: Collection, items: list[object]) -> None:
        writes.append(len(items))
        overwrite(self, items)  # type: ignore[arg-type]

    monkeypatch.setattr(Collection, "overwrite", counted)
    done = tag_collection(store, collection, Classifier(encoder, labels_of("red", "green")))
    assert (done.written, done.unchanged, sum(writes)) == (0, len(COLOURS) + 1, 0)
    done = tag_collection(store, collection, Classifier(encoder, labels_of("red", "green", "blue")))
    assert done.written == sum(writes) == len(COLOURS) + 1
    assert written(collection)["blue"] == ["blue"]


def test_a_run_that_was_cut_short_goes_on_where_it_was(
    store: Store, collection: Collection, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagging, "BATCH", 3)
    classifier = Classifier(encoder, labels_of("red"))

    def stop(done: Tagged) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_collection(store, collection, classifier, progress=stop)
    seen: list[int] = []
    done = tag_collection(store, collection, classifier, progress=lambda done: seen.append(done.total))
    assert (done.written, done.unchanged) == (len(COLOURS) + 1 - 3, 3)
    assert seen == [3, 6, 8]


def test_several_sets_live_beside_each_other(store: Store, collection: Collection, encoder: Encoder) -> None:
    tag_collection(store, collection, Classifier(encoder, labels_of("red")))
    other = parse_label_set({"name": "light", "labels": ["white", "yellow"], "multi": True, "field": "tags_auto"})
    tag_collection(store, collection, Classifier(encoder, other))
    assert written(collection)["red"] == ["red"]
    by_name = {Path(item.record.locations[0].source).stem: item.payload for item in collection.scan()}
    assert by_name["white"]["tags_auto"] == ["white", "yellow"]
    assert by_name["green"]["tags_auto"] == []
    assert by_name["green"]["labels"] == {"colour": []}
    assert set(by_name["white"]["labels_version"]) == {"colour", "light"}


def test_items_whose_own_field_is_in_the_way_are_failures(
    store: Store, collection: Collection, encoder: Encoder
) -> None:
    item = next(iter(collection.scan()))
    collection.set_payload(item.id, {"labels": ["mine"]})
    done = tag_collection(store, collection, Classifier(encoder, labels_of("red")))
    assert (done.written, len(done.failures)) == (len(COLOURS), 1)
    assert (done.failures[0]["id"], done.failures[0]["code"]) == (item.id, "invalid_request")
    stored = collection.get(item.id)
    assert stored is not None
    assert stored.payload == {"labels": ["mine"]}


def test_by_ids_and_what_is_gone_is_no_failure(store: Store, collection: Collection, encoder: Encoder) -> None:
    ids = [item.id for item in collection.scan()][:3]
    classifier = Classifier(encoder, labels_of("red"))
    done = tag_ids(collection, classifier, [*ids, "00000000-0000-0000-0000-000000000000"])
    assert (done.written, done.unchanged) == (3, 1)
    assert tag_ids(collection, classifier, ids).unchanged == 3


def test_a_field_of_another_type_is_refused_before_anything_is_written(
    store: Store, collection: Collection, encoder: Encoder
) -> None:
    there = store.declare("media", {"size_class": "integer"})
    with pytest.raises(InvalidRequest):
        tag_collection(store, there, Classifier(encoder, labels_of("red", field="size_class")))
    assert all("labels_version" not in item.payload for item in collection.scan())


def test_sets_are_kept_with_the_collection_and_versioned(store: Store, collection: Collection) -> None:
    def there() -> Collection:
        return store.get("media")

    assert label_sets(there()) == {}
    assert put_label_set(store, there(), labels_of("red")).version == 1
    assert put_label_set(store, there(), labels_of("red")).version == 1
    assert put_label_set(store, there(), labels_of("red", "blue")).version == 2
    assert label_set(there(), "colour").labels == labels_of("red", "blue")
    assert there().model == collection.model
    with pytest.raises(InvalidRequest, match="already"):
        put_label_set(store, there(), labels_of("red", field="elsewhere"))
    with pytest.raises(InvalidRequest, match="written to"):
        put_label_set(store, there(), parse_label_set({"name": "x", "labels": ["a"], "field": "labels.colour.x"}))
    put_label_set(store, there(), parse_label_set({"name": "second", "labels": ["a"]}))
    delete_label_set(store, there(), "colour")
    assert list(label_sets(there())) == ["second"]
    with pytest.raises(LabelSetNotFound):
        label_set(there(), "colour")
    for number in range(MOST_SETS - 1):
        put_label_set(store, there(), parse_label_set({"name": f"s{number}", "labels": ["a"]}))
    with pytest.raises(InvalidRequest, match="no more than"):
        put_label_set(store, there(), labels_of("red"))


def test_metadata_of_crosslens_own_cannot_be_annotated(store: Store, collection: Collection) -> None:
    with pytest.raises(InvalidRequest):
        store.annotate("media", "fingerprint", "other")
    store.annotate("media", "note", {"a": [1]})
    assert store.get("media").metadata["note"] == {"a": [1]}
    assert json.dumps(store.get("media").metadata)

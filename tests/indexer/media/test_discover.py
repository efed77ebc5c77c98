"""Discovery: what is a candidate, what is a failure, and what is passed over."""

import json
import os
from pathlib import Path

import pytest

from indexer.errors import MediaGone, SourceNotFound
from indexer.items import Location, Record, now, sha256_hex
from indexer.media.discover import Candidate, discover
from indexer.media.originals import Originals
from indexer.media.sources import path_of, source_of
from indexer.report import Failure, Report
from indexer.settings import Settings
from tests.hostile import make_hostile_folder, photo


def found(*sources: Path | str, beneath: Path | None = None) -> tuple[list[Candidate], list[Failure], Report]:
    report = Report("c", "m")
    each = list(discover([str(source) for source in sources], report=report, beneath=beneath))
    return [e for e in each if isinstance(e, Candidate)], [e for e in each if isinstance(e, Failure)], report


def test_a_folder_gives_images_by_name_or_content_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"not one")
    (tmp_path / "a").write_bytes(photo(1))
    (tmp_path / "notes.txt").write_text("a caption")
    (tmp_path / ".hidden.jpg").write_bytes(photo(2))
    candidates, failures, report = found(tmp_path)
    assert [Path(c.source).name for c in candidates] == ["a", "b.jpg"]
    assert failures == []
    assert report.passed_over == 1


def test_hostile_files_are_told_by_code_or_left_to_decoding(tmp_path: Path) -> None:
    expected = make_hostile_folder(tmp_path, good=4)
    candidates, failures, _ = found(tmp_path)
    told = {failure.source: failure.error.code for failure in failures}
    assert told == {source: code for source, code in expected.items() if code in {"symlink_loop", "unreadable"}}
    assert len(candidates) == 4 + len(expected) - len(told)


def test_one_file_has_one_source_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1))
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    sources = {found(name)[0][0].source for name in ("a.jpg", "./a.jpg", str(tmp_path / "x" / ".." / "a.jpg"), "*.jpg")}
    assert sources == {str(tmp_path / "a.jpg")}


def test_a_name_that_is_no_text_survives_as_a_source() -> None:
    path = Path(os.fsdecode(b"/photos/\xff\xfe 100%.jpg"))
    source = source_of(path)
    assert json.loads(json.dumps(source)).encode().decode() == source
    assert path_of(source) == path


def test_what_names_nothing_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for missing in ("nope.jpg", "*.nope"):
        with pytest.raises(SourceNotFound):
            discover([str(tmp_path), str(tmp_path / missing)], report=Report("c", "m"))


def test_captions_and_items_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(photo(1))
    captions = tmp_path / "captions.txt"
    captions.write_bytes("\ufeffa cat\n\n  a dog  \n".encode() + b"\xff\n")
    candidates, failures, _ = found(captions)
    assert [(c.text, c.source) for c in candidates] == [("a cat", f"{captions}:1"), ("a dog", f"{captions}:3")]
    assert [f.source for f in failures] == [f"{captions}:4"]

    items = tmp_path / "items.jsonl"
    lines = [
        {"file": "p.jpg", "payload": {"tag": "x"}, "id": "one"},
        {"text": "words"},
        {"text": "a", "file": "p.jpg"},
        {"text": "a", "payload": {"crosslens": 1}},
        {"text": ""},
        {"file": "gone.jpg"},
        {"text": "a", "wrong": 1},
        [],
    ]
    items.write_text("\n".join(map(json.dumps, lines)) + "\n{nonsense\n" + '{"text": "a", "payload": {"n": NaN}}')
    candidates, failures, _ = found(items)
    assert [(c.source, c.id, c.payload) for c in candidates] == [
        (str(tmp_path / "p.jpg"), "one", {"tag": "x"}),
        (f"{items}:2", None, {}),
    ]
    assert [f.error.code for f in failures] == ["invalid_text_source"] * 3 + ["unreadable"] + [
        "invalid_text_source"
    ] * 4


def test_the_data_folder_is_not_indexed(tmp_path: Path) -> None:
    data = tmp_path / "crosslens-data"
    (data / "uploads").mkdir(parents=True)
    (data / "uploads" / "x.jpg").write_bytes(photo(1))
    (tmp_path / "y.jpg").write_bytes(photo(2))
    assert [Path(c.source).name for c in found(tmp_path, beneath=data)[0]] == ["y.jpg"]


def test_an_original_is_given_only_while_it_is_the_same(tmp_path: Path) -> None:
    originals = Originals.of(Settings(data=tmp_path, max_bytes=10**6))
    data = photo(1)
    source = originals.put(data)
    assert originals.put(data) == source
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    places = [Location(source=str(file)), Location(source=source)]
    record = Record(
        kind="image",
        sha256=sha256_hex(data),
        locations=places,
        bytes=len(data),
        media_type="image/jpeg",
        added_at=now(),
    )
    assert originals.read(record) == data
    file.write_bytes(b"changed")
    assert originals.read(record) == data
    originals.discard([record.sha256])
    with pytest.raises(MediaGone):
        originals.read(record)

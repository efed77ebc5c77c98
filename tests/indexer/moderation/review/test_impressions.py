"""Counting what visitors were shown."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from indexer.moderation.review import impressions
from indexer.moderation.review.impressions import EVERY, Impressions


class Clock:
    """Seconds, as the test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_counts_are_written_every_few_seconds_and_shared(tmp_path: Path) -> None:
    clock = Clock()
    one, other = Impressions(tmp_path, clock=clock), Impressions(tmp_path, clock=clock)
    assert one.of("media", ["a"]) == {}
    one.add("media", ["a", "b"])
    assert other.of("media", ["a", "b"]) == {}
    clock.now = EVERY
    one.add("media", ["a"])
    other.add("media", ["a", "c"])
    other.add("else", ["a"])
    assert other.of("media", ["a", "b", "never"]) == {"a": 3, "b": 1}
    other.write()
    assert one.of("media", ["a", "c"]) == {"a": 3, "c": 1}
    assert one.of("else", ["a"]) == {"a": 1}
    one.add("media", ["b"])
    one.forget("media")
    one.write()
    assert one.of("media", ["a", "b", "c"]) == {}
    assert one.of("else", ["a"]) == {"a": 1}


def test_what_cannot_be_written_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Impressions(tmp_path)
    (tmp_path / "moderation").write_text("in the way")
    with capture_logs() as logs:
        counts.add("media", ["a"])
        counts.write()
    assert logs[0]["event"] == "impressions not counted"
    (tmp_path / "moderation").unlink()
    counts.add("media", ["a"])
    counts.write()
    assert counts.of("media", ["a"]) == {"a": 2}
    monkeypatch.setattr(impressions, "_MOST", 0)
    (tmp_path / "moderation" / "impressions.sqlite").unlink()
    for left in (tmp_path / "moderation").iterdir():
        left.unlink()
    (tmp_path / "moderation").rmdir()
    (tmp_path / "moderation").write_text("in the way again")
    counts.add("media", ["a"])
    counts.write()
    (tmp_path / "moderation").unlink()
    counts.write()
    assert counts.of("media", ["a"]) == {}

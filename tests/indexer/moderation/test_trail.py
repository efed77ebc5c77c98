"""The audit trail: an unbroken chain whatever processes write and crash, and every change to it is seen."""

import csv
import io
import json
import multiprocessing
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import InvalidName, InvalidRequest, TrailEntryNotFound
from indexer.moderation.trail import LONGEST_NOTE, Draft, Fault, Head, Trail, What
from indexer.moderation.trail_export import COLUMNS, export

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


def draft(item: str | None = "a", who: str = "alice", what: What = What.APPROVE, note: str = "") -> Draft:
    return Draft(who, what, item, {"action": "flag"}, {"action": "allow"}, note)


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path, "media", clock=Clock())


def path_of(trail: Trail) -> Path:
    return trail.folder / "trail.jsonl"


def lines_of(trail: Trail) -> list[bytes]:
    return path_of(trail).read_bytes().splitlines(keepends=True)


def filled(trail: Trail, count: int = 6) -> Trail:
    for number in range(count):
        trail.append([draft(f"item {number}")])
    return trail


def test_entries_are_numbered_dated_and_chained(trail: Trail) -> None:
    first, second = trail.append([draft("a"), draft("b", note="line\nbreak, \u2028 and ü")])
    (third,) = trail.append([draft(None, "bob", What.POLICY)])
    assert [each.number for each in (first, second, third)] == [1, 2, 3]
    assert first.at == second.at == "2026-03-01T00:01:00.000000Z" < third.at
    assert list(trail.entries()) == [first, second, third] == list(trail.latest())[::-1]
    assert len(lines_of(trail)) == 3
    assert trail.check() is None
    assert trail.append([]) == []


def test_it_is_for_its_user_alone(trail: Trail) -> None:
    filled(trail, 1)
    assert stat.S_IMODE(path_of(trail).stat().st_mode) == 0o600
    assert stat.S_IMODE(trail.folder.stat().st_mode) == 0o700


def test_a_link_in_its_place_is_not_followed(trail: Trail, tmp_path: Path) -> None:
    trail.folder.mkdir(parents=True)
    path_of(trail).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        filled(trail, 1)
    assert not (tmp_path / "elsewhere").exists()


def test_a_collection_cannot_name_another_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidName):
        Trail(tmp_path, "../media")


@pytest.mark.parametrize(
    "given",
    [
        draft(who=""),
        draft(who="a\nb"),
        draft(who="a" * 201),
        draft(note="x" * (LONGEST_NOTE + 1)),
        draft(note="\ud800"),
    ],
)
def test_what_is_no_name_or_note_is_refused_and_nothing_written(trail: Trail, given: Draft) -> None:
    with pytest.raises(InvalidRequest):
        trail.append([draft(), given])
    assert list(trail.entries()) == []
    assert trail.check() is None


def test_entries_are_filtered(trail: Trail) -> None:
    for number in range(12):
        trail.append([draft("even" if number % 2 == 0 else "odd", "bob" if number % 3 == 0 else "alice")])

    def numbers(**filters: object) -> list[int]:
        return [each.number for each in trail.entries(**filters)]  # type: ignore[arg-type]

    at = START + timedelta(minutes=4)
    assert numbers(since=at) == list(range(4, 13)), "included"
    assert numbers(to=at) == [1, 2, 3], "not included"
    assert numbers(since=at.astimezone(tz=None), to=at + timedelta(minutes=2)) == [4, 5]
    assert numbers(who="bob") == [1, 4, 7, 10]
    assert numbers(item="odd", who="bob") == [4, 10]
    assert numbers(after=10) == [11, 12]


def test_entries_by_number(trail: Trail) -> None:
    filled(trail)
    assert [each.number for each in trail.numbered([5, 2])] == [5, 2]
    with pytest.raises(TrailEntryNotFound) as error:
        trail.numbered([3, 7, 0])
    assert error.value.details == {"numbers": [0, 7]}


def _line(trail: Trail, number: int) -> dict[str, object]:
    return json.loads(lines_of(trail)[number - 1])


@pytest.mark.parametrize("number", range(1, 7))
def test_the_first_altered_line_is_named(trail: Trail, number: int) -> None:
    lines = lines_of(filled(trail))
    lines[number - 1] = lines[number - 1].replace(b"alice", b"malet")
    path_of(trail).write_bytes(b"".join(lines))
    fault = trail.check()
    assert fault is not None and fault.number == number


@pytest.mark.parametrize("number", range(1, 7))
def test_the_first_missing_line_is_named(trail: Trail, number: int) -> None:
    lines = lines_of(filled(trail))
    del lines[number - 1 : number + 1]
    path_of(trail).write_bytes(b"".join(lines))
    fault = trail.check()
    assert fault is not None and fault.number == number


def test_swapped_repeated_and_foreign_lines_are_seen(trail: Trail) -> None:
    lines = lines_of(filled(trail))
    for changed in (
        [*lines[:2], lines[3], lines[2], *lines[4:]],
        [*lines[:3], lines[2], *lines[3:]],
        [*lines[:3], b"nothing\n", *lines[3:]],
        [*lines[:3], b"\n", *lines[3:]],
        [],
    ):
        path_of(trail).write_bytes(b"".join(changed))
        assert trail.check() is not None


def test_a_chain_that_was_written_anew_differs_from_the_head_that_was_noted(trail: Trail, tmp_path: Path) -> None:
    filled(trail)
    known = trail.head
    assert known.number == 6
    path_of(trail).unlink()
    (trail.folder / "head.json").unlink()
    forged = Trail(tmp_path, "media")
    for number in range(6):
        forged.append([draft(f"item {number}", "mallory")])
    assert trail.check() is None
    assert trail.check(known) == Fault(6, "The entry is not what was noted of it.")
    forged.append([draft()])
    assert trail.check(Head(9, "0" * 64)) == Fault(8, "Entries are missing at the end, up to number 9.")


def test_writing_on_heals_nothing_that_was_altered_or_cut(trail: Trail) -> None:
    lines = lines_of(filled(trail))
    path_of(trail).write_bytes(b"".join(lines[:4]))
    (entry,) = trail.append([draft()])
    assert entry.number == 7, "numbers are not used again"
    assert trail.check() == Fault(5, "Entries are missing, up to number 6.")

    path_of(trail).write_bytes(b"".join([*lines[:5], lines[5].replace(b"alice", b"malet")]))
    (trail.folder / "head.json").write_text(json.dumps({"number": 6, "hash": entry.previous}))
    trail.append([draft()])
    fault = trail.check()
    assert fault is not None and fault.number == 6


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_half_a_line_is_cut_off_and_the_chain_goes_on(trail: Trail, cut: int) -> None:
    filled(trail, 3)
    whole = path_of(trail).read_bytes()
    other = Trail(trail.folder.parent.parent, "other")
    other.append([draft()] * 4)
    path_of(trail).write_bytes(whole + lines_of(other)[3][:-cut])
    assert [each.number for each in trail.entries()] == [1, 2, 3]
    assert [each.number for each in trail.latest()] == [3, 2, 1]
    assert trail.check() is None
    (entry,) = trail.append([draft("next")])
    assert entry.number == 4
    assert path_of(trail).read_bytes().startswith(whole)
    assert trail.check() is None


def test_a_crash_before_the_head_was_noted_loses_nothing(trail: Trail) -> None:
    filled(trail, 3)
    head = (trail.folder / "head.json").read_bytes()
    filled(trail, 2)
    (trail.folder / "head.json").write_bytes(head)
    (entry,) = trail.append([draft()])
    assert entry.number == 6
    assert trail.check() is None


def _write(data: Path, who: str) -> None:
    trail = Trail(data, "media")
    for number in range(20):
        trail.append([draft(f"{number}", who), draft(f"{number}", who)])


def test_processes_take_turns(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, who)) for who in ("alice", "bob", "carol")]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
        assert each.exitcode == 0
    trail = Trail(tmp_path, "media")
    entries = list(trail.entries())
    assert [each.number for each in entries] == list(range(1, 121))
    assert trail.check() is None
    for who in ("alice", "bob", "carol"):
        assert [each.item for each in entries if each.who == who] == [str(n) for n in range(20) for _ in range(2)]
    assert all(one.who == other.who for one, other in zip(entries[::2], entries[1::2], strict=True)), "all together"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.integers(0, 9000)), max_size=12), st.data())
def test_any_notes_come_back_from_either_end(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[str, int]], data: st.DataObject
) -> None:
    trail = Trail(tmp_path_factory.mktemp("trail"), "media")
    notes = [text.encode("utf-8", "ignore").decode() for text, _ in given]
    for note, (_, size) in zip(notes, given, strict=True):
        trail.append([Draft("who", What.APPROVE, "i", {"pad": "x" * size}, None, note)])
    assert [each.note for each in trail.entries()] == notes
    assert [each.note for each in trail.latest()] == notes[::-1]
    assert "".join(export(trail.entries())).encode() == (path_of(trail).read_bytes() if notes else b"")
    assert trail.check() is None
    if not notes:
        return
    content = bytearray(path_of(trail).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path_of(trail).write_bytes(content)
    fault = trail.check()
    changed = content[:place].count(b"\n") + 1
    before = max(1, changed - 1)  # of the hash that an entry has of the one before, either may be altered
    within = content.rfind(b"previous", 0, place) > content.rfind(b"\n", 0, place)
    assert fault is not None and fault.number in ((before, changed) if within else (changed,)), "any byte"


def test_csv_has_no_formula(trail: Trail) -> None:
    notes = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1+1", 'fine, "quoted"\nand more', "'", "1-1"]
    for note in notes:
        trail.append([draft(who="=cmd|' /C calc'!A0", note=note)])
    rows = list(csv.DictReader(io.StringIO("".join(export(trail.entries(), "csv")), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [row["note"] for row in rows] == [*(f"'{note}" for note in notes[:8]), *notes[8:]]
    assert {row["who"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert [int(row["number"]) for row in rows] == list(range(1, 12))
    assert json.loads(rows[0]["after"]) == {"action": "allow"}
    for row in rows:
        assert not any(cell.lstrip(" ").startswith(tuple("=+-@\t\r")) for cell in row.values())


def test_export_streams(trail: Trail) -> None:
    filled(trail, 50)
    pieces = export(trail.entries(), "csv")
    next(pieces)
    os.truncate(path_of(trail), len(b"".join(lines_of(trail)[:10])))
    assert len(list(pieces)) < 50, "what is not asked for is not read"

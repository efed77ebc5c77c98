"""The audit log: what is written, by whom it can be read, and how long it stays."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from search_api.access import audit
from search_api.access.audit import AuditLog, Entry
from tests.search_api.access.conftest import START, Clock


def entry(key: str | None = "a", path: str = "/v1/x", status: int = 201) -> Entry:
    return Entry(key, "name", "127.0.0.1", "POST", path, "media", status, "request")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> AuditLog:
    return AuditLog(tmp_path / "audit", days=3, now=clock)


def test_lines_are_appended_to_a_file_a_day_for_this_user_alone(log: AuditLog, clock: Clock, tmp_path: Path) -> None:
    log.write(entry(path="/v1/keys/clk_0123456789ab_" + "s" * 43))
    log.write(entry(path="/v1/" + "x" * 10_000))
    clock.move(days=1)
    log.write(entry())
    files = sorted((tmp_path / "audit").iterdir())
    assert [file.name for file in files] == ["2027-01-31.jsonl", "2027-02-01.jsonl"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    first, second = (json.loads(line) for line in files[0].read_text().splitlines())
    assert first == {
        "when": "2027-01-31T12:00:00.000000Z", "key": "a", "name": "name", "address": "127.0.0.1", "method": "POST",
        "path": "/v1/keys/clk_0123456789ab_...", "collection": "media", "status": 201, "request": "request",
        "unlogged": 0,
    }  # fmt: skip
    assert len(second["path"]) == 1000


def test_it_is_read_newest_first_in_pages(log: AuditLog, clock: Clock) -> None:
    for number in range(500):
        log.write(entry(key="ab"[number % 2], path=f"/{number}"))
        clock.move(minutes=7)
    seen: list[str] = []
    to: datetime | None = None
    for _ in range(100):
        page = log.read(to=to, limit=33)
        assert len(page.entries) <= 33
        seen += [each["path"] for each in page.entries]
        if page.next is None:
            break
        to = datetime.fromisoformat(page.next)
    # Two days and the current one are kept besides the oldest.
    assert seen == [f"/{number}" for number in range(499, 499 - len(seen), -1)]
    assert len(seen) == 500
    of_one = log.read(key="a", limit=1000).entries
    assert [each["path"] for each in of_one] == [f"/{number}" for number in range(498, -1, -2)]
    since, until = START + timedelta(minutes=70), START + timedelta(minutes=140)
    between = log.read(since=since, to=until).entries
    assert [each["path"] for each in between] == [f"/{number}" for number in range(19, 9, -1)]


def test_old_days_go(log: AuditLog, clock: Clock, tmp_path: Path) -> None:
    for _ in range(6):
        log.write(entry())
        clock.move(days=1)
    assert sorted(path.stem for path in (tmp_path / "audit").iterdir()) == [
        "2027-02-02", "2027-02-03", "2027-02-04", "2027-02-05",
    ]  # fmt: skip


def test_half_a_line_hides_no_other(log: AuditLog, tmp_path: Path) -> None:
    log.write(entry(path="/1"))
    with (tmp_path / "audit" / "2027-01-31.jsonl").open("ab") as file:
        file.write(b'{"when": "20\n[]\n{"key": 1}\n\xff\xfe\n\n')
    log.write(entry(path="/2"))
    assert [each["path"] for each in log.read().entries] == ["/2", "/1"]


def test_a_question_reads_so_much_at_most_and_can_go_on(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST_BYTES", 5_000)
    monkeypatch.setattr(audit, "_BLOCK", 300)
    log.write(entry(key="rare"))
    for _ in range(200):
        log.write(entry())
    found, to, pages = [], None, 0
    while True:
        page = log.read(key="rare", to=to)
        found += page.entries
        pages += 1
        if page.next is None:
            break
        to = datetime.fromisoformat(page.next)
    assert [each["key"] for each in found] == ["rare"]
    assert pages > 5


def test_threads_and_processes_write_whole_lines(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path, days=9) for _ in range(2)]  # as two processes would: without a common lock
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 2].write(entry(path="/" + "x" * 900)), range(400)))
    assert len(logs[0].read(limit=1000).entries) == 400
    assert not logs[0].read(to=datetime(2020, 1, 1, tzinfo=UTC)).entries


def test_a_disk_that_refuses_stops_no_request(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")
    log = AuditLog(tmp_path / "audit", days=9)
    log.write(entry())
    assert log.read().entries == []


def test_a_link_is_not_followed(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "audit" / "2027-01-31.jsonl").symlink_to(tmp_path / "elsewhere")
    log.write(entry())
    assert (tmp_path / "elsewhere").read_text() == ""

"""Tables: which columns mean what, which rows are wrong, and how little memory a long one takes."""

import csv
import datetime
import decimal
import io
import json
import math
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import MissingExtra
from indexer.items import RECORD_KEY
from indexer.media.columns import BadRow, Columns, Row
from indexer.media.discover import Candidate, discover
from indexer.media.payloads import check_payload
from indexer.media.tables import rows
from indexer.report import Failure, Report
from indexer.settings import Settings
from tests.hostile import photo

USUAL = Columns()


def read(path: Path, columns: Columns = USUAL) -> tuple[list[Row], list[tuple[int | None, str]]]:
    """The rows, and the numbers and messages of those that are wrong."""
    each = list(rows(path, columns))
    wrong = [(row.number, row.error.message) for row in each if isinstance(row, BadRow)]
    return [row for row in each if isinstance(row, Row)], wrong


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_are_known_by_their_names_and_cells_by_how_they_are_written(tmp_path: Path) -> None:
    table = write(
        tmp_path / "x.csv",
        "\ufeffid,Image_Path,TEXT,title,year,score,zip,ok,empty,small,,big\r\n"
        '7,a.jpg,"a cat, ""asleep""\nin two lines",T,1999,0.50,00123,True,,1e-05,ignored,123456789012345678901\r\n'
        "\r\n"
        ",b.jpg,,x,-3,1e5,-0.5,false,nan,inf,,1.0.0\r\n",
    )
    found, wrong = read(table)
    assert wrong == []
    assert found == [
        Row(
            2,
            "a.jpg",
            None,
            {
                "title": "T",
                "year": 1999,
                "score": 0.5,
                "zip": "00123",
                "ok": True,
                "small": 1e-05,
                "big": "123456789012345678901",
                "caption": 'a cat, "asleep"\nin two lines',
            },
            "7",
        ),
        Row(
            4,
            "b.jpg",
            None,
            {
                "title": "x",
                "year": -3,
                "score": "1e5",
                "zip": -0.5,
                "ok": False,
                "empty": "nan",
                "small": "inf",
                "big": "1.0.0",
            },
        ),
    ]
    assert type(found[0].payload["year"]) is int


@pytest.mark.parametrize(
    "header", ["file", "path", "image", "url", "image_path", "filepath", "file_name", "URL", "File", "img_path"]
)
def test_the_usual_names_of_columns(tmp_path: Path, header: str) -> None:
    assert read(write(tmp_path / "x.csv", f"a,{header}\n1,x.jpg\n"))[0] == [Row(2, "x.jpg", None, {"a": 1})]


def test_the_first_of_the_usual_names_counts_and_given_ones_before_them(tmp_path: Path) -> None:
    table = write(tmp_path / "x.csv", "url,file,alt,caption,key\nu,f,A,C,k\n")
    assert read(table)[0] == [Row(2, "f", None, {"url": "u", "alt": "A", "caption": "C", "key": "k"})]
    given = Columns("url", "alt", "key")
    assert read(table, given)[0] == [Row(2, "u", None, {"file": "f", "caption": "A"}, "k")]
    assert read(table, Columns("nope"))[1] == [(None, "There is no column 'nope'.")]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".csv", "\t"), (".tsv", "\t")])
def test_delimiters(tmp_path: Path, suffix: str, delimiter: str) -> None:
    table = write(tmp_path / f"x{suffix}", f"file{delimiter}caption\na.jpg{delimiter}one, two\n".replace(", ", "  "))
    assert read(table)[0] == [Row(2, "a.jpg", None, {"caption": "one  two"})]


def test_a_row_that_is_wrong_costs_only_itself(tmp_path: Path) -> None:
    table = write(
        tmp_path / "x.csv",
        b"file,caption,id\n"
        b"a.jpg,one,1\n"
        b"short.jpg\n"
        b"a,b,c,d\n"
        b",no file,2\n"
        b'"bad"quote,x,3\n'
        b"latin-\xe9.jpg,x,4\n"
        b"b.jpg,two,\n"
        b"c.jpg,three," + b"x" * 513 + b"\n"
        b"nul\0.jpg,x,\n"
        b"d.jpg," + b"x" * 200_000 + b",5\n"
        b"e.jpg," + b"x" * 2_000_000 + b",6\n"
        b"f.jpg,last,7\n"
        b'g.jpg,"open',
    )
    found, wrong = read(table)
    assert [row.file for row in found] == ["a.jpg", "b.jpg", "f.jpg"]
    assert [number for number, _ in wrong] == [3, 4, 5, 6, 7, 9, 10, 11, 12, 14]
    assert found[-1].number == 13


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "No column names a file or URL: there are a, b."),
        ("file,a,a\nx,1,2\n", "The column 'a' is there twice."),
        (f"file,{RECORD_KEY}\nx,1\n", f'The key "{RECORD_KEY}" is reserved'),
        (b"file,\xff\nx,1\n", "A string is no valid Unicode."),
        ('"file\nx\n', "The row does not parse"),
    ],
)
def test_a_table_that_is_wrong_is_one_failure(tmp_path: Path, text: str | bytes, message: str) -> None:
    found, wrong = read(write(tmp_path / "x.csv", text))
    assert (found, len(wrong)) == ([], 1)
    assert wrong[0][0] is None
    assert wrong[0][1].startswith(message)


def test_empty_tables_hold_nothing(tmp_path: Path) -> None:
    for text in ("", "\n\n", "file,caption\n", "\ufeff"):
        assert read(write(tmp_path / "x.csv", text)) == ([], [])


def test_an_open_quote_does_not_take_the_file_into_memory(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    for line in (b'"' + b"x" * 99 + b"\n", b'","' * 20 + b"\n", b"x" * 100):
        with table.open("wb") as file:
            file.write(b'file,caption\na.jpg,"')
            for _ in range(200_000):
                file.write(line)
        tracemalloc.start()
        assert not [row for row in rows(table, Columns()) if isinstance(row, Row)]
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
        tracemalloc.stop()


def test_a_long_table_is_read_in_little_memory(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    with table.open("w") as file:
        file.write("file,caption,n\n")
        file.writelines(f"{number}.jpg,caption number {number},{number}\n" for number in range(100_000))
    tracemalloc.start()
    count = sum(isinstance(row, Row) for row in rows(table, Columns()))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert count == 100_000


def test_lines_of_json_may_be_a_table(tmp_path: Path) -> None:
    lines = [
        {"image": "a.jpg", "text": "words", "year": 1999, "tags": ["x"], "deep": {"a": None}, "none": None, "id": 7},
        {"file": "b.jpg", "caption": "c", "payload": {"caption": "old", "k": 1}, "id": "b"},
        {"url": "https://example.org/c.jpg", "title": "t"},
        {"text": "words alone", "id": "d"},
        {"text": "words", "other": 1},
        {"caption": "of what?"},
        {"file": 3},
        {"file": "a.jpg", "id": [1]},
        {"file": "a.jpg", "payload": 1},
        {"file": "a.jpg", RECORD_KEY: 1},
        {"file": "a.jpg", "n": 10**400},
        {"file": "a.jpg", "s": "\ud800"},
        {"file": "a.jpg", "id": "\ud800"},
        {"text": "\ud800"},
        {"file": "a.jpg", "payload": json.loads("[" * 70 + "]" * 70) and {"d": json.loads("[" * 70 + "]" * 70)}},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"file": "a.jpg", "n": 1e999}\n' + "[" * 100_000 + "\n"
    found, wrong = read(write(tmp_path / "x.jsonl", text))
    assert found == [
        Row(1, "a.jpg", None, {"year": 1999, "tags": ["x"], "deep": {"a": None}, "caption": "words"}, "7"),
        Row(2, "b.jpg", None, {"caption": "c", "k": 1}, "b"),
        Row(3, "https://example.org/c.jpg", None, {"caption": "t"}),
        Row(4, None, "words alone", {}, "d"),
    ]
    assert [number for number, _ in wrong] == list(range(5, 18))
    assert [row.file for row in read(tmp_path / "x.jsonl", Columns(file="title"))[0]][2] == "t"


def test_a_line_that_is_too_long_is_one_failure(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".txt"):
        found, wrong = read(write(tmp_path / f"x{suffix}", b'"' + b"x" * 5_000_000 + b'"\n' + b'{"text": "a"}\n'))
        assert [row.number for row in found] == [2]
        assert [number for number, _ in wrong] == [1]


def parquet(path: Path, columns: dict[str, object], **more: object) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path, **more)
    return path


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    table = parquet(
        tmp_path / "x.parquet",
        {
            "URL": ["a.jpg", None, "b.jpg"],
            "TEXT": ["a cat", "x", None],
            "id": [1, 2, 3],
            "n": [1, 2, None],
            "f": [0.5, 1.0, math.nan],
            "ok": [True, False, None],
            "when": [when, when, None],
            "day": [when.date()] * 3,
            "long": [datetime.timedelta(seconds=90)] * 3,
            "price": [decimal.Decimal("1.25")] * 3,
            "tags": [["a", "b"], [], None],
            "box": [{"x": 1, "t": when}] * 3,
            "image": [{"bytes": b"\xff\xd8", "path": "z"}] * 3,
            "raw": [b"x"] * 3,
        },
    )
    found, wrong = read(table)
    shared = {"day": "2024-05-06", "long": 90.0, "price": 1.25, "box": {"x": 1, "t": "2024-05-06T07:08:09+00:00"}}
    assert found == [
        Row(
            1,
            "a.jpg",
            None,
            {"n": 1, "f": 0.5, "ok": True, "when": when.isoformat(), "tags": ["a", "b"], "caption": "a cat", **shared},
            "1",
        ),
        Row(3, "b.jpg", None, shared, "3"),
    ]
    assert wrong == [(2, '"URL" takes a path or URL.')]
    assert read(table, Columns("nope"))[1] == [(None, "There is no column 'nope'.")]


def test_a_damaged_parquet_is_one_failure(tmp_path: Path) -> None:
    table = parquet(tmp_path / "x.parquet", {"file": [f"{n}.jpg" for n in range(1000)]}, compression="none")
    whole = table.read_bytes()
    for data in (b"", b"PAR1", whole[:-100], b"x" * 1000, whole[:2000] + bytes(2000) + whole[4000:]):
        table.write_bytes(data)
        found, wrong = read(table)
        assert len(wrong) == 1
        assert wrong[0][0] is None
        assert len(found) < 1000


def test_a_long_parquet_of_one_group_is_read_in_little_memory(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = parquet(
        tmp_path / "x.parquet",
        {"file": [f"{n}.jpg" for n in range(200_000)], "caption": [f"{n} " * 20 for n in range(200_000)]},
        row_group_size=200_000,
        compression="none",
        use_dictionary=False,
    )
    assert table.stat().st_size > 20 * 2**20
    before = pyarrow.total_allocated_bytes()
    most = count = 0
    for row in rows(table, Columns()):
        assert isinstance(row, Row)
        count += 1
        most = max(most, pyarrow.total_allocated_bytes() - before) if count % 100 == 0 else most
    assert count == 200_000
    assert most < 10 * 2**20


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write(tmp_path / "x.parquet", b"PAR1")
    with pytest.raises(MissingExtra, match=r"pip install 'crosslens\[tables\]'"):
        discover([str(tmp_path / "x.parquet")], report=Report("c", "m"))


def test_rows_become_candidates(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(photo(1))
    elsewhere = tmp_path / "b.jpg"
    elsewhere.write_bytes(photo(2))
    table = write(
        tmp_path / "in" / "x.csv",
        f"picture,caption,n,id\na.jpg,one,1,A\n../b.jpg,,2,\n{elsewhere},,3,\n HTTPS://example.org/c.jpg ,c,4,\n"
        "gone.jpg,,5,\nmemory://bucket/x.jpg,,6,\n.,,7,\n"
        + "x" * 5000
        + ",,8,\n"
        + "y/" * 5000
        + ",,9,\nb.jpg,,10,\n../b.jpg,,11,\n",
    )
    settings = Settings(table_file="picture")
    found = list(discover([str(table)], report=Report("c", "m"), settings=settings))
    taken = [(e.source, e.payload, e.id, e.size) for e in found if isinstance(e, Candidate)]
    assert taken == [
        (str(tmp_path / "in" / "a.jpg"), {"caption": "one", "n": 1}, "A", len(photo(1))),
        (str(elsewhere), {"n": 2}, None, len(photo(2))),
        (str(elsewhere), {"n": 3}, None, len(photo(2))),
        ("HTTPS://example.org/c.jpg", {"caption": "c", "n": 4}, None, None),
        (str(elsewhere), {"n": 11}, None, len(photo(2))),
    ]
    failures = {e.source: e.error.code for e in found if isinstance(e, Failure)}
    unreadable = dict.fromkeys((f"{table}:{row}" for row in (6, 8, 9, 10, 11)), "unreadable")
    assert failures == {**unreadable, f"{table}:7": "unsupported_format"}


def test_tables_in_folders_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "file\na.jpg\n")
    report = Report("c", "m")
    assert list(discover([str(tmp_path)], report=report)) == []
    assert report.passed_over == 1


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
headers = st.lists(cells.filter(lambda name: name.strip() and name != RECORD_KEY), min_size=1, max_size=5, unique=True)


@given(headers, st.data())
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_as_csv_is_read(tmp_path: Path, header: list[str], data: st.DataObject) -> None:
    header = ["file", *(name for name in header if name != "file")]
    body = data.draw(st.lists(st.tuples(cells.filter(str.strip), *[cells] * (len(header) - 1)), max_size=5))
    text = io.StringIO()
    csv.writer(text).writerows([header, *body])
    found, wrong = read(write(tmp_path / "x.csv", text.getvalue()), Columns(file="file"))
    assert wrong == []
    assert [row.file for row in found] == [cells[0] for cells in body]
    for row, written in zip(found, body, strict=True):
        values = {value for value in written[1:] if value}
        kept = [row.id, *row.payload.values()]
        assert {value for value in kept if isinstance(value, str)} <= values
        assert len([value for value in kept if value is not None]) == len([value for value in written[1:] if value])


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda t: f"file,a\n{t}".encode("utf-8", "surrogatepass")))
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_a_table_it_never_raises(tmp_path: Path, content: bytes) -> None:
    for suffix in (".csv", ".tsv", ".jsonl", ".txt"):
        for row in rows(write(tmp_path / f"x{suffix}", content), Columns()):
            assert isinstance(row, Row | BadRow)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["file", "text", "image", "id", "payload", "caption", "crosslens", "", "URL"]) | st.text(
    max_size=4
)


@given(st.dictionaries(keys, values, max_size=5) | values)
@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_of_json_is_a_row_that_can_be_stored_or_a_failure(tmp_path: Path, line: object) -> None:
    (row,) = rows(write(tmp_path / "x.jsonl", json.dumps(line)), Columns())
    if isinstance(row, Row):
        check_payload(row.payload)
        json.dumps([row.payload, row.text, row.id], ensure_ascii=False, allow_nan=False).encode()
        assert (row.file is None) != (row.text is None)
        assert row.id is None or 1 <= len(row.id) <= 512

"""Archives: what comes out of them in order, what is refused, and how little memory it takes."""

import gzip
import io
import random
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import BadMember, EmptyFile, MediaError, MediaGone, TooLarge
from indexer.media import archives, samples, tars
from indexer.media.archives import Reader, members
from indexer.media.discover import discover
from indexer.media.entries import Limits
from indexer.media.samples import Member
from indexer.media.sources import member_of, source_of
from indexer.report import Failure, Report
from tests.hostile import photo
from tests.packing import KINDS, encrypted, pack, regular, special, streamed_zip, tar_of, write_tar

LIMITS = Limits(10 * 2**20, 2**30, 100_000)
PHOTOS = [(f"{number:02}.jpg", photo(number)) for number in range(12)]


def listed(path: Path, limits: Limits = LIMITS) -> tuple[list[Member], dict[str, str], Report]:
    """The members, the failures' codes by name (the archive's own is ""), and the counts."""
    report = Report("c", "m")
    each = list(members(path, source=str(path), limits=limits, counts=report))
    failures = [
        (f.source.removeprefix(str(path)).removeprefix("!/"), f.error.code) for f in each if isinstance(f, Failure)
    ]
    assert len(dict(failures)) == len(failures)
    return [m for m in each if isinstance(m, Member)], dict(failures), report


def names(found: list[Member]) -> list[str]:
    return [member.source.partition("!/")[2] for member in found]


def contents(path: Path, found: list[Member], limits: Limits = LIMITS) -> list[bytes]:
    with Reader(limits) as reader:
        status = path.stat()
        version = (status.st_size, status.st_mtime_ns)
        return [
            reader.read(path, name, place=member.place, version=version)
            for name, member in zip(names(found), found, strict=True)
        ]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_members_come_in_order_and_are_read_by_place_and_by_name(tmp_path: Path, kind: str) -> None:
    extra = [("readme.md", b"words"), ("folder/", b""), (".hidden.jpg", photo(1)), ("__MACOSX/._00.jpg", b"\0" * 200)]
    whole = [("b.jpg", photo(50)), *extra, *PHOTOS, ("a/no-suffix", photo(51))]
    path = pack(tmp_path / f"x{kind}", whole)
    found, failures, report = listed(path)
    assert names(found) == ["b.jpg", *(name for name, _ in PHOTOS), "a/no-suffix"]
    assert failures == {}
    assert report.passed_over == 1
    expected = [data for name, data in whole if name in names(found)]
    assert contents(path, found) == expected
    assert contents(path, found[::-1]) == expected[::-1]  # even backwards
    with Reader(LIMITS) as reader:
        for name, data in zip(names(found), expected, strict=True):
            assert reader.read(path, name) == data
        with pytest.raises(MediaGone):
            reader.read(path, "gone.jpg")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format_keep_long_names(tmp_path: Path, format: int) -> None:
    long = "x" * 90 + "/" + "y" * 90 + ".jpg"
    info = regular(long, photo(1))
    info.mtime = 1.5
    path = write_tar(tmp_path / "x.tar", tar_of([(info, photo(1)), (regular("z.jpg", photo(2)), photo(2))], format))
    assert names(listed(path)[0]) == [long, "z.jpg"]
    assert contents(path, listed(path)[0]) == [photo(1), photo(2)]


def test_a_size_in_a_pax_header_counts(tmp_path: Path) -> None:
    info = regular("a.jpg", photo(1))
    info.pax_headers = {"size": str(len(photo(1))), "comment": "x"}
    data = bytearray(tar_of([(info, photo(1)), (regular("b.jpg", photo(2)), photo(2))]))
    at = data.index(b"a.jpg\0", 1024)
    data[at + 124 : at + 136] = b"00000000000\0"
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path = write_tar(tmp_path / "x.tar", bytes(data))
    assert contents(path, listed(path)[0]) == [photo(1), photo(2)]


def test_zips_of_every_writer(tmp_path: Path) -> None:
    streamed = streamed_zip(tmp_path / "streamed.zip", PHOTOS)
    stored = pack(tmp_path / "stored.zip", PHOTOS, compression=zipfile.ZIP_STORED)
    extracting = tmp_path / "extracting.zip"
    extracting.write_bytes(b"MZ" + bytes(1000) + stored.read_bytes())
    wide = tmp_path / "wide.zip"
    with zipfile.ZipFile(wide, "w") as archive:
        archive.comment = b"a comment"
        for name, data in PHOTOS:
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    for path in (streamed, stored, extracting, wide):
        found, failures, _ = listed(path)
        assert (names(found), failures) == ([name for name, _ in PHOTOS], {}), path
        assert contents(path, found) == [data for _, data in PHOTOS]


def test_a_zip64_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    path = pack(tmp_path / "x.zip", PHOTOS)
    assert b"PK\6\6" in path.read_bytes()
    found, failures, _ = listed(path)
    assert (len(found), failures) == (12, {})
    assert contents(path, found) == [data for _, data in PHOTOS]


def test_names_are_labels_in_valid_unicode_that_differ(tmp_path: Path) -> None:
    raw = [b"caf\x82.jpg", "café-utf8.jpg".encode()]
    path = pack(tmp_path / "x.zip", [("aaaa.jpg", photo(1)), ("bbbbbbbbbb.jpg", photo(2))])
    data = path.read_bytes().replace(b"aaaa.jpg", raw[0]).replace(b"bbbbbbbbbb.jpg", raw[1])
    path.write_bytes(data)
    assert names(listed(path)[0]) == ["café.jpg", "café-utf8.jpg"]
    odd = [tarfile.TarInfo(f"\udcff{number}\n.jpg") for number in range(2)]
    for number, info in enumerate(odd):
        info.size = len(photo(number))
    path = write_tar(tmp_path / "x.tar", tar_of([(info, photo(n)) for n, info in enumerate(odd)], tarfile.GNU_FORMAT))
    found = listed(path)[0]
    assert names(found) == ["\\udcff0\n.jpg", "\\udcff1\n.jpg"]
    with Reader(LIMITS) as reader:
        assert reader.read(path, names(found)[1]) == photo(1)


def test_names_that_lead_elsewhere_lead_nowhere(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(photo(99))
    inside = tmp_path / "in"
    inside.mkdir()
    wrong = ["../outside.jpg", str(outside), "a/../../outside.jpg", "C:\\windows\\x.jpg", "\\\\host\\x.jpg"]
    path = pack(inside / f"x{kind}", [(name, photo(number)) for number, name in enumerate(wrong)])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    found, failures, _ = listed(path)
    assert failures == {}
    assert contents(path, found) == [photo(number) for number in range(len(wrong))]
    with Reader(LIMITS) as reader:
        for number, member in enumerate(found):
            assert reader.read(*member_of(member.source)) == photo(number)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_members_source_is_found_again_in_odd_places(tmp_path: Path) -> None:
    folder = tmp_path / "odd!" / "x.zip!"
    folder.mkdir(parents=True)
    path = pack(folder / "y.zip", [("a!/b.jpg", photo(1))])
    (member,) = listed(path)[0]
    assert member_of(member.source) == (path, "a!/b.jpg")
    assert member_of(str(folder / "plain.jpg")) is None
    odd = Path(str(tmp_path / "\udcff.zip"))
    path.rename(odd)
    assert member_of(source_of(odd) + "!/a!/b.jpg") == (odd, "a!/b.jpg")


SAMPLE = [
    ("s/000.jpg", photo(0)),
    ("s/000.json", b'{"tag": "x", "caption": "from json", "n": 3}'),
    ("s/000.txt", "a café\n".encode()),
    ("s/001.cls", b"5"),
    ("s/001.seg.png", photo(2, form="PNG")),
    ("s/001.txt", b"of the sample"),
    ("s/001.seg.json", b'{"own": true}'),
    ("s/001.jpg", photo(1)),
    ("s/002.txt", b"of nothing"),
    ("s/003.jpg", photo(3)),
    ("s/003.json", b"[1]"),
    ("s/004.jpg", photo(4)),
    ("s/004.txt", b"\xff"),
    ("s/005.json", b'{"crosslens": 1}'),
    ("s/005.jpg", photo(5)),
    ("s/006.jpg", photo(6)),
    ("s/006.txt", b"x" * (2**20 + 1)),
]


def test_neighbours_of_one_name_are_one_sample(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / f"x{kind}", SAMPLE)
    found, failures, report = listed(path)
    payloads = {name.removeprefix("s/"): member.payload for name, member in zip(names(found), found, strict=True)}
    assert payloads == {
        "000.jpg": {"tag": "x", "caption": "a café", "n": 3},
        "001.seg.png": {"own": True, "caption": "of the sample"},
        "001.jpg": {"caption": "of the sample"},
        "003.jpg": {},
        "004.jpg": {},
        "005.jpg": {},
        "006.jpg": {},
    }
    assert failures == dict.fromkeys(("s/003.json", "s/004.txt", "s/005.json", "s/006.txt"), "invalid_text_source")
    assert report.passed_over == 2  # 001.cls and the text of nothing
    assert contents(path, found)[2] == photo(1)


def test_a_sample_of_many_members_is_not_held(tmp_path: Path, kind: str) -> None:
    many = [(f"a.{number}.jpg", photo(number)) for number in range(150)]
    path = pack(tmp_path / f"x{kind}", many)
    report = Report("c", "m")
    found = members(path, source=str(path), limits=LIMITS, counts=report)
    next(iter(found))
    assert names(listed(path)[0]) == [name for name, _ in many]
    listing = samples.Listing("x", LIMITS, report)
    assert max(_held(listing, path)) <= samples._SAMPLE


def _held(listing: samples.Listing, path: Path) -> Iterator[int]:
    with archives._open(path, LIMITS) as (archive, status):
        for entry in archive.entries():
            list(listing.take(entry, archive, status.st_size))
            yield len(listing.images) + len(listing.beside)


def test_what_is_no_plain_file_is_told_and_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photo(99))
    sparse = regular("sparse-1.jpg", photo(3))
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    hostile = [
        (special("soft.jpg", tarfile.SYMTYPE, str(secret)), b""),
        (special("hard.jpg", tarfile.LNKTYPE, "good-1.jpg"), b""),
        (special("zero.jpg", tarfile.CHRTYPE), b""),
        (special("disk.jpg", tarfile.BLKTYPE), b""),
        (special("pipe.jpg", tarfile.FIFOTYPE), b""),
        (special("odd.jpg", b"V"), b""),
        (sparse, photo(3)),
        (regular("inner.zip", b"PK"), b"PK"),
        (regular("inner.tar.gz", b"\x1f\x8b"), b"\x1f\x8b"),
        (regular("empty.jpg", b""), b""),
        (regular("good-1.jpg", photo(4)), photo(4)),
        (regular("large.jpg", bytes(11 * 2**20)), bytes(11 * 2**20)),
    ]
    good = [(regular(f"good-{number}.jpg", photo(number)), photo(number)) for number in range(3)]
    good[1][0].name = "good-1.jpg"
    data = tar_of([good[0], good[1], *hostile, good[2], (special("link-to-nowhere", tarfile.SYMTYPE, "/"), b"")])
    for suffix in (".tar", ".tar.gz", ".tar.zst"):
        path = write_tar(tmp_path / f"x{suffix}", data)
        found, failures, report = listed(path)
        assert names(found) == ["good-0.jpg", "good-1.jpg", "good-2.jpg"]
        assert failures == {
            **dict.fromkeys((info.name for info, _ in hostile), "bad_member"),
            "empty.jpg": "empty",
            "large.jpg": "too_large",
        }
        assert report.passed_over == 1
        assert contents(path, found) == [photo(0), photo(1), photo(2)]
        with Reader(LIMITS) as reader:
            for name in ("soft.jpg", "zero.jpg", "sparse-1.jpg"):
                with pytest.raises(MediaGone):
                    reader.read(path, name)
            with pytest.raises(EmptyFile):
                reader.read(path, "empty.jpg")
            with pytest.raises(TooLarge):
                reader.read(path, "large.jpg")


def test_an_old_sparse_file_is_passed_with_its_map(tmp_path: Path) -> None:
    data = bytearray(
        tar_of([(regular("s.jpg", photo(1)), photo(1)), (regular("b.jpg", photo(2)), photo(2))], tarfile.GNU_FORMAT)
    )
    data[156:157] = b"S"
    data[482] = 1
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    more = bytearray(512)
    more[504] = 1
    data[512:512] = bytes(more) + bytes(512)
    path = write_tar(tmp_path / "x.tar", bytes(data))
    found, failures, _ = listed(path)
    assert (names(found), failures) == (["b.jpg"], {"s.jpg": "bad_member"})
    assert contents(path, found) == [photo(2)]


def test_hostile_members_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("soft.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        device = zipfile.ZipInfo("zero.jpg")
        device.create_system, device.external_attr = 3, (stat.S_IFCHR | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr(device, b"x")
        archive.writestr("inner.zip", b"PK")
        archive.writestr("lzma.jpg", photo(1), zipfile.ZIP_LZMA)
        archive.writestr("empty.jpg", b"")
        archive.writestr("large.jpg", bytes(11 * 2**20), zipfile.ZIP_DEFLATED)
        archive.writestr("good.jpg", photo(2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("good.jpg", photo(3))
    found, failures, _ = listed(path)
    assert names(found) == ["good.jpg"]
    assert contents(path, found) == [photo(2)]
    bad = ("soft.jpg", "zero.jpg", "inner.zip", "lzma.jpg", "good.jpg")
    assert failures == {**dict.fromkeys(bad, "bad_member"), "empty.jpg": "empty", "large.jpg": "too_large"}
    path = encrypted(pack(tmp_path / "secret.zip", PHOTOS[:2]))
    assert listed(path)[:2] == ([], {"00.jpg": "bad_member", "01.jpg": "bad_member"})


def test_a_damaged_member_is_one_failure_and_its_neighbours_are_read(tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = pack(tmp_path / "x.zip", PHOTOS[:3], compression=compression)
        with zipfile.ZipFile(path) as archive:
            second = archive.infolist()[1]
        data = bytearray(path.read_bytes())
        data[second.header_offset + 30 + len(second.filename) + second.compress_size // 2] ^= 0xFF
        path.write_bytes(data)
        found = listed(path)[0]
        with Reader(LIMITS) as reader:
            assert reader.read(path, "00.jpg") == PHOTOS[0][1]
            with pytest.raises(BadMember):
                reader.read(path, "01.jpg")
            assert reader.read(path, "02.jpg") == PHOTOS[2][1]
        assert len(found) == 3


def _lying(path: Path, size: int) -> None:
    """Have a zip of one member declare another size."""
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<L", data, data.index(sign) + at, size)
    path.write_bytes(data)


def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", [("a.jpg", bytes(200 * 2**20))])
    _lying(path, 1000)
    (found,) = listed(path)[0]
    tracemalloc.start()
    with pytest.raises(BadMember), Reader(LIMITS) as reader:
        reader.read(path, "a.jpg", place=found.place, version=(path.stat().st_size, path.stat().st_mtime_ns))
    assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    tracemalloc.stop()
    path = pack(tmp_path / "y.zip", [("a.jpg", photo(1))])
    _lying(path, len(photo(1)) + 1)
    with pytest.raises(BadMember), Reader(LIMITS) as reader:
        reader.read(path, "a.jpg")


@pytest.fixture
def little_for_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (samples, tars):
        monkeypatch.setattr(module, "FREE_BYTES", 2**20)


@pytest.mark.usefixtures("little_for_free")
def test_bombs_are_refused_before_they_go_off(tmp_path: Path, kind: str) -> None:
    limits = Limits(2**30, 2**40, 1000)
    good = [(f"{number}.jpg", photo(number)) for number in range(3)]
    bomb = [*good, *((f"bomb-{number}.bmp", bytes(8 * 2**20)) for number in range(6)), ("last.jpg", photo(9))]
    path = pack(tmp_path / f"x{kind}", bomb)
    began = time.monotonic()
    tracemalloc.start()
    found, failures, _ = listed(path, limits)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert time.monotonic() - began < 5
    if kind == ".tar":  # nothing is packed there
        assert len(found) == 10
        return
    assert names(found)[:3] == ["0.jpg", "1.jpg", "2.jpg"]
    assert "last.jpg" not in names(found)
    assert failures == {"": "archive_refused"}


@pytest.mark.usefixtures("little_for_free")
def test_a_zip_whose_members_share_their_bytes_is_a_bomb(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", [("a.bmp", bytes(2**20))])
    data = path.read_bytes()
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry = data[at:end]
    entries = b"".join(entry.replace(b"a.bmp", b"%05d.bmp" % n).replace(entry[28:30], b"\x09\0") for n in range(2000))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2000, 2000, len(entries), at, 0)
    path.write_bytes(data[:at] + entries + tail)
    found, failures, _ = listed(path)
    assert failures == {"": "archive_refused"}
    assert len(found) < 100


def test_the_caps_on_bytes_and_members_hold(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / f"x{kind}", PHOTOS)
    found, failures, _ = listed(path, Limits(10**6, 10**9, 5))
    assert (len(found), failures) == (5, {"": "archive_refused"})
    enough = sum(len(data) for _, data in PHOTOS[:5])
    found, failures, _ = listed(path, Limits(10**6, enough, 100))
    assert failures == {"": "archive_refused"}
    assert 0 < len(found) <= 5
    assert len(listed(path, Limits(10**6, 10**9, len(PHOTOS)))[0]) == len(PHOTOS)


@pytest.mark.usefixtures("little_for_free")
@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_what_is_passed_over_counts_too(tmp_path: Path, suffix: str) -> None:
    bomb = pack(tmp_path / f"bomb{suffix}", [*PHOTOS, ("zeros.bin", bytes(2**26)), ("last.jpg", photo(99))])
    assert listed(bomb, Limits(2**20, 2**40))[1] == {"": "archive_refused"}
    noise = random.Random(1).randbytes(2**20)
    large = pack(tmp_path / f"large{suffix}", [*PHOTOS, ("noise.bin", noise), ("last.jpg", photo(99))])
    found, failures, _ = listed(large, Limits(2**20, 2**20))
    assert (names(found), failures) == ([name for name, _ in PHOTOS], {"": "archive_refused"})


def test_a_link_that_claims_to_have_content_hides_nothing(tmp_path: Path) -> None:
    link = special("link.jpg", tarfile.SYMTYPE, "/")
    link.size = 512 * 6
    path = write_tar(tmp_path / "x.tar", link.tobuf() + tar_of([(regular("a.jpg", photo(1)), photo(1))]))
    found, failures, _ = listed(path)
    assert (names(found), failures) == (["a.jpg"], {"link.jpg": "bad_member"})


def test_a_negative_size_is_damage(tmp_path: Path) -> None:
    header = bytearray(regular("a.jpg", b"").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    before = tar_of([(regular("b.jpg", photo(1)), photo(1))]).rstrip(b"\0")
    before += bytes(-len(before) % 512)
    path = write_tar(tmp_path / "x.tar", before + bytes(header) * 4)
    found, failures, _ = listed(path)
    assert (names(found), failures) == (["b.jpg"], {"": "unreadable"})


def test_a_cut_zip_is_no_way_around_the_cap_on_a_member(tmp_path: Path) -> None:
    path = streamed_zip(tmp_path / "x.zip", [PHOTOS[0], ("zeros.bmp", bytes(20 * 2**20)), PHOTOS[1]])
    path.write_bytes(path.read_bytes()[:-100])
    found, failures, _ = listed(path)
    assert (names(found), failures) == (["00.jpg"], {"": "truncated"})


@pytest.mark.parametrize("size", [2**40, 2**20 + 1, 8**11 - 1])
def test_an_extended_header_of_any_size_is_not_believed(tmp_path: Path, size: int) -> None:
    for kind in (b"x", b"L"):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, size
        data = info.tobuf(tarfile.GNU_FORMAT) + bytes(4 * 2**20)
        path = write_tar(tmp_path / "x.tar.gz", data)
        tracemalloc.start()
        assert listed(path)[:2] == ([], {"": "archive_refused"})
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        tracemalloc.stop()


def test_extended_headers_without_end_are_not_followed(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"g", 0
    path = write_tar(tmp_path / "x.tar.gz", info.tobuf() * 10_000 + tar_of([(regular("a.jpg", b"a"), b"a")]))
    assert listed(path)[:2] == ([], {"": "archive_refused"})


def test_a_name_that_is_a_book_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", tar_of([(regular("a" * 9000 + ".jpg", photo(1)), photo(1))]))
    found, failures, _ = listed(path)
    assert (found, list(failures.values())) == ([], ["bad_member"])
    assert max(map(len, failures)) == 4096


@pytest.mark.parametrize("writer", ["plain", "streamed", "stored"])
def test_a_cut_zip_gives_the_members_before_the_cut(tmp_path: Path, writer: str) -> None:
    whole = tmp_path / "whole.zip"
    if writer == "streamed":
        streamed_zip(whole, PHOTOS)
    else:
        pack(whole, PHOTOS, compression=zipfile.ZIP_STORED if writer == "stored" else zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(whole) as archive:
        ends = [*[info.header_offset for info in archive.infolist()][1:], archive.start_dir]
    _check_every_cut(whole, tmp_path / "cut.zip", ends)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
def test_a_cut_tar_gives_the_members_before_the_cut(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"whole{suffix}", PHOTOS)
    ends = None
    if suffix == ".tar":
        with tarfile.open(path) as archive:
            ends = [info.offset_data + info.size for info in archive]
    _check_every_cut(path, tmp_path / f"cut{suffix}", ends)


def _check_every_cut(whole: Path, cut: Path, ends: list[int] | None) -> None:
    data = whole.read_bytes()
    chance = random.Random(1)
    seen = set()
    last = (ends[-1] if ends else len(data) - 200) - 1
    for at in sorted({*chance.sample(range(600, last), 40), last}):
        cut.write_bytes(data[:at])
        found, failures, _ = listed(cut)
        assert failures == {"": "truncated"}, at
        assert names(found) == [name for name, _ in PHOTOS[: len(found)]]
        assert contents(cut, found) == [data for _, data in PHOTOS[: len(found)]]
        if ends is not None:
            assert len(found) >= sum(end < at - 30 for end in ends)
        seen.add(len(found))
    assert len(seen) > 1 or whole.suffix in {".gz", ".zst"}


def test_a_cut_zip_that_holds_another_is_not_taken_for_that(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner.zip", [("inner.jpg", photo(1))]).read_bytes()
    path = pack(
        tmp_path / "x.zip",
        [("a.jpg", photo(2)), ("inner.zip", inner), ("b.jpg", photo(3))],
        compression=zipfile.ZIP_STORED,
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"b.jpg") + 100])
    found, failures, _ = listed(path)
    assert names(found) == ["a.jpg"]
    assert failures == {"inner.zip": "bad_member", "": "truncated"}


def test_archives_that_are_none(tmp_path: Path) -> None:
    for kind in KINDS:
        for data, code in ((b"", "empty"), (b"no archive " * 200, "unreadable"), (bytes(10**6), "unreadable")):
            path = tmp_path / f"x{kind}"
            path.write_bytes(data)
            assert listed(path)[:2] == ([], {"": code})
    (tmp_path / "x.tgz").write_bytes(gzip.compress(photo(1) * 10))
    assert listed(tmp_path / "x.tgz")[1] == {"": "unreadable"}
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b" + bytes(500))
    assert listed(tmp_path / "x.tar.gz")[1] == {"": "unreadable"}
    for kind in KINDS:
        assert listed(pack(tmp_path / f"empty{kind}", []))[:2] == ([], {})


def test_content_decides_of_which_kind_an_archive_is(tmp_path: Path) -> None:
    for real in KINDS:
        for claimed in KINDS:
            path = pack(tmp_path / f"x{real}", PHOTOS[:2]).rename(tmp_path / f"claimed{claimed}")
            assert len(listed(path)[0]) == 2, (real, claimed)
    frames = zstandard.ZstdCompressor().compress(tar_of([(regular("a.jpg", photo(1)), photo(1))])[:512])
    frames += zstandard.ZstdCompressor().compress(tar_of([(regular("a.jpg", photo(1)), photo(1))])[512:])
    (tmp_path / "frames.tar.zst").write_bytes(frames)
    assert len(listed(tmp_path / "frames.tar.zst")[0]) == 1


def test_a_changed_archive_is_searched_by_name(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / f"x{kind}", PHOTOS)
    found = listed(path)[0]
    version = (path.stat().st_size, path.stat().st_mtime_ns)
    pack(path, [("new.jpg", photo(77)), *PHOTOS[::-1]])
    with Reader(LIMITS) as reader:
        for name, member in zip(names(found), found, strict=True):
            assert reader.read(path, name, place=member.place, version=version) == dict(PHOTOS)[name]


def test_archives_are_found_in_folders_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for number, kind in enumerate(KINDS):
        pack(tmp_path / "sub" / f"{number}{kind}", [(f"{number}.jpg", photo(number))])
    (tmp_path / "sub" / "photo.zip").write_bytes(photo(9))
    (tmp_path / "sub" / "other.rar").write_bytes(b"Rar!")
    report = Report("c", "m")
    for named in (str(tmp_path), str(tmp_path / "sub" / "*")):
        report.passed_over = 0
        found = list(discover([named], report=report))
        sources = [each.source.partition(str(tmp_path / "sub"))[2] for each in found]
        expected = [f"/{number}{kind}!/{number}.jpg" for number, kind in enumerate(KINDS)]
        assert [source for source in sources if "!" in source] == expected
        assert "/photo.zip" in sources
        assert not [each for each in found if isinstance(each, Failure) and "rar" not in each.source]
        status = (tmp_path / "sub" / "0.zip").stat()
        assert (found[0].size, found[0].mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert list(discover([str(tmp_path)], report=report)) and report.passed_over == 1


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_fifty_thousand_members_take_no_memory(tmp_path: Path, suffix: str) -> None:
    tiny = b"\xff\xd8\xff tiny"
    path = pack(tmp_path / f"x{suffix}", ((f"{number}.jpg", tiny) for number in range(50_000)))
    report = Report("c", "m")
    tracemalloc.start()
    count = sum(isinstance(m, Member) for m in members(path, source="x", limits=LIMITS, counts=report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 12 * 2**20  # the hashes of names are 6


@given(st.data())
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_an_archive_it_never_raises(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    path = pack(tmp_path / f"fuzz{kind}", [*PHOTOS[:2], *SAMPLE[:4]])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    found = [e for e in members(path, source="x", limits=LIMITS, counts=Report("c", "m")) if isinstance(e, Member)]
    with Reader(LIMITS) as reader:
        for name, member in zip(names(found), found, strict=True):
            try:
                reader.read(path, name, place=member.place, version=(path.stat().st_size, path.stat().st_mtime_ns))
                reader.read(path, name)
            except MediaError:
                continue


@given(st.binary(max_size=3000), st.sampled_from(KINDS))
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_never_raises(tmp_path: Path, noise: bytes, kind: str) -> None:
    path = tmp_path / f"noise{kind}"
    for head in (b"", b"PK\3\4", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"MZ"):
        path.write_bytes(head + noise)
        listed(path)
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as packed:
        packed.write(tarfile.TarInfo("a.jpg").tobuf() + noise)
    path.write_bytes(file.getvalue())
    listed(path)

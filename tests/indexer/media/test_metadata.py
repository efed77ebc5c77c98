"""What files say of themselves: photos in EXIF, IPTC and XMP, videos and PDFs; true, contradictory, broken, hostile."""

import datetime
import hashlib
import io
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import av
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from indexer.media import exif, iptc, values, xmp
from indexer.media.containers import describe_pdf, describe_video
from indexer.media.formats import PILLOW_FORMATS, SNIFF_BYTES, sniff
from indexer.media.metadata import describe
from indexer.media.payloads import check_payload
from tests.hostile import FORMATS, photo

SAMPLES = Path(__file__).parents[3] / "examples" / "media"
PLAIN = {form: photo(7, form=form) for form in [*FORMATS, "HEIF"]}
FIELDS = {
    "taken_at", "year", "month", "camera", "lens", "exposure", "place", "altitude", "city", "region", "country", "title",
    "caption", "tags", "creator", "copyright", "rating", "software", "duration",
}  # fmt: skip

# Files, by hand: what libraries refuse to write is what is wanted here.

ASCII, BYTE, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, DOUBLE = 2, 1, 3, 4, 5, 7, 10, 12
Entry = tuple[int, int, int, bytes]  # tag, type, count, value


def text(tag: int, value: str | bytes) -> Entry:
    data = (value.encode() if isinstance(value, str) else value) + b"\0"
    return tag, ASCII, len(data), data


def raw(tag: int, value: bytes, kind: int = UNDEFINED) -> Entry:
    return tag, kind, len(value), value


def wide(tag: int, value: str) -> Entry:
    return raw(tag, value.encode("utf-16-le") + b"\0\0", BYTE)


def short(tag: int, *numbers: int, order: str = "<") -> Entry:
    return tag, SHORT, len(numbers), struct.pack(f"{order}{len(numbers)}H", *numbers)


def ratio(tag: int, *pairs: tuple[int, int], order: str = "<", kind: int = RATIONAL) -> Entry:
    form = f"{order}{2 * len(pairs)}{'i' if kind == SRATIONAL else 'I'}"
    return tag, kind, len(pairs), struct.pack(form, *itertools.chain(*pairs))


def tiff(
    image: Sequence[Entry] = (),
    details: Sequence[Entry] = (),
    gps: Sequence[Entry] = (),
    *,
    order: str = "<",
    big: bool = False,
) -> bytes:
    """A TIFF structure of three directories, each followed by its long values."""
    head = {"<": b"II", ">": b"MM"}[order]
    offset, width = ("Q", 8) if big else ("I", 4)
    start = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)

    def directory(entries: Sequence[Entry], at: int) -> bytes:
        body = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
        values_at = at + len(body) + len(entries) * (20 if big else 12) + width
        behind = b""
        for tag, kind, count, value in entries:
            body += struct.pack(f"{order}HH{offset}", tag, kind, count)
            if len(value) > width:
                body += struct.pack(f"{order}{offset}", values_at + len(behind))
                behind += value
            else:
                body += value.ljust(width, b"\0")
        return body + bytes(width) + behind

    def pointer(tag: int, to: int) -> Entry:
        return tag, 16 if big else LONG, 1, struct.pack(f"{order}{offset}", to)

    first = len(head) + len(start)
    draft = directory([*image, pointer(0x8769, 0), pointer(0x8825, 0)], first)
    second = first + len(draft)
    third = second + len(directory(details, second))
    return (
        head
        + start
        + directory([*image, pointer(0x8769, second), pointer(0x8825, third)], first)
        + directory(details, second)
        + directory(gps, third)
    )


def dataset(number: int, value: str | bytes, record: int = 2) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">BBBH", 0x1C, record, number, len(data)) + data


UTF_8 = dataset(90, b"\x1b%G", record=1)


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    named = bytes((len(name),)) + name
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + named
        + bytes(len(named) % 2)
        + struct.pack(">I", len(data))
        + data
        + bytes(len(data) % 2)
    )


def photoshop(block: bytes, digest: bytes | None = None) -> bytes:
    found = resource(0x03ED, b"resolution", b"odd") + resource(0x0404, block)
    return found if digest is None else found + resource(0x0425, digest)


SPACES = "".join(
    f' xmlns:{prefix}="{space}"'
    for space, prefix in {**xmp._NAMESPACES, "adobe:ns:meta/": "x", "http://example.org/": "other"}.items()
)


def rdf(body: str = "", attributes: str = "") -> str:
    """An XMP packet as Adobe's tools write it."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta{SPACES}><rdf:RDF><rdf:Description rdf:about="" {attributes}>{body}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta>\n     \n<?xpacket end="w"?>'
    )


def listed(name: str, *items: str, kind: str = "Bag") -> str:
    return f"<{name}><rdf:{kind}>{''.join(f'<rdf:li>{item}</rdf:li>' for item in items)}</rdf:{kind}></{name}>"


def alternatives(name: str, **languages: str) -> str:
    items = "".join(f'<rdf:li xml:lang="{key.replace("_", "-")}">{value}</rdf:li>' for key, value in languages.items())
    return f"<{name}><rdf:Alt>{items}</rdf:Alt></{name}>"


def jpeg(
    exif_block: bytes = b"",
    xmp_packet: str | bytes = b"",
    iptc_block: bytes = b"",
    digest: bytes | None = None,
    *,
    before: bytes = b"",
) -> bytes:
    """A real JPEG with these in its header."""

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    packet = xmp_packet.encode() if isinstance(xmp_packet, str) else xmp_packet
    inserted = before
    if exif_block:
        inserted += segment(0xE1, b"Exif\0\0" + exif_block)
    if packet:
        inserted += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)
    if iptc_block:
        inserted += segment(0xED, b"Photoshop 3.0\0" + photoshop(iptc_block, digest))
    return PLAIN["JPEG"][:2] + inserted + PLAIN["JPEG"][2:]


def webp(exif_block: bytes = b"", xmp_packet: bytes = b"") -> bytes:
    whole = PLAIN["WEBP"][12:]
    for kind, data in ((b"EXIF", exif_block), (b"XMP ", xmp_packet)):
        if data:
            whole += kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(whole) + 4) + b"WEBP" + whole


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, last: bool = False) -> bytes:
    at = PLAIN["PNG"].index(b"IEND") - 4 if last else 33
    return PLAIN["PNG"][:at] + b"".join(chunks) + PLAIN["PNG"][at:]


def of_exif(
    *details: Entry, image: Sequence[Entry] = (), gps: Sequence[Entry] = (), order: str = "<"
) -> dict[str, Any]:
    return checked(jpeg(tiff(image, list(details), gps, order=order)))


def of_xmp(body: str = "", attributes: str = "") -> dict[str, Any]:
    return checked(jpeg(xmp_packet=rdf(body, attributes)))


def of_iptc(*datasets: bytes) -> dict[str, Any]:
    return checked(jpeg(iptc_block=b"".join(datasets)))


def checked(data: bytes, media_type: str | None = None) -> dict[str, Any]:
    """What is said of a file, seen to keep what is promised of it."""
    return check(describe(data, media_type or sniff(data[:SNIFF_BYTES]) or ""))


def check(found: dict[str, Any]) -> dict[str, Any]:
    check_payload(found)
    assert set(found) <= FIELDS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for value in found.values():
        for said in value if isinstance(value, list) else [value]:
            if isinstance(said, str):
                assert said and said == said.strip() and len(said) <= 4096
                assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in said)
    assert len(found.get("tags", [])) <= 100 and all(len(tag) <= 128 for tag in found.get("tags", []))
    if "taken_at" in found:
        when = datetime.datetime.fromisoformat(found["taken_at"])
        assert (when.year, when.month) == (found["year"], found["month"])
    if "year" in found:
        assert 1826 <= found["year"] <= 2100 and found.get("month", 1) in range(1, 13)
    if "place" in found:
        assert abs(found["place"]["lat"]) <= 90 and abs(found["place"]["lon"]) <= 180
    assert found.get("rating", 0) in range(6)
    return found


SYDNEY = [
    text(1, "S"), ratio(2, (33, 1), (51, 1), (246, 10)), text(3, "E"), ratio(4, (151, 1), (12, 1), (40, 1)),
    raw(5, b"\0", BYTE), ratio(6, (58, 1)),
]  # fmt: skip


class TestFormats:
    """Each format keeps the same blocks in a place of its own."""

    BLOCK = tiff([text(0x010F, "Canon"), text(0x0110, "Canon EOS R5")], [text(0x9003, "2024:05:01 12:30:00")], SYDNEY)
    PACKET = rdf(listed("dc:subject", "Bär", "Wald")).encode()
    SAID: ClassVar[dict[str, Any]] = {
        "camera": "Canon EOS R5", "taken_at": "2024-05-01T12:30:00", "year": 2024, "month": 5, "altitude": 58.0,
        "place": {"lat": -33.8568333, "lon": 151.2111111}, "tags": ["Bär", "Wald"],
    }  # fmt: skip

    def test_a_jpeg(self) -> None:
        assert checked(jpeg(self.BLOCK, self.PACKET)) == self.SAID

    def test_a_jpeg_in_the_other_byte_order_with_fill_bytes_and_other_segments_before(self) -> None:
        block = tiff([text(0x0110, "X100")], [short(0x8827, 400, order=">")], order=">")
        other = b"\xff\xe2\0\x06icc!\xff\xff\xff\xe1\0\x06junk\xff\xff"
        assert checked(jpeg(block, before=other)) == {"camera": "X100", "exposure": {"iso": 400}}

    def test_nothing_is_looked_for_behind_the_first_scan(self) -> None:
        whole = jpeg(self.BLOCK)
        assert checked(PLAIN["JPEG"] + whole[2:]) == {}
        header = whole[2 : -len(PLAIN["JPEG"]) + 2]
        assert checked(PLAIN["JPEG"][:-2] + header + PLAIN["JPEG"][-2:]) == {}
        assert checked(PLAIN["JPEG"][:2] + header + PLAIN["JPEG"][2:]) != {}

    def test_nor_behind_a_thousand_segments(self) -> None:
        assert checked(jpeg(self.BLOCK, before=b"\xff\xe2\0\x03x" * 900)) != {}
        assert checked(jpeg(self.BLOCK, before=b"\xff\xe2\0\x03x" * 1100)) == {}

    def test_a_png_before_and_behind_the_picture(self) -> None:
        chunks = chunk(b"eXIf", self.BLOCK), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + self.PACKET)
        assert checked(png(*chunks)) == checked(png(*chunks, last=True)) == self.SAID

    def test_a_png_with_packed_xmp_and_texts_of_its_own(self) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", self.PACKET.decode(), zip=True)
        info.add_text("Title", "Blick zur Höhle")
        info.add_text("Description", "A cave", zip=True)
        info.add_itxt("Author", "Жанна", lang="ru", tkey="автор")
        info.add_text("parameters", "not one of ours")
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
        assert checked(file.getvalue()) == {
            "title": "Blick zur Höhle", "caption": "A cave", "creator": "Жанна", "tags": ["Bär", "Wald"],
        }  # fmt: skip

    @pytest.mark.parametrize("mark", [b"", b"Exif\0\0"])
    def test_a_webp(self, mark: bytes) -> None:
        assert checked(webp(mark + self.BLOCK, self.PACKET)) == self.SAID

    @pytest.mark.parametrize("form", ["WEBP", "AVIF", "PNG", "HEIF", "JPEG"])
    def test_what_libraries_write(self, form: str) -> None:
        file = io.BytesIO()
        picture = Image.new("RGB", (64, 48), "green")
        if form == "HEIF":
            pillow_heif.from_pillow(picture).save(file, exif=b"Exif\0\0" + self.BLOCK, xmp=self.PACKET)
        elif form == "PNG":
            picture.save(file, form, exif=self.BLOCK)
            assert checked(file.getvalue()) == {name: said for name, said in self.SAID.items() if name != "tags"}
            return
        else:
            picture.save(file, form, exif=b"Exif\0\0" + self.BLOCK, xmp=self.PACKET)
        assert checked(file.getvalue()) == self.SAID

    def test_exif_that_pillow_wrote(self) -> None:
        block = Image.Exif()
        block[0x010F], block[0x0110] = "NIKON CORPORATION", "NIKON D850"
        block.get_ifd(0x8769).update({0x9003: "2019:12:31 23:59:59", 0x829A: 0.008, 0xA434: "50mm f/1.4"})
        block.get_ifd(0x8825).update({1: "N", 2: (0.0, 30.0, 0.0), 3: "W", 4: (0.0, 0.0, 36.0)})
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", exif=block)
        assert checked(file.getvalue()) == {
            "camera": "NIKON D850", "taken_at": "2019-12-31T23:59:59", "year": 2019, "month": 12, "lens": "50mm f/1.4",
            "exposure": {"seconds": 0.008}, "place": {"lat": 0.5, "lon": -0.01},
        }  # fmt: skip

    @pytest.mark.parametrize("kind", [BYTE, LONG])
    def test_a_tiff_has_xmp_and_iptc_in_tags(self, kind: int) -> None:
        block = dataset(120, "A boat.") + b"\0" * 4  # 16 bytes: LONG counts fours
        entry = (0x83BB, kind, len(block) // (4 if kind == LONG else 1), block)
        data = tiff([text(0x0110, "Scanner 3000"), raw(0x02BC, self.PACKET, BYTE), entry])
        assert checked(data) == {"camera": "Scanner 3000", "caption": "A boat.", "tags": ["Bär", "Wald"]}

    def test_a_tiff_has_photoshop_resources(self) -> None:
        old, new = dataset(5, "old"), rdf(alternatives("dc:title", x_default="new")).encode()
        for digest, title in ((hashlib.md5(old).digest(), "new"), (b"x" * 16, "old")):
            data = tiff([raw(0x02BC, new, BYTE), raw(0x8649, photoshop(old, digest), BYTE)])
            assert checked(data) == {"title": title}

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_big_tiff(self, order: str) -> None:
        data = tiff([text(0x0110, "Scanner 3000")], [text(0x9003, "2024:05:01 12:30:00")], order=order, big=True)
        assert sniff(data) == "image/tiff"
        assert checked(data) == {"camera": "Scanner 3000", "taken_at": "2024-05-01T12:30:00", "year": 2024, "month": 5}

    def test_a_gifs_comment(self) -> None:
        file = io.BytesIO()
        Image.new("P", (8, 8)).save(file, "GIF", comment="Crème brûlée".encode())
        assert checked(file.getvalue()) == {"caption": "Crème brûlée"}
        file = io.BytesIO()
        Image.new("P", (8, 8)).save(file, "GIF", comment=b"Created with GIMP")
        assert checked(file.getvalue()) == {}

    @pytest.mark.parametrize(
        "name", [path.name for path in sorted(SAMPLES.iterdir()) if path.suffix not in {".md", ".jsonl"}]
    )
    def test_the_sample_photos_say_nothing(self, name: str) -> None:
        """They were stripped; what is left are encoders' comments and an orientation."""
        assert checked((SAMPLES / name).read_bytes()) == {}

    @pytest.mark.parametrize("form", PLAIN)
    def test_a_photo_without_metadata(self, form: str) -> None:
        assert checked(PLAIN[form]) == {}

    @pytest.mark.parametrize("media_type", ["", "text/plain", "video/mp4", "image/bmp", "application/pdf"])
    def test_a_type_that_holds_none(self, media_type: str) -> None:
        assert checked(jpeg(self.BLOCK), media_type or "image/x-none") == {}

    def test_a_photoshop_block_over_two_segments(self) -> None:
        block = photoshop(dataset(120, "x" * 2000) + dataset(90, "Prague"))
        inserted = b"".join(
            struct.pack(">BBH", 0xFF, 0xED, len(part) + 16) + b"Photoshop 3.0\0" + part
            for part in (block[:900], block[900:])
        )
        assert checked(jpeg(before=inserted))["city"] == "Prague"


class TestMoments:
    @pytest.mark.parametrize(
        ("entries", "taken_at"),
        [
            ([text(0x9003, "2024:05:01 12:30:00")], "2024-05-01T12:30:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9011, "+05:30")], "2024-05-01T12:30:00+05:30"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9011, "-03:00")], "2024-05-01T12:30:00-03:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9011, "Z")], "2024-05-01T12:30:00+00:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9011, "   :  ")], "2024-05-01T12:30:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9011, "+19:00")], "2024-05-01T12:30:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9291, "050")], "2024-05-01T12:30:00.05"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9291, "000")], "2024-05-01T12:30:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9291, "1234567890")], "2024-05-01T12:30:00.123456"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9291, " ab")], "2024-05-01T12:30:00"),
            ([text(0x9003, "2024-05-01T12:30:60")], "2024-05-01T12:30:59"),
            ([text(0x9003, "1826:06:04 09:00:00")], "1826-06-04T09:00:00"),
            ([text(0x9004, "2024:05:01 12:30:00"), text(0x9012, "+02:00")], "2024-05-01T12:30:00+02:00"),
            ([text(0x9003, "0000:00:00 00:00:00"), text(0x9004, "2024:05:01 12:30:00")], "2024-05-01T12:30:00"),
            ([text(0x9003, "2024:05:01 12:30:00"), text(0x9004, "2025:01:01 00:00:00")], "2024-05-01T12:30:00"),
        ],
    )
    def test_exif(self, entries: list[Entry], taken_at: str) -> None:
        assert of_exif(*entries)["taken_at"] == taken_at

    @pytest.mark.parametrize(
        "given",
        ["", "    :  :     :  :  ", "0000:00:00 00:00:00", "2024:13:01 00:00:00", "2024:02:30 10:00:00", "yesterday",
         "2024:05:01 25:00:00", "1825:12:31 23:59:59", "2101:01:01 00:00:00", "9999:99:99 99:99:99", "٢٠٢٤:05:01 12:30:00"],
    )  # fmt: skip
    def test_what_is_none(self, given: str) -> None:
        assert of_exif(text(0x9003, given)) == {}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("2024-05-01T12:30:00.50+02:00", {"taken_at": "2024-05-01T12:30:00.5+02:00", "year": 2024, "month": 5}),
            ("2024-05-01T12:30Z", {"taken_at": "2024-05-01T12:30:00+00:00", "year": 2024, "month": 5}),
            ("2024-05-01", {"taken_at": "2024-05-01T00:00:00", "year": 2024, "month": 5}),
            ("2024-05", {"year": 2024, "month": 5}),
            ("1931", {"year": 1931}),
            ("2024-17", {}),
        ],
    )
    def test_xmp_may_say_less_than_a_day(self, given: str, said: dict[str, Any]) -> None:
        assert of_xmp(f"<photoshop:DateCreated>{given}</photoshop:DateCreated>") == said

    def test_iptc_has_date_and_time_apart(self) -> None:
        assert of_iptc(dataset(55, "20240501"), dataset(60, "123000+0200"))["taken_at"] == "2024-05-01T12:30:00+02:00"
        assert of_iptc(dataset(55, "20240501"))["taken_at"] == "2024-05-01T00:00:00"
        assert of_iptc(dataset(55, "19310000")) == {"year": 1931}
        assert of_iptc(dataset(60, "123000+0200")) == {}

    def test_a_year_is_the_clocks_not_that_of_utc(self) -> None:
        said = of_exif(text(0x9003, "2024:01:01 00:30:00"), text(0x9011, "+02:00"))
        assert (said["year"], said["month"]) == (2024, 1)

    @given(st.datetimes(datetime.datetime(1826, 1, 1), datetime.datetime(2100, 12, 31)), st.integers(-56, 56))
    @settings(max_examples=100, deadline=None)
    def test_any_moment_is_the_same_in_every_form(self, when: datetime.datetime, quarters: int) -> None:
        when = when.replace(tzinfo=datetime.timezone(datetime.timedelta(minutes=15 * quarters)))
        zone = when.strftime("%z")
        forms = [
            values.moment(when.isoformat()),
            values.moment(
                when.strftime("%Y:%m:%d %H:%M:%S").zfill(19), f"{when.microsecond:06}", f"{zone[:3]}:{zone[3:]}"
            ),
            values.moment(when.strftime("%Y%m%dT%H%M%S").zfill(15) + f".{when.microsecond:06}" + zone),
            values.moment(
                "D:" + when.strftime("%Y%m%d%H%M%S").zfill(14) + f".{when.microsecond:06}{zone[:3]}'{zone[3:]}'"
            ),
        ]
        assert all(datetime.datetime.fromisoformat(form["taken_at"]) == when for form in forms)


class TestPlaces:
    @pytest.mark.parametrize(("north", "east"), [*itertools.product("NS", "EW")])
    def test_hemispheres(self, north: str, east: str) -> None:
        gps = [
            text(1, north),
            ratio(2, (10, 1), (30, 1), (0, 1)),
            text(3, east),
            ratio(4, (20, 1), (1500, 100), (0, 1)),
        ]
        lat, lon = {"N": 10.5, "S": -10.5}[north], {"E": 20.25, "W": -20.25}[east]
        assert of_exif(gps=gps) == {"place": {"lat": lat, "lon": lon}}
        body = (
            f"<exif:GPSLatitude>10,30.0{north}</exif:GPSLatitude><exif:GPSLongitude>20,15,0{east}</exif:GPSLongitude>"
        )
        assert of_xmp(body) == {"place": {"lat": lat, "lon": lon}}

    @pytest.mark.parametrize("missing", [1, 2, 3, 4])
    def test_without_a_part_there_is_no_place(self, missing: int) -> None:
        """Nor a guess at the side of the equator, which would be wrong for some."""
        assert of_exif(gps=[entry for entry in SYDNEY if entry[0] != missing]) == {}

    @pytest.mark.parametrize(
        "latitude",
        [
            ratio(2, (33, 0), (51, 1), (24, 1)),
            ratio(2, (33, 1), (51, 1), (0, 0)),
            ratio(2, (91, 1), (0, 1), (0, 1)),
            ratio(2, (90, 1), (0, 1), (1, 1)),
            ratio(2, (4294967295, 1), (0, 1), (0, 1)),
            ratio(2, (-33, 1), (0, 1), (0, 1), kind=SRATIONAL),
            (2, DOUBLE, 3, struct.pack("<3d", float("nan"), float("inf"), 0)),
            text(2, "33 51 24"),
            ratio(2),
        ],
    )
    def test_what_is_nowhere(self, latitude: Entry) -> None:
        assert of_exif(gps=[entry for entry in SYDNEY if entry[0] != 2] + [latitude]) == {}

    def test_null_island_counts_with_a_fix_alone(self) -> None:
        gps = [text(1, "N"), ratio(2, (0, 1), (0, 1), (0, 1)), text(3, "E"), ratio(4, (0, 1), (0, 1), (0, 1))]
        assert of_exif(gps=gps) == of_exif(gps=[*gps, text(9, "V")]) == {}
        assert of_exif(gps=[*gps, text(9, "A")]) == {"place": {"lat": 0.0, "lon": 0.0}}

    @pytest.mark.parametrize(
        ("reference", "height", "metres"),
        [(b"\0", (585, 10), 58.5), (b"\1", (585, 10), -58.5), (b"\3", (58, 1), -58.0), (b"\0", (1, 0), None),
         (b"\0", (4294967295, 1), None), (b"\1", (20000, 1), None)],
    )  # fmt: skip
    def test_altitudes(self, reference: bytes, height: tuple[int, int], metres: float | None) -> None:
        found = of_exif(gps=[*SYDNEY[:4], raw(5, reference, BYTE), ratio(6, height)])
        assert found["place"] and found.get("altitude") == metres

    def test_xmps_altitude(self) -> None:
        found = of_xmp(
            attributes='exif:GPSLatitude="10,0N" exif:GPSLongitude="20,0E" exif:GPSAltitude="21/2" exif:GPSAltitudeRef="1"'
        )
        assert found == {"place": {"lat": 10.0, "lon": 20.0}, "altitude": -10.5}

    @pytest.mark.parametrize("given", ["10,0", "10.5", "N", "10,0X", "100,0N", "nanN", "1e9N", "٣,0N", ",N"])
    def test_xmp_that_is_nowhere(self, given: str) -> None:
        assert of_xmp(attributes=f'exif:GPSLatitude="{given}" exif:GPSLongitude="20,0E"') == {}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("+37.3349-122.0090+012.3/", {"place": {"lat": 37.3349, "lon": -122.009}, "altitude": 12.3}),
            ("-33.8568+151.2153/", {"place": {"lat": -33.8568, "lon": 151.2153}}),
            ("+4012.22-07500.25", {"place": {"lat": 40.2036667, "lon": -75.0041667}}),
            ("+401213.1-0750015.1-5CRSWGS_84/", {"place": {"lat": 40.2036389, "lon": -75.0041944}, "altitude": -5.0}),
            ("+00.0000+000.0000/", {}),
            ("+91.0000+000.1000/", {}),
            ("37.3349-122.0090/", {}),
            ("+3-1/", {}),
            ("", {}),
        ],
    )
    def test_iso_6709(self, given: str, said: dict[str, Any]) -> None:
        assert values.iso_6709(given) == said


class TestCameraAndExposure:
    @pytest.mark.parametrize(
        ("make", "model", "camera"),
        [
            ("Canon", "Canon EOS R5", "Canon EOS R5"),
            ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
            ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
            ("OLYMPUS IMAGING CORP.  ", "E-M5           ", "OLYMPUS E-M5"),
            ("EASTMAN KODAK COMPANY", "KODAK DC290 ZOOM DIGITAL CAMERA", "KODAK DC290 ZOOM DIGITAL CAMERA"),
            ("RICOH IMAGING COMPANY, LTD.", "GR III", "RICOH GR III"),
            ("CASIO COMPUTER CO.,LTD.", "EX-Z75", "CASIO COMPUTER EX-Z75"),
            ("samsung", "SM-G991B", "samsung SM-G991B"),
            ("SONY", "", "SONY"),
            ("", "X100", "X100"),
            ("", "", None),
            ("Coop", "Coop 1", "Coop 1"),
            ("Coop", "One", "Coop One"),
        ],
    )
    def test_a_make_is_said_once(self, make: str, model: str, camera: str | None) -> None:
        assert of_exif(image=[text(0x010F, make), text(0x0110, model)]).get("camera") == camera
        assert of_xmp(attributes=f'tiff:Make="{make}" tiff:Model="{model}"').get("camera") == camera

    def test_a_camera_is_from_one_source(self) -> None:
        packet = rdf(attributes='tiff:Make="Canon" tiff:Model="EOS R5"')
        assert checked(jpeg(tiff([text(0x010F, "SONY")]), packet))["camera"] == "SONY"

    def test_all_of_an_exposure(self) -> None:
        found = of_exif(
            ratio(0x829A, (1, 125)), ratio(0x829D, (28, 10)), short(0x8827, 400), ratio(0x920A, (50, 1)), short(0xA405, 75),
            short(0x9209, 25), text(0xA434, "RF50mm F1.2 L USM"),
        )  # fmt: skip
        assert found == {
            "lens": "RF50mm F1.2 L USM",
            "exposure": {"seconds": 0.008, "f_number": 2.8, "iso": 400, "focal_length_mm": 50.0, "focal_length_35mm": 75.0,
                         "flash": True},
        }  # fmt: skip

    def test_the_same_from_xmp(self) -> None:
        assert of_xmp(
            "<exif:ISOSpeedRatings><rdf:Seq><rdf:li>400</rdf:li></rdf:Seq></exif:ISOSpeedRatings>"
            '<exif:Flash rdf:parseType="Resource"><exif:Fired>False</exif:Fired></exif:Flash>',
            'exif:ExposureTime="1/125" exif:FNumber="28/10" exif:FocalLength="50/1" aux:Lens="50mm f/1.2"',
        ) == {
            "lens": "50mm f/1.2",
            "exposure": {"seconds": 0.008, "f_number": 2.8, "iso": 400, "focal_length_mm": 50.0, "flash": False},
        }

    def test_a_structure_may_be_an_attribute_or_a_description(self) -> None:
        assert of_xmp('<exif:Flash exif:Fired="True"/>')["exposure"] == {"flash": True}
        assert of_xmp('<exif:Flash><rdf:Description exif:Fired="True"/></exif:Flash>')["exposure"] == {"flash": True}

    @pytest.mark.parametrize(
        "entry",
        [
            ratio(0x829A, (1, 0)), ratio(0x829A, (0, 0)), ratio(0x829A, (0, 1)), ratio(0x829D, (0, 5)), short(0x8827, 0),
            short(0x8827, 65535), ratio(0x920A, (4294967295, 1)), short(0xA405, 0), raw(0x829A, b""), text(0x829A, "1/125"),
            (0x829D, DOUBLE, 1, struct.pack("<d", float("inf"))), (0x9209, DOUBLE, 1, struct.pack("<d", float("nan"))),
            (0x8827, DOUBLE, 1, struct.pack("<d", 1e308)), (0x829A, 99, 1, b"abcd"), (0x829A, RATIONAL, 1, b""),
        ],
    )  # fmt: skip
    def test_numbers_that_are_none(self, entry: Entry) -> None:
        assert of_exif(entry) == {}

    def test_a_speed_that_does_not_fit(self) -> None:
        assert of_exif(short(0x8827, 65535), (0x8832, LONG, 1, struct.pack("<I", 102400)))["exposure"] == {
            "iso": 102400
        }

    @pytest.mark.parametrize(
        ("given", "stars"), [("5", 5), ("0", 0), ("3.0", 3), ("-1", None), ("6", None), ("x", None), ("1/0", None)]
    )
    def test_ratings(self, given: str, stars: int | None) -> None:
        assert of_xmp(attributes=f'xmp:Rating="{given}"').get("rating") == stars

    def test_windows_rating_counts_where_xmp_has_none(self) -> None:
        assert of_exif(image=[short(0x4746, 4)]) == {"rating": 4}
        assert checked(jpeg(tiff([short(0x4746, 4)]), rdf(attributes='xmp:Rating="2"'))) == {"rating": 2}


class TestTexts:
    @pytest.mark.parametrize(
        "default",
        ["OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "Minolta DSC", "KONICA MINOLTA DIGITAL CAMERA", "Exif_JPEG_PICTURE",
         "SAMSUNG DIGITAL CAMERA", "My beautiful picture", "DCF 1.0", "<Digimax i6 PMP, Samsung #1>", "untitled", "dav", "...",
         "charset=Ascii", "Created with GIMP", "    ", "???", "oznorWO", "Digital StillCamera", "File written by Adobe Photoshop® 5.0", '{"shape": [3, 4]}'],
    )  # fmt: skip
    def test_what_cameras_write_is_no_caption(self, default: str) -> None:
        assert of_exif(image=[text(0x010E, default)]) == {}
        assert checked(
            jpeg(tiff([text(0x010E, default)]), rdf(alternatives("dc:description", x_default="A boat")))
        ) == {"caption": "A boat"}

    @pytest.mark.parametrize(
        "said", ["Nikon F3 on a table", "A digital camera shop", "Created equal", "Picture of a hdr", "Untitled 7"]
    )
    def test_what_people_write_is_one(self, said: str) -> None:
        assert of_exif(image=[text(0x010E, said)]) == {"caption": said}

    @pytest.mark.parametrize(
        ("stored", "said"),
        [
            ("Höhle".encode(), "Höhle"),
            ("Höhle".encode("latin-1"), "Höhle"),
            ("“quoted”".encode("cp1252"), "“quoted”"),
            (b"one\r\ntwo\tthree\x07\x1b[31m", "one two three [31m"),
            ("e\u0301".encode(), "é"),
            (b"cut\0here", "cut"),
            (b"\xed\xa0\x80 half a pair", "í\xa0€ half a pair".replace("\xa0", " ")),
        ],
    )
    def test_exifs_texts(self, stored: bytes, said: str) -> None:
        assert of_exif(image=[text(0x010E, stored)]) == {"caption": said}

    @pytest.mark.parametrize(
        ("stored", "said"),
        [
            (b"ASCII\0\0\0plain", "plain"),
            (b"\0" * 8 + b"plain\0\0\0", "plain"),
            (b"JIS\0\0\0\0\0" + "日本".encode("iso2022_jp"), "日本"),
            (b"UNICODE\0" + "Bär".encode("utf-16-le"), "Bär"),
            (b"UNICODE\0" + "Bär".encode("utf-16-be"), "Bär"),
            (b"UNICODE\0" + "日本".encode("utf-16"), "日本"),
            (b"UNICODE\0" + "日本".encode("utf-16-le"), "日本"),
            (b"no mark before it", "no mark before it"),
            (b"UNICODE\0" + b"\x3d\xd8", "\ufffd"),
            (b"ASCII\0\0\0" + b" " * 100, None),
            (b"short", "short"),
        ],
    )
    def test_user_comments(self, stored: bytes, said: str | None) -> None:
        expected = {} if said is None or said == "\ufffd" else {"caption": said}
        assert of_exif(raw(0x9286, stored)) == expected

    def test_a_user_comment_in_the_order_of_its_directory(self) -> None:
        block = tiff(details=[raw(0x9286, b"UNICODE\0" + "日本".encode("utf-16-be"))], order=">")
        assert checked(jpeg(block)) == {"caption": "日本"}

    def test_windows_texts(self) -> None:
        image = [
            wide(0x9C9B, "Höhle"),
            wide(0x9C9C, "Ein 🐻"),
            wide(0x9C9D, "Ada"),
            wide(0x9C9E, "bear; Wald;Bear;;"),
            wide(0x9C9F, "Bären"),
        ]
        assert of_exif(image=image) == {
            "title": "Höhle",
            "caption": "Ein 🐻",
            "creator": "Ada",
            "tags": ["bear", "Wald"],
        }

    def test_half_a_pair_in_utf_16(self) -> None:
        assert of_exif(image=[raw(0x9C9B, b"a\0\x3d\xd8b\0\0\0", BYTE)])["title"].startswith("a")

    @pytest.mark.parametrize(
        ("datasets", "city"),
        [
            ([UTF_8, dataset(90, "Kraków")], "Kraków"),
            ([dataset(90, "Genève".encode("latin-1"))], "Genève"),
            ([dataset(90, "Kraków")], "Kraków"),
            ([dataset(90, b"\x1b-A", record=1), dataset(90, "Genève".encode("latin-1"))], "Genève"),
            ([UTF_8, dataset(90, b"Gen\xe8ve")], "Gen\ufffdve"),
        ],
    )
    def test_iptcs_encodings(self, datasets: list[bytes], city: str) -> None:
        assert of_iptc(*datasets) == {"city": city}

    def test_all_of_iptc(self) -> None:
        found = of_iptc(
            UTF_8, dataset(0, b"\0\4"), dataset(5, "Harbour"), dataset(25, "boat"), dataset(25, "sea"), dataset(25, "Boat"),
            dataset(80, "Ada"), dataset(80, "Bo"), dataset(90, "Brest"), dataset(95, "Bretagne"), dataset(101, "France"),
            dataset(116, "© Ada"), dataset(120, "A boat."), dataset(65, "PhotoTool"),
        )  # fmt: skip
        assert found == {
            "title": "Harbour", "tags": ["boat", "sea"], "creator": "Ada; Bo", "city": "Brest", "region": "Bretagne",
            "country": "France", "copyright": "© Ada", "caption": "A boat.", "software": "PhotoTool",
        }  # fmt: skip

    def test_a_long_dataset(self) -> None:
        said = "x" * 3000
        long = struct.pack(">BBBHI", 0x1C, 2, 120, 0x8004, len(said)) + said.encode()
        assert of_iptc(long, dataset(90, "Brest")) == {"caption": said, "city": "Brest"}

    def test_what_follows_a_broken_dataset_is_left_out(self) -> None:
        assert of_iptc(dataset(90, "Brest"), b"\x1c\2\x65\x7f\xffFrance") == {"city": "Brest"}
        assert of_iptc(dataset(90, "Brest"), b"junk", dataset(101, "France")) == {"city": "Brest"}

    def test_all_of_xmp(self) -> None:
        place = "".join(f"<Iptc4xmpExt:{name}>{said}</Iptc4xmpExt:{name}>" for name, said in
                        {"City": "Brest", "ProvinceState": "Bretagne", "CountryName": "France"}.items())  # fmt: skip
        found = of_xmp(
            alternatives("dc:title", de_DE="Hafen", x_default="Harbour") + alternatives("dc:description", fr="Un bateau.")
            + alternatives("dc:rights", x_default="© Ada") + listed("dc:creator", "Ada", "Bo", kind="Seq")
            + listed("dc:subject", "boat", "sea", "BOAT")
            + f'<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li rdf:parseType="Resource">{place}</rdf:li></rdf:Bag>'
            "</Iptc4xmpExt:LocationCreated><other:thing><dc:title>no</dc:title></other:thing>",
            'xmp:CreatorTool="Lightroom" other:City="no"',
        )  # fmt: skip
        assert found == {
            "title": "Harbour", "caption": "Un bateau.", "copyright": "© Ada", "creator": "Ada; Bo", "tags": ["boat", "sea"],
            "city": "Brest", "region": "Bretagne", "country": "France", "software": "Lightroom",
        }  # fmt: skip

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_xmps_encodings(self, encoding: str) -> None:
        packet = rdf(listed("dc:subject", "Bär 🐻")).removeprefix(
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        )
        assert checked(webp(xmp_packet=packet.encode(encoding))) == {"tags": ["Bär 🐻"]}

    def test_a_copyright_of_two(self) -> None:
        assert of_exif(image=[text(0x8298, b"Ada\0Bo")]) == {"copyright": "Ada, Bo"}
        assert of_exif(image=[text(0x8298, b" \0Bo")]) == {"copyright": "Bo"}

    def test_caps(self) -> None:
        found = of_xmp(
            alternatives("dc:title", x_default="ä" * 5000) + listed("dc:subject", "y" * 200, *map(str, range(300)))
        )
        assert found["title"] == "ä" * 4096
        assert found["tags"] == ["y" * 128, *map(str, range(99))]

    def test_what_normalizing_makes_longer_is_cut_again(self) -> None:
        assert len(of_exif(image=[text(0x010E, "\ufb2c" * 4096)])["caption"]) == 4096


class TestDisagreement:
    """Metadata Working Group 2.0: EXIF, then XMP, then IPTC, unless IPTC was changed after XMP."""

    CASES: ClassVar = {
        "caption": (0x010E, 120, "dc:description"),
        "copyright": (0x8298, 116, "dc:rights"),
        "creator": (0x013B, 80, "dc:creator"),
        "title": (None, 5, "dc:title"),
        "city": (None, 90, "photoshop:City"),
        "region": (None, 95, "photoshop:State"),
        "country": (None, 101, "photoshop:Country"),
        "software": (0x0131, 65, "xmp:CreatorTool"),
    }

    @pytest.mark.parametrize("field", CASES)
    @pytest.mark.parametrize(
        "sources", [*itertools.chain(*(itertools.combinations("EIX", count) for count in (1, 2, 3)))]
    )
    @pytest.mark.parametrize("digest", ["none", "zeros", "right", "wrong", "short"])
    def test_texts(self, field: str, sources: tuple[str, ...], digest: str) -> None:
        tag, number, name = self.CASES[field]
        block = dataset(number, "of IPTC") if "I" in sources else b""
        given = {
            "none": None, "zeros": bytes(16), "right": hashlib.md5(block).digest(), "wrong": b"x" * 16, "short": b"x",
        }[digest]  # fmt: skip
        data = jpeg(
            tiff([text(tag, "of EXIF")]) if "E" in sources and tag else b"",
            rdf(alternatives(name, x_default="of XMP")) if "X" in sources else b"",
            block,
            given,
        )
        order = ["E" if tag else "", *("IX" if digest == "wrong" else "XI")]
        counts = next((source for source in order if source in sources), None)
        expected = {} if counts is None else {field: {"E": "of EXIF", "I": "of IPTC", "X": "of XMP"}[counts]}
        assert checked(data) == expected

    @pytest.mark.parametrize("changed", [False, True])
    @pytest.mark.parametrize(
        "sources", [*itertools.chain(*(itertools.combinations("EIX", count) for count in (1, 2, 3)))]
    )
    def test_moments_and_tags(self, sources: tuple[str, ...], changed: bool) -> None:
        data = jpeg(
            tiff([wide(0x9C9E, "E")], [text(0x9003, "2001:01:01 00:00:00")]) if "E" in sources else b"",
            rdf(listed("dc:subject", "X"), 'photoshop:DateCreated="2002-02-02"') if "X" in sources else b"",
            dataset(25, "I") + dataset(55, "20030303") if "I" in sources else b"",
            b"x" * 16 if changed else None,
        )
        newer = "IX" if changed else "XI"
        found = checked(data)
        year = next(source for source in "E" + newer if source in sources)
        assert found["year"] == {"E": 2001, "X": 2002, "I": 2003}[year]
        assert found["tags"] == [next(source for source in newer + "E" if source in sources)]

    def test_iptc_that_is_xmp_cut_short_is_no_change(self) -> None:
        packet = rdf(alternatives("dc:description", x_default="A boat in the harbour"))
        assert checked(jpeg(b"", packet, dataset(120, "A boat in"), b"x" * 16)) == {"caption": "A boat in the harbour"}

    def test_an_empty_source_does_not_count(self) -> None:
        packet = rdf(alternatives("dc:description", x_default="  "))
        assert checked(jpeg(tiff([text(0x010E, " ")]), packet, dataset(120, "A boat"))) == {"caption": "A boat"}

    def test_a_broken_source_does_not_count(self) -> None:
        packet = rdf(attributes='photoshop:DateCreated="2002-02-30" exif:DateTimeOriginal="2004-04-04"')
        block = tiff(details=[text(0x9003, "0000:00:00 00:00:00")], gps=SYDNEY[:3])
        assert checked(jpeg(block, packet, dataset(55, "20030303")))["year"] == 2003
        assert checked(jpeg(block, packet))["year"] == 2004

    def test_exifs_place_counts_before_xmps(self) -> None:
        packet = rdf(attributes='exif:GPSLatitude="10,0N" exif:GPSLongitude="20,0E" exif:GPSAltitude="9/1"')
        assert checked(jpeg(tiff(gps=SYDNEY[:4]), packet)) == {"place": {"lat": -33.8568333, "lon": 151.2111111}}
        assert checked(jpeg(tiff(gps=SYDNEY[:3]), packet))["altitude"] == 9.0


class TestHostile:
    """Bounded in time and memory, whatever a header says."""

    BOMB = zlib.compress(bytes(100_000_000))

    @pytest.fixture(autouse=True)
    def _bounded(self) -> Any:
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 * 2**20

    def test_billion_laughs(self) -> None:
        entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        packet = (
            f'<!DOCTYPE x [<!ENTITY l0 "lol">{entities}]>'
            + rdf(alternatives("dc:title", x_default="&l9;")).split("?>", 1)[1]
        )
        for encoding in ("utf-8", "utf-16", "utf-16-le"):
            assert checked(webp(xmp_packet=packet.encode(encoding))) == {}

    def test_files_of_others(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("the secret")
        packet = (
            f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
            + rdf(listed("dc:subject", "&e;")).split("?>", 1)[1]
        )
        assert checked(jpeg(xmp_packet=packet)) == {}

    def test_a_declared_encoding_hides_nothing(self) -> None:
        hidden = (
            '<!DOCTYPE x [<!ENTITY e "boo">]>'.encode("utf-7")
            + rdf(listed("dc:subject", "&e;")).split("?>", 1)[1].encode()
        )
        assert checked(webp(xmp_packet=b'<?xml version="1.0" encoding="UTF-7"?>' + hidden)) == {}
        honest = rdf(listed("dc:subject", "Bär")).split("?>", 1)[1].encode()
        assert checked(webp(xmp_packet=b'<?xml version="1.0" encoding="UTF-16"?>' + honest)) == {"tags": ["Bär"]}

    def test_a_character_may_be_a_reference_but_no_surrogate(self) -> None:
        assert of_xmp(listed("dc:subject", "B&#xE4;r &amp; &#x1F43B;")) == {"tags": ["Bär & 🐻"]}
        assert of_xmp(listed("dc:subject", "&#xD800;")) == {}

    def test_ten_megabytes_of_xmp(self) -> None:
        packet = rdf(listed("dc:subject", "boat") + " " * 10_000_000).encode()
        assert xmp.read(packet) == {}
        for data in (
            webp(xmp_packet=packet),
            png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)),
            png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet))),
            tiff([raw(0x02BC, packet, BYTE)]),
        ):
            assert checked(data) == {}

    @pytest.mark.parametrize(
        "body",
        ["<dc:a>" * 70_000 + "</dc:a>" * 70_000, "<dc:a/>" * 130_000, "<dc:a rdf:x=''>" + "z" * 10**6 + "</dc:a>"],
    )
    def test_deep_wide_and_long_xmp(self, body: str) -> None:
        assert checked(webp(xmp_packet=rdf(body, 'xmp:Rating="3"').encode())) == {"rating": 3}

    def test_structures_end_somewhere(self) -> None:
        body = "<dc:a><rdf:Description>" * 5000 + "x" + "</rdf:Description></dc:a>" * 5000
        assert checked(webp(xmp_packet=rdf(body, 'xmp:Rating="3"').encode())) == {"rating": 3}

    def test_broken_xmp(self) -> None:
        whole = rdf(listed("dc:subject", "boat"))
        for packet in (
            whole[:-80],
            whole.replace("rdf:RDF", "rdf:Other"),
            whole.replace("<dc", "<undeclared"),
            "<",
            "<a>",
            "\0",
        ):
            assert checked(jpeg(xmp_packet=packet)) == {}
        assert checked(jpeg(xmp_packet=whole + "\0\0 trailing")) == {"tags": ["boat"]}

    def test_directories_that_point_to_each_other(self) -> None:
        data = bytearray(tiff([text(0x0110, "X100")]))
        for tag in (0x8769, 0x8825):
            at = data.index(struct.pack("<HHI", tag, LONG, 1)) + 8
            data[at : at + 4] = struct.pack("<I", 8)
        data[8 + 2 + 3 * 12 : 8 + 2 + 3 * 12 + 4] = struct.pack("<I", 8)  # the next one is the first again
        assert checked(jpeg(bytes(data))) == {"camera": "X100"}

    @pytest.mark.parametrize("offset", [0, 1, 7, 2**16, 2**31, 2**32 - 1])
    def test_offsets_out_of_range(self, offset: int) -> None:
        for at in (4, None):
            data = bytearray(tiff([text(0x0110, "Camera X100")], [text(0x9003, "2024:05:01 12:30:00")]))
            place = at or data.index(struct.pack("<HHI", 0x8769, LONG, 1)) + 8
            data[place : place + 4] = struct.pack("<I", offset)
            assert checked(jpeg(bytes(data))) in ({}, {"camera": "Camera X100"})

    def test_counts_that_do_not_fit(self) -> None:
        for count in (2**31, 2**32 - 1, 65537):
            entry = struct.pack("<HHII", 0x0110, ASCII, count, 8)
            assert checked(jpeg(b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + entry)) == {}
        big = (
            b"II+\0\x08\0\0\0"
            + struct.pack("<QQ", 16, 2**64 - 1)
            + struct.pack("<HHQQ", 0x0110, ASCII, 2**64 - 1, 2**64 - 1)
        )
        assert checked(big, "image/tiff") == {}

    def test_of_an_entry_that_is_there_twice_the_first_counts(self) -> None:
        assert of_exif(image=[text(0x0110, "first"), text(0x0110, "second")]) == {"camera": "first"}

    def test_no_value_lies_in_the_header(self) -> None:
        assert of_exif(image=[(0x0110, ASCII, 6, b"")]) == {}

    def test_a_directory_is_not_read_beyond_a_thousand_entries(self) -> None:
        assert of_exif(image=[short(1, 1)] * 990 + [text(0x0110, "X100")]) == {"camera": "X100"}
        assert of_exif(image=[short(1, 1)] * 1001 + [text(0x0110, "X100")]) == {}

    def test_a_thousand_entries_with_one_long_value(self) -> None:
        entries = b"".join(struct.pack("<HHII", tag, ASCII, 2**16, 8) for tag in range(0x0100, 0x0100 + 5000))
        data = b"II*\0" + struct.pack("<I", 8 + 2**16) + b"x" * 2**16 + struct.pack("<H", 5000) + entries
        assert checked(data, "image/tiff")["caption"] == "x" * 4096

    def test_a_text_of_accents(self) -> None:
        assert len(of_exif(image=[text(0x010E, "a" + "\u0301\u0316" * 12_000)])["caption"]) <= 4096

    @pytest.mark.parametrize(
        "filler", [b"\xff", b"\0", b"\xff\xe1\0\x02", b"\xff\xd0", b"\xff\xe1\0\0", b"\xff\xe1\xff\xff"]
    )
    def test_long_and_empty_headers(self, filler: bytes) -> None:
        assert checked(b"\xff\xd8\xff" + filler * (5_000_000 // len(filler)), "image/jpeg") == {}

    def test_bombs_in_a_png(self) -> None:
        names = [b"Title", b"Author", b"Comment", b"Description", *(b"other %d" % number for number in range(100))]
        data = png(
            *(chunk(b"zTXt", name + b"\0\0" + self.BOMB) for name in names),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + self.BOMB),
        )
        assert checked(data) == {}
        assert checked(png(chunk(b"zTXt", b"Title\0\0nothing packed"), chunk(b"tEXt", b"Author\0Ada"))) == {
            "creator": "Ada"
        }

    def test_chunks_without_end(self) -> None:
        assert checked(PLAIN["PNG"][:33] + b"\0\0\0\0abcdcrc!" * 100_000) == {}
        assert checked(b"RIFF\xff\xff\xff\xffWEBP" + b"abcd\0\0\0\0" * 100_000) == {}

    def test_a_resource_longer_than_there_is(self) -> None:
        assert iptc.resources(b"8BIM\x04\x04\0\0\xff\xff\xff\xff" + dataset(90, "Brest")).iptc == dataset(90, "Brest")
        assert iptc.resources(b"8BIM\x04\x04\xff") == (b"", b"")

    @given(st.binary(max_size=600), st.sampled_from(sorted(PILLOW_FORMATS)))
    @settings(max_examples=300, deadline=None)
    def test_noise(self, data: bytes, media_type: str) -> None:
        checked(data, media_type)
        exif.read(b"II*\0\x08\0\0\0" + data)
        iptc.read(data)
        iptc.resources(b"8BIM" + data)
        xmp.read(data)

    @given(st.text(max_size=200))
    @settings(max_examples=200, deadline=None)
    def test_any_text(self, said: str) -> None:
        for value in (
            values.moment(said),
            values.iso_6709(said),
            {"title": values.first(said)},
            {"place": values.xmp_degrees(said)},
        ):
            json.dumps(value, allow_nan=False)
        if clean := values.clean(said):
            check({"title": clean, "tags": values.tags([said])})

    WHOLE: ClassVar = {
        "image/jpeg": jpeg(
            tiff(
                [text(0x010F, "Canon"), text(0x010E, "Höhle"), wide(0x9C9E, "a;b"), short(0x4746, 3)],
                [text(0x9003, "2024:05:01 12:30:00"), ratio(0x829A, (1, 125)), raw(0x9286, b"UNICODE\0B\0a\0")],
                SYDNEY,
            ),
            rdf(listed("dc:subject", "Bär") + alternatives("dc:title", x_default="T"), 'xmp:Rating="2"'),
            UTF_8 + dataset(25, "boat") + dataset(55, "20240501") + dataset(60, "120000+0200"),
            b"x" * 16,
        ),
        "image/tiff": tiff(
            [text(0x010F, "Canon"), raw(0x83BB, dataset(25, "boat"), BYTE)], [ratio(0x829A, (1, 9))], SYDNEY
        ),
        "image/webp": webp(tiff([text(0x010F, "Canon")], gps=SYDNEY), rdf(listed("dc:subject", "a")).encode()),
        "image/png": png(chunk(b"eXIf", tiff([text(0x010F, "Canon")], gps=SYDNEY)), chunk(b"tEXt", b"Title\0T")),
    }

    @pytest.mark.parametrize("media_type", WHOLE)
    @given(st.randoms(use_true_random=False))
    @settings(max_examples=150, deadline=None)
    def test_real_headers_with_bytes_changed_cut_and_inserted(self, media_type: str, chance: random.Random) -> None:
        data = bytearray(self.WHOLE[media_type])
        for _ in range(chance.randint(1, 12)):
            at = chance.randrange(min(len(data), 3000))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    data[at : at + 4] = struct.pack(
                        "<I", chance.choice([0, 1, 8, 2**31, 2**32 - 1, chance.randrange(2**16)])
                    )
                case 2:
                    del data[at : at + chance.randrange(1, 40)]
                case _:
                    data[at:at] = chance.randbytes(chance.randrange(1, 20))
        checked(bytes(data), media_type)

    @pytest.mark.parametrize("form", ["AVIF", "HEIF"])
    @given(st.randoms(use_true_random=False))
    @settings(max_examples=30, deadline=None)
    def test_heif_with_bytes_changed(self, form: str, chance: random.Random) -> None:
        file = io.BytesIO()
        picture = Image.new("RGB", (64, 48), "green")
        if form == "HEIF":
            pillow_heif.from_pillow(picture).save(file, exif=tiff([text(0x010F, "Canon")]), quality=30)
        else:
            picture.save(file, form, exif=b"Exif\0\0" + tiff([text(0x010F, "Canon")]), quality=30, speed=10)
        data = bytearray(file.getvalue())
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        checked(bytes(data), "image/heic" if form == "HEIF" else "image/avif")


def video(path: Path, metadata: dict[str, str], form: str = "mp4", *, seconds: int = 2) -> Path:
    options = (
        {"movflags": "use_metadata_tags"} if form in {"mp4", "mov"} and any("." in key for key in metadata) else {}
    )
    with av.open(str(path), "w", format=form, options=options) as container:
        container.metadata.update(metadata)
        stream: Any = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(5 * seconds):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (20 * number, 0, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class TestVideos:
    def test_a_phones(self, tmp_path: Path) -> None:
        said = {
            "com.apple.quicktime.creationdate": "2024-05-01T14:30:00+0200",
            "creation_time": "2024-05-01T12:30:01.000000Z",
            "com.apple.quicktime.make": "Apple",
            "com.apple.quicktime.model": "iPhone 15 Pro",
            "com.apple.quicktime.location.ISO6709": "-33.8568+151.2153+058.0/",
            "com.apple.quicktime.software": "17.4",
            "com.apple.quicktime.keywords": "sea, boat;sea",
            "title": "Harbour",
        }
        found = check(describe_video(video(tmp_path / "a.mov", said, "mov")))
        assert found.pop("duration") == pytest.approx(2, abs=0.25)
        assert found == {
            "taken_at": "2024-05-01T14:30:00+02:00", "year": 2024, "month": 5, "camera": "Apple iPhone 15 Pro",
            "place": {"lat": -33.8568, "lon": 151.2153}, "altitude": 58.0, "software": "17.4", "tags": ["sea", "boat"],
            "title": "Harbour",
        }  # fmt: skip

    @pytest.mark.parametrize(("form", "suffix"), [("mp4", "mp4"), ("matroska", "mkv"), ("avi", "avi")])
    def test_other_containers_from_bytes_and_from_files(self, tmp_path: Path, form: str, suffix: str) -> None:
        path = video(
            tmp_path / f"a.{suffix}",
            {"title": "Hafen – Bär", "creation_time": "2024-05-01T12:30:00.5Z"},
            form,
            seconds=3,
        )
        found = check(describe_video(path))
        assert found == check(describe_video(path.read_bytes()))
        assert found["title"] == "Hafen – Bär" and found["duration"] == pytest.approx(3, abs=0.25)
        if form != "avi":
            assert found["year"] == 2024 and found["taken_at"].startswith("2024-05-01T12:30:00")

    @pytest.mark.parametrize("never", ["1904-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000000Z"])
    def test_a_clock_that_was_never_set(self, tmp_path: Path, never: str) -> None:
        assert "year" not in describe_video(video(tmp_path / "a.mkv", {"creation_time": never}, "matroska"))

    def test_what_is_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("no video")
        os.mkfifo(tmp_path / "pipe.mp4")
        for source in (b"", b"#EXTM3U\nfile:///etc/passwd", PLAIN["JPEG"], tmp_path, tmp_path / "gone.mp4",
                       tmp_path / "text.mp4", tmp_path / "pipe.mp4"):  # fmt: skip
            assert describe_video(source) == {}

    def test_cut_and_damaged(self, tmp_path: Path) -> None:
        whole = video(tmp_path / "a.mp4", {"title": "Harbour", "creation_time": "2024-05-01T12:30:00Z"}).read_bytes()
        chance = random.Random(5)
        for _ in range(60):
            data = bytearray(whole[: chance.randrange(100, len(whole) + 1)])
            for _ in range(chance.randrange(8)):
                data[chance.randrange(40, len(data))] = chance.randrange(256)
            check(describe_video(bytes(data)))


def pdf(tmp_path: Path, **info: bytes) -> Path:
    """A PDF of one page; values are PDF's own notation."""
    entries = b" ".join(b"/" + key.encode() + b" " + value for key, value in info.items())
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>", b"<<" + entries + b">>",
    ]  # fmt: skip
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj" % number + body + b"endobj\n"
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer<</Size 5/Root 1 0 R/Info 4 0 R>>\nstartxref\n%d\n%%%%EOF" % len(data)
    path = tmp_path / "a.pdf"
    path.write_bytes(data + table + end)
    return path


class TestPdfs:
    def test_all_of_it(self, tmp_path: Path) -> None:
        path = pdf(
            tmp_path, Title=b"(A report)", Author=b"<" + ("\ufeffЖанна".encode("utf-16-be")).hex().encode() + b">",
            Subject=b"(Boats)", Keywords=b"(sea, boat; Sea)", Creator=b"(Writer)", Producer=b"(Library)",
            CreationDate=b"(D:20240501123000+02'00')",
        )  # fmt: skip
        found = check(describe_pdf(path))
        assert found == check(describe_pdf(path.read_bytes())) == {
            "title": "A report", "creator": "Жанна", "caption": "Boats", "tags": ["sea", "boat"], "software": "Writer",
            "taken_at": "2024-05-01T12:30:00+02:00", "year": 2024, "month": 5,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("date", "taken_at"),
        [(b"D:20240501123000Z", "2024-05-01T12:30:00+00:00"), (b"D:20240501123000Z00'00'", "2024-05-01T12:30:00+00:00"),
         (b"D:20240501123000", "2024-05-01T12:30:00"), (b"20240501123000-08'00", "2024-05-01T12:30:00-08:00"),
         (b"D:20240501", "2024-05-01T00:00:00"), (b"D:00000000000000", None), (b"Wed May 1", None)],
    )  # fmt: skip
    def test_dates(self, tmp_path: Path, date: bytes, taken_at: str | None) -> None:
        assert describe_pdf(pdf(tmp_path, CreationDate=b"(" + date + b")")).get("taken_at") == taken_at

    def test_nothing_said_too_much_said_and_no_pdf(self, tmp_path: Path) -> None:
        assert describe_pdf(pdf(tmp_path)) == {}
        assert check(describe_pdf(pdf(tmp_path, Title=b"(" + b"x" * 200_000 + b")", Author=b"(Ada)"))) == {
            "creator": "Ada"
        }
        os.mkfifo(tmp_path / "pipe.pdf")
        for source in (b"", b"%PDF-1.7\n%", PLAIN["JPEG"], tmp_path, tmp_path / "gone.pdf", tmp_path / "pipe.pdf"):
            assert describe_pdf(source) == {}

    def test_the_file_is_let_go(self, tmp_path: Path) -> None:
        path = pdf(tmp_path, Title=b"(A report)")
        for _ in range(3):
            assert describe_pdf(path)["title"] == "A report"
        path.write_bytes(b"")
        assert describe_pdf(path) == {}

    def test_damaged(self, tmp_path: Path) -> None:
        whole = pdf(tmp_path, Title=b"(A report)", CreationDate=b"(D:20240501123000)").read_bytes()
        chance = random.Random(6)
        for _ in range(60):
            data = bytearray(whole[: chance.randrange(20, len(whole) + 1)])
            for _ in range(chance.randrange(6)):
                data[chance.randrange(8, len(data))] = chance.randrange(256)
            check(describe_pdf(bytes(data)))


def test_importing_it_loads_neither_video_nor_pdf_libraries() -> None:
    """So that who ingests photos does not wait for them."""
    code = (
        "import sys, indexer.media.metadata, indexer.media.containers\n"
        "print(sorted({'av', 'pypdfium2', 'pillow_heif', 'onnxruntime', 'celery', 'flask'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_no_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pixels were asked for")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    for data in PLAIN.values():
        assert checked(data) == {}
    assert checked(jpeg(TestFormats.BLOCK, TestFormats.PACKET)) == TestFormats.SAID

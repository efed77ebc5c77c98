"""Videos, animations and PDFs through the pipeline: each frame and page an item, each file counted once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import ModelError
from indexer.items import content_id, sha256_hex
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.report import Report
from indexer.settings import Settings
from indexer.store import Collection, open_store
from tests.indexer.media.test_frames import animated, document, encoded, noise, words

SECONDS = 12
"""Of the test's videos: by the clock, every five seconds, three frames of them are taken."""


@pytest.fixture
def collection(settings: Settings, encoder: Encoder) -> Iterator[Collection]:
    with open_store(settings) as store:
        yield store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def film(*seeds: int) -> bytes:
    """A video of noise, which differs from second to second."""
    return encoded("mp4", [noise(seed) for seed in seeds or range(SECONDS * 10)])


def run(collection: Collection, encoder: Encoder, settings: Settings, *sources: Path, **more: object) -> Report:
    return ingest(
        [str(source) for source in sources], collection=collection, encoder=encoder, settings=settings, **more
    )  # type: ignore[arg-type]


def counts(report: Report) -> tuple[int, int, int, int]:
    assert report.total == report.indexed + report.skipped + report.failed
    return report.indexed, report.skipped, report.failed, report.frames


def first_of(collection: Collection, path: Path) -> str:
    return content_id(collection.name, sha256_hex(path.read_bytes()))


def test_each_frame_is_an_item_under_its_file(collection, encoder, settings, folder) -> None:
    clip = folder / "clip.mp4"
    clip.write_bytes(film())
    assert counts(run(collection, encoder, settings, folder)) == (1, 0, 0, 3)
    parts = sorted(collection.parts(first_of(collection, clip)), key=lambda part: part.record.seconds)
    assert [part.record.seconds for part in parts] == [0, 5, 10]
    assert [part.record.locations[0].source for part in parts] == [str(clip), f"{clip}#t=5", f"{clip}#t=10"]
    assert parts[0].id == parts[0].record.parent == first_of(collection, clip)
    assert [part.record.frames for part in parts] == [3, None, None]
    assert {(part.record.kind, part.record.media_type, part.record.width) for part in parts} == {
        ("video", "video/mp4", 64)
    }
    assert len({part.id for part in parts}) == collection.count() == 3
    assert len({part.record.pdq for part in parts} - {None}) == 3


def test_each_page_is_an_item_with_its_text(collection, encoder, settings, folder) -> None:
    paper = folder / "paper.pdf"
    paper.write_bytes(document(words("one"), words("two")))
    assert counts(run(collection, encoder, settings, folder)) == (1, 0, 0, 2)
    parts = sorted(collection.parts(first_of(collection, paper)), key=lambda part: part.record.page)
    assert [(part.record.page, part.record.text, part.record.kind) for part in parts] == [
        (1, "one", "page"), (2, "two", "page"),
    ]  # fmt: skip
    assert parts[1].record.locations[0].source == f"{paper}#page=2"


def test_an_animation_gives_frames_and_a_picture_one(collection, encoder, settings, folder) -> None:
    (folder / "moving.gif").write_bytes(animated("GIF", [noise(1), noise(2)], duration=500))
    (folder / "moving.webp").write_bytes(animated("WEBP", [noise(3), noise(4), noise(5)], duration=500))
    noise(6).save(folder / "still.gif")
    noise(7).save(folder / "still.webp")
    assert counts(run(collection, encoder, settings, folder)) == (4, 0, 0, 5)
    assert collection.count() == 7
    still = collection.get(first_of(collection, folder / "still.gif"))
    assert (still.record.kind, still.record.parent, still.record.whole) == ("image", None, True)


def test_what_is_known_is_not_decoded_again(collection, encoder, settings, folder) -> None:
    (folder / "clip.mp4").write_bytes(film())
    run(collection, encoder, settings, folder)
    again = run(collection, encoder, settings, folder)
    assert (counts(again), again.decoded) == ((0, 1, 0, 0), 0)


def test_a_copy_is_another_place_of_every_frame(collection, encoder, settings, folder) -> None:
    first, second = folder / "a.mp4", folder / "b.mp4"
    first.write_bytes(film())
    run(collection, encoder, settings, first)
    second.write_bytes(first.read_bytes())
    again = run(collection, encoder, settings, folder)
    assert (counts(again), again.decoded) == ((0, 2, 0, 0), 0)
    for part in collection.parts(first_of(collection, first)):
        behind = "" if part.record.seconds == 0 else f"#t={part.record.seconds:g}"
        assert [place.source for place in part.record.locations] == [f"{first}{behind}", f"{second}{behind}"]
    first.unlink()


def test_two_copies_at_once_are_one_file(collection, encoder, settings, folder) -> None:
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(film())
    assert counts(run(collection, encoder, settings, folder)) == (1, 1, 0, 3)
    last = collection.parts(first_of(collection, folder / "a.mp4"))[-1]
    assert len(last.record.locations) == 2


def test_another_video_under_the_name_takes_its_place(collection, encoder, settings, folder) -> None:
    clip = folder / "clip.mp4"
    clip.write_bytes(film())
    run(collection, encoder, settings, folder)
    old = first_of(collection, clip)
    clip.write_bytes(film(*range(7, 67)))
    os.utime(clip, ns=(1, 1))
    assert counts(run(collection, encoder, settings, folder)) == (1, 0, 0, 2)
    assert collection.parts(old) == []
    assert collection.count() == 2


def test_a_photo_in_a_videos_place_leaves_none_of_its_frames(collection, encoder, settings, folder) -> None:
    clip, table = folder / "clip.mp4", folder / "items.jsonl"
    clip.write_bytes(film())
    table.write_text('{"file": "clip.mp4", "id": "it"}\n')
    run(collection, encoder, settings, table)
    assert collection.count() == 3
    noise(1).save(clip, "PNG")
    assert counts(run(collection, encoder, settings, table)) == (1, 0, 0, 0)
    assert collection.count() == 1


def test_a_cut_video_gives_what_is_there_and_is_tried_again(collection, encoder, settings, folder) -> None:
    clip = folder / "clip.mkv"
    whole = encoded("mkv", [noise(seed) for seed in range(SECONDS * 10)])
    clip.write_bytes(whole[: len(whole) * 2 // 3])
    for _ in range(2):
        report = run(collection, encoder, settings, folder)
        assert counts(report) == (0, 0, 1, 0)
        assert report.failures[0].error.code == "truncated"
        assert report.decoded == collection.count() == 2
    clip.write_bytes(whole)
    assert counts(run(collection, encoder, settings, folder)) == (1, 0, 0, 3)
    assert collection.count() == 3


def test_a_payload_is_every_frames(collection, encoder, settings, folder) -> None:
    (folder / "clip.mp4").write_bytes(film())
    table = folder / "items.jsonl"
    table.write_text('{"file": "clip.mp4", "payload": {"tag": "sea"}}\n')
    run(collection, encoder, settings, table)
    table.write_text('{"file": "clip.mp4", "payload": {"year": 2020}}\n')
    assert counts(run(collection, encoder, settings, table)) == (1, 0, 0, 0)
    parts = collection.parts(first_of(collection, folder / "clip.mp4"))
    assert [part.payload for part in parts] == [{"duration": SECONDS, "tag": "sea", "year": 2020}] * 3


def test_a_frame_that_cannot_be_embedded_leaves_its_file_to_be_tried_again(
    collection, colours, settings, folder, monkeypatch
) -> None:
    (folder / "clip.mp4").write_bytes(film())
    encoder = Encoder(load_bundle(colours))
    good = encoder.encode_pixels

    def broken(pixels):  # type: ignore[no-untyped-def]
        if len(pixels) > 1 or pixels.mean() == broken.bad:
            raise ModelError("The session failed.")
        return good(pixels)

    seen = []
    monkeypatch.setattr(
        encoder, "prepare", lambda image, prepare=encoder.prepare: seen.append(prepare(image)) or seen[-1]
    )
    broken.bad = None
    run(collection, encoder, settings, folder / "clip.mp4")
    broken.bad = seen[1].mean()
    collection.delete_parts(first_of(collection, folder / "clip.mp4"))
    monkeypatch.setattr(encoder, "encode_pixels", broken)
    report = run(collection, encoder, settings, folder)
    assert counts(report) == (0, 0, 1, 0)
    assert collection.count() == 2
    monkeypatch.setattr(encoder, "encode_pixels", good)
    assert counts(run(collection, encoder, settings, folder)) == (1, 0, 0, 3)


def test_photos_beside_a_video_are_not_held_up_in_memory(collection, encoder, settings, folder) -> None:
    for number in range(5):
        noise(100 + number).resize((640, 480)).save(folder / f"{number}.png")
    (folder / "2.mp4").write_bytes(film())
    assert counts(run(collection, encoder, settings, folder)) == (6, 0, 0, 3)
    assert collection.count() == 8


def test_a_page_is_drawn_no_larger_than_is_needed(collection, encoder, settings, folder, monkeypatch) -> None:
    sizes: list[tuple[int, int]] = []

    def note(image: Image.Image, prepare=encoder.prepare):  # type: ignore[no-untyped-def]
        sizes.append(image.size)
        return prepare(image)

    monkeypatch.setattr(encoder, "prepare", note)
    (folder / "poster.pdf").write_bytes(document(words("large"), box="0 0 5000 4000"))
    run(collection, encoder, settings, folder)
    assert max(sizes[0]) < 500


def test_what_a_file_says_of_itself_is_in_the_payload_and_the_caller_overrules_it(
    collection, encoder, settings, folder
) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x010E] = "Canon", "EOS R5", "a lake"
    exif.get_ifd(0x8769)[0x9003] = "2021:06:05 10:20:30"
    for number, name in enumerate(("told.jpg", "said.jpg")):
        noise(number).save(folder / name, exif=exif)
    (folder / "told.txt").write_text("a pond")
    (folder / "clip.mp4").write_bytes(film())
    run(collection, encoder, settings, folder)
    said = collection.get(first_of(collection, folder / "said.jpg")).payload
    assert (said["camera"], said["taken_at"], said["year"]) == ("Canon EOS R5", "2021-06-05T10:20:30", 2021)
    assert said["caption"] == "a lake"
    assert collection.get(first_of(collection, folder / "told.jpg")).payload == {**said, "caption": "a pond"}
    durations = [part.payload["duration"] for part in collection.parts(first_of(collection, folder / "clip.mp4"))]
    assert durations == [SECONDS] * 3
    assert counts(run(collection, encoder, settings, folder)) == (0, 3, 0, 0)


def test_metadata_can_be_left_alone(collection, encoder, settings, folder) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    noise(1).save(folder / "photo.jpg", exif=exif)
    run(collection, encoder, settings.model_copy(update={"metadata": False}), folder)
    assert collection.get(first_of(collection, folder / "photo.jpg")).payload == {}


def test_captions_are_items_of_their_own_if_asked_for(collection, encoder, settings, folder) -> None:
    asked = settings.model_copy(update={"caption_items": True})
    exif = Image.Exif()
    exif[0x010E] = "a lake"
    noise(1).save(folder / "said.jpg", exif=exif)
    noise(2).save(folder / "told.png")
    (folder / "told.txt").write_text("a red car")
    (folder / "clip.mp4").write_bytes(film())
    (folder / "clip.txt").write_text("not read: it goes with images alone")
    assert counts(run(collection, encoder, asked, folder)) == (3, 0, 0, 3)
    texts = {item.record.text: item for item in collection.scan() if item.record.kind == "text"}
    assert texts.keys() == {"a lake", "a red car"}
    told = first_of(collection, folder / "told.png")
    caption = texts["a red car"]
    assert (caption.record.parent, caption.record.locations[0].source) == (told, f"{folder / 'told.png'}#caption")
    assert counts(run(collection, encoder, asked, folder)) == (0, 3, 0, 0)
    (folder / "told.txt").write_text("a blue car")
    assert counts(run(collection, encoder, asked, folder)) == (1, 2, 0, 0)
    texts = {item.record.text for item in collection.scan() if item.record.kind == "text"}
    assert texts == {"a lake", "a blue car"}
    collection.delete([told])
    assert collection.count() == 1 + 1 + 3


def test_a_caption_of_a_video_is_one_item_and_no_frame(collection, encoder, settings, folder) -> None:
    asked = settings.model_copy(update={"caption_items": True})
    (folder / "clip.mp4").write_bytes(film())
    table = folder / "items.jsonl"
    table.write_text('{"file": "clip.mp4", "payload": {"caption": "a green field"}}\n')
    assert counts(run(collection, encoder, asked, table)) == (1, 0, 0, 3)
    assert collection.count() == 4
    assert collection.get(first_of(collection, folder / "clip.mp4")).record.frames == 3
    assert counts(run(collection, encoder, asked, table)) == (0, 1, 0, 0)

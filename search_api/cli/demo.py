"""`crosslens demo`: index the sample photos and search them, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import print_json
from indexer.errors import SourceNotFound
from indexer.settings import Settings

if TYPE_CHECKING:
    from search_api.contact_sheet import Section
    from search_api.engine import SearchEngine

_FOLDER = Path("crosslens-demo")
_SAMPLES = Path("examples") / "media"
_TEXTS = ("an animal", "something to eat or drink", "a building in Asia")
_PICTURE = "cat.jpg"
_TOGETHER = "wild, among leaves"


@click.command()
@click.option("--media", type=click.Path(path_type=Path, file_okay=False), help="Photos  [examples/media]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def demo(media: Path | None, as_json: bool) -> None:
    """Index the sample photos, search them in every way, and make a page of what was found."""
    from indexer.cli.ingest import print_report, run_ingest  # noqa: PLC0415
    from search_api.contact_sheet import stored_thumbnails, write_contact_sheet  # noqa: PLC0415
    from search_api.local import local_engine  # noqa: PLC0415

    media = media or _samples()
    settings = Settings(data=_FOLDER / "data")
    captions = media / "captions.jsonl"
    report = run_ingest((str(media), *([str(captions)] if captions.exists() else [])), settings)
    if not as_json:
        print_report(report, settings)
    with local_engine(settings) as engine:
        sections = _search_all(engine, media, settings)
    sheet = _FOLDER / "contact-sheet.html"
    write_contact_sheet(sheet, sections, title="Crosslens demo", thumbnail=stored_thumbnails(settings))
    if as_json:
        searches = [{"query": _title(section), **section.answer.as_dict()} for section in sections]
        print_json({"ingest": report.as_dict(), "searches": searches, "sheet": str(sheet)})
        return
    from search_api.cli.table import print_answer  # noqa: PLC0415

    for section in sections:
        print_answer(section.answer, title=_title(section))
    click.echo(f"A page to look at: {sheet.absolute()}")
    click.echo("Next, with your own photos:\n  . .venv/bin/activate\n  crosslens ingest ~/Pictures")
    click.echo('  crosslens search "a dog on a beach"')


def _samples() -> Path:
    """The sample photos: beside the sources that this package runs from, or in the current folder."""
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / _SAMPLES).is_dir():
            return root / _SAMPLES
    raise SourceNotFound("The sample photos are not here.", remedy="Name a folder of photos with --media.")


def _search_all(engine: SearchEngine, media: Path, settings: Settings) -> list[Section]:
    from indexer.media.thumbnails import thumbnail  # noqa: PLC0415
    from search_api.contact_sheet import THUMBNAIL_SIZE, Asked, Section  # noqa: PLC0415
    from search_api.request import SearchRequest  # noqa: PLC0415

    def ask(asked: list[Asked], terms: list[dict[str, Any]], kind: str) -> Section:
        request = SearchRequest.parse({"query": terms, "limit": 4, "kind": kind})
        return Section(asked, engine.search(request))

    sections = [ask([Asked(words=text)], [{"text": text}], "image") for text in _TEXTS]
    picture = media / _PICTURE
    if picture.exists():
        data = picture.read_bytes()
        shown = Asked(picture=thumbnail(data, THUMBNAIL_SIZE, settings.max_pixels))
        sections.append(ask([shown], [{"image": data}], "image"))
        both: list[dict[str, Any]] = [{"image": data}, {"text": _TOGETHER}]
        sections.append(ask([shown, Asked(words=_TOGETHER)], both, "image"))
        sections.append(ask([shown], [{"image": data}], "text"))
    return sections


def _title(section: Section) -> str:
    words = " + ".join(f'"{term.words}"' if term.words else "a picture" for term in section.asked)
    found = {result.record.kind.value for result in section.answer.results}
    return f"{words} → {'texts' if found == {'text'} else 'photos'}"

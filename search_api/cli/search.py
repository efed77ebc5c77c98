"""`crosslens search`: by text, by image, by an item, or by a mixture of them."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import common_options, print_json
from indexer.errors import InvalidRequest
from indexer.items import Kind
from indexer.settings import Settings

if TYPE_CHECKING:
    from search_api.contact_sheet import Asked
    from search_api.results import SearchAnswer


def _decoded(_context: click.Context, _parameter: click.Parameter, filter: str | None) -> str | None:
    """A filter whose bytes on the command line were UTF-8; others come as lone surrogates (PEP 383)."""
    try:
        (filter or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"--filter: character {error.start + 1} is not UTF-8.", remedy="Write it in UTF-8, as the terminal should."
        ) from error
    return filter


@click.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(path_type=Path), multiple=True, help="A picture to look for; may be repeated.")
@click.option("--item", multiple=True, help="The id of an item to look for its like; may be repeated.")
@click.option("-k", "--limit", default=10, show_default=True, type=click.IntRange(1, 100), help="How many results.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="Find images or texts alone. Unset, a collection of both is answered by turns, the best image first.",
)
@click.option(
    "--filter",
    "among",
    metavar="FILTER",
    callback=_decoded,
    help="Such as 'tags:beach year>=2020 -kind:video', or JSON in Qdrant's language.",
)
@click.option("--diversity", type=click.FloatRange(0, 1), default=0.0, help="How much results should differ: 0 to 1.")
@click.option("--min-relevance", type=click.FloatRange(0, 1), help="Leave out what is less probable than that.")
@click.option("--collapse", type=click.Choice(["bytes", "picture", "alike"]), multiple=True, help="Give the same once.")
@click.option("--order-by", metavar="FIELD", help="Order the best by a field of the payload; -FIELD is descending.")
@click.option("--frames", is_flag=True, help="All frames and pages of a file that fit, not the best one alone.")
@click.option("--rerank", is_flag=True, help="Compare the best with TEXT once more, by a model that sees both at once.")
@click.option("--rerank-top", metavar="N", type=click.IntRange(1, 200), help="With --rerank: how many of them  [50]")
@click.option(
    "--deadline",
    metavar="MS",
    type=click.IntRange(1, 60_000),
    help="With --rerank: milliseconds for it; the rest keeps its order  [300]",
)
@click.option("--explain", is_flag=True, help="With --json: what each term had in each result.")
@click.option("--everything", is_flag=True, help="Also what the collection's moderation policy does not show.")
@click.option(
    "--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Also write the results as a page to look at."
)
@click.option("--url", envvar="CROSSLENS_URL", help="Ask this server instead of the data folder.")
@click.option("--key", envvar="CROSSLENS_KEY", help="The key that the server asks for.")
@common_options()
def search(
    text: str | None,
    image: tuple[Path, ...],
    item: tuple[str, ...],
    limit: int,
    kind: str | None,
    among: str | None,
    diversity: float,
    min_relevance: float | None,
    collapse: tuple[str, ...],
    order_by: str | None,
    frames: bool,
    rerank: bool,
    rerank_top: int | None,
    deadline: int | None,
    explain: bool,
    everything: bool,
    sheet: Path | None,
    url: str | None,
    key: str | None,
    settings: Settings,
    as_json: bool,
) -> None:
    """Search by TEXT, by image, by item, or by all of them together.

    Results are printed best first, with the cosine that they were ranked by.
    """
    # One answer, then the process ends: collecting garbage while libraries load would cost a fifth of the time.
    gc.disable()
    from search_api.request import SearchRequest, parse_json  # noqa: PLC0415

    if not text and not image and not item:
        raise click.UsageError('Say what to look for: crosslens search "a dog", or --image FILE, or --item ID.')
    options: dict[str, Any] = {"kind": kind, "order_by": order_by, "min_relevance": min_relevance}
    options |= {
        "collapse": list(collapse),
        "diversity": diversity,
        "explain": explain,
        "rerank": _reranking(rerank, rerank_top, deadline),
    }
    options = {name: value for name, value in options.items() if value} | ({"group_by": None} if frames else {})
    options["filter"] = parse_json(among.encode(), "--filter") if among and among.lstrip()[:1] == "{" else among
    if url is not None:
        if sheet is not None:
            raise click.UsageError("--sheet shows files of this machine; it does not go with --url.")
        if everything:
            raise click.UsageError("--everything looks into a data folder; it does not go with --url.")
        _search_there(
            url, key, settings.collection, as_json=as_json, text=text, images=image, items=item, limit=limit,
            options=options,
        )  # fmt: skip
        return
    from search_api.local import local_engine  # noqa: PLC0415  not for a server's answer

    pictures = [_picture(path, settings) for path in image]
    terms: list[dict[str, Any]] = [{"text": text}] if text else []
    terms += [{"image": picture} for picture in pictures] + [{"item": each} for each in item]
    request = SearchRequest.parse({"query": terms, "limit": limit, **options})
    with local_engine(settings, everything=everything) as engine:
        answer = engine.search(request)
    if sheet is not None:
        _write_sheet(sheet, answer, _asked(text, pictures, item, settings), settings)
    if as_json:
        print_json(answer.as_dict())
        return
    from search_api.cli.table import print_answer  # noqa: PLC0415

    print_answer(answer)
    if sheet is not None:
        click.echo(f"The page to look at: {sheet}", err=True)


def _search_there(url: str, key: str | None, collection: str, *, as_json: bool, **asked: Any) -> None:
    from search_api.cli.remote import ask, shown  # noqa: PLC0415
    from search_api.cli.table import print_answer  # noqa: PLC0415

    answer = ask(url, key, collection, **asked)
    if as_json:
        print_json(answer.model_dump(mode="json", exclude_unset=True))
    else:
        print_answer(shown(answer))


def _reranking(rerank: bool, top: int | None, deadline: int | None) -> dict[str, int] | bool:
    given = {name: value for name, value in {"top": top, "deadline_ms": deadline}.items() if value is not None}
    if given and not rerank:
        raise click.UsageError("--rerank-top and --deadline go with --rerank.")
    return given or rerank


def _picture(path: Path, settings: Settings) -> bytes:
    from indexer.media.decode import read_file  # noqa: PLC0415

    return read_file(path, max_bytes=settings.max_bytes)


def _asked(text: str | None, pictures: list[bytes], items: tuple[str, ...], settings: Settings) -> list[Asked]:
    from indexer.media.thumbnails import thumbnail  # noqa: PLC0415
    from search_api.contact_sheet import THUMBNAIL_SIZE, Asked  # noqa: PLC0415

    words = [text] if text else []
    words += [f"like {item}" for item in items]
    shown = [Asked(picture=thumbnail(picture, THUMBNAIL_SIZE, settings.max_pixels)) for picture in pictures]
    return [*(Asked(words=each) for each in words), *shown]


def _write_sheet(path: Path, answer: SearchAnswer, asked: list[Asked], settings: Settings) -> None:
    from search_api.contact_sheet import Section, stored_thumbnails, write_contact_sheet  # noqa: PLC0415

    title = asked[0].words or "like this picture"
    write_contact_sheet(path, [Section(asked, answer)], title=title, thumbnail=stored_thumbnails(settings))

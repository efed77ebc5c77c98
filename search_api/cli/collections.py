"""`crosslens collections`: see, make and remove collections and declare fields, here or on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from indexer.cli.options import common_options, print_json, printable
from indexer.errors import CollectionNotFound, UsageError
from indexer.items import check_collection_name
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.fields import FieldType
    from search_api.cli.remote import RemoteCollections
    from search_api.services import Services

Document = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])


def _typed(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Fields and their types, each as in trip=keyword; which types there are, the index says."""
    fields: dict[str, str] = {}
    for each in given:
        field, _, kind = each.rpartition("=")
        if not (field and kind):
            raise click.BadParameter(f"{printable(each)} is no field with a type, such as trip=keyword.")
        if fields.setdefault(field, kind) != kind:
            raise click.BadParameter(f"{printable(field)} is named twice.")
    return fields


def _asking(command: Command) -> Command:
    """Give a command `--url` and `--key`, and what all have."""
    key = click.option("--key", envvar="CROSSLENS_KEY", help="The key that the server asks for.")
    url = click.option("--url", envvar="CROSSLENS_URL", help="Ask this server instead of the data folder.")
    return url(key(cast("Command", common_options(collection=False)(command))))


@click.group()
def collections() -> None:
    """Collections: named sets of items, with the vectors of one model and the fields that filters go by."""


@collections.command(name="list")
@_asking
def list_collections(url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """List all collections."""
    with _asked(settings, url, key) as asked:
        found = asked.list()
    if as_json:
        print_json({"collections": found})
        return
    from rich.console import Console  # noqa: PLC0415  not for `crosslens --help`
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        "collection", "model", Column("dimension", justify="right"), Column("items", justify="right"), box=None
    )
    for each in found:
        cells = (each["name"], each["model"], each["dimension"], each["count"])
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    Console().print(table)


@collections.command()
@click.argument("name")
@_asking
def show(name: str, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """Show one collection with its declared fields."""
    with _asked(settings, url, key) as asked:
        _show(asked.get(name), as_json=as_json)


_rerank_features = click.option(
    "--rerank-features/--no-rerank-features",
    default=None,
    help="Compute what a reranker sees in pictures when they are ingested, not when they are first found.",
)


@collections.command()
@click.argument("name")
@click.option("--model", help="The bundle that embeds its items  [CROSSLENS_MODEL, or the server's]")
@click.option(
    "--field", "fields", metavar="FIELD=TYPE", multiple=True, callback=_typed, help="To declare; may be repeated."
)
@_rerank_features
@_asking
def create(
    name: str, model: str | None, fields: dict[str, str], rerank_features: bool | None, url: str | None,
    key: str | None, settings: Settings, as_json: bool,
) -> None:  # fmt: skip
    """Make a collection. One that is there stays as it is, and is refused if it has another model."""
    with _asked(settings, url, key) as asked:
        _show(asked.create(name, model, fields, rerank_features), as_json=as_json)


@collections.command()
@click.argument("name")
@click.argument("fields", metavar="FIELD=TYPE...", nargs=-1, callback=_typed)
@_rerank_features
@_asking
def declare(
    name: str, fields: dict[str, str], rerank_features: bool | None, url: str | None, key: str | None,
    settings: Settings, as_json: bool,
) -> None:  # fmt: skip
    """Declare fields of the items' payload with their types, such as trip=keyword.

    Filters in Qdrant's language, facets and orders need that. The types are keyword, integer, float, bool, datetime,
    geo and text.
    """
    if not fields and rerank_features is None:
        raise click.UsageError("Say which fields to declare, such as trip=keyword.")
    with _asked(settings, url, key) as asked:
        _show(asked.declare(name, fields, rerank_features), as_json=as_json)


@collections.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_asking
def delete(name: str, yes: bool, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """Remove a collection with its items. Originals stay, but for uploads and copies that no other item has."""
    with _asked(settings, url, key) as asked:
        count = asked.get(name)["count"]
        if not (yes or _is_sure(f"Delete the collection {printable(name)} with {count:,} items?")):
            raise UsageError(f"The collection {name!r} was not deleted.", remedy="Answer y, or give --yes.")
        asked.delete(name)
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"Deleted: {printable(name)}")


def _is_sure(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # nobody is there to answer
        click.echo(err=True)
        return False


class _Here:
    """The collections of the settings' index, with their originals."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def list(self) -> list[Document]:
        return [self._document(each) for each in self._services.store.list()] if self._has_index() else []

    def get(self, name: str) -> Document:
        self._check_index()
        return self._document(self._services.collection(name))

    def create(self, name: str, model: str | None, fields: Mapping[str, str], rerank_features: bool | None) -> Document:
        from search_api.collections import ready  # noqa: PLC0415

        typed = _typed_fields(fields)
        found, _ = ready(self._services, check_collection_name(name), model, typed, rerank_features=rerank_features)
        return self._document(found)

    def declare(self, name: str, fields: Mapping[str, str], rerank_features: bool | None) -> Document:
        self.get(name)  # what is asked below would make one
        return self.create(name, None, fields, rerank_features)

    def _document(self, collection: Collection) -> Document:
        from search_api.collections import described  # noqa: PLC0415

        return described(collection, self._services.rerankers.names())

    def delete(self, name: str) -> None:
        self._services.delete(name)

    def _has_index(self) -> bool:
        settings = self._services.settings
        return settings.qdrant_url is not None or settings.index_folder.exists()

    def _check_index(self) -> None:
        if not self._has_index():  # rather than make one
            raise CollectionNotFound(f"There is nothing in {self._services.settings.data} yet.")


@contextmanager
def _asked(settings: Settings, url: str | None, key: str | None) -> Iterator[_Here | RemoteCollections]:
    """Who is asked: a server, or the index of this machine."""
    if url is not None:
        from search_api.cli.remote import collections as remote  # noqa: PLC0415

        with remote(url, key) as asked:
            yield asked
        return
    from search_api.services import Services  # noqa: PLC0415

    with closing(Services(settings)) as services:
        yield _Here(services)


def _typed_fields(fields: Mapping[str, str]) -> Mapping[str, FieldType]:
    return cast("Mapping[str, FieldType]", fields)  # the index refuses other types


def _show(collection: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(collection)
        return
    click.echo(
        f"{printable(collection['name'])}: {collection['count']:,} items, {printable(collection['model'])} "
        f"({collection['dimension']} dimensions, {printable(collection['fingerprint'])})"
    )
    for field, kind in sorted(collection["fields"].items()):
        click.echo(f"  {printable(field)}: {printable(kind)}")
    if collection["rerank_features"]:
        click.echo("  features for reranking are computed at ingest")

"""What the commands of `crosslens moderate` open and print alike."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.cli.options import printable
from indexer.errors import CollectionNotFound, PolicyNotFound

if TYPE_CHECKING:
    from indexer.moderation.policy import Policy
    from indexer.settings import Settings
    from indexer.store.collection import Collection
    from search_api.services import Services

who_option = click.option("--who", callback=lambda _context, _parameter, given: given or _user(),
                          help="Who decides, for the trail.  [your user name]")  # fmt: skip


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        return f"user {os.getuid()}"


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Services, Collection]]:
    """The index and the settings' collection.

    Raises:
        CollectionNotFound: it is not there.
    """
    with opened_if_there(settings) as (services, collection):
        if collection is None:
            raise CollectionNotFound(f"There is no collection {settings.collection!r} in {settings.data} yet.")
        yield services, collection


@contextmanager
def opened_if_there(settings: Settings) -> Iterator[tuple[Services, Collection | None]]:
    """The same, without a collection where it is not there; no index is made for that."""
    from search_api.services import Services  # noqa: PLC0415  not for `crosslens --help`

    with closing(Services(settings)) as services:
        collection = None
        if settings.qdrant_url is not None or settings.index_folder.exists():
            try:
                collection = services.collection(settings.collection)
            except CollectionNotFound:
                collection = None
        yield services, collection


def policy_named(given: str) -> Policy:
    """A policy by its file, or a starting one by its name.

    Raises:
        PolicyInvalid: the file has mistakes.
        PolicyNotFound: it is neither.
    """
    from indexer.moderation.policy_file import read_policy  # noqa: PLC0415
    from indexer.moderation.starting import starting_policies, starting_policy  # noqa: PLC0415

    path = Path(given)
    if given in starting_policies() and not path.is_file():
        return starting_policy(given)
    if path.suffix or path.exists():
        return read_policy(path)
    raise PolicyNotFound(
        f"There is no policy {given!r}.", remedy=f"Give a file, or one of {', '.join(starting_policies())}."
    )


def no_policy(collection: Collection) -> PolicyNotFound:
    """The error of a collection without a policy."""
    return PolicyNotFound(
        f"The collection {collection.name!r} has no policy in force.",
        remedy="Put one in force: crosslens moderate policy set neutral",
    )


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; lines with tabs in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        return
    from rich.console import Console  # noqa: PLC0415  nothing of it is needed in a pipe
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


@contextmanager
def progress(doing: str, total: int, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, that is told how many are done; nothing elsewhere."""
    if not enabled or not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def yaml_of(policy: Policy) -> str:
    """A policy as a file that can be put in force."""
    import yaml  # noqa: PLC0415  not for `crosslens --help`

    document = policy.model_dump(mode="json", exclude_defaults=True)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    return text

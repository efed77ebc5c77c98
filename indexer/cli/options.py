"""What every command shares: `--data`, `--collection`, `--json`, and how errors are said."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from indexer.errors import CrosslensError, UsageError
from indexer.settings import Settings

EXIT_FAILURES = 1
"""Done, but not with everything."""
EXIT_REFUSED = 2
"""Bad usage, or refused."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells count it."""


def common_options(*, collection: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command `--data`, `--collection` and `--json`; it is called with `settings` and `as_json`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, data: Path | None, as_json: bool, **kwargs: Any) -> Any:
            overrides: dict[str, Any] = {"data": data, "collection": kwargs.pop("collection_name", None)}
            settings = load_settings(**{key: value for key, value in overrides.items() if value is not None})
            return command(*args, settings=settings, as_json=as_json, **kwargs)

        run = click.option("--json", "as_json", is_flag=True, help="Print one JSON document; progress goes to stderr.")(
            run
        )
        if collection:
            run = click.option("--collection", "collection_name", metavar="NAME", help="The collection  [media]")(run)
        folder = click.Path(path_type=Path, file_okay=False)
        return click.option("--data", type=folder, help="The data folder  [./crosslens-data]")(run)

    return decorate


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and a command's options.

    Raises:
        UsageError: a variable that does not parse, by its name.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"CROSSLENS_{'_'.join(map(str, first['loc'])).upper()}"
        raise UsageError(f"{name}: {first['msg']}.", remedy="Correct the variable or unset it.") from error


def print_json(document: Any) -> None:
    """The one JSON document of a command, on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_error(error: CrosslensError, *, as_json: bool) -> None:
    """The sentence and the remedy on stderr; with `--json` the error as a document on stdout too."""
    if as_json:
        print_json({"error": error.as_dict()})
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {printable(error.message)}", err=True)
    click.echo(printable(error.remedy), err=True)


def printable(text: str) -> str:
    """Text without what a terminal would obey or a line would break at; file names may hold anything."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )

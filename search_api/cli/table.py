"""Answers for people: a table on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.cli.options import printable

if TYPE_CHECKING:
    from search_api.results import SearchAnswer, SearchResult

_BAR = 10
"""Characters of the longest bar."""


def print_answer(answer: SearchAnswer, *, title: str | None = None) -> None:
    """Print what was found, best first; warnings go to stderr."""
    for warning in answer.warnings:
        click.echo(f"Note: {printable(warning)}", err=True)
    if answer.reranking is not None:
        click.echo(answer.reranking.capitalize(), err=True)
    if sys.stdout.isatty() or title is not None:
        _print_table(answer, title)
        return
    for rank, result in enumerate(answer.results, start=1):
        click.echo("\t".join((str(rank), f"{result.score:.4f}", result.record.kind, *_what(result))).rstrip())


def shown_source(source: str) -> str:
    """A source as a person would type it here: relative where that is shorter."""
    path = Path(source)
    if not path.is_absolute() or not path.is_relative_to(Path.cwd()):
        return printable(source)
    return printable(str(path.relative_to(Path.cwd())))


def _what(result: SearchResult) -> tuple[str, str]:
    """Where a result is from, and its words: a text item's text, or a caption in the payload."""
    words = result.record.text or result.payload.get("caption") or result.payload.get("title") or ""
    return shown_source(result.source), printable(str(words))


def _print_table(answer: SearchAnswer, title: str | None) -> None:
    from rich import box  # noqa: PLC0415  nothing of it is needed in a pipe
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    if not answer.results:
        console.print(Text("Nothing found."))
        return
    worded = any(_what(result)[1] for result in answer.results)
    table = Table(box=box.SIMPLE_HEAD, title=title and Text(title), title_justify="left", pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("score", justify="right")
    table.add_column("")
    table.add_column("kind", style="dim")
    table.add_column("source", overflow="fold")
    if worded:
        table.add_column("words", overflow="fold", style="italic")
    best = max(result.score or 0.0 for result in answer.results)
    for rank, result in enumerate(answer.results, start=1):
        source, words = _what(result)
        score = result.score or 0.0
        row: list[str | Text] = [str(rank), f"{score:.3f}", Text(_bar(score, best), style="cyan")]
        row += [result.record.kind.value, Text(source)]
        if worded:
            row.append(Text(words))
        table.add_row(*row)
    console.print(table)


def _bar(score: float, best: float) -> str:
    """The score as a length, beside the best of its list."""
    return "━" * max(1, round(_BAR * score / best)) if best > 0 and score > 0 else ""

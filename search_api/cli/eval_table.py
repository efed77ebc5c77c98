"""An evaluation for people: figures by direction, the queries that were answered worst, and how sure to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from indexer.cli.options import printable
from indexer.evaluation.measure import DEPTH
from search_api.cli.table import shown_source

if TYPE_CHECKING:
    from indexer.evaluation.fit import Fitted
    from indexer.evaluation.gain import Gain
    from indexer.evaluation.measure import Measured, Ranked
    from indexer.evaluation.pairs import Pair

_SHOWN_MISSING = 10


def print_evaluation(
    collection: str,
    pairs: Sequence[Pair],
    asked: Sequence[Pair],
    measured: Sequence[Measured],
    missing: Sequence[tuple[int, str]],
    fitted: Mapping[str, Fitted],
    *,
    worst: int,
    gained: Sequence[Gain] = (),
) -> None:
    """Print what was measured; `asked` are the pairs that found something to look for in the collection.

    What could not be matched goes to stderr.
    """
    console = Console(highlight=False)
    if measured:
        console.print(_figures(collection, measured))
    for each in measured:
        if failing := [ranked for ranked in each.worst(worst) if ranked.rank != 1]:
            console.print(_worst(each.direction, failing, asked))
    for gain in gained:
        console.print(_gain(gain))
    for direction, each_fit in fitted.items():
        console.print(_reliability(direction, each_fit))
    if missing:
        click.echo(f"{len(missing)} names of {len(pairs)} pairs stand for nothing in {collection!r}:", err=True)
        for number, name in missing[:_SHOWN_MISSING]:
            click.echo(f"  pair {number + 1}: {printable(name)}", err=True)
        if len(missing) > _SHOWN_MISSING:
            click.echo(f"  and {len(missing) - _SHOWN_MISSING} more; --json gives all.", err=True)


def _words(direction: str) -> str:
    return direction.replace("_to_", " → ")


def _figures(collection: str, measured: Sequence[Measured]) -> Table:
    table = _table(f"{collection}: recall and mean reciprocal rank, with 95 % intervals")
    table.add_column("direction")
    table.add_column("pairs", justify="right")
    names = list(measured[0].metrics)
    for name in names:
        table.add_column(name.upper() if name == "mrr" else name, justify="right")
    for each in measured:
        cells = [f"{m.value:.3f} ({m.low:.2f}-{m.high:.2f})" for m in (each.metrics[name] for name in names)]
        table.add_row(_words(each.direction), str(len(each.queries)), *cells)
    return table


def _gain(gain: Gain) -> Table:
    """One direction with and without reranking, and what to make of it."""
    table = _table(f"{_words(gain.direction)}, reranked: {gain.verdict}")
    names = list(gain.gain)
    for name in ("", *names):
        table.add_column(name.upper() if name == "mrr" else name, justify="right" if name else "left")
    for title, estimates in (("without", gain.before.metrics), ("with", gain.after.metrics)):
        table.add_row(title, *(f"{estimates[name].value:.3f}" for name in names))
    changes = [f"{m.value:+.3f} ({m.low:+.2f} to {m.high:+.2f})" for m in gain.gain.values()]
    table.add_row("difference", *changes)
    return table


def _worst(direction: str, failing: Sequence[Ranked], pairs: Sequence[Pair]) -> Table:
    table = _table(f"{_words(direction)}: answered worst")
    table.add_column("rank", justify="right")
    table.add_column("query", overflow="fold")
    table.add_column("came instead", overflow="fold", style="dim")
    for ranked in failing:
        instead = ", ".join(hit.record.text or shown_source(hit.record.locations[0].source) for hit in ranked.instead)
        rank = f"> {DEPTH}" if ranked.rank is None else str(ranked.rank)
        table.add_row(rank, Text(printable(pairs[ranked.pair].words)), Text(printable(instead)))
    return table


def _reliability(direction: str, fitted: Fitted) -> Table:
    before = "" if fitted.log_loss_before is None else f", the model's own {fitted.log_loss_before:.4f}"
    table = _table(
        f"{_words(direction)}: probability = logistic({fitted.scale:.2f} cosine {fitted.bias:+.2f}), fitted on "
        f"{fitted.pairs} pairs; held-out log loss {fitted.log_loss:.4f} (base rate alone "
        f"{fitted.log_loss_of_base_rate:.4f}{before})"
    )
    for name in ("probability", "predicted", "observed", "comparisons"):
        table.add_column(name, justify="right")
    for each in fitted.reliability:
        table.add_row(f"{each.low:g}-{each.high:g}", f"{each.predicted:.3f}", f"{each.observed:.3f}", f"{each.count:,}")
    return table


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)

"""`crosslens moderate fit`: thresholds and linear heads from what people decided, as a policy that is proposed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import common_options, print_json, printable
from indexer.errors import UsageError
from search_api.cli.moderation.opened import no_policy, opened, print_rows, yaml_of

if TYPE_CHECKING:
    from indexer.moderation.learning.gather import Report
    from indexer.settings import Settings


@click.command()
@click.option("--precision", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95,
              show_default=True, help="How many of what is found are to be right.")  # fmt: skip
@click.option("--f1", is_flag=True, help="The highest F1 instead of a precision.")
@click.option("--sample", type=click.IntRange(1, 50_000), default=20_000, show_default=True,
              help="Items that stand for the collection.")  # fmt: skip
@click.option("--picture", "pictures", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Draw precision and recall of each category there, as SVG.")  # fmt: skip
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the proposed policy there, as YAML.")  # fmt: skip
@common_options()
def fit(
    precision: float, f1: bool, sample: int, pictures: Path | None, out: Path | None, settings: Settings, as_json: bool
) -> None:
    """Learn from what people decided, and propose a policy. It is never put in force by itself.

    Precision and recall are stated at the collection's own base rate, with 95% intervals.

    \b
    crosslens moderate fit --precision 0.9 --picture curves --out proposed.yaml
    crosslens moderate policy set proposed.yaml
    """
    from indexer.moderation.judging import open_judge  # noqa: PLC0415  heavy
    from indexer.moderation.learning.gather import learn_of  # noqa: PLC0415

    with opened(settings) as (services, collection):
        judge = open_judge(collection, services.encoders.of(collection), settings)
        if judge is None:
            raise no_policy(collection)
        report = learn_of(collection, judge, sample=sample, precision=None if f1 else precision)
    drawn = _draw(report, pictures) if pictures is not None else []
    if out is not None:
        _write(out, yaml_of(report.proposal.policy))
    if as_json:
        told = {name: value for name, value in report.as_dict().items() if name != "pictures"}
        print_json({**told, "written": str(out) if out else None, "pictures": [str(path) for path in drawn]})
        return
    print_rows(
        ("category", "proposed", "precision", "recall", "reviewed"),
        [_row(each) for each in report.proposal.as_dict()["categories"]],
    )
    click.echo(f"Learned from {report.reviewed:,} reviewed items and {report.sampled:,} of {report.items:,}.", err=True)
    if report.unnamed:
        click.echo(f"{report.unnamed:,} more were rejected without a category: nothing is learned from them.", err=True)
    for learned in report.proposal.learned.values():
        for note in learned.notes:
            click.echo(f"Note: {printable(learned.category.name)}: {printable(note)}", err=True)
    if out is not None and report.proposal.policy != report.proposal.before:
        click.echo(f"Next: read it, then crosslens moderate policy set {printable(str(out))}", err=True)


def _row(learned: dict[str, Any]) -> tuple[str, ...]:
    if "refused" in learned:
        return learned["category"], "nothing", "", "", learned["refused"]
    after = learned["after"] or learned["before"]
    counts = f"{learned['reviewed']} ({learned['positive']} of it)"
    return (
        learned["category"], learned["change"] or "as it is", _interval(after["precision"]), _interval(after["recall"]),
        counts,
    )  # fmt: skip


def _interval(bounds: dict[str, float] | None) -> str:
    return "-" if bounds is None else f"{bounds['value']:.2f} [{bounds['low']:.2f}, {bounds['high']:.2f}]"


def _draw(report: Report, folder: Path) -> list[Path]:
    drawn = []
    for name, learned in report.proposal.learned.items():
        path = folder / f"{re.sub(r'[^A-Za-z0-9_-]', '-', name)}.svg"
        _write(path, learned.picture())
        drawn.append(path)
    return drawn


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", remedy="Name another place.") from error

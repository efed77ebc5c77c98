"""`crosslens moderate rescan`: judge everything that is stored by the policy in force, in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from indexer.cli.options import common_options, print_json
from indexer.errors import PolicyInvalid
from search_api.cli.moderation.opened import no_policy, opened, progress

if TYPE_CHECKING:
    from indexer.settings import Settings


@click.command()
@common_options()
def rescan(settings: Settings, as_json: bool) -> None:
    """Judge every stored item by the policy in force, from its vector, hashes and texts.

    Nothing is decoded, but for an image classifier that has not seen a picture. What people decided stays, and what
    changed alone is written: after an interruption, the same command goes on quickly over what is done.

    \b
    crosslens moderate policy set policy.yaml && crosslens moderate rescan
    """
    from indexer.moderation.judging import Judged, open_judge  # noqa: PLC0415  heavy
    from indexer.moderation.rescan import rescan as judge_all  # noqa: PLC0415
    from indexer.moderation.trail import Trail  # noqa: PLC0415

    with opened(settings) as (services, collection):
        judge = open_judge(collection, services.encoders.of(collection), settings)
        if judge is None:
            raise no_policy(collection)
        if judge.judge is None:  # it would hold back everything
            raise PolicyInvalid(judge.trouble, remedy="Put what it names in its place, or another policy in force.")
        trail, done = Trail(settings.data, collection.name), Judged()
        started = time.perf_counter()
        with progress("judging", collection.count(), enabled=not as_json) as tell:
            for some in judge_all(collection, judge, settings=settings, originals=services.originals, trail=trail):
                done.add(some)
                tell(done.changed + done.unchanged)
    seconds, total = time.perf_counter() - started, done.changed + done.unchanged
    if as_json:
        counts = {"total": total, "changed": done.changed, "unchanged": done.unchanged}
        rate = round(total / max(seconds, 1e-9), 1)
        print_json({**counts, "seconds": round(seconds, 3), "items_per_second": rate})
    else:
        click.echo(f"{total:,} items judged, {done.changed:,} changed. {seconds:.1f} s.", err=True)

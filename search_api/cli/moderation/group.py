"""`crosslens moderate`: judge, try policies, review and learn, in the index of this machine."""

from __future__ import annotations

import click

from search_api.cli.moderation.check import check
from search_api.cli.moderation.fit import fit
from search_api.cli.moderation.policies import policies, policy
from search_api.cli.moderation.rescan import rescan
from search_api.cli.moderation.review import decide, review, trail, undo


@click.group()
def moderate() -> None:
    """Moderation: policies that say what is shown, and what people decide.

    \b
    crosslens moderate check photo.jpg "a text" --policy neutral
    crosslens moderate policy set neutral
    crosslens moderate rescan
    crosslens moderate review
    """


for _command in (check, policies, policy, rescan, review, decide, undo, trail, fit):
    moderate.add_command(_command)

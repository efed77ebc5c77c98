"""`crosslens moderate`: judge, try policies, review and learn, in the index of this machine."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import click

from search_api.cli.moderation.check import check
from search_api.cli.moderation.fit import fit
from search_api.cli.moderation.policies import policies, policy
from search_api.cli.moderation.rescan import rescan
from search_api.cli.moderation.review import decide, review, trail, undo


class _Judging(click.Group):
    """Its command `check` may be left unnamed: what is no command is something to judge."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As `click.Group`; a word that looks like a command misspelt is refused with the name."""
        first = arguments[0]
        meant = get_close_matches(first, self.commands, n=1, cutoff=0.7)
        if first in self.commands or first.startswith("-") or (meant and not Path(first).exists()):
            return super().resolve_command(context, arguments)
        return super().resolve_command(context, ["check", *arguments])


@click.group(cls=_Judging)
def moderate() -> None:
    """Moderation: policies that say what is shown, and what people decide.

    \b
    crosslens moderate photo.jpg "a text" --policy neutral
    crosslens moderate policy set neutral
    crosslens moderate rescan
    crosslens moderate review
    """


for _command in (check, policies, policy, rescan, review, decide, undo, trail, fit):
    moderate.add_command(_command)

"""The command line: one root command, whose subcommands are loaded when they are called.

Each package registers its commands in the entry-point group `crosslens.commands`; so the root knows none of the
packages above it, and `crosslens --help` loads none of the libraries that do the work.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points, version
from typing import Any

import click

from indexer.cli.options import EXIT_INTERRUPTED, EXIT_REFUSED, print_error
from indexer.errors import CrosslensError
from indexer.logs import configure_logging


class PluginGroup(click.Group):
    """A group whose further commands come from an entry-point group, each loaded when it is called."""

    def __init__(self, *args: Any, plugins: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plugins = plugins

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Its own commands and the registered ones."""
        return sorted({*super().list_commands(ctx), *entry_points(group=self._plugins).names})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """One of them; None if there is none of that name."""
        if own := super().get_command(ctx, name):
            return own
        for point in entry_points(group=self._plugins, name=name):
            command: click.Command = point.load()
            return command
        return None


class Root(PluginGroup):
    """The root: errors on purpose become a sentence, a remedy and exit code 2, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was called."""
        configure_logging("warning")
        try:
            return super().invoke(ctx)
        except CrosslensError as error:
            print_error(error, as_json="--json" in sys.argv)
            ctx.exit(EXIT_REFUSED)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output left (`crosslens search ... | head`): nobody is there to be told.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(cls=Root, plugins="crosslens.commands", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("crosslens"), prog_name="crosslens")
def main() -> None:
    """Search photos and texts by what they show and say.

    Begin with: crosslens ingest FOLDER, then: crosslens search "a dog on a beach"
    """

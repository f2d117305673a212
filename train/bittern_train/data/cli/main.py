"""The group `bittern data`: subcommands are imported only when used."""

from __future__ import annotations

from importlib import import_module

import click

from bittern.cli.common import CommandGroup

# Subcommand and its module here; in the order in which they are used. Each module has its command as `command`.
COMMANDS: dict[str, str] = {
    "import": "import_pictures",
    "collect": "collect",
    "check": "check",
    "dedupe": "dedupe",
    "split": "split",
    "preview": "preview",
    "resize": "resize",
    "label": "label",
    "undo": "undo",
}


class DataCommands(CommandGroup):
    """The subcommands of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"bittern_train.data.cli.{COMMANDS[cmd_name]}").command  # type: ignore[no-any-return]


@click.command(cls=DataCommands, short_help="From an idea to labelled pictures.")
def data() -> None:
    """From an idea to labelled pictures.

    Pictures are never moved, altered or deleted: what is decided goes into an index.csv, or into a copy; `undo` takes
    the last change of an index back.
    """

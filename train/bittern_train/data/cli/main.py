"""The group `bittern data`: subcommands are imported only when used."""

from __future__ import annotations

from importlib import import_module

import click

from bittern.errors import did_you_mean

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


class DataCommands(click.Group):
    """The subcommands of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"bittern_train.data.cli.{COMMANDS[cmd_name]}").command  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click, but suggests the nearest name for a misspelt subcommand."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], list(COMMANDS))
            if hint:
                raise click.UsageError(f"{error.message.removesuffix('.')}{hint}", ctx) from None
            raise


@click.command(cls=DataCommands, short_help="From an idea to labelled pictures.")
def data() -> None:
    """From an idea to labelled pictures.

    Pictures are never moved, altered or deleted: what is decided goes into an index.csv, or into a copy; `undo` takes
    the last change of an index back.
    """

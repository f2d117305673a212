"""`bittern serve`: the page in a browser, and the HTTP interface."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.bare_models import about, model_options, models_option
from bittern.cli.common import needs_extra, views_option
from bittern.errors import BitternError

if TYPE_CHECKING:
    from bittern.cli.bare_models import Statements
    from bittern.model.preprocess import View
    from bittern.model.runtime import ExecutionPath


def _data(_ctx: click.Context, _option: click.Parameter, value: Path | None) -> Path:
    if value is not None:
        return value
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path("~/.local/share").expanduser()) / "bittern"


def address_options(function: click.decorators.FC) -> click.decorators.FC:
    """--host, --port, --name and --data of a command that serves a page."""
    for option in (
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            callback=_data,
            metavar="FOLDER",
            help="Folder for the token, the history and the corrected pictures.  [default: ~/.local/share/bittern]",
        ),
        click.option(
            "--name",
            "names",
            multiple=True,
            metavar="HOST",
            help="Another host name of the page, such as that of a reverse proxy; asks for a token.",
        ),
        click.option("--port", type=click.IntRange(0, 65535), default=8766, show_default=True, help="0: any free one."),
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            help="Address to listen on. One that others can reach asks for a token.",
        ),
    ):
        function = option(function)
    return function


@click.command(
    short_help="The page in a browser, and the HTTP interface.",
    epilog="Example: bittern serve --model stop_sign --model face_mask",
)
@models_option
@address_options
@click.option("--new-token", is_flag=True, help="Make a token in the place of the old one, show it once, and end.")
@views_option
@model_options
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    names: tuple[str, ...],
    data: Path,
    new_token: bool,
    views: tuple[View, ...],
    stated: Statements,
    path: ExecutionPath | None,
    threads: int,
) -> None:
    """Serve the page: drop a picture, read the answers, correct them; and the HTTP interface behind it.

    Without --host only this machine reaches it. Before others can, make a token; the page asks for it once, and
    programs send it as `Authorization: Bearer TOKEN`:

    \b
        bittern serve --new-token
        bittern serve --host 0.0.0.0

    A corrected picture goes with its label into FOLDER/sets/TASK, which `bittern data label` and `train` read. SIGTERM
    and Ctrl-C end it (exit code 0).
    """
    needs_extra("serve", "page", "starlette", "uvicorn", "python_multipart")
    if new_token:
        from bittern.page import access

        try:
            click.echo(access.new_token(data))
        except OSError as error:
            raise BitternError(f"{data}: cannot keep the token's hash ({error.strerror})") from None
        return
    import msgspec

    from bittern.page import serving
    from bittern.page.address import Address

    options = {
        "models": list(models),
        "bare": msgspec.to_builtins(about(models, stated)),
        "path": path,
        "threads": threads,
        "views": list(views),
    }
    with serving.opened(options, Address(host, port, names), data) as site:
        click.echo(f"the page is at {site.url}")
        site.serve()

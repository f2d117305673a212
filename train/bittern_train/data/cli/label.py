"""`bittern data label`: a page in the browser on which pictures get their labels."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import needs_extra, one_blas_thread
from bittern.cli.serve import address_options
from bittern.errors import printable


@click.command(
    "label",
    short_help="Label pictures in the browser.",
    epilog="Example: bittern data label pictures/ --label cat --label dog --model mine",
)
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option("--label", "labels", multiple=True, help="A label to offer, in the order of the keys 1 to 9; repeat it.")
@click.option("--model", help="Name, folder or .tflite of a model whose answers are suggested, doubtful ones first.")
@click.option("--unlabelled", is_flag=True, help="Without an index: the names of folders are no labels.")
@address_options
def command(
    pictures: Path,
    labels: tuple[str, ...],
    model: str | None,
    unlabelled: bool,
    host: str,
    port: int,
    names: tuple[str, ...],
    data: Path,
) -> None:
    """Label pictures in the browser, by keyboard, one by one or many at once; Ctrl-C ends it.

    PICTURES is a folder or its index.csv. Pictures that the index lacks are without a label; without an index, those in
    a folder below have its name as their label. Keys 1 to 9 give a label, A and D go back and on, U takes back, X
    rejects, S skips, Enter takes the suggestion; drag a box to keep only a part. In the grid, clicks and shift-clicks
    select pictures, and one key labels them; in the order of likeness the pictures of a burst lie side by side.

    Every decision is on the disk before the next picture shows. It goes into index.csv (the old one is kept for
    `bittern data undo`); rejected pictures go from there into rejected.csv, and kept parts become files below regions/.
    No picture is moved, altered or deleted. --data holds the token, which is needed where others can reach the page.
    """
    one_blas_thread()
    needs_extra("data label", "page", "starlette", "uvicorn")
    import logging

    from bittern.page import label_serving, labelling
    from bittern.page.address import Address
    from bittern.page.http import is_label

    for label in labels:
        if not is_label(label):
            raise click.BadParameter(f"{label!r}: expected a text on one line of at most 100 characters")
    logging.basicConfig(format="bittern: %(message)s")
    with labelling.opened(pictures, with_folders=not unlabelled) as session:
        options = {"models": [model] if model else []}
        with label_serving.opened(session, options, labels, Address(host, port, names), data) as site:
            click.echo(f"{len(session.items)} pictures of {printable(str(pictures))} are at {site.url}")
            site.serve()
        n = sum(one.state != "" for one in session.decided)
    click.echo(f"{n} of {len(session.items)} decided: {printable(str(pictures))}")

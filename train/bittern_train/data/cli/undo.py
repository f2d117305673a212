"""`bittern data undo`: takes the last change of an index back."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import one_blas_thread, print_json


@click.command("undo", short_help="Take the last change of an index back.", epilog="Example: bittern data undo set/")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: index, restored, pictures, older.")
def command(data: Path, as_json: bool) -> None:
    """Take the last change of an index back: each `undo` goes one change further.

    DATA is a folder with an index.csv, or an index. The commands that change an index keep the old one as index.csv.1,
    index.csv.2, ...; the newest of them becomes the index again, and the present one becomes index.csv.undone. Pictures
    are left as they are.
    """
    one_blas_thread()
    from bittern.evaluation import dataset, index

    file = index.file_of(data)
    with index.locked(file):
        replaced = file.exists()
        number = index.undo(file)
        older = len(index.versions(file))
        pictures = len(dataset.read(file))
    if as_json:
        print_json({"index": str(file), "restored": f"{file.name}.{number}", "pictures": pictures, "older": older})
    else:
        before = f"; the index before is {file.name}.undone" if replaced else ""
        restored = f"restored from {file.name}.{number}, {pictures} pictures"
        click.echo(f"{file}: {restored}{before}; older versions left: {older}")

"""`bittern data preview`: what training makes of pictures, as one PNG."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import needs_extra, one_blas_thread, warn
from bittern.errors import BitternError, printable


@click.command(
    "preview",
    short_help="Draw what the network sees of pictures, and what training makes of them.",
    epilog="Example: bittern data preview folders --data set/ --out preview.png",
)
@click.argument("task")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the pictures, as for train.")
@click.option("--out", default="preview.png", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--each", default=2, show_default=True, type=click.IntRange(1, 20), help="Pictures of each label.")
@click.option("--copies", "count", default=6, show_default=True, type=click.IntRange(0, 40), help="Copies of each.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the choice and the copies.")
def command(task: str, data: Path, out: Path, each: int, count: int, seed: int) -> None:
    """Draw what the network sees of some pictures, and what training makes of them, as one PNG.

    TASK is the name of a shipped task, a .toml file, or "folders", as for `bittern train`. Each picture has a row: the
    whole of it, with what is cut away darkened; what the network sees; copies as training draws them with this seed.
    Below the first picture's row it is shown with each corruption, mild and strong, with which networks are compared.

    Needs the packages of [train], but not TensorFlow itself.
    """
    one_blas_thread()
    needs_extra("data preview", "train", "albumentations")
    import logging

    from bittern.evaluation import dataset, sheet
    from bittern_train import task_files
    from bittern_train.data import previewing

    logging.basicConfig(format="bittern: %(message)s")
    if task == "folders":
        names = sorted({item.label for item in dataset.read(data) if item.label})
        chosen = task_files.from_folders(names, data.resolve().name)
    else:
        chosen = task_files.load(task)
    items, problems = previewing.choose(chosen, data, each, seed)
    tiles, unreadable = previewing.sheet(chosen, items, seed, count)
    for line in (*problems, *unreadable):
        warn(printable(line))
    if not tiles:
        raise BitternError(f"{data}: none of {len(items)} pictures can be read")
    try:
        sheet.write(out, tiles, columns=previewing.COLUMNS)
    except OSError as error:
        raise BitternError(f"{out}: cannot be written ({error.strerror})") from None
    click.echo(f"{printable(str(out))}: {len(items) - len(unreadable)} pictures of the task {chosen.name}")

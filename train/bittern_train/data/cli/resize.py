"""`bittern data resize`: a smaller copy of a data set."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import one_blas_thread, print_json, progress_bar, sigterm_interrupts, warn
from bittern.errors import printable


@click.command(
    "resize",
    short_help="Copy a data set with smaller pictures.",
    epilog="Example: bittern data resize set/ --side 256 --crop --out small/",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the copy.")
@click.option("--side", default=256, show_default=True, type=click.IntRange(16, 10_000), help="Shortest side, pixels.")
@click.option("--crop", is_flag=True, help="Keep the centred square only, which is what the network sees.")
@click.option("--quality", default=90, show_default=True, type=click.IntRange(1, 100), help="Of JPEG and WebP files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, data: Path, out: Path, side: int, crop: bool, quality: int, as_json: bool) -> None:
    """Copy a data set with smaller pictures into the folder OUT, with its index.

    Pictures are shrunk so that their shortest side is --side, never enlarged; one that needs no change is copied as it
    is. JPEG and WebP files stay what they are, others become PNG.

    Training zooms into pictures: with less than twice the network's 224 pixels its copies are less sharp. Exit code 1
    if a picture cannot be read.
    """
    one_blas_thread()
    import logging

    from bittern.evaluation import dataset
    from bittern_train.data import resizing

    logging.basicConfig(format="bittern: %(message)s")
    items = dataset.read(data)
    source = data.parent if data.is_file() else data
    with sigterm_interrupts(), progress_bar("resize", len(items)) as progress:
        done = resizing.resize(items, source, out, progress, side=side, crop=crop, quality=quality)
    for left_out in done.left_out:
        warn(printable(f"{left_out.name}: {left_out.reason}"))
    if as_json:
        print_json(
            {
                "out": printable(str(out)),
                "pictures": len(done.items),
                "unchanged": done.unchanged,
                "bytes_before": done.before,
                "bytes_after": done.after,
                "left_out": [{"path": printable(o.name), "reason": printable(o.reason)} for o in done.left_out],
            }
        )
    else:
        small = f", {done.unchanged} of them as they were" if done.unchanged else ""
        click.echo(
            f"{printable(str(out))}: {len(done.items)} pictures{small}; {_size(done.after)} instead of "
            f"{_size(done.before)} ({done.after / done.before:.0%})"
        )
    if done.left_out:
        ctx.exit(1)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"

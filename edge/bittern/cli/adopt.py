"""`bittern adopt`: a model folder out of a .tflite file of another tool."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.bare_models import Statements, bare_options
from bittern.cli.common import FiniteRange, one_blas_thread, print_json, progress_bar, warn
from bittern.errors import ConfigurationError, printable


@click.command(
    short_help="Make a model folder of another tool's .tflite.",
    epilog="Example: bittern adopt gate.tflite --labels labels.txt --pixels 0..1 --alarm gate_open --data pictures/ "
    "--out models/gate",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Model folder to make.  [default: models/ and the name of FILE]"
)
@click.option("--name", help="Name of the model.  [default: that of the folder]")
@click.option("--version", default="1", show_default=True, help="Version; a changed model needs a higher one.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Labelled pictures, to choose the threshold on: an index.csv, or a folder with a folder for each label.",
)
@click.option("--threshold", type=FiniteRange(0.0, 1.0), help="Score from which an alarm is on.")
@click.option("--nothing", multiple=True, metavar="LABEL", help="Label that means that nothing of interest is there.")
@bare_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def adopt(
    ctx: click.Context,
    file: Path,
    out: Path | None,
    name: str | None,
    version: str,
    data: Path | None,
    threshold: float | None,
    nothing: tuple[str, ...],
    stated: Statements,
    as_json: bool,
) -> None:
    """Make a model folder of FILE, a .tflite file of another tool. It needs no TensorFlow.

    The folder states what the file takes and gives, has golden vectors of both execution paths, and a card that says
    where it comes from. From then on it is a model like any other: verified when it is opened, reloaded, deployed.

    The threshold is the one with the best balanced accuracy on the pictures of --data that are not in a split for
    testing; figures are of the test split, where there is one. Without --data it is 0.5, and the card says that it is
    unchosen.

    Exit code 1 if a picture cannot be read.
    """
    one_blas_thread()
    import msgspec

    from bittern.evaluation import adopt as adopting
    from bittern.evaluation import dataset

    if not file.is_file():
        raise ConfigurationError(
            f"{file}: {'is a folder' if file.is_dir() else 'no such file'}: expected a .tflite file"
        )
    folder = out if out is not None else Path("models") / adopting.named(file.stem)
    bare = msgspec.structs.replace(stated.of(0, 1), nothing=nothing, threshold=threshold)
    items = dataset.read(data) if data is not None else []
    with progress_bar("adopt", max(1, len(items))) as progress:
        adopted = adopting.adopt(
            file,
            folder,
            bare,
            name=name or adopting.named(folder.name),
            version=version,
            items=items,
            progress=progress,
        )
    for line in adopted.failed:
        warn(line)
    (head,) = adopted.manifest.heads
    threshold_used = head.thresholds["default"]
    if as_json:
        print_json(
            {
                "name": adopted.manifest.name,
                "folder": str(folder),
                "labels": head.labels,
                "alarm": head.alarm,
                "threshold": threshold_used.on,
                "chosen_for": threshold_used.chosen_for,
                "golden": list(adopted.manifest.golden),
                "notes": adopted.notes,
            }
        )
    else:
        click.echo(printable(f"{folder}: {adopted.manifest.name} {version}, {len(head.labels)} labels"))
        for note in adopted.notes:
            click.echo(printable(f"  {note}"))
    if adopted.failed:
        ctx.exit(1)

"""`bittern convert`, `diff` and `results`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import print_json, tensorflow_command
from bittern.stated import PIXELS, PixelKind

if TYPE_CHECKING:
    from bittern_convert.diff import FolderComparison


@tensorflow_command
@click.command(
    short_help="Turn a run, or any Keras classifier, into an int8 model folder.",
    epilog="Examples: bittern convert runs/stop_sign --out models/stop_sign; "
    "bittern convert keras_model.h5 --labels labels.txt --pixels -1..1 --calibrate pictures/ --out models/gate",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Model folder to make.  [default: models/TASK]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of a run's pictures, if it was moved since.")
@click.option("--labels", type=click.Path(path_type=Path), help="Of a Keras model: file with its labels, one a line.")
@click.option(
    "--pixels",
    type=click.Choice(PIXELS),
    help="Of a Keras model: what it was trained with. Teachable Machine: -1..1; Lobe: 0..1; raw: 0 to 255.",
)
@click.option(
    "--calibrate", type=click.Path(path_type=Path), help="Of a Keras model: pictures, best in a folder per label."
)
@click.option("--alarm", multiple=True, help="Of a Keras model: label that raises an alarm; may be repeated.")
@click.option("--nothing", multiple=True, help='Of a Keras model: label that means "nothing"; may be repeated.')
@click.option("--name", help="Name of the model.  [default: that of its folder]")
@click.option("--version", default="1", show_default=True, help="Version of the model.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of a Keras model: of the copies.")
@click.option("--force", is_flag=True, help="Replace an existing model folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of the parity check as JSON.")
def convert(
    source: Path,
    out: Path | None,
    data: Path | None,
    labels: Path | None,
    pixels: PixelKind | None,
    calibrate: Path | None,
    alarm: tuple[str, ...],
    nothing: tuple[str, ...],
    name: str | None,
    version: str,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Turn SOURCE into an int8 model folder: a finished run, or a Keras classifier that was trained elsewhere.

    A Keras classifier is a .keras or .h5 file, or a SavedModel folder, of square pictures of any size, colour or grey.
    What it expects of the pixels, and a softmax that it lacks, become layers of the model.

    The parity check compares float and int8 on at least a thousand pictures, augmented copies included; a model that
    loses too much is not packaged (exit code 1).
    """
    from bittern_convert import foreign
    from bittern_convert.quiet import quiet
    from bittern_convert.run import load
    from bittern_convert.screen import bar

    if foreign.is_keras(source):
        if labels is None or pixels is None or calibrate is None or out is None or data is not None:
            raise click.UsageError(
                "a Keras model takes --labels, --pixels, --calibrate and --out (and no --data): what it was trained "
                "with, and pictures to calibrate with"
            )
        question = foreign.Question(foreign.read_labels(labels), alarm, nothing, pixels)
        with quiet(out.parent / f"{out.name}.log") as console, bar(console) as progress:
            manifest, outcome = foreign.convert(
                source,
                out,
                question,
                calibrate=calibrate,
                name=name or out.name,
                version=version,
                replace=force,
                seed=seed,
                progress=progress,
            )
        target = out
    else:
        if labels is not None or pixels is not None or calibrate is not None or alarm or nothing:
            raise click.UsageError(
                "--labels, --pixels, --calibrate, --alarm, --nothing are of a Keras model (.keras, .h5, SavedModel); "
                f"{source} is taken for a run, which has them already"
            )
        task = load(source).task.name
        with quiet(source / "convert.log") as console, bar(console) as progress:
            from bittern_convert import package

            target = out or Path("models") / task
            manifest, outcome = package.convert(
                source, target, data=data, name=name or target.name, version=version, replace=force, progress=progress
            )
    if as_json:
        print_json({"model": str(target), **{f: getattr(outcome, f) for f in outcome.__struct_fields__}})
        return
    kinds = ", ".join(f"{n} {kind}" for kind, n in outcome.kinds.items())
    low, high = outcome.agreement_ci95
    click.echo(f"{target}: {manifest.size / 1e6:.2f} MB, sha256 {manifest.sha256[:12]}")
    click.echo(
        f"parity check passed: same answer on {outcome.same} of {outcome.n} ({outcome.agreement:.2%}, "
        f"95 % {low:.2%} to {high:.2%}): {kinds}"
    )
    click.echo(
        f"  paired accuracy loss {100 * outcome.loss:+.2f} points "
        f"(95 % {100 * outcome.loss_ci95[0]:+.2f} to {100 * outcome.loss_ci95[1]:+.2f}); "
        f"float {outcome.float_accuracy:.2%}, int8 {outcome.int8_accuracy:.2%}"
    )
    for split, figures in manifest.provenance["reports"].items():
        low, high = figures["accuracy_ci95"]
        click.echo(
            f"  {split}: {figures['correct']} of {figures['n']} correct (95 % {low:.1%} to {high:.1%}), "
            f"{figures['alarms']} alarms"
        )
    click.echo(f"next: bittern classify PICTURE --model {target}")


@click.command(
    short_help="Compare the figures of two model folders.",
    epilog="Example: bittern diff models/stop_sign build/reproduce/models/stop_sign",
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def diff(ctx: click.Context, before: Path, after: Path, as_json: bool) -> None:
    """Compare the figures that the manifests of two model folders state.

    Exit code 1 if seed, data, start weights, recipe and versions (including the processor) are the same but a figure is
    not.
    """
    from bittern_convert import diff as folders

    comparison = folders.diff(before, after)
    if as_json:
        print_json({f: getattr(comparison, f) for f in comparison.__struct_fields__} | {"holds": comparison.holds})
    else:
        _show_comparison(comparison)
    if not comparison.holds:
        ctx.exit(1)


def _show_comparison(comparison: FolderComparison) -> None:
    differing = ", ".join(comparison.differing)
    conditions = f"differ in {differing}" if differing else "same seed, data, weights, recipe, versions"
    file = "the same bytes" if comparison.same_file else "other bytes"
    click.echo(f"{comparison.before} and {comparison.after}: {conditions}; model files: {file}")
    width = max((len(f.name) for f in comparison.figures), default=0)
    for f in comparison.figures:
        before, after = ("-" if x is None else f"{x:.4g}" for x in (f.before, f.after))
        change = "" if f.before is None or f.after is None else f"{f.after - f.before:+.4g}"
        click.echo(f"  {f.name:<{width}}  {before:>8}  {after:>8}  {change if change not in ('+0', '-0') else '='}")


@click.command(
    short_help="Write the figures of models and studies as one page.",
    epilog="Example: bittern results models/* --results docs/results --out docs/results.md",
)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--results", "folder", required=True, type=click.Path(path_type=Path), help="Folder of result files.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Page to write (Markdown).")
def results(models: tuple[Path, ...], folder: Path, out: Path) -> None:
    """Write the figures of model folders and of result files as one Markdown page."""
    from bittern.system import fileio
    from bittern_convert import results as page

    fileio.write(out, page.render(models, folder).encode())
    click.echo(out)

"""`bittern convert`, `compare` and `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import host_command, model_options, print_json, region_option, warn
from bittern.errors import ConfigurationError

if TYPE_CHECKING:
    from bittern.model.preprocess import Region
    from bittern.model.runtime import ExecutionPath
    from bittern_convert.compare import Comparison
    from bittern_convert.occlusion import Fill


@host_command
@click.command(
    epilog="Example: bittern convert runs/stop_sign --out models/stop_sign",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Model folder to make.  [default: models/TASK]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the pictures, if it moved since training.")
@click.option("--name", help="Name of the model.  [default: that of its folder]")
@click.option("--version", default="1", show_default=True, help="Version of the model.")
@click.option("--force", is_flag=True, help="Replace a model folder that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the gate's outcome as JSON.")
def convert(
    run: Path, out: Path | None, data: Path | None, name: str | None, version: str, force: bool, as_json: bool
) -> None:
    """Turn a finished run into an int8 model folder.

    Float and int8 are compared on a thousand pictures or more; a model that lost too much is not packaged (exit 1).
    """
    from bittern_convert.quiet import quiet
    from bittern_convert.run import load
    from bittern_convert.screen import bar

    task = load(run).task["name"]
    with quiet(run / "convert.log") as console, bar(console) as progress:
        from bittern_convert import package

        target = out or Path("models") / task
        said, outcome = package.convert(
            run, target, data=data, name=name or target.name, version=version, replace=force, progress=progress
        )
    if as_json:
        print_json({"model": str(target), **{f: getattr(outcome, f) for f in outcome.__struct_fields__}})
        return
    kinds = ", ".join(f"{n} {kind}" for kind, n in outcome.kinds.items())
    low, high = outcome.agreement_ci95
    click.echo(f"{target}: {said.size / 1e6:.2f} MB, sha256 {said.sha256[:12]}")
    click.echo(
        f"gate passed: same answer on {outcome.same} of {outcome.n} ({outcome.agreement:.2%}, "
        f"95 % {low:.2%} to {high:.2%}): {kinds}"
    )
    click.echo(
        f"  paired accuracy loss {100 * outcome.loss:+.2f} points "
        f"(95 % {100 * outcome.loss_ci95[0]:+.2f} to {100 * outcome.loss_ci95[1]:+.2f}); "
        f"float {outcome.float_accuracy:.2%}, int8 {outcome.int8_accuracy:.2%}"
    )
    for split, figures in said.provenance["reports"].items():
        low, high = figures["accuracy_ci95"]
        click.echo(
            f"  {split}: {figures['correct']} of {figures['n']} right (95 % {low:.1%} to {high:.1%}), "
            f"{figures['alarms']} alarms"
        )


@host_command
@click.command(epilog="Example: bittern compare models/stop_sign build/reproduce/models/stop_sign")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def compare(ctx: click.Context, before: Path, after: Path, as_json: bool) -> None:
    """Say how far the figures of two model folders are apart, by what their manifests state.

    Exit code 1 if seed, data, start weights, recipe and versions (the processor among them) are the same but a figure
    is not.
    """
    from bittern_convert import compare as comparing

    found = comparing.compare(before, after)
    if as_json:
        print_json({f: getattr(found, f) for f in found.__struct_fields__} | {"holds": found.holds})
    else:
        _show_comparison(found)
    if not found.holds:
        ctx.exit(1)


def _show_comparison(found: Comparison) -> None:
    conditions = (
        f"differ in {', '.join(found.differing)}" if found.differing else "same seed, data, weights, recipe, versions"
    )
    file = "the same bytes" if found.same_file else "other bytes"
    click.echo(f"{found.before} and {found.after}: {conditions}; model files: {file}")
    width = max((len(f.name) for f in found.figures), default=0)
    for f in found.figures:
        before, after = ("-" if x is None else f"{x:.4g}" for x in (f.before, f.after))
        moved = "" if f.before is None or f.after is None else f"{f.after - f.before:+.4g}"
        click.echo(f"  {f.name:<{width}}  {before:>8}  {after:>8}  {moved if moved not in ('+0', '-0') else '='}")


@host_command
@click.command(
    epilog="Example: bittern explain street.jpg --out heat.png",
)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--model", default="stop_sign", show_default=True, help="Name, folder or .tflite.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Instead of IMAGE: an index.csv, a folder with one, or a folder per label.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="What the index's paths are relative to.  [default: its folder]"
)
@click.option("--split", default="val", show_default=True, help="Split of the index; without an index all pictures.")
@click.option("--label", help="Label of pictures whose index has none.  [default: the model's 'nothing']")
@click.option(
    "--each",
    type=click.IntRange(0, 100),
    default=6,
    show_default=True,
    help="With --data: so many right and so many wrong answers of each label on the sheet, the surest ones.",
)
@click.option(
    "--fill",
    type=click.Choice(["mean", "blur"]),
    default="mean",
    show_default=True,
    help="What covers: the picture's mean colour, or the picture blurred (hides detail, leaves colour).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("explain.png"),
    show_default=True,
    help="PNG to write.",
)
@region_option
@model_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture and head; with --data one a head.")
@click.pass_context
def explain(
    ctx: click.Context,
    images: tuple[str, ...],
    model: str,
    data: Path | None,
    root: Path | None,
    split: str,
    label: str | None,
    each: int,
    fill: Fill,
    out: Path,
    region: Region | None,
    labels: Path | None,
    path: ExecutionPath | None,
    threads: int,
    as_json: bool,
) -> None:
    """Show what an answer depends on: a picture with the heat beside it, and how much of it lies where.

    A soft patch is laid on 15 x 15 places, 48 px wide on 224; the heat is how much the log-odds of the answered label
    fall. It is what the answer depends on, not why, and only one place at a time: where two places each suffice, both
    stay cold. Scores are quantized: near 0 and 1 log-odds end at half an output step, and a score at its ceiling hides
    small falls.

    With --data every picture of a split is looked at; the table gives the mean share of heat per zone of a 3 x 3 grid
    (TL is top left), at the edge (outer 15 %) and in the bottom strip (lowest 15 %), for right and wrong answers.
    Exit code 1 if a picture could not be read, or the region does not fit into it.
    """
    if bool(images) == (data is not None):
        raise click.UsageError("expected either IMAGE... or --data.", ctx)
    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no folder {out.parent}")
    from rich.console import Console

    from bittern.evaluation import sheet
    from bittern.model.classifier import Classifier
    from bittern_convert import explain as explaining
    from bittern_convert.screen import bar

    items = explaining.split_of(data, root, split) if data else []
    files, empty = explaining.find(images)
    classifier = Classifier(model, labels=labels, path=path, threads=threads)
    if classifier.manifest is None:
        warn(f"{classifier.name}: no manifest: not verified")
    with bar(Console(stderr=True)) as progress:
        if data:
            found = explaining.of_split(classifier, items, fill, label, each, region, progress)
        else:
            found = explaining.of_pictures(classifier, files, fill, region, progress)
    skipped = [*empty, *found.skipped]
    for reason in skipped:
        warn(reason)
    if found.tiles:
        sheet.write(out, found.tiles)
    for figures in found.figures:
        if as_json:
            print_json(figures)
        else:
            click.echo("\n".join(explaining.lines(figures)))
    if found.tiles and not as_json:
        click.echo(f"{out}: the heat is what the answer depends on, not why")
    if skipped:
        ctx.exit(1)


@host_command
@click.command(epilog="Example: bittern report models/* --results docs/results --out docs/results.md")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--results", required=True, type=click.Path(path_type=Path), help="Folder of result files.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Page to write (Markdown).")
def report(models: tuple[Path, ...], results: Path, out: Path) -> None:
    """Write every figure of model folders, and of result files, on one page."""
    from bittern.system import fileio
    from bittern_convert import results as page

    fileio.write(out, page.render(models, results).encode())
    click.echo(out)

"""`bittern explain`: what the answers to pictures depend on, as figures and as pictures with their heat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import model_options, print_json, progress_bar, region_option, warn
from bittern.errors import ConfigurationError

if TYPE_CHECKING:
    from bittern.evaluation.explain import Picture, Survey
    from bittern.evaluation.occlusion import Fill
    from bittern.model.preprocess import Region
    from bittern.model.runtime import ExecutionPath


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
    from bittern.evaluation import explain as explaining
    from bittern.evaluation import sheet
    from bittern.model.classifier import Classifier

    items = explaining.split_of(data, root, split) if data else []
    files, empty = explaining.find(images)
    classifier = Classifier(model, labels=labels, path=path, threads=threads)
    if classifier.manifest is None:
        warn(f"{classifier.name}: no manifest: not verified")
    with progress_bar("explain", len(items) or len(files)) as progress:
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
            click.echo("\n".join(_lines(figures)))
    if found.tiles and not as_json:
        click.echo(f"{out}: the heat is what the answer depends on, not why")
    if skipped:
        ctx.exit(1)


def _lines(found: Picture | Survey) -> list[str]:
    """The figures as text."""
    from bittern.evaluation.explain import Survey

    return _table(found) if isinstance(found, Survey) else [_line(found)]


def _line(found: Picture) -> str:
    from bittern.evaluation import occlusion

    text = f"{found.path}  {found.label}  {found.score:.3f}"
    if found.zones is None:
        return f"{text}  no patch lowers the score"
    zones = found.zones
    hot = sorted(occlusion.GRID, key=lambda zone: -zones[zone])[:3]
    places = ", ".join(f"{zone} {zones[zone]:.0%}" for zone in (*hot, "edge", "bottom strip"))
    notes = (("faint", found.faint), ("score at its ceiling", found.at_ceiling))
    return (
        f"{text}  drop {found.drop:.2f}, peak at {found.peak}, {found.changed} of {found.patches} patches change the "
        f"answer; heat: {places}" + "".join(f"; {note}" for note, holds in notes if holds)
    )


def _table(survey: Survey) -> list[str]:
    from bittern.evaluation import occlusion

    heads = [*("".join(word[0] for word in zone.split()).upper() for zone in occlusion.GRID), "edge", "strip"]
    width = max([len("label"), *(len(g.label) for g in survey.groups)])
    rows = [f"{'label':<{width}}  answer     n  faint  ceiling  changed   drop" + "".join(f"{h:>6}" for h in heads)]
    for g in survey.groups:
        cells = "".join(f"{'-' if g.zones is None else format(g.zones[zone], '.0%'):>6}" for zone in occlusion.ZONES)
        rows.append(
            f"{g.label:<{width}}  {'right ' if g.right else 'wrong '}  {g.n:>4}  {g.faint:>5}  {g.at_ceiling:>7}  "
            f"{g.changed:>7}  {g.median_drop:>5.2f}{cells}"
        )
    area = "".join(f"{survey.area[zone]:>6.0%}" for zone in occlusion.ZONES)
    which = f"{survey.model} {survey.version}, {survey.task}, split {survey.split}: mean share of the heat by zone"
    return [which, *(f"  {row}" for row in rows), f"  {'share of the area':<{len(rows[0]) - len(area)}}{area}"]

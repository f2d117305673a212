"""`bittern explain`: what the answers to pictures depend on, as figures and as pictures with their heat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.bare_models import model_options, open_models, warn_unverified
from bittern.cli.common import as_utf8, print_json, progress_bar, region_option, warn
from bittern.errors import ConfigurationError, printable

if TYPE_CHECKING:
    from bittern.cli.bare_models import Statements
    from bittern.evaluation.explain import PictureHeat, Survey
    from bittern.evaluation.occlusion import Fill
    from bittern.model.preprocess import Region
    from bittern.model.runtime import ExecutionPath


@click.command(
    short_help="Show what an answer depends on, as heat.", epilog="Example: bittern explain street.jpg --out heat.png"
)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--model", default="stop_sign", show_default=True, help="Name, folder or .tflite.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Instead of IMAGE: an index.csv, a folder with one, or a folder of pictures for each label.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="What the index's paths are relative to.  [default: its folder]"
)
@click.option("--split", help="Split of the index.  [default: val; all pictures where there is no index]")
@click.option("--label", help="Label of pictures that have none in the index.  [default: the model's 'nothing']")
@click.option(
    "--each",
    type=click.IntRange(0, 100),
    default=6,
    show_default=True,
    help="With --data: number of correct answers, and of mistakes, per label on the sheet: the most confident ones.",
)
@click.option(
    "--fill",
    type=click.Choice(["mean", "blur"]),
    default="mean",
    show_default=True,
    help="What a patch shows: the picture's mean colour, or the picture blurred (hides detail, leaves colour).",
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
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per picture and head; with --data, one per head."
)
@click.pass_context
def explain(
    ctx: click.Context,
    images: tuple[str, ...],
    model: str,
    data: Path | None,
    root: Path | None,
    split: str | None,
    label: str | None,
    each: int,
    fill: Fill,
    out: Path,
    region: Region | None,
    stated: Statements,
    path: ExecutionPath | None,
    threads: int,
    as_json: bool,
) -> None:
    """Show what an answer depends on: the picture with its heat, and how the heat is spread.

    A patch with soft edges covers 15 x 15 places in turn, 48 px wide on 224; the heat is the fall of the log-odds of
    the answered label. It shows what the answer depends on, not why, and only one place at a time: where two places
    each suffice, both stay cold. Scores are quantized: near 0 and 1 the log-odds end at half an output step, and a
    score at its ceiling hides small falls.

    With --data all pictures of a split are explained; the table gives the mean share of heat in each zone of a 3 x 3
    grid (TL is top left), at the edge (outer 15 %) and in the bottom strip (lowest 15 %), for correct answers and for
    mistakes.

    Exit code 1 if a picture cannot be read, or the region does not fit into it.
    """
    if bool(images) == (data is not None):
        raise click.UsageError("expected either IMAGE... or --data.", ctx)
    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: no folder {out.parent}")
    import logging

    from bittern.evaluation import dataset, sheet
    from bittern.evaluation import explain as explaining

    logging.basicConfig(format="bittern: %(message)s")
    items = dataset.read(data, root) if data else []
    if data and (split is not None or any(item.split for item in items)):
        items = dataset.of_split(items, split or "val", data)
    files, empty = explaining.picture_files(images)
    (classifier,) = open_models([model], stated, path, threads)
    warn_unverified([classifier])
    heats: list[PictureHeat] = []
    surveys: list[Survey] = []
    with progress_bar("explain", len(items) or len(files)) as progress:
        if data:
            surveys, tiles, skipped = explaining.explain_split(classifier, items, fill, label, each, region, progress)
        else:
            heats, tiles, skipped = explaining.explain_pictures(classifier, files, fill, region, progress)
    skipped = [*empty, *skipped]
    for reason in skipped:
        warn(reason)
    if tiles:
        sheet.write(out, tiles)
    for heat in heats:
        _show_picture(heat, as_json)
    for survey in surveys:
        _show_survey(survey, as_json)
    if tiles and not as_json:
        click.echo(f"{printable(str(out))}: heat shows where the answer depends on the picture, not why")
    if skipped:
        ctx.exit(1)


def _show_picture(heat: PictureHeat, as_json: bool) -> None:
    import msgspec

    from bittern.evaluation import occlusion

    if as_json:
        print_json(msgspec.structs.replace(heat, path=as_utf8(heat.path)))
        return
    text = f"{printable(heat.path)}  {heat.label}  {heat.score:.3f}"
    if heat.zones is None:
        click.echo(f"{text}  no patch lowers the score")
        return
    zones = heat.zones
    hottest = sorted(occlusion.GRID, key=lambda zone: -zones[zone])[:3]
    places = ", ".join(f"{zone} {zones[zone]:.0%}" for zone in (*hottest, "edge", "bottom strip"))
    notes = (("faint", heat.faint), ("score at its ceiling", heat.at_ceiling))
    click.echo(
        f"{text}  drop {heat.drop:.2f}, peak at {heat.peak}, {heat.changed} of {heat.patches} patches change the "
        f"answer; heat: {places}" + "".join(f"; {note}" for note, holds in notes if holds)
    )


def _show_survey(survey: Survey, as_json: bool) -> None:
    import msgspec

    from bittern.evaluation import occlusion

    if as_json:
        print_json(msgspec.structs.replace(survey, skipped=[as_utf8(line) for line in survey.skipped]))
        return
    names = [*("".join(word[0] for word in zone.split()).upper() for zone in occlusion.GRID), "edge", "strip"]
    width = max([len("label"), *(len(s.label) for s in survey.summaries)])
    rows = [f"{'label':<{width}}  answer      n  faint  ceiling  changed   drop" + "".join(f"{x:>6}" for x in names)]
    for s in survey.summaries:
        cells = "".join(f"{'-' if s.zones is None else format(s.zones[zone], '.0%'):>6}" for zone in occlusion.ZONES)
        rows.append(
            f"{s.label:<{width}}  {'correct' if s.correct else 'mistake'}  {s.n:>4}  {s.faint:>5}  {s.at_ceiling:>7}  "
            f"{s.changed:>7}  {s.median_drop:>5.2f}{cells}"
        )
    area = "".join(f"{survey.area[zone]:>6.0%}" for zone in occlusion.ZONES)
    rows.append(f"{'share of the area':<{len(rows[0]) - len(area)}}{area}")
    title = f"{survey.model} {survey.version}, {survey.task}, split {survey.split}: mean share of the heat by zone"
    click.echo("\n".join(map(printable, [title, *(f"  {row}" for row in rows)])))

"""`bittern data check`: what may be wrong with a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bittern.cli.common import as_utf8, has_tensorflow, needs_extra, one_blas_thread, print_json, warn

if TYPE_CHECKING:
    from bittern_train.data.check import Checked

# Pictures that are named of a finding; --json names all.
_NAMED = 5


@click.command(
    "check",
    short_help="Look for what may be wrong with pictures, labels and splits.",
    epilog="Example: bittern data check set/ --html check.html",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one HTML page with the pictures, for any browser.",
)
@click.option(
    "--weights",
    metavar="WEIGHTS",
    help="Doubt labels by features of MobileNetV2 with these weights, as for `bittern train` (imagenet, or a file); "
    "needs TensorFlow.  [default: simple features]",
)
@click.option("--strict", is_flag=True, help="Exit code 1 if there is any finding.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all findings and their pictures.")
@click.pass_context
def command(
    ctx: click.Context, data: Path, html: Path | None, weights: str | None, strict: bool, as_json: bool
) -> None:
    """Look for what may be wrong with pictures, labels and splits.

    DATA is a folder with an index.csv or with a folder of pictures for each label, or an index; nothing in it is
    changed. Findings are pictures that cannot be read, are tiny, blurred, dark, plain, perhaps turned the wrong way or
    of another kind than the others; one picture under two labels or on two sides of a split; labels that differ only
    in how they are written, that a split lacks, or that are few; labels that a quick model doubts; and shortcuts: what
    should not tell the labels apart, but does, such as the size of the pictures. What a network learns of a shortcut is
    of no use in front of a camera.

    Exit code 1 if a picture cannot be read; with --strict also if there is any finding.
    """
    needs_extra("data check", "data", "imagehash", "sklearn")
    if weights is not None and not has_tensorflow():
        raise click.UsageError("--weights needs TensorFlow: pip install 'bittern[train]'")
    one_blas_thread()
    # The threads of scikit-learn's OpenMP would only wait for each other beside those that decode.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from functools import partial

    from bittern.evaluation import dataset
    from bittern_train.data import check, check_page, doubt
    from bittern_train.data.cli.steps import steps

    items = dataset.read(data)
    with steps() as progress:
        features = None
        if weights is not None:
            features = partial(doubt.network_features, weights=weights, progress=progress)
        report = check.check(items, progress, features)
        if html is not None:
            check_page.write(html, str(data), report, progress)
    if as_json:
        print_json(_as_json(data, report))
    else:
        _print(report)
        if html is not None:
            click.echo(f"page: {html}")
    unreadable = [finding for finding in report.findings if finding.kind == "unreadable"]
    for finding in unreadable:
        for item, note in zip(finding.items, finding.notes, strict=True):
            warn(f"{item.path}: {note}")
    if unreadable or (strict and report.findings):
        ctx.exit(1)


def _as_json(data: Path, report: Checked) -> dict[str, Any]:
    return {
        "data": as_utf8(str(data)),
        "pictures": report.pictures,
        "labels": report.labels,
        "splits": report.splits,
        "findings": [
            {
                "kind": finding.kind,
                "text": finding.text,
                "pictures": [
                    {"path": as_utf8(item.name), "label": item.label, "split": item.split, "note": as_utf8(note)}
                    for item, note in zip(finding.items, finding.notes, strict=True)
                ],
            }
            for finding in report.findings
        ],
        "shortcuts": [{"what": s.what, "auc": s.auc, "auc_ci95": s.interval} for s in report.shortcuts],
        "not_checked": report.remarks,
    }


def _print(report: Checked) -> None:
    from bittern.errors import printable

    labels = ", ".join(f"{printable(label) or 'no label'} {count}" for label, count in report.labels.items())
    click.echo(f"{report.pictures} pictures: {labels}")
    for finding in report.findings:
        click.echo(printable(f"{finding.kind}: {finding.text}"))
        for item, note in list(zip(finding.items, finding.notes, strict=True))[:_NAMED]:
            click.echo(printable(f"  {item.name}" + (f": {note}" if note else "")))
        if len(finding.items) > _NAMED:
            click.echo(f"  ... and {len(finding.items) - _NAMED} more (--json has all)")
    if report.shortcuts:
        click.echo("what tells the labels apart by itself (AUC; 0.5 is chance):")
        for shortcut in report.shortcuts:
            click.echo(f"  {shortcut.text}")
    for remark in report.remarks:
        click.echo(f"not checked: {remark}")
    if not report.findings:
        click.echo("nothing found")

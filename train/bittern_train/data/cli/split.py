"""`bittern data split`: gives pictures their splits, and says how exact the figures on the test split can be."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import FiniteRange, one_blas_thread, print_json, warn
from bittern.errors import ConfigurationError, printable

# What the width of the interval is told for: an accuracy that a good model has, and a width that tells two apart.
EXPECTED = 0.95
NARROW = 0.03


@click.command(
    "split",
    short_help="Hold pictures back for testing: seeded, stratified, by group.",
    epilog="Example: bittern data split set/ --test 0.2",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--test", default=0.2, show_default=True, type=FiniteRange(0.01, 0.9), help="Share that is held back.")
@click.option(
    "--val",
    default=0.0,
    show_default=True,
    type=FiniteRange(0, 0.9),
    help="Share of a validation split. `bittern train` needs none: it chooses by k-fold on train and val.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of the choice.")
@click.option("--again", is_flag=True, help="Split all anew, also what has a split; other splits, as extra, stay.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(data: Path, test: float, val: float, seed: int, again: bool, as_json: bool) -> None:
    """Give the pictures of a data set their splits, in its index.csv: train, val and test.

    Each label is divided in the same shares, and no group (near-duplicates, frames of one track) is divided. A picture
    that has a split keeps it: split again after adding pictures, and what was held back stays held back. The same
    pictures and seed give the same splits.

    The last line says how wide the 95 % interval (Wilson's) of an accuracy on the test split will be. Pictures of one
    group count once there, as they are not independent.
    """
    one_blas_thread()
    from bittern.evaluation import dataset, index, metrics
    from bittern_train.data import splitting

    if test + val >= 1:
        raise click.UsageError(f"--test and --val leave nothing for training: they add up to {test + val:g}")
    file = index.file_of(data)
    with index.locked(file):
        before = dataset.read(data)
        try:
            items = splitting.assign(before, {"train": 1 - test - val, "val": val, "test": test}, seed, again=again)
        except ConfigurationError as error:
            raise ConfigurationError(f"{data}: {error}") from None
        index.write(file, items)
    counts = splitting.table(items)
    splits = sorted({split for row in counts.values() for split in row}, key=_rank)
    held_back = sum(row["test"].pictures for row in counts.values() if "test" in row)
    groups = len({item.group or item.name for item in items if item.split == "test" and item.label})
    half_width = metrics.expected_half_width(EXPECTED, groups) if groups else None
    needed = metrics.pictures_for(EXPECTED, NARROW)
    without = sum(not item.label for item in items)
    if not any(item.group for item in items):
        warn(f"{data}: no picture has a group: run `bittern data dedupe` first if near-duplicates were not looked for")
    for label, row in counts.items():
        if "test" not in row or "train" not in row:
            warn(
                printable(
                    f"label {label!r} has no picture in {'train' if 'test' in row else 'test'}: add pictures of it"
                )
            )
    if as_json:
        print_json(
            {
                "index": printable(str(file)),
                "seed": seed,
                "labels": {label: {s: c.pictures for s, c in row.items()} for label, row in counts.items()},
                "test": {"n": held_back, "groups": groups, "half_width": half_width},
                "needed": {"half_width": NARROW, "groups": needed},
                "without_label": without,
            }
        )
        return
    width = max(5, *(len(printable(label)) for label in counts))
    click.echo(f"{'label':{width}}" + "".join(f"  {split:>6}" for split in splits))
    for label, row in counts.items():
        numbers = "".join(f"  {row[split].pictures if split in row else 0:>6}" for split in splits)
        click.echo(f"{printable(label):{width}}{numbers}")
    if without:
        click.echo(f"without a label, and so without a split: {without} (bittern data label {printable(str(data))})")
    if half_width is not None:
        in_groups = f" in {groups} groups" if groups < held_back else ""
        click.echo(
            f"{held_back} test pictures{in_groups}: an accuracy of {EXPECTED:.0%} will be known to "
            f"+- {100 * half_width:.1f} points; for +- {100 * NARROW:g} you need {needed}"
        )


def _rank(split: str) -> tuple[int, str]:
    return {"train": 0, "val": 1, "test": 2}.get(split, 3), split

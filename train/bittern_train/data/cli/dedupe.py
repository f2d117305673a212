"""`bittern data dedupe`: near-duplicates as groups of the index, and as a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bittern.cli.common import as_utf8, needs_extra, print_json, warn

if TYPE_CHECKING:
    from bittern_train.data.dedupe import Cluster, Duplicates

# Lines of the list; --json has all.
_LISTED = 20


@click.command(
    "dedupe",
    short_help="Put near-duplicates into groups, across labels and splits.",
    epilog="Example: bittern data dedupe set/ --sheet duplicates.png",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a contact sheet (PNG) of the near-duplicates; those with several labels or splits first, in red.",
)
@click.option(
    "--drop",
    is_flag=True,
    help="Leave only one row of each set of near-duplicates in the index: of the split that is reported on before val "
    "before train, and the largest. Those with different labels all stay. No file is deleted.",
)
@click.option("--dry-run", is_flag=True, help="Change no index.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all near-duplicates.")
@click.pass_context
def command(ctx: click.Context, data: Path, sheet: Path | None, drop: bool, dry_run: bool, as_json: bool) -> None:
    """Put near-duplicates into groups, across labels and splits.

    DATA is a folder with an index.csv or with a folder of pictures for each label, or an index. Near-duplicates are the
    same photograph: the same file, re-encoded, resized, mirrored, turned, or cropped. They get the same value in the
    column "group", which `bittern data split` and `bittern train` never divide; groups that are there already are
    joined, never split. `bittern data undo` brings the old index back.

    Exit code 1 if a picture could not be read.
    """
    needs_extra("data dedupe", "data", "imagehash")
    from bittern.evaluation import dataset, index
    from bittern_train.data import dedupe
    from bittern_train.data.cli.steps import steps

    file = index.file_of(data)
    with index.locked(file):
        items = dataset.read(data)
        with steps() as progress:
            duplicates = dedupe.find(items, progress)
        kept, doubtful = dedupe.without(duplicates) if drop else (duplicates.items, [])
        if not dry_run:
            index.write(file, kept)
    for line in duplicates.unreadable:
        warn(line)
    on_sheet = 0
    if sheet is not None and duplicates.clusters:
        on_sheet = dedupe.write_sheet(sheet, duplicates.clusters)
    dropped = len(items) - len(kept)
    if as_json:
        print_json(_as_json(file, duplicates, dropped))
    else:
        _print(duplicates, doubtful if drop else None, dropped)
        if sheet is not None:
            click.echo(f"{sheet}: {on_sheet} of them" if on_sheet else "no sheet: nothing to show")
        if not dry_run:
            click.echo(f"{file}: {len(kept)} pictures in {_groups(kept)} groups")
    if duplicates.unreadable:
        ctx.exit(1)


def _groups(items: list[Any]) -> int:
    return len({item.group or item.name for item in items})


def _as_json(file: Path, duplicates: Duplicates, dropped: int) -> dict[str, Any]:
    return {
        "index": as_utf8(str(file)),
        "pictures": len(duplicates.items),
        "unreadable": len(duplicates.unreadable),
        "distinct": duplicates.distinct,
        "dropped": dropped,
        "groups": [
            {
                "paths": [as_utf8(item.name) for item in cluster.items],
                "kinds": cluster.kinds,
                "labels": cluster.labels,
                "splits": cluster.splits,
            }
            for cluster in duplicates.clusters
        ],
    }


def _print(duplicates: Duplicates, doubtful: list[Cluster] | None, dropped: int) -> None:
    clusters = duplicates.clusters
    labels = [cluster for cluster in clusters if len(cluster.labels) > 1]
    splits = [cluster for cluster in clusters if len(cluster.splits) > 1]
    click.echo(
        f"{len(duplicates.pixels)} pictures, {duplicates.distinct} distinct: {len(clusters)} sets of near-duplicates, "
        f"{len(labels)} with several labels, {len(splits)} in several splits"
    )
    _print_clusters("several labels", labels)
    _print_clusters("several splits", [cluster for cluster in splits if cluster not in labels])
    if doubtful is not None:
        click.echo(f"rows dropped: {dropped}")
        if doubtful:
            click.echo(f"not dropped, because their labels differ: {len(doubtful)} sets; decide which label is right")


def _print_clusters(what: str, clusters: list[Cluster]) -> None:
    for cluster in clusters[:_LISTED]:
        members = ", ".join(f"{as_utf8(i.name)} ({' '.join(filter(None, (i.label, i.split)))})" for i in cluster.items)
        click.echo(f"  {what}: {members}")
    if len(clusters) > _LISTED:
        click.echo(f"  ... and {len(clusters) - _LISTED} more with {what} (--json has all)")

"""`bittern data import`: labelled pictures of others become a data set."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import FiniteRange, one_blas_thread, print_json, progress_bar, sigterm_interrupts, warn
from bittern.errors import ConfigurationError, printable

if TYPE_CHECKING:
    from bittern_train.data.importing import Imported

FORMATS = ("edge-impulse", "coco", "frigate", "gtsrb", "voc", "yolo", "table", "folders")
# Names of examples for each reason.
EXAMPLES = 3


@click.command(
    "import",
    short_help="Make a data set of folders, tables, boxes, archives, exports.",
    epilog="Example: bittern data import downloads/pets.zip --out set/",
)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--add", is_flag=True, help="Add to the data set that is in OUT.")
@click.option("--format", "wanted", type=click.Choice(FORMATS), help="What SRC is.  [default: by its content]")
@click.option("--whole", is_flag=True, help="Whole pictures where there are boxes, instead of a crop around each.")
@click.option(
    "--margin",
    default=0.1,
    show_default=True,
    type=FiniteRange(0, 5),
    help="Around a box, as a part of its longer side.",
)
@click.option(
    "--label-from",
    default="first",
    show_default=True,
    type=click.Choice(["first", "last", "path"]),
    help="Which of nested folders is the label; path: all of them, with / between.",
)
@click.option("--label", default="", help="Label of pictures without one, or without a box.")
@click.option("--split", help="Split of all pictures, such as extra.  [default: as SRC says]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    source: Path,
    out: Path,
    add: bool,
    wanted: str | None,
    whole: bool,
    margin: float,
    label_from: str,
    label: str,
    split: str | None,
    as_json: bool,
) -> None:
    """Copy labelled pictures into the folder OUT, and write its index.csv.

    \b
    SRC is a folder, or a zip or tar, which is read in place, with
      folders        a folder for each label (train/, val/, test/ above them are splits), or just pictures
      table          a CSV or JSON file of paths and labels; SRC may also be that file
      coco           annotations in JSON
      yolo           a text file for each picture, and the names of the classes
      voc            an XML file for each picture
      gtsrb          the German Traffic Sign Recognition Benchmark: tracks become groups
      edge-impulse   an export with info.labels
      frigate        snapshots, with the answer of /api/events in a JSON file

    Boxes become a square crop each, because the network sees the centred square of a picture; the crops of one picture
    are a group. With --whole a picture has the label of its largest box.

    Every picture is decoded. What cannot be read is left out and listed; exit code 1 says so. Whole pictures are copied
    byte for byte: SRC is never altered, and OUT can be moved.
    """
    one_blas_thread()
    from bittern_train.data import formats, importing
    from bittern_train.data.tree import open_tree

    if not source.exists():
        raise ConfigurationError(f"{source}: no such folder or file")
    only = source.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".ndjson") and source.is_file()
    tree = open_tree(source.parent if only else source, without=out)
    options = importing.Options(whole, margin, label, split)
    try:
        contents = formats.read(tree, wanted, only=source.name if only else None, label_from=label_from)
        if contents.also:
            others = " and ".join(contents.also)
            warn(f"{source}: imported as {contents.format}; there is {others} too: choose with --format")
        with sigterm_interrupts(), progress_bar("import", len(contents.pictures)) as progress:
            done = importing.copy(tree, contents, out, options, progress, add=add)
    finally:
        tree.close()
    if as_json:
        counts = collections.Counter(item.label or "" for item in done.items)
        left_out = [{"path": printable(o.name), "reason": printable(o.reason)} for o in done.left_out]
        print_json(
            {
                "out": printable(str(out)),
                "format": contents.format,
                "pictures": len(done.items),
                "labels": dict(sorted(counts.items())),
                "total": done.total,
                "left_out": left_out,
            }
        )
    else:
        click.echo("\n".join(map(printable, _lines(out, contents.format, done))))
    if any(left_out.failed for left_out in done.left_out):
        ctx.exit(1)


def _lines(out: Path, kind: str, done: Imported) -> list[str]:
    counts = collections.Counter(item.label or "" for item in done.items)
    total = f", {done.total} with those before" if done.total > len(done.items) else ""
    lines = [f"{out}: {len(done.items)} pictures ({kind}){total}"]
    if not done.items:
        lines = [f"{out}: nothing new ({kind}): all pictures that can be read are in it already, {done.total} in all"]
    width = max((len(printable(label)) for label in counts), default=0)
    lines += [f"  {printable(label):{width}}  {count}" for label, count in counts.most_common() if label]
    if counts[""]:
        lines.append(f"  {counts['']} without a label: bittern data label {out}")
    if done.several:
        lines.append(f"  {done.several} with boxes of several labels: that of the largest box was taken")
    similar = _similar([label for label in counts if label])
    if similar:
        lines.append(f"  labels that differ only in case: {', '.join(map(repr, similar))}")
    reasons: dict[str, list[str]] = {}
    for left_out in done.left_out:
        reasons.setdefault(left_out.reason, []).append(left_out.name)
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(names) > EXAMPLES else ""
        lines.append(f"left out: {len(names)}: {reason} ({', '.join(names[:EXAMPLES])}{more})")
    return lines


def _similar(labels: Sequence[str]) -> list[str]:
    folded = collections.Counter(label.casefold() for label in labels)
    return sorted(label for label in labels if folded[label.casefold()] > 1)

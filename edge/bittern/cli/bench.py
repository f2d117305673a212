"""`bittern bench`: what Bittern costs on this machine, each figure against a reference measured in turn with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import FiniteRange, print_json, warn
from bittern.errors import BitternError, ConfigurationError

if TYPE_CHECKING:
    from bittern.bench.result import Result


@click.command(epilog="Example: bittern bench --out build/bench")
@click.option("--model", default="stop_sign", show_default=True, help="Name or folder.")
@click.option("--row", "names", multiple=True, metavar="NAME", help="Measure only this row; may be given again.")
@click.option("--n", type=click.IntRange(min=2), default=200, show_default=True, help="Measurements of each side.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for result.json and a picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row, or a slice of time.")
@click.option(
    "--compare", nargs=2, type=click.Path(path_type=Path), metavar="A B", help="Set two result files side by side."
)
@click.option("--sustained", type=FiniteRange(min=0, min_open=True), metavar="MINUTES", help="Speed over time.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    multiple=True,
    help="For --sustained; may be given again.  [default: 1 to 4, as far as there are cores]",
)
@click.pass_context
def bench(
    ctx: click.Context,
    model: str,
    names: tuple[str, ...],
    n: int,
    out: Path | None,
    as_json: bool,
    compare: tuple[Path, Path] | None,
    sustained: float | None,
    threads: tuple[int, ...],
) -> None:
    """Measure what Bittern costs, each figure against a reference that runs in turn with it.

    Exit code 1 if a row is over its limit, or could not be measured. Rows whose peer (MediaPipe, Pillow) is not
    installed are left out, and said so. On a Raspberry Pi with a published figure it also says whether this one is
    slow, and why.
    """
    for option, given, against in (
        ("--compare", compare, {"--row": names, "--out": out, "--json": as_json, "--sustained": sustained}),
        ("--sustained", sustained, {"--row": names}),
    ):
        if given is not None and (lost := [name for name, value in against.items() if value]):
            raise click.UsageError(f"{option} does not go with {', '.join(lost)}", ctx)
    if compare is not None:
        _compare(ctx, *compare)
    elif sustained is not None:
        _sustain(model, sustained, threads, out, as_json)
    elif threads:
        raise click.UsageError("--threads belongs to --sustained: the rows are measured with one thread", ctx)
    else:
        found = _measure(model, names, n, as_json)
        if out is not None:
            from bittern.bench.chart import bars

            _write(out, found, bars(found) if found.rows else None)
        if not all(row.holds for row in found.rows) or any(absent.failed for absent in found.left_out):
            ctx.exit(1)


def _measure(model: str, names: tuple[str, ...], n: int, as_json: bool) -> Result:
    import os
    import time

    from bittern.bench import boards, registry, result, rows
    from bittern.events import rfc3339
    from bittern.system import machine

    for name in names:
        if name not in registry.ROWS:
            raise ConfigurationError(f"--row: unknown row {name!r}: expected {', '.join(registry.ROWS)}")
    subject = rows.open_subject(model)
    measured: list[result.Row] = []
    left_out: list[result.LeftOut] = []
    with click.progressbar(
        names or registry.ROWS, label="bench", file=sys.stderr, hidden=not sys.stderr.isatty(), item_show_func=str
    ) as chosen:
        for name in chosen:
            try:
                measured.append(registry.ROWS[name](subject, n))
            except rows.PeerMissing as missing:
                left_out.append(result.LeftOut(name, str(missing)))
            except ConfigurationError:
                raise
            except BitternError as error:  # what was measured so far is worth keeping
                left_out.append(result.LeftOut(name, str(error), failed=True))
    all_cores = None if names else rows.all_cores_ms(subject, os.cpu_count() or 1, n)
    here = machine.read()
    said = boards.verdict(here, subject.classifier.path, all_cores, boards.load()) if all_cores else []
    if as_json:
        for row in measured:
            print_json(row)
        for absent in left_out:
            warn(str(absent))
    else:
        click.echo(result.table(measured, left_out))
    for line in said:
        click.echo(line, err=as_json)
    return result.Result(
        time=rfc3339(time.time_ns()),
        machine=here,
        model=f"{subject.classifier.name} {subject.classifier.version}",
        path=subject.classifier.path,
        rows=tuple(measured),
        left_out=tuple(left_out),
        all_cores_ms=all_cores,
        verdict=tuple(said),
    )


def _compare(ctx: click.Context, first: Path, second: Path) -> None:
    from bittern.bench import result

    a, b = result.read(first), result.read(second)
    click.echo(result.compare(a, b))
    if not all(row.holds for row in (*a.rows, *b.rows)):
        ctx.exit(1)


def _sustain(model: str, minutes: float, threads: tuple[int, ...], out: Path | None, as_json: bool) -> None:
    import os
    import time

    from bittern.bench import rows, sustained
    from bittern.bench.chart import curves
    from bittern.events import rfc3339
    from bittern.system import machine

    subject = rows.open_subject(model)
    counts = threads or tuple(range(1, min(4, os.cpu_count() or 1) + 1))
    points = sustained.run(subject, minutes, counts, print_json if as_json else lambda _: None)
    if not as_json:
        click.echo(sustained.table(points))
    name = f"{subject.classifier.name} {subject.classifier.version}"
    found = sustained.Sustained(
        time=rfc3339(time.time_ns()), machine=machine.read(), model=name, minutes=minutes, points=tuple(points)
    )
    if out is not None:
        _write(out, found, curves(points, f"bittern bench --sustained: {name}, frame of 640 x 480 to its event"))


def _write(out: Path, found: object, picture: str | None) -> None:
    import msgspec

    from bittern.system import fileio

    kind = "sustained" if hasattr(found, "points") else "result"
    fileio.write(out / f"{kind}.json", msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    if picture is not None:
        fileio.write(out / f"{kind}.svg", picture.encode())

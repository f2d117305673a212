"""`bittern bench`: what Bittern costs on this machine, each figure beside a reference measured in turn with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bittern.cli.bare_models import about, bare_options
from bittern.cli.common import FiniteRange, print_json, progress_bar, warn
from bittern.errors import BitternError, ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bittern.bench.result import BenchResult, LeftOut, Row
    from bittern.bench.rows import Subject
    from bittern.bench.suite import Measure
    from bittern.bench.sustained import Sustained
    from bittern.cli.bare_models import Statements


@dataclass(frozen=True)
class _Options:
    """The command line; the options below explain each of them."""

    model: str
    stated: Statements
    rows: tuple[str, ...]
    n: int
    out: Path | None
    check: bool
    as_json: bool
    compare: tuple[Path, Path] | None
    sustained: float | None
    threads: tuple[int, ...]


@click.command(
    short_help="Measure what Bittern costs on this machine.", epilog="Example: bittern bench --out build/bench"
)
@click.option("--model", default="stop_sign", show_default=True, help="Name, folder or .tflite.")
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="NAME",
    help="Measure only this row; may be repeated. Rows of the host: import, check, dedupe, dedupe_memory, label_key.",
)
@click.option("--n", type=click.IntRange(min=2), default=200, show_default=True, help="Measurements of each side.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for result.json and a chart.")
@click.option("--check", is_flag=True, help="Compare each row with its limit; exit code 1 if one is over.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row, or per slice of time.")
@click.option(
    "--compare", nargs=2, type=click.Path(path_type=Path), metavar="A B", help="Show two result files side by side."
)
@click.option("--sustained", type=FiniteRange(min=0, min_open=True), metavar="MINUTES", help="Speed over time.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    multiple=True,
    help="For --sustained; may be repeated.  [default: 1 to 4, as far as there are cores]",
)
@bare_options
@click.pass_context
def bench(ctx: click.Context, /, **values: Any) -> None:
    """Measure what Bittern costs, each figure beside a reference that runs in turn with it.

    A bare .tflite file of any tool is measured as the model folder that `bittern adopt` makes of it, here in a
    temporary place: what it does not say has to be stated, as for `bittern classify`.

    Exit code 1 if a row could not be measured, and with --check if one is over its limit. Rows whose peer (MediaPipe,
    Pillow) is not installed, or cannot run the model, are left out, with a line that says so. On a Raspberry Pi with a
    published figure it also says whether this one is slow, and why.
    """
    options = _Options(**values)
    _refuse_what_does_not_go_together(ctx, options)
    if options.compare is not None:
        over = _compare(*options.compare, options.check)
        failed = False
    elif options.sustained is not None:
        _sustain(options, options.sustained)
        return
    else:
        measured = _measure(options)
        over = [row for row in measured.rows if row.over]
        failed = any(row.failed for row in measured.left_out)
    if failed or (options.check and over):
        ctx.exit(1)


def _refuse_what_does_not_go_together(ctx: click.Context, options: _Options) -> None:
    row, out, as_json = ("--row", options.rows), ("--out", options.out), ("--json", options.as_json)
    check, sustained = ("--check", options.check), ("--sustained", options.sustained)
    for (name, value), others in (
        (("--compare", options.compare), (row, out, as_json, sustained)),
        (sustained, (row, check)),
    ):
        if value is not None and (refused := [other for other, given in others if given]):
            raise click.UsageError(f"{name} does not go with {', '.join(refused)}", ctx)
    if options.threads and options.sustained is None:
        raise click.UsageError("--threads goes with --sustained only: the rows are measured with one thread", ctx)


def _measure(options: _Options) -> BenchResult:
    import os
    import time

    from bittern.bench import boards, chart, result, rows, suite
    from bittern.events import rfc3339
    from bittern.system import machine

    known = dict(suite.ROWS)
    if set(options.rows) - known.keys():
        known |= suite.host_rows()
    for name in options.rows:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigurationError(f"--row: unknown row {name!r}: expected {', '.join(known)}{hint}")
    with rows.open_subject(options.model, *about((options.model,), options.stated)) as subject:
        chosen = {name: known[name] for name in options.rows or suite.ROWS}
        measured, left_out = _rows(subject, chosen, options.n)
        all_cores = None if options.rows else rows.all_cores_ms(subject, os.cpu_count() or 1, options.n)
    here = machine.read()
    verdict = boards.verdict(here, subject.classifier.path, all_cores, boards.load()) if all_cores else []
    if options.as_json:
        for row in measured:
            print_json(row)
        for missing in left_out:
            warn(str(missing))
    else:
        click.echo(result.table(measured, left_out, check=options.check))
    for line in verdict:
        click.echo(line, err=options.as_json)
    whole = result.BenchResult(
        time=rfc3339(time.time_ns()),
        machine=here,
        model=f"{subject.classifier.name} {subject.classifier.version}",
        path=subject.classifier.path,
        rows=tuple(measured),
        left_out=tuple(left_out),
        all_cores_ms=all_cores,
        verdict=tuple(verdict),
    )
    if options.out is not None:
        _write(options.out, whole, "result", chart.bars(whole) if whole.rows else None)
    return whole


def _rows(subject: Subject, chosen: Mapping[str, Measure], n: int) -> tuple[list[Row], list[LeftOut]]:
    from bittern.bench import result, rows

    measured: list[Row] = []
    left_out: list[LeftOut] = []
    with progress_bar("bench", len(chosen)) as show:
        for done, (name, measure) in enumerate(chosen.items(), start=1):
            try:
                measured.append(measure(subject, n))
            except rows.PeerMissing as missing:
                left_out.append(result.LeftOut(name, str(missing)))
            except ConfigurationError:
                raise
            except BitternError as error:  # what was measured so far is worth keeping
                left_out.append(result.LeftOut(name, str(error), failed=True))
            show(done)
    return measured, left_out


def _compare(first: Path, second: Path, check: bool) -> list[Row]:
    """Print both; the rows that are over their limits in either."""
    from bittern.bench import result

    a, b = result.read(first), result.read(second)
    click.echo(result.compare(a, b, check=check))
    return [row for row in (*a.rows, *b.rows) if row.over]


def _sustain(options: _Options, minutes: float) -> None:
    import os
    import time

    from bittern.bench import chart, rows, sustained
    from bittern.events import rfc3339
    from bittern.system import machine

    counts = options.threads or tuple(range(1, min(4, os.cpu_count() or 1) + 1))
    points = []
    with rows.open_subject(options.model, *about((options.model,), options.stated)) as subject:
        for point in sustained.measure(subject, minutes, counts):
            points.append(point)
            if options.as_json:
                print_json(point)
    if not options.as_json:
        click.echo(sustained.table(points))
    name = f"{subject.classifier.name} {subject.classifier.version}"
    if options.out is not None:
        whole = sustained.Sustained(
            time=rfc3339(time.time_ns()), machine=machine.read(), model=name, minutes=minutes, points=tuple(points)
        )
        title = f"bittern bench --sustained: {name}, frame of 640 x 480 to its event"
        _write(options.out, whole, "sustained", chart.curves(points, title))


def _write(out: Path, measured: BenchResult | Sustained, name: str, svg: str | None) -> None:
    import msgspec

    from bittern.system import fileio

    fileio.write(out / f"{name}.json", msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
    if svg is not None:
        fileio.write(out / f"{name}.svg", svg.encode())

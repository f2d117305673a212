"""The result of a bench: rows, and the machine they were measured on; as JSON, as a table, and two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bittern.errors import ConfigurationError
from bittern.system.machine import Machine

FILE = "result.json"
# What changes from minute to minute on one machine, and so does not make it another one.
_VOLATILE = frozenset(
    {"frequency_mhz", "temperature_c", "throttled", "memory_available_mb", "cma_free_mb", "os_image", "bittern"}
)


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One comparison.

    Attributes:
        name: the row's key in `suite.ROWS`.
        what: what was measured.
        against: the reference that it was compared with.
        ratio: median of the paired ratios; for a row in MB, the share of its limit.
        at_most: the limit of the ratio.
        median_ms: median time of what was measured; None for a row in MB.
        reference_ms: median time of the reference.
        n: measurements of each side.
        ratio_ci95: 95 % interval of the ratio, by order statistics.
        megabytes: the size of a row in MB (10**6 bytes).
        at_most_megabytes: its limit.
    """

    name: str
    what: str
    against: str
    ratio: float
    at_most: float
    median_ms: float | None
    reference_ms: float | None
    n: int
    ratio_ci95: tuple[float, float] | None = None
    megabytes: float | None = None
    at_most_megabytes: float | None = None

    @property
    def over(self) -> bool:
        """Whether the ratio is over its limit."""
        return self.ratio > self.at_most


class LeftOut(msgspec.Struct, frozen=True):
    """A row that was not measured, and why; `failed` unless the reason is a peer that is not installed."""

    name: str
    why: str
    failed: bool = False

    def __str__(self) -> str:
        """One line."""
        return f"{'failed' if self.failed else 'left out'}: {self.name}: {self.why}"


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result file.

    Attributes:
        time: RFC 3339, UTC.
        machine: read after the last row, while the processor is still warm.
        model: name and version.
        path: execution path of the rows.
        all_cores_ms: median of one inference with a thread per core, as published figures are given.
        left_out: rows that were not measured.
        verdict: what the owner of a Raspberry Pi should know about its speed, line by line.
    """

    schema: Literal[1] = 1
    time: str
    machine: Machine
    model: str
    path: str
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    all_cores_ms: float | None
    verdict: tuple[str, ...]


def read(file: Path) -> BenchResult:
    """Read a result file, or the one in a folder.

    Raises:
        ConfigurationError: it cannot be read, or is not a result file.
    """
    file = file / FILE if file.is_dir() else file
    try:
        return msgspec.json.decode(file.read_bytes(), type=BenchResult)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: not a result of `bittern bench --out` ({error})") from None


RATIO_NOTE = (
    "A ratio to one inference says as much about the processor as about Bittern: the faster the inference, the higher "
    "the ratio, although every row takes fewer milliseconds."
)
LIMIT_NOTE = "The limits were set on one x86-64 machine."
HEADER = ("what", "ms", "reference, ms", "reference", "ratio", "95 %", "n", "limit")


def cells(row: Row) -> list[str]:
    """A row as text, under `HEADER`."""
    if row.megabytes is not None:
        return [row.what, f"{row.megabytes:.2f} MB", "", "", "", "", str(row.n), f"{row.at_most_megabytes:.1f} MB"]
    interval = f"{row.ratio_ci95[0]:.3f} to {row.ratio_ci95[1]:.3f}" if row.ratio_ci95 else ""
    times = [f"{row.median_ms:.3f}", f"{row.reference_ms:.3f}"]
    return [row.what, *times, row.against, f"{row.ratio:.3f}", interval, str(row.n), f"{row.at_most:.2f}"]


def table(rows: Sequence[Row], left_out: Sequence[LeftOut], *, check: bool) -> str:
    """The rows as aligned text: milliseconds, then ratios; with `check` also their limits, and which are over."""
    if check:
        lines = [[*HEADER, ""], *([*cells(row), "over" if row.over else "ok"] for row in rows)]
    else:
        lines = [[*HEADER[:-1]], *(cells(row)[:-1] for row in rows)]
    return "\n".join([*_aligned(lines), *map(str, left_out), "", RATIO_NOTE, *([LIMIT_NOTE] if check else [])])


def compare(first: BenchResult, second: BenchResult, *, check: bool) -> str:
    """Two results side by side: milliseconds where both are of the same kind of machine, ratios always."""
    different = differences(first.machine, second.machine)
    header = ["", *([] if different else ["A, ms", "B, ms", "B / A"]), "A, ratio", "B, ratio"]
    lines = [[*header, "limit"] if check else header]
    rows_a = {row.name: row for row in first.rows}
    rows_b = {row.name: row for row in second.rows}
    for name, known in (rows_b | rows_a).items():
        a, b = rows_a.get(name), rows_b.get(name)
        cells = [f"{known.what} / {known.against}"]
        if not different:
            times = [row.median_ms if row else None for row in (a, b)]
            cells += ["-" if ms is None else f"{ms:.3f}" for ms in times]
            cells.append(f"{times[1] / times[0]:.3f}" if times[0] and times[1] else "-")
        cells += [_ratio(a, check), _ratio(b, check)]
        lines.append([*cells, f"{known.at_most:.2f}"] if check else cells)
    text = _aligned(lines)
    text.append(f"A: {first.model} on {first.path}, {first.time}; B: {second.model} on {second.path}, {second.time}")
    if different:
        text.append("milliseconds are not compared because the machines differ: " + "; ".join(different))
    else:
        text.append("the machines do not differ in anything that is known of them")
    return "\n".join([*text, "", RATIO_NOTE, *([LIMIT_NOTE] if check else [])])


def differences(first: Machine, second: Machine) -> list[str]:
    """What two machines differ in, a text for each; what changes from minute to minute is left out."""
    a, b = msgspec.structs.asdict(first), msgspec.structs.asdict(second)
    return [f"{key} {a[key]} and {b[key]}" for key in a if key not in _VOLATILE and a[key] != b[key]]


def _ratio(row: Row | None, check: bool) -> str:
    return "-" if row is None else f"{row.ratio:.3f}" + (" over" if check and row.over else "")


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]

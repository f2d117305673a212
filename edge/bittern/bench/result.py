"""What a bench found: rows with limits, the machine they were measured on, as JSON and as a table."""

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
        name: of the row.
        what: what was measured.
        against: what it was compared with.
        ratio: median of the paired ratios; for a row in MB the share of what is allowed.
        at_most: the limit of the ratio.
        median_ms: of what was measured; None for a row in MB.
        reference_ms: of what it was compared with.
        n: measurements of each side.
        ratio_ci95: 95 % interval of the ratio, of order statistics.
        megabytes: for a row in MB (10**6 bytes).
        at_most_megabytes: what is allowed.
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
    def holds(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.ratio <= self.at_most


class LeftOut(msgspec.Struct, frozen=True):
    """A row that could not be measured, and why; `failed` if it should have been: not for want of a peer."""

    name: str
    why: str
    failed: bool = False

    def __str__(self) -> str:
        """One line."""
        return f"{'failed' if self.failed else 'left out'}: {self.name}: {self.why}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A result file.

    Attributes:
        time: RFC 3339, UTC.
        machine: read after the last row, while the processor is still warm.
        model: name and version.
        path: execution path of the rows.
        all_cores_ms: median of one inference with a thread for each core, which published figures are given for.
        left_out: what could not be measured.
        verdict: what the machine's owner should know about its speed, a line each.
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


def read(file: Path) -> Result:
    """Read a result file, or the one in a folder.

    Raises:
        ConfigurationError: it cannot be read, or is none.
    """
    file = file / FILE if file.is_dir() else file
    try:
        return msgspec.json.decode(file.read_bytes(), type=Result)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: not a result of `bittern bench --out` ({error})") from None


def table(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """The rows as aligned text."""
    lines = [("", "what", "against", "ratio", "at most", "95 %", "ms", "reference", "n")]
    for row in rows:
        if row.megabytes is not None:
            figures = (f"{row.megabytes:.2f} MB", f"{row.at_most_megabytes:.1f} MB", "", "", "")
        else:
            interval = f"{row.ratio_ci95[0]:.3f} to {row.ratio_ci95[1]:.3f}" if row.ratio_ci95 else ""
            figures = (
                *(f"{row.ratio:.3f}", f"{row.at_most:.2f}", interval),
                *(f"{row.median_ms:.3f}", f"{row.reference_ms:.3f}"),
            )
        lines.append(("ok" if row.holds else "OVER", row.what, row.against, *figures, str(row.n)))
    said = _aligned(lines)
    said += [str(missing) for missing in left_out]
    return "\n".join(said)


def compare(first: Result, second: Result) -> str:
    """Two results side by side: ratios always, milliseconds where both were measured on the same kind of machine."""
    different = differences(first.machine, second.machine)
    head = ("", "A", "B", "at most", *(() if different else ("A, ms", "B, ms", "B / A")))
    lines: list[tuple[str, ...]] = [head]
    of_second = {row.name: row for row in second.rows}
    names = dict.fromkeys([row.name for row in first.rows] + [row.name for row in second.rows])
    of_first = {row.name: row for row in first.rows}
    for name in names:
        a, b = of_first.get(name), of_second.get(name)
        known = a or b
        assert known is not None
        cells = [known.what + " / " + known.against, _ratio(a), _ratio(b), f"{known.at_most:.2f}"]
        if not different and a and b and a.median_ms and b.median_ms:
            cells += [f"{a.median_ms:.3f}", f"{b.median_ms:.3f}", f"{b.median_ms / a.median_ms:.3f}"]
        lines.append(tuple(cells))
    said = _aligned(lines)
    said.append(f"A: {first.model} on {first.path}, {first.time}; B: {second.model} on {second.path}, {second.time}")
    if different:
        said.append("milliseconds are not compared, the machines differ: " + "; ".join(different))
    else:
        said.append("the machines do not differ in what is known of them")
    return "\n".join(said)


def differences(first: Machine, second: Machine) -> list[str]:
    """What two machines differ in, a text each; what changes from minute to minute is left out."""
    a, b = msgspec.structs.asdict(first), msgspec.structs.asdict(second)
    return [f"{key} {a[key]} and {b[key]}" for key in a if key not in _VOLATILE and a[key] != b[key]]


def _ratio(row: Row | None) -> str:
    return "-" if row is None else f"{row.ratio:.3f}" + ("" if row.holds else " OVER")


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    columns = max(len(line) for line in lines)
    full = [(*line, *("",) * (columns - len(line))) for line in lines]
    widths = [max(len(line[i]) for line in full) for i in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in full]

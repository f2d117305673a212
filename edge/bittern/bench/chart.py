"""Charts of results as SVG text: small, sharp at every size, and nothing to install."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from bittern.bench.result import BenchResult
from bittern.bench.sustained import Point

WIDTH = 960
_FONT = 'font-family="sans-serif" font-size="13"'
GREY = "#777"
COLOURS = ("#2b6cb0", "#2b7a5a", "#b7791f", "#b5342b")


def bars(result: BenchResult) -> str:
    """A bar per row: its ratio; the dashed line is the reference, or the limit of a row in MB."""
    left, right, top, height = 390, 164, 56, 30
    width = WIDTH - left - right
    most = max(1.25, *(row.ratio_ci95[1] if row.ratio_ci95 else row.ratio for row in result.rows))
    scale = width / most
    bottom = top + height * len(result.rows)
    parts = [
        text(16, 24, f"bittern bench: {result.model}", weight="bold"),
        text(16, 42, _machine_line(result), colour=GREY),
    ]
    for i, row in enumerate(result.rows):
        y = top + height * i
        if row.megabytes is not None:
            name, value = row.what.split(":")[0], f"{row.megabytes:.1f} MB of {row.at_most_megabytes:.0f} MB"
        else:
            name, value = f"{row.what} / {row.against}", f"{row.median_ms:.2f} ms, ratio {row.ratio:.2f}"
        parts.append(text(left - 10, y + 19, _short(name), anchor="end"))
        bar = f'x="{left}" y="{y + 5}" width="{scale * row.ratio:.1f}" height="{height - 10}"'
        parts.append(f'<rect {bar} fill="{COLOURS[0]}"/>')
        if row.ratio_ci95 is not None:
            low, high = (left + scale * bound for bound in row.ratio_ci95)
            parts.append(line(low, y + 15, high, y + 15, "#000"))
        parts.append(text(WIDTH - right + 6, y + 19, value, size=12))
    parts.append(line(left + scale, top - 2, left + scale, bottom + 4, "#000", dash="4 3"))
    parts.append(text(left + scale, bottom + 20, "the reference", anchor="middle", colour=GREY))
    return svg(bottom + 32, parts)


def curves(points: Sequence[Point], title: str) -> str:
    """Percentiles of frame to event over time per number of threads, and below them the temperature, if it is known.

    Args:
        points: the slices, in order of time.
        title: heading of the chart.
    """
    left, right, top, tall, gap = 64, 150, 48, 260, 40
    heat = [p for p in points if p.temperature_c is not None]
    low_top = top + tall + gap
    height = low_top + (120 if heat else 0) + 36
    last = max(p.at_s for p in points) or 1.0
    most = max(p.event.p99 for p in points) * 1.08
    wide = WIDTH - left - right

    def x(at_s: float) -> float:
        return left + wide * at_s / last

    def y(ms: float) -> float:
        return top + tall * (1 - ms / most)

    parts = [text(16, 24, title, weight="bold"), text(left - 8, top - 6, "ms", anchor="end", colour=GREY)]
    for i in range(5):
        ms = most * i / 4
        parts.append(line(left, y(ms), left + wide, y(ms), "#ddd"))
        parts.append(text(left - 8, y(ms) + 4, f"{ms:.1f}", anchor="end", colour=GREY))
    for i, count in enumerate(dict.fromkeys(p.threads for p in points)):
        of_count = [p for p in points if p.threads == count]
        colour = COLOURS[i % len(COLOURS)]
        for values, dash in (
            ([p.event.p50 for p in of_count], ""),
            ([p.event.p95 for p in of_count], "6 3"),
            ([p.event.p99 for p in of_count], "2 3"),
        ):
            parts.append(path([(x(p.at_s), y(v)) for p, v in zip(of_count, values, strict=True)], colour, dash))
        parts.append(text(left + wide + 12, top + 16 + 20 * i, f"{count} thread{'s' * (count > 1)}", colour=colour))
    for i, key in enumerate(("line: p50", "dashes: p95", "dots: p99")):
        parts.append(text(left + wide + 12, top + 120 + 18 * i, key, colour=GREY, size=12))
    end = top + tall
    if heat:
        hottest = max(p.temperature_c or 0.0 for p in heat) + 5
        coolest = min(p.temperature_c or 0.0 for p in heat) - 5
        spots = [(x(p.at_s), low_top + 120 * (hottest - (p.temperature_c or 0.0)) / (hottest - coolest)) for p in heat]
        parts.append(path(spots, "#000", ""))
        parts.append(text(left + wide + 12, spots[-1][1] + 4, "temperature"))
        for celsius, y_of_mark in ((hottest, low_top), (coolest, low_top + 120)):
            parts.append(text(left - 8, y_of_mark + 4, f"{celsius:.0f} °C", anchor="end", colour=GREY))
        end = low_top + 120
    parts.append(line(left, end, left + wide, end, "#000"))
    parts += [text(x(last * i / 4), end + 18, f"{last * i / 4:.0f} s", anchor="middle", colour=GREY) for i in range(5)]
    return svg(height, parts)


def panels(series: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """One panel per curve, each from 0 up, over the same time.

    Args:
        series: for each name, points of (seconds, value).
        title: heading of the chart.
    """
    left, right, top, tall, step = 64, 24, 48, 74, 118
    last = max((time_s for points in series.values() for time_s, _ in points), default=0.0) or 1.0
    wide = WIDTH - left - right
    parts = [text(16, 24, title, weight="bold")]
    for i, (name, points) in enumerate(series.items()):
        above, most = top + step * i, max((value for _, value in points), default=0.0) * 1.1 or 1.0
        bottom = above + 16 + tall
        spots = [(left + wide * time_s / last, bottom - tall * value / most) for time_s, value in points]
        parts.append(text(left, above + 8, name))
        for value in (0.0, most):
            y = bottom - tall * value / most
            parts.append(line(left, y, left + wide, y, "#ddd"))
            parts.append(text(left - 8, y + 4, f"{value:.3g}", anchor="end", colour=GREY))
        parts.append(path(spots, COLOURS[i % len(COLOURS)], "", dots=False))
    end = top + step * len(series)
    parts += [text(left + wide * i / 4, end, f"{last * i / 4:.0f} s", anchor="middle", colour=GREY) for i in range(5)]
    return svg(end + 20, parts)


def _machine_line(result: BenchResult) -> str:
    machine = result.machine
    parts = (machine.board, machine.cpu, machine.governor, machine.runtime, f"OpenCV {machine.opencv}", result.time)
    return ", ".join(part for part in parts if part)


def _short(name: str) -> str:
    return name if len(name) <= 52 else name[:51] + "…"


def text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#000", weight: str = "", size: int = 13
) -> str:
    """Text that starts, ends or has its middle ("anchor") at x, on the baseline y."""
    bold = f' font-weight="{weight}"' if weight else ""
    font = _FONT.replace("13", str(size))
    return f'<text x="{x:.1f}" y="{y:.1f}" {font} text-anchor="{anchor}" fill="{colour}"{bold}>{escape(text)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, colour: str, dash: str = "") -> str:
    """A straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"{dashes}/>'


def path(spots: Sequence[tuple[float, float]], colour: str, dash: str, dots: bool = True, *, width: float = 1.5) -> str:
    """A line through points, with a dot on each."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in spots) if dots else ""
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}/>{marks}'


def svg(height: float, parts: Sequence[str]) -> str:
    """The whole file, WIDTH wide."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>', *parts, "</svg>", ""])

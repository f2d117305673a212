"""The picture of the study "decision": what rules find, and how late, for the false alarms that one puts up with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bittern.bench.chart import COLOURS, GREY, WIDTH, line, path, svg, text

# The footage that is drawn: all of it, at the rate at which the daemon looks.
_PART = "clips and streets"
# A mean delay stands for a rule only where it finds nearly all: what it misses would have been the latest.
_NEARLY_ALL = 0.9
# The rules that are drawn, with their dashes; the others differ little from one of these.
_BLUE, _GREEN, _OCHRE, _RED = COLOURS
_RULES = {
    "1 frame": (GREY, ""),
    "2 of 3 frames": (_OCHRE, ""),
    "3 of 5 frames": (_OCHRE, "7 3"),
    "2 frames 0.3 s apart, within 0.6 s": (_OCHRE, "2 3"),
    "average over 0.4 s": (_GREEN, ""),
    "average over 1 s": (_GREEN, "7 3"),
    "SPRT, errors 5 %": (_RED, ""),
}
_LEFT, _RIGHT, _TOP, _GAP, _TALL, _STEP = 60, 20, 132, 58, 190, 252
# Steps of the axis of delays, of which there are four.
_STEPS_S = (0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10)
_TICKS = (1, 3, 10, 30, 100, 300, 1000)


class _Outcome(NamedTuple):
    """What a rule gave at one threshold.

    Attributes:
        rate: false alarms an hour.
        share: of the intervals, found; NaN without any.
        delay_s: mean of the found ones; NaN where too few were found for it.
        threshold: the score.
    """

    rate: float
    share: float
    delay_s: float
    threshold: float


class _Axis(NamedTuple):
    """False alarms an hour from left to right, logarithmic, with a place of its own for none."""

    left: float
    wide: float
    least: float
    most: float

    def x(self, rate: float) -> float:
        if rate <= 0:
            return self.left
        room = 0.12 * self.wide
        return self.left + room + (self.wide - room) * math.log(rate / self.least) / math.log(self.most / self.least)


class _Panel(NamedTuple):
    """What is on the vertical axis, up to where, and which of two values is better."""

    name: str
    value: Callable[[_Outcome], float]
    most: float
    form: str
    better: Callable[[Sequence[float]], float]


def draw(results: Sequence[Mapping[str, Any]]) -> str:
    """A column for each model, and a line for each rule, as SVG.

    Args:
        results: of `decision_study.study`, at least one.
    """
    wide = (WIDTH - _LEFT - _RIGHT - _GAP * (len(results) - 1)) / len(results)
    foot = _TOP + 2 * _STEP
    parts = [
        text(16, 26, "When should an alarm go on? Rules over the same scores", weight="bold", size=16),
        text(16, 48, "The further to the right, the more false alarms an hour one puts up with; each rule has the "
             "threshold that is best for that.", colour=GREY),
        text(16, 66, "The upper line finds more; the lower line is earlier. The ring is what is shipped, at the "
             "threshold \u201cdefault\u201d.", colour=GREY),
    ]  # fmt: skip
    for i, result in enumerate(results):
        parts += _column(result, _LEFT + i * (wide + _GAP), wide)
    names = [results[0]["shipped"], *_RULES]
    for i, name in enumerate(names):
        x, y = 24 + 310 * (i // 3), foot + 20 * (i % 3)
        words = f"{name} (shipped)" if i == 0 else name
        parts += [_stroke([(x, y), (x + 40, y)], name), text(x + 48, y + 4, words, size=12)]
    return svg(foot + 64, parts)


def _stroke(spots: Sequence[tuple[float, float]], name: str) -> str:
    colour, dash = _RULES.get(name, (_BLUE, ""))
    return path(spots, colour, dash, dots=False, width=1.6 if name in _RULES else 3.2)


def _column(result: Mapping[str, Any], left: float, wide: float) -> list[str]:
    extent = result["footage"][_PART]
    hours, intervals = extent["hours"], extent["intervals"]
    rules = {rule["rule"]: rule for rule in result["rules"]}
    lines = {name: _outcomes(result, rules[name]) for name in [*_RULES, result["shipped"]]}
    default = rules[result["shipped"]][_PART]["default"]
    ring = _outcome(extent, default["found"], default["false_alarms"], default["mean_delay_s"], result["default"]["on"])
    rates = [outcome.rate for outcomes in lines.values() for outcome in outcomes]
    axis = _Axis(left, wide, 1 / hours, max(*rates, 10 / hours))
    delay = _Panel(f"mean delay in s, where {_NEARLY_ALL:.0%} are found", lambda o: o.delay_s, 1.0, ".3g", min)
    latest = max((value for outcomes in lines.values() for _, value in _best(outcomes, delay)), default=1.0)
    delay = delay._replace(most=next((4 * step for step in _STEPS_S if 4 * step >= latest), latest))
    panels = [_Panel("share found", lambda o: o.share, 1.0, ".0%", max), delay]
    if not intervals:
        panels = [_Panel("threshold that it takes", lambda o: o.threshold, 1.0, ".2f", min)]
    to_find = f"{intervals} to find" if intervals else f"nothing of \u201c{result['label']}\u201d to find"
    parts = [
        text(left, _TOP - 40, f"{result['model']}", weight="bold", size=14),
        text(left, _TOP - 24, f"{to_find} in {hours * 60:.0f} min", colour=GREY, size=12),
    ]
    for row, panel in enumerate(panels):
        parts += _panel(lines, axis, panel, _TOP + row * _STEP, ring)
    if not intervals:
        note = ("Lower is better: with a lower threshold", "a rule would find more, and find it earlier.")
        parts += [text(left, _TOP + _STEP + 18 * i, words, colour=GREY, size=12) for i, words in enumerate(note)]
    return parts


def _panel(
    lines: Mapping[str, Sequence[_Outcome]], axis: _Axis, panel: _Panel, top: float, ring: _Outcome
) -> list[str]:
    foot, right = top + _TALL, axis.left + axis.wide

    def y(value: float) -> float:
        return foot - _TALL * value / panel.most

    parts = [text(axis.left, top - 5, panel.name, size=12)]
    for i in range(5):
        value = panel.most * i / 4
        parts.append(line(axis.left, y(value), right, y(value), "#ddd"))
        parts.append(text(axis.left - 6, y(value) + 4, format(value, panel.form), anchor="end", colour=GREY, size=11))
    for rate in (0, *(tick for tick in _TICKS if axis.least < tick <= axis.most)):
        parts.append(line(axis.x(rate), foot, axis.x(rate), foot + 4, GREY))
        parts.append(text(axis.x(rate), foot + 16, f"{rate}", anchor="middle", colour=GREY, size=11))
    parts.append(text(right, foot + 31, "false alarms an hour", anchor="end", colour=GREY, size=11))
    for name, outcomes in lines.items():
        spots = [(axis.x(rate), y(value)) for rate, value in _best(outcomes, panel)]
        parts.append(_stroke(spots, name))
    if not math.isnan(value := panel.value(ring)):
        place = f'cx="{axis.x(ring.rate):.1f}" cy="{y(value):.1f}"'
        parts.append(f'<circle {place} r="6" fill="none" stroke="#000" stroke-width="2"/>')
    return parts


def _best(outcomes: Sequence[_Outcome], panel: _Panel) -> list[tuple[float, float]]:
    """The best value for at most so many false alarms, as the corners of steps."""
    spots: list[tuple[float, float]] = []
    for rate in sorted({outcome.rate for outcome in outcomes}):
        within = [v for o in outcomes if o.rate <= rate and not math.isnan(v := panel.value(o))]
        if within:
            if spots:
                spots.append((rate, spots[-1][1]))
            spots.append((rate, panel.better(within)))
    return spots


def _outcomes(result: Mapping[str, Any], rule: Mapping[str, Any]) -> list[_Outcome]:
    extent, columns = result["footage"][_PART], rule[_PART]
    rows = zip(columns["found"], columns["false_alarms"], columns["mean_delay_s"], result["thresholds"], strict=True)
    return [_outcome(extent, *row) for row in rows]


def _outcome(
    extent: Mapping[str, Any], found: int, false_alarms: int, delay_s: float | None, threshold: float
) -> _Outcome:
    share = found / extent["intervals"] if extent["intervals"] else math.nan
    delay = delay_s if delay_s is not None and share >= _NEARLY_ALL else math.nan
    return _Outcome(false_alarms / extent["hours"], share, delay, threshold)

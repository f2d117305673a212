"""Thresholds from a clip with labelled intervals, by running the daemon's own `Decision` over its scores."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.decision.decision import EVIDENCE_FRAME_NS, Change, Settings, add_evidence
from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import metrics
from bittern.model import operating
from bittern.system import fileio

# What is tried: how much evidence an alarm takes, and `off` as a share of `on`.
EVIDENCE = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
OFF_SHARES = (1.0, 0.75, 0.5, 0.25)
# What `--tune` is to keep to.
Target = operating.Bound
_COLUMNS = ["start_s", "end_s", "label"]
_MAX_INTERVALS_BYTES = 2**20
_S = 1e9


class LabelledInterval(NamedTuple):
    """The time in which an object is in view, in seconds since the first frame of the clip."""

    start_s: float
    end_s: float
    label: str


class Track(NamedTuple):
    """The scores of one alarm label over a clip.

    Attributes:
        model: its name.
        task: of the head.
        label: the alarm label.
        times_ns: (frames,) int64, since the first frame of the clip; never decreasing.
        scores: (frames,) float64.
        clip_s: seconds from the first to the last frame of the clip.
    """

    model: str
    task: str
    label: str
    times_ns: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    clip_s: float


class Judged(NamedTuple):
    """How settings did on a track.

    Attributes:
        settings: of the decision.
        alarms: start and end of each, in s; the end is infinite if the alarm was still on after the last frame.
        correct: for each alarm, whether `judge` counts it as correct, else it is false.
        delays_s: for every detected interval, seconds from its start to its first alarm; 0 if that began before.
        intervals: number of intervals.
        outside_h: hours of the clip outside of the intervals, in which a false alarm can happen.
    """

    settings: Settings
    alarms: list[tuple[float, float]]
    correct: list[bool]
    delays_s: list[float]
    intervals: int
    outside_h: float

    @property
    def detected(self) -> int:
        """Number of intervals that an alarm detected."""
        return len(self.delays_s)

    @property
    def false_alarms(self) -> int:
        """Number of alarms that are false."""
        return self.correct.count(False)

    @property
    def mean_delay_s(self) -> float:
        """NaN if none was detected."""
        return sum(self.delays_s) / len(self.delays_s) if self.delays_s else math.nan


class NothingFits(BitternError):
    """No settings keep to the target and detect an interval; `nearest` comes closest of those that detect one."""

    def __init__(self, message: str, nearest: Judged | None) -> None:
        super().__init__(message)
        self.nearest = nearest


def parse_target(text: str) -> Target:
    """Read "at most 1 false alarm an hour", or "at most 3 false alarms a day".

    Raises:
        ConfigurationError: anything else.
    """
    bound = operating.parse_bound(text)
    if bound is None:
        raise ConfigurationError(f"--tune: expected 'at most N false alarms an hour', or 'a day', got {text!r}")
    return bound


def read_intervals(file: Path) -> list[LabelledInterval]:
    """Read a CSV with the header `start_s,end_s,label`, in seconds since the first frame of the clip.

    Without rows nothing happens in the clip.

    Raises:
        ConfigurationError: no such file, another header, or a row that is no interval or overlaps another interval of
            its label; the message gives the number of the row, where the header is row 1.
    """
    try:
        text = fileio.read_regular(file, _MAX_INTERVALS_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}: expected labelled intervals") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 at byte {error.start}") from None
    rows: list[tuple[int, LabelledInterval]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if reader.line_num == 1:
                if cells != _COLUMNS:
                    raise ValueError(f"expected the header {','.join(_COLUMNS)}, got {','.join(cells)[:80]!r}")
            elif any(cells):
                rows.append((reader.line_num, _interval(cells)))
    except (ValueError, csv.Error) as error:
        raise ConfigurationError(f"{file}: row {reader.line_num}: {error}") from None
    if reader.line_num == 0:
        raise ConfigurationError(f"{file}: empty: expected the header {','.join(_COLUMNS)}")
    last: dict[str, tuple[int, LabelledInterval]] = {}
    for row, interval in sorted(rows, key=lambda numbered: numbered[1]):
        before = last.get(interval.label)
        if before is not None and interval.start_s < before[1].end_s:
            raise ConfigurationError(f"{file}: row {row}: overlaps row {before[0]}, of the same label")
        last[interval.label] = row, interval
    return [interval for _, interval in rows]


def _interval(cells: Sequence[str]) -> LabelledInterval:
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"expected {len(_COLUMNS)} values, got {len(cells)}")
    numbers = []
    for name, cell in zip(_COLUMNS[:2], cells[:2], strict=True):
        try:
            numbers.append(float(cell))
        except ValueError:
            raise ValueError(f"{name}: expected seconds, got {cell[:40]!r}") from None
    start, end = numbers
    if not (0 <= start < end and math.isfinite(end)):
        raise ValueError(f"expected 0 <= start_s < end_s, got {start:g} and {end:g}")
    if not cells[2]:
        raise ValueError("the label is empty")
    return LabelledInterval(start, end, cells[2])


def poisson_upper(count: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound of a Poisson mean after `count` events (Garwood 1936).

    The mean at which `count` events or fewer have a probability of 1 - confidence: 3.00 for no event.
    """
    low, high = 0.0, 2.0 * count + 20.0
    for _ in range(60):
        mean = (low + high) / 2
        total = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))
        low, high = (mean, high) if total > 1 - confidence else (low, mean)
    return high


def poisson_interval(count: int) -> metrics.Interval:
    """The exact two-sided 95 % interval of a Poisson mean after `count` events (Garwood 1936): 0 to 3.69 for none."""
    # At the lower end, `count` or more events have a probability of 2.5 %, so that fewer have one of 97.5 %.
    return poisson_upper(count - 1, 0.025) if count else 0.0, poisson_upper(count, 0.975)


# Intervals are labelled by eye: an alarm that is on this near to one meets it.
MARGIN_S = 0.5
# An alarm may outlast the object by its minimum time off and a little more.
OVERSTAY_S = 10.0


def judge(
    track: Track, intervals: Sequence[LabelledInterval], settings: Settings, alarms: Sequence[tuple[float, float]]
) -> Judged:
    """Compare the alarms that settings gave with the intervals.

    An alarm, from on to off, detects every interval that it meets, MARGIN_S either way: it may have begun before, as
    when the object is far away. One that meets none is false. So is one that is on for more than OVERSTAY_S outside of
    the intervals: it detects only the interval in which it went on. Without that limit an alarm that never ends would
    detect everything after it.

    Args:
        track: the scores of the label.
        intervals: all of that label.
        settings: of the decision.
        alarms: start and end of each, in s since the first frame.
    """
    correct: list[bool] = []
    delays: dict[int, float] = {}
    for on, off in alarms:
        end = min(off, track.clip_s)
        within = sum(max(0.0, min(i.end_s, end) - max(i.start_s, on)) for i in intervals)
        overstays = end - on - within > OVERSTAY_S
        met = False
        for number, (start_s, end_s, _) in enumerate(intervals):
            if meets((on, off), (start_s, end_s)):
                met = True
                if not overstays or start_s - MARGIN_S <= on:
                    delays.setdefault(number, max(0.0, on - start_s))
        correct.append(met and not overstays)
    inside_s = sum(max(0.0, min(i.end_s, track.clip_s) - i.start_s) for i in intervals)
    outside_h = max(0.0, track.clip_s - inside_s) / 3600
    return Judged(settings, list(alarms), correct, list(delays.values()), len(intervals), outside_h)


def levels(track: Track) -> list[float]:
    """The thresholds to try: the scores that occur, without 0, and a grid below the highest of them.

    For alarms that take no evidence all thresholds between two scores are alike. Evidence depends on how far scores are
    above the threshold: the grid has steps of half a unit of log-odds.
    """
    scores = {score for score in track.scores.tolist() if score > 0}
    grid = (round(1 / (1 + math.exp(-step / 2)), 4) for step in range(-10, 11))
    return sorted(scores | {level for level in grid if level < max(scores, default=0.0)}, reverse=True)


def tune(
    track: Track,
    intervals: Sequence[LabelledInterval],
    target: Target,
    settings: Settings,
    progress: Callable[[], None] = lambda: None,
) -> Judged:
    """The settings that detect the most intervals of a clip, among those that keep to the target on it.

    Each of `levels` is tried as `on`, with four shares of it as `off` and every EVIDENCE. Ties go to the
    shortest mean delay, in steps of MARGIN_S (intervals are no more exact), then the highest `on`, then the most
    evidence: those are the furthest from a false alarm. An alarm that goes on before its interval counts as false here,
    although it detects the interval (`judge`): a threshold that is always reached would be the quickest one.

    Args:
        track: scores of one label.
        intervals: all of this label, at least one.
        target: the most false alarms. A clip that is shorter than its period may have its share of them.
        settings: have the cooldown and the minimum time off that are used.
        progress: called once for each of `levels`.

    Returns:
        The best on this clip; on another one the same settings will do worse.

    Raises:
        NothingFits: no settings keep to the target and detect an interval.
    """
    best: tuple[tuple[float, ...], Judged] | None = None
    nearest: tuple[tuple[float, ...], Judged] | None = None
    allowed = 0.0
    for on in levels(track):
        for share in OFF_SHARES:
            short = _without_quiet(track, on, on * share, settings.min_off_s)
            for evidence in EVIDENCE:
                candidate = Settings(on, on * share, settings.cooldown_s, settings.min_off_s, evidence)
                tried = judge(
                    track,
                    intervals,
                    candidate,
                    periods(candidate.decision().update, short.times_ns.tolist(), short.scores.tolist()),
                )
                allowed = target.false_alarms * tried.outside_h / target.hours
                if not tried.detected:
                    continue
                delay = int(tried.mean_delay_s / MARGIN_S)
                false_alarms = _false_or_early(tried, intervals)
                rank: tuple[float, ...] = (tried.detected, -delay, on, evidence, -abs(share - 0.5))
                if false_alarms <= allowed + 1e-9 and (best is None or rank > best[0]):
                    best = rank, tried
                fewest = (-false_alarms, *rank)
                if nearest is None or fewest > nearest[0]:
                    nearest = fewest, tried
        progress()
    if best is not None:
        return best[1]
    if nearest is None:
        n = len(intervals)
        raise NothingFits(
            f"--tune: {track.model}, {track.label}: no settings detect any of {n} intervals: no score rises in them",
            None,
        )
    near, closest = nearest[1], nearest[1].settings
    raise NothingFits(
        f"--tune: {track.model}, {track.label}: no settings detect an interval with {target.text}, which is "
        f"{math.floor(allowed + 1e-9)} in the {_hours(near.outside_h)} outside of the intervals; nearest: "
        f"{_false_or_early(near, intervals)} false alarms, {near.detected} of {near.intervals} detected with threshold "
        f"{closest.on:g}, off {closest.off:g}, evidence {closest.evidence:g}",
        near,
    )


def _false_or_early(judged: Judged, intervals: Sequence[LabelledInterval]) -> int:
    """Number of alarms that are false, or went on more than MARGIN_S before or after every interval."""
    return sum(
        not (correct and any(meets((on, on), (i.start_s, i.end_s)) for i in intervals))
        for (on, _), correct in zip(judged.alarms, judged.correct, strict=True)
    )


def periods(
    update: Callable[[float, int], Change | None], times_ns: Sequence[int], scores: Sequence[float]
) -> list[tuple[float, float]]:
    """The periods in which an alarm is on.

    Args:
        update: of a new `Decision`, or of what decides in its place.
        times_ns: (frames,) in ns from the first frame; never decreasing.
        scores: (frames,) 0 to 1.

    Returns:
        Start and end of each in seconds; the end is infinite if the alarm is still on after the last frame.
    """
    alarms: list[tuple[float, float]] = []
    for now_ns, score in zip(times_ns, scores, strict=True):
        change = update(score, now_ns)
        if change is not None:
            note(alarms, change, now_ns / _S)
    return alarms


def note(alarms: list[tuple[float, float]], change: Change, time_s: float) -> None:
    """Begin a period in which an alarm is on, which has no end yet, or end the last one."""
    if change == "on":
        alarms.append((time_s, math.inf))
    else:
        alarms[-1] = alarms[-1][0], time_s


def meets(alarm: tuple[float, float], interval: tuple[float, float]) -> bool:
    """Whether an alarm, from start to end in seconds, is on within an interval, MARGIN_S either way."""
    return interval[0] - MARGIN_S <= alarm[1] and alarm[0] <= interval[1] + MARGIN_S


def _without_quiet(track: Track, on: float, off: float, min_off_s: float) -> Track:
    """The track without the frames that cannot change a decision without votes.

    A frame below `off` matters to an alarm until it has ended, `min_off_s` after the last score that reached `off`, and
    to the evidence until none is left. Most of a clip is quiet, so this saves most of the time.
    """
    times, n = track.times_ns, len(track.times_ns)
    high = np.flatnonzero(track.scores >= off)
    ended = np.searchsorted(times, times[high] + int(min_off_s * _S), "left")
    marks = np.zeros(n + 1, np.int64)
    np.add.at(marks, high, 1)
    np.add.at(marks, np.minimum(np.maximum(ended, high + 1) + 1, n), -1)
    keep = np.cumsum(marks[:n]) > 0
    keep |= _with_evidence(track, on)
    keep[:-1] |= keep[1:]  # how much a frame counts depends on when the one before it was
    return track._replace(times_ns=times[keep], scores=track.scores[keep])


def _with_evidence(track: Track, on: float) -> npt.NDArray[np.bool_]:
    """Frames after which there may be evidence, as much as any of EVIDENCE lets there be."""
    passed = np.diff(track.times_ns, prepend=track.times_ns[:1] - EVIDENCE_FRAME_NS)
    some, evidence = np.zeros(len(track.scores), bool), 0.0
    for i, (score, passed_ns) in enumerate(zip(track.scores.tolist(), passed.tolist(), strict=True)):
        if evidence or score > on:
            evidence = min(max(EVIDENCE), add_evidence(evidence, score, on, passed_ns))
            some[i] = evidence > 0
    return some


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one label that `--json` prints.

    Attributes:
        threshold: with `off` and `evidence`: the settings, as in `[decision]`.
        intervals: number of labelled intervals.
        detected: number of these that an alarm met, see `judge`; in JSON the key is "found".
        detected_ci95: Wilson interval of detected / intervals; in JSON "found_ci95".
        mean_delay_s: from the start of an interval to its alarm; None if none was detected.
        longest_delay_s: the longest of these.
        false_alarms: see `judge`.
        outside_h: hours outside of the intervals.
        false_alarms_at_most: one-sided 95 % upper bound of their rate per hour; None without any time outside.
    """

    model: str
    task: str
    label: str
    threshold: float
    off: float
    evidence: float
    intervals: int
    detected: int = msgspec.field(name="found")
    detected_ci95: tuple[float, float] = msgspec.field(name="found_ci95")
    mean_delay_s: float | None
    longest_delay_s: float | None
    false_alarms: int
    outside_h: float
    false_alarms_at_most: float | None


def figures(track: Track, judged: Judged) -> Figures:
    """The figures of settings on a track, with their uncertainty."""
    delays, settings = judged.delays_s, judged.settings
    hours = judged.outside_h
    return Figures(
        model=track.model,
        task=track.task,
        label=track.label,
        threshold=settings.on,
        off=settings.off,
        evidence=settings.evidence,
        intervals=judged.intervals,
        detected=judged.detected,
        detected_ci95=metrics.wilson(judged.detected, judged.intervals),
        mean_delay_s=round(judged.mean_delay_s, 3) if delays else None,
        longest_delay_s=round(max(delays), 3) if delays else None,
        false_alarms=judged.false_alarms,
        outside_h=round(hours, 6),
        false_alarms_at_most=round(poisson_upper(judged.false_alarms) / hours, 3) if hours > 0 else None,
    )


def lines(figures: Figures, target: Target | None = None) -> list[str]:
    """The figures as text; with a target also how long a clip must be to prove it."""
    n, low, high = figures.intervals, *figures.detected_ci95
    delay = ""
    if figures.mean_delay_s is not None:
        delay = f"; delay {figures.mean_delay_s:.2f} s on average, {figures.longest_delay_s:.2f} s at most"
    text = [
        f"{figures.model}, {figures.label}: {figures.detected} of {n} intervals detected "
        f"(95 % {low:.0%} to {high:.0%}){delay}"
        if n
        else f"{figures.model}, {figures.label}: nothing to detect",
        f"false alarms: {figures.false_alarms} in the {_hours(figures.outside_h)} outside of the intervals",
    ]
    if figures.false_alarms_at_most is not None:
        rate = figures.false_alarms_at_most
        text[1] += (
            f"; the true rate is at most {f'{rate:.3g}' if rate < 1000 else f'{rate:.0f}'} an hour (95 %, Poisson)"
        )
    if target is not None and target.false_alarms:
        need_h = poisson_upper(0) * target.hours / target.false_alarms
        text.append(f"proving {target.text} takes a clip of {_hours(need_h)} without a false alarm")
    return text


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"

"""Many clips at once: which clip judges which model, what happens in it, and the figures over all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from bittern.errors import ConfigurationError, did_you_mean
from bittern.evaluation import metrics, tuning
from bittern.evaluation.dataset import MAX_INDEX_BYTES
from bittern.evaluation.metrics import Interval
from bittern.evaluation.tuning import Judged, LabelledInterval, Track
from bittern.system import fileio

INDEX = "index.csv"


class Index(NamedTuple):
    """What the index of a folder of clips says.

    Attributes:
        models: for each file name, the models (or tasks) that the clip may judge.
        absent: file names that are not in the folder.
        unlisted: clips of the folder that are not in the index, and judge no model.
    """

    models: dict[str, frozenset[str]]
    absent: list[str]
    unlisted: list[str]

    def judges(self, clip: str, model: str, task: str) -> bool:
        """Whether a clip may judge a model."""
        return bool(self.models.get(clip, frozenset()) & {model, task})


def read_index(folder: Path, clips: Sequence[str]) -> Index | None:
    """Read `index.csv` of a folder of clips: columns `clip` (file name), `models` (names with spaces between them).

    Returns:
        None if there is no such file, or if it has no column `models`: then every clip judges every model.

    Raises:
        ConfigurationError: the file cannot be read, or has a column `models` and none `clip`.
    """
    file = folder / INDEX
    if not file.exists():
        return None
    try:
        with io.TextIOWrapper(fileio.open_regular(file, MAX_INDEX_BYTES), "utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            columns = reader.fieldnames or []
            if "models" not in columns:
                return None
            if "clip" not in columns:
                raise ConfigurationError(f"{file}: a column 'models' but none 'clip'")
            models = {row["clip"] or "": frozenset((row["models"] or "").split()) for row in reader}
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 at byte {error.start}") from None
    except csv.Error as error:
        raise ConfigurationError(f"{file}: row {reader.line_num}: {error}") from None
    return Index(models, sorted(set(models) - set(clips)), sorted(set(clips) - set(models)))


def read_labels(folder: Path, clips: Sequence[Path]) -> dict[str, list[LabelledInterval]]:
    """Read the intervals of a folder of clips: `STEM.LABEL.csv`, or `STEM.csv` with any labels.

    Args:
        folder: of the interval files; other files than .csv are ignored.
        clips: all clips; no two may have the same `stem_of`.

    Returns:
        For the name of every clip its intervals; of a label that has none in a clip, there is nothing in it.

    Raises:
        ConfigurationError: see `tuning.read_intervals`; a file that belongs to no clip, or with another label than its
            name says; intervals of one label that overlap over two files.
    """
    by_stem: dict[str, str] = {}
    for clip in clips:
        other = by_stem.setdefault(stem_of(clip), clip.name)
        if other != clip.name:
            raise ConfigurationError(
                f"clips {other} and {clip.name}: the same name, so their intervals cannot be told apart"
            )
    labels: dict[str, list[LabelledInterval]] = {clip.name: [] for clip in clips}
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: expected a folder of interval files, such as CLIP.LABEL.csv")
    for file in sorted(folder.glob("*.csv")):
        parts = file.name.removesuffix(".csv").split(".")
        # Names may contain dots themselves: the longest one counts.
        stems = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        stem = next((stem for stem in stems if stem in by_stem), None)
        if stem is None:
            hint = did_you_mean(parts[0], by_stem)
            raise ConfigurationError(f"{file}: no clip {parts[0]!r}, so its intervals would not count{hint}")
        label = file.name.removesuffix(".csv").removeprefix(stem).removeprefix(".")
        intervals = tuning.read_intervals(file)
        for interval in intervals:
            if label and interval.label != label:
                raise ConfigurationError(f"{file}: label {interval.label!r}, expected {label!r} as in the file's name")
            if any(
                interval.label == other.label and interval.start_s < other.end_s and other.start_s < interval.end_s
                for other in labels[by_stem[stem]]
            ):
                raise ConfigurationError(f"{file}: overlaps an interval of {interval.label!r} in another file")
        labels[by_stem[stem]] = sorted([*labels[by_stem[stem]], *intervals])
    return labels


def stem_of(clip: Path) -> str:
    """The name that interval files use: that of a video file without its suffix, of a recording that of its folder."""
    return clip.name if clip.is_dir() else clip.stem


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm in a clip.

    Attributes:
        start_s: when it went on, in s since the first frame.
        end_s: when it went off; None if it was on at the end.
        correct: see `tuning.judge`.
        highest_score: while it was on.
    """

    start_s: float
    end_s: float | None
    correct: bool
    highest_score: float


class ClipFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How one alarm label of a model did on one clip; a line of `--json`.

    Attributes:
        clip: file name.
        seconds: from its first frame to its last.
        intervals: number of labelled intervals.
        detected: number of these that an alarm met, see `tuning.judge`; in JSON the key is "found".
        delays_s: of each detected one.
        false_alarms: see `tuning.judge`.
        highest_score: None if no frame was classified.
        alarms: all of them.
    """

    clip: str
    model: str
    task: str
    label: str
    seconds: float
    intervals: int
    detected: int = msgspec.field(name="found")
    delays_s: list[float]
    false_alarms: int
    highest_score: float | None
    alarms: list[Alarm]


def clip_figures(clip: str, track: Track, judged: Judged) -> ClipFigures:
    """The figures of a clip."""

    def highest(start_s: float, end_s: float) -> float:
        seconds = track.times_ns / 1e9
        during = (seconds >= start_s) & (seconds <= end_s)
        return float(np.max(track.scores[during], initial=0.0))

    return ClipFigures(
        clip=clip,
        model=track.model,
        task=track.task,
        label=track.label,
        seconds=round(track.clip_s, 3),
        intervals=judged.intervals,
        detected=judged.detected,
        delays_s=[round(delay, 3) for delay in judged.delays_s],
        false_alarms=judged.false_alarms,
        highest_score=round(float(track.scores.max()), 6) if len(track.scores) else None,
        alarms=[
            Alarm(
                start_s=round(on, 3),
                end_s=round(off, 3) if np.isfinite(off) else None,
                correct=correct,
                highest_score=round(highest(on, off), 6),
            )
            for (on, off), correct in zip(judged.alarms, judged.correct, strict=True)
        ],
    )


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How one alarm label of a model did on all clips; a line of `--json`.

    Attributes:
        clips: number of clips.
        intervals: number of labelled intervals.
        detected: number of these that an alarm met; in JSON the key is "found".
        detected_ci95: Wilson interval of detected / intervals; in JSON "found_ci95".
        mean_delay_s: from the start of an interval to its alarm; None if none was detected.
        longest_delay_s: the longest of these.
        false_alarms: number of alarms that are false.
        hours: of footage.
        false_alarms_per_hour: None without footage.
        false_alarms_per_hour_ci95: its exact Poisson interval.
    """

    model: str
    task: str
    label: str
    clips: int
    intervals: int
    detected: int = msgspec.field(name="found")
    detected_ci95: Interval = msgspec.field(name="found_ci95")
    mean_delay_s: float | None
    longest_delay_s: float | None
    false_alarms: int
    hours: float
    false_alarms_per_hour: float | None
    false_alarms_per_hour_ci95: Interval | None


def totals(clips: Sequence[ClipFigures]) -> Totals:
    """Sum up the clips, at least one, of one alarm label."""
    first = clips[0]
    intervals, detected = sum(clip.intervals for clip in clips), sum(clip.detected for clip in clips)
    delays = [delay for clip in clips for delay in clip.delays_s]
    false, hours = sum(clip.false_alarms for clip in clips), sum(clip.seconds for clip in clips) / 3600
    low, high = tuning.poisson_interval(false)
    return Totals(
        model=first.model,
        task=first.task,
        label=first.label,
        clips=len(clips),
        intervals=intervals,
        detected=detected,
        detected_ci95=metrics.wilson(detected, intervals),
        mean_delay_s=round(sum(delays) / len(delays), 3) if delays else None,
        longest_delay_s=max(delays, default=None),
        false_alarms=false,
        hours=round(hours, 6),
        false_alarms_per_hour=round(false / hours, 3) if hours else None,
        false_alarms_per_hour_ci95=(round(low / hours, 3), round(high / hours, 3)) if hours else None,
    )


def lines(total: Totals, clips: Sequence[ClipFigures]) -> list[str]:
    """The figures as text: those over all clips, then a line for each clip."""
    name = f"{total.model}, {total.label}"
    text = [f"{name}: nothing to detect"]
    if total.intervals:
        low, high = total.detected_ci95
        text = [f"{name}: {total.detected} of {total.intervals} intervals detected (95 % {low:.0%} to {high:.0%})"]
        if total.mean_delay_s is not None:
            text[0] += f", delay {total.mean_delay_s:.1f} s on average, {total.longest_delay_s:.1f} s at most"
    rate = f"{name}: {total.false_alarms} false alarms in {total.hours * 60:.1f} min of {total.clips} clips"
    if total.false_alarms_per_hour_ci95 is not None:
        low, high = total.false_alarms_per_hour_ci95
        rate += f": {_rate(total.false_alarms_per_hour)} an hour (95 % {_rate(low)} to {_rate(high)}, Poisson)"
    text.append(rate)
    wide = max(len(clip.clip) for clip in clips)
    text.append(f"  {'clip':<{wide}}  seconds  score  detected  false")
    for clip in clips:
        score = f"{clip.highest_score:.2f}" if clip.highest_score is not None else "-"
        detected = f"{clip.detected} of {clip.intervals}" if clip.intervals else ""
        notes = [f"delay {delay:.1f} s" for delay in clip.delays_s]
        notes += [f"false at {a.start_s:.1f} s ({a.highest_score:.2f})" for a in clip.alarms if not a.correct]
        line = f"  {clip.clip:<{wide}}  {clip.seconds:7.1f}  {score:>5}  {detected:>8}  {clip.false_alarms or '':>5}"
        text.append(f"{line}  {', '.join(notes)}".rstrip())
    return text


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2g}" if rate < 10 else f"{rate:.0f}"


def unknown_labels(labels: Mapping[str, Sequence[LabelledInterval]], known: Sequence[str]) -> list[str]:
    """The labels of intervals that raise no alarm.

    Raises:
        ConfigurationError: one of them looks like a misspelt alarm label.
    """
    named = dict.fromkeys(interval.label for clip in labels.values() for interval in clip)
    others = [label for label in named if label not in known]
    for label in others:
        if hint := did_you_mean(label, known):
            raise ConfigurationError(f"intervals of {label!r}, which does not raise an alarm{hint}")
    return others

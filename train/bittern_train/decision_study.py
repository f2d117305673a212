"""The study "decision": which rule raises alarms best, over the scores of clips and of drawn streets.

bittern study decision stop_sign --clips ../shared/data/clips --labels ../shared/data/clips/intervals --out docs/results

The scores are computed once; every rule then decides over the same ones, at every threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bittern.config.schema import DecisionConfig, WatchConfig
from bittern.decision.decision import Settings, settings_of
from bittern.errors import ConfigurationError
from bittern.evaluation import clips, tuning
from bittern.evaluation.tuning import LabelledInterval, Track
from bittern.events import AlarmKey
from bittern.frames import Order, Pixels
from bittern.model import operating
from bittern.model.classifier import Classifier
from bittern.sources.clip import ClipSource, find_clips, is_clip
from bittern.sources.registry import open_source
from bittern.sources.sampling import Sampler
from bittern.system.progress import Progress, counted
from bittern_convert import streams
from bittern_train.decision_rules import RULES, SHIPPED, Decider

# Of three laps of the drawn street one has a stop sign.
_WITH_SIGN = 3
# The alarm label that this sign raises.
_SIGN_LABEL = "stop"
# Log-odds of the thresholds, up to 0.993.
_STEPS = np.arange(-2.0, 5.01, 0.5)
_S = 1e9


class Take(NamedTuple):
    """The scores of a clip, or of a lap of the drawn street, and when there is something to find in it."""

    track: Track
    intervals: list[LabelledInterval]


def study(
    model: str | Path, folder: Path, labels: Path, *, minutes: float, seed: int, progress: Progress
) -> dict[str, Any]:
    """Score the footage, and let every rule decide over it.

    Args:
        model: name or folder.
        folder: of clips; its `index.csv` may say which clips judge which model, see `clips.read_index`.
        labels: the folder of their intervals, see `clips.read_labels`.
        minutes: of drawn streets, a third of them with a stop sign.
        seed: of the streets.
        progress: gets each clip, lap and rule.

    Raises:
        ConfigurationError: no clip for the model; intervals that do not fit the clips; a model that has not exactly one
            alarm label.
    """
    classifier = Classifier(model)
    made = settings_of({classifier.name: classifier.heads}, DecisionConfig(), [])
    if len(made) != 1:
        raise ConfigurationError(f"model {classifier.name!r}: expected one alarm label, got {len(made)}")
    ((key, settings),) = made.items()
    every_frame = list(_clips(classifier, key, folder, labels, progress))
    laps = range(round(minutes * 60 / streams.LAP_S))
    looked_at = [take._replace(track=_looked_at(take.track)) for take in every_frame]
    streets = [_lap(classifier, key, i, seed) for i in counted(laps, progress, "drawn streets", len(laps))]
    footage = {
        "clips": looked_at,
        "streets": streets,
        "clips and streets": looked_at + streets,
        "clips, every frame": every_frame,
    }
    return {
        "study": "decision",
        "model": classifier.name,
        "version": classifier.version,
        "label": key.label,
        "seed": seed,
        "shipped": SHIPPED,
        "default": {"on": settings.on, "off": settings.off},
        "footage": {name: _extent(takes) for name, takes in footage.items()},
        **compare(footage, settings, progress),
    }


def compare(footage: Mapping[str, Sequence[Take]], settings: Settings, progress: Progress) -> dict[str, Any]:
    """What every rule gives on each part of the footage: at the given settings, and at every threshold."""
    thresholds = [round(float(on), 4) for on in 1 / (1 + np.exp(-_STEPS))]
    rules = []
    for name, rule in counted(RULES.items(), progress, "rules", len(RULES)):
        parts = {}
        for part, takes in footage.items():
            swept = [figures(takes, settings._replace(on=on, off=operating.off_of(on)), rule) for on in thresholds]
            parts[part] = {
                "default": figures(takes, settings, rule)._asdict(),
                **{field: [getattr(counts, field) for counts in swept] for field in RuleFigures._fields},
            }
        rules.append({"rule": name, **parts})
    return {"thresholds": thresholds, "rules": rules}


class RuleFigures(NamedTuple):
    """How a rule did.

    Attributes:
        found: number of intervals that an alarm met, see `tuning.judge`.
        false_alarms: number of alarms that are false.
        mean_delay_s: from the start of a found interval to its alarm, 0 if that began before; None without one.
    """

    found: int
    false_alarms: int
    mean_delay_s: float | None


def figures(takes: Sequence[Take], settings: Settings, rule: Callable[[Settings], Decider]) -> RuleFigures:
    """Run a rule over the takes, and count."""
    false, delays = 0, []
    for track, intervals in takes:
        on: list[tuple[float, float]] = []  # no rule raises an alarm below the threshold
        if track.scores.max(initial=0.0) >= settings.on:
            on = tuning.periods(rule(settings).update, track.times_ns.tolist(), track.scores.tolist())
        judged = tuning.judge(track, intervals, settings, on)
        false += judged.false_alarms
        delays += judged.delays_s
    return RuleFigures(len(delays), false, round(sum(delays) / len(delays), 3) if delays else None)


def _extent(takes: Sequence[Take]) -> dict[str, Any]:
    return {
        "n": len(takes),
        "frames": sum(len(take.track.scores) for take in takes),
        "hours": round(sum(take.track.clip_s for take in takes) / 3600, 5),
        "intervals": sum(len(take.intervals) for take in takes),
    }


def _clips(classifier: Classifier, key: AlarmKey, folder: Path, labels: Path, progress: Progress) -> Iterator[Take]:
    """The clips that judge the model, with the scores of all their frames."""
    every = find_clips(folder)
    index, intervals = clips.read_index(folder, [clip.name for clip in every]), clips.read_labels(labels, every)
    judging = [clip for clip in every if index is None or index.judges(clip.name, key.model, key.task)]
    if not judging:
        raise ConfigurationError(f"{folder}: no clip judges the model {key.model!r}")
    for clip in counted(judging, progress, "clips", len(judging)):
        with ClipSource(clip) if is_clip(clip) else open_source(str(clip)) as source:
            track = _track(classifier, key, ((f.monotonic_ns, f.pixels, f.order) for f in source))
        yield Take(track, [interval for interval in intervals[clip.name] if interval.label == key.label])


def _lap(classifier: Classifier, key: AlarmKey, number: int, seed: int) -> Take:
    stream = streams.driven(number, seed, stop=number % _WITH_SIGN == 0)
    times = np.round(np.arange(len(stream.frames)) * streams.FRAME_S * _S).astype(int).tolist()
    track = _track(classifier, key, ((now, pixels, "RGB") for now, pixels in zip(times, stream.frames, strict=True)))
    if stream.interval is None or key.label != _SIGN_LABEL:
        return Take(track, [])
    start_s, end_s = stream.interval
    return Take(track, [LabelledInterval(start_s, end_s, key.label)])


def _track(classifier: Classifier, key: AlarmKey, frames: Iterable[tuple[int, Pixels, Order]]) -> Track:
    times, scores = [], []
    for now_ns, pixels, order in frames:
        (result,) = (r for r in classifier.classify(pixels, order) if r.task == key.task)
        times.append(now_ns)
        scores.append(result.scores[key.label])
    passed = np.array(times, np.int64) - times[0]
    return Track(key.model, key.task, key.label, passed, np.array(scores), float(passed[-1]) / _S)


def _looked_at(track: Track) -> Track:
    """The frames of a clip that a daemon without a configuration would look at."""
    times = track.times_ns.tolist()
    sampler = Sampler(WatchConfig().fps, times[-1] / max(1, len(times) - 1))
    due = np.array([sampler.due(now) for now in times])
    return track._replace(times_ns=track.times_ns[due], scores=track.scores[due])

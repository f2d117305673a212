"""Alarms of an int8 model on streams of pictures that no choice has used: found, false, by size and by light."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from bittern.errors import PictureError
from bittern.evaluation import dataset, metrics, tuning
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import pictures
from bittern.model.classifier import Classifier
from bittern.model.preprocess import CENTER
from bittern.system.progress import Progress, counted
from bittern_convert import copies, parallel, streams
from bittern_convert.streams import FRAME_S, SIZES, Outline, Stream
from bittern_convert.task import Task

# Minutes of streams in which every alarm is false, and how long a photograph's is.
MINUTES, STREAM_S = 60.0, 6.0
# Streams of one photograph, at most, and passings of one; the same of a run that was trained the quick way.
ROUNDS, PASSINGS = 6, 2
QUICK_ROUNDS, QUICK_PASSINGS = 2, 1
# Pictures of things that pass, at most.
PASSED = 250
# Drawn streets with a stop sign, where the task has drawn pictures, and as many without; more to fill up MINUTES.
STREETS = 12
# Added to the seed: other streams than those of the k-fold, of whatever name.
_SEED = 1000


class _Answer(NamedTuple):
    outline: Outline
    alarms: list[tuple[float, float]]


def measure(
    classifier: Classifier, task: Task, items: Sequence[Item], seed: int, progress: Progress
) -> dict[str, Any] | None:
    """Run the daemon's decision at the threshold "default" over held-back streams.

    Args:
        classifier: the int8 model.
        task: what it was trained for.
        items: labelled pictures of splits that are only reported on; those that cannot be read are left out.
        seed: of the run.
        progress: gets each stream.

    Returns:
        Counts and intervals, as the manifest keeps them; None where the task has no alarm label, looks beside the
        centred square (streams show that alone), or says by `stream_s = 0` that its pictures make no streams.
    """
    if not task.alarm or task.views != CENTER or task.recipe.stream_s == 0:
        return None
    makers = _makers(task, items, seed + _SEED)
    made = streams.settings(classifier.heads[0].thresholds["default"])
    answers = []
    drawn = parallel.results(_made, makers)  # ahead of the model
    for stream in counted(drawn, progress, "streams", len(makers)):
        if stream is None:
            continue
        scores = [_score(classifier, task, frame) for frame in stream.frames]
        answers.append(_Answer(streams.outline(stream), streams.alarms(scores, made)))
    if not answers:
        return None
    passings = [a for a in answers if a.outline.interval is not None]
    empty = [a for a in answers if a.outline.interval is None]
    return {
        "threshold": "default",
        "frames_a_second": round(1 / FRAME_S, 3),
        "passings": _found(passings),
        "by_size": {size: _found([a for a in passings if a.outline.size == size]) for size in SIZES},
        "passings_by_light": {light: _found(_lit(passings, light)) for light in ("day", "night")},
        "false": _false(empty),
        "false_by_light": {light: _false(_lit(empty, light)) for light in ("day", "night")},
        "false_on_drawn": _false([a for a in empty if a.outline.drawn]),
    }


def _makers(task: Task, items: Sequence[Item], seed: int) -> list[Callable[[], Stream]]:
    """Makers of each stream: passings, as many rounds over the other photographs as fill MINUTES, and streets."""
    size = task.backbone.size

    def passing(item: Item, number: int) -> Stream:
        return streams.passing(
            copies.decode(task, item, pictures.read(item.path)), item.name, seed, number=number, size=size
        )

    def empty(item: Item, number: int) -> Stream:
        if streams.passes(task, item.label or ""):
            return streams.of_no_alarm(passing(item, number))
        frame = copies.decode(task, item, pictures.read(item.path))
        return streams.panned(frame, item.name, seed, seconds=STREAM_S, number=number, size=size)

    with_alarm = dataset.sample([item for item in items if item.label in task.alarm], PASSED, seed)
    without = [item for item in items if item.label not in task.alarm]
    streets = STREETS if task.drawn is not None else 0
    most, passings = (QUICK_ROUNDS, QUICK_PASSINGS) if task.recipe.quick else (ROUNDS, PASSINGS)
    count = math.ceil((60 * MINUTES - streets * streams.LAP_S) / STREAM_S)
    rounds = [(item, number) for number in range(most) for item in without][:count]
    more = math.ceil((count - len(rounds)) * STREAM_S / streams.LAP_S) if streets else 0
    return [
        *(partial(passing, item, number) for number in range(passings) for item in with_alarm),
        *(partial(empty, item, number) for item, number in rounds),
        *(partial(streams.driven, i, seed, stop=True, size=size) for i in range(streets)),
        *(partial(streams.driven, i, seed, stop=False, size=size) for i in range(streets, 2 * streets + more)),
    ]


def _made(maker: Callable[[], Stream]) -> Stream | None:
    try:
        return maker()
    except PictureError:
        return None  # the report on the pictures lists it


def _score(classifier: Classifier, task: Task, frame: Pixels) -> float:
    scores = classifier.classify(frame, "RGB")[0].scores
    return max(scores[label] for label in task.alarm)


def _lit(answers: Sequence[_Answer], light: str) -> list[_Answer]:
    return [a for a in answers if a.outline.night == (light == "night")]


def _found(answers: Sequence[_Answer]) -> dict[str, Any]:
    detected = sum(
        any(tuning.meets(alarm, a.outline.interval) for alarm in a.alarms)
        for a in answers
        if a.outline.interval is not None
    )
    return {"n": len(answers), "found": detected, "found_ci95": metrics.wilson(detected, len(answers))}


def _false(answers: Sequence[_Answer]) -> dict[str, Any]:
    """Number of false alarms, and their rate an hour with its exact interval; None without any time."""
    count = sum(len(a.alarms) for a in answers)
    hours = sum(a.outline.frames for a in answers) * FRAME_S / 3600
    figures: dict[str, Any] = {"alarms": count, "minutes": round(60 * hours, 1), "an_hour": None, "an_hour_ci95": None}
    if hours:
        figures["an_hour"] = round(count / hours, 2)
        figures["an_hour_ci95"] = [round(bound / hours, 2) for bound in tuning.poisson_interval(count)]
    return figures

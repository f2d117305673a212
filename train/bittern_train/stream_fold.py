"""The stream fold: streams of a moving camera over the pictures that choose, scored out of fold like the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.model.preprocess import CENTER
from bittern.system.progress import Progress, counted
from bittern_convert import parallel, streams
from bittern_convert.copies import Photo, Sample
from bittern_convert.streams import FRAME_S, LAP_S, PASSING_S, Outline, Stream, Swept
from bittern_convert.task import Task
from bittern_train.network import FeatureStore, Floats, Network, features

# Drawn streets, half of them with a stop sign, where the task has drawn pictures.
STREETS = 16
# What the features of all streams may take; above it, not every picture gets a stream.
MOST_BYTES = 2_000_000_000
# Beside a seed, what makes a generator of its own (`bittern_convert.streams` has 8 and 9).
_CHOICE = 10


class Footage(NamedTuple):
    """Streams, and what the frozen body makes of their frames.

    Attributes:
        outlines: the streams, in the order of their frames.
        owners: (streams,) number of each one's picture among the samples that choose; -1 for a drawn street.
        features: (frames, 1, h, w, channels), of all streams one after the other.
    """

    outlines: list[Outline]
    owners: npt.NDArray[np.int64]
    features: FeatureStore

    def of_fold(self, validated: npt.NDArray[np.intp], fold: int, folds: int) -> npt.NDArray[np.bool_]:
        """(frames,) whether each is of a picture that a fold validates; drawn streets go round the folds."""
        turn = np.cumsum(self.owners < 0) % folds
        own = np.where(self.owners < 0, turn == fold, np.isin(self.owners, validated))
        return np.repeat(own, [outline.frames for outline in self.outlines])


def frames(task: Task, pictures: int) -> int:
    """About how many frames the streams of some pictures have; 0 where there are none, see `footage`."""
    if not task.alarm or not task.recipe.stream_s or task.views != CENTER:
        return 0
    streets = STREETS * round(LAP_S / FRAME_S) if task.drawn else 0
    return pictures * streams.frames_of(task.recipe.stream_s) + streets


class _Plan(NamedTuple):
    owner: int
    frames: int
    street: int = 0


def footage(
    task: Task, network: Network, chosen: Sequence[Sample], photos: Sequence[Photo], seed: int, progress: Progress
) -> Footage | None:
    """Draw the streams of a task, and run them through the frozen body.

    A picture of nothing gets a stream of `recipe.stream_s` (`streams.panned`), one of a thing a passing; see
    `streams.passes`. With `recipe.quick`, every second thing passes.

    Args:
        task: what is learned.
        network: its body is used.
        chosen: the samples that choose.
        photos: of these.
        seed: of everything random.
        progress: gets each stream.

    Returns:
        None where the task has no alarm label, asks for no streams, or looks beside the centred square: streams show
        that alone.
    """
    seconds, size = task.recipe.stream_s, task.backbone.size
    if not frames(task, len(chosen)):
        return None
    passing = [streams.passes(task, task.labels[s.target]) for s in chosen]
    plans = _plans(passing, seconds, task.drawn is not None, network, seed)
    if task.recipe.quick:
        plans = _thinned(plans, passing)

    def one(number: int) -> Stream:
        plan = plans[number]
        if plan.owner < 0:
            return streams.driven(plan.street, seed, stop=plan.street % 2 == 0, size=size)
        sample, frame = chosen[plan.owner], photos[plan.owner].frame
        label = task.labels[sample.target]
        if streams.passes(task, label):
            passed = streams.passing(frame, sample.item.name, seed, size=size)
            return passed if label in task.alarm else streams.of_no_alarm(passed)
        return streams.panned(frame, sample.item.name, seed, seconds=seconds, size=size)

    outlines: list[Outline] = []

    def pixels() -> Iterator[npt.NDArray[np.uint8]]:
        made = parallel.results(one, range(len(plans)))
        for stream in counted(made, progress, "features of streams", len(plans)):
            outlines.append(streams.outline(stream))
            yield stream.frames

    kept = features(network.body, pixels(), (sum(plan.frames for plan in plans), 1))
    return Footage(outlines, np.array([plan.owner for plan in plans], np.int64), kept)


def _plans(passing: Sequence[bool], seconds: float, drawn: bool, network: Network, seed: int) -> list[_Plan]:
    plans = [
        _Plan(i, round(PASSING_S / FRAME_S) if is_passing else streams.frames_of(seconds))
        for i, is_passing in enumerate(passing)
    ]
    room = MOST_BYTES // (2 * int(np.prod(network.body_features)))
    order = np.random.default_rng([seed, _CHOICE]).permutation(len(plans))
    fitting = order[np.cumsum([plans[i].frames for i in order]) <= room]
    streets = [_Plan(-1, round(LAP_S / FRAME_S), i) for i in range(STREETS)] if drawn else []
    return [plans[i] for i in sorted(fitting)] + streets


def _thinned(plans: Sequence[_Plan], passing: Sequence[bool]) -> list[_Plan]:
    """Without every second passing, which take more than twice as long as other streams of the quick way."""
    passings = [plan for plan in plans if plan.owner >= 0 and passing[plan.owner]]
    left_out = set(passings[1::2])
    return [plan for plan in plans if plan not in left_out]


def judged(task: Task, held: Footage, answers: Floats) -> Swept:
    """The daemon's decision over out-of-fold scores (frames, labels) of all streams, at every threshold."""
    alarms = [task.labels.index(label) for label in task.alarm]
    return streams.sweep(held.outlines, answers[:, alarms].max(1))

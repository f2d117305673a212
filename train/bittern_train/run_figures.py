"""What the page of a run shows, as figures: curves over thresholds, calibration, accuracy by kind of picture."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import dataset, metrics
from bittern.evaluation.dataset import Item
from bittern.model import picture_header, pictures
from bittern_convert import run
from bittern_convert.run import Run
from bittern_train import out_of_fold

Floats = npt.NDArray[np.float64]

# One false alarm in so many pictures without an alarm.
FALSE_ALARMS = (10, 20, 50, 100, 200, 500, 1000)
_BINS = 10


class RunAnswers(NamedTuple):
    """The pictures of a run that chose, each answered by a fit that did not train on it.

    Attributes:
        made: the run.
        items: of each picture (n,).
        targets: index of the true label (n,).
        scores: calibrated (n, labels).
        folds: that each was validated in (n,).
        rows: numbers of the pictures that have features (m,).
        features: of these (m, channels).
    """

    made: Run
    items: list[Item]
    targets: npt.NDArray[np.int64]
    scores: Floats
    folds: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    features: npt.NDArray[np.float16]

    @property
    def answers(self) -> npt.NDArray[np.int64]:
        """(n,) index of the label with the highest score."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(n,) whether that is the true one."""
        return np.asarray(self.answers == self.targets, bool)

    @property
    def groups(self) -> list[str]:
        """(n,) the group of each picture."""
        return [item.group or item.name for item in self.items]


class OperatingPoint(NamedTuple):
    """A row of the table of thresholds.

    Attributes:
        one_in: of so many pictures without an alarm one gives a false alarm, at most.
        threshold: the lowest that keeps to it; None if none does.
        caught: pictures with an alarm whose score reaches it.
        false: pictures without one whose score reaches it.
    """

    one_in: int
    threshold: float | None
    caught: int
    false: int


class KindShare(NamedTuple):
    """How many of some pictures were answered correctly."""

    name: str
    correct: int
    n: int


class Bin(NamedTuple):
    """Pictures whose answer has about this score: their number, mean score, and how many are correct."""

    n: int
    score: float
    correct: int


def judged(folder: Path, root: Path | None = None) -> RunAnswers:
    """Read what a run says of its own pictures.

    Args:
        folder: of the run.
        root: where its pictures are now; None where they were.

    Raises:
        ConfigurationError: no such run, or one of an earlier version, or its index does not fit.
    """
    made = run.load(folder)
    kept = out_of_fold.read(folder)
    items = {item.name: item for item in dataset.read(folder / run.INDEX, root or Path(made.data))}
    absent = [name for name in kept.names if name not in items]
    if absent or kept.scores.shape[1] != len(made.task.labels):
        raise ConfigurationError(f"{folder}: {run.INDEX} and {out_of_fold.FILE} do not fit together: train again")
    own = [items[name] for name in kept.names]
    unknown = [item for item in own if item.label not in made.task.labels]
    if unknown:
        raise ConfigurationError(f"{folder / run.INDEX}: {unknown[0].name}: not a label of the task: train again")
    targets = np.array([made.task.labels.index(item.label or "") for item in own], np.int64)
    return RunAnswers(made, own, targets, kept.scores.astype(np.float64), kept.folds, kept.rows, kept.features)


def alarm_scores(judged: RunAnswers) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
    """(n,) the score of each picture's alarm, the highest of the alarm labels, and (n,) whether it has one.

    None where the task has no alarm, or no picture of one kind.
    """
    alarms = [judged.made.task.labels.index(label) for label in judged.made.task.alarm]
    positive = np.isin(judged.targets, alarms)
    if not alarms or positive.all() or not positive.any():
        return None
    return np.asarray(judged.scores[:, alarms].max(1)), positive


def operating(scores: Floats, positive: npt.NDArray[np.bool_]) -> list[OperatingPoint]:
    """The table of thresholds; a rate that so few pictures cannot show is left out.

    Args:
        scores: (n,) of the alarm, 0 to 1.
        positive: (n,) whether the picture has an alarm; there are both kinds.
    """
    rows = []
    thresholds = np.unique(np.r_[scores, np.nextafter(scores.max(), 2)])
    false = np.array([(scores[~positive] >= threshold).sum() for threshold in thresholds])
    for one_in in FALSE_ALARMS:
        if one_in > (~positive).sum():
            break
        kept = np.flatnonzero(false <= (~positive).sum() / one_in)
        i = int(kept[0])
        threshold = float(thresholds[i])
        caught = int((scores[positive] >= threshold).sum())
        rows.append(OperatingPoint(one_in, threshold if caught or false[i] else None, caught, int(false[i])))
    return rows


def roc(scores: Floats, positive: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Share of false alarms and of alarms caught, at every threshold from the highest down, from (0, 0) to (1, 1).

    Args:
        scores: (n,) of the alarm.
        positive: (n,) whether the picture has an alarm; there are both kinds.
    """
    return [(0.0, 0.0), *((f / (~positive).sum(), c / positive.sum()) for c, f in _counts(scores, positive))]


def precision_recall(scores: Floats, positive: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Recall and precision, at every threshold from the highest down.

    Args:
        scores: (n,) of the alarm.
        positive: (n,) whether the picture has an alarm; there is one that has.
    """
    return [(c / positive.sum(), c / (c + f)) for c, f in _counts(scores, positive)]


def _counts(scores: Floats, positive: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])  # of pictures with the same score
    caught, false = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    return [(int(c), int(f)) for c, f in zip(caught, false, strict=True)]


def reliability(judged: RunAnswers) -> list[Bin]:
    """The pictures by the score of their answer, in ten bins of equal width; empty ones are left out."""
    confidence = judged.scores.max(1)
    numbers = np.clip((confidence * _BINS).astype(int), 0, _BINS - 1)
    return [
        Bin(int(own.sum()), float(confidence[own].mean()), int(judged.correct[own].sum()))
        for number in range(_BINS)
        if (own := numbers == number).any()
    ]


def shares(judged: RunAnswers, kind: Callable[[int], str | None]) -> list[KindShare]:
    """Correct answers by kind of picture.

    Args:
        judged: the pictures.
        kind: the name of the kind of the picture of this number; None leaves it out.
    """
    names = [kind(i) for i in range(len(judged.items))]
    return [
        KindShare(name, int(judged.correct[own].sum()), int(own.sum()))
        for name in sorted({name for name in names if name is not None})
        for own in [np.array([other == name for other in names])]
    ]


def group_size(judged: RunAnswers) -> Callable[[int], str]:
    """The kind of a picture by how many pictures its group has."""
    groups = judged.groups
    sizes = collections.Counter(groups)

    def kind(i: int) -> str:
        size = sizes[groups[i]]
        return "1 picture" if size == 1 else "2 to 5 pictures" if size <= 5 else "6 or more pictures"

    return kind


def cut_away(judged: RunAnswers) -> list[float | None]:
    """(n,) the share of each picture, 0 to 1, that is outside of its centred square, by its header.

    None for a picture that cannot be read.
    """
    region = judged.made.task.field_of_view.region
    result: list[float | None] = []
    for item in judged.items:
        try:
            header = picture_header.read(pictures.read(item.path))
        except PictureError:
            header = None
        if header is None or not header.sized or min(header.width, header.height) < 1:
            result.append(None)
        else:
            width, height = (region.width, region.height) if region else (header.width, header.height)
            result.append(1 - min(width, height) ** 2 / (header.width * header.height))
    return result


def interval(correct: int, n: int) -> str:
    """A share with its 95 % interval (Wilson)."""
    low, high = metrics.wilson(correct, n)
    return f"{correct / n:.1%} ({low:.1%} to {high:.1%})"


def mistakes(judged: RunAnswers, most: int) -> Sequence[int]:
    """Numbers of the incorrect answers, the most confident first."""
    wrong = np.flatnonzero(~judged.correct)
    return [int(i) for i in wrong[np.argsort(-judged.scores[wrong].max(1), kind="stable")][:most]]


def least_certain(judged: RunAnswers, most: int) -> Sequence[int]:
    """Numbers of the answers whose two highest scores are closest."""
    ordered = np.sort(judged.scores, axis=1)
    return [int(i) for i in np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[:most]]

"""Figures of a model on labelled pictures, each with n and a 95 % interval; needs no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern import pictures
from bittern.classifier import Classifier, Result
from bittern.dataset import Item
from bittern.errors import ConfigurationError, PictureError
from bittern.manifest import Head

# The 97.5 % point of the normal distribution.
Z95 = 1.959963984540054


class Report(msgspec.Struct, kw_only=True):
    """Figures of one head on one split.

    Attributes:
        n: pictures that were answered.
        correct: of them, with the highest score on their own label.
        accuracy_ci95: Wilson interval.
        auc: area under the ROC curve of the alarm labels' score; None where only one side is there, or no alarm is.
        confusion: true label -> answered label -> count.
        alarms: pictures with an alarm at the threshold "default".
        alarm_rate_ci95: Wilson interval.
        skipped: a line for each picture that could not be read.
    """

    model: str
    version: str
    task: str
    split: str
    n: int
    correct: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    auc: float | None
    confusion: dict[str, dict[str, int]]
    alarms: int
    alarm_rate: float
    alarm_rate_ci95: tuple[float, float]
    skipped: list[str]


class Answered(NamedTuple):
    """A picture with its true label and the answer of one head."""

    item: Item
    label: str
    result: Result


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, without continuity correction); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    middle = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    low, high = (middle - half) / (1 + Z95**2 / n), (middle + half) / (1 + Z95**2 / n)
    # At the ends the bound is exact; rounding would leave it a hair inside.
    return (0.0 if successes == 0 else max(0.0, low)), (1.0 if successes == n else min(1.0, high))


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float | None:
    """Area under the ROC curve, ties counted half (Mann-Whitney U); None without both kinds.

    Args:
        scores: (n,) float, higher means positive.
        positive: (n,) bool.
    """
    values, is_positive = np.asarray(scores, float), np.asarray(positive, bool)
    p, n = int(is_positive.sum()), int((~is_positive).sum())
    if p == 0 or n == 0:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[is_positive].sum() - p * (p + 1) / 2) / (p * n))


def true_labels(head: Head, items: Sequence[Item], label: str | None) -> list[str]:
    """The true label of every item; those without one get `label`, or the head's first label of "nothing".

    Raises:
        ConfigurationError: a label that the model does not know.
    """
    fallback = label or (head.nothing[0] if head.nothing else None)
    found = []
    for item in items:
        own = item.label or fallback
        if own is None:
            raise ConfigurationError(f"{item.path}: has no label; say which with --label")
        if own not in head.labels:
            raise ConfigurationError(f"{item.path}: label {own!r} is not one of the model's: {', '.join(head.labels)}")
        found.append(own)
    return found


def answer(
    classifier: Classifier, items: Sequence[Item], label: str | None, progress: Callable[[int], None] = lambda _: None
) -> tuple[list[list[Answered]], list[str]]:
    """Classify every item.

    Returns:
        For each head its answers, and a line for each picture that could not be read.
    """
    labels = [true_labels(head, items, label) for head in classifier.heads]
    answers: list[list[Answered]] = [[] for _ in classifier.heads]
    skipped = []
    for at, item in enumerate(items):
        try:
            results = classifier.classify(pictures.decode(item.path))
        except PictureError as error:
            skipped.append(str(error))
        else:
            for head, result in enumerate(results):
                answers[head].append(Answered(item, labels[head][at], result))
        progress(at + 1)
    return answers, skipped


def report(classifier: Classifier, head: Head, split: str, answers: Sequence[Answered], skipped: list[str]) -> Report:
    """The figures of one head."""
    n = len(answers)
    correct = sum(a.label == a.result.label for a in answers)
    alarms = sum(a.result.alarm for a in answers)
    confusion = {t: dict.fromkeys(head.labels, 0) for t in head.labels}
    for a in answers:
        confusion[a.label][a.result.label] += 1
    raising = [max((a.result.scores[x] for x in head.alarm), default=0.0) for a in answers]
    return Report(
        model=classifier.name,
        version=classifier.version,
        task=head.task,
        split=split,
        n=n,
        correct=correct,
        accuracy=correct / n if n else math.nan,
        accuracy_ci95=wilson(correct, n),
        auc=auc(raising, [a.label in head.alarm for a in answers]) if head.alarm else None,
        confusion=confusion,
        alarms=alarms,
        alarm_rate=alarms / n if n else math.nan,
        alarm_rate_ci95=wilson(alarms, n),
        skipped=skipped,
    )

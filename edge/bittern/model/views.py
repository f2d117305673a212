"""One frame through several models and views: the same steps for `classify`, `evaluate` and the daemon.

Training follows the rule by which a view decides too: `deciding_views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.frames import Order, Pixels
from bittern.model.classifier import Classifier, Result, preprocess_all
from bittern.model.manifest import Head
from bittern.model.preprocess import CENTER, Region, View, views_of


class Look(NamedTuple):
    """What one model made of one frame.

    Attributes:
        results: the answer of each head, that of the view that decides (see `deciding_views`).
        by_view: the answers of every view, each a list of one a head.
        tensor: (1, size, size, 3) uint8 RGB, what decided for the first head; valid until the next frame.
        invoke_ns: time of the inferences, in ns.
        answer_ns: time of reading their outputs, in ns.
    """

    results: list[Result]
    by_view: list[list[Result]]
    tensor: Pixels
    invoke_ns: int
    answer_ns: int


def look(
    classifiers: Sequence[Classifier],
    frame: Pixels,
    order: Order = "BGR",
    region: Region | None = None,
    views: Sequence[View] = CENTER,
) -> tuple[list[Look], int]:
    """Show a frame to every model: one crop and one resize a view and input size, one inference a view and model.

    Args:
        classifiers: any number.
        frame: (H, W, 3) uint8.
        order: of its channels.
        region: a rectangle to look at instead of the whole frame.
        views: which squares of it. A frame that is not wider than high has one square only, which is looked at once.

    Returns:
        A look for each classifier, and the time of crop and resize, which they share, in ns.

    Raises:
        ConfigurationError: see `contract.square_of`.
    """
    if views is not CENTER:
        views = views_of(frame, region, views)
    several = len(views) > 1
    preprocess_ns = 0
    invoke_ns, answer_ns = [0] * len(classifiers), [0] * len(classifiers)
    answers: list[list[list[Result]]] = [[] for _ in classifiers]
    kept: list[list[Pixels]] = [[] for _ in classifiers]
    for view in views:
        start = perf_counter_ns()
        tensors = preprocess_all(classifiers, frame, order, region, view)
        now = perf_counter_ns()
        preprocess_ns += now - start
        for i, classifier in enumerate(classifiers):
            start = now
            outputs = classifier.invoke(tensors[i])
            now = perf_counter_ns()
            invoke_ns[i] += now - start
            start = now
            answers[i].append(classifier.answer(outputs, view))
            # The next view is written over it.
            kept[i].append(tensors[i].copy() if several else tensors[i])
            now = perf_counter_ns()
            answer_ns[i] += now - start
    looks = []
    for i, classifier in enumerate(classifiers):
        best = [deciding(head, [by[h] for by in answers[i]]) for h, head in enumerate(classifier.heads)]
        results = [answers[i][at][h] for h, at in enumerate(best)]
        looks.append(Look(results, answers[i], kept[i][best[0]], invoke_ns[i], answer_ns[i]))
    return looks, preprocess_ns


def deciding(head: Head, results: Sequence[Result]) -> int:
    """Which of the answers that a head gave to several views is its answer to the frame.

    It is taken as a whole (see `deciding_views` for which): its scores still add up to one.
    """
    if len(results) == 1:
        return 0
    scores = np.array([[result.scores[label] for label in head.labels] for result in results])
    return int(deciding_views(scores, head.labels, head.alarm, head.nothing))


def deciding_views(
    scores: npt.NDArray[np.floating], labels: Sequence[str], alarm: Sequence[str], nothing: Sequence[str]
) -> npt.NDArray[np.intp]:
    """Which view decides, for any number of frames.

    The one with the highest score of a label that raises an alarm, so that an alarm in one view is an alarm; of equal
    ones, and where none raises one, the one with the highest score of a label that does not mean "nothing"; of equal
    ones the first.

    Args:
        scores: (..., views, labels).
        labels: their names.
        alarm: those that raise an alarm.
        nothing: those that mean "nothing".

    Returns:
        Numbers of views, (...).
    """
    raising = _highest(scores, [i for i, label in enumerate(labels) if label in alarm])
    something = _highest(scores, [i for i, label in enumerate(labels) if label not in nothing])
    return np.asarray(np.where(raising == raising.max(-1, keepdims=True), something, -np.inf).argmax(-1), np.intp)


def _highest(scores: npt.NDArray[np.floating], among: Sequence[int]) -> npt.NDArray[np.floating]:
    return np.asarray(scores[..., among].max(-1) if among else np.zeros(scores.shape[:-1]))

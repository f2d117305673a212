"""Runs one frame through several models and views: the same steps for `classify`, `evaluate` and the daemon.

Training uses the same rule for which view decides: `deciding_views`.
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


class Prediction(NamedTuple):
    """The prediction of one model for one frame.

    Attributes:
        results: one result per head, from the view that decides (see `deciding_views`).
        by_view: the results of every view, one per head.
        tensor: (1, size, size, 3) uint8 RGB, the view that decided for the first head; valid until the next frame.
        invoke_ns: time of the inferences, in ns.
        answer_ns: time to read their outputs, in ns.
    """

    results: list[Result]
    by_view: list[list[Result]]
    tensor: Pixels
    invoke_ns: int
    answer_ns: int


def predict(
    classifiers: Sequence[Classifier],
    frame: Pixels,
    order: Order = "BGR",
    region: Region | None = None,
    views: Sequence[View] = CENTER,
    moving: Region | None = None,
) -> tuple[list[Prediction], int]:
    """Run a frame through every model: one crop and resize per view and input size, one inference per view and model.

    Args:
        classifiers: any number.
        frame: (H, W, 3) uint8.
        order: channel order of the frame.
        region: a rectangle to classify instead of the whole frame.
        views: which squares of it. A frame that is not wider than high has no left and right, only the centre, which is
            classified once.
        moving: the view "moving", a square of the frame; None: it is the centre, which is classified once.

    Returns:
        A prediction for each classifier, and the time of crop and resize, which they share, in ns.

    Raises:
        ConfigurationError: see `preprocess.square_of`.
    """
    if views is not CENTER:
        views = views_of(frame, region, views)
        if moving is None and "moving" in views:
            views = tuple(dict.fromkeys("center" if view == "moving" else view for view in views))
    several = len(views) > 1
    preprocess_ns = 0
    invoke_ns, answer_ns = [0] * len(classifiers), [0] * len(classifiers)
    results: list[list[list[Result]]] = [[] for _ in classifiers]  # by model, view, head
    inputs: list[list[Pixels]] = [[] for _ in classifiers]  # by model, view
    for view in views:
        start = perf_counter_ns()
        if view == "moving":
            tensors = preprocess_all(classifiers, frame, order, moving)
        else:
            tensors = preprocess_all(classifiers, frame, order, region, view)
        now = perf_counter_ns()
        preprocess_ns += now - start
        for i, classifier in enumerate(classifiers):
            start = now
            outputs = classifier.invoke(tensors[i])
            now = perf_counter_ns()
            invoke_ns[i] += now - start
            start = now
            results[i].append(classifier.answer(outputs, view))
            # The next view overwrites the tensor.
            inputs[i].append(tensors[i].copy() if several else tensors[i])
            now = perf_counter_ns()
            answer_ns[i] += now - start
    predictions = []
    for i, classifier in enumerate(classifiers):
        best = [deciding_view(head, [by_head[h] for by_head in results[i]]) for h, head in enumerate(classifier.heads)]
        decided = [results[i][view_number][h] for h, view_number in enumerate(best)]
        predictions.append(Prediction(decided, results[i], inputs[i][best[0]], invoke_ns[i], answer_ns[i]))
    return predictions, preprocess_ns


def deciding_view(head: Head, results: Sequence[Result]) -> int:
    """The number of the view whose result is a head's result for the frame (see `deciding_views`).

    That result is taken as a whole: its scores still add up to one.
    """
    if len(results) == 1:
        return 0
    scores = np.array([[result.scores[label] for label in head.labels] for result in results])
    return int(deciding_views(scores, head.labels, head.alarm, head.nothing))


def deciding_views(
    scores: npt.NDArray[np.floating], labels: Sequence[str], alarm: Sequence[str], nothing: Sequence[str]
) -> npt.NDArray[np.intp]:
    """The view that decides, for any number of frames.

    It is the one with the highest score of an alarm label, so that an alarm in one view is an alarm. Ties, and heads
    without alarm labels, are decided by the highest score of a label that does not mean "nothing", then by the order.

    Args:
        scores: (..., views, labels).
        labels: names of the labels.
        alarm: labels that raise an alarm.
        nothing: labels that mean "nothing".

    Returns:
        Numbers of views, (...).
    """
    raising = _highest(scores, [i for i, label in enumerate(labels) if label in alarm])
    something = _highest(scores, [i for i, label in enumerate(labels) if label not in nothing])
    return np.asarray(np.where(raising == raising.max(-1, keepdims=True), something, -np.inf).argmax(-1), np.intp)


def _highest(scores: npt.NDArray[np.floating], labels: Sequence[int]) -> npt.NDArray[np.floating]:
    return np.asarray(scores[..., labels].max(-1) if labels else np.zeros(scores.shape[:-1]))

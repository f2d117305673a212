"""About how long a training will take: a few forward passes measured on this machine, times the work that is ahead."""

from __future__ import annotations

import time
from typing import NamedTuple

import keras
import numpy as np

from bittern.model.preprocess import CENTER
from bittern_convert import copies
from bittern_convert.task import Task
from bittern_train import stream_fold
from bittern_train.network import Floats, Network, compiled, scale
from bittern_train.pool import CORRUPTED, Decoded

# Pictures that are measured.
_PICTURES = 32
# A step of training costs about three forward passes: one forward, and two for the gradients.
_STEP = 3
# Keras traces once for all fits: features of the head, the head, the step of training, the validation. That and what
# every fit costs besides (its head's many small steps above all) in traces of the tail's forward pass, as measured with
# the default cut on 64 samples: 5 s, 3.2 s and 0.38 s.
_GRAPHS, _OVERHEAD = 13, 8


class Costs(NamedTuple):
    """Seconds on this machine.

    Attributes:
        copy: to draw one copy.
        body: one picture through the frozen body.
        tail: one picture's features through the tail.
        graph: to trace the tail's graph once.
    """

    copy: float
    body: float
    tail: float
    graph: float


def measure(task: Task, network: Network, decoded: Decoded, seed: int) -> Costs:
    """Draw a copy of a few pictures, and run them through the network."""
    number = min(1, task.augment.copies - 1)
    spread = np.linspace(0, len(decoded.samples) - 1, min(_PICTURES, len(decoded.samples))).astype(int)
    start = time.perf_counter()
    drawn = copies.draw(task, [decoded.samples[i] for i in spread], decoded.photos.some(spread), seed, [number])
    tensors = scale(np.concatenate(list(drawn)))
    copy_s = (time.perf_counter() - start) / len(spread)
    features, _, body_s = _timed(network.body, tensors)
    _, graph_s, tail_s = _timed(network.tail, features)
    return Costs(copy_s, body_s / len(spread), tail_s / len(spread), graph_s)


def _timed(model: keras.Model, inputs: Floats) -> tuple[Floats, float, float]:
    """The model's outputs, seconds to trace its graph, and seconds of a forward pass."""
    forward = compiled(model)
    start = time.perf_counter()
    forward(inputs)
    traced = time.perf_counter()
    outputs = forward(inputs).numpy()
    end = time.perf_counter()
    return outputs, max(0.0, traced - start - (end - traced)), end - traced


def seconds(task: Task, decoded: Decoded, costs: Costs) -> float:
    """How long the training of a task takes if no fit of the k-fold stops early.

    Args:
        task: with its recipe.
        decoded: the pictures that are trained on.
        costs: of this machine.
    """
    recipe, views = task.recipe, len(task.views)
    samples, choosing = len(decoded.samples), sum(s.chooses for s in decoded.samples)
    corrupted = choosing * CORRUPTED * views
    plain = choosing * views if task.views != CENTER else 0
    once = (samples * task.augment.copies + corrupted + plain) * (costs.copy + costs.body)
    validated = choosing * (1 + CORRUPTED) * views / recipe.folds
    trained = samples - choosing if recipe.folds == 1 else samples * (1 - 1 / recipe.folds)
    filmed = stream_fold.frames(task, choosing)
    once += filmed * (costs.copy + costs.body + len(task.rates) * costs.tail)
    once += _GRAPHS * costs.graph
    folds = recipe.folds * sum(_fit(costs, trained, recipe.epochs * (rate > 0), validated) for rate in task.rates)
    if recipe.folds == 1:
        return once + folds
    if max(task.rates) > 0:
        return once + folds + recipe.soup * _fit(costs, samples, recipe.epochs, 0)
    return once + folds + _fit(costs, samples, 0, 0)


def _fit(costs: Costs, trained: float, epochs: int, validated: float) -> float:
    head = _OVERHEAD * costs.graph + 2 * trained * costs.tail
    return head + (epochs + 1) * validated * costs.tail + epochs * trained * _STEP * costs.tail

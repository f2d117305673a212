"""Turns the raw output of a network into scores, 0 to 1.

The rules: "as-is", the values are scores; "softmax", exp(v) over the sum of exp(v), which adds up to one; "sigmoid",
1 / (1 + exp(-v)), each label by itself. A single value p, of whichever rule, is the score of the second of two labels;
the first one has 1 - p.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import UnsetType

from bittern.errors import BitternError
from bittern.model.manifest import Head
from bittern.stated import ScoreRule

Raw = npt.NDArray[Any]
# What rounding may add to a score of float32.
_ROUNDING = 1e-3


class NoScore(BitternError):
    """A network gave a value that is none of its scores."""


def rule_of(head: Head) -> ScoreRule:
    """How the outputs of a head become scores."""
    return "as-is" if isinstance(head.scores_by, UnsetType) else head.scores_by


def step(head: Head) -> float:
    """The smallest difference of two scores; that of int8, 1/256, where they are finer."""
    return head.scale if head.dtype != "float32" and rule_of(head) == "as-is" else 1 / 256


def highest(head: Head) -> float:
    """The highest score that the output can express."""
    if head.dtype == "float32" or rule_of(head) != "as-is":
        return 1.0
    return min(1.0, head.scale * (int(np.iinfo(head.dtype).max) - head.zero_point))


def reader(head: Head) -> Callable[[Raw], list[float]]:
    """A function that turns a raw output, (values,), into the scores of the head's labels; it may raise `NoScore`."""
    rule = rule_of(head)
    if head.dtype == "float32":
        if rule == "as-is":
            return lambda raw: _pair(_checked(raw.tolist()))
        return lambda raw: _pair(_apply(rule, raw.astype(np.float64)))
    limits = np.iinfo(head.dtype)
    # For each output in the order of a Python list, where the index -1 is the last one.
    values = [head.scale * (q - head.zero_point) for q in (*range(limits.max + 1), *range(limits.min, 0))]
    if rule == "softmax":
        real = np.array(values)
        return lambda raw: _pair(_apply("softmax", real[raw]))
    values = [_sigmoid(value) if rule == "sigmoid" else min(1.0, max(0.0, value)) for value in values]
    return lambda raw: _pair([values[q] for q in raw.tolist()])


def _pair(scores: list[float]) -> list[float]:
    return scores if len(scores) > 1 else [1.0 - scores[0], scores[0]]


def _checked(scores: list[float]) -> list[float]:
    for score in scores:
        if not -_ROUNDING <= score <= 1 + _ROUNDING:  # nor if it is none at all
            raise NoScore(f"gave {score:.6g}, which is no score from 0 to 1")
    return [min(1.0, max(0.0, score)) for score in scores]


def _apply(rule: ScoreRule, values: npt.NDArray[np.float64]) -> list[float]:
    if not np.isfinite(values).all():
        raise NoScore(f"gave {values[~np.isfinite(values)][0]:g}, which is no number")
    if rule == "softmax":
        powers = np.exp(values - values.max())
        return (powers / powers.sum()).tolist()  # type: ignore[no-any-return]
    return [_sigmoid(value) for value in values.tolist()]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0

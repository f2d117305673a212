"""The parity check: float against int8 on pictures that are in neither calibration nor a test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.evaluation.metrics import paired_loss_interval, wilson

# What a model needs to pass: the same answer on this share of at least this many pictures, and no accuracy loss that is
# larger than a point and whose interval excludes zero.
AGREEMENT = 0.98
PICTURES = 1000
# Photographs that are compared at most, beside the copies: the interval of the agreement is 0.4 points wide then.
MOST = 5000
LOSS = 0.01


class Outcome(msgspec.Struct, frozen=True):
    """The result of the parity check.

    Attributes:
        n: number of pictures.
        kinds: number of pictures of each kind.
        same: number of pictures with the same answer from both.
        agreement: same / n.
        agreement_ci95: Wilson interval.
        float_accuracy: share of correct answers of the float parent.
        int8_accuracy: share of correct answers of the int8 model.
        loss: accuracy of float minus accuracy of int8, paired.
        loss_ci95: see `metrics.paired_loss_interval`.
        largest_score_change: largest difference of a score, 0 to 1.
        passed: whether the model may be packaged.
        reason: why not; empty if it may.
        flipped: indices of the pictures whose answer changed.
    """

    n: int
    kinds: dict[str, int]
    same: int
    agreement: float
    agreement_ci95: tuple[float, float]
    float_accuracy: float
    int8_accuracy: float
    loss: float
    loss_ci95: tuple[float, float]
    largest_score_change: float
    passed: bool
    reason: str
    flipped: list[int]


class Pair(NamedTuple):
    """Scores (n, labels) of both networks on the same pictures, and the labels' indices (n,)."""

    parent: npt.NDArray[np.float32]
    int8: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]


def judge(pair: Pair, kinds: Sequence[str]) -> Outcome:
    """Compare the answers of the float parent with those of the int8 model.

    Args:
        pair: scores of both, of at least one picture.
        kinds: (n,) kind of each picture.
    """
    n = len(pair.targets)
    answers = pair.parent.argmax(1), pair.int8.argmax(1)
    same = answers[0] == answers[1]
    correct = answers[0] == pair.targets, answers[1] == pair.targets
    lost, won = int((correct[0] & ~correct[1]).sum()), int((~correct[0] & correct[1]).sum())
    loss, interval = (lost - won) / n, paired_loss_interval(lost, won, n)
    reasons = []
    if n < PICTURES:
        reasons.append(f"{n} pictures are too few, at least {PICTURES} are needed")
    if same.mean() < AGREEMENT:
        reasons.append(
            f"the answer is the same on {same.mean():.2%} of {n} pictures, at least {AGREEMENT:.0%} is needed"
        )
    if loss > LOSS and interval[0] > 0:
        reasons.append(
            f"int8 loses {100 * loss:.2f} points of accuracy (95 % interval {100 * interval[0]:.2f} to "
            f"{100 * interval[1]:.2f}), at most {100 * LOSS:.0f} is allowed"
        )
    return Outcome(
        n=n,
        kinds={k: list(kinds).count(k) for k in sorted(set(kinds))},
        same=int(same.sum()),
        agreement=float(same.mean()),
        agreement_ci95=wilson(int(same.sum()), n),
        float_accuracy=float(correct[0].mean()),
        int8_accuracy=float(correct[1].mean()),
        loss=loss,
        loss_ci95=interval,
        largest_score_change=float(np.abs(pair.parent - pair.int8).max()),
        passed=not reasons,
        reason="; ".join(reasons),
        flipped=[int(i) for i in np.flatnonzero(~same)],
    )

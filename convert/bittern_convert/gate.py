"""The gate: float against int8 on pictures that neither calibration nor a test split has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.evaluation.metrics import paired_loss_interval, wilson

# What is asked for: the same answer on this share of at least so many pictures, and no accuracy loss that is both
# larger than a point and told from zero by its interval.
AGREEMENT = 0.98
PICTURES = 1000
LOSS = 0.01


class Outcome(msgspec.Struct, frozen=True):
    """What the gate found.

    Attributes:
        n: pictures, by kind.
        same: with the same answer from both.
        loss: accuracy of float minus accuracy of int8, paired.
        loss_ci95: its interval.
        passed: whether the model may be packaged.
        reason: why not, else empty.
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
    """Compare the answers of the float parent with those of the int8 model."""
    n = len(pair.targets)
    answers = pair.parent.argmax(1), pair.int8.argmax(1)
    same = answers[0] == answers[1]
    right = answers[0] == pair.targets, answers[1] == pair.targets
    lost, won = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    loss, interval = (lost - won) / n, paired_loss_interval(lost, won, n)
    reasons = []
    if n < PICTURES:
        reasons.append(f"{n} pictures are too few, {PICTURES} are needed")
    if same.mean() < AGREEMENT:
        reasons.append(f"the answer is the same on {same.mean():.2%} of {n} pictures, {AGREEMENT:.0%} are needed")
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
        float_accuracy=float(right[0].mean()),
        int8_accuracy=float(right[1].mean()),
        loss=loss,
        loss_ci95=interval,
        largest_score_change=float(np.abs(pair.parent - pair.int8).max()),
        passed=not reasons,
        reason="; ".join(reasons),
        flipped=[int(i) for i in np.flatnonzero(~same)],
    )

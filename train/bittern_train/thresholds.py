"""Alarm thresholds, chosen on out-of-fold scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bittern.model.manifest import Threshold

# What "quiet" allows among pictures without the alarm label.
QUIET_FALSE_ALARMS = 0.005
# What "default" allows among pictures of nothing at all: a camera sees little else, day and night.
NOTHING_FALSE_ALARMS = 0.005
# What "sensitive" finds of the pictures with the alarm label.
SENSITIVE_RECALL = 0.99
# An alarm may end below this part of the score that started it.
_OFF = 0.6


def choose(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], nothing: npt.NDArray[np.bool_] | None = None
) -> dict[str, Threshold]:
    """Thresholds "default", "quiet" and "sensitive" for one score.

    Args:
        scores: (n,) out-of-fold scores of the alarm, 0 to 1.
        positive: (n,) whether the picture has it.
        nothing: (n,) whether the picture shows nothing that the model knows; None where that is not a label of its own.

    Returns:
        "default" has the highest balanced accuracy (the middle of the best range) of those with at most
        NOTHING_FALSE_ALARMS alarms among the pictures of nothing, "quiet" is the lowest one from there on with at most
        QUIET_FALSE_ALARMS false alarms, "sensitive" the highest one up to there that finds SENSITIVE_RECALL of the
        positive.
    """
    steps = np.arange(1, 256) / 256  # what an int8 score can be
    recall = np.array([(scores[positive] >= s).mean() for s in steps])
    false = np.array([(scores[~positive] >= s).mean() for s in steps])
    balanced = (recall + 1 - false) / 2
    criterion = "balanced accuracy"
    if nothing is not None and nothing.any():
        empty = np.array([(scores[nothing] >= s).mean() for s in steps])
        balanced[:-1][empty[:-1] > NOTHING_FALSE_ALARMS] = -1  # one step has to stay
        criterion += f" with at most {NOTHING_FALSE_ALARMS:.1%} alarms from nothing"
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    silent, finding = np.flatnonzero(false <= QUIET_FALSE_ALARMS), np.flatnonzero(recall >= SENSITIVE_RECALL)
    middle = int(best[len(best) // 2])
    # Where no step is good enough, the last one comes nearest; `chosen_for` says what it really gives. A "quiet" that
    # raises more alarms than "default" would be a trap, even where both keep their promises.
    quiet = max(middle, int(silent[0]) if len(silent) else len(steps) - 1)
    sensitive = min(middle, int(finding[-1]) if len(finding) else 0)
    picks = {
        "default": (middle, criterion),
        "quiet": (quiet, f"at most {QUIET_FALSE_ALARMS:.1%} false alarms"),
        "sensitive": (sensitive, f"{SENSITIVE_RECALL:.0%} of the alarms found"),
    }
    n, m = int(positive.sum()), int((~positive).sum())
    return {
        name: Threshold(
            on=float(steps[i]),
            off=float(round(steps[i] * _OFF * 256) / 256),
            chosen_for=f"{why}, out of fold: {recall[i]:.1%} of {n} found, {false[i]:.1%} false alarms of {m}",
        )
        for name, (i, why) in picks.items()
    }

"""The learning curves of a run's own pictures, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bittern_train import learning_curve
from bittern_train.learning_curve import Curve, Forecast
from bittern_train.run_figures import RunAnswers

# Pictures of which curves are made: a fit takes time with the third power. Labels that have curves of their own.
_MOST, _LABELS = 1200, 6
# Pictures of the rarest label and folds without which a curve would say nothing.
_LEAST = 12


def parts(judged: RunAnswers) -> int:
    """How many curves there are at most; 1 where there are none."""
    return 1 + (len(judged.made.task.labels) if len(judged.made.task.labels) <= _LABELS else 0)


def forecasts(
    judged: RunAnswers, more: int, progress: Callable[[int], None] = lambda _: None
) -> list[tuple[Curve, Forecast]]:
    """A curve and a forecast of all pictures, then of each label; none where there are too few pictures.

    None either of a network that started from nothing: the features that a run keeps are those of the start; nor of a
    run with one fold.

    Args:
        judged: the pictures of a run.
        more: how many more pictures.
        progress: called with the number of curves that are done.
    """
    if judged.made.task.backbone.mode == "scratch" or judged.made.task.recipe.folds == 1:
        return []
    chosen = np.arange(len(judged.rows))
    if len(chosen) > _MOST:
        chosen = np.sort(np.random.default_rng(judged.made.seed).permutation(len(chosen))[:_MOST])
    rows = judged.rows[chosen]
    targets = judged.targets[rows]
    counts = np.bincount(targets, minlength=len(judged.made.task.labels))
    if counts.min(initial=_LEAST) < _LEAST:
        return []
    groups = judged.groups
    curves = learning_curve.measure(
        judged.features[chosen],
        targets,
        [groups[i] for i in rows],
        judged.folds[rows],
        judged.made.task.labels,
        seed=judged.made.seed,
        by_label=len(judged.made.task.labels) <= _LABELS,
        progress=progress,
    )
    return [(curve, learning_curve.forecast(curve, more)) for curve in curves]

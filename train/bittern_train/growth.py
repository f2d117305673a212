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


def parts(of: RunAnswers) -> int:
    """How many curves there are; 1 where there are none."""
    return 1 + (len(of.made.task.labels) if len(of.made.task.labels) <= _LABELS else 0)


def forecasts(
    of: RunAnswers, more: int, progress: Callable[[int], None] = lambda _: None
) -> list[tuple[Curve, Forecast]]:
    """A curve and a forecast of all pictures, then of each label; none where there are too few pictures.

    Args:
        of: the pictures of a run.
        more: how many more pictures.
        progress: called with the number of curves that are done.
    """
    chosen = np.arange(len(of.rows))
    if len(chosen) > _MOST:
        chosen = np.sort(np.random.default_rng(of.made.seed).permutation(len(chosen))[:_MOST])
    rows = of.rows[chosen]
    targets = of.targets[rows]
    counts = np.bincount(targets, minlength=len(of.made.task.labels))
    if counts.min(initial=_LEAST) < _LEAST:
        return []
    groups = of.groups
    curves = learning_curve.measure(
        of.features[chosen],
        targets,
        [groups[i] for i in rows],
        of.folds[rows],
        of.made.task.labels,
        seed=of.made.seed,
        by_label=len(of.made.task.labels) <= _LABELS,
        progress=progress,
    )
    return [(curve, learning_curve.forecast(curve, more)) for curve in curves]

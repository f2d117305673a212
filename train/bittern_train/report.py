"""Plots of a run: learning curves of the folds, and the out-of-fold confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bittern.system import fileio
from bittern_train.training import Choice

# Labels above which a confusion matrix is drawn smaller.
MANY = 12


def curves(file: Path, choices: Sequence[Choice]) -> None:
    """Validation loss and accuracy over the epochs: a line for every fold, a colour for every candidate."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for number, choice in enumerate(choices):
        colour = f"C{number % 10}"
        for k, fold in enumerate(choice.folds):
            epochs = [row["epoch"] for row in fold.history]
            label = f"rate {choice.candidate.rate:g}" if k == 0 else None
            for axis, key in zip((*axes, axes[1]), ("val_loss", "val_accuracy", "harmed_accuracy"), strict=True):
                values = [row[key] for row in fold.history]
                # Epoch 0 is the head alone; a candidate that trains no more is that one point.
                style = "--" if key == "harmed_accuracy" else "-"
                axis.plot(epochs, values, style, color=colour, alpha=0.8, marker="o", markersize=3, label=label)
                kept = fold.at(choice.epochs)
                axis.plot(kept, values[kept], marker="o", color=colour, markersize=8, fillstyle="none")
    axes[0].set(xlabel="epoch", ylabel="cross-entropy, as they are and corrupted", title="validation, by fold")
    axes[1].set(xlabel="epoch", ylabel="balanced accuracy", title="dashed: corrupted; ring: the epoch kept")
    axes[0].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    _save(figure, file)


def confusion(
    file: Path, labels: Sequence[str], targets: npt.NDArray[np.int64], answers: npt.NDArray[np.int64]
) -> None:
    """Out-of-fold confusion matrix: counts, coloured by the share of the true label."""
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (targets, answers), 1)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    many = len(labels) > MANY
    side = max(4.0, (0.4 if many else 1.2) * len(labels) + (4.0 if many else 1.5))
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if many and not count:
            continue  # a page of noughts hides the mistakes
        axis.text(
            column, row, str(count), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black"
        )
    axis.set_xticks(range(len(labels)), labels, rotation=90 if many else 0)
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="answered", ylabel="true", title=f"out of fold, n = {counts.sum()}")
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    FigureCanvasAgg(figure)
    with fileio.atomic(file) as opened:
        figure.savefig(opened, format="png", dpi=110)

"""Fine-tuning: candidates compared by grouped k-fold on cached features, then one fit on everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from bittern_train.network import Floats, Network
from bittern_train.pool import Sample
from bittern_train.task import Recipe, Task

# The head alone: so many epochs, or more where the pictures are few.
HEAD_EPOCHS = 20
HEAD_STEPS = 400
_HEAD_BATCH = 128
# Of the moving average over the weights of the last steps, which is what is kept.
EMA = 0.98

# (what, done, of)
Progress = Callable[[str, int, int], None]


class Candidate(NamedTuple):
    """One combination of the recipe's lists."""

    rate: float


class Fold(NamedTuple):
    """One fit of the k-fold.

    Attributes:
        history: a row an epoch: epoch, loss, val_loss, val_accuracy. Epoch 0 is the head alone.
        scores: after each epoch, (validated samples, labels); fewer epochs than asked for if it stopped early.
    """

    history: list[dict[str, float]]
    scores: list[Floats]

    def at(self, epoch: int) -> int:
        """The epoch itself, or the last one before it that was trained."""
        return min(epoch, len(self.scores) - 1)


class Choice(NamedTuple):
    """What the k-fold says of one candidate.

    Attributes:
        loss: cross-entropy of the out-of-fold scores (`balanced_loss`) after `epochs`.
        epochs: one number for all folds, the one with the lowest loss; so long the final fit runs.
        scores: out-of-fold scores after `epochs` of every sample that chooses, (n, labels), in the order of the pool.
    """

    candidate: Candidate
    loss: float
    epochs: int
    scores: Floats
    folds: list[Fold]


class Cache(NamedTuple):
    """What the frozen body makes of the pool, (samples, copies, h, w, channels), and the labels' indices (n,)."""

    features: npt.NDArray[np.float16]
    targets: npt.NDArray[np.int64]


def candidates(recipe: Recipe) -> list[Candidate]:
    """Every combination of the recipe's lists."""
    return [Candidate(*values) for values in itertools.product(recipe.rate)]


def cross_validate(
    task: Task, network: Network, pool: Sequence[Sample], cache: Cache, seed: int, progress: Progress
) -> list[Choice]:
    """Every candidate by grouped k-fold over the samples that choose; best first.

    In a fold, no sample is trained on whose group is validated, drawn and extra ones included.
    """
    recipe = task.recipe
    choosing = np.flatnonzero([s.chooses for s in pool])
    groups = np.array([s.item.group for s in pool])
    splitter = StratifiedGroupKFold(recipe.folds, shuffle=True, random_state=seed)
    targets = cache.targets[choosing]
    splits = list(splitter.split(choosing, targets, groups[choosing]))
    cost = _costs(task)
    found = []
    of = len(candidates(recipe)) * recipe.folds * recipe.epochs
    for number, candidate in enumerate(candidates(recipe)):
        folds = []
        for k, (_, held) in enumerate(splits):
            validated = choosing[held]
            trained = np.flatnonzero(~np.isin(groups, groups[validated]))
            done = (number * recipe.folds + k) * recipe.epochs
            folds.append(
                _fit(
                    task, network, cache, candidate, trained, validated, recipe.epochs, seed + k,
                    lambda epoch, done=done: progress("cross-validation", done + epoch, of),  # type: ignore[misc]
                )[1]
            )  # fmt: skip
        # One length for all folds: a length of its own for each would be chosen on what it is then judged by. A
        # candidate that fine-tunes does so for an epoch at least, or it would be the candidate that does not.
        lengths = range(1, max(len(f.scores) for f in folds)) if candidate.rate > 0 else range(1)
        tried = []
        for epochs in lengths:
            scores = np.zeros((len(choosing), len(task.labels)), np.float32)
            for (_, held), fold in zip(splits, folds, strict=True):
                scores[held] = fold.scores[fold.at(epochs)]
            tried.append(Choice(candidate, balanced_loss(scores, targets, cost), epochs, scores, folds))
        found.append(min(tried, key=lambda c: c.loss))
    progress("cross-validation", of, of)
    return sorted(found, key=lambda c: c.loss)


def fit(
    task: Task,
    network: Network,
    pool: Sequence[Sample],
    cache: Cache,
    choice: Choice,
    seed: int,
    progress: Callable[[int, int], None],
) -> tuple[keras.Model, Fold]:
    """The final fit on train and val, for as many epochs as the folds say."""
    trained = np.arange(len(pool))
    head, fold = _fit(
        task, network, cache, choice.candidate, trained, trained[:0], choice.epochs, seed,
        lambda epoch: progress(epoch, max(1, choice.epochs)),
    )  # fmt: skip
    return network.classifier(head), fold


def balanced_loss(scores: Floats, targets: npt.NDArray[np.int64], cost: npt.NDArray[np.float64]) -> float:
    """Mean cross-entropy in nats; every label counts alike, times what an error on it costs.

    Args:
        scores: (n, labels).
        targets: (n,) indices of the labels.
        cost: (labels,).
    """
    own = np.clip(scores[np.arange(len(targets)), targets], 1e-6, 1)
    there = np.unique(targets)
    return float(np.average([-np.log(own[targets == t]).mean() for t in there], weights=cost[there]))


def _costs(task: Task) -> npt.NDArray[np.float64]:
    return np.array([task.recipe.cost.get(label, 1.0) for label in task.labels])


def _fit(
    task: Task,
    network: Network,
    cache: Cache,
    candidate: Candidate,
    trained: npt.NDArray[np.intp],
    validated: npt.NDArray[np.intp],
    epochs: int,
    seed: int,
    progress: Callable[[int], None],
) -> tuple[keras.layers.Dense, Fold]:
    recipe = task.recipe
    keras.utils.set_random_seed(seed)
    network.reset()
    labels = len(task.labels)
    targets = cache.targets
    counts = np.bincount(targets[trained], minlength=labels)
    cost = _costs(task)
    weights = (cost * len(trained) / (labels * counts))[targets[trained]].astype(np.float32)
    wanted = keras.utils.to_categorical(targets, labels)

    head = keras.layers.Dense(labels, activation="softmax", name="scores")
    _fit_head(network, head, cache, trained, wanted, weights, recipe)
    model = keras.Sequential([network.tail, keras.layers.Dropout(recipe.dropout, seed=seed), head])
    model.build((None, *cache.features.shape[2:]))
    held = cache.features[validated, 0].astype(np.float32)

    def score() -> Floats:
        return np.asarray(model.predict(held, batch_size=128, verbose=0), np.float32)

    def row(epoch: int, loss: float, scores: Floats) -> dict[str, float]:
        if not len(validated):
            return {"epoch": epoch, "loss": loss}
        return {
            "epoch": epoch,
            "loss": loss,
            "val_loss": balanced_loss(scores, targets[validated], cost),
            "val_accuracy": float((scores.argmax(1) == targets[validated]).mean()),
        }

    found = [score() if len(validated) else np.zeros((0, labels), np.float32)]
    history = [row(0, float("nan"), found[0])]
    if candidate.rate > 0 and epochs > 0:
        batches = _Batches(cache, trained, wanted, weights, recipe.batch, seed)
        # As long as the recipe says, also when the final fit stops earlier: so it was in the folds.
        schedule = keras.optimizers.schedules.CosineDecay(candidate.rate, recipe.epochs * len(batches), alpha=0.02)
        model.compile(
            keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=EMA),
            keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            jit_compile=False,  # XLA's convolutions are ten times slower than oneDNN's on a CPU
        )

        def after(epoch: int, loss: float) -> bool:
            """Whether to stop: no better validation loss for as many epochs as the recipe's patience."""
            progress(epoch)
            if not len(validated):
                history.append(row(epoch, loss, found[0]))
                return False
            found.append(score())
            history.append(row(epoch, loss, found[-1]))
            losses = [r["val_loss"] for r in history]
            return epoch - int(np.argmin(losses)) >= recipe.patience

        # The averaged weights are swapped in at the end of an epoch, then `after` looks at them.
        model.fit(batches, epochs=epochs, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(True), _After(after)])
    return head, Fold(history, found)


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of cached features; every epoch sees the next copy of each picture, in another order."""

    def __init__(
        self,
        cache: Cache,
        trained: npt.NDArray[np.intp],
        wanted: Floats,
        weights: Floats,
        size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._cache, self._trained, self._wanted, self._weights, self._size = cache, trained, wanted, weights, size
        self._rng = np.random.default_rng(seed)
        self._epoch = 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._trained) // self._size)

    def __getitem__(self, number: int) -> tuple[Floats, Floats, Floats]:
        rows = self._order[number * self._size : (number + 1) * self._size]
        samples = self._trained[rows]
        copy = self._epoch % self._cache.features.shape[1]
        return self._cache.features[samples, copy].astype(np.float32), self._wanted[samples], self._weights[rows]

    def on_epoch_end(self) -> None:
        """The next copy, shuffled."""
        self._epoch += 1
        self._order = self._rng.permutation(len(self._trained))


class _After(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls `function(epoch, loss)` after every epoch, and stops the training when it says so."""

    def __init__(self, function: Callable[[int, float], bool]) -> None:
        super().__init__()
        self._function = function

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See the class."""
        if self._function(epoch + 1, (logs or {})["loss"]):
            self.model.stop_training = True


def _fit_head(
    network: Network,
    head: keras.layers.Dense,
    cache: Cache,
    trained: npt.NDArray[np.intp],
    wanted: Floats,
    weights: Floats,
    recipe: Recipe,
) -> None:
    # On pooled features of two copies: enough to start the fine-tuning from, and fast.
    parts: list[Any] = [
        network.tail.predict(cache.features[trained, c].astype(np.float32), batch_size=128, verbose=0)
        for c in range(min(2, cache.features.shape[1]))
    ]
    model = keras.Sequential([keras.layers.Dropout(recipe.dropout), head])
    model.compile(
        keras.optimizers.Adam(recipe.head_rate),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        jit_compile=False,
    )
    model.fit(
        np.concatenate(parts),
        np.concatenate([wanted[trained]] * len(parts)),
        sample_weight=np.concatenate([weights] * len(parts)),
        batch_size=_HEAD_BATCH,
        epochs=max(HEAD_EPOCHS, HEAD_STEPS // -(-len(trained) * len(parts) // _HEAD_BATCH)),
        verbose=0,
    )

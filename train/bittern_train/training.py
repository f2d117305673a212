"""Fine-tuning: candidates compared by grouped k-fold on pictures as they are and harmed, then one fit on everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from bittern_convert.task import Recipe, Task
from bittern_train import criteria
from bittern_train.network import Floats, Network
from bittern_train.pool import Sample

# The head alone: so many epochs, or more where the pictures are few.
HEAD_EPOCHS = 20
HEAD_STEPS = 400
_HEAD_BATCH = 128
# The rate grows over so many epochs: Adam's first steps, at full rate, undo what the start weights know.
WARM_UP_EPOCHS = 2
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
        history: a row an epoch: epoch, loss, and of the validated samples val_loss (`criteria.judged_loss`),
            val_accuracy and harmed_accuracy (`criteria.balanced_accuracy`). Epoch 0 is the head alone.
        scores: after each epoch, (validated samples, versions, labels); fewer epochs than asked for if it stopped
            early.
    """

    history: list[dict[str, float]]
    scores: list[Floats]

    def at(self, epoch: int) -> int:
        """The epoch itself, or the last one before it that was trained."""
        return min(epoch, len(self.scores) - 1)


class Choice(NamedTuple):
    """What the k-fold says of one candidate.

    Attributes:
        accuracy: out of fold, of the pictures as they are (`criteria.balanced_accuracy`).
        harmed_accuracy: the same of the harmed ones, the mean over all of them.
        loss: of the out-of-fold scores (`criteria.judged_loss`) after `epochs`.
        epochs: one number for all folds, the one with the lowest loss; so long the final fit runs.
        scores: out-of-fold scores after `epochs` of every sample that chooses, (n, versions, labels), in the order of
            the pool; version 0 is the picture as it is, the others are harmed.
    """

    candidate: Candidate
    accuracy: float
    harmed_accuracy: float
    loss: float
    epochs: int
    scores: Floats
    folds: list[Fold]


class Cache(NamedTuple):
    """What the frozen body makes of the pool.

    Attributes:
        features: (samples, copies, h, w, channels), of the centred square and beside it.
        judged: of the samples that choose, in their order, what the task's views see of each version, (n, versions,
            views, h, w, channels); version 0 is the picture as it is, the others are harmed.
        targets: the labels' indices (samples,).
    """

    features: npt.NDArray[np.float16]
    judged: npt.NDArray[np.float16]
    targets: npt.NDArray[np.int64]


def candidates(recipe: Recipe) -> list[Candidate]:
    """Every combination of the recipe's lists."""
    return [Candidate(*values) for values in itertools.product(recipe.rate)]


def cross_validate(
    task: Task, network: Network, pool: Sequence[Sample], cache: Cache, seed: int, progress: Progress
) -> list[Choice]:
    """Every candidate by grouped k-fold over the samples that choose; best first.

    The best has the highest mean of two accuracies: of pictures as they are, and harmed as a camera may. In a fold, no
    sample is trained on whose group is validated, drawn and extra ones included.
    """
    recipe = task.recipe
    choosing = np.flatnonzero([s.chooses for s in pool])
    groups = np.array([s.item.group for s in pool])
    splitter = StratifiedGroupKFold(recipe.folds, shuffle=True, random_state=seed)
    targets = cache.targets[choosing]
    splits = [held for _, held in splitter.split(choosing, targets, groups[choosing])]
    cost = criteria.costs(task)
    wanted = keras.utils.to_categorical(cache.targets, len(task.labels))
    found = []
    of = len(candidates(recipe)) * recipe.folds * recipe.epochs
    for number, candidate in enumerate(candidates(recipe)):
        folds = []
        for k, held in enumerate(splits):
            trained = np.flatnonzero(~np.isin(groups, groups[choosing[held]]))
            checked = Checked(cache.judged[held], targets[held], cost, task)
            done = (number * recipe.folds + k) * recipe.epochs
            folds.append(
                fit_once(
                    recipe, network, cache.features, wanted, criteria.weights(cache.targets, trained, cost),
                    candidate, trained, checked, recipe.epochs, seed + k,
                    lambda epoch, done=done: progress("cross-validation", done + epoch, of),  # type: ignore[misc]
                )[1]
            )  # fmt: skip
        # One length for all folds: a length of its own for each would be chosen on what it is then judged by. A
        # candidate that fine-tunes does so for an epoch at least, or it would be the candidate that does not.
        lengths = range(1, max(len(f.scores) for f in folds)) if candidate.rate > 0 else range(1)
        tried = []
        for epochs in lengths:
            scores = np.zeros((len(choosing), *folds[0].scores[0].shape[1:]), np.float32)
            for held, fold in zip(splits, folds, strict=True):
                scores[held] = fold.scores[fold.at(epochs)]
            accuracies = (
                criteria.balanced_accuracy(scores[:, :1], targets),
                criteria.balanced_accuracy(scores[:, 1:], targets),
            )
            tried.append(
                Choice(candidate, *accuracies, criteria.judged_loss(scores, targets, cost), epochs, scores, folds)
            )
        found.append(min(tried, key=lambda c: c.loss))
    progress("cross-validation", of, of)
    return sorted(found, key=lambda c: (-(c.accuracy + c.harmed_accuracy), c.loss))


def fit(
    task: Task,
    network: Network,
    pool: Sequence[Sample],
    cache: Cache,
    choice: Choice,
    seed: int,
    progress: Callable[[int, int], None],
) -> tuple[keras.Model, list[Fold]]:
    """The final fit on train and val, for as many epochs as the folds say.

    It is the average of the weights of several fits that differ in the order of pictures, dropout and noise (a uniform
    soup: Wortsman et al. 2022, "Model soups"). They start from the same weights, so they end in the same valley; the
    average is about as good as an ensemble of them, at the price of one.

    Returns:
        The whole network, and what each fit was like.
    """
    trained = np.arange(len(pool))
    wanted = keras.utils.to_categorical(cache.targets, len(task.labels))
    each = criteria.weights(cache.targets, trained, criteria.costs(task))
    # Heads alone differ by nothing that an average would mend.
    count = task.recipe.soup if choice.candidate.rate > 0 and choice.epochs > 0 else 1
    length = max(1, choice.epochs)
    folds, found = [], []
    for k in range(count):
        head, fold = fit_once(
            task.recipe, network, cache.features, wanted, each, choice.candidate, trained, None, choice.epochs,
            seed + k, lambda epoch, done=k * length: progress(done + epoch, count * length),  # type: ignore[misc]
        )  # fmt: skip
        folds.append(fold)
        found.append([*network.tail.get_weights(), *head.get_weights()])
    set_average(network, head, found)
    return network.classifier(head), folds


def set_average(network: Network, head: keras.layers.Dense, found: Sequence[Sequence[Floats]]) -> None:
    """Give tail and head the mean of several fits; each is the tail's weights, then the head's two."""
    average = [np.mean(values, axis=0, dtype=np.float64).astype(np.float32) for values in zip(*found, strict=True)]
    network.tail.set_weights(average[:-2])
    head.set_weights(average[-2:])


class Checked(NamedTuple):
    """What a fold is validated on.

    Attributes:
        features: (n, versions, views, h, w, channels).
        targets: (n,) the labels' indices.
        cost: (labels,).
        task: whose alarms say which view decides.
    """

    features: npt.NDArray[np.float16]
    targets: npt.NDArray[np.int64]
    cost: npt.NDArray[np.float64]
    task: Task


def fit_once(
    recipe: Recipe,
    network: Network,
    features: npt.NDArray[np.float16],
    wanted: Floats,
    weights: Floats,
    candidate: Candidate,
    trained: npt.NDArray[np.intp],
    checked: Checked | None,
    epochs: int,
    seed: int,
    progress: Callable[[int], None],
) -> tuple[keras.layers.Dense, Fold]:
    """One fit, from the weights that the network was built with.

    Args:
        recipe: of the task.
        network: its tail holds the result afterwards.
        features: (samples, copies, h, w, channels).
        wanted: the scores to learn, (samples, labels).
        weights: of the trained samples, (trained,).
        candidate: what the recipe leaves open.
        trained: numbers of the samples to train on.
        checked: what to look at after every epoch; None trains for all epochs.
        epochs: at most.
        seed: of order, dropout and noise.
        progress: called with the number of epochs done.

    Returns:
        The head, and the fold; without `checked` its history has no scores.
    """
    keras.utils.set_random_seed(seed)
    network.reset(seed)
    labels = wanted.shape[1]
    head = keras.layers.Dense(labels, activation="softmax", name="scores")
    _fit_head(network, head, features, trained, wanted, weights, recipe)
    model = keras.Sequential([network.tail, keras.layers.Dropout(recipe.dropout, seed=seed), head])
    model.build((None, *features.shape[2:]))
    fold = Fold([], [])

    def look(epoch: int, loss: float) -> None:
        row = {"epoch": epoch, "loss": loss}
        if checked is not None:
            scores = judged_scores(model, checked.features, checked.task)
            fold.scores.append(scores)
            row |= {
                "val_loss": criteria.judged_loss(scores, checked.targets, checked.cost),
                "val_accuracy": criteria.balanced_accuracy(scores[:, :1], checked.targets),
                "harmed_accuracy": criteria.balanced_accuracy(scores[:, 1:], checked.targets),
            }
        fold.history.append(row)

    look(0, float("nan"))
    if candidate.rate > 0 and epochs > 0:
        batches = _Batches(features, trained, wanted, weights, recipe.batch, seed)
        # As long as the recipe says, also when the final fit stops earlier: so it was in the folds.
        warm = min(WARM_UP_EPOCHS, recipe.epochs // 2)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, (recipe.epochs - warm) * len(batches), warmup_target=candidate.rate, warmup_steps=warm * len(batches)
        )
        model.compile(
            keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=EMA),
            keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            jit_compile=False,  # XLA's convolutions are ten times slower than oneDNN's on a CPU
        )

        def after(epoch: int, loss: float) -> bool:
            """Whether to stop: no better validation loss for as many epochs as the recipe's patience."""
            progress(epoch)
            look(epoch, loss)
            if checked is None:
                return False
            losses = [r["val_loss"] for r in fold.history]
            return epoch - int(np.argmin(losses)) >= recipe.patience

        # The averaged weights are swapped in at the end of an epoch, then `after` looks at them.
        model.fit(batches, epochs=epochs, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(True), _After(after)])
    return head, fold


def judged_scores(model: keras.Model, features: npt.NDArray[np.float16], task: Task) -> Floats:
    """What a network answers (n, versions, labels) to `Cache.judged` or a part of it."""
    shape = features.shape
    flat = features.reshape(-1, *shape[3:])
    # In parts: all of it as float32 would be gigabytes.
    predicted = [
        model.predict(flat[at : at + 512].astype(np.float32), batch_size=128, verbose=0)
        for at in range(0, len(flat), 512)
    ]
    return criteria.decided(np.concatenate(predicted).reshape(*shape[:3], len(task.labels)), task)


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of cached features; every epoch sees the next copy of each picture, in another order."""

    def __init__(
        self,
        features: npt.NDArray[np.float16],
        trained: npt.NDArray[np.intp],
        wanted: Floats,
        weights: Floats,
        size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._features, self._trained, self._wanted, self._weights, self._size = (
            features,
            trained,
            wanted,
            weights,
            size,
        )
        self._rng = np.random.default_rng(seed)
        self._epoch = 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._trained) // self._size)

    def __getitem__(self, number: int) -> tuple[Floats, Floats, Floats]:
        rows = self._order[number * self._size : (number + 1) * self._size]
        samples = self._trained[rows]
        copy = self._epoch % self._features.shape[1]
        return self._features[samples, copy].astype(np.float32), self._wanted[samples], self._weights[rows]

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
    features: npt.NDArray[np.float16],
    trained: npt.NDArray[np.intp],
    wanted: Floats,
    weights: Floats,
    recipe: Recipe,
) -> None:
    # On pooled features of two copies: enough to start the fine-tuning from, and fast.
    parts: list[Any] = [
        network.tail.predict(features[trained, c].astype(np.float32), batch_size=128, verbose=0)
        for c in range(min(2, features.shape[1]))
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

"""Fine-tuning: candidates compared by grouped k-fold on pictures as they are and corrupted, then one fit on all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from bittern.system.progress import Counter, Progress
from bittern_convert import thresholds
from bittern_convert.copies import Sample
from bittern_convert.streams import Swept
from bittern_convert.task import Recipe, Task
from bittern_train import confidence, criteria, stream_fold
from bittern_train.checkpoints import NOTHING_KEPT, Checkpoints, Diverged
from bittern_train.network import FeatureStore, Floats, Indices, Network, answers
from bittern_train.stream_fold import Footage
from bittern_train.workers import Chief

# The head alone: at least this many epochs and steps.
HEAD_EPOCHS = 20
HEAD_STEPS = 400
_HEAD_BATCH = 128
# The rate warms up over this many epochs: Adam's first steps, at full rate, undo what the start weights know.
WARM_UP_EPOCHS = 2
# Of the moving average over the weights of the last steps, which is what is kept.
EMA = 0.98


class Candidate(NamedTuple):
    """One combination of the recipe's lists."""

    rate: float


class Fit(NamedTuple):
    """What a recipe leaves open for one fit.

    Attributes:
        rate: learning rate of the fine-tuning; 0 trains the head only.
        epochs: at most.
        seed: of order, dropout and noise.
    """

    rate: float
    epochs: int
    seed: int


class Examples(NamedTuple):
    """What a fit learns from.

    Attributes:
        features: of all samples.
        scores: to learn, (samples, labels).
        trained: numbers of the samples to train on.
        weights: of those, (trained,).
    """

    features: FeatureStore
    scores: Floats
    trained: Indices
    weights: Floats


class Validation(NamedTuple):
    """What a fit is validated on.

    Attributes:
        features: see `Cache.judged`.
        samples: (n,) numbers of the samples there.
        targets: (n,) the labels' indices.
        task: whose alarms say which view decides, and whose costs count.
    """

    features: FeatureStore
    samples: Indices
    targets: npt.NDArray[np.int64]
    task: Task


class Part(NamedTuple):
    """One part of the k-fold.

    Attributes:
        validated: numbers among the samples that choose.
        trained: numbers among all samples; of no group that is validated.
    """

    validated: Indices
    trained: Indices


class Splits(NamedTuple):
    """The k-fold: targets (n,) of the samples that choose, and its parts."""

    targets: npt.NDArray[np.int64]
    parts: list[Part]


class Fold(NamedTuple):
    """One fit of the k-fold.

    Attributes:
        history: a row an epoch: epoch, loss, and of the validated samples val_loss (`criteria.judged_loss`),
            val_accuracy and harmed_accuracy (of corrupted versions), both `criteria.balanced_accuracy`. Epoch 0 is the
            head alone.
        scores: after each epoch, (validated samples, versions, labels); fewer epochs than asked for if it stopped
            early.
        weights: after each epoch, the tail's, then the head's two. Once they have served, none; of a fold that is the
            only one, those of the epoch that was chosen, which `final_fit` keeps.
    """

    history: list[dict[str, Any]]
    scores: list[Floats]
    weights: list[list[Floats]]

    def at(self, epoch: int) -> int:
        """The epoch itself, or the last one before it that was trained."""
        return min(epoch, len(self.scores) - 1)


class FinalFit(NamedTuple):
    """One of the final fits: what it was like, and the weights of the tail, then the head's two."""

    fold: Fold
    weights: list[Floats]


class Job(NamedTuple):
    """One fit of the k-fold: a candidate's, and the number of its fold."""

    candidate: Candidate
    fold: int


class Choice(NamedTuple):
    """What the k-fold says of one candidate.

    Attributes:
        accuracy: out of fold, of the pictures as they are (`criteria.balanced_accuracy`).
        corrupted_accuracy: the same of the corrupted versions.
        loss: of the out-of-fold scores (`criteria.judged_loss`) after `epochs`.
        epochs: one number for all folds, the one with the lowest loss; so long the final fit runs.
        scores: out-of-fold scores after `epochs` of every sample that chooses, (n, versions, labels), in the order of
            the pool; version 0 is the picture as it is, the others are corrupted.
        temperature: that calibrates these scores (`confidence.temperature`), and the final network's.
        streams: how the daemon's decision did on the calibrated out-of-fold scores of the streams; None without any.
    """

    candidate: Candidate
    accuracy: float
    corrupted_accuracy: float
    loss: float
    epochs: int
    scores: Floats
    folds: list[Fold]
    temperature: float = 1.0
    streams: Swept | None = None

    @property
    def passings_found(self) -> float:
        """`thresholds.found_within_bound`; 0 without streams."""
        return thresholds.found_within_bound(self.streams) if self.streams is not None else 0.0


class Cache(NamedTuple):
    """What the frozen body makes of the pool.

    Attributes:
        features: of the copies of all samples, of the centred square and beside it.
        judged: of the samples that choose, in their order, what the task's views show of each version (n, versions *
            views); version 0 is the picture as it is, the others are corrupted.
        targets: the labels' indices (samples,).
    """

    features: FeatureStore
    judged: FeatureStore
    targets: npt.NDArray[np.int64]


def candidates(task: Task) -> list[Candidate]:
    """Every rate that the task can have."""
    return [Candidate(rate) for rate in task.rates]


def jobs(task: Task) -> dict[str, Job]:
    """The fits of the k-fold, by the names of their checkpoints."""
    return {
        _name(number, fold): Job(candidate, fold)
        for number, candidate in enumerate(candidates(task))
        for fold in range(task.recipe.folds)
    }


def missing(task: Task, kept: Checkpoints) -> list[str]:
    """Names of the fits that are still to be made."""
    finished = [number for number in range(len(candidates(task))) if f"candidate-{number}" in kept]
    over = {_name(number, fold) for number in finished for fold in range(task.recipe.folds)}
    return [name for name in jobs(task) if name not in over and name not in kept]


def make(
    task: Task,
    trainer: Trainer,
    cache: Cache,
    splits: Splits,
    job: Job,
    seed: int,
    *,
    filmed: bool,
    counter: Counter | None = None,
) -> Fold:
    """One fit of the k-fold; it depends on no other.

    Args:
        task: with its recipe.
        trainer: its network holds the result afterwards.
        cache: of all samples.
        splits: the k-fold.
        job: which fit.
        seed: of the training.
        filmed: whether streams will be scored, with the weights of one of the epochs.
        counter: advanced by each epoch.
    """
    recipe, part = task.recipe, splits.parts[job.fold]
    fit = Fit(job.candidate.rate, recipe.epochs, seed + job.fold)
    validation = Validation(cache.judged, part.validated, splits.targets[part.validated], task)
    fold = trainer.fit(fit, of_labels(cache, part.trained, task), validation, counter)
    # Nothing else needs the weights.
    return fold if filmed or recipe.folds == 1 else fold._replace(weights=[])


def cross_validate(
    task: Task,
    trainer: Trainer,
    pool: Sequence[Sample],
    cache: Cache,
    footage: Footage | None,
    seed: int,
    progress: Progress,
    kept: Checkpoints = NOTHING_KEPT,
    chief: Chief | None = None,
) -> list[Choice]:
    """Every candidate by grouped k-fold over the samples that choose; best first. What `kept` has is not made again.

    The best finds the most passings at `Choice.passings_found`; of equals, and without streams, it has the highest
    mean of two accuracies: of pictures as they are, and of their corrupted versions. In a fold, no sample is trained on
    whose group is validated, drawn and extra ones included. Streams are scored with the weights of the epoch that the
    pictures choose, so that they have no part in that. Where `chief` has workers, fits are made by them too, and come
    into `kept`.
    """
    recipe, all_jobs = task.recipe, jobs(task)
    splits = split(pool, cache.targets, recipe.folds, seed)
    counter = Counter(progress, "cross-validation", len(all_jobs) * recipe.epochs)

    def made(name: str) -> Fold:
        return make(task, trainer, cache, splits, all_jobs[name], seed, filmed=footage is not None, counter=counter)

    if chief is not None:
        for name in chief.own():
            kept.save(name, made(name))
            counter.reach((chief.finished + 1) * recipe.epochs)
    choices = []
    for number, candidate in enumerate(candidates(task)):
        choice = kept.load(f"candidate-{number}", Choice)
        if choice is None:
            folds = []
            for k in range(recipe.folds):
                name = _name(number, k)
                fold = kept.load(name, Fold)
                if fold is None:
                    fold = made(name)
                    kept.save(name, fold)
                folds.append(fold)
                # A fit may stop early; those of workers are counted already.
                counter.reach(max(counter.done, (number * recipe.folds + k + 1) * recipe.epochs))
            choice = _best_length(task, candidate, folds, splits)
            if footage is not None:
                choice = choice._replace(streams=_streams(task, trainer, footage, choice, splits))
            # Several folds have served; of one alone, `final_fit` keeps the epoch that was chosen.
            needed = [[fold.weights[fold.at(choice.epochs)]] if recipe.folds == 1 else [] for fold in folds]
            choice = choice._replace(
                folds=[fold._replace(weights=weights) for fold, weights in zip(folds, needed, strict=True)]
            )
            kept.save(f"candidate-{number}", choice)
            kept.drop(*(_name(number, k) for k in range(recipe.folds)))
        choices.append(choice)
    counter.reach(len(choices) * recipe.folds * recipe.epochs)
    return sorted(choices, key=lambda c: (-c.passings_found, -(c.accuracy + c.corrupted_accuracy), c.loss))


def _name(candidate: int, fold: int) -> str:
    return f"candidate-{candidate}-fold-{fold}"


def _streams(task: Task, trainer: Trainer, footage: Footage, choice: Choice, splits: Splits) -> Swept:
    scores = np.zeros((footage.features.shape[0], len(task.labels)), np.float32)
    for k, (part, fold) in enumerate(zip(splits.parts, choice.folds, strict=True)):
        trainer.model.set_weights(fold.weights[fold.at(choice.epochs)])
        own = footage.of_fold(part.validated, k, len(splits.parts))
        scores[own] = answers(trainer.model, footage.features, np.flatnonzero(own))
    return stream_fold.judged(task, footage, confidence.tempered(scores, choice.temperature))


def _best_length(task: Task, candidate: Candidate, folds: list[Fold], splits: Splits) -> Choice:
    # One length for all folds: a length of its own for each would be chosen on what it is then judged by. A candidate
    # that fine-tunes does so for an epoch at least, or it would be the candidate that does not.
    lengths = range(1, max(len(f.scores) for f in folds)) if candidate.rate > 0 else range(1)
    choices = []
    for epochs in lengths:
        scores = np.zeros((len(splits.targets), *folds[0].scores[0].shape[1:]), np.float32)
        for part, fold in zip(splits.parts, folds, strict=True):
            scores[part.validated] = fold.scores[fold.at(epochs)]
        choices.append(
            Choice(
                candidate=candidate,
                accuracy=criteria.balanced_accuracy(scores[:, :1], splits.targets),
                corrupted_accuracy=criteria.balanced_accuracy(scores[:, 1:], splits.targets),
                loss=criteria.judged_loss(scores, splits.targets, criteria.costs(task)),
                epochs=epochs,
                scores=scores,
                folds=folds,
            )
        )
    best = min(choices, key=lambda c: c.loss)
    return best._replace(temperature=confidence.temperature(best.scores, splits.targets))


def split(pool: Sequence[Sample], targets: npt.NDArray[np.int64], folds: int, seed: int) -> Splits:
    """Grouped, stratified k-fold over the samples that choose, or one part that validates all of them.

    Args:
        pool: all samples.
        targets: (samples,) what the folds are stratified by.
        folds: how many; 1 for that one part.
        seed: of the shuffling.
    """
    choosing = np.flatnonzero([s.chooses for s in pool])
    groups = np.array([s.item.group for s in pool])
    if folds == 1:
        others = np.flatnonzero(~np.isin(groups, groups[choosing]))
        return Splits(targets[choosing], [Part(np.arange(len(choosing)), others)])
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [
        Part(validated, np.flatnonzero(~np.isin(groups, groups[choosing[validated]])))
        for _, validated in splitter.split(choosing, targets[choosing], groups[choosing])
    ]
    return Splits(targets[choosing], parts)


def final_fit(
    task: Task,
    trainer: Trainer,
    cache: Cache,
    choice: Choice,
    seed: int,
    progress: Progress,
    kept: Checkpoints = NOTHING_KEPT,
) -> tuple[keras.Model, list[Fold]]:
    """The final fit on train and val, for as many epochs as the folds say; of one fold the fit itself.

    What `kept` has is not made again.

    It is the average of the weights of several fits that differ in the order of pictures, dropout and noise (a uniform
    soup: Wortsman et al. 2022, "Model soups"). They start from the same weights, so they end in the same valley; the
    average is about as good as an ensemble of them, at the price of one.

    Returns:
        The whole network, and what each fit was like.
    """
    if task.recipe.folds == 1:
        # What was validated is what is kept: the one fit, after the epoch that was chosen.
        return _classifier(trainer, choice, choice.folds[0].weights), choice.folds
    examples = of_labels(cache, np.arange(len(cache.targets)), task)
    # Heads alone differ by nothing that an average would improve.
    count = task.recipe.soup if choice.candidate.rate > 0 and choice.epochs > 0 else 1
    counter = Counter(progress, "final fit", count * max(1, choice.epochs))
    fits = []
    for k in range(count):
        made = kept.load(f"final-{k}", FinalFit)
        if made is None:
            fit = Fit(choice.candidate.rate, choice.epochs, seed + k)
            fold = trainer.fit(fit, examples, None, counter)
            made = FinalFit(fold, trainer.model.get_weights())
            kept.save(f"final-{k}", made)
        fits.append(made)
        counter.reach((k + 1) * max(1, choice.epochs))
    return _classifier(trainer, choice, [fit.weights for fit in fits]), [fit.fold for fit in fits]


def _classifier(trainer: Trainer, choice: Choice, weights: Sequence[Sequence[Floats]]) -> keras.Model:
    trainer.model.set_weights(average(weights))
    head = trainer.head
    # softmax(logits / T): the scores that the thresholds were chosen on.
    head.set_weights([values / np.float32(choice.temperature) for values in head.get_weights()])
    return trainer.network.classifier(head)


def average(weights: Sequence[Sequence[Floats]]) -> list[Floats]:
    """The mean of the weights of several fits, each the tail's arrays, then the head's two."""
    return [np.asarray(np.mean(values, axis=0, dtype=np.float64), np.float32) for values in zip(*weights, strict=True)]


def of_labels(cache: Cache, trained: Indices, task: Task) -> Examples:
    """The samples of these numbers, to learn their labels from; every label counts the same, times its cost."""
    scores = keras.utils.to_categorical(cache.targets, len(task.labels))
    return Examples(cache.features, scores, trained, criteria.weights(cache.targets, trained, criteria.costs(task)))


class Trainer:
    """Fits a network and its head, as often as asked, always from the weights that the network was built with.

    It is compiled once for all fits: of few pictures, tracing its graph takes longer than training.

    Attributes:
        network: its tail holds the result of the last fit.
        head: likewise.
        model: both, from features (n, ...) float32 to scores (n, labels) float32.
    """

    def __init__(self, network: Network, recipe: Recipe, labels: int) -> None:
        """Compile it.

        Args:
            network: to be trained; nobody else trains it meanwhile.
            recipe: of its task.
            labels: how many scores it gives.
        """
        self.network, self._recipe, self._labels = network, recipe, labels
        self.head = _head(labels)
        self._dropouts = [keras.layers.Dropout(recipe.dropout, seed=0) for _ in range(2)]
        self.model = keras.Sequential([network.tail, self._dropouts[0], self.head])
        self.model.build((None, *network.body_features))
        # Variables: they differ from fit to fit, and as constants each would need a graph of its own.
        self._rate, self._decay_steps, self._warm_steps = (keras.Variable(1.0, trainable=False) for _ in range(3))
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, self._decay_steps, warmup_target=self._rate, warmup_steps=self._warm_steps
        )
        self.model.compile(
            keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=EMA),
            keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            jit_compile=False,  # XLA's convolutions are ten times slower than oneDNN's on a CPU
        )
        self._head_alone = keras.Sequential([self._dropouts[1], self.head])
        self._head_alone.compile(
            keras.optimizers.Adam(recipe.head_rate),
            keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            jit_compile=False,
        )

    def fit(
        self, fit: Fit, examples: Examples, validation: Validation | None = None, counter: Counter | None = None
    ) -> Fold:
        """One fit; it depends on none before.

        Args:
            fit: what the recipe leaves open.
            examples: what to train on.
            validation: what to validate on after every epoch; None trains for all epochs.
            counter: advanced by each epoch.

        Returns:
            The fold; without `validation` its history has no scores.

        Raises:
            Diverged: the loss is no number any more.
        """
        recipe = self._recipe
        self._reset(fit.seed)
        if self.network.backbone.mode != "scratch":  # a head on features that mean nothing yet is no start
            self._fit_head(examples, fit.seed)
        record = _Record(self.model, validation, fit, recipe.patience, counter)
        record.add(0, float("nan"))
        if fit.rate > 0 and fit.epochs > 0:
            batches = _Batches(examples, recipe.batch, fit.seed)
            # As long as the recipe says, also when the final fit stops earlier: so it was in the folds.
            warm = min(WARM_UP_EPOCHS, recipe.epochs // 2)
            self._rate.assign(fit.rate)
            self._decay_steps.assign((recipe.epochs - warm) * len(batches))
            self._warm_steps.assign(warm * len(batches))
            # The averaged weights are swapped in at the end of an epoch, then recorded.
            callbacks = [keras.callbacks.SwapEMAWeights(True), record]
            self.model.fit(batches, epochs=fit.epochs, verbose=0, callbacks=callbacks)
        return record.fold

    def _reset(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        self.network.reset(seed)
        start = _head(self._labels)
        start.build(self.network.tail.output.shape)
        self.head.set_weights(start.get_weights())
        for dropout in self._dropouts:
            dropout.seed_generator.state.assign(np.array([seed, 0], np.uint32))
        for model in (self.model, self._head_alone):
            for variable in model.optimizer.variables:
                variable.assign(np.zeros(variable.shape, variable.dtype))
        self._head_alone.optimizer.learning_rate = self._recipe.head_rate

    def _fit_head(self, examples: Examples, seed: int) -> None:
        # On pooled features of two copies: enough to start the fine-tuning from, and fast.
        import tensorflow as tf

        features, scores, trained, weights = examples
        copies = features.shape[1]
        parts = [answers(self.network.tail, features, trained * copies + c) for c in range(min(2, copies))]
        rows = tuple(np.concatenate(each) for each in (parts, [scores[trained]] * len(parts), [weights] * len(parts)))
        count = len(rows[0])
        # One long epoch: of few pictures an epoch is a step or two, and Keras takes longer to begin one than to train.
        steps = max(HEAD_EPOCHS * -(-count // _HEAD_BATCH), HEAD_STEPS)
        batches = tf.data.Dataset.from_tensor_slices(rows).shuffle(count, seed=seed).repeat().batch(_HEAD_BATCH)
        loss = self._head_alone.fit(batches.take(steps), shuffle=False, verbose=0).history["loss"][-1]
        if not math.isfinite(loss):
            rate = self._recipe.head_rate
            raise Diverged(f"the loss of the head at rate {rate:g} is no number: take a lower recipe.head_rate")


def _head(labels: int) -> keras.layers.Dense:
    return keras.layers.Dense(labels, activation="softmax", name="scores")


def judged_scores(model: keras.Model, judged: FeatureStore, samples: Indices, task: Task) -> Floats:
    """What a network answers (n, versions, labels) to samples of `Cache.judged`."""
    predicted = answers(model, judged, judged.numbers(samples))
    return criteria.decided(predicted.reshape(len(samples), -1, len(task.views), len(task.labels)), task)


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of cached features; every epoch sees the next copy of each picture, in another order."""

    def __init__(self, examples: Examples, size: int, seed: int) -> None:
        super().__init__()
        self._examples, self._size = examples, size
        self._rng = np.random.default_rng(seed)
        self._epoch = 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._examples.trained) // self._size)

    def __getitem__(self, number: int) -> tuple[Floats, Floats, Floats]:
        features, scores, trained, weights = self._examples
        rows = self._order[number * self._size : (number + 1) * self._size]
        samples = trained[rows]
        copy = self._epoch % features.shape[1]
        return features.of_copy(samples, copy), scores[samples], weights[rows]

    def on_epoch_end(self) -> None:
        """The next copy, shuffled."""
        self._epoch += 1
        self._order = self._rng.permutation(len(self._examples.trained))


class _Record(keras.callbacks.Callback):  # type: ignore[misc]
    """What a fit is like after every epoch; ends it when the validation loss has not improved for `patience` epochs."""

    def __init__(
        self, network: keras.Model, validation: Validation | None, fit: Fit, patience: int, counter: Counter | None
    ) -> None:
        super().__init__()
        self._rate = fit.rate
        self.fold = Fold([], [], [])
        self._network, self._validation, self._patience, self._counter = network, validation, patience, counter

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See the class."""
        if self._counter is not None:
            self._counter.advance()
        loss = (logs or {})["loss"]
        if not math.isfinite(loss):
            raise Diverged(
                f"rate {self._rate:g}: the loss is no number any more after epoch {epoch + 1}: take a lower recipe.rate"
            )
        self.add(epoch + 1, loss)
        if self._validation is not None:
            losses = [row["val_loss"] for row in self.fold.history]
            self.model.stop_training = epoch + 1 - int(np.argmin(losses)) >= self._patience

    def add(self, epoch: int, loss: float) -> None:
        """The row of an epoch; 0 is the head alone."""
        row = {"epoch": epoch, "loss": loss}
        if self._validation is not None:
            features, samples, targets, task = self._validation
            scores = judged_scores(self._network, features, samples, task)
            self.fold.scores.append(scores)
            self.fold.weights.append(self._network.get_weights())
            row |= {
                "val_loss": criteria.judged_loss(scores, targets, criteria.costs(task)),
                "val_accuracy": criteria.balanced_accuracy(scores[:, :1], targets),
                "harmed_accuracy": criteria.balanced_accuracy(scores[:, 1:], targets),
            }
        self.fold.history.append(row)

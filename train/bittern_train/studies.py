"""Studies that choices of the shipped tasks rest on; each leaves a result file for `bittern results`.

bittern study none car_damage --data ../shared/data --weights FILE --out docs/results
bittern study twins car_damage --data ../shared/data --weights FILE --out docs/results
bittern study soup stop_sign --data ../shared/data --weights FILE --out docs/results
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, evaluate, metrics
from bittern.model import pictures, preprocess
from bittern.system.progress import Counter, Progress
from bittern_convert import run
from bittern_convert.copies import Sample
from bittern_convert.task import Task
from bittern_train import criteria, session, training
from bittern_train.network import Floats, answers, scale
from bittern_train.session import Prepared
from bittern_train.training import Candidate, Choice, Examples, Fit, Splits, Trainer

Indices = npt.NDArray[np.int64]

# What "none of these" is in the networks of the study "none".
KINDS = ("label", "exposed", "unexposed")
# Fits that `soup` averages.
SOUP = 3


def none(task: Task, root: Path, *, weights: str, seed: int, progress: Progress) -> dict[str, Any]:
    """Is "none of these" better a label of its own, or a low best score?

    Three networks in the same grouped k-fold over train + val, all fine-tuned alike, for half of the recipe's epochs:
    "label": "none" is a label; "exposed": there are only the others, and pictures of none are trained towards the same
    score for each (outlier exposure, Hendrycks et al. 2019); "unexposed": pictures of none are not trained on
    (Hendrycks and Gimpel 2017). The last two answer "none" below a best score that is chosen on the other folds.
    """
    if len(task.nothing) != 1 or len(task.labels) < 3:
        raise ConfigurationError(f"task {task.name!r} has no 'none' label")
    recipe = msgspec.structs.replace(task.recipe, epochs=-(-task.recipe.epochs // 2))
    task = msgspec.structs.replace(task, recipe=recipe)
    ready = session.prepare(task, root, weights=weights, seed=seed, progress=progress)
    nothing = task.labels.index(task.nothing[0])
    order = [i for i in range(len(task.labels)) if i != nothing] + [nothing]  # the label for none comes last
    targets: Indices = np.argsort(order)[ready.cache.targets]
    own = len(task.labels) - 1
    alarms = [order.index(task.labels.index(label)) for label in task.alarm]
    splits = training.split(ready.decoded.samples, targets, recipe.folds, seed)
    true = splits.targets
    is_none = true == own
    counter = Counter(progress, "cross-validation", len(KINDS) * recipe.folds * recipe.epochs)
    answers: dict[str, Indices] = {}
    figures: dict[str, Any] = {}
    for kind in KINDS:
        scores = _out_of_fold(task, ready, _variant(kind, targets, own), splits, seed, counter)
        answer = scores.argmax(1) if kind == "label" else _answers(scores, true, [p.validated for p in splits.parts])
        answers[kind] = answer
        noneness = scores[:, own] if kind == "label" else -scores.max(1)
        figures[kind] = {
            "correct": int((answer == true).sum()),
            "balanced_accuracy": metrics.mean_of_labels(answer == true, true),
            "targets": {"n": int((~is_none).sum()), "correct": int((answer == true)[~is_none].sum())},
            "none": {"n": int(is_none.sum()), "correct": int((answer == true)[is_none].sum())},
            "none_answered_with_an_alarm": int(np.isin(answer[is_none], alarms).sum()),
            "auc_none_against_targets": float(roc_auc_score(is_none, noneness)),
        }
    correct = answers["label"] == true
    for kind in KINDS[1:]:
        other = answers[kind] == true
        figures[kind]["against_label"] = {
            "only_label_right": int((correct & ~other).sum()),
            "only_this_right": int((~correct & other).sum()),
        }
    return {"study": "none", "task": task.name, "seed": seed, "n": len(true), "folds": recipe.folds} | figures


class Variant(NamedTuple):
    """What a network of the study "none" learns.

    Attributes:
        targets: (samples,) labels' indices; the last label is the one for none.
        scores: to learn, (samples, labels), or without the last label.
        trained: whether each sample is trained on, (samples,).
    """

    targets: Indices
    scores: Floats
    trained: npt.NDArray[np.bool_]


def _variant(kind: str, targets: Indices, own: int) -> Variant:
    scores = keras.utils.to_categorical(targets, own + 1).astype(np.float32)
    if kind != "label":
        scores = np.where(targets[:, None] == own, 1 / own, scores[:, :own]).astype(np.float32)
    return Variant(targets, scores, (targets != own) | (kind != "unexposed"))


def _out_of_fold(task: Task, ready: Prepared, variant: Variant, splits: Splits, seed: int, counter: Counter) -> Floats:
    """Out-of-fold scores of the pictures as they are, (n, labels of the variant's scores)."""
    features = ready.cache.features
    choosing = np.flatnonzero([s.chooses for s in ready.decoded.samples])
    scores = np.zeros((len(choosing), variant.scores.shape[1]), np.float32)
    trainer = Trainer(ready.network, task.recipe, scores.shape[1])
    for k, part in enumerate(splits.parts):
        trained = part.trained[variant.trained[part.trained]]
        weights = criteria.weights(variant.targets, trained, np.ones(len(task.labels)))
        fit = Fit(max(task.recipe.rate), task.recipe.epochs, seed + k)
        examples = Examples(features, variant.scores, trained, weights)
        trainer.fit(fit, examples, counter=counter)
        scores[part.validated] = answers(trainer.model, features, features.numbers(choosing[part.validated], 1))
    return scores


def _answers(scores: Floats, true: Indices, folds: Sequence[Indices]) -> Indices:
    """Answers (n,) with "none" below a best score; in each fold the one with the best accuracy on the others."""
    own = scores.shape[1]
    answers = np.zeros(len(true), np.int64)
    for held in folds:
        others = np.setdiff1d(np.arange(len(true)), held)
        thresholds = np.unique(scores[others].max(1))
        accuracies = [
            metrics.mean_of_labels(_below(scores[others], t, own) == true[others], true[others]) for t in thresholds
        ]
        answers[held] = _below(scores[held], thresholds[int(np.argmax(accuracies))], own)
    return answers


def _below(scores: Floats, threshold: float, own: int) -> Indices:
    return np.asarray(np.where(scores.max(1) < threshold, own, scores.argmax(1)), np.int64)


def twins(task: Task, root: Path, finished: Path, *, weights: str, seed: int, progress: Progress) -> dict[str, Any]:
    """What would near-copies of test pictures in the training change?

    The float network of the finished run, and one that was also trained on the split "twin" with the same recipe, rate
    and number of epochs, on the same test pictures.
    """
    made = run.load(finished)
    also = []
    for data in task.data:
        for item in dataset.select(dataset.read(root / data.path), data.where, root / data.path):
            if item.split == "twin":
                label = task.labels.index(data.label or item.label or "")
                also.append(Sample(item._replace(group=f"twin/{item.name}"), label, "photo", False))
    if not also:
        raise ConfigurationError(f"task {task.name!r} has no pictures of split 'twin'")
    ready = session.prepare(task, root, weights=weights, seed=seed, progress=progress, also=also)
    chosen = Choice(Candidate(made.choice["rate"]), 0, 0, 0, made.choice["epochs"], np.zeros((0, 0, 0), np.float32), [])
    trainer = Trainer(ready.network, task.recipe, len(task.labels))
    model, _ = training.final_fit(task, trainer, ready.cache, chosen, seed, progress)
    test = [i for i in ready.everything if i.split == "test" and i.columns["set"] == (task.data[0].path or root.name)]
    tensors = np.concatenate(
        [preprocess.preprocess(preprocess.region_of(pictures.decode(item.path), task.region)) for item in test]
    )
    labels = [item.label for item in test]
    without = keras.models.load_model(finished / run.MODEL, compile=False)
    correct = {}
    aucs = {}
    for name, network in (("without", without), ("with", model)):
        # A batch of one: the saved network is built for it.
        scores = np.concatenate([network(scale(t[None]), training=False).numpy() for t in tensors])
        correct[name] = np.array([task.labels[i] for i in scores.argmax(1)]) == np.array(labels)
        alarms = [task.labels.index(label) for label in task.alarm]
        aucs[name] = evaluate.auc(scores[:, alarms].max(1), [label in task.alarm for label in labels])
    n = len(test)
    return {
        "study": "twins",
        "task": task.name,
        "seed": seed,
        "fits": task.recipe.soup,
        "twins": len(also),
        "n": n,
        **{
            name: {
                "correct": int(mask.sum()),
                "accuracy": float(mask.mean()),
                "accuracy_ci95": evaluate.wilson(int(mask.sum()), n),
                "auc": aucs[name],
            }
            for name, mask in correct.items()
        },
        "only_with_right": int((correct["with"] & ~correct["without"]).sum()),
        "only_without_right": int((~correct["with"] & correct["without"]).sum()),
    }


def soup(task: Task, root: Path, finished: Path, *, weights: str, seed: int, progress: Progress) -> dict[str, Any]:
    """Is the average of several fits better than each of them?

    `SOUP` fits and the average of their weights in every fold of the grouped k-fold over train + val, with the rate and
    the number of epochs of the finished run.

    Raises:
        ConfigurationError: see `session.prepare`; also for a run that trained the head only.
    """
    made = run.load(finished)
    candidate, epochs = Candidate(made.choice["rate"]), made.choice["epochs"]
    if not (candidate.rate and epochs):
        raise ConfigurationError(f"{finished} trained the head only: there is nothing to average")
    ready = session.prepare(task, root, weights=weights, seed=seed, progress=progress)
    splits = training.split(ready.decoded.samples, ready.cache.targets, task.recipe.folds, seed)
    true = splits.targets
    judged = ready.cache.judged
    versions = judged.shape[1] // len(task.views)
    scores = np.zeros((SOUP + 1, len(true), versions, len(task.labels)), np.float32)  # the last is the average
    counter = Counter(progress, "cross-validation", task.recipe.folds * SOUP * epochs)
    trainer = Trainer(ready.network, task.recipe, len(task.labels))
    model = trainer.model
    for k, part in enumerate(splits.parts):
        examples = training.of_labels(ready.cache, part.trained, task)
        members = []
        for member in range(SOUP):
            fit = Fit(candidate.rate, epochs, seed + k + member * task.recipe.folds)
            trainer.fit(fit, examples, counter=counter)
            scores[member, part.validated] = training.judged_scores(model, judged, part.validated, task)
            members.append(model.get_weights())
        model.set_weights(training.average(members))
        scores[SOUP, part.validated] = training.judged_scores(model, judged, part.validated, task)
    nothing = np.isin(true, [task.labels.index(label) for label in task.nothing])
    fits = [_figures(task, of_fit, true, nothing) for of_fit in scores]
    return {
        "study": "soup",
        "task": task.name,
        "seed": seed,
        "n": len(true),
        "harmed_n": len(true) * (versions - 1),
        "none_n": int(nothing.sum()),
        "folds": task.recipe.folds,
        "epochs": epochs,
        "fits": fits[:SOUP],
        "average": fits[SOUP],
    }


def _figures(task: Task, scores: Floats, true: Indices, nothing: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of scores (n, versions, labels)."""
    correct = scores.argmax(2) == true[:, None]
    alarms = [task.labels.index(label) for label in task.alarm]
    return {
        "correct": int(correct[:, 0].sum()),
        "harmed_correct": int(correct[:, 1:].sum()),
        "accuracy": criteria.balanced_accuracy(scores[:, :1], true),
        "harmed_accuracy": criteria.balanced_accuracy(scores[:, 1:], true),
        "loss": criteria.judged_loss(scores, true, criteria.costs(task)),
        "none_answered_with_an_alarm": int(np.isin(scores[nothing, 0].argmax(1), alarms).sum()),
    }

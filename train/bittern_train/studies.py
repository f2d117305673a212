"""Studies that choices of the shipped tasks rest on; each leaves a result file for `bittern report`.

bittern study none car_damage --data ../shared/data --weights FILE --out docs/results
bittern study twins car_damage --data ../shared/data --weights FILE --out docs/results
bittern study soup stop_sign --data ../shared/data --weights FILE --out docs/results
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, evaluate
from bittern.model import pictures, preprocess
from bittern_convert import run
from bittern_convert.task import Task
from bittern_train import criteria, session, training
from bittern_train.network import Floats, scale
from bittern_train.pool import Sample
from bittern_train.session import Prepared, Progress
from bittern_train.training import Candidate, Choice

Indices = npt.NDArray[np.int64]

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
        raise ConfigurationError(f"task {task.name!r} has no label for none of the others")
    recipe = msgspec.structs.replace(task.recipe, epochs=-(-task.recipe.epochs // 2))
    task = msgspec.structs.replace(task, recipe=recipe)
    ready = session.prepare(task, root, weights=weights, seed=seed, progress=progress)
    nothing = task.labels.index(task.nothing[0])
    order = [i for i in range(len(task.labels)) if i != nothing] + [nothing]  # the label for none comes last
    targets: Indices = np.argsort(order)[ready.cache.targets]
    own = len(task.labels) - 1
    alarms = [order.index(task.labels.index(label)) for label in task.alarm]
    choosing = np.flatnonzero([s.chooses for s in ready.pool])
    groups = np.array([s.item.group for s in ready.pool])
    splitter = StratifiedGroupKFold(task.recipe.folds, shuffle=True, random_state=seed)
    folds = [held for _, held in splitter.split(choosing, targets[choosing], groups[choosing])]
    true = targets[choosing]
    answers: dict[str, Indices] = {}
    found: dict[str, Any] = {}
    for number, kind in enumerate(("label", "exposed", "unexposed")):
        scores = _out_of_fold(ready, task, kind, targets, choosing, groups, folds, seed, progress, number)
        answer = _answers(scores, true, folds) if kind != "label" else scores.argmax(1)
        answers[kind] = answer
        is_none = true == own
        noneness = scores[:, own] if kind == "label" else -scores.max(1)
        found[kind] = {
            "correct": int((answer == true).sum()),
            "balanced_accuracy": criteria.mean_of_labels(answer == true, true),
            "targets": {"n": int((~is_none).sum()), "correct": int((answer == true)[~is_none].sum())},
            "none": {"n": int(is_none.sum()), "correct": int((answer == true)[is_none].sum())},
            "none_answered_with_an_alarm": int(np.isin(answer[is_none], alarms).sum()),
            "auc_none_against_targets": float(roc_auc_score(is_none, noneness)),
        }
    right = answers["label"] == true
    for kind in ("exposed", "unexposed"):
        other = answers[kind] == true
        found[kind]["against_label"] = {
            "only_label_right": int((right & ~other).sum()),
            "only_this_right": int((~right & other).sum()),
        }
    return {"study": "none", "task": task.name, "seed": seed, "n": len(true), "folds": task.recipe.folds} | found


def _out_of_fold(
    ready: Prepared,
    task: Task,
    kind: str,
    targets: Indices,
    choosing: Indices,
    groups: npt.NDArray[Any],
    folds: Sequence[Indices],
    seed: int,
    progress: Progress,
    number: int,
) -> Floats:
    """Out-of-fold scores (n, labels), without the label for none but for kind "label"."""
    own = len(task.labels) - 1
    wanted = keras.utils.to_categorical(targets, own + 1).astype(np.float32)
    if kind != "label":
        wanted = np.where(targets[:, None] == own, 1 / own, wanted[:, :own]).astype(np.float32)
    cost = np.ones(own + 1)
    scores = np.zeros((len(choosing), wanted.shape[1]), np.float32)
    candidate = Candidate(max(task.recipe.rate))
    of = 3 * len(folds) * task.recipe.epochs
    for k, held in enumerate(folds):
        trained = np.flatnonzero(~np.isin(groups, groups[choosing[held]]))
        if kind == "unexposed":
            trained = trained[targets[trained] != own]
        done = (number * len(folds) + k) * task.recipe.epochs
        head, _ = training.fit_once(
            task.recipe, ready.network, ready.cache.features, wanted, criteria.weights(targets, trained, cost),
            candidate, trained, None, task.recipe.epochs, seed + k,
            lambda epoch, done=done: progress("k-fold", done + epoch, of),  # type: ignore[misc]
        )  # fmt: skip
        model = keras.Sequential([ready.network.tail, head])
        plain = ready.cache.features[choosing[held], 0].astype(np.float32)
        scores[held] = model.predict(plain, batch_size=128, verbose=0)
    return scores


def _answers(scores: Floats, true: Indices, folds: Sequence[Indices]) -> Indices:
    """Answers (n,) with "none" below a best score; in each fold the one with the best accuracy on the others."""
    own = scores.shape[1]
    answers = np.zeros(len(true), np.int64)
    for held in folds:
        others = np.setdiff1d(np.arange(len(true)), held)
        tried = np.unique(scores[others].max(1))
        accuracies = [
            criteria.mean_of_labels(_below(scores[others], t, own) == true[others], true[others]) for t in tried
        ]
        answers[held] = _below(scores[held], tried[int(np.argmax(accuracies))], own)
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
    model, _ = training.fit(
        task, ready.network, ready.pool, ready.cache, chosen, seed, lambda done, of: progress("fit", done, of)
    )
    test = [i for i in ready.everything if i.split == "test" and i.columns["set"] == (task.data[0].path or root.name)]
    tensors = np.concatenate(
        [preprocess.preprocess(preprocess.region_of(pictures.decode(item.path), task.region)) for item in test]
    )
    labels = [item.label for item in test]
    without = keras.models.load_model(finished / run.MODEL, compile=False)
    right = {}
    aucs = {}
    for name, network in (("without", without), ("with", model)):
        # A batch of one: the saved network is built for it.
        scores = np.concatenate([network(scale(t[None]), training=False).numpy() for t in tensors])
        right[name] = np.array([task.labels[i] for i in scores.argmax(1)]) == np.array(labels)
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
                "correct": int(ok.sum()),
                "accuracy": float(ok.mean()),
                "accuracy_ci95": evaluate.wilson(int(ok.sum()), n),
                "auc": aucs[name],
            }
            for name, ok in right.items()
        },
        "only_with_right": int((right["with"] & ~right["without"]).sum()),
        "only_without_right": int((~right["with"] & right["without"]).sum()),
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
    choosing = np.flatnonzero([s.chooses for s in ready.pool])
    groups = np.array([s.item.group for s in ready.pool])
    true = ready.cache.targets[choosing]
    cost = criteria.costs(task)
    wanted = keras.utils.to_categorical(ready.cache.targets, len(task.labels))
    splitter = StratifiedGroupKFold(task.recipe.folds, shuffle=True, random_state=seed)
    versions = ready.cache.judged.shape[1]
    scores = np.zeros((SOUP + 1, len(choosing), versions, len(task.labels)), np.float32)  # the last is the average
    for k, (_, held) in enumerate(splitter.split(choosing, true, groups[choosing])):
        trained = np.flatnonzero(~np.isin(groups, groups[choosing[held]]))
        each = criteria.weights(ready.cache.targets, trained, cost)
        found = []
        for member in range(SOUP):
            done = (k * SOUP + member) * epochs
            head, _ = training.fit_once(
                task.recipe, ready.network, ready.cache.features, wanted, each, candidate, trained, None, epochs,
                seed + k + member * task.recipe.folds,
                lambda epoch, done=done: progress("k-fold", done + epoch, task.recipe.folds * SOUP * epochs),  # type: ignore[misc]
            )  # fmt: skip
            model = keras.Sequential([ready.network.tail, head])
            scores[member, held] = training.judged_scores(model, ready.cache.judged[held], task)
            found.append([*ready.network.tail.get_weights(), *head.get_weights()])
        training.set_average(ready.network, head, found)
        scores[SOUP, held] = training.judged_scores(model, ready.cache.judged[held], task)
    nothing = np.isin(true, [task.labels.index(label) for label in task.nothing])
    alarms = [task.labels.index(label) for label in task.alarm]
    fits = []
    for of in scores:
        right = of.argmax(2) == true[:, None]
        fits.append(
            {
                "correct": int(right[:, 0].sum()),
                "harmed_correct": int(right[:, 1:].sum()),
                "accuracy": criteria.balanced_accuracy(of[:, :1], true),
                "harmed_accuracy": criteria.balanced_accuracy(of[:, 1:], true),
                "loss": criteria.judged_loss(of, true, cost),
                "none_answered_with_an_alarm": int(np.isin(of[nothing, 0].argmax(1), alarms).sum()),
            }
        )
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

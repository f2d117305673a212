"""Figures of a model on labelled pictures, each with n and a 95 % interval; needs no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import metrics
from bittern.evaluation.dataset import Item
from bittern.evaluation.metrics import Interval
from bittern.evaluation.metrics import auc as auc
from bittern.evaluation.metrics import wilson as wilson
from bittern.model import pictures
from bittern.model.classifier import Classifier, Result
from bittern.model.manifest import Head
from bittern.model.preprocess import CENTER, Region, View
from bittern.model.scores import step
from bittern.model.views import predict


class LabelFigures(msgspec.Struct, kw_only=True):
    """Figures of one label; None where a figure is undefined, such as the recall of a label without pictures.

    Attributes:
        n: number of pictures of this label.
        correct: number of these with this answer.
        recall: correct / n.
        recall_ci95: Wilson interval.
        answered: number of pictures with this answer.
        precision: correct / answered.
        precision_ci95: Wilson interval.
        auc_one_vs_rest: area under the ROC curve of this label's score, this label against all others.
        auc_one_vs_rest_ci95: bootstrap interval, see `metrics.bootstrap`.
    """

    n: int
    correct: int
    recall: float | None
    recall_ci95: Interval | None
    answered: int
    precision: float | None
    precision_ci95: Interval | None
    auc_one_vs_rest: float | None
    auc_one_vs_rest_ci95: Interval | None


class Report(msgspec.Struct, kw_only=True):
    """Figures of one head on one split. Any answer but the picture's own label is incorrect, "none" included.

    Wilson intervals assume independent pictures; the bootstrap ones (`metrics.bootstrap`) do not.

    Attributes:
        model: its name.
        version: of the model.
        task: of the head.
        split: its name; "all" where there is no index.
        n: number of pictures that were classified.
        groups: number of groups of near-duplicates among these; n where no two pictures belong together.
        correct: number of these with the highest score on their own label.
        accuracy: correct / n; NaN for n = 0, which is null in JSON.
        accuracy_ci95: Wilson interval.
        auc: area under the ROC curve of the highest score of the `alarm_labels`, these against all others; None where
            one side has no pictures, or no label raises an alarm.
        auc_ci95: bootstrap interval; None where resampling gives none.
        auc_macro: mean of `auc_one_vs_rest` of the labels that have one.
        auc_macro_ci95: bootstrap interval.
        nll: mean negative log likelihood in nats, see `metrics.log_losses`.
        nll_ci95: bootstrap interval.
        brier: Brier score over all labels, 0 to 2, see `metrics.brier_scores`.
        brier_ci95: bootstrap interval.
        calibration_error: expected calibration error in 10 bins, see `metrics.calibration_error`.
        per_label: in the order of the model.
        confusion: true label -> answered label -> count.
        alarm_labels: the labels that raise an alarm.
        threshold: the score from which they do, which is the model's threshold "default".
        alarms: number of pictures with an alarm.
        alarm_rate: alarms / n; NaN for n = 0.
        alarm_rate_ci95: Wilson interval.
        alarm_n: number of pictures with an alarm label; an alarm on them is correct, whichever alarm label raised it.
        false_alarms: number of alarms on the other n - alarm_n pictures.
        false_alarm_rate: false_alarms / (n - alarm_n).
        false_alarm_rate_ci95: Wilson interval.
        missed_alarms: number of pictures with an alarm label and without an alarm.
        missed_alarm_rate: missed_alarms / alarm_n.
        missed_alarm_rate_ci95: Wilson interval.
        skipped: a line for each picture that cannot be read.
    """

    model: str
    version: str
    task: str
    split: str
    n: int
    groups: int
    correct: int
    accuracy: float
    accuracy_ci95: Interval
    auc: float | None
    auc_ci95: Interval | None
    auc_macro: float | None
    auc_macro_ci95: Interval | None
    nll: float | None
    nll_ci95: Interval | None
    brier: float | None
    brier_ci95: Interval | None
    calibration_error: float | None
    per_label: dict[str, LabelFigures]
    confusion: dict[str, dict[str, int]]
    alarm_labels: list[str]
    threshold: float
    alarms: int
    alarm_rate: float
    alarm_rate_ci95: Interval
    alarm_n: int
    false_alarms: int
    false_alarm_rate: float | None
    false_alarm_rate_ci95: Interval | None
    missed_alarms: int
    missed_alarm_rate: float | None
    missed_alarm_rate_ci95: Interval | None
    skipped: list[str]


class Comparison(msgspec.Struct, kw_only=True):
    """One head of a model against a head of another model, on the same pictures.

    Attributes:
        model: the other model.
        version: of the other model.
        task: of the other model's head.
        n: number of pictures.
        correct: number of pictures that the other model answers correctly.
        accuracy: of the other model.
        accuracy_ci95: Wilson interval.
        difference: accuracy of the first model minus that of the other.
        difference_ci95: paired interval, see `metrics.paired_loss_interval`.
        mcnemar_p: of McNemar's exact test, two-sided.
        only_first_correct: names of the pictures that only the first model answers correctly.
        only_other_correct: names of the pictures that only the other model answers correctly.
    """

    model: str
    version: str
    task: str
    n: int
    correct: int
    accuracy: float
    accuracy_ci95: Interval
    difference: float
    difference_ci95: Interval
    mcnemar_p: float
    only_first_correct: list[str]
    only_other_correct: list[str]


class Answered(NamedTuple):
    """A picture with its true label and the answer of one head."""

    item: Item
    label: str
    result: Result

    @property
    def correct(self) -> bool:
        """Whether the highest score is on its own label."""
        return self.label == self.result.label


def true_labels(head: Head, items: Sequence[Item], label: str | None) -> list[str]:
    """The true label of every item; those without one get `label`, or the head's first label of "nothing".

    Raises:
        ConfigurationError: a label that the model does not know.
    """
    fallback = label or (head.nothing[0] if head.nothing else None)
    labels = []
    for item in items:
        own = item.label or fallback
        if own is None:
            raise ConfigurationError(f"{item.path}: has no label: give one with --label")
        if own not in head.labels:
            raise ConfigurationError(f"{item.path}: label {own!r} is not one of the model's: {', '.join(head.labels)}")
        labels.append(own)
    return labels


def answer(
    classifier: Classifier, items: Sequence[Item], label: str | None, progress: Callable[[int], None] = lambda _: None
) -> tuple[list[list[Answered]], list[str]]:
    """Classify every item.

    Returns:
        For each head its answers, and a line for each picture that cannot be read.

    Raises:
        ConfigurationError: see `true_labels`.
    """
    answers, skipped = answer_all([classifier], items, label, progress)
    return answers[0], skipped


def answer_all(
    classifiers: Sequence[Classifier],
    items: Sequence[Item],
    label: str | None,
    progress: Callable[[int], None] = lambda _: None,
    views: Sequence[View] = CENTER,
    region: Region | None = None,
) -> tuple[list[list[list[Answered]]], list[str]]:
    """As `answer` for several classifiers: each picture is decoded once, and resized once per input size and view.

    Returns:
        For each classifier and head its answers, and a line for each picture that cannot be read, or into which the
        region does not fit.

    Raises:
        ConfigurationError: see `true_labels`.
    """
    labels = [[true_labels(head, items, label) for head in classifier.heads] for classifier in classifiers]
    answers: list[list[list[Answered]]] = [[[] for _ in classifier.heads] for classifier in classifiers]
    skipped = []
    for number, item in enumerate(items):
        try:
            frame = pictures.cut(pictures.decode(item.path), item.path, region)
        except PictureError as error:
            skipped.append(str(error))
        else:
            for i, prediction in enumerate(predict(classifiers, frame, views=views)[0]):
                for head, result in enumerate(prediction.results):
                    answers[i][head].append(Answered(item, labels[i][head][number], result))
        progress(number + 1)
    return answers, skipped


def report(classifier: Classifier, head: Head, split: str, answers: Sequence[Answered], skipped: list[str]) -> Report:
    """The figures of one head."""
    n = len(answers)
    correct = sum(a.correct for a in answers)
    confusion = {t: dict.fromkeys(head.labels, 0) for t in head.labels}
    for a in answers:
        confusion[a.label][a.result.label] += 1
    alarms = sum(a.result.alarm for a in answers)
    alarm_n = sum(a.label in head.alarm for a in answers)
    missed = sum(a.label in head.alarm and not a.result.alarm for a in answers)
    false = alarms - (alarm_n - missed)
    scored = _scored(head, answers)
    return Report(
        model=classifier.name,
        version=classifier.version,
        task=head.task,
        split=split,
        n=n,
        groups=len(set(_groups(answers))),
        correct=correct,
        accuracy=correct / n if n else math.nan,
        accuracy_ci95=wilson(correct, n),
        auc=scored["auc"].value,
        auc_ci95=scored["auc"].ci95,
        auc_macro=scored["auc_macro"].value,
        auc_macro_ci95=scored["auc_macro"].ci95,
        nll=scored["nll"].value,
        nll_ci95=scored["nll"].ci95,
        brier=scored["brier"].value,
        brier_ci95=scored["brier"].ci95,
        calibration_error=metrics.calibration_error(
            np.array([a.result.score for a in answers]), np.array([a.correct for a in answers], bool)
        ),
        per_label={label: _label_figures(label, confusion, scored[f"auc of {label}"]) for label in head.labels},
        confusion=confusion,
        alarm_labels=list(head.alarm),
        threshold=head.thresholds["default"].on,
        alarms=alarms,
        alarm_rate=alarms / n if n else math.nan,
        alarm_rate_ci95=wilson(alarms, n),
        alarm_n=alarm_n,
        false_alarms=false,
        false_alarm_rate=_share(false, n - alarm_n).value,
        false_alarm_rate_ci95=_share(false, n - alarm_n).ci95,
        missed_alarms=missed,
        missed_alarm_rate=_share(missed, alarm_n).value,
        missed_alarm_rate_ci95=_share(missed, alarm_n).ci95,
        skipped=skipped,
    )


def compare(other: Classifier, head: Head, first: Sequence[Answered], second: Sequence[Answered]) -> Comparison:
    """Compare the answers of a head of a model and of a head of another model to the same pictures, at least one.

    Each answer is judged by the label that its own model has for the picture; the two can differ where a picture has no
    label in the index (see `true_labels`).
    """
    n = len(first)
    won = [a.item.name for a, b in zip(first, second, strict=True) if a.correct and not b.correct]
    lost = [a.item.name for a, b in zip(first, second, strict=True) if b.correct and not a.correct]
    correct = sum(b.correct for b in second)
    return Comparison(
        model=other.name,
        version=other.version,
        task=head.task,
        n=n,
        correct=correct,
        accuracy=correct / n,
        accuracy_ci95=wilson(correct, n),
        difference=(len(won) - len(lost)) / n,
        difference_ci95=metrics.paired_loss_interval(len(won), len(lost), n),
        mcnemar_p=metrics.mcnemar(len(won), len(lost)),
        only_first_correct=won,
        only_other_correct=lost,
    )


def pair_heads(first: Classifier, other: Classifier) -> list[int]:
    """For each head of a model the index of the other model's head to compare with: of its task, or the only one.

    Raises:
        ConfigurationError: no head of the other has the task.
    """
    if len(first.heads) == len(other.heads) == 1:
        return [0]
    tasks = [head.task for head in other.heads]
    for head in first.heads:
        if head.task not in tasks:
            raise ConfigurationError(
                f"{other.name}: has no head {head.task!r} to compare with; it has {', '.join(tasks)}"
            )
    return [tasks.index(head.task) for head in first.heads]


def mistakes(answers: Sequence[Answered]) -> list[Answered]:
    """The incorrect answers, the most confident first."""
    return sorted((a for a in answers if not a.correct), key=lambda a: -a.result.score)


class _Figure(NamedTuple):
    value: float | None
    ci95: Interval | None


def _share(k: int, n: int) -> _Figure:
    return _Figure(k / n, wilson(k, n)) if n else _Figure(None, None)


def _groups(answers: Sequence[Answered]) -> list[str]:
    # An index may leave the group empty for a picture that has no near-duplicates.
    return [a.item.group or a.item.name for a in answers]


def _label_figures(label: str, confusion: dict[str, dict[str, int]], area: _Figure) -> LabelFigures:
    n, correct = sum(confusion[label].values()), confusion[label][label]
    answered = sum(row[label] for row in confusion.values())
    return LabelFigures(
        n=n,
        correct=correct,
        recall=_share(correct, n).value,
        recall_ci95=_share(correct, n).ci95,
        answered=answered,
        precision=_share(correct, answered).value,
        precision_ci95=_share(correct, answered).ci95,
        auc_one_vs_rest=area.value,
        auc_one_vs_rest_ci95=area.ci95,
    )


def _scored(head: Head, answers: Sequence[Answered]) -> dict[str, _Figure]:
    """What depends on the scores: "nll", "brier", "auc" of the alarm labels, "auc_macro" and "auc of LABEL"."""
    names = ["nll", "brier", "auc", "auc_macro", *(f"auc of {label}" for label in head.labels)]
    if not answers:
        return dict.fromkeys(names, _Figure(None, None))
    labels = [a.label for a in answers]
    scores = np.array([[a.result.scores[label] for label in head.labels] for a in answers])
    truth = np.array([head.labels.index(label) for label in labels])
    losses = metrics.log_losses(scores, truth, step(head))
    errors = metrics.brier_scores(scores, truth)
    raising = np.array([max((a.result.scores[x] for x in head.alarm), default=0.0) for a in answers])
    is_alarm = np.array([label in head.alarm for label in labels])
    # The area of a label without pictures, or with all of them, is undefined in every resample.
    defined = [i for i in range(len(head.labels)) if 0 < (truth == i).sum() < len(truth)]

    def figures(weights: metrics.Floats) -> npt.NDArray[np.float64]:
        drawn = weights.sum(1)
        areas = np.full((len(head.labels), len(weights)), np.nan)
        for i in defined:
            areas[i] = metrics.weighted_auc(weights, scores[:, i], truth == i)
        macro = areas[defined].mean(0) if defined else np.full(len(weights), np.nan)
        alarm = metrics.weighted_auc(weights, raising, is_alarm)
        return np.array([weights @ losses / drawn, weights @ errors / drawn, alarm, macro, *areas]).T

    values = figures(np.ones((1, len(answers)), np.float32))[0]
    drawn = metrics.bootstrap(_groups(answers), labels, figures)
    intervals = [None] * len(names) if drawn is None else [metrics.percentile_interval(column) for column in drawn.T]
    return {
        name: _Figure(None, None) if math.isnan(value) else _Figure(float(value), interval)
        for name, value, interval in zip(names, values, intervals, strict=True)
    }

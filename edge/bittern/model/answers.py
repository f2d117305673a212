"""What is said of an answer and of a model in JSON: the same by command and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bittern.model import origin
from bittern.model.classifier import Classifier
from bittern.model.input_maker import describe_input, name_of
from bittern.model.scores import rule_of
from bittern.model.views import Prediction


def rows(
    name: str, classifiers: Sequence[Classifier], predictions: Sequence[Prediction], shared_ns: int
) -> list[dict[str, object]]:
    """One JSON object per head of every model, as `bittern classify --json` prints them.

    Args:
        name: of the picture, in UTF-8.
        classifiers: the models.
        predictions: of the models, in the same order (`views.predict`).
        shared_ns: the time that they shared, in ns.
    """
    objects = []
    for classifier, prediction in zip(classifiers, predictions, strict=True):
        time_ms = (shared_ns + prediction.invoke_ns + prediction.answer_ns) / 1e6
        for result in prediction.results:
            row: dict[str, object] = {
                "path": name,
                "model": classifier.name,
                "task": result.task,
                "label": result.label,
                "score": round(result.score, 6),
                "alarm": result.alarm,
                "scores": {label: round(score, 6) for label, score in result.scores.items()},
                "time_ms": round(time_ms, 3),
            }
            if result.view != "center":
                row["view"] = result.view
            objects.append(row)
    return objects


def description(classifier: Classifier, folder: Path) -> dict[str, object]:
    """A model in JSON, as `bittern models --json` prints it, without its folder."""
    manifest = classifier.manifest
    where = origin.of_folder(folder) if manifest is not None else "unsigned"
    return {
        "name": classifier.name,
        "verified": where != "unsigned",
        "origin": where,
        "version": classifier.version,
        "path": classifier.path,
        "bytes": len(classifier.data),
        "sha256": manifest.sha256 if manifest is not None else None,
        "tasks": {head.task: list(head.labels) for head in classifier.heads},
        "alarm": [label for head in classifier.heads for label in head.alarm],
        "input": describe_input(classifier.input),
        "pixels": name_of(classifier.input),
        "pixels_from": classifier.pixels_from,
        "scores": {head.task: rule_of(head) for head in classifier.heads},
        "scores_from": classifier.scores_from,
    }

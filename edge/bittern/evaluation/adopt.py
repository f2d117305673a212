"""Makes a model folder out of a bare .tflite file: manifest, labels, golden vectors on both execution paths, card."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, evaluate
from bittern.evaluation.dataset import Item
from bittern.evaluation.evaluate import Answered
from bittern.frames import Pixels
from bittern.model import golden, manifest, runtime
from bittern.model.bare import Bare
from bittern.model.classifier import Classifier
from bittern.model.input_maker import describe_input, name_of
from bittern.model.manifest import GoldenPath, Head, Manifest, StillPoint, Threshold
from bittern.model.operating import off_of
from bittern.model.runtime import ExecutionPath
from bittern.model.scores import rule_of
from bittern.system import fileio
from bittern.version import __version__

MODEL_FILE, LABELS_FILE, CARD_FILE = "model.tflite", "labels.txt", "MODEL_CARD.md"
# Golden frames, (width, height), chosen so that a network of 224 pixels enlarges one and shrinks the others.
_SIZES = ((200, 160), (600, 500), (480, 320))
# As for models of our own: what the same architecture, and another one, may be off.
_ALLOWED: dict[ExecutionPath, tuple[int, int]] = {"xnnpack": (0, 8), "builtin": (8, 64)}
# XNNPACK of float32 sums in an order that depends on the processor: a step of a score is 1/256.
_ALLOWED_FLOAT: dict[ExecutionPath, tuple[int, int]] = {"xnnpack": (1, 2), "builtin": (1, 2)}
_STEPS = np.arange(1, 256) / 256
# With fewer pictures of either side no threshold is chosen on them.
LEAST_PICTURES = 5
_UNCHOSEN = "unchosen: no labelled pictures; an even chance"


def named(text: str) -> str:
    """A name that a manifest takes: lower case, and nothing but letters, digits, _ . and -."""
    return re.sub(r"[^a-z0-9_.-]+", "_", text.lower()).strip("_.-")[:64] or "model"


class Adopted(NamedTuple):
    """A new model folder.

    Attributes:
        manifest: of the new folder.
        notes: what its owner should know, a line each.
        failed: a line for each picture that could not be read.
    """

    manifest: Manifest
    notes: list[str]
    failed: list[str]


def adopt(
    file: Path,
    out: Path,
    stated: Bare,
    *,
    name: str,
    version: str,
    items: Sequence[Item],
    progress: Callable[[int], None],
) -> Adopted:
    """Make a model folder of a bare file. It appears whole or not at all.

    Args:
        file: the .tflite file; it is copied, not changed.
        out: the folder to make; it must not exist.
        stated: what the file does not say.
        name: of the model, and of its task.
        version: of the model.
        items: labelled pictures to choose the threshold on and to report figures of; without any none is chosen.
        progress: called with the number of pictures done.

    Raises:
        ConfigurationError: the name or version is invalid, `out` exists, or the data does not fit the labels.
        ModelRefused, Unstated: see `Classifier`.
    """
    try:
        msgspec.convert(name, manifest.Name)
        msgspec.convert(version, manifest.Text)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"name {name!r}, version {version!r}: {error}: see --name and --version") from None
    if out.exists():
        raise ConfigurationError(f"{out} exists already: give another --out")
    classifier = Classifier(file, bare=stated)
    (head,) = classifier.heads
    answers, failed = evaluate.answer(classifier, list(items), None, progress) if items else ([[]], [])
    # Nothing is chosen on what is for reporting.
    reported = {id(item) for subset in dataset.for_reporting(items) for item in subset.items}
    reporting = [answer for answer in answers[0] if id(answer.item) in reported]
    choosing = [answer for answer in answers[0] if id(answer.item) not in reported]
    threshold, points, notes = _threshold(head, choosing, stated)
    head = msgspec.structs.replace(head, task=name, thresholds={"default": threshold}, stills=points)
    if not head.alarm:
        notes.append(f"no label raises an alarm, so the daemon cannot use it: delete {out}, and give --alarm LABEL")
    with fileio.atomic_folder(out) as new:
        (new / MODEL_FILE).write_bytes(classifier.data)
        (new / LABELS_FILE).write_text("".join(f"{label}\n" for label in head.labels), encoding="utf-8")
        recorded = _record(file, classifier, stated, new / golden.FILE)
        held_back = _figures(classifier, head, "held back", reporting)
        figures = held_back or _figures(classifier, head, "the same pictures", choosing)
        described = Manifest(
            name=name,
            version=version,
            file=MODEL_FILE,
            sha256=hashlib.sha256(classifier.data).hexdigest(),
            size=len(classifier.data),
            input=classifier.input,
            heads=(head,),
            golden=recorded,
            provenance={
                "adopted": {
                    "file": file.name,
                    "pixels": name_of(classifier.input),
                    "pixels_from": classifier.pixels_from,
                    "scores_from": classifier.scores_from,
                    "stated": {k: v for k, v in msgspec.to_builtins(stated).items() if v},
                    "bittern": __version__,
                    "runtime": f"{runtime.DISTRIBUTION} {runtime.version()}",
                },
                "data": {"pictures": len(items), "sha256": dataset.digest(items)} if items else {},
                "reports": figures,
            },
        )
        (new / CARD_FILE).write_text(_card(described, classifier, notes), encoding="utf-8")
        described = manifest.write(new, described)
        Classifier(new, tried=True)  # what was made is opened once as a user would; the file itself has been tried
    return Adopted(described, notes, failed)


def _threshold(
    head: Head, answers: Sequence[Answered], stated: Bare
) -> tuple[Threshold, tuple[StillPoint, ...], list[str]]:
    """The threshold, what each of others would give, and what to know about it."""
    if stated.threshold is not None:
        on = stated.threshold
        return Threshold(on=on, off=off_of(on), chosen_for="stated by the owner"), (), []
    unchosen = Threshold(on=0.5, off=off_of(0.5), chosen_for=_UNCHOSEN)
    if not answers or not head.alarm:
        return unchosen, (), ["the threshold is unchosen, 0.5: give labelled pictures with --data to choose it"]
    scores = np.array([max(answer.result.scores[label] for label in head.alarm) for answer in answers])
    positive = np.array([answer.label in head.alarm for answer in answers])
    n, m = int(positive.sum()), int((~positive).sum())
    if min(n, m) < LEAST_PICTURES:
        kinds = f"{n} pictures with an alarm label and {m} without"
        return unchosen, (), [f"the threshold is unchosen, 0.5: {kinds} are too few, at least {LEAST_PICTURES} of each"]
    found_share = (scores[positive, None] >= _STEPS).mean(0)
    false = (scores[~positive, None] >= _STEPS).mean(0)
    balanced = (found_share + 1 - false) / 2
    # Of several that are as good the middle one, which is the furthest from both kinds.
    best = np.flatnonzero(balanced > balanced.max() - 1e-9)
    i = int(best[len(best) // 2])
    points = tuple(
        StillPoint(on=float(on), found=round(float(f), 4), false=round(float(g), 4))
        for on, f, g in zip(_STEPS[::8], found_share[::8], false[::8], strict=True)
    )
    chosen = (
        f"the best balanced accuracy on its owner's labelled pictures: {found_share[i]:.1%} of {n} alarms found, "
        f"{false[i]:.1%} of {m} others are false alarms"
    )
    note = f"threshold {_STEPS[i]:.3f}, by {chosen}"
    on = float(_STEPS[i])
    return Threshold(on=on, off=off_of(on), chosen_for=chosen), points, [note]


def _record(file: Path, classifier: Classifier, stated: Bare, target: Path) -> dict[ExecutionPath, GoldenPath]:
    """Golden vectors of both execution paths; of one, if the other cannot run the graph on this machine."""
    frames = [_blobs(number, *size) for number, size in enumerate(_SIZES)]
    tensors = [classifier.preprocess(frame).copy() for frame in frames]
    outputs: dict[str, list[list[Pixels]]] = {}
    paths: dict[ExecutionPath, GoldenPath] = {}
    allowed = _ALLOWED_FLOAT if classifier.heads[0].dtype == "float32" else _ALLOWED
    for path in runtime.PATHS:
        if path == "xnnpack" != classifier.path:
            continue  # XNNPACK does not take this graph
        on_path = classifier if path == classifier.path else Classifier(file, bare=stated, path=path)
        outputs[path] = [[raw.copy() for raw in on_path.invoke(tensor)] for tensor in tensors]
        same, other = allowed[path]
        paths[path] = GoldenPath(
            runtime=runtime.DISTRIBUTION,
            version=runtime.version(),
            machine=platform.machine(),
            same_machine_steps=same,
            other_machine_steps=other,
        )
    golden.save(target, frames, tensors, outputs)
    return paths


def _blobs(seed: int, width: int, height: int) -> Pixels:
    """A drawn frame (height, width, 3) uint8: soft spots of colour, and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    frame: Pixels = np.clip(soft.astype(int) + rng.integers(-20, 21, soft.shape), 0, 255).astype(np.uint8)
    return frame


def _figures(classifier: Classifier, head: Head, split: str, answers: Sequence[Answered]) -> dict[str, Any]:
    if not answers:
        return {}
    report = msgspec.to_builtins(evaluate.report(classifier, head, split, answers, []))
    kept = ("n", "correct", "accuracy", "accuracy_ci95", "auc", "auc_ci95", "confusion")
    return {f"owner/{split}": {key: report[key] for key in kept}}


def _card(described: Manifest, classifier: Classifier, notes: Sequence[str]) -> str:
    (head,) = described.heads
    adopted = described.provenance["adopted"]
    threshold = head.thresholds["default"]
    more = f" and {len(head.labels) - 20} more" if len(head.labels) > 20 else ""
    lines = [
        f"# {described.name} {described.version}",
        "",
        f"Adopted by `bittern adopt` from `{adopted['file']}`, which another tool made. Nothing is known of its",
        "training data.",
        "",
        "| what | |",
        "| --- | --- |",
        f"| labels | {', '.join(head.labels[:20])}{more} |",
        f"| raise an alarm | {', '.join(head.alarm) or 'none'} |",
        f"| input | {describe_input(classifier.input)} |",
        f"| pixels | {adopted['pixels']} ({adopted['pixels_from']}) |",
        f"| scores | {rule_of(head)} ({adopted['scores_from']}) |",
        f"| threshold | on {threshold.on:.3f}, off {threshold.off:.3f}: {threshold.chosen_for} |",
        f"| golden vectors | {', '.join(described.golden)} |",
        f"| sha256 | {described.sha256} |",
        "",
    ]
    for split, figures in described.provenance["reports"].items():
        low, high = figures["accuracy_ci95"]
        chosen = (
            "the threshold was chosen on others"
            if split.endswith("held back")
            else ("the threshold was chosen on the same ones: expect less on others")
        )
        lines += [
            f"On {figures['n']} labelled pictures of its owner {figures['correct']} answers are correct, "
            f"{figures['accuracy']:.1%} (95 % {low:.1%} to {high:.1%}); {chosen}.",
            "",
        ]
    return "\n".join([*lines, *(f"- {note}" for note in notes)]).rstrip() + "\n"

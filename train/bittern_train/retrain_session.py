"""Retraining: from a run and newly labelled pictures to a new run and a verdict."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.system.progress import Progress, counted
from bittern_convert import inputs, package, run
from bittern_convert.run import Run
from bittern_train import checkpoints, retraining, session, workers
from bittern_train.retraining import Retrained


def retrain(folder: Path, added: Path, out: Path, *, weights: str, root: Path | None, progress: Progress) -> Retrained:
    """Train again, and compare; the verdict is in the new run too. An interrupted attempt goes on.

    The new network starts where the run's started, not from the run's own weights: those have been trained on the
    pictures that the folds validate, and every choice would be made on answers that are too good.

    Args:
        folder: of the run.
        added: the newly labelled pictures.
        out: folder of the new run; beside it `NAME.data` holds links to all pictures.
        weights: those that the run started from.
        root: of the run's pictures; None where they were.
        progress: gets each step.

    Raises:
        ConfigurationError: run, pictures or weights do not fit.
    """
    workers.check_alone("training again")
    made = run.load(folder)
    if not session.has_started_from(made, weights):
        raise ConfigurationError(
            f"--weights {weights}: not those that run {made.id!r} started from, which are {_named(made.weights_sha256)}"
        )
    links, interrupted = out.parent / f"{out.name}.data", checkpoints.interrupted(out)
    if links.exists() and not interrupted:
        raise ConfigurationError(f"{links} exists already: give another --out, or remove it")
    data = root or Path(made.data)
    items = dataset.read(folder / run.INDEX, data)
    pictures = retraining.without_near_duplicates(retraining.sort(made, items, dataset.read(added)), progress)
    old = package.load_model(folder)
    asked = [item for _, item in retraining.to_answer(pictures)]
    mistakes = retraining.mistaken(made, pictures, _answers(old, made, asked, progress, "the run's answers"))
    progress.say(
        f"{len(pictures.new)} new pictures and {len(pictures.corrected)} corrected ones, of which the run's network "
        f"gets {len(mistakes)} wrong; left out: {pictures.unlabelled} without a label, {pictures.known} known, "
        f"{pictures.tested} test pictures or near-duplicates of one"
    )
    task = retraining.assemble(made, data, pictures, mistakes, links, again=interrupted)
    try:
        session.train(task, links, out, weights=weights, seed=made.seed, resume=True, progress=progress)
    except BaseException:
        if not (out.exists() or checkpoints.interrupted(out)):
            shutil.rmtree(links)  # nothing needs them, and the next attempt makes them anew
        raise
    tested = retraining.tested(out, links)
    was = _answers(old, made, tested, progress, "test pictures, before")
    now = _answers(package.load_model(out), made, tested, progress, "test pictures, now")
    readable = (was >= 0) & (now >= 0)
    targets = np.array([made.task.labels.index(item.label or "") for item in tested], np.int64)
    kept = [item for item, own in zip(tested, readable, strict=True) if own]
    if not kept:
        raise ConfigurationError(f"{links}: no test picture can be read")
    verdict = retraining.judge(kept, targets[readable], was[readable], now[readable])
    retraining.write(out, verdict)
    return verdict


def _named(weights_sha256: str) -> str:
    return f"a file with the sha256 {weights_sha256[:12]}..." if len(weights_sha256) == 64 else weights_sha256


def _answers(model: Any, made: Run, items: Sequence[Item], progress: Progress, step: str) -> npt.NDArray[np.int64]:
    """(n,) index of the label that a network answers to each picture; -1 for one that cannot be read."""
    answers = np.full(len(items), -1, np.int64)
    read: list[int] = []
    size = int(model.input_shape[1])

    def tensors() -> Iterator[Pixels]:
        for i, item in enumerate(items):
            tensor = inputs.tensor(item, made.task.field_of_view, size)
            if tensor is not None:
                read.append(i)
                yield tensor[0]

    if items:
        scores = package.float_scores(model, counted(tensors(), progress, step, len(items)))
        answers[read] = scores.argmax(1)
    return answers

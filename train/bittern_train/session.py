"""One training session: from a task and a folder of pictures to a finished run."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, evaluate
from bittern.evaluation.dataset import Item
from bittern.model.preprocess import CENTER
from bittern.system import fileio
from bittern_convert import calibration, parity, run
from bittern_convert.run import Run
from bittern_convert.task import Task
from bittern_train import pool as pools
from bittern_train import report, thresholds, training
from bittern_train.network import Network, features
from bittern_train.pool import Photo, Sample
from bittern_train.training import Cache, Choice

# Copies that conversion's gate is given at least, however many photographs there are.
GATE_COPIES = 200

# Pictures that give a random network its batch norm statistics.
SETTLING_PICTURES = 512

# (what, done, of)
Progress = Callable[[str, int, int], None]


def train(
    task: Task,
    root: Path,
    out: Path,
    *,
    weights: str,
    seed: int,
    replace: bool,
    say: Callable[[str], None],
    progress: Progress,
) -> Run:
    """Train and write a run, whole or not at all.

    Args:
        task: what to learn.
        root: folder that the task's data sets are below.
        out: folder of the run.
        weights: "imagenet", "none" or a file.
        seed: of everything random.
        replace: whether `out` may be there already.
        say: takes lines for the user.
        progress: takes how far each step is.

    Raises:
        ConfigurationError: data, labels, weights or recipe do not fit.
    """
    start, revision = time.monotonic(), _revision()
    if out.exists() and not replace:
        raise ConfigurationError(f"{out} is there already: give another --out, or --force to replace it")
    if out.exists() and not (out / run.FILE).is_file():
        raise ConfigurationError(f"{out} is no run: it is not replaced")
    ready = prepare(task, root, weights=weights, seed=seed, progress=progress)
    for line in ready.skipped:
        say(f"skipped {line}")
    pool, network, cache = ready.pool, ready.network, ready.cache
    choices = training.cross_validate(task, network, pool, cache, seed, progress)
    best = choices[0]
    chosen = [s for s in pool if s.chooses]
    for choice in choices:
        say(_line(task, choice, chosen))
    model, fits = training.fit(task, network, pool, cache, best, seed, lambda done, of: progress("final fit", done, of))
    targets = np.array([s.target for s in chosen], np.int64)
    with fileio.atomic_folder(out, replace=replace) as new:
        model.save(new / run.MODEL)
        pools.write_index(new / run.INDEX, ready.everything)
        _write_copies(new / run.COPIES, task, ready, seed)
        history = {
            "candidates": [
                {"rate": c.candidate.rate, "loss": c.loss, "folds": [f.history for f in c.folds]} for c in choices
            ],
            "final": [fit.history for fit in fits],
        }
        (new / "history.json").write_text(json.dumps(history, indent=1).replace("NaN", "null"))
        report.curves(new / "curves.png", choices)
        report.confusion(new / "confusion.png", task.labels, targets, best.scores[:, 0].argmax(1))
        made = Run(
            id=out.name,
            task=task,
            data=str(root.resolve()),
            data_sha256=dataset.digest(ready.everything),
            weights_sha256=_sha256(Path(weights)) if Path(weights).is_file() else weights,
            seed=seed,
            thresholds=_thresholds(task, best, targets),
            metrics=_metrics(task, best, chosen),
            choice={
                "rate": best.candidate.rate,
                "epochs": best.epochs,
                **_criteria(best),
                "others": [{"rate": c.candidate.rate, **_criteria(c)} for c in choices[1:]],
            },
            pictures=_counts(task, pool, len(pool) + len(ready.skipped)),
            skipped=ready.skipped,
            versions={
                "python": platform.python_version(),
                **{p: metadata.version(p) for p in ("keras", "numpy", "scikit-learn")},
                **run.environment(),
            },
            revision=revision,
            seconds=round(time.monotonic() - start, 1),
        )
        # Last: a run is finished when this file is there.
        (new / run.FILE).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1))
    return made


class Prepared(NamedTuple):
    """What a task trains on: see `pool`, and `training.Cache`."""

    pool: list[Sample]
    everything: list[Item]
    photos: list[Photo]
    skipped: list[str]
    network: Network
    cache: Cache


def prepare(
    task: Task, root: Path, *, weights: str, seed: int, progress: Progress, also: Sequence[Sample] = ()
) -> Prepared:
    """Gather, read and draw the pictures of a task, and run all copies through the frozen body.

    Args:
        task: see `train`.
        root: see `train`.
        weights: see `train`.
        seed: see `train`.
        progress: see `train`.
        also: samples besides the task's own.

    Raises:
        ConfigurationError: data, labels, weights or recipe do not fit.
    """
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    if weights == "none":
        keras.utils.set_random_seed(seed)  # the weights are drawn when the network is built
    pool, everything = pools.gather(task, root, seed)
    network = Network(weights, task.recipe.cut, task.recipe.noise)
    pool = pools.add_drawn(task, [*pool, *also], seed)
    wanted = len(pool)

    def counted(decoded: Iterator[Photo | str]) -> Iterator[Photo | str]:
        for done, one in enumerate(decoded):
            yield one
            progress("read pictures", done + 1, wanted)

    pool, photos, skipped = pools.readable(task, pool, counted)
    pools.check_classes(task, pool)
    if weights == "none":
        some = np.random.default_rng(seed).permutation(len(pool))[:SETTLING_PICTURES]
        plain = pools.copies(task, [pool[i] for i in some], [photos[i] for i in some], seed, [0])
        network.settle(np.concatenate(list(plain)))
    copies = task.augment.copies
    cached = features(
        network.body,
        pools.copies(task, pool, photos, seed, range(copies)),
        (len(pool), copies),
        lambda done: progress(f"features of {copies} copies", done, len(pool)),
    )
    chosen = [i for i, s in enumerate(pool) if s.chooses]
    views = len(task.views)
    harmed = features(
        network.body,
        pools.harmed(task, [photos[i] for i in chosen], seed),
        (len(chosen), pools.HARMED * views),
        lambda done: progress("features of harmed pictures", done, len(chosen)),
    )
    as_is = cached[chosen, :1]  # copy 0 is the centred square as it is
    if task.views != CENTER:
        as_is = features(
            network.body,
            pools.seen(task, [photos[i] for i in chosen]),
            (len(chosen), views),
            lambda done: progress("features of the views", done, len(chosen)),
        )
    judged = np.concatenate([as_is, harmed], axis=1).reshape(len(chosen), -1, views, *harmed.shape[2:])
    cache = Cache(cached, judged, np.array([s.target for s in pool], np.int64))
    return Prepared(pool, everything, photos, skipped, network, cache)


def _criteria(choice: Choice) -> dict[str, float]:
    return {"accuracy": choice.accuracy, "harmed_accuracy": choice.harmed_accuracy, "loss": choice.loss}


def _line(task: Task, choice: Choice, chosen: list[Sample]) -> str:
    sets = _metrics(task, choice, chosen)["sets"]
    right = ", ".join(f"{name} {of['correct']} of {of['n']}" for name, of in sets.items())
    return (
        f"rate {choice.candidate.rate:g}: out of fold right on {right}; labels alike {choice.accuracy:.1%}, "
        f"harmed {choice.harmed_accuracy:.1%}; loss {choice.loss:.4f} after {choice.epochs} epochs"
    )


def _write_copies(file: Path, task: Task, ready: Prepared, seed: int) -> None:
    pool, photos = ready.pool, ready.photos
    wanted = max(GATE_COPIES, calibration.copies(ready.everything, task.labels, seed, parity.PICTURES))
    # Numbers of their own: copies that no epoch has seen.
    rounds = range(task.augment.copies, task.augment.copies + -(-wanted // len(pool)))
    chosen = np.random.default_rng(seed).permutation(len(pool))[: -(-wanted // len(rounds))]
    samples = [pool[i] for i in chosen for _ in rounds]
    made = pools.copies(task, [pool[i] for i in chosen], [photos[i] for i in chosen], seed, list(rounds))
    tensors = np.concatenate(list(made))
    kinds = {"photo": "augmented copies", "street": "drawn streets", "pasted": "photographs with a drawn sign"}
    with fileio.atomic(file) as opened:
        np.savez(
            opened,
            tensors=tensors,
            targets=np.array([s.target for s in samples], np.int64),
            kinds=np.array([kinds[s.kind] for s in samples]),
            names=np.array([s.item.name for s in samples]),
            groups=np.array([s.item.group for s in samples]),
        )


def _thresholds(task: Task, best: Choice, targets: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    alarms = [task.labels.index(label) for label in task.alarm]
    if not alarms:
        # No label raises an alarm, so no figure can choose; a score that is more likely than not.
        return {"default": {"on": 0.5, "off": 0.5, "chosen_for": "no alarm labels: an even chance"}}
    positive, nothing = np.isin(targets, alarms), np.isin(targets, [task.labels.index(x) for x in task.nothing])
    # Where there is only the alarm and its absence, "nothing" is the absence, of which "quiet" takes care.
    apart = None if (positive | nothing).all() else nothing
    found = thresholds.choose(best.scores[:, 0, alarms].max(1), positive, apart)
    if not (seen := task.field_of_view.text()):
        return found
    return {k: msgspec.structs.replace(t, chosen_for=f"{t.chosen_for}, {seen}") for k, t in found.items()}


def _metrics(task: Task, best: Choice, chosen: list[Sample]) -> dict[str, Any]:
    targets = np.array([s.target for s in chosen])
    right = best.scores[:, 0].argmax(1) == targets
    sets = np.array([s.item.columns["set"] for s in chosen])
    found = {}
    for name in ["all", *sorted(set(sets))]:
        mask = np.ones(len(sets), bool) if name == "all" else sets == name
        n, k = int(mask.sum()), int(right[mask].sum())
        found[name] = {"n": n, "correct": k, "accuracy": k / n, "accuracy_ci95": evaluate.wilson(k, n)}
    harmed = best.scores[:, 1:].argmax(2) == targets[:, None]
    seen = task.field_of_view.text()
    return {
        "method": f"grouped {task.recipe.folds}-fold over train + val, float" + (f", {seen}" if seen else ""),
        "sets": found,
        # No interval: the versions of a picture are not independent.
        "harmed": {"n": harmed.size, "correct": int(harmed.sum()), "accuracy": float(harmed.mean())},
    }


def _counts(task: Task, pool: list[Sample], wanted: int) -> dict[str, Any]:
    kinds: dict[str, dict[str, int]] = {}
    for sample in pool:
        of = kinds.setdefault(sample.kind, dict.fromkeys(task.labels, 0))
        of[task.labels[sample.target]] += 1
    return {"trained_on": kinds, "copies": task.augment.copies, "unreadable": wanted - len(pool)}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _revision() -> str:
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():  # installed; whatever repository is around it is not ours
        return ""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()

"""One training session: from a task and a folder of pictures to a finished run."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import math
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import bittern
import bittern_convert
import bittern_train
from bittern.evaluation import dataset, evaluate
from bittern.evaluation.dataset import Item
from bittern.model.manifest import StillPoint, Streams, Threshold
from bittern.model.preprocess import CENTER
from bittern.system import fileio
from bittern.system.progress import Counter, Progress, counted
from bittern_convert import calibration, copies, parity, run, thresholds
from bittern_convert.copies import Sample, UnseenCopies
from bittern_convert.run import Run
from bittern_convert.task import Backbone, Task
from bittern_train import (
    backbones,
    checkpoints,
    confidence,
    estimate,
    out_of_fold,
    pool,
    report,
    stream_fold,
    training,
    workers,
)
from bittern_train.network import Indices, Network, answers, features, side_by_side
from bittern_train.out_of_fold import OutOfFold
from bittern_train.pool import Decoded
from bittern_train.training import Cache, Choice, Fold, Trainer
from bittern_train.workers import Chief, Hosts, Worker

# Copies that conversion's parity check is given at least, however many photographs there are.
CHECKED_COPIES = 200

# Pictures that give a random network its batch norm statistics.
SETTLING_PICTURES = 512

# Where the code is that trains.
PACKAGES = tuple(Path(package.__path__[0]) for package in (bittern, bittern_convert, bittern_train))


class Loaded(NamedTuple):
    """What a task trains on, and the network.

    Attributes:
        everything: the items that are trained on, chosen with or reported on.
        decoded: the samples that are trained on.
        network: with its start weights.
    """

    everything: list[Item]
    decoded: Decoded
    network: Network


class Prepared(NamedTuple):
    """What a task trains on, the network, and what its frozen body makes of the samples."""

    everything: list[Item]
    decoded: Decoded
    network: Network
    cache: Cache


def train(
    task: Task,
    root: Path,
    out: Path,
    *,
    weights: str,
    seed: int,
    replace: bool = False,
    resume: bool = False,
    hosts: Hosts | None = None,
    progress: Progress,
) -> Run:
    """Train and write a run, whole or not at all.

    What is interrupted leaves its finished fits in `checkpoints.folder_of(out)`; resumed, it comes to the same bytes as
    without the interruption.

    Args:
        task: what to learn.
        root: folder that the task's data sets are below.
        out: folder of the run.
        weights: "imagenet", "none" or a file.
        seed: of everything random.
        replace: whether `out`, or an interrupted training of it, may exist already.
        resume: whether to go on with an interrupted training, if there is one.
        hosts: that train together; this process is their chief. The others run `assist`.
        progress: gets each step, and lines on the pictures and the candidates.

    Raises:
        ConfigurationError: data, labels, weights or recipe do not fit, or the interrupted training was another one.
    """
    start, revision = time.monotonic(), _revision()
    code = code_version(revision)
    run.check_target(out, replace=replace)
    checkpoints.check(out, resume=resume, replace=replace)
    if hosts is None:
        workers.check_alone("a training on one host")
    with contextlib.ExitStack() as stack:
        chief = stack.enter_context(Chief(hosts, progress)) if hosts is not None else None
        loaded = load(task, root, weights=weights, seed=seed, progress=progress)
        conditions = _conditions(task, loaded, weights, seed, code)
        kept = stack.enter_context(checkpoints.checkpoints(out, conditions, resume=resume, replace=replace))
        everything, decoded, network = loaded
        if chief is not None:
            chief.open(conditions, training.missing(task, kept), kept, Fold)
        if kept:
            progress.say(f"going on after the last finished fit in {checkpoints.folder_of(out)}")
        expected_s = estimate.seconds(task, decoded, estimate.measure(task, network, decoded, seed))
        progress.say(f"about {math.ceil(expected_s / 60)} min on this machine, less if folds stop early")
        cache = _cache(task, loaded, seed, progress)
        choosing = [s for s in decoded.samples if s.chooses]
        photos = decoded.photos.some(np.flatnonzero([s.chooses for s in decoded.samples]))
        footage = stream_fold.footage(task, network, choosing, photos, seed, progress)
        trainer = Trainer(network, task.recipe, len(task.labels))
        choices = training.cross_validate(task, trainer, decoded.samples, cache, footage, seed, progress, kept, chief)
        best = choices[0]
        for choice in choices:
            progress.say(_line(task, choice, choosing))
        out_of_folds = _out_of_fold(task, loaded, cache, best, seed)
        model, fits = training.final_fit(task, trainer, cache, best, seed, progress, kept)
        targets = np.array([s.target for s in choosing], np.int64)
        operating = _operating(task, best, targets)
        history = {
            "candidates": [
                {"rate": c.candidate.rate, "loss": c.loss, "folds": [f.history for f in c.folds]} for c in choices
            ],
            "final": [fit.history for fit in fits],
        }
        made = Run(
            id=out.name,
            task=task,
            data=str(root.resolve()),
            data_sha256=dataset.digest(everything),
            weights_sha256=weights_sha256(weights, task.backbone),
            seed=seed,
            thresholds=operating.thresholds,
            stills=operating.stills,
            streams=operating.streams,
            metrics=_metrics(task, best, choosing),
            choice={
                "rate": best.candidate.rate,
                "epochs": best.epochs,
                **_criteria(best),
                "others": [{"rate": c.candidate.rate, **_criteria(c)} for c in choices[1:]],
            },
            pictures=_counts(task, decoded),
            skipped=decoded.skipped,
            versions=_versions(),
            revision=revision,
            seconds=round(time.monotonic() - start, 1),
            copies=_unseen_copies(task, loaded, seed, progress),
        )
        with fileio.atomic_folder(out, replace=replace) as new:
            model.save(new / run.MODEL)
            pool.write_index(new / run.INDEX, everything, decoded.digests)
            (new / "history.json").write_text(json.dumps(history, indent=1).replace("NaN", "null"))
            out_of_fold.write(new, out_of_folds)
            report.curves(new / "curves.png", choices)
            report.confusion(new / "confusion.png", task.labels, targets, best.scores[:, 0].argmax(1))
            # Last: a run is finished when this file exists.
            (new / run.FILE).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1))
        return made


def assist(task: Task, root: Path, hosts: Hosts, *, weights: str, seed: int, progress: Progress) -> int:
    """Make fits of a training for its chief; nothing is written here.

    Args:
        task: see `train`.
        root: see `train`.
        hosts: that train together; this process is one of their workers.
        weights: see `train`.
        seed: see `train`.
        progress: see `train`.

    Returns:
        How many fits were made.

    Raises:
        ConfigurationError: data, labels, weights or recipe do not fit, or the chief trains something else.
        BitternError: the chief does not answer, or is gone.
    """
    code = code_version(_revision())
    with Worker(hosts, progress) as worker:
        loaded = load(task, root, weights=weights, seed=seed, progress=progress)
        if not worker.greet(_conditions(task, loaded, weights, seed, code)):
            return 0
        samples, cache = loaded.decoded.samples, _cache(task, loaded, seed, progress)
        splits = training.split(samples, cache.targets, task.recipe.folds, seed)
        trainer = Trainer(loaded.network, task.recipe, len(task.labels))
        filmed, jobs, count = stream_fold.frames(task, len(splits.targets)) > 0, training.jobs(task), 0
        for name in worker.names():
            job = jobs[name]
            counter = Counter(progress, f"rate {job.candidate.rate:g}, fold {job.fold + 1}", task.recipe.epochs)
            fold = training.make(task, trainer, cache, splits, job, seed, filmed=filmed, counter=counter)
            counter.reach(task.recipe.epochs)
            worker.send(checkpoints.encode(fold))
            count += 1
        return count


def prepare(
    task: Task, root: Path, *, weights: str, seed: int, progress: Progress, also: Sequence[Sample] = ()
) -> Prepared:
    """`load`, then run all copies through the frozen body."""
    workers.check_alone("a study")
    loaded = load(task, root, weights=weights, seed=seed, progress=progress, also=also)
    return Prepared(*loaded, _cache(task, loaded, seed, progress))


def load(task: Task, root: Path, *, weights: str, seed: int, progress: Progress, also: Sequence[Sample] = ()) -> Loaded:
    """Gather and decode the pictures of a task, and build the network.

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
    start = backbones.start_of(task.backbone, weights)
    if start == "none":
        keras.utils.set_random_seed(seed)  # the weights are drawn when the network is built
    samples, everything = pool.gather(task, root, seed, progress)
    samples = copies.with_drawn(task, [*samples, *also], seed)
    pool.check_classes(task, samples)
    network = Network(weights, task.recipe.cut, task.recipe.noise, task.backbone)
    progress.say(_pictures(task, everything))
    decoded = pool.decode(task, samples, progress)
    for line in decoded.skipped:
        progress.say(f"skipped {line}")
    if twice := pool.two_labels(task, decoded):
        progress.say(twice)
    pool.check_classes(task, decoded.samples)
    photos = decoded.photos
    network.shorten_norm_averages(task.recipe.epochs * -(-len(decoded.samples) // task.recipe.batch))
    if start == "none":
        some = np.random.default_rng(seed).permutation(len(photos))[:SETTLING_PICTURES]
        plain = copies.draw(task, [decoded.samples[i] for i in some], [photos[i] for i in some], seed, [0])
        network.settle(np.concatenate(list(plain)))
    return Loaded(everything, decoded, network)


def _out_of_fold(task: Task, loaded: Loaded, cache: Cache, best: Choice, seed: int) -> OutOfFold:
    """What the run keeps of the pictures that choose; the network's tail has its start weights afterwards."""
    samples, network = loaded.decoded.samples, loaded.network
    choosing = np.flatnonzero([s.chooses for s in samples])
    parts = training.split(samples, cache.targets, task.recipe.folds, seed).parts
    rows = out_of_fold.feature_rows(len(choosing), seed)
    network.reset(seed)
    pooled = answers(network.tail, cache.features, cache.features.numbers(choosing[rows], 1))
    return OutOfFold(
        names=[samples[i].item.name for i in choosing],
        folds=out_of_fold.fold_numbers([part.validated for part in parts]),
        scores=confidence.tempered(best.scores[:, 0], best.temperature),
        rows=rows,
        features=pooled.astype(np.float16),
    )


def _cache(task: Task, loaded: Loaded, seed: int, progress: Progress) -> Cache:
    network, samples, photos = loaded.network, loaded.decoded.samples, loaded.decoded.photos
    numbers = range(task.augment.copies)
    drawn = copies.draw(task, samples, photos, seed, numbers)
    cached = features(
        network.body,
        counted(drawn, progress, f"features of {len(numbers)} copies", len(samples)),
        (len(samples), len(numbers)),
    )
    choosing = np.flatnonzero([s.chooses for s in samples])
    chosen, views = photos.some(choosing), len(task.views)
    every = np.arange(len(chosen))
    corrupted = features(
        network.body,
        counted(pool.corrupted(task, chosen, seed), progress, "features of corrupted pictures", len(chosen)),
        (len(chosen), pool.CORRUPTED * views),
    )
    as_is = cached, choosing, 1  # copy 0 is the centred square as it is
    if task.views != CENTER:
        viewed = counted(pool.viewed(task, chosen), progress, "features of the views", len(chosen))
        as_is = features(network.body, viewed, (len(chosen), views)), every, views
    judged = side_by_side([as_is, (corrupted, every, pool.CORRUPTED * views)])
    return Cache(cached, judged, np.array([s.target for s in samples], np.int64))


def _pictures(task: Task, everything: Sequence[Item]) -> str:
    """What was found, and what is left for testing, label by label."""
    trained = collections.Counter(item.label for item in everything if item.split in copies.TRAINED_SPLITS)
    tested = collections.Counter(item.label for item in everything if item.split not in copies.TRAINED_SPLITS)
    return (
        f"{task.name}: {len(everything)} pictures; to train on: {_by_label(task, trained)}; "
        f"left for testing: {_by_label(task, tested) if tested else 'none'}"
    )


def _by_label(task: Task, counts: collections.Counter[str | None]) -> str:
    return ", ".join(f"{counts[label]} {label}" for label in task.labels)


def _criteria(choice: Choice) -> dict[str, float]:
    stills = {"accuracy": choice.accuracy, "harmed_accuracy": choice.corrupted_accuracy, "loss": choice.loss}
    return stills | ({"passings_found": choice.passings_found} if choice.streams is not None else {})


def _line(task: Task, choice: Choice, choosing: list[Sample]) -> str:
    sets = _metrics(task, choice, choosing)["sets"]
    correct = ", ".join(f"{figures['correct']} of {figures['n']} ({name})" for name, figures in sets.items())
    line = (
        f"rate {choice.candidate.rate:g}: correct out of fold {correct}; balanced accuracy {choice.accuracy:.1%}, "
        f"of corrupted versions {choice.corrupted_accuracy:.1%}; loss {choice.loss:.4f} after {choice.epochs} epochs"
    )
    if choice.streams is None:
        return line
    passings, minutes = choice.streams.passings, 60 * choice.streams.hours
    if not choice.passings_found:
        return f"{line}; by {minutes:.0f} min of streams no threshold promises {thresholds.BOUNDS[1]}"
    return (
        f"{line}; with {thresholds.BOUNDS[1]} by {minutes:.0f} min of streams {choice.passings_found:.1%} of "
        f"{passings} passings found"
    )


def _unseen_copies(task: Task, loaded: Loaded, seed: int, progress: Progress) -> UnseenCopies:
    samples, photos, positions = loaded.decoded.samples, loaded.decoded.photos, loaded.decoded.positions
    order = np.random.default_rng(seed).permutation(len(samples))
    if task.recipe.quick:
        chosen, each = _fewest(task, loaded, seed, order)
    else:
        count = max(CHECKED_COPIES, calibration.copies(loaded.everything, task.labels, seed, parity.PICTURES))
        each = -(-count // len(samples))
        chosen = order[: -(-count // each)]
    # Numbers of their own: copies that no epoch has seen.
    numbers = range(task.augment.copies, task.augment.copies + each)
    drawn = copies.draw(task, [samples[i] for i in chosen], photos.some(chosen), seed, numbers)
    sha256 = copies.digest(counted(drawn, progress, "draw copies", len(chosen)))
    return UnseenCopies(samples=tuple(positions[i] for i in chosen), first=numbers[0], each=each, sha256=sha256)


def _fewest(task: Task, loaded: Loaded, seed: int, order: Indices) -> tuple[Indices, int]:
    """Samples, and how many copies of each, that make up for what the parity check lacks, and CHECKED_COPIES beside.

    Those beside are of the groups that calibrate, which the check leaves out: the bias correction takes them.
    """
    groups = {item.group for item in calibration.choose(loaded.everything, task.labels, seed)[0]}
    samples = loaded.decoded.samples
    calibrating = np.array([sample.item.group in groups for sample in samples])[order]
    checked, beside = order[~calibrating], order[calibrating]
    photographs = sum(samples[i].kind == "photo" for i in checked)
    each = max(1, -(-(parity.PICTURES - photographs) // max(1, len(checked))))
    return np.concatenate([checked, beside[: -(-CHECKED_COPIES // each)]]), each


class Operating(NamedTuple):
    """Thresholds, and the figures by which conversion chooses them where there are streams: see `Run`."""

    thresholds: dict[str, Threshold]
    stills: tuple[StillPoint, ...] = ()
    streams: Streams | None = None


def _operating(task: Task, best: Choice, targets: np.ndarray[Any, np.dtype[np.int64]]) -> Operating:
    alarms = [task.labels.index(label) for label in task.alarm]
    if not alarms:
        # No label raises an alarm, so no figure can choose; a score that is more likely than not.
        even = Threshold(on=0.5, off=0.5, chosen_for="no alarm labels: an even chance")
        return Operating({"default": even})
    scores = confidence.tempered(best.scores[:, 0], best.temperature)[:, alarms].max(1)
    positive, nothing = np.isin(targets, alarms), np.isin(targets, [task.labels.index(x) for x in task.nothing])
    stills = thresholds.of_stills(scores, positive)
    points = thresholds.still_points(stills)
    if best.streams is not None:
        return Operating({}, points, thresholds.of_streams(best.streams))
    # Where there is only the alarm and its absence, "nothing" is the absence, of which "quiet" takes care.
    apart = None if (positive | nothing).all() else nothing
    chosen = thresholds.choose(scores, positive, apart)
    if field := task.field_of_view.text():
        chosen = {name: msgspec.structs.replace(t, chosen_for=f"{t.chosen_for}, {field}") for name, t in chosen.items()}
    return Operating(chosen, points)


def _metrics(task: Task, best: Choice, choosing: list[Sample]) -> dict[str, Any]:
    targets = np.array([s.target for s in choosing])
    correct = best.scores[:, 0].argmax(1) == targets
    sets = np.array([s.item.columns["set"] for s in choosing])
    figures = {}
    for name in ["all", *sorted(set(sets))]:
        mask = np.ones(len(sets), bool) if name == "all" else sets == name
        n, k = int(mask.sum()), int(correct[mask].sum())
        figures[name] = {"n": n, "correct": k, "accuracy": k / n, "accuracy_ci95": evaluate.wilson(k, n)}
    corrupted = best.scores[:, 1:].argmax(2) == targets[:, None]
    field, folds = task.field_of_view.text(), task.recipe.folds
    how = f"grouped {folds}-fold over train + val" if folds > 1 else "a fit on train, validated on val"
    return {
        "method": f"{how}, float" + (f", {field}" if field else ""),
        "sets": figures,
        # No interval: the versions of a picture are not independent.
        "harmed": {"n": corrupted.size, "correct": int(corrupted.sum()), "accuracy": float(corrupted.mean())},
        "calibration": _calibration(best, targets),
    }


def _calibration(best: Choice, targets: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
    """Expected calibration error out of fold, of pictures as they are and of all versions, without and with T."""
    figures = {"temperature": best.temperature}
    for when, scores in (("before", best.scores), ("after", confidence.tempered(best.scores, best.temperature))):
        figures[f"error_{when}"] = round(confidence.error(scores[:, 0], targets), 4)
        flat = scores.reshape(-1, scores.shape[2])
        figures[f"error_of_all_{when}"] = round(confidence.error(flat, targets.repeat(scores.shape[1])), 4)
    return figures


def _counts(task: Task, decoded: Decoded) -> dict[str, Any]:
    kinds: dict[str, dict[str, int]] = {}
    trained_on = [s for s in decoded.samples if task.recipe.folds > 1 or not s.chooses]
    for sample in trained_on:
        labels = kinds.setdefault(sample.kind, dict.fromkeys(task.labels, 0))
        labels[task.labels[sample.target]] += 1
    return {"trained_on": kinds, "copies": task.augment.copies, "unreadable": len(decoded.skipped)}


def _conditions(task: Task, loaded: Loaded, weights: str, seed: int, code: str) -> dict[str, str]:
    """What fits depend on; see `checkpoints`."""
    index = [dataset.digest(loaded.everything), *sorted(loaded.decoded.digests.items())]
    return {
        "task": hashlib.sha256(msgspec.json.encode(task)).hexdigest(),
        "pictures": hashlib.sha256(msgspec.json.encode(index)).hexdigest(),
        "weights": weights_sha256(weights, task.backbone),
        "seed": str(seed),
        "bittern": code,
        **_versions(),
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{p: metadata.version(p) for p in ("keras", "numpy", "scikit-learn")},
        **run.environment(),
    }


def weights_sha256(weights: str, backbone: Backbone) -> str:
    """sha256 (hex) of the file that a backbone starts from; "imagenet" and "none" as they are."""
    start = backbones.start_of(backbone, weights)
    return hashlib.sha256(Path(start).read_bytes()).hexdigest() if Path(start).is_file() else start


def has_started_from(made: Run, weights: str) -> bool:
    """Whether a run's network started from these weights; for one that starts from nothing it is all the same."""
    backbone = made.task.backbone
    return not backbones.check(backbone).starts or made.weights_sha256 == weights_sha256(weights, backbone)


def code_version(revision: str, packages: Iterable[Path] = PACKAGES) -> str:
    """Version and revision of the code; where files were changed since, with the sha256 (hex) of all of them.

    Args:
        revision: of `git describe`; it ends in "-dirty" if files were changed.
        packages: folders of the code.
    """
    version = f"{bittern.__version__} {revision}"
    if not revision.endswith("-dirty"):
        return version
    digests = [
        (package.name, file.relative_to(package).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest())
        for package in packages
        for file in sorted(package.rglob("*.py"))
    ]
    return f"{version} {hashlib.sha256(msgspec.json.encode(digests)).hexdigest()}"


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

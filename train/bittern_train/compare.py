"""`bittern compare`: several backbones on one task, each trained, converted and timed; it goes on where it ended."""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError, one_line
from bittern.evaluation import metrics
from bittern.evaluation.metrics import Interval
from bittern.model import catalog, manifest, runtime
from bittern.system import fileio
from bittern.system.progress import Progress, counted
from bittern_convert import run
from bittern_convert.task import Mode, Task
from bittern_train import backbones, run_figures, task_files

# The shipped model whose time is 1: MobileNetV2 1.0 at 224 px.
REFERENCE = "stop_sign"
# Inferences of each model, in turns, so that what slows the machine down slows all of them.
_TIMED = 40
_NETWORK = "network.json"
_FIGURES = ("loss", "accuracy", "precision", "recall", "f1", "auc")

Floats = npt.NDArray[np.float64]


class NamedBackbone(NamedTuple):
    """One backbone as it is asked for, `NAME[:SIZE][xWIDTH]`."""

    name: str
    size: int | None
    width: float | None

    @property
    def folder(self) -> str:
        """Name of the folder of its run and its model."""
        size = f"-{self.size}" if self.size is not None else ""
        return f"{self.name}{size}" + (f"-{self.width:g}" if self.width is not None else "")


class Estimate(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval; None where there is none."""

    value: float | None
    ci95: Interval | None


class ComparedBackbone(msgspec.Struct, frozen=True, kw_only=True):
    """One backbone.

    Attributes:
        name: as it was asked for.
        backbone: name, size in px, width and mode.
        n: pictures of train and val, each scored by a fit of the k-fold that did not train on it.
        figures: of the float network on these, by name.
        parameters: of the whole network, with its head.
        macs: multiply-accumulate operations of one picture.
        float_bytes: of the parameters in float32.
        int8_bytes: of the int8 model; None where it failed its parity check.
        agreement: share of pictures with the same answer from float and int8.
        relative_time: of the int8 model, to MobileNetV2 1.0 at 224 px in the same run.
        difference: accuracy minus that of the best row, paired.
        p: of McNemar's test against the best row, not corrected for their number; None for the best.
        failed: why there is no int8 model; empty if there is.
        seconds: of the training.
    """

    name: str
    backbone: dict[str, Any]
    n: int
    figures: dict[str, Estimate]
    parameters: int
    macs: int
    float_bytes: int
    int8_bytes: int | None
    agreement: float | None
    relative_time: float | None
    difference: Estimate
    p: float | None
    failed: str
    seconds: float


class NetworkFigures(msgspec.Struct, frozen=True):
    """What is kept of a network beside its run and its model.

    Attributes:
        parameters: of the whole network, with its head.
        macs: multiply-accumulate operations of one picture.
        failed: why there is no int8 model; empty if there is.
    """

    parameters: int
    macs: int
    failed: str = ""


class Planned(NamedTuple):
    """A backbone that can be trained.

    Attributes:
        folder: name of what is kept of it.
        task: with this backbone.
        weights: what it starts from.
    """

    folder: str
    task: Task
    weights: str


def parse(text: str) -> list[NamedBackbone]:
    """The backbones of a comma-separated list of `NAME[:SIZE][xWIDTH]`.

    Raises:
        ConfigurationError: a size or width that is no number, a name twice, or fewer than two.
    """
    choices = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, rest = part.partition(":")
        size, _, width = rest.partition("x")
        try:
            choices.append(NamedBackbone(name, int(size) if size else None, float(width) if width else None))
        except ValueError:
            raise ConfigurationError(
                f"--backbones: {part!r}: expected NAME, NAME:SIZE or NAME:SIZExWIDTH, such as mobilenet_v2:96x0.35"
            ) from None
    if len(set(choices)) != len(choices) or len(choices) < 2:
        raise ConfigurationError(f"--backbones {text}: expected two or more, each once")
    return choices


def parse_weights(values: Sequence[str]) -> dict[str, str]:
    """What each backbone starts from, of `NAME=WEIGHTS`; that of all others, of `WEIGHTS` alone, is under "".

    Raises:
        ConfigurationError: two for the same.
    """
    weights: dict[str, str] = {}
    for value in values:
        name, equals, start = value.partition("=")
        if not equals or name not in backbones.TABLE:  # a path may hold an =
            name, start = "", value
        if name in weights:
            raise ConfigurationError(f"--weights: {name or 'all networks'}: given twice")
        weights[name] = start
    return {"": "imagenet", **weights}


def plan(
    task: Task, choices: Sequence[NamedBackbone], root: Path, *, weights: Mapping[str, str], mode: Mode | None
) -> list[Planned]:
    """What is trained for each backbone; this reads no picture and makes no file.

    Args:
        task: what is learned.
        choices: the backbones.
        root: folder that the task's data sets are below.
        weights: see `parse_weights`; of the networks that start from weights.
        mode: of those; None is the task's.

    Raises:
        ConfigurationError: one of them cannot be trained: of that name, size or width, in that mode, from those
            weights, or on those pictures.
    """
    for name in weights.keys() - {"", *(choice.name for choice in choices)}:
        raise ConfigurationError(f"--weights {name}={weights[name]}: {name} is not among --backbones")
    plans: list[Planned] = []
    for choice in choices:
        starts = choice.name not in backbones.TABLE or backbones.TABLE[choice.name].starts
        own = backbones.with_backbone(
            task, choice.name, size=choice.size, width=choice.width, mode=mode if starts else None
        )
        for earlier in plans:
            if earlier.task == own:
                raise ConfigurationError(f"--backbones: {choice.folder} is {earlier.folder} again: expected each once")
        start = weights.get(choice.name, weights[""])
        task_files.check_inputs(own, root, start)
        plans.append(Planned(choice.folder, own, start))
    return plans


def make(
    plans: Sequence[Planned], root: Path, folder: Path, *, seed: int, progress: Progress
) -> list[ComparedBackbone]:
    """Train and convert what is not there yet, time all of it, and compare.

    Args:
        plans: see `plan`.
        root: folder that the task's data sets are below.
        folder: keeps a run and a model of each; what is finished there is taken as it is.
        seed: of everything random.
        progress: gets each step.

    Raises:
        ConfigurationError: see `session.train`; or a run in the folder was made with other settings.
    """
    networks = []
    for planned in plans:
        backbone = planned.task.backbone
        progress.say(f"{planned.folder}: {backbone.title} at {backbone.size} px, mode {backbone.mode}")
        networks.append(_one(planned, root, folder / planned.folder, seed, progress))
    names = [planned.folder for planned in plans]
    converted = [name for name, network in zip(names, networks, strict=True) if not network.failed]
    times = relative_times([folder / name / "model" for name in converted], progress)
    return rows(names, folder, networks, dict(zip(converted, times, strict=True)))


def _one(planned: Planned, root: Path, folder: Path, seed: int, progress: Progress) -> NetworkFigures:
    """Train and convert one backbone as far as that is not done."""
    import keras

    from bittern_convert import package
    from bittern_train import architectures, session

    _, task, weights = planned
    made = folder / "run"
    if (made / run.FILE).is_file():
        before = run.load(made)
        if (before.task, before.seed) != (task, seed) or not session.has_started_from(before, weights):
            raise ConfigurationError(
                f"{made} was trained with another task, seed or weights: give another --runs, or remove it"
            )
    else:
        session.train(task, root, made, weights=weights, seed=seed, resume=True, progress=progress)
    file, out = folder / _NETWORK, folder / "model"
    is_converted = (out / "manifest.json").is_file()
    if file.is_file():
        try:
            network = msgspec.json.decode(file.read_bytes(), type=NetworkFigures)
        except msgspec.MsgspecError as error:
            raise ConfigurationError(f"{file}: {one_line(error)}: damaged: remove it, and it is made again") from None
        if network.failed:  # it would fail again, the same way
            progress.say(f"{folder.name}: {network.failed} (to try again, remove {file})")
        if network.failed or is_converted:
            return network
    model, failed = package.load_model(made), ""
    if not is_converted:
        name = f"{task.name}-{folder.name}"[:64]
        try:
            package.convert(made, out, data=None, name=name, version="1", replace=False, progress=progress, model=model)
        except package.ParityFailed as error:
            failed = f"the parity check failed: {error.reason}"
            progress.say(f"{folder.name}: {failed}")
    network = NetworkFigures(model.count_params(), architectures.macs(model), failed)
    fileio.write(file, msgspec.json.encode(network))
    keras.backend.clear_session()
    return network


def relative_times(
    models: Sequence[Path], progress: Progress, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median times of an inference, relative to that of REFERENCE, measured in turns on one thread.

    Args:
        models: their folders.
        progress: gets each turn.
        clock: seconds.

    Raises:
        ModelRefused: one cannot be loaded.
    """
    files = [catalog.find(REFERENCE), *models]
    opened = [runtime.open_model((file / manifest.read(file).file).read_bytes(), None, 1) for file in files]
    rng = np.random.default_rng(1)
    for one in opened:
        picture = rng.integers(0, 256, one.inputs[0].shape, dtype=np.uint8)
        one.interpreter.set_tensor(one.inputs[0].handle, picture)
        one.interpreter.invoke()
    seconds: list[list[float]] = [[] for _ in opened]
    for _ in counted(range(_TIMED), progress, "time", _TIMED):
        for number, one in enumerate(opened):
            start = clock()
            one.interpreter.invoke()
            seconds[number].append(clock() - start)
    # Each with the reference's time in the same turn.
    return [
        statistics.median(own / reference for own, reference in zip(each, seconds[0], strict=True))
        for each in seconds[1:]
    ]


def rows(
    names: Sequence[str],
    folder: Path,
    networks: Sequence[NetworkFigures],
    times: dict[str, float],
) -> list[ComparedBackbone]:
    """The rows of finished backbones, in the order in which they were asked for.

    Args:
        names: of the backbones' folders.
        folder: with the run and the model of each.
        networks: of each.
        times: relative times of those that were converted.

    Raises:
        ConfigurationError: a run keeps no answers, or the runs are of different pictures.
    """
    answers = [run_figures.judged(folder / name / "run") for name in names]
    pictures = [[item.name for item in own.items] for own in answers]
    if any(other != pictures[0] for other in pictures):
        raise ConfigurationError(f"{folder}: the runs are of different pictures: remove those that are older")
    best = max(range(len(names)), key=lambda i: float(answers[i].correct.mean()))
    made_rows = []
    for number, (name, network, own) in enumerate(zip(names, networks, answers, strict=True)):
        won = int((own.correct & ~answers[best].correct).sum())
        lost = int((~own.correct & answers[best].correct).sum())
        n = len(own.items)
        described = None if network.failed else manifest.read(folder / name / "model")
        low, high = metrics.paired_loss_interval(won, lost, n)
        made_rows.append(
            ComparedBackbone(
                name=name,
                backbone=msgspec.to_builtins(own.made.task.backbone),
                n=n,
                figures=figures(own.scores, own.targets, own.groups, own.made.task),
                parameters=network.parameters,
                macs=network.macs,
                float_bytes=4 * network.parameters,
                int8_bytes=None if described is None else described.size,
                agreement=None if described is None else described.provenance["gate"]["agreement"],
                relative_time=times.get(name),
                difference=Estimate((won - lost) / n, None if number == best else (low, high)),
                p=None if number == best else metrics.mcnemar(lost, won),
                failed=network.failed,
                seconds=own.made.seconds,
            )
        )
    return made_rows


def figures(scores: Floats, targets: npt.NDArray[np.int64], groups: Sequence[str], task: Task) -> dict[str, Estimate]:
    """Loss (mean cross-entropy in nats), accuracy, precision, recall, F1 and AUC with 95 % intervals.

    Precision, recall, F1 and AUC are of the alarm against everything else; of a task without an alarm they are means
    over the labels. Intervals: of the accuracy Wilson's, of the others percentiles of a bootstrap over the groups.

    Args:
        scores: (n, labels), 0 to 1.
        targets: (n,) index of the true label.
        groups: (n,) the group of each picture.
        task: that has the labels.
    """
    positives = (
        [[task.labels.index(label) for label in task.alarm]] if task.alarm else [[i] for i in range(len(task.labels))]
    )
    answered = scores.argmax(1)
    losses = -np.log(np.clip(scores[np.arange(len(targets)), targets], 1e-6, 1))

    def columns_of(weights: npt.NDArray[np.float32]) -> Floats:
        drawn = weights.astype(np.float64)
        columns = [(drawn * losses).sum(1) / drawn.sum(1)]
        parts = []
        for labels in positives:
            true, given = np.isin(targets, labels), np.isin(answered, labels)
            true_positives, answered_so, labelled_so = ((drawn * mask).sum(1) for mask in (true & given, given, true))
            with np.errstate(invalid="ignore", divide="ignore"):
                precision, recall = true_positives / answered_so, true_positives / labelled_so
                f1 = 2 * true_positives / (answered_so + labelled_so)
            area = metrics.weighted_auc(weights, scores[:, labels].max(1), true)
            parts.append([precision, recall, f1, area])
        means = [np.nanmean(np.stack(each), 0) if len(each) > 1 else each[0] for each in zip(*parts, strict=True)]
        return np.stack([*columns, *means], 1)

    values = columns_of(np.ones((1, len(targets)), np.float32))[0]
    resampled = metrics.bootstrap(groups, [task.labels[i] for i in targets], columns_of)
    estimates = {}
    for number, name in enumerate(("loss", "precision", "recall", "f1", "auc")):
        interval = None if resampled is None else metrics.percentile_interval(resampled[:, number])
        estimates[name] = Estimate(None if np.isnan(values[number]) else float(values[number]), interval)
    correct, n = int((answered == targets).sum()), len(targets)
    estimates["accuracy"] = Estimate(correct / n, metrics.wilson(correct, n))
    return {name: estimates[name] for name in _FIGURES}


def markdown(task: Task, made: Sequence[ComparedBackbone]) -> str:
    """The table as a page."""
    scored = (
        f"out of fold: of the {made[0].n} pictures of train and val each is scored by a fit that did not train on it"
        if task.recipe.folds > 1
        else f"of the {made[0].n} pictures of val, which chose how long each network was trained"
    )
    lines = [
        f"# {task.name}: backbones compared",
        "",
        f"Written by `bittern compare {task.name}`, with {task.augment.copies} copies of each picture. Figures of the "
        f"float networks are {scored}. Precision, recall, F1 and AUC are "
        f"{'of the alarm' if task.alarm else 'means over the labels'}. Time is that of the int8 model on one thread, "
        "relative to MobileNetV2 1.0 at 224 px in the same run. p: McNemar's exact test against the best, not "
        "corrected for their number.",
        "",
        "| network | accuracy (95 %) | loss | precision | recall | F1 | AUC | against the best (95 %) | p "
        "| parameters | MACs | float | int8 | int8 as float | time |",
        "| --- |" + " --- |" * 14,
    ]
    for row in made:
        best = row.p is None
        cells = [
            f"{row.name} ({row.backbone['mode']})",
            *(
                _cell(row.figures[key], key != "loss")
                for key in ("accuracy", "loss", "precision", "recall", "f1", "auc")
            ),
            "the best" if best else _points(row.difference),
            "" if row.p is None else f"{row.p:.3f}",
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e6:.3g} M",
            f"{row.float_bytes / 1e6:.1f} MB",
            "failed the parity check" if row.int8_bytes is None else f"{row.int8_bytes / 1e6:.2f} MB",
            "" if row.agreement is None else f"{row.agreement:.1%}",
            "" if row.relative_time is None else f"{row.relative_time:.3g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(figure: Estimate, share: bool) -> str:
    def text(value: float) -> str:
        return f"{value:.1%}" if share else f"{value:.3f}"

    if figure.value is None:
        return ""
    interval = f" ({text(figure.ci95[0])} to {text(figure.ci95[1])})" if figure.ci95 else ""
    return text(figure.value) + interval


def _points(figure: Estimate) -> str:
    assert figure.value is not None
    assert figure.ci95 is not None
    low, high = figure.ci95
    return f"{100 * figure.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def table(made: Sequence[ComparedBackbone]) -> str:
    """The rows as CSV, a figure and the ends of its interval in three columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = ("n", "parameters", "macs", "float_bytes", "int8_bytes", "agreement", "relative_time", "p", "seconds")
    names = [f"{name}{end}" for name in (*_FIGURES, "difference") for end in ("", "_low", "_high")]
    writer.writerow(["network", "size", "width", "mode", *plain, *names, "failed"])
    for row in made:
        values: list[Any] = []
        for figure in (*(row.figures[name] for name in _FIGURES), row.difference):
            values += [figure.value, *(figure.ci95 or (None, None))]
        backbone = [row.backbone[key] for key in ("name", "size", "width", "mode")]
        writer.writerow([*backbone, *(getattr(row, key) for key in plain), *values, row.failed])
    return text.getvalue()


def picture(file: Path, task: Task, made: Sequence[ComparedBackbone]) -> None:
    """Accuracy against the int8 model's time, each with its interval, as a PNG; rows without a time are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

    plot = Plot(figsize=(8, 5), layout="constrained")
    axis = plot.subplots()
    for row in made:
        accuracy = row.figures["accuracy"]
        if row.relative_time is None or accuracy.value is None or accuracy.ci95 is None:
            continue
        ends = [[accuracy.value - accuracy.ci95[0]], [accuracy.ci95[1] - accuracy.value]]
        axis.errorbar([row.relative_time], [accuracy.value], yerr=ends, fmt="o", capsize=3, label=row.name)
    plot.legend(loc="outside right upper")  # beside it: networks that are alike lie on each other
    axis.set_xscale("log")
    axis.margins(x=0.1)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(
        xlabel="time of the int8 model, MobileNetV2 1.0 at 224 px = 1",
        ylabel=f"accuracy {'out of fold' if task.recipe.folds > 1 else 'on val'}, 95 % intervals",
        title=f"{task.name}, n = {made[0].n}",
    )
    axis.grid(alpha=0.3, which="both")
    FigureCanvasAgg(plot)
    with fileio.atomic(file) as opened:
        plot.savefig(opened, format="png", dpi=110)


def write(out: Path, task: Task, made: Sequence[ComparedBackbone]) -> list[Path]:
    """Write compare-TASK.md, .csv and .png."""
    files = [out / f"compare-{task.name}{suffix}" for suffix in (".md", ".csv", ".png")]
    out.mkdir(parents=True, exist_ok=True)
    fileio.write(files[0], markdown(task, made).encode())
    fileio.write(files[1], table(made).encode())
    picture(files[2], task, made)
    return files

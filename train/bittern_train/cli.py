"""`bittern train`, `retrain`, `report` and `study`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bittern.cli.common import FiniteRange, one_blas_thread, tensorflow_command

if TYPE_CHECKING:
    from bittern_convert.task import Mode

F = TypeVar("F", bound=Callable[..., Any])


@tensorflow_command
@click.command(
    short_help="Train a network on pictures, and leave a run.",
    epilog="Example: bittern train stop_sign --data ../shared/data --weights imagenet --out runs/stop_sign",
)
@click.argument("task")
@click.option("--backbone", help="Network to train: mobilenet_v2, resnet18, lenet, ...  [default: the task's]")
@click.option("--size", type=click.IntRange(16, 1024), help="Side of its input in pixels.  [default: the network's]")
@click.option("--width", type=FiniteRange(0.1, 2), help="Of mobilenet_v2: 0.35, 0.5, 0.75 or 1.0.  [default: 1.0]")
@click.option(
    "--mode",
    type=click.Choice(["head", "finetune", "scratch"]),
    help="Train the last layer alone, the upper part, or everything.  [default: the task's, or what the network can]",
)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the pictures.")
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none, or a file without the top.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/TASK]")
@click.option("--alarm", multiple=True, help='Label that raises an alarm, with TASK "folders"; may be repeated.')
@click.option("--thorough", is_flag=True, help='With TASK "folders": the long way also for a small set.')
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of everything random.")
@click.option("--resume", is_flag=True, help="Go on with the same training after an interruption.")
@click.option("--force", is_flag=True, help="Replace an existing run, or an interrupted one.")
def train(
    task: str,
    backbone: str | None,
    size: int | None,
    width: float | None,
    mode: Mode | None,
    data: Path,
    weights: str,
    out: Path | None,
    alarm: tuple[str, ...],
    thorough: bool,
    seed: int,
    resume: bool,
    force: bool,
) -> None:
    """Train a network on pictures, and leave a run.

    TASK is the name of a shipped task, a .toml file, or "folders", for which --data has a folder of pictures for each
    label. Pictures that cannot be read are skipped and listed. Choices are made by grouped k-fold on train + val; the
    final fit uses both.

    With "folders", fewer than 500 pictures are trained the quick way: fewer folds, epochs and copies, and one learning
    rate; --thorough takes the long one. The first line says what is done.

    A training that was interrupted, by Ctrl-C, a crash or a full disk, leaves its finished fits in NAME.partial beside
    --out. The same command with --resume goes on from there, and ends with the same weights.

    Several hosts that are given the same command share out the fits of the k-fold, if TF_CONFIG names them as for
    tf.distribute. The first one writes the run.

    \b
    Networks that start from weights (--weights): mobilenet_v2, resnet18, resnet50, inception_v3, efficientnet_b0,
    efficientnet_b1, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, nasnet_mobile, xception.
    Networks that start from nothing: vgg_style, peetz_net, lenet, small_cnn, sign_cnn.
    With --weights none a network of the first kind stays random where it is not trained: give --mode scratch too.
    """
    from bittern_convert.copies import KINDS
    from bittern_convert.quiet import quiet
    from bittern_convert.run import check_target
    from bittern_convert.screen import bar
    from bittern_train import backbones, checkpoints, task_files, workers

    if task == "folders":
        import logging

        from bittern.evaluation import dataset

        logging.basicConfig(format="bittern: %(message)s")
        items = dataset.read(data)
        names = sorted({item.label for item in items if item.label})
        long = task_files.from_folders(names, data.resolve().name, alarm)
        quick = len(items) < task_files.SMALL and not thorough
        chosen = task_files.quick(long) if quick else long
        task_files.check_counts(chosen, items)
    elif alarm or thorough:
        option = "--alarm" if alarm else "--thorough"
        raise click.UsageError(f'{option} goes with "folders"; a task file has its own alarms and recipe')
    else:
        chosen = long = task_files.load(task)
    chosen, long = (backbones.with_backbone(way, backbone, size=size, width=width, mode=mode) for way in (chosen, long))
    task_files.check_inputs(chosen, data, weights)
    target, hosts = out or Path("runs") / chosen.name, workers.hosts()
    assists = hosts is not None and hosts.number > 0
    if not assists:
        check_target(target, replace=force)
        checkpoints.check(target, resume=resume, replace=force)
    log = Path(os.devnull) if assists else target.parent / f"{target.name}.log"
    with quiet(log) as console, bar(console) as progress:
        from bittern_train import session

        if weights not in ("imagenet", backbones.start_of(chosen.backbone, weights)):
            progress.say(f"--weights {weights} are not used: {chosen.backbone.name} starts from nothing")
        if task == "folders":
            progress.say(task_files.effort(chosen, long))
        if hosts is not None and assists:
            count = session.assist(chosen, data, hosts, weights=weights, seed=seed, progress=progress)
            progress.say(f"{count} fits made for {hosts.names[0]}, which writes the run")
            return
        partial = checkpoints.folder_of(target)
        if resume and not checkpoints.Checkpoints(partial):
            progress.say(f"no interrupted run at {partial}: starting from the beginning")
        try:
            made = session.train(
                chosen,
                data,
                target,
                weights=weights,
                seed=seed,
                replace=force,
                resume=resume,
                hosts=hosts,
                progress=progress,
            )
        except (KeyboardInterrupt, OSError):
            if checkpoints.Checkpoints(partial):
                progress.say(f"the finished fits are kept in {partial}: --resume goes on from there")
            raise
    trained = ", ".join(f"{sum(labels.values())} {KINDS[k]}" for k, labels in made.pictures["trained_on"].items())
    click.echo(f"{target}: trained on {trained} in {made.seconds / 60:.1f} min; next: bittern convert {target}")


@tensorflow_command
@click.command(
    short_help="Train a run again with newly labelled pictures, and compare.",
    epilog="Example: bittern retrain runs/mine --add kept/garden --out runs/mine-2",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--add", "added", required=True, type=click.Path(path_type=Path), help="Newly labelled or corrected pictures."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new run.")
@click.option("--weights", default="imagenet", show_default=True, help="Those that the run started from.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the run's pictures, if it was moved.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one JSON object.")
@click.pass_context
def retrain(
    ctx: click.Context, run: Path, added: Path, out: Path, weights: str, data: Path | None, as_json: bool
) -> None:
    """Train a run again with newly labelled or corrected pictures, and compare the two networks.

    It takes the run's task, its pictures, its splits, the rate that it chose and the weights that it started from. A
    picture of the run whose label is another one now is corrected; pictures without a label, and test pictures of the
    run, are left out. What the run's network gets wrong is trained on three times as often. Old and new network then
    answer the same test pictures (McNemar's exact test). The new one is to be kept if it answers no fewer of them
    correctly; otherwise the exit code is 1.
    """
    from bittern.errors import ConfigurationError
    from bittern_convert.quiet import quiet
    from bittern_convert.run import load
    from bittern_convert.screen import bar
    from bittern_train import backbones

    if out.exists():
        raise ConfigurationError(f"{out} exists already: give another --out")
    backbones.check_weights(load(run).task.backbone, weights)
    with quiet(out.parent / f"{out.name}.log") as console, bar(console) as progress:
        from bittern_train import retrain_session

        verdict = retrain_session.retrain(run, added, out, weights=weights, root=data, progress=progress)
    if as_json:
        import msgspec

        from bittern.cli.common import print_json

        print_json(msgspec.to_builtins(verdict))
    else:
        low, high = (100 * bound for bound in verdict.difference_ci95)
        click.echo(
            f"{verdict.n} test pictures: {verdict.old_correct} correct before, {verdict.new_correct} now "
            f"({len(verdict.only_new)} won, {len(verdict.only_old)} lost; {low:+.1f} to {high:+.1f} points, 95 %; "
            f"McNemar's exact p = {verdict.mcnemar_p:.3g})"
        )
        click.echo(f"{out}: keep it; next: bittern convert {out}" if verdict.keep else f"{out}: worse: not to be kept")
    if not verdict.keep:
        ctx.exit(1)


@click.command(
    short_help="Write the figures and pictures of a run as one HTML page.",
    epilog="Example: bittern report runs/mine --model models/mine",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="The model that was made of it: what it looks at.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the pictures, if it was moved since training.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The page.  [default: RUN/report.html]")
@click.option("--more", default=100, show_default=True, type=click.IntRange(1), help="Pictures more, of the forecast.")
def report(run: Path, model: Path | None, data: Path | None, out: Path | None, more: int) -> None:
    """Write the figures and pictures of a run as one self-contained HTML page.

    Every figure is out of fold: learning curves, confusion matrix, ROC, thresholds and what they catch, calibration,
    accuracy by source, group size and centre crop, the worst mistakes, and what more pictures would bring. The page
    holds small copies of your pictures. (`bittern results` writes the figures of model folders, as this command did
    before.)
    """
    one_blas_thread()

    from bittern.cli.common import progress_bar
    from bittern.errors import ConfigurationError
    from bittern.model.classifier import Classifier
    from bittern.system import fileio
    from bittern_train import growth, run_figures, run_page

    if (run / "manifest.json").is_file():
        raise ConfigurationError(f"{run} is a model folder: expected a run; for models: bittern results")
    judged = run_figures.judged(run, data)
    classifier = Classifier(model) if model is not None else None
    if classifier is not None and {*classifier.heads[0].labels} != {*judged.made.task.labels}:
        raise ConfigurationError(f"--model {model}: has other labels than the run, so it was not converted from it")
    with progress_bar("learning curves", growth.parts(judged)) as show:
        grown = growth.forecasts(judged, more, show)
    with progress_bar("what the network looks at", run_page.EXPLAINED if classifier else 1) as show:
        page = run_page.render(run, judged, classifier, grown, show)
    target = out or run / "report.html"
    try:
        fileio.write(target, page.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigurationError(f"{target}: {error.strerror}") from None
    click.echo(target)


@tensorflow_command
@click.command(
    short_help="Train, convert and time several networks on one task.",
    epilog="Example: bittern compare stop_sign --backbones mobilenet_v2:96,mobilenet_v2:224,lenet --mode head "
    "--data ../shared/data --out docs/results",
)
@click.argument("task")
@click.option("--backbones", required=True, help="NAME, NAME:SIZE or NAME:SIZExWIDTH, with commas between them.")
@click.option(
    "--mode",
    type=click.Choice(["head", "finetune", "scratch"]),
    help="Of the networks that start from weights; see `bittern train`.  [default: the task's]",
)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the pictures.")
@click.option(
    "--weights",
    multiple=True,
    default=["imagenet"],
    show_default=True,
    help="imagenet, none, or a file without the top; NAME=FILE for one of the networks; may be repeated.",
)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keeps a run and a model of each.  [default: runs/compare-TASK]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the table and the picture.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of everything random.")
def compare(
    task: str,
    backbones: str,
    mode: Mode | None,
    data: Path,
    weights: tuple[str, ...],
    runs: Path | None,
    out: Path,
    seed: int,
) -> None:
    """Train, convert and time several networks on one task: compare-TASK.md, .csv and .png.

    Figures are out of fold on train + val, so that a choice may be made by them: loss, accuracy, precision, recall, F1
    and AUC with 95 % intervals, a paired test against the best, parameters, operations, sizes, and the time of the int8
    model relative to MobileNetV2 1.0. Started again, it goes on after the last network that was finished. A file of
    weights fits one network: name it, as in --weights resnet18=resnet18.pth.
    """
    from bittern_convert.quiet import quiet
    from bittern_convert.screen import bar
    from bittern_train import compare as comparing
    from bittern_train import task_files

    chosen, choices, starts = task_files.load(task), comparing.parse(backbones), comparing.parse_weights(weights)
    plans = comparing.plan(chosen, choices, data, weights=starts, mode=mode)
    folder = runs or Path("runs") / f"compare-{chosen.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(folder / "compare.log") as console, bar(console) as progress:
        made = comparing.make(plans, data, folder, seed=seed, progress=progress)
    for file in comparing.write(out, chosen, made):
        click.echo(file)


@click.group(short_help="Repeat a study on which a choice rests.")
def study() -> None:
    """Repeat a study on which a choice of Bittern's rests, and write its result file for `bittern results`.

    All but "decision" train networks, and need TensorFlow.
    """


def _picture_options(function: F) -> F:
    for option in (
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the result file."),
        click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of everything random."),
        click.option(
            "--weights", default="imagenet", show_default=True, help="imagenet, none, or a file without the top."
        ),
        click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the pictures."),
        click.argument("task"),
    ):
        function = option(function)
    return function


_run_option = click.option("--run", type=click.Path(path_type=Path), help="The finished run.  [default: runs/TASK]")


@tensorflow_command
@study.command(
    short_help='Is "none of these" a label, or a low score?',
    epilog="Example: bittern study none car_damage --data ../shared/data --out docs/results",
)
@_picture_options
def none(task: str, data: Path, weights: str, seed: int, out: Path) -> None:
    """Is "none of these" better as a label of its own, or as a low best score? By grouped k-fold on train + val."""
    _on_pictures("none", task, data, None, weights=weights, seed=seed, out=out)


@tensorflow_command
@study.command(
    short_help="What would near-copies of test pictures change?",
    epilog="Example: bittern study twins car_damage --data ../shared/data --out docs/results",
)
@_picture_options
@_run_option
def twins(task: str, data: Path, weights: str, run: Path | None, seed: int, out: Path) -> None:
    """What would near-copies of test pictures in the training change? On the test split, for reporting only."""
    _on_pictures("twins", task, data, run, weights=weights, seed=seed, out=out)


@tensorflow_command
@study.command(
    short_help="Is an average of fits better than each?",
    epilog="Example: bittern study soup stop_sign --data ../shared/data --out docs/results",
)
@_picture_options
@_run_option
def soup(task: str, data: Path, weights: str, run: Path | None, seed: int, out: Path) -> None:
    """Is the average of several fits better than each of them? By grouped k-fold on train + val."""
    _on_pictures("soup", task, data, run, weights=weights, seed=seed, out=out)


@tensorflow_command
@study.command(
    short_help="What did more pictures bring, and what would a leaking split have said?",
    epilog="Example: bittern study growth ../shared/data/stop_sign --first 200 --out docs/results",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Only these pictures; may be repeated.")
@click.option("--first", default=200, show_default=True, type=click.IntRange(40), help="Pictures of the beginning.")
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none, or a file without the top.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of everything random.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the result file.")
def growth(data: Path, where: tuple[str, ...], first: int, weights: str, seed: int, out: Path) -> None:
    """What did more pictures bring, and what would a split that leaks have said?

    A part of the pictures, as many as there were first, and all of them: a head on frozen features, out of fold. Once
    with folds that divide no group of near-duplicates, once with folds at random, which do. And what the learning curve
    of the first pictures promised.
    """
    from bittern.evaluation import dataset
    from bittern_convert.quiet import quiet
    from bittern_convert.screen import bar

    conditions = dict(condition.partition("=")[::2] for condition in where)
    dataset.select(dataset.read(data), conditions, data)  # what is not there is named before TensorFlow is loaded
    out.mkdir(parents=True, exist_ok=True)
    name = data.resolve().name
    with quiet(out / f"growth-{name}.log") as console, bar(console) as progress:
        from bittern_train import growth_study

        result = growth_study.study(data, conditions, first, weights=weights, seed=seed, progress=progress)
    _write(out / f"growth-{name}.json", result)


def _on_pictures(kind: str, task: str, data: Path, run: Path | None, *, weights: str, seed: int, out: Path) -> None:
    """Repeat a study on the pictures of a task, and write KIND-TASK.json."""
    from bittern_convert.quiet import quiet
    from bittern_convert.screen import bar
    from bittern_train import task_files

    chosen = task_files.load(task)
    task_files.check_inputs(chosen, data, weights)
    out.mkdir(parents=True, exist_ok=True)
    with quiet(out / f"{kind}-{chosen.name}.log") as console, bar(console) as progress:
        from bittern_train import studies

        if kind == "none":
            result = studies.none(chosen, data, weights=weights, seed=seed, progress=progress)
        else:
            make = {"twins": studies.twins, "soup": studies.soup}[kind]
            finished = run or Path("runs") / chosen.name
            result = make(chosen, data, finished, weights=weights, seed=seed, progress=progress)
    _write(out / f"{kind}-{chosen.name}.json", result)


@tensorflow_command
@study.command(
    short_help="How much memory and time does training take?",
    epilog="Example: bittern study memory gtsrb --data build/data --weights none --count 1000 --out docs/results",
)
@_picture_options
@click.option("--count", "counts", multiple=True, type=click.IntRange(1), help="Pictures; may be repeated.")
@click.option("--backbone", help="Network to train.  [default: the task's]")
def memory(
    task: str, data: Path, weights: str, seed: int, out: Path, counts: tuple[int, ...], backbone: str | None
) -> None:
    """How much memory and time does training take, of so many pictures, and of all?

    A training of two epochs for each number, in a process of its own. Writes memory-TASK.json, and draws
    memory-TASK.svg.
    """
    from bittern.system import fileio
    from bittern.system.progress import ProgressLines
    from bittern_train import backbones, memory_study, task_files

    chosen = backbones.with_backbone(task_files.load(task), backbone)
    task_files.check_inputs(chosen, data, weights)
    out.mkdir(parents=True, exist_ok=True)
    with ProgressLines(sys.stderr) as progress:
        result = memory_study.study(chosen, data, counts, weights=weights, seed=seed, progress=progress)
    _write(out / f"memory-{chosen.name}.json", result)
    fileio.write(out / f"memory-{chosen.name}.svg", memory_study.draw(result).encode())


@study.command(
    short_help="Which rule raises alarms best?",
    epilog="Example: bittern study decision stop_sign --clips clips --labels clips/intervals --out docs/results",
)
@click.argument("model")
@click.option(
    "--clips",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of clips; its index.csv (columns clip, models) may say which clips judge which model.",
)
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of CSVs start_s,end_s,label, as for `bittern replay`.",
)
@click.option(
    "--minutes", default=60.0, show_default=True, type=FiniteRange(1, 6000), help="Length of the drawn streets."
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of the drawn streets.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the result file.")
def decision(model: str, clips: Path, labels: Path, minutes: float, seed: int, out: Path) -> None:
    """Which rule raises alarms best: evidence, votes, an average, a sequential test?

    The model's scores of the clips and of drawn streets are computed once; every rule decides over them, at every
    threshold. Writes decision-MODEL.json, and draws decision.svg of all such files in the folder.
    """
    one_blas_thread()

    import msgspec

    from bittern.system import fileio
    from bittern.system.progress import ProgressLines
    from bittern_train import decision_chart, decision_study

    out.mkdir(parents=True, exist_ok=True)
    with ProgressLines(sys.stderr) as progress:
        result = decision_study.study(model, clips, labels, minutes=minutes, seed=seed, progress=progress)
    _write(out / f"decision-{result['model']}.json", result)
    results = [msgspec.json.decode(file.read_bytes()) for file in sorted(out.glob("decision-*.json"))]
    fileio.write(out / "decision.svg", decision_chart.draw(results).encode())


def _write(target: Path, result: dict[str, Any]) -> None:
    import msgspec

    from bittern.system import fileio

    fileio.write(target, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    click.echo(target)

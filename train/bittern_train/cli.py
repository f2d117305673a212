"""`bittern train` and `bittern study`."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import tensorflow_command


@tensorflow_command
@click.command(
    short_help="Fine-tune MobileNetV2 on pictures, and leave a run.",
    epilog="Example: bittern train stop_sign --data ../shared/data --weights imagenet --out runs/stop_sign",
)
@click.argument("task")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the pictures.")
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none, or a file without the top.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/TASK]")
@click.option("--alarm", multiple=True, help='Label that raises an alarm, with TASK "folders"; may be repeated.')
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of everything random.")
@click.option("--force", is_flag=True, help="Replace an existing run.")
def train(
    task: str, data: Path, weights: str, out: Path | None, alarm: tuple[str, ...], seed: int, force: bool
) -> None:
    """Fine-tune MobileNetV2 on pictures, and leave a run.

    TASK is the name of a shipped task, a .toml file, or "folders", for which --data has a folder of pictures for each
    label. Pictures that cannot be read are skipped and listed. Choices are made by grouped k-fold on train + val; the
    final fit uses both.
    """
    from bittern_convert.copies import KINDS
    from bittern_convert.quiet import quiet
    from bittern_convert.run import check_target
    from bittern_convert.screen import bar
    from bittern_train import task_files

    if task == "folders":
        from bittern.evaluation import dataset

        names = sorted({item.label for item in dataset.read(data) if item.label})
        chosen = task_files.from_folders(names, data.resolve().name, alarm)
    elif alarm:
        raise click.UsageError('--alarm goes with "folders"; a task file has its own "alarm"')
    else:
        chosen = task_files.load(task)
    target = out or Path("runs") / chosen.name
    check_target(target, replace=force)
    with quiet(target.parent / f"{target.name}.log") as console, bar(console) as progress:
        from bittern_train import session

        made = session.train(chosen, data, target, weights=weights, seed=seed, replace=force, progress=progress)
    trained = ", ".join(f"{sum(labels.values())} {KINDS[k]}" for k, labels in made.pictures["trained_on"].items())
    click.echo(f"{target}: trained on {trained} in {made.seconds / 60:.1f} min; next: bittern convert {target}")


@tensorflow_command
@click.command(
    short_help="Repeat a study on which a task's choice rests.",
    epilog="Example: bittern study none car_damage --data ../shared/data --out docs/results",
)
@click.argument("kind", metavar="KIND", type=click.Choice(["none", "twins", "soup"]))
@click.argument("task")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the pictures.")
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none, or a file without the top.")
@click.option("--run", type=click.Path(path_type=Path), help="Run, for twins and soup.  [default: runs/TASK]")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of everything random.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the result file.")
def study(kind: str, task: str, data: Path, weights: str, run: Path | None, seed: int, out: Path) -> None:
    """Repeat a study on which a choice of a shipped task rests, and write KIND-TASK.json.

    "none": is "none of these" better as a label of its own, or as a low best score? By grouped k-fold on train + val.
    "twins": what would near-copies of test pictures in the training change? On the test split, for reporting only.
    "soup": is the average of several fits better than each of them? By grouped k-fold on train + val.
    """
    import msgspec

    from bittern.system import fileio
    from bittern_convert.quiet import quiet
    from bittern_convert.screen import bar
    from bittern_train import task_files

    chosen = task_files.load(task)
    target = out / f"{kind}-{chosen.name}.json"
    out.mkdir(parents=True, exist_ok=True)
    with quiet(target.with_suffix(".log")) as console, bar(console) as progress:
        from bittern_train import studies

        if kind == "none":
            result = studies.none(chosen, data, weights=weights, seed=seed, progress=progress)
        else:
            make = {"twins": studies.twins, "soup": studies.soup}[kind]
            finished = run or Path("runs") / chosen.name
            result = make(chosen, data, finished, weights=weights, seed=seed, progress=progress)
    fileio.write(target, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    click.echo(target)

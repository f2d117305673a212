"""`bittern evaluate`: figures of a model on a labelled split; needs no TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import model_options, print_json, warn

if TYPE_CHECKING:
    from bittern.evaluation import Report
    from bittern.runtime import ExecutionPath


@click.command(epilog="Example: bittern evaluate stop_sign --data pictures/ --split test --json")
@click.argument("model")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="An index.csv, a folder with one, or a folder per label.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="What the index's paths are relative to.  [default: its folder]"
)
@click.option("--split", default="test", show_default=True, help="Split of the index; without an index all pictures.")
@click.option("--label", help="Label of pictures whose index has none.  [default: the model's 'nothing']")
@model_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each head of the model.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str,
    data: Path,
    root: Path | None,
    split: str,
    label: str | None,
    labels: Path | None,
    path: ExecutionPath | None,
    threads: int,
    as_json: bool,
) -> None:
    """Count how often a model is right: accuracy with its 95 % interval, AUC, confusion matrix, alarm rate.

    Exit code 1 if a picture could not be read.
    """
    from bittern import dataset, evaluation
    from bittern.classifier import Classifier
    from bittern.errors import ConfigurationError, PictureError

    items = dataset.read(data, root)
    splits = {item.split for item in items}
    if splits != {""}:
        items = [item for item in items if item.split == split]
        if not items:
            raise ConfigurationError(f"{data}: no split {split!r}; it has {', '.join(sorted(splits))}")
    else:
        split = "all"
    classifier = Classifier(model, labels=labels, path=path, threads=threads)
    if sys.stderr is not None and sys.stderr.isatty():
        with click.progressbar(length=len(items), label="evaluate", file=sys.stderr) as bar:
            answers, skipped = evaluation.answer(classifier, items, label, lambda _: bar.update(1))
    else:
        answers, skipped = evaluation.answer(classifier, items, label)
    for line in skipped:
        warn(line)
    if len(skipped) == len(items):
        raise PictureError(f"{data}: no picture of split {split!r} could be read")
    for head, answered in zip(classifier.heads, answers, strict=True):
        figures = evaluation.report(classifier, head, split, answered, skipped)
        if as_json:
            print_json(figures)
        else:
            _show(figures, str(data))
    if skipped:
        ctx.exit(1)


def _show(figures: Report, data: str) -> None:
    low, high = figures.accuracy_ci95
    click.echo(f"{figures.model} {figures.version}, {figures.task}: {data}, split {figures.split}")
    click.echo(f"  accuracy  {figures.correct} of {figures.n} = {figures.accuracy:.1%} (95 % {low:.1%} to {high:.1%})")
    if figures.auc is not None:
        click.echo(f"  AUC       {figures.auc:.3f}")
    low, high = figures.alarm_rate_ci95
    click.echo(f"  alarms    {figures.alarms} of {figures.n} = {figures.alarm_rate:.1%} (95 % {low:.1%} to {high:.1%})")
    width = max(len(label) for label in figures.confusion)
    click.echo(f"  {'true':<{width}}  answered " + "  ".join(figures.confusion))
    for label, row in figures.confusion.items():
        counts = "  ".join(f"{row[answer]:>{len(answer)}}" for answer in figures.confusion)
        click.echo(f"  {label:<{width}}           {counts}")

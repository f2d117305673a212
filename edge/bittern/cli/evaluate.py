"""`bittern evaluate`: figures of a model on labelled pictures; needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.bare_models import model_options, open_models
from bittern.cli.common import (
    as_utf8,
    print_json,
    progress_bar,
    region_option,
    views_option,
    warn,
)
from bittern.errors import ConfigurationError, PictureError, printable

if TYPE_CHECKING:
    from bittern.cli.bare_models import Statements
    from bittern.evaluation.dataset import Item, Subset
    from bittern.evaluation.evaluate import Answered, Comparison, Report
    from bittern.evaluation.metrics import Interval
    from bittern.model.classifier import Classifier
    from bittern.model.manifest import Head
    from bittern.model.preprocess import Region, View
    from bittern.model.runtime import ExecutionPath

# Tiles of the contact sheet: five rows.
MOST_TILES = 30
# A confusion matrix of more labels does not fit a terminal; the most frequent confusions are listed instead.
MATRIX_LABELS = 8


@click.command(
    short_help="Report the figures of a model on labelled pictures.",
    epilog="Example: bittern evaluate stop_sign --data pictures/index.csv --split test --json",
)
@click.argument("model")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="An index.csv, a folder with one, or a folder of pictures for each label.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="What the index's paths are relative to.  [default: its folder]"
)
@click.option(
    "--split",
    help="Only this split of the index.  [default: every split but train, val and extra, each on its own, and so is "
    "each value of a column 'set'; all pictures where there is no index]",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only pictures with this value in the index; may be given more than once.",
)
@click.option("--label", help="Label of pictures that have none in the index.  [default: the model's 'nothing']")
@click.option("--against", metavar="MODEL", help="Compare with this model on the same pictures.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write the {MOST_TILES} most confident mistakes as one PNG.",
)
@click.option(
    "--scores", type=click.Path(path_type=Path, dir_okay=False), help="Write the scores of every picture as CSV."
)
@region_option
@views_option
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per split and head of the model.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str,
    data: Path,
    root: Path | None,
    split: str | None,
    where: tuple[str, ...],
    label: str | None,
    against: str | None,
    sheet: Path | None,
    scores: Path | None,
    region: Region | None,
    views: tuple[View, ...],
    stated: Statements,
    path: ExecutionPath | None,
    threads: int,
    as_json: bool,
) -> None:
    """Report accuracy, calibration, confusions and alarms of a model on labelled pictures.

    An answer is correct if the label with the highest score is the picture's own. Shares have Wilson's 95 % interval.
    The other intervals come from 1000 bootstrap resamples of the index's groups, stratified by label, with a fixed
    seed; there is none where resampling cannot give one (a label with a single group, or without a mistake).

    AUC is of the highest score among the labels that raise an alarm, these against all others; the AUC of a label is of
    its own score, this label against the rest, and the macro AUC is their mean. NLL is in nats, with a score of 0 taken
    as half an output step; the Brier score is summed over all labels (0 to 2); the calibration error is the expected
    one of the answer's score, in 10 bins of equal width. Alarms are at the model's threshold "default".

    --views also looks at the squares at the ends of a picture, or of the --region, that is wider than high. The answer
    is that of the view with the highest score of a label that raises an alarm.

    --against compares accuracies: Agresti and Min's paired interval, McNemar's exact test (two-sided binomial).
    --sheet and --scores are of MODEL and all pictures evaluated; a model with several heads writes one file per head,
    with -TASK in its name. The columns of the CSV are path, label, answer, alarm (1 or 0) and one per label.

    Exit code 1 if a picture cannot be read, or the region does not fit into it.
    """
    import logging

    from bittern.evaluation import dataset, evaluate

    logging.basicConfig(format="bittern: %(message)s")
    subsets = _subsets(dataset.select(dataset.read(data, root), _conditions(where), data), split, data)
    items = [item for subset in subsets for item in subset.items]
    index = data if data.is_file() else data / "index.csv"
    _check_output("--sheet", sheet, items, index)
    _check_output("--scores", scores, items, index)
    if sheet is not None and scores is not None and sheet.resolve() == scores.resolve():
        raise ConfigurationError(f"--sheet and --scores are both {sheet}: give two different names")
    classifiers = open_models([model] if against is None else [model, against], stated, path, threads)
    classifier, *other = classifiers
    paired = evaluate.pair_heads(classifier, other[0]) if other else []
    answered: list[list[Answered]] = [[] for _ in classifier.heads]
    failed = False
    for subset in subsets:
        with progress_bar(" ".join(["evaluate", *filter(None, subset[:2])]), len(subset.items)) as progress:
            answers, skipped = evaluate.answer_all(classifiers, subset.items, label, progress, views, region)
        for line in skipped:
            warn(line)
        failed |= bool(skipped)
        if len(skipped) == len(subset.items):
            warn(f"{_source(data, subset)}: no picture could be read")
            continue
        for i, head in enumerate(classifier.heads):
            answered[i] += answers[0][i]
            figures = evaluate.report(
                classifier, head, subset.split, answers[0][i], [as_utf8(line) for line in skipped]
            )
            compared = None
            if other:
                compared = evaluate.compare(other[0], other[0].heads[paired[i]], answers[0][i], answers[1][paired[i]])
            if as_json:
                _print_json(figures, compared, subset.set)
            else:
                click.echo("\n".join(map(printable, _lines(figures, compared, _source(data, subset)))))
    # After the figures: if the disk takes no files, they have been printed already.
    if answered[0]:
        for head, of_head in zip(classifier.heads, answered, strict=True):
            if scores is not None:
                _write_scores(_file_of_head(scores, classifier, head), head, of_head)
            if sheet is not None:
                _write_sheet(_file_of_head(sheet, classifier, head), classifier.shape, of_head, region)
    if failed:
        ctx.exit(1)


def _subsets(items: list[Item], split: str | None, data: Path) -> list[Subset]:
    from bittern.evaluation import dataset

    splits = {item.split for item in items}
    if split is not None:
        return [dataset.Subset("", split, dataset.of_split(items, split, data))]
    if splits == {""}:
        return [dataset.Subset("", "all", items)]
    subsets = dataset.for_reporting(items)
    if not subsets:
        names = ", ".join(sorted(splits))
        raise ConfigurationError(f"{data}: no split for testing; it has {names}: choose one with --split")
    return subsets


def _source(data: Path, subset: Subset) -> str:
    return f"{data}, {f'set {subset.set}, ' if subset.set else ''}split {subset.split}"


def _conditions(where: Sequence[str]) -> dict[str, str]:
    for text in where:
        if not text.partition("=")[1]:
            raise click.BadParameter(f"expected COLUMN=VALUE, got {text!r}", param_hint="--where")
    conditions = {text.partition("=")[0]: text.partition("=")[2] for text in where}
    if len(conditions) < len(where):
        raise click.BadParameter("a column is given twice: no picture can have both values", param_hint="--where")
    return conditions


def _check_output(option: str, file: Path | None, items: Sequence[Item], index: Path) -> None:
    if file is None:
        return
    if not file.absolute().parent.is_dir():
        raise ConfigurationError(f"{option}: no folder {file.parent}")
    if file.exists() and file.resolve() in {p.resolve() for p in (index, *(item.path for item in items))}:
        raise ConfigurationError(f"{option}: {file} is one of the files that are read: give another name")


def _file_of_head(file: Path, classifier: Classifier, head: Head) -> Path:
    return file if len(classifier.heads) == 1 else file.with_stem(f"{file.stem}-{head.task}")


def _write_scores(file: Path, head: Head, answers: Sequence[Answered]) -> None:
    import csv
    import io

    from bittern.system import fileio

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "answer", "alarm", *head.labels])
    for item, label, result in answers:
        scores = (result.scores[x] for x in head.labels)
        writer.writerow([item.name, label, result.label, int(result.alarm), *scores])
    # File names may have bytes that are not UTF-8: they are written unchanged.
    fileio.write(file, text.getvalue().encode("utf-8", "surrogateescape"))


def _write_sheet(file: Path, size: tuple[int, int], answers: Sequence[Answered], region: Region | None) -> None:
    from bittern.evaluation import evaluate
    from bittern.evaluation import sheet as contact
    from bittern.model import pictures, preprocess

    tiles = []
    for item, label, result in evaluate.mistakes(answers)[:MOST_TILES]:
        try:
            frame = pictures.cut(pictures.decode(item.path), item.path, region)
        except PictureError:  # it was deleted or replaced since it was classified
            continue
        tensor = preprocess.preprocess(frame, size=size, view=result.view)
        lines = [f"{_short(label)} -> {_short(result.label)} {result.score:.2f}", printable(item.name)[-30:]]
        tiles.append(contact.Tile(tensor[0], lines, result.alarm))
    if tiles:
        contact.write(file, tiles)
    else:
        warn(f"--sheet: no mistakes, so {file} was not written")


def _short(label: str) -> str:
    # Two of them with a score fit below a picture of 224 pixels.
    return label if len(label) <= 11 else f"{label[:9]}.."


def _print_json(figures: Report, compared: Comparison | None, set_name: str) -> None:
    import msgspec

    content = msgspec.to_builtins(figures)
    if set_name:
        content["set"] = set_name
    if compared is not None:
        content["against"] = msgspec.to_builtins(compared)
        for key in ("only_first_correct", "only_other_correct"):
            content["against"][key] = [as_utf8(name) for name in content["against"][key]]
    print_json(content)


def _lines(figures: Report, compared: Comparison | None, source: str) -> list[str]:
    f = figures
    groups = "" if f.groups == f.n else f", {f.groups} groups"
    lines = [f"{f.model} {f.version}, {f.task}: {source}{groups}"]

    def row(name: str, text: str) -> None:
        lines.append(f"  {name:<10}{text}")

    row("accuracy", _ratio(f.correct, f.n, f.accuracy_ci95))
    if f.auc is not None:
        row("AUC", f"{_number(f.auc, f.auc_ci95)} of {', '.join(f.alarm_labels)} against the rest")
    if f.auc_macro is not None:
        row("macro AUC", f"{_number(f.auc_macro, f.auc_macro_ci95)} mean of one label against the rest")
    row("NLL", _number(f.nll, f.nll_ci95))
    row("Brier", _number(f.brier, f.brier_ci95))
    row("ECE", f"{_number(f.calibration_error, None)} expected calibration error in 10 bins")
    if f.alarm_labels:
        row("alarms", f"{_ratio(f.alarms, f.n, f.alarm_rate_ci95)} at threshold {f.threshold:.3f}")
        row("  false", _ratio(f.false_alarms, f.n - f.alarm_n, f.false_alarm_rate_ci95))
        row("  missed", _ratio(f.missed_alarms, f.alarm_n, f.missed_alarm_rate_ci95))
    if compared is not None:
        c = compared
        low, high = c.difference_ci95
        row("against", f"{c.model} {c.version}, {c.task}: {_ratio(c.correct, c.n, c.accuracy_ci95)}")
        row("", f"{100 * c.difference:+.1f} points (95 % {100 * low:+.1f} to {100 * high:+.1f})")
        only = f"correct only here: {len(c.only_first_correct)}, only there: {len(c.only_other_correct)}"
        row("", f"{only}; McNemar's exact p = {c.mcnemar_p:.3g}")
    cells = [["label", "n", "correct", "recall (95 %)", "predicted", "precision (95 %)", "AUC (95 %)"]]
    for label, of_label in f.per_label.items():
        recall = _share(of_label.recall, of_label.recall_ci95)
        precision = _share(of_label.precision, of_label.precision_ci95)
        area = of_label.auc_one_vs_rest
        auc = "-" if area is None else _interval(area, of_label.auc_one_vs_rest_ci95)
        cells.append([label, str(of_label.n), str(of_label.correct), recall, str(of_label.answered), precision, auc])
    lines += ["", *_table(cells), ""]
    if len(f.per_label) <= MATRIX_LABELS:
        cells = [["true \\ predicted", *f.per_label]]
        cells += [[label, *map(str, counts.values())] for label, counts in f.confusion.items()]
        lines += _table(cells)
    else:
        confusions = [(n, t, p) for t, counts in f.confusion.items() for p, n in counts.items() if n and t != p]
        confusions.sort(key=lambda confusion: -confusion[0])
        cells = [["true", "predicted", "n"], *([t, p, str(n)] for n, t, p in confusions[:10])]
        lines += _table(cells, names=2)
    return lines


def _ratio(k: int, n: int, ci95: Interval | None) -> str:
    return f"{k} of {n}" + (f" = {k / n:.1%} (95 % {ci95[0]:.1%} to {ci95[1]:.1%})" if n and ci95 else "")


def _number(value: float | None, ci95: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" (95 % {ci95[0]:.3f} to {ci95[1]:.3f})" if ci95 else "")


def _interval(value: float, ci95: Interval | None) -> str:
    return f"{value:.3f}" + (f" ({ci95[0]:.3f} to {ci95[1]:.3f})" if ci95 else "")


def _share(value: float | None, ci95: Interval | None) -> str:
    return "-" if value is None or ci95 is None else f"{value:.1%} ({ci95[0]:.1%} to {ci95[1]:.1%})"


def _table(rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
    """Aligned columns: the first `names` to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:{'<' if i < names else '>'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows
    ]

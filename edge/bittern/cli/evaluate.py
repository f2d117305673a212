"""`bittern evaluate`: figures of a model on a labelled split; needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import model_options, print_json, printable, progress_bar, region_option, views_option, warn
from bittern.errors import ConfigurationError, PictureError

if TYPE_CHECKING:
    from bittern.evaluation.dataset import Item
    from bittern.evaluation.evaluate import Answered, Comparison, Report
    from bittern.evaluation.metrics import Interval
    from bittern.model.classifier import Classifier
    from bittern.model.manifest import Head
    from bittern.model.preprocess import Region, View
    from bittern.model.runtime import ExecutionPath

# Tiles of the contact sheet: five rows.
WORST = 30
# A confusion matrix of more labels does not fit a terminal; the most frequent confusions are listed instead.
MATRIX_LABELS = 8


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
@click.option(
    "--where", multiple=True, metavar="COLUMN=VALUE", help="Only pictures with this in the index; may be given again."
)
@click.option("--label", help="Label of pictures whose index has none.  [default: the model's 'nothing']")
@click.option("--against", metavar="MODEL", help="Compare with this model on the same pictures.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write the {WORST} surest mistakes as one PNG.",
)
@click.option(
    "--scores", type=click.Path(path_type=Path, dir_okay=False), help="Write the scores of each picture as CSV."
)
@region_option
@views_option
@model_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each head of the model.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str,
    data: Path,
    root: Path | None,
    split: str,
    where: tuple[str, ...],
    label: str | None,
    against: str | None,
    sheet: Path | None,
    scores: Path | None,
    region: Region | None,
    views: tuple[View, ...],
    labels: Path | None,
    path: ExecutionPath | None,
    threads: int,
    as_json: bool,
) -> None:
    """Say how often a model is right, how sure it is, and what it mistakes for what.

    An answer is right if the label with the highest score is the picture's own. Shares have Wilson's 95 % interval.
    The other intervals are of 1000 resamples of the index's groups, drawn within each label with a fixed seed; there is
    none where they cannot tell (a label with one group only, or without a mistake).

    AUC is of the highest score of the labels that raise an alarm, these against all others; the AUC of a label is of
    its own score, this label against the rest, and the macro AUC is the mean of those. NLL is in nats, with a score of
    0 taken as half a step of the output; Brier is summed over all labels (0 to 2); calibration error is the expected
    one of the answer's score in 10 bins of equal width. Alarms are at the model's threshold "default".

    --views looks at the squares at the ends of a picture, or of the --region, that is wider than high too. The answer
    is that of the view with the highest score of a label that raises an alarm.

    --against compares the accuracies: Agresti and Min's paired interval, McNemar's exact test (two-sided binomial).
    --sheet and --scores are of MODEL; one with several heads writes a file each, with -TASK in its name. The CSV has
    path, label, answer, alarm (1 or 0) and a column for each label.

    Exit code 1 if a picture could not be read, or the region does not fit into it.
    """
    from bittern.evaluation import dataset, evaluate

    items = dataset.select(dataset.read(data, root), _conditions(where), data)
    splits = {item.split for item in items}
    if splits != {""}:
        items = [item for item in items if item.split == split]
        if not items:
            raise ConfigurationError(f"{data}: no split {split!r}; it has {', '.join(sorted(splits))}")
    else:
        split = "all"
    index = data if data.is_file() else data / "index.csv"
    _check_output("--sheet", sheet, items, index)
    _check_output("--scores", scores, items, index)
    if sheet is not None and scores is not None and sheet.resolve() == scores.resolve():
        raise ConfigurationError(f"--sheet and --scores: both are {sheet}: give two names")
    classifiers = _open([model] if against is None else [model, against], labels, path, threads)
    classifier, *other = classifiers
    paired = evaluate.pair_heads(classifier, other[0]) if other else []
    with progress_bar("evaluate", len(items)) as progress:
        answers, skipped = evaluate.answer_all(classifiers, items, label, progress, views, region)
    for line in skipped:
        warn(line)
    if len(skipped) == len(items):
        raise PictureError(f"{data}: no picture of split {split!r} could be read")
    skipped = [printable(line) for line in skipped]
    for i, head in enumerate(classifier.heads):
        answered = answers[0][i]
        figures = evaluate.report(classifier, head, split, answered, skipped)
        compared = None
        if other:
            compared = evaluate.compare(other[0], other[0].heads[paired[i]], answered, answers[1][paired[i]])
        if as_json:
            _print_json(figures, compared)
        else:
            click.echo("\n".join(_lines(figures, compared, str(data))))
    # After the figures: a disk that takes no files does not take those too.
    for head, answered in zip(classifier.heads, answers[0], strict=True):
        if scores is not None:
            _write_scores(_of_head(scores, classifier, head), head, answered)
        if sheet is not None:
            _write_sheet(_of_head(sheet, classifier, head), classifier.size, answered, region)
    if skipped:
        ctx.exit(1)


def _conditions(where: Sequence[str]) -> dict[str, str]:
    for text in where:
        if not text.partition("=")[1]:
            raise click.BadParameter(f"expected COLUMN=VALUE, got {text!r}", param_hint="--where")
    conditions = {text.partition("=")[0]: text.partition("=")[2] for text in where}
    if len(conditions) < len(where):
        raise click.BadParameter("a column is given twice: no picture can be both", param_hint="--where")
    return conditions


def _open(names: Sequence[str], labels: Path | None, path: ExecutionPath | None, threads: int) -> list[Classifier]:
    from bittern.model import catalog
    from bittern.model.classifier import Classifier

    # Of two models --labels is for the one that is a bare file; if neither is, the first one says so.
    bare = [catalog.find(name).is_file() for name in names]
    return [
        Classifier(name, labels=labels if is_bare or not any(bare) else None, path=path, threads=threads)
        for name, is_bare in zip(names, bare, strict=True)
    ]


def _check_output(option: str, file: Path | None, items: Sequence[Item], index: Path) -> None:
    if file is None:
        return
    if not file.absolute().parent.is_dir():
        raise ConfigurationError(f"{option}: no folder {file.parent}")
    if file.exists() and file.resolve() in {p.resolve() for p in (index, *(item.path for item in items))}:
        raise ConfigurationError(f"{option}: {file} is one of the files that are read: give another name")


def _of_head(file: Path, classifier: Classifier, head: Head) -> Path:
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
    # Names of files can have bytes that are no UTF-8: they stay as they are.
    fileio.write(file, text.getvalue().encode("utf-8", "surrogateescape"))


def _write_sheet(file: Path, size: int, answers: Sequence[Answered], region: Region | None) -> None:
    from bittern.evaluation import evaluate
    from bittern.evaluation import sheet as contact
    from bittern.model import pictures, preprocess

    tiles = []
    for item, label, result in evaluate.mistakes(answers)[:WORST]:
        try:
            frame = pictures.cut(pictures.decode(item.path), item.path, region)
        except PictureError:  # it went away since it was answered
            continue
        tensor = preprocess.preprocess(frame, size=size, view=result.view)
        lines = [f"{_short(label)} -> {_short(result.label)} {result.score:.2f}", printable(item.name)[-30:]]
        # The captions of a smaller input would not fit below it.
        times = max(1, round(224 / size))
        tiles.append(contact.Tile(tensor[0].repeat(times, 0).repeat(times, 1), lines, result.alarm))
    if tiles:
        contact.write(file, tiles)
    else:
        warn(f"--sheet: no mistakes, so {file} was not written")


def _short(label: str) -> str:
    # Two of them with a score fit below a picture of 224 pixels.
    return label if len(label) <= 11 else f"{label[:9]}.."


def _print_json(figures: Report, compared: Comparison | None) -> None:
    import msgspec

    told = msgspec.to_builtins(figures)
    if compared is not None:
        told["against"] = msgspec.to_builtins(compared)
        for key in ("only_first_correct", "only_other_correct"):
            told["against"][key] = [printable(name) for name in told["against"][key]]
    print_json(told)


def _lines(figures: Report, compared: Comparison | None, data: str) -> list[str]:
    f = figures
    groups = "" if f.groups == f.n else f", {f.groups} groups"
    lines = [f"{f.model} {f.version}, {f.task}: {data}, split {f.split}{groups}"]

    def row(name: str, text: str) -> None:
        lines.append(f"  {name:<10}{text}")

    row("accuracy", _of(f.correct, f.n, f.accuracy_ci95))
    if f.auc is not None:
        row("AUC", f"{_number(f.auc, f.auc_ci95)} of {', '.join(f.alarm_labels)} against the rest")
    if f.auc_macro is not None:
        row("macro AUC", f"{_number(f.auc_macro, f.auc_macro_ci95)} mean of one label against the rest")
    row("NLL", _number(f.nll, f.nll_ci95))
    row("Brier", _number(f.brier, f.brier_ci95))
    row("ECE", f"{_number(f.calibration_error, None)} calibration error in 10 bins")
    if f.alarm_labels:
        row("alarms", f"{_of(f.alarms, f.n, f.alarm_rate_ci95)} from {f.threshold:.3f} on")
        row("  false", _of(f.false_alarms, f.n - f.alarm_n, f.false_alarm_rate_ci95))
        row("  missed", _of(f.missed_alarms, f.alarm_n, f.missed_alarm_rate_ci95))
    if compared is not None:
        c = compared
        low, high = c.difference_ci95
        row("against", f"{c.model} {c.version}, {c.task}: {_of(c.correct, c.n, c.accuracy_ci95)}")
        row("", f"{100 * c.difference:+.1f} points (95 % {100 * low:+.1f} to {100 * high:+.1f})")
        only = f"{len(c.only_first_correct)} right only here, {len(c.only_other_correct)} only there"
        row("", f"{only}, McNemar's exact p = {c.mcnemar_p:.3g}")
    cells = [["label", "n", "right", "recall (95 %)", "answered", "precision (95 %)", "AUC (95 %)"]]
    for label, of in f.per_label.items():
        recall, precision = _share(of.recall, of.recall_ci95), _share(of.precision, of.precision_ci95)
        area = "-" if of.auc_one_vs_rest is None else _interval(of.auc_one_vs_rest, of.auc_one_vs_rest_ci95)
        cells.append([label, str(of.n), str(of.correct), recall, str(of.answered), precision, area])
    lines += ["", *_table(cells), ""]
    if len(f.per_label) <= MATRIX_LABELS:
        cells = [["true \\ answered", *f.per_label]]
        cells += [[label, *map(str, counts.values())] for label, counts in f.confusion.items()]
        lines += _table(cells)
    else:
        found = [(n, t, a) for t, counts in f.confusion.items() for a, n in counts.items() if n and t != a]
        found.sort(key=lambda x: -x[0])
        lines += _table([["true", "answered", "n"], *([t, a, str(n)] for n, t, a in found[:10])])
    return lines


def _of(k: int, n: int, ci95: Interval | None) -> str:
    return f"{k} of {n}" + (f" = {k / n:.1%} (95 % {ci95[0]:.1%} to {ci95[1]:.1%})" if n and ci95 else "")


def _number(value: float | None, ci95: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" (95 % {ci95[0]:.3f} to {ci95[1]:.3f})" if ci95 else "")


def _interval(value: float, ci95: Interval | None) -> str:
    return f"{value:.3f}" + (f" ({ci95[0]:.3f} to {ci95[1]:.3f})" if ci95 else "")


def _share(value: float | None, ci95: Interval | None) -> str:
    return "-" if value is None or ci95 is None else f"{value:.1%} ({ci95[0]:.1%} to {ci95[1]:.1%})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    names = 1 + (rows[0][:2] == ["true", "answered"])
    return [
        "  "
        + "  ".join(
            f"{cell:{'<' if i < names else '>'}{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]

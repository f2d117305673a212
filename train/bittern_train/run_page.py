"""The page of a run: one HTML file with its figures, charts and pictures, which asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bittern.errors import PictureError
from bittern.evaluation import explain, metrics, occlusion
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import pictures, preprocess
from bittern.model.classifier import Classifier
from bittern.system import fileio
from bittern_convert import copies
from bittern_train import html_page, run_figures
from bittern_train.html_page import text
from bittern_train.learning_curve import SHARES, Curve, Forecast
from bittern_train.run_figures import KindShare, RunAnswers

# Pictures of each kind that are shown, and of how many what the network looks at.
SHOWN, EXPLAINED = 12, 6
_SIDE = 168
_MAX_HISTORY_BYTES = 64 * 2**20
_CUT = ((0.0, "less than 10 % cut away"), (0.1, "10 to 30 % cut away"), (0.3, "30 % or more cut away"))

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f23; --soft: #57606a; --line: #d0d7de; --back: #ffffff; --fill: #0969da;
  --second: #b35900; --third: #1a7f37; --fourth: #8250df; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d; --back: #0d1117;
  --fill: #58a6ff; --second: #e3893a; --third: #56d364; --fourth: #bc8cff; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 64rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p.note, figcaption { color: var(--soft); }
table { border-collapse: collapse; margin: 1rem 0; } caption { text-align: left; color: var(--soft); }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: right; } th { text-align: left; }
.charts, .pictures { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; } .pictures figure { width: 168px; }
.pictures figcaption { font-size: .8rem; overflow-wrap: anywhere; }
svg { width: 100%; max-width: 28rem; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.scroll { overflow-x: auto; }
"""
_COLOURS = ("var(--fill)", "var(--second)", "var(--third)", "var(--fourth)")


class Line(NamedTuple):
    """A line of a chart: its points (x, y), its name, the number of its colour, and whether it is dashed."""

    points: Sequence[tuple[float, float]]
    name: str = ""
    colour: int = 0
    dashed: bool = False


class Axes(NamedTuple):
    """What is on the axes of a chart, and their ranges."""

    x: str
    y: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)


def render(
    folder: Path,
    judged: RunAnswers,
    classifier: Classifier | None,
    growth: Sequence[tuple[Curve, Forecast]],
    progress: Callable[[int], None] = lambda _: None,
) -> str:
    """The page.

    Args:
        folder: of the run.
        judged: its pictures and what was answered.
        classifier: the int8 model that was made of the run, to show what it looks at; None leaves that out.
        growth: learning curves with what more pictures would bring; none leaves that out.
        progress: called with the number of parts that are done, of `PARTS`.
    """
    parts = [
        _head(folder, judged),
        _training(folder),
        _confusion(judged),
        _thresholds(judged),
        _reliability(judged),
        _kinds(judged),
        _examples("The worst mistakes", "Incorrect answers, the most confident first.", judged,
                  run_figures.mistakes(judged, SHOWN)),
        _examples("The least certain answers", "The two highest scores are closest.", judged,
                  run_figures.least_certain(judged, SHOWN)),
        _looks(judged, classifier, progress),
        _growth(growth),
    ]  # fmt: skip
    task = judged.made.task
    return html_page.document(f"{task.name}: run {judged.made.id}", _STYLE, "".join(parts))


def chart(title: str, axes: Axes, lines: Sequence[Line]) -> str:
    """A chart of lines as SVG, in a figure with its title."""
    wide, high, left, bottom, top = 440, 300, 56, 44, 12
    (x0, x1), (y0, y1) = axes.x_range, axes.y_range

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (wide - left - 12) * (x - x0) / ((x1 - x0) or 1),
            high - bottom - (high - bottom - top) * (y - y0) / ((y1 - y0) or 1),
        )

    parts = []
    for i in range(5):
        x, y = x0 + (x1 - x0) * i / 4, y0 + (y1 - y0) * i / 4
        (px, _), (_, py) = place(x, y0), place(x0, y)
        parts.append(
            f'<path d="M{px:.1f} {top}V{high - bottom}M{left} {py:.1f}H{wide - 12}" stroke="var(--line)"/>'
            f'<text x="{px:.1f}" y="{high - bottom + 16}" text-anchor="middle">{x:.3g}</text>'
            f'<text x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{y:.3g}</text>'
        )
    parts.append(f'<text x="{(left + wide) / 2}" y="{high - 8}" text-anchor="middle">{text(axes.x)}</text>')
    parts.append(
        f'<text transform="translate(12 {(high - bottom + top) / 2}) rotate(-90)" text-anchor="middle">'
        f"{text(axes.y)}</text>"
    )
    for line in lines:
        spots = [place(min(max(x, x0), x1), min(max(y, y0), y1)) for x, y in line.points]
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        colour = _COLOURS[line.colour % len(_COLOURS)]
        drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(f'<path d="M{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
    named = {line.name: line for line in lines if line.name}
    for i, (name, line) in enumerate(named.items()):
        colour = _COLOURS[line.colour % len(_COLOURS)]
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        y = top + 14 + 16 * i
        parts.append(
            f'<path d="M{wide - 160} {y - 4}h20" stroke="{colour}" stroke-width="2"{dash}/>'
            f'<text x="{wide - 134}" y="{y}">{text(name)}</text>'
        )
    drawing = f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{text(title)}">{"".join(parts)}</svg>'
    return f"<figure>{drawing}<figcaption>{text(title)}</figcaption></figure>"


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(folder: Path, judged: RunAnswers) -> str:
    task, n = judged.made.task, len(judged.items)
    correct = int(judged.correct.sum())
    facts = [["correct", f"{correct} of {n}: {run_figures.interval(correct, n)}"]]
    alarms = run_figures.alarm_scores(judged)
    if alarms is not None:
        strata = [str(kind) for kind in alarms[1]]
        resampled = metrics.bootstrap(
            judged.groups, strata, lambda weights: metrics.weighted_auc(weights, alarms[0], alarms[1])[:, None]
        )
        area = metrics.auc(*alarms)
        bounds = None if resampled is None else metrics.percentile_interval(resampled[:, 0])
        facts.append(["AUC of the alarm", f"{area:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")])
    facts += [
        ["labels", ", ".join(task.labels)],
        ["alarm", ", ".join(task.alarm) or "none"],
        ["seed", str(judged.made.seed)],
        ["training took", f"{judged.made.seconds / 60:.1f} min"],
        ["versions", ", ".join(f"{name} {version}" for name, version in judged.made.versions.items())],
    ]
    return (
        f"<h1>{text(task.name)}</h1><p>{text(task.question)}</p>"
        f"<p class=note>Run {text(folder.name)}. Every figure is out of fold: each of the {n} pictures was answered "
        "by a network that did not train on it, nor on one of its group. Intervals are 95 % (Wilson; bootstrap over "
        f"groups for AUC).</p>{_table('The run', ['what', 'value'], facts)}"
    )


def _training(folder: Path) -> str:
    try:
        history: dict[str, Any] = json.loads(fileio.read_regular(folder / "history.json", _MAX_HISTORY_BYTES))
        candidates = history["candidates"]
        lines: list[list[Line]] = [[], []]
        for number, candidate in enumerate(candidates[: len(_COLOURS)]):
            for fold in candidate["folds"]:
                for kind, key in enumerate(("val_loss", "val_accuracy")):
                    points = [(row["epoch"], row[key]) for row in fold if row.get(key) is not None]
                    lines[kind].append(Line(points, f"rate {candidate['rate']:g}", number))
    except (OSError, ValueError, KeyError, TypeError):
        return "<h2>Training</h2><p>The run keeps no history that can be read.</p>"
    lines = [[line for line in kind if line.points] for kind in lines]
    if not lines[0] or not lines[1]:
        return ""
    epochs = (0.0, max(1.0, *(x for line in lines[0] for x, _ in line.points)))
    most = max(y for line in lines[0] for _, y in line.points)
    least = min(y for line in lines[1] for _, y in line.points)
    return (
        "<h2>Training</h2><p class=note>A line for each fold, a colour for each candidate; the first one was chosen. "
        "Epoch 0 is the head alone.</p><div class=charts>"
        + chart("Cross-entropy of validation", Axes("epoch", "loss", epochs, (0.0, most)), lines[0])
        + chart("Balanced accuracy of validation", Axes("epoch", "accuracy", epochs, (least, 1.0)), lines[1])
        + "</div>"
    )


def _confusion(judged: RunAnswers) -> str:
    labels = judged.made.task.labels
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (judged.targets, judged.answers), 1)
    rows = [
        [label, *counts[i], run_figures.interval(counts[i, i], counts[i].sum()) if counts[i].sum() else ""]
        for i, label in enumerate(labels)
    ]
    table = _table("Pictures by true label (rows) and answer (columns)", ["true", *labels, "correct"], rows)
    return f"<h2>Confusion matrix</h2>{table}"


def _thresholds(judged: RunAnswers) -> str:
    alarms = run_figures.alarm_scores(judged)
    if alarms is None:
        return "<h2>Thresholds</h2><p>No label of this task raises an alarm, or all pictures have one.</p>"
    scores, positive = alarms
    n, without = int(positive.sum()), int((~positive).sum())
    rows = run_figures.operating(scores, positive)
    sentences = [
        f"At one false alarm in {row.one_in} pictures you catch {row.caught / n:.0%}." for row in rows if row.threshold
    ]
    table = _table(
        f"Of {without} pictures without an alarm and {n} with one",
        ["false alarms, at most", "threshold", "false alarms", "caught"],
        [
            [f"1 in {row.one_in} pictures", "none" if row.threshold is None else f"{row.threshold:.3f}", row.false,
             f"{row.caught} of {n}: {run_figures.interval(row.caught, n)}"]
            for row in rows
        ],
    )  # fmt: skip
    return (
        f"<h2>Thresholds</h2><p>{text(' '.join(sentences))}</p>{table}<p class=note>Of pictures, one by one. The "
        "daemon decides over time: its false alarms an hour are in the model's card.</p><div class=charts>"
        + chart("ROC", Axes("false alarms", "alarms caught"),
                [Line(run_figures.roc(scores, positive)), Line([(0, 0), (1, 1)], "chance", 1, True)])
        + chart("Precision and recall", Axes("alarms caught", "alarms that are right"),
                [Line(run_figures.precision_recall(scores, positive)),
                 Line([(0, n / (n + without)), (1, n / (n + without))], "chance", 1, True)])
        + "</div>"
    )  # fmt: skip


def _reliability(judged: RunAnswers) -> str:
    bins = run_figures.reliability(judged)
    error = metrics.calibration_error(judged.scores.max(1), judged.correct)
    points = [(b.score, b.correct / b.n) for b in bins]
    drawing = chart(
        "Score of the answer and how often it is correct",
        Axes("mean score", "correct"),
        [Line(points, "answers"), Line([(0, 0), (1, 1)], "perfect", 1, True)],
    )
    rows = [[f"{b.score:.2f}", b.n, run_figures.interval(b.correct, b.n)] for b in bins]
    return (
        f"<h2>Is a score a probability?</h2><p>Expected calibration error: {error:.3f}.</p><div class=charts>{drawing}"
        f"{_table('By the score of the answer', ['mean score', 'pictures', 'correct'], rows)}</div>"
    )


def _kinds(judged: RunAnswers) -> str:
    cut = run_figures.cut_away(judged)

    def by_cut(i: int) -> str | None:
        share = cut[i]
        return None if share is None else [name for least, name in _CUT if share >= least][-1]

    def rows(shares: Sequence[KindShare]) -> list[list[object]]:
        return [[share.name, share.n, run_figures.interval(share.correct, share.n)] for share in shares]

    order = {name: i for i, (_, name) in enumerate(_CUT)}
    by_cuts = sorted(run_figures.shares(judged, by_cut), key=lambda share: order[share.name])
    known = [share for share in cut if share is not None]
    lost = f"On average {np.mean(known):.0%} of a picture is cut away." if known else "No picture can be read."
    header = ["pictures", "n", "correct"]
    return (
        "<h2>Which pictures are hard?</h2>"
        + _table(
            "By source",
            header,
            rows(run_figures.shares(judged, lambda i: judged.items[i].columns.get("set", ""))),
        )
        + _table(
            "By the size of the group",
            header,
            rows(run_figures.shares(judged, run_figures.group_size(judged))),
        )
        + f"<h3>What the centre crop cut away</h3><p>The network sees the centred square. {lost}</p>"
        + _table("By the share that is cut away", header, rows(by_cuts))
    )


def _examples(title: str, note: str, judged: RunAnswers, numbers: Sequence[int]) -> str:
    if not numbers:
        return f"<h2>{title}</h2><p>There are none.</p>"
    labels = judged.made.task.labels
    shown = []
    for i in numbers:
        answered = f"{labels[judged.targets[i]]}, answered {labels[judged.answers[i]]} {judged.scores[i].max():.2f}"
        try:
            shown.append(_figure(_whole(judged, i), f"{answered}: {judged.items[i].path}"))
        except PictureError as error:
            shown.append(_figure(None, f"{answered}: {error}"))
    return (
        f"<h2>{title}</h2><p class=note>{note} The frame in each picture is what the network sees.</p>"
        f"<div class=pictures>{''.join(shown)}</div>"
    )


def _decoded(item: Item) -> Pixels:
    """A picture, BGR; raises PictureError if it cannot be read, or is not the one that the run was trained on."""
    trained = item.columns.get("sha256")
    if trained and copies.picture_digest(item.path) not in (trained, ""):
        raise PictureError(f"{item.path}: was changed after the training, or is another picture")
    return pictures.decode(item.path)


def _whole(judged: RunAnswers, i: int) -> Pixels:
    """A picture, small, RGB, with the part that the network sees in a frame; raises as `_decoded`."""
    region = judged.made.task.field_of_view.region
    frame = _decoded(judged.items[i])
    inner = pictures.cut(frame, judged.items[i].path, region)
    scale = _SIDE / max(frame.shape[:2])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    x, y = (region.x, region.y) if region else (0, 0)
    side = min(inner.shape[:2])
    x, y = x + (inner.shape[1] - side) // 2, y + (inner.shape[0] - side) // 2
    corners = [tuple(round(value * scale) for value in corner) for corner in ((x, y), (x + side - 1, y + side - 1))]
    cv2.rectangle(small, corners[0], corners[1], (255, 255, 255), 3)
    cv2.rectangle(small, corners[0], corners[1], (0, 0, 0), 1)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)


def _figure(picture: Pixels | None, caption: str) -> str:
    shown = "<p>cannot be shown</p>" if picture is None else html_page.image(picture[:, :, ::-1])
    return f"<figure>{shown}<figcaption>{text(caption)}</figcaption></figure>"


def _looks(judged: RunAnswers, classifier: Classifier | None, progress: Callable[[int], None]) -> str:
    title = "<h2>What the network looks at</h2>"
    if classifier is None:
        return f"{title}<p>Convert the run, and give the model with <code>--model</code>, to see it here.</p>"
    labels = judged.made.task.labels
    ordered = np.argsort(-judged.scores.max(1), kind="stable")
    sure = [int(i) for label in range(len(labels)) for i in [k for k in ordered if judged.targets[k] == label][:1]]
    numbers = [*run_figures.mistakes(judged, EXPLAINED // 2), *sure][:EXPLAINED]
    shown = []
    for done, i in enumerate(numbers):
        try:
            square = _square(judged, classifier, i)
        except PictureError as error:
            shown.append(_figure(None, str(error)))
            continue
        explanation = occlusion.cover(classifier, square)[0]
        heat = cv2.resize(explain.blend(square, explanation.heat), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        faint = ": no one place matters much" if explanation.faint else ""
        answered = (
            f"{labels[judged.targets[i]]}, answered {explanation.result.label} {explanation.result.score:.2f}{faint}"
        )
        shown.append(_figure(np.asarray(heat, np.uint8), f"{answered}: {judged.items[i].path}"))
        progress(done + 1)
    return (
        f"{title}<p class=note>Where a patch that covers a part of the picture lowers the score of the answer of "
        f"{text(classifier.name)} {text(classifier.version)} most (occlusion). The final network was trained on "
        f"these pictures: this says where it looks, not how good it is.</p><div class=pictures>{''.join(shown)}</div>"
    )


def _square(judged: RunAnswers, classifier: Classifier, i: int) -> Pixels:
    frame = pictures.cut(
        _decoded(judged.items[i]),
        judged.items[i].path,
        judged.made.task.field_of_view.region,
    )
    return np.asarray(preprocess.preprocess(frame, size=classifier.size)[0], np.uint8)


def sentence(curve: Curve, expected: Forecast) -> str:
    """What a forecast says, in words: "with 100 more of open, about 2 (0 to 4) points more"."""
    whose = f" of {curve.label}" if curve.label is not None else ""
    low, high = (100 * bound for bound in expected.interval)
    if not expected.visible:
        return f"With {expected.more} more{whose}: nothing to be seen ({low:+.1f} to {high:+.1f} points)."
    return f"With {expected.more} more{whose}: about {100 * expected.gain:.1f} ({low:.1f} to {high:.1f}) points more."


def _growth(growth: Sequence[tuple[Curve, Forecast]]) -> str:
    if not growth:
        return ""
    sentences = "".join(f"<li>{text(sentence(curve, expected))}</li>" for curve, expected in growth)
    overall = growth[0][0]
    drawing = chart(
        "Balanced accuracy of a refitted head",
        Axes("pictures", "accuracy", (0.0, float(overall.counts[-1])), (float(overall.accuracies.min()) - 0.02, 1.0)),
        [Line(list(zip(overall.counts, overall.accuracies, strict=True)))],
    )
    names = ", ".join(f"{share:.0%}" for share in SHARES)
    return (
        f"<h2>How much is enough?</h2><ul>{sentences}</ul><p class=note>Heads refitted on {names} of the pictures of "
        "the run's own folds, on the features that training started from, and extrapolated by a power law. The "
        "intervals are 95 %. It says how the curve bends; the network itself is trained further and is better.</p>"
        f"<div class=charts>{drawing}</div>"
    )

"""The model card: written from the manifest and the run, so that no figure is typed by hand."""

from __future__ import annotations

import json
from typing import Any

from bittern.evaluation import metrics
from bittern.model.manifest import Manifest
from bittern_convert.run import Run
from bittern_convert.task import FieldOfView

# Splits with fewer pictures are left out of the table of harm.
HARMED_LEAST = 20


def render(said: Manifest, made: Run) -> str:
    """`MODEL_CARD.md` of a model."""
    task = made.task
    found = said.provenance
    gate = found["gate"]
    head = said.heads[0]
    parts = [
        f"# {said.name} {said.version}",
        "",
        f"{task.question} Labels: {_list(head.labels)}; alarm: {_list(head.alarm)}; "
        f"nothing of interest: {_list(head.nothing)}. MobileNetV2 1.0 at "
        f"{said.input.shape[1]} x {said.input.shape[2]}, full "
        f"int8, {said.size / 1e6:.2f} MB. {_seen(task.field_of_view)}",
        "",
        "Written by `bittern convert` from the run; every figure is from `manifest.json`.",
        "",
        "## Figures of the int8 model on test pictures",
        "Neither training nor the k-fold has seen them. A picture is right if the label with the highest score is "
        "its own.",
        "",
        "| pictures | n | right | accuracy (95 %) | AUC (95 %) | false alarms | missed alarms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for split, figures in found["reports"].items():
        n, others = figures["alarm_n"], figures["n"] - figures["alarm_n"]
        cells = [
            split,
            figures["n"],
            figures["correct"],
            _share(figures["correct"], figures["n"]),
            _area(figures),
            f"{figures['false_alarms']} of {others}" if others else "",
            f"{figures['missed_alarms']} of {n}" if n else "",
        ]
        parts.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    left_out = {split: of["skipped"] for split, of in found["reports"].items() if of["skipped"]}
    if left_out:
        counts = ", ".join(f"{split} {n}" for split, n in left_out.items())
        parts += ["", f"Not looked at, because unreadable or of another size than the region: {counts}."]
    parts += ["", *_figures_by_label(found["reports"])]
    parts += [
        "",
        *_harmed(found["reports"]),
        "",
        "## Choices",
        f"By {found['cross_validation']['method']}, before the final fit on both:",
        "",
    ]
    parts += ["| pictures | n | right | accuracy (95 %) |", "| --- | --- | --- | --- |"]
    for name, figures in found["cross_validation"]["sets"].items():
        low, high = figures["accuracy_ci95"]
        parts.append(
            f"| {name} | {figures['n']} | {figures['correct']} | {figures['accuracy']:.1%} ({low:.1%} to {high:.1%}) |"
        )
    harmed = found["cross_validation"]["harmed"]
    parts += [
        "",
        f"Harmed versions of the same pictures, out of fold: {harmed['correct']} of {harmed['n']} right "
        f"({harmed['accuracy']:.1%}).",
    ]
    parts += ["", "| threshold | on from | off below | chosen for |", "| --- | --- | --- | --- |"]
    parts += [f"| {name} | {t.on:.3f} | {t.off:.3f} | {t.chosen_for} |" for name, t in head.thresholds.items()]
    low, high = gate["agreement_ci95"]
    loss_low, loss_high = gate["loss_ci95"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in gate["kinds"].items())
    parts += [
        "",
        "## Float against int8",
        f"The same answer on {gate['same']} of {gate['n']} pictures ({gate['agreement']:.2%}, 95 % {low:.2%} to "
        f"{high:.2%}) that calibration has not seen: {kinds}. Paired accuracy loss {100 * gate['loss']:+.2f} points "
        f"(95 % {100 * loss_low:+.2f} to {100 * loss_high:+.2f}). These pictures were trained on: the comparison says "
        "how close the two networks are, not how good they are.",
        "",
        "## Data",
        f"Trained on, by kind: {_kinds(found['pictures']['trained_on'])}; {found['pictures']['copies']} copies of "
        f"each, of photographs the first one unaltered. {found['pictures']['unreadable']} files could not be read. "
        f"Calibrated with {found['calibration']['pictures']} pictures and {found['calibration']['plus']}; the head's "
        f"biases take back what int8 shifts ({_biases(found['calibration']['head_bias'])}, from "
        f"{found['calibration']['head_bias_pictures']} pictures that the gate does not see)."
        + (" Streets and pasted signs are drawn by Bittern's own code." if task.drawn else ""),
        "",
    ]
    parts += [f"- {line}" for line in task.sources]
    parts += ["", "## Known failures and limits"]
    parts += [f"- {line}" for line in task.limits]
    parts += [
        "",
        "## Provenance",
        f"Seed {found['seed']}; data sha256 `{found['data_sha256'][:16]}`; weights sha256 "
        f"`{found['weights_sha256'][:16]}`; model sha256 `{said.sha256[:16]}`; code {found['revision'] or 'unknown'}; "
        + ", ".join(f"{k} {v}" for k, v in found["versions"].items())
        + ".",
    ]
    return "\n".join(parts) + "\n"


def _seen(field: FieldOfView) -> str:
    if not field.keys():
        return "The network sees the centred square of a frame and nothing beside it."
    options = " ".join(f"--{key} {','.join(map(str, values))}" for key, values in field.keys().items())
    keys = " and ".join(f"`{key} = {json.dumps(values)}`" for key, values in field.keys().items())
    return (
        f"Thresholds and figures are of {field.text()}: give the daemon {keys}, and `bittern evaluate` `{options}`. "
        "The comparison of float and int8 is of the centred square."
    )


def _share(k: int, n: int) -> str:
    if not n:
        return ""
    low, high = metrics.wilson(k, n)
    return f"{k / n:.1%} ({low:.1%} to {high:.1%})"


def _area(figures: dict[str, Any]) -> str:
    area, interval = figures["auc"], figures["auc_ci95"]
    if area is None:
        return ""
    return f"{area:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _figures_by_label(reports: dict[str, Any]) -> list[str]:
    rows = [
        f"| {split} | `{label}` | {of['n']} | {_share(of['correct'], of['n'])} | {of['answered']} | "
        f"{_share(of['correct'], of['answered'])} |"
        for split, figures in reports.items()
        for label, of in figures["per_label"].items()
        if of["n"]
    ]
    sure = "; ".join(
        f"{split}: NLL {figures['nll']:.3f}, Brier {figures['brier']:.3f}, calibration error "
        f"{figures['calibration_error']:.3f}"
        for split, figures in reports.items()
        if figures["n"]
    )
    head = ["| pictures | label | n | found | answered | of these right |", "| --- | --- | --- | --- | --- | --- |"]
    return [*head, *rows, "", f"How sure it is (`bittern evaluate --help` says what these are): {sure}."]


def _harmed(reports: dict[str, Any]) -> list[str]:
    # Of a handful of pictures nothing can be said twenty-eight times.
    shown = {split: of["harmed"] for split, of in reports.items() if of["harmed"]["n"] >= HARMED_LEAST}
    if not shown:
        return []
    columns = " | ".join(f"{split} mild | strong | alarms mild | strong" for split in shown)
    rows: dict[str, list[int]] = {}
    for harmed in shown.values():
        for kind in dict.fromkeys(c["kind"] for c in harmed["counts"]):
            both = [c for c in harmed["counts"] if c["kind"] == kind]
            rows.setdefault(kind, []).extend([*(c["correct"] for c in both), *(c["alarms"] for c in both)])
    means = "; ".join(
        f"{split} (n = {of['n']}): right {of['mean_accuracy']:.1%}, alarms {of['mean_alarm_rate']:.1%}"
        for split, of in shown.items()
    )
    return [
        "## Under harm that a camera does",
        "The same pictures at 224 x 224 with one kind of harm each (`bittern_convert.corruption`): how many are right, "
        "and how many raise an alarm. The mean was a criterion of the choice below (on train + val).",
        "",
        f"Mean over all kinds and strengths, {means}.",
        "",
        f"| harm | {columns} |",
        f"| --- |{' --- |' * 4 * len(shown)}",
        *(f"| {kind} | {' | '.join(str(n) for n in counts)} |" for kind, counts in rows.items()),
    ]


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{n}`" for n in names) or "none"


def _kinds(trained: dict[str, dict[str, int]]) -> str:
    names = {"photo": "photographs", "street": "drawn streets", "pasted": "photographs with a drawn sign"}
    return "; ".join(
        f"{sum(of.values())} {names[kind]} ({', '.join(f'{n} {label}' for label, n in of.items())})"
        for kind, of in trained.items()
    )


def _biases(bias: dict[str, float]) -> str:
    return ", ".join(f"{label} {b:+.2f}" for label, b in bias.items())

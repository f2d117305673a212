"""The model card: written from the manifest and the run, so that no figure is typed by hand."""

from __future__ import annotations

from typing import Any

from bittern.manifest import Manifest
from bittern_convert.run import Run


def render(said: Manifest, made: Run) -> str:
    """`MODEL_CARD.md` of a model."""
    task: dict[str, Any] = made.task
    found = said.provenance
    gate = found["gate"]
    head = said.heads[0]
    parts = [
        f"# {said.name} {said.version}",
        "",
        f"{task['question']} Labels: {_list(head.labels)}; alarm: {_list(head.alarm)}; "
        f"nothing of interest: {_list(head.nothing)}. MobileNetV2 1.0 at "
        f"{said.input.shape[1]} x {said.input.shape[2]}, full "
        f"int8, {said.size / 1e6:.2f} MB. The network sees the centred square of a frame and nothing beside it.",
        "",
        "Written by `bittern convert` from the run; every figure is from `manifest.json`.",
        "",
        "## Figures of the int8 model on test pictures",
        "Neither training nor the k-fold has seen them. A picture is right if the label with the highest score is "
        "its own.",
        "",
        "| pictures | n | right | accuracy (95 %) | AUC | alarms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for split, figures in found["reports"].items():
        low, high = figures["accuracy_ci95"]
        share = f"{figures['accuracy']:.1%} ({low:.1%} to {high:.1%})"
        auc = "" if figures["auc"] is None else f"{figures['auc']:.3f}"
        parts.append(f"| {split} | {figures['n']} | {figures['correct']} | {share} | {auc} | {figures['alarms']} |")
    parts += ["", "## Choices", f"By {found['cross_validation']['method']}, before the final fit on both:", ""]
    parts += ["| pictures | n | right | accuracy (95 %) |", "| --- | --- | --- | --- |"]
    for name, figures in found["cross_validation"]["sets"].items():
        low, high = figures["accuracy_ci95"]
        parts.append(
            f"| {name} | {figures['n']} | {figures['correct']} | {figures['accuracy']:.1%} ({low:.1%} to {high:.1%}) |"
        )
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
        f"Trained on, by kind: {_kinds(found['pictures']['trained_on'])}; {found['pictures']['copies']} altered copies "
        f"of each. {found['pictures']['unreadable']} files could not be read. Calibrated with "
        f"{found['calibration']['pictures']} pictures and {found['calibration']['plus']}; the head's biases take back "
        f"what int8 shifts ({_biases(found['calibration']['head_bias'])}, from "
        f"{found['calibration']['head_bias_pictures']} pictures that the gate does not see). Streets and pasted signs "
        "are drawn by Bittern's own code.",
        "",
    ]
    parts += [f"- {line}" for line in task["sources"]]
    parts += ["", "## Known failures and limits"]
    parts += [f"- {line}" for line in task["limits"]]
    parts += [
        "",
        "## Provenance",
        f"Seed {found['seed']}; data sha256 `{found['data_sha256'][:16]}`; weights sha256 "
        f"`{found['weights_sha256'][:16]}`; model sha256 `{said.sha256[:16]}`; code {found['revision'] or 'unknown'}; "
        + ", ".join(f"{k} {v}" for k, v in found["versions"].items())
        + ".",
    ]
    return "\n".join(parts) + "\n"


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

"""The model card: written from the manifest and the task, so that no figure is typed by hand."""

from __future__ import annotations

import json
from typing import Any

from bittern.evaluation import metrics
from bittern.model.manifest import Manifest
from bittern_convert.task import FieldOfView, Task

# Splits with fewer pictures are left out of the table of corruptions.
LEAST_CORRUPTED = 20
# In place of the name of a run, for a network that was trained elsewhere.
FOREIGN = "trained elsewhere"


def render(manifest: Manifest, task: Task) -> str:
    """`MODEL_CARD.md` of a model."""
    provenance, head = manifest.provenance, manifest.heads[0]
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"{task.question} Labels: {_list(head.labels)}; alarm: {_list(head.alarm)}; "
        f"nothing of interest: {_list(head.nothing)}. {task.backbone.title} at "
        f"{manifest.input.shape[1]} x {manifest.input.shape[2]}, full "
        f"int8, {manifest.size / 1e6:.2f} MB. {_field_of_view(task.field_of_view)}",
        "",
        "Written by `bittern convert`; every figure is from `manifest.json`."
        if provenance["run"] == FOREIGN
        else "Written by `bittern convert` from the run; every figure is from `manifest.json`.",
        "",
        *_test_figures(provenance["reports"]),
        "",
        *_figures_by_label(provenance["reports"]),
        "",
        *_corrupted(provenance["reports"]),
        "",
        *_streams(provenance.get("streams")),
        "",
        *_choices(manifest),
        "",
        *_parity_check(provenance["gate"], one_fit=_one_fit(manifest)),
        "",
        *_data(provenance, task),
        "",
        "## Known failures and limits",
        *(f"- {line}" for line in task.limits),
        "",
        *_provenance(manifest),
    ]
    return "\n".join(lines) + "\n"


def _field_of_view(field: FieldOfView) -> str:
    if not field.keys():
        return "The network sees the centred square of a frame and nothing beside it."
    options = " ".join(f"--{key} {','.join(map(str, values))}" for key, values in field.keys().items())
    keys = " and ".join(f"`{key} = {json.dumps(values)}`" for key, values in field.keys().items())
    return (
        f"Thresholds and figures are of {field.text()}: give the daemon {keys}, and `bittern evaluate` `{options}`. "
        "The comparison of float and int8 is of the centred square."
    )


def _test_figures(reports: dict[str, Any]) -> list[str]:
    if not reports:
        return ["There are no figures on test pictures: none were held back."]
    rows = []
    for split, figures in reports.items():
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
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    skipped = ", ".join(f"{split} {figures['skipped']}" for split, figures in reports.items() if figures["skipped"])
    return [
        "## Figures of the int8 model on test pictures",
        "Neither training nor the k-fold used them. An answer is correct if the label with the highest score is the "
        "picture's own.",
        "",
        "| pictures | n | correct | accuracy (95 %) | AUC (95 %) | false alarms | missed alarms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        *(["", f"Left out, because unreadable or the region does not fit: {skipped}."] if skipped else []),
    ]


def _figures_by_label(reports: dict[str, Any]) -> list[str]:
    if not reports:
        return []
    rows = [
        f"| {split} | `{label}` | {of_label['n']} | {_share(of_label['correct'], of_label['n'])} | "
        f"{of_label['answered']} | {_share(of_label['correct'], of_label['answered'])} |"
        for split, figures in reports.items()
        for label, of_label in figures["per_label"].items()
        if of_label["n"]
    ]
    calibration = "; ".join(
        f"{split}: NLL {figures['nll']:.3f}, Brier {figures['brier']:.3f}, calibration error "
        f"{figures['calibration_error']:.3f}"
        for split, figures in reports.items()
        if figures["n"]
    )
    return [
        "| pictures | label | n | recall (95 %) | predicted | precision (95 %) |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Calibration of the scores (`bittern evaluate --help` explains the figures): {calibration}.",
    ]


def _corrupted(reports: dict[str, Any]) -> list[str]:
    # A handful of pictures says nothing about 28 corruptions.
    large = {
        split: figures["harmed"] for split, figures in reports.items() if figures["harmed"]["n"] >= LEAST_CORRUPTED
    }
    if not large:
        return []
    columns = " | ".join(f"{split} mild | strong | alarms mild | strong" for split in large)
    rows: dict[str, list[int]] = {}
    for robustness in large.values():
        for kind in dict.fromkeys(count["kind"] for count in robustness["counts"]):
            strengths = [count for count in robustness["counts"] if count["kind"] == kind]
            rows.setdefault(kind, []).extend(
                [*(count["correct"] for count in strengths), *(count["alarms"] for count in strengths)]
            )
    means = "; ".join(
        f"{split} (n = {robustness['n']}): {robustness['mean_accuracy']:.1%} correct, "
        f"{robustness['mean_alarm_rate']:.1%} alarms"
        for split, robustness in large.items()
    )
    drawn = any(robustness["n"] < reports[split]["n"] for split, robustness in large.items())
    return [
        "## Corrupted pictures",
        f"{'Of the same pictures some, drawn by the seed,' if drawn else 'The same pictures'} at 224 x 224, each with "
        "one kind of corruption that a camera can cause (`bittern_convert.corruption`): the number of correct answers "
        "and the number of alarms. The accuracy on corrupted pictures of train + val was a criterion of the choice "
        "below.",
        "",
        f"Mean over all kinds and strengths, {means}.",
        "",
        f"| corruption | {columns} |",
        f"| --- |{' --- |' * 4 * len(large)}",
        *(f"| {kind} | {' | '.join(str(n) for n in counts)} |" for kind, counts in rows.items()),
    ]


def _streams(figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return []
    false = figures["false"]
    rows = [
        ("all", figures["passings"], false),
        *((f"{size} thing", figures["by_size"][size], None) for size in figures["by_size"]),
        *((light, figures["passings_by_light"][light], figures["false_by_light"][light]) for light in ("day", "night")),
    ]
    if figures["false_on_drawn"]["minutes"]:
        rows.append(("drawn streets without a stop sign", None, figures["false_on_drawn"]))
    return [
        "## Streams of a moving camera",
        f"The int8 model with the daemon's decision at the threshold `{figures['threshold']}`, "
        f"{figures['frames_a_second']:g} frames a second, on streams made of the test pictures, which no choice used: "
        "a camera moves over a picture without the alarm, or a thing comes, is in view for 1.5 to 3 s (small: under "
        "half of the frame's side; full: from 80 % on), and goes (`bittern_convert.streams`). Scenes change faster "
        "than before a camera that stands still.",
        "",
        "| streams | passings found (95 %) | false alarms | an hour (95 %) |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {_passings(passings)} | {_false_alarms(false)} |" for name, passings, false in rows),
    ]


def _passings(figures: dict[str, Any] | None) -> str:
    if figures is None or not figures["n"]:
        return ""
    return f"{figures['found']} of {figures['n']}: {_share(figures['found'], figures['n'])}"


def _false_alarms(figures: dict[str, Any] | None) -> str:
    if figures is None or figures["an_hour"] is None:
        return " | "
    low, high = figures["an_hour_ci95"]
    return f"{figures['alarms']} in {figures['minutes']:.0f} min | {figures['an_hour']:.1f} ({low:.1f} to {high:.1f})"


def _calibration(figures: dict[str, float] | None) -> list[str]:
    if figures is None:
        return []
    return [
        "",
        f"The scores are calibrated by a temperature of {figures['temperature']:.2f} (in the last layer): expected "
        f"calibration error out of fold {figures['error_before']:.3f} before, {figures['error_after']:.3f} after; of "
        f"pictures and their corrupted versions {figures['error_of_all_before']:.3f} and "
        f"{figures['error_of_all_after']:.3f}.",
    ]


def _choices(manifest: Manifest) -> list[str]:
    validation = manifest.provenance["cross_validation"]
    if not validation:
        return ["## Thresholds", *_thresholds(manifest)]
    rows = []
    for name, figures in validation["sets"].items():
        low, high = figures["accuracy_ci95"]
        rows.append(
            f"| {name} | {figures['n']} | {figures['correct']} | {figures['accuracy']:.1%} ({low:.1%} to {high:.1%}) |"
        )
    corrupted = validation["harmed"]
    return [
        "## Choices",
        f"By {validation['method']}, {'which is kept' if _one_fit(manifest) else 'before the final fit on both'}:",
        "",
        "| pictures | n | correct | accuracy (95 %) |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"Corrupted versions of the same pictures, out of fold: {corrupted['correct']} of {corrupted['n']} correct "
        f"({corrupted['accuracy']:.1%}).",
        *_calibration(validation.get("calibration")),
        *_thresholds(manifest),
    ]


def _thresholds(manifest: Manifest) -> list[str]:
    return [
        "",
        "| threshold | on from | off below | chosen for |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {t.on:.3f} | {t.off:.3f} | {t.chosen_for} |"
            for name, t in manifest.heads[0].thresholds.items()
        ),
    ]


def _one_fit(manifest: Manifest) -> bool:
    """Whether there was one fit on the split train, and none on train and val."""
    recipe: dict[str, Any] = manifest.provenance.get("recipe", {})
    return bool(recipe.get("recipe", {}).get("folds") == 1)


def _parity_check(figures: dict[str, Any], *, one_fit: bool) -> list[str]:
    low, high = figures["agreement_ci95"]
    loss_low, loss_high = figures["loss_ci95"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in figures["kinds"].items())
    return [
        "## Parity check: float against int8",
        f"The same answer on {figures['same']} of {figures['n']} pictures ({figures['agreement']:.2%}, 95 % {low:.2%} "
        f"to {high:.2%}) that calibration has not used: {kinds}. Paired accuracy loss {100 * figures['loss']:+.2f} "
        f"points (95 % {100 * loss_low:+.2f} to {100 * loss_high:+.2f}). "
        f"{'Most of these' if one_fit else 'These'} pictures were trained on: the "
        "comparison says how close the two networks are, not how good they are.",
    ]


def _data(provenance: dict[str, Any], task: Task) -> list[str]:
    pictures, calibration = provenance["pictures"], provenance["calibration"]
    trained = "What it was trained on is not known here."
    if pictures["trained_on"]:
        trained = (
            f"Trained on, by kind: {_kinds(pictures['trained_on'])}; {pictures['copies']} copies of "
            f"each, of photographs the first one unaltered. {pictures['unreadable']} files could not be read."
        )
    return [
        "## Data",
        f"{trained} "
        f"Calibrated with {calibration['pictures']} pictures and {calibration['plus']}; the biases of the head correct "
        f"the shift of the int8 scores ({_biases(calibration['head_bias'])}, from {calibration['head_bias_pictures']} "
        "pictures that the parity check does not use)."
        + (" Streets and pasted signs are drawn by Bittern's own code." if task.drawn else ""),
        "",
        *(f"- {line}" for line in task.sources),
    ]


def _provenance(manifest: Manifest) -> list[str]:
    provenance = manifest.provenance
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    return [
        "## Provenance",
        f"Seed {provenance['seed']}; data sha256 `{provenance['data_sha256'][:16]}`; weights sha256 "
        f"`{provenance['weights_sha256'][:16]}`; model sha256 `{manifest.sha256[:16]}`; code "
        f"{provenance['revision'] or 'unknown'}; {versions}.",
    ]


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


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _kinds(trained_on: dict[str, dict[str, int]]) -> str:
    names = {"photo": "photographs", "street": "drawn streets", "pasted": "photographs with a drawn sign"}
    return "; ".join(
        f"{sum(counts.values())} {names[kind]} ({', '.join(f'{n} {label}' for label, n in counts.items())})"
        for kind, counts in trained_on.items()
    )


def _biases(biases: dict[str, float]) -> str:
    return ", ".join(f"{label} {bias:+.2f}" for label, bias in biases.items())

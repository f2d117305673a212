"""`docs/results.md`: every figure of the shipped models on one page, from their manifests and from result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bittern.bench import result
from bittern.bench.result import BenchResult
from bittern.errors import ConfigurationError, ModelRefused
from bittern.evaluation import evaluate
from bittern.model import manifest
from bittern.model.manifest import Manifest

_HEAD = """# Results

Written by `bittern report` from the manifests of the shipped models and the result files in `docs/results/`; only what
another project says of itself was typed (`seeds.json`). Figures are of the int8 models, on pictures that training has
not seen and by which no candidate was chosen, unless a line says otherwise; how often earlier models were measured on
them is in the models' cards. Intervals are 95 %: Wilson's for shares, bootstrap for AUC.
"""


def render(models: Sequence[Path], results: Path) -> str:
    """The page.

    Args:
        models: model folders.
        results: folder of the JSON files that `bittern bench`, `compare`, `explain --data` and `study` leave.

    Raises:
        ConfigurationError: a result file that cannot be read.
        ModelRefused: a folder without a manifest that can be read, or without figures in it.
    """
    said = [_read(folder) for folder in models]
    found = {file.stem: _load(file) for file in sorted(results.glob("*.json"))}
    benches = {file.parent.name: result.read(file) for file in sorted(results.glob(f"*/{result.FILE}"))}
    seeds = found.get("seeds", {"models": {}})["models"]
    parts = [_HEAD]
    parts += [_accuracy(said), _seeds(said, seeds)]
    parts += [_harm(said), _gate(said)]
    parts += [_none([f for f in found.values() if f.get("study") == "none"])]
    parts += [_twins(f) for f in found.values() if f.get("study") == "twins"]
    parts += [_soups([f for f in found.values() if f.get("study") == "soup"])]
    parts += [_looked([f for f in found.values() if "groups" in f])]
    parts += [_moved([f for f in found.values() if "same_file" in f])]
    parts += [_bench(name, of) for name, of in benches.items()]
    return "\n".join(part for part in parts if part)


def _read(folder: Path) -> Manifest:
    said = manifest.read(folder)
    if not {"reports", "gate"} <= said.provenance.keys():
        raise ModelRefused(f"{folder}: the manifest's provenance has no figures: it is not from `bittern convert`")
    return said


def _load(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)]) + "\n"


def _share(correct: int, n: int) -> str:
    low, high = evaluate.wilson(correct, n)
    return f"{correct / n:.1%} ({low:.1%} to {high:.1%})"


def _interval(figures: dict[str, Any], key: str) -> str:
    value, interval = figures.get(key), figures.get(f"{key}_ci95")
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _accuracy(said: Sequence[Manifest]) -> str:
    rows = [
        [model.name, split, of["n"], of["correct"], _share(of["correct"], of["n"]), _interval(of, "auc"), of["alarms"]]
        for model in said
        for split, of in model.provenance["reports"].items()
    ]
    header = ["model", "pictures", "n", "right", "accuracy", "AUC of the alarm", "alarms"]
    sizes = ", ".join(f"{model.name} {model.size / 1e6:.2f} MB" for model in said)
    return f"## The shipped models\n\n{_table(header, rows)}\nModel files: {sizes}.\n"


def _seeds(said: Sequence[Manifest], seeds: dict[str, Any]) -> str:
    rows = []
    for model in said:
        seed = seeds.get(model.name)
        own = model.provenance["reports"].get(f"{model.name}/test")
        if seed and own:
            rows.append(
                [model.name, "Bittern, int8", own["n"], _share(own["correct"], own["n"]), _interval(own, "auc")]
            )
            rows.append(["", seed["what"], seed["n"], _share(seed["correct"], seed["n"]), f"{seed['auc']:.3f}"])
    if not rows:
        return ""
    return f"### Beside the project it grew out of\n\n{_table(['model', 'which', 'n', 'accuracy', 'AUC'], rows)}"


def _harm(said: Sequence[Manifest]) -> str:
    rows = []
    for model in said:
        for split, of in model.provenance["reports"].items():
            harmed = of.get("harmed")
            if harmed and harmed["n"] >= 20:
                worst = min(harmed["counts"], key=lambda c: c["correct"])
                rows.append([
                    model.name, split, harmed["n"], f"{of['correct'] / of['n']:.1%}", f"{harmed['mean_accuracy']:.1%}",
                    f"{worst['kind']}, {worst['strength']}: {worst['correct']} of {harmed['n']}",
                    f"{of['alarms'] / of['n']:.1%}", f"{harmed['mean_alarm_rate']:.1%}",
                ])  # fmt: skip
    if not rows:
        return ""
    header = ["model", "pictures", "n", "as they are", "harmed", "worst", "alarms as they are", "alarms harmed"]
    return (
        "## Under harm that a camera does\n\nMean over 14 kinds at two strengths; each kind is in the model's card.\n\n"
        f"{_table(header, rows)}"
    )


def _gate(said: Sequence[Manifest]) -> str:
    rows = []
    for model in said:
        gate = model.provenance["gate"]
        low, high = gate["loss_ci95"]
        rows.append([
            model.name, gate["n"], _share(gate["same"], gate["n"]),
            f"{100 * gate['loss']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        ])  # fmt: skip
    return f"## Float against int8\n\n{_table(['model', 'n', 'same answer', 'accuracy lost, points (paired)'], rows)}"


def _none(studies: Sequence[dict[str, Any]]) -> str:
    rows = []
    names = {
        "label": "a label of its own",
        "exposed": "a low best score, trained towards it",
        "unexposed": "a low best score",
    }
    for study in studies:
        for kind, name in names.items():
            of = study[kind]
            against = of.get("against_label")
            rows.append([
                study["task"], name, f"{of['targets']['correct']} of {of['targets']['n']}",
                f"{of['none']['correct']} of {of['none']['n']}", of["none_answered_with_an_alarm"],
                f"{of['balanced_accuracy']:.1%}", f"{of['auc_none_against_targets']:.3f}",
                f"{against['only_this_right']} : {against['only_label_right']}" if against else "",
            ])  # fmt: skip
    if not rows:
        return ""
    header = ["task", '"none" is', "targets right", "none right", "none with an alarm", "labels alike",
              "AUC none against targets", "only this right : only the label"]  # fmt: skip
    return (
        '## "None of these": a label, or a low score?\n\nOut of fold on train + val, float, fine-tuned alike for '
        "half of the recipe's epochs; "
        f"the threshold of a score is chosen on the other folds.\n\n{_table(header, rows)}"
    )


def _twins(study: dict[str, Any]) -> str:
    rows = [
        [name, study["n"], study[key]["correct"], _share(study[key]["correct"], study["n"]), f"{study[key]['auc']:.3f}"]
        for key, name in (("without", "without"), ("with", "with"))
    ]
    return (
        f"## {study['task']}: with and without the {study['twins']} near-copies of test pictures in training\n\n"
        f"Float, on the test split; weights averaged over {study.get('fits', 1)} (1: not averaged) fits of each.\n\n"
        f"{_table(['trained', 'n', 'right', 'accuracy', 'AUC'], rows)}\n"
        f"Only right with them: {study['only_with_right']}; only right without: {study['only_without_right']}.\n"
    )


def _soups(studies: Sequence[dict[str, Any]]) -> str:
    rows = []
    for study in studies:
        fits = [(f"fit {i + 1}", fit) for i, fit in enumerate(study["fits"])]
        for name, of in [*fits, ("their average", study["average"])]:
            rows.append([
                study["task"], name,
                f"{of['correct']} of {study['n']}", f"{of['harmed_correct']} of {study['harmed_n']}",
                f"{of['accuracy']:.2%}", f"{of['harmed_accuracy']:.2%}",
                f"{of['loss']:.4f}", f"{of['none_answered_with_an_alarm']} of {study['none_n']}",
            ])  # fmt: skip
    if not rows:
        return ""
    header = ["task", "which", "right", "harmed right", "labels alike", "harmed, labels alike", "loss",
              "none with an alarm"]  # fmt: skip
    return (
        "## The average of several fits, or one?\n\nOut of fold on train + val, float; weights averaged, as `soup` in "
        f"a recipe does.\n\n{_table(header, rows)}"
    )


def _looked(explained: Sequence[dict[str, Any]]) -> str:
    if not explained:
        return ""
    zones = ("centre", "edge", "bottom strip")
    rows = []
    for found in explained:
        for of in found["groups"]:
            shares = [_zone(of, zone) for zone in zones]
            right = "right" if of["right"] else "wrong"
            rows.append([found["model"], found["split"], of["label"], right, of["n"], of["faint"], *shares])
    even = ", ".join(f"{zone} {explained[0]['area'][zone]:.0%}" for zone in zones)
    return (
        "## What the networks look at\n\n`bittern explain --data`: where a patch that covers a part of the picture "
        "lowers the log-odds of the answer. The shares of that heat are means over the pictures in which some patch "
        f"matters; in the faint ones none does. Spread evenly they would be: {even} (the outer 15 %; the lowest 15 %). "
        "The final fit was trained on these pictures: the table says where it looks, not how good it is.\n\n"
        f"{_table(['model', 'split', 'label', 'answer', 'n', 'faint', *zones], rows)}"
    )


def _zone(of: dict[str, Any], zone: str) -> str:
    if of["zones"] is None:
        return ""
    interval = (of["zones_ci95"] or {}).get(zone)
    return f"{of['zones'][zone]:.0%}" + (f" ({interval[0]:.0%} to {interval[1]:.0%})" if interval else "")


def _moved(comparisons: Sequence[dict[str, Any]]) -> str:
    if not comparisons:
        return ""
    rows = []
    for found in comparisons:
        for f in found["figures"]:
            moved = "=" if f["before"] == f["after"] else f"{f['before']} -> {f['after']}"
            rows.append([Path(found["before"]).name, f["name"], moved])
    said = "; ".join(
        f"{Path(f['before']).name}: "
        + ("the same conditions" if not f["differing"] else f"other {', '.join(f['differing'])}")
        + (", the same bytes" if f["same_file"] else ", other bytes")
        for f in comparisons
    )
    return f"## Trained again\n\n`make reproduce`. {said}.\n\n{_table(['model', 'figure', 'moved'], rows)}"


def _bench(name: str, measured: BenchResult) -> str:
    machine = measured.machine
    where = f"{machine.board_id}, {machine.cpu or machine.architecture}, {machine.cores} cores, {machine.os}"
    missing = "".join(f"\nLeft out: {left.name}: {left.why}\n" for left in measured.left_out)
    return (
        f"## Speed: {name}\n\n{where}; {measured.model} on {measured.path}, one thread, interleaved with the reference "
        f"in the same run. This is no Raspberry Pi unless it says so. {result.RATIO_NOTE} {result.LIMIT_NOTE}\n\n"
        f"{_table(result.HEADER, [result.cells(row) for row in measured.rows])}{missing}"
    )

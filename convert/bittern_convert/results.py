"""`docs/results.md`: every figure of the shipped models on one page, from their manifests and from result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bittern.bench import result
from bittern.bench.result import BenchResult
from bittern.errors import ConfigurationError, ModelRefused, one_line
from bittern.evaluation import metrics, tuning
from bittern.model import manifest
from bittern.model.manifest import Manifest
from bittern.system import fileio
from bittern_convert.card import LEAST_CORRUPTED

MAX_BYTES = 16 * 2**20
_HEAD = """# Results

Written by `bittern results` from the manifests of the shipped models and the result files in `docs/results/`; only what
another project says of itself was typed (`seeds.json`). Figures are of the int8 models, on pictures that neither
training nor the choice of a candidate used, unless a line says otherwise; the models' cards say how often earlier
models were measured on them. Intervals are 95 %: Wilson's for shares, bootstrap for AUC.
"""


def render(models: Sequence[Path], results: Path) -> str:
    """The page.

    Args:
        models: model folders.
        results: folder of the files that `bittern bench`, `compare`, `explain --data` and `study` leave.

    Raises:
        ConfigurationError: a result file that cannot be read.
        ModelRefused: a folder without a manifest that can be read, or without figures in it.
    """
    manifests = [_read(folder) for folder in models]
    contents = {file.stem: _load(file) for file in sorted(results.glob("*.json"))}
    benches = {file.parent.name: result.read(file) for file in sorted(results.glob(f"*/{result.FILE}"))}

    def studies(kind: str) -> list[dict[str, Any]]:
        return [content for content in contents.values() if content.get("study") == kind]

    seeds = contents.get("seeds", {"models": {}})["models"]
    parts = [
        _HEAD,
        _accuracy(manifests),
        _seeds(manifests, seeds),
        _streams(manifests),
        _corrupted(manifests),
        _parity_checks(manifests),
        _none(studies("none")),
        *(_near_duplicates(study) for study in studies("twins")),
        _soups(studies("soup")),
        *(_growth(study) for study in studies("growth")),
        *(_memory(study) for study in studies("memory")),
        _decisions(studies("decision")),
        _surveys([content for content in contents.values() if "groups" in content]),
        *(_backbones(file, seeds) for file in sorted(results.glob("compare-*.md"))),
        _comparisons([content for content in contents.values() if "same_file" in content]),
        *(_bench(name, measured) for name, measured in benches.items()),
    ]
    return "\n".join(part for part in parts if part)


def _read(folder: Path) -> Manifest:
    content = manifest.read(folder)
    if not {"reports", "gate"} <= content.provenance.keys():
        raise ModelRefused(f"{folder}: the manifest's provenance has no figures: it is not from `bittern convert`")
    return content


def _load(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(fileio.read_regular(file, MAX_BYTES), type=dict[str, Any])
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: {one_line(error)}") from None


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)]) + "\n"


def _share(correct: int, n: int) -> str:
    low, high = metrics.wilson(correct, n)
    return f"{correct / n:.1%} ({low:.1%} to {high:.1%})"


def _interval(figures: dict[str, Any], key: str) -> str:
    value, interval = figures.get(key), figures.get(f"{key}_ci95")
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _accuracy(manifests: Sequence[Manifest]) -> str:
    rows = [
        [
            model.name,
            split,
            figures["n"],
            figures["correct"],
            _share(figures["correct"], figures["n"]),
            _interval(figures, "auc"),
            figures["alarms"],
        ]
        for model in manifests
        for split, figures in model.provenance["reports"].items()
    ]
    header = ["model", "pictures", "n", "correct", "accuracy", "AUC of the alarm", "alarms"]
    sizes = ", ".join(f"{model.name} {model.size / 1e6:.2f} MB" for model in manifests)
    return f"## The shipped models\n\n{_table(header, rows)}\nModel files: {sizes}.\n"


def _seeds(manifests: Sequence[Manifest], seeds: dict[str, Any]) -> str:
    rows = []
    for model in manifests:
        seed = seeds.get(model.name)
        own = model.provenance["reports"].get(f"{model.name}/test")
        if seed and own:
            rows.append(
                [model.name, "Bittern, int8", own["n"], _share(own["correct"], own["n"]), _interval(own, "auc")]
            )
            rows.append(["", seed["what"], seed["n"], _share(seed["correct"], seed["n"]), f"{seed['auc']:.3f}"])
    if not rows:
        return ""
    table = _table(["model", "network", "n", "accuracy", "AUC"], rows)
    return f"### Compared with the project it grew out of\n\n{table}"


def _backbones(page: Path, seeds: dict[str, Any]) -> str:
    """The page that `bittern compare` wrote, with the picture beside it, and what the task's own project had.

    Raises:
        ConfigurationError: the page cannot be read, or is none.
    """
    try:
        title, *lines = fileio.read_regular(page, MAX_BYTES).decode().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{page}: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{page}: expected a page of `bittern compare`, this is not UTF-8 or empty") from None
    text = "\n".join([f"#{title}", *lines, ""])
    picture = page.with_suffix(".png")
    if picture.is_file():
        text += f"\n![Accuracy against the time of the int8 model]({page.parent.name}/{picture.name})\n"
    networks = seeds.get(page.stem.removeprefix("compare-"), {}).get("networks")
    if networks:
        rows = [
            [name, _share(round(accuracy * networks["n"]), networks["n"]), f"{loss:.3f}"]
            + [f"{value:.3f}" for value in (precision, recall, auc)]
            for name, loss, accuracy, precision, recall, auc in networks["rows"]
        ]
        header = ["network", "accuracy (95 %)", "loss", "precision", "recall", "AUC"]
        text += f"\nThe table of {networks['what']}:\n\n{_table(header, rows)}"
    return text


def _streams(manifests: Sequence[Manifest]) -> str:
    rows = []
    for model in manifests:
        figures = model.provenance.get("streams")
        if figures:
            passings, false = figures["passings"], figures["false"]
            rate = ""
            if false["an_hour"] is not None:
                low, high = false["an_hour_ci95"]
                rate = f"{false['an_hour']:.1f} ({low:.1f} to {high:.1f})"
            detected = f"{passings['found']} of {passings['n']}" if passings["n"] else ""
            share = _share(passings["found"], passings["n"]) if passings["n"] else ""
            rows.append([model.name, detected, share, f"{false['alarms']} in {false['minutes']:.0f} min", rate])
    if not rows:
        return ""
    header = ["model", "passings found", "share", "false alarms", "an hour"]
    return (
        "## Streams of a moving camera\n\nThe daemon's decision at the threshold `default`, 5 frames a second, on "
        "streams made of test pictures and drawn streets; the models' cards have them by size and light. "
        f"Intervals of rates are exact (Poisson).\n\n{_table(header, rows)}"
    )


def _corrupted(manifests: Sequence[Manifest]) -> str:
    rows = []
    for model in manifests:
        for split, figures in model.provenance["reports"].items():
            corrupted = figures.get("harmed")
            if corrupted and corrupted["n"] >= LEAST_CORRUPTED:
                worst = min(corrupted["counts"], key=lambda count: count["correct"])
                rows.append([
                    model.name, split, corrupted["n"],
                    f"{figures['correct'] / figures['n']:.1%}", f"{corrupted['mean_accuracy']:.1%}",
                    f"{worst['kind']}, {worst['strength']}: {worst['correct']} of {corrupted['n']}",
                    f"{figures['alarms'] / figures['n']:.1%}", f"{corrupted['mean_alarm_rate']:.1%}",
                ])  # fmt: skip
    if not rows:
        return ""
    header = ["model", "pictures", "n", "accuracy", "accuracy, corrupted", "worst corruption", "alarm rate",
              "alarm rate, corrupted"]  # fmt: skip
    return (
        "## Corrupted pictures\n\nCorruptions that a camera can cause: mean over 14 kinds at two strengths; the "
        f"model's card has each kind.\n\n{_table(header, rows)}"
    )


def _parity_checks(manifests: Sequence[Manifest]) -> str:
    rows = []
    for model in manifests:
        parity = model.provenance["gate"]
        low, high = parity["loss_ci95"]
        rows.append([
            model.name, parity["n"], _share(parity["same"], parity["n"]),
            f"{100 * parity['loss']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        ])  # fmt: skip
    table = _table(["model", "n", "same answer", "accuracy lost, points (paired)"], rows)
    return f"## Parity check: float against int8\n\n{table}"


def _none(studies: Sequence[dict[str, Any]]) -> str:
    rows = []
    names = {
        "label": "a label of its own",
        "exposed": "a low best score, trained towards it",
        "unexposed": "a low best score",
    }
    for study in studies:
        for kind, name in names.items():
            figures = study[kind]
            against = figures.get("against_label")
            rows.append([
                study["task"], name, f"{figures['targets']['correct']} of {figures['targets']['n']}",
                f"{figures['none']['correct']} of {figures['none']['n']}", figures["none_answered_with_an_alarm"],
                f"{figures['balanced_accuracy']:.1%}", f"{figures['auc_none_against_targets']:.3f}",
                f"{against['only_this_right']} : {against['only_label_right']}" if against else "",
            ])  # fmt: skip
    if not rows:
        return ""
    header = ["task", '"none" is', "targets correct", "none correct", "none with an alarm", "balanced accuracy",
              "AUC none against targets", "correct only here : only with the label"]  # fmt: skip
    return (
        '## "None of these": a label, or a low score?\n\nOut of fold on train + val, float, each fine-tuned for half '
        f"of the recipe's epochs; the threshold of a score is chosen on the other folds.\n\n{_table(header, rows)}"
    )


def _near_duplicates(study: dict[str, Any]) -> str:
    rows = [
        [name, study["n"], study[name]["correct"], _share(study[name]["correct"], study["n"]),
         f"{study[name]['auc']:.3f}"]
        for name in ("without", "with")
    ]  # fmt: skip
    fits = study.get("fits", 1)
    averaged = f"weights averaged over {fits} fits" if fits > 1 else "one fit"
    return (
        f"## {study['task']}: with and without the {study['twins']} near-duplicates of test pictures in training\n\n"
        f"Float, on the test split; {averaged} of each.\n\n"
        f"{_table(['trained', 'n', 'correct', 'accuracy', 'AUC'], rows)}\n"
        f"Correct only with them: {study['only_with_right']}; only without them: {study['only_without_right']}.\n"
    )


def _soups(studies: Sequence[dict[str, Any]]) -> str:
    rows = []
    for study in studies:
        fits = [(f"fit {i + 1}", fit) for i, fit in enumerate(study["fits"])]
        for name, figures in [*fits, ("their average", study["average"])]:
            rows.append([
                study["task"], name,
                f"{figures['correct']} of {study['n']}", f"{figures['harmed_correct']} of {study['harmed_n']}",
                f"{figures['accuracy']:.2%}", f"{figures['harmed_accuracy']:.2%}",
                f"{figures['loss']:.4f}", f"{figures['none_answered_with_an_alarm']} of {study['none_n']}",
            ])  # fmt: skip
    if not rows:
        return ""
    header = ["task", "weights", "correct", "corrupted, correct", "balanced accuracy", "corrupted, balanced accuracy",
              "loss", "none with an alarm"]  # fmt: skip
    return (
        "## The average of several fits, or one?\n\nOut of fold on train + val, float; weights averaged, as `soup` in "
        f"a recipe does.\n\n{_table(header, rows)}"
    )


def _growth(study: dict[str, Any]) -> str:
    def spread(figures: dict[str, float]) -> str:
        return f"{figures['mean']:.1%} ({figures['least']:.1%} to {figures['most']:.1%})"

    rows = [
        [name, spread(study[kind]["first"]), spread(study[kind]["all"])]
        for kind, name in (("grouped", "folds that divide no group"), ("leaking", "folds at random, which leak"))
    ]
    gain, low, high = (100 * value for value in study["promised"])
    measured = 100 * (study["grouped"]["all"]["mean"] - study["grouped"]["first"]["mean"])
    pictures = f"{study['first']} pictures, then {study['n']}"
    chosen = ", ".join(f"{column} {value}" for column, value in study["where"].items())
    return (
        f"## {study['data']}: {pictures}\n\n`bittern study growth`{f' ({chosen})' if chosen else ''}: the set has "
        f"{study['n']} pictures in {study['group_count']} groups of near-duplicates. A linear head on frozen features, "
        f"{study['folds']}-fold; balanced accuracy out of fold, the mean of {study['draws']} draws of the first "
        f"pictures (lowest to highest).\n\n{_table(['folds', str(study['first']), str(study['n'])], rows)}\n"
        f"The learning curve of the first {study['first']} promised {gain:+.1f} points ({low:+.1f} to {high:+.1f}, "
        f"means over the draws); {measured:+.1f} were seen, within the interval of {study['held']} of {study['draws']} "
        "draws.\n"
    )


def _memory(study: dict[str, Any]) -> str:
    trainings = study["trainings"]
    rows = [
        [
            f"{t['n']:,}",
            f"{t['peak_mb']:,} MB",
            f"{t['cpu_seconds']:,.0f} s",
            f"{1000 * t['cpu_seconds'] / t['n']:.1f} ms",
        ]
        for t in trainings
    ]
    header = ["pictures", "peak resident memory", "processor time", "of it for a picture"]
    drawing = max(t["peak_drawing_mb"] for t in trainings)
    return (
        f"## {study['task']}: memory and time of training\n\n`bittern study memory`: {study['network']} at "
        f"{study['size']} px, {study['copies']} copies of each picture, {study['epochs']} epochs, the whole way from "
        f"files to a run; {study['machine']['processor']}, {study['machine']['threads']} threads. The processes that "
        f"draw copies have {drawing:,} MB each, at most.\n\n"
        f"![Memory and time against the number of pictures](results/memory-{study['task']}.svg)\n\n"
        f"{_table(header, rows)}"
    )


def _decisions(studies: Sequence[dict[str, Any]]) -> str:
    if not studies:
        return ""
    rows = []
    for study in studies:
        extent = study["footage"]["clips and streets"]
        for rule in study["rules"]:
            swept = rule["clips and streets"]
            shipped = rule["rule"] == study["shipped"]
            # Thresholds rise: the first that keeps to the bound finds the most, and the earliest.
            kept = next((i for i, false in enumerate(swept["false_alarms"]) if false <= 1), None)
            rows.append([
                study["model"], f"**{rule['rule']}**, shipped" if shipped else rule["rule"],
                *_decided(extent, swept["default"]),
                *(_false_and_delay(rule[part]["default"]) for part in ("clips", "clips, every frame")),
                "no threshold" if kept is None else
                f"{study['thresholds'][kept]:.3f}{_found_and_delay(extent, swept, kept)}",
            ])  # fmt: skip
    extents = "; ".join(
        f"{study['model']}: {parts['clips']['n']} clips, {parts['clips']['hours'] * 60:.1f} min, "
        f"{parts['clips']['intervals']} to find; {parts['streets']['n']} drawn streets, "
        f"{parts['streets']['hours'] * 60:.0f} min, {parts['streets']['intervals']} to find"
        for study in studies
        for parts in [study["footage"]]
    )
    header = ["model", "an alarm takes", "found", "false alarms an hour", "mean delay", "clips: false, delay",
              "clips, every frame: false, delay", "for at most 1 false alarm: threshold, found, delay"]  # fmt: skip
    return (
        "## When an alarm goes on\n\n`bittern study decision`: all rules over the same scores, without the motion "
        "gate; hysteresis and cooldown are the daemon's. At 5 frames a second unless the column says every frame, and "
        'at the threshold "default", but for the last column: there each rule has its own lowest threshold that gives '
        f"at most one false alarm in all the footage. Intervals of rates are exact (Poisson).\n\n{extents}.\n\n"
        "![Share found and delay against false alarms an hour, for each rule](results/decision.svg)\n\n"
        f"{_table(header, rows)}"
    )


def _decided(extent: dict[str, Any], counts: dict[str, Any]) -> list[str]:
    """Found, false alarms an hour with their interval, and delay."""
    n, false, hours = extent["intervals"], counts["false_alarms"], extent["hours"]
    low, high = (bound / hours for bound in tuning.poisson_interval(false))
    detected = "nothing to find"
    if n:
        detected = "{} of {} ({:.0%} to {:.0%})".format(counts["found"], n, *metrics.wilson(counts["found"], n))
    return [detected, f"{false / hours:.1f} ({low:.1f} to {high:.1f}; n = {false})", _seconds(counts["mean_delay_s"])]


def _false_and_delay(counts: dict[str, Any]) -> str:
    return ", ".join(filter(None, [str(counts["false_alarms"]), _seconds(counts["mean_delay_s"])]))


def _found_and_delay(extent: dict[str, Any], swept: dict[str, Any], i: int) -> str:
    if not extent["intervals"]:
        return ""
    return f", {swept['found'][i]} of {extent['intervals']}, {_seconds(swept['mean_delay_s'][i])}"


def _seconds(delay_s: float | None) -> str:
    return "" if delay_s is None else f"{delay_s:.2f} s"


def _surveys(surveys: Sequence[dict[str, Any]]) -> str:
    if not surveys:
        return ""
    zones = ("centre", "edge", "bottom strip")
    rows = []
    for survey in surveys:
        for group in survey["groups"]:
            shares = [_zone(group, zone) for zone in zones]
            answer = "correct" if group["right"] else "mistake"
            rows.append([survey["model"], survey["split"], group["label"], answer, group["n"], group["faint"], *shares])
    even = ", ".join(f"{zone} {surveys[0]['area'][zone]:.0%}" for zone in zones)
    return (
        "## What the networks look at\n\n`bittern explain --data`: where a patch that covers a part of the picture "
        "lowers the log-odds of the answer. The shares of that heat are means over the pictures in which some patch "
        f"matters; in the faint ones none does. Spread evenly they would be: {even} (the outer 15 %; the lowest 15 %). "
        "The final fit was trained on these pictures: the table says where it looks, not how good it is.\n\n"
        f"{_table(['model', 'split', 'label', 'answer', 'n', 'faint', *zones], rows)}"
    )


def _zone(group: dict[str, Any], zone: str) -> str:
    if group["zones"] is None:
        return ""
    interval = (group["zones_ci95"] or {}).get(zone)
    return f"{group['zones'][zone]:.0%}" + (f" ({interval[0]:.0%} to {interval[1]:.0%})" if interval else "")


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> str:
    if not comparisons:
        return ""
    rows = []
    for comparison in comparisons:
        for figure in comparison["figures"]:
            same = figure["before"] == figure["after"]
            change = "=" if same else f"{figure['before']} -> {figure['after']}"
            rows.append([Path(comparison["before"]).name, figure["name"], change])
    conditions = "; ".join(
        f"{Path(c['before']).name}: "
        + ("the same conditions" if not c["differing"] else f"other {', '.join(c['differing'])}")
        + (", the same bytes" if c["same_file"] else ", other bytes")
        for c in comparisons
    )
    return f"## Trained again\n\n`make reproduce`. {conditions}.\n\n{_table(['model', 'figure', 'change'], rows)}"


def _bench(name: str, measured: BenchResult) -> str:
    machine = measured.machine
    where = f"{machine.board_id}, {machine.cpu or machine.architecture}, {machine.cores} cores, {machine.os}"
    missing = "".join(f"\nLeft out: {left.name}: {left.why}\n" for left in measured.left_out)
    return (
        f"## Speed: {name}\n\n{where}; {measured.model} on {measured.path}, one thread, interleaved with the reference "
        f"in the same run. This is no Raspberry Pi unless it says so. {result.RATIO_NOTE} {result.LIMIT_NOTE}\n\n"
        f"{_table(result.HEADER, [result.cells(row) for row in measured.rows])}{missing}"
    )

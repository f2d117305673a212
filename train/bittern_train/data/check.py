"""What may be wrong with a data set, as findings about its pictures, labels and splits."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.system.progress import Progress
from bittern_train.data import measure, near_duplicates, probe, sharpness
from bittern_train.data.measure import Measured
from bittern_train.data.probe import Folds, Shortcut

# Shorter side in pixels: half of the network's input, which enlarges smaller pictures more than twice.
TINY = 112
# Grey level that 99 % of the pixels do not exceed.
DARK = 80.0
# Standard deviation of the grey levels.
PLAIN = 8.0
# Mean difference of the channels: below it a picture is grey.
GREY = 2.0
# Longer side by shorter side: the centred square is less than a third of such a picture.
NARROW = 3.0
# What fewer pictures than this share are, of a label's or of all pictures, is odd.
ODD = 0.05
# The largest label by the smallest one.
IMBALANCE = 5.0
# A shortcut is worth a finding if even the lower end of its interval is above.
SHORTCUT = 0.7
# Below this balanced accuracy, out of fold, a quick model is in no position to doubt labels.
DOUBTER = 0.8

# Suffixes of each format, without those of formats that have many.
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "WebP": {".webp"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
}


class Concern(NamedTuple):
    """Something that may be wrong.

    Attributes:
        kind: one of KINDS.
        text: one line about all of it.
        items: the pictures that it is about, the worst first; empty for labels and splits.
        notes: a few words about each of them.
    """

    kind: str
    text: str
    items: list[Item]
    notes: list[str]


class Checked(NamedTuple):
    """What a check has found.

    Attributes:
        pictures: how many there are.
        labels: how many pictures each label has; "" for those without.
        splits: how many pictures each split has, if there are splits.
        findings: in the order of KINDS.
        shortcuts: what tells the labels apart, the strongest first.
        remarks: what was not checked, and why.
    """

    pictures: int
    labels: dict[str, int]
    splits: dict[str, int]
    findings: list[Concern]
    shortcuts: list[Shortcut]
    remarks: list[str]


# Kinds of findings, and what a page calls them.
KINDS = {
    "unreadable": "Cannot be read",
    "two_labels": "One picture under two labels",
    "crosses_splits": "Near-duplicates on two sides of a split",
    "label_case": "Labels that differ only in how they are written",
    "no_label": "No label",
    "missing_in_split": "Labels that a split lacks",
    "imbalance": "Unequal labels",
    "shortcut": "Shortcuts",
    "doubted": "Labels that a quick model doubts",
    "tiny": "Tiny",
    "blurred": "Blurred",
    "dark": "Dark",
    "plain": "Next to nothing to be seen",
    "turned": "Perhaps turned the wrong way",
    "odd": "Of another kind than the others",
}

_BELOW = {
    "tiny": f"shorter side below {TINY} pixels, which the network's input enlarges more than twice",
    "dark": "nothing in it is bright",
    "plain": "hardly any contrast",
    "blurred": "nothing in it is sharp",
}
# What a quick model sees of pictures: (pictures, features).
FeatureMaker = Callable[[Sequence[Item]], probe.Floats]


def check(items: Sequence[Item], progress: Progress, features: FeatureMaker | None = None) -> Checked:
    """Look for everything that may be wrong with a data set.

    Args:
        items: at least one.
        progress: where to report to.
        features: what the quick model that doubts labels looks at; None for `probe.simple_features`.
    """
    with ThreadPoolExecutor(1) as loader:
        loading = loader.submit(probe.load)
        results = measure.measure_all(items, progress)
        loading.result()
    readable = [(item, result) for item, result in zip(items, results, strict=True) if isinstance(result, Measured)]
    unreadable = [(item, result) for item, result in zip(items, results, strict=True) if isinstance(result, str)]
    findings = []
    if unreadable:
        notes = [line.removeprefix(f"{item.path}: ") for item, line in unreadable]
        findings.append(_about("unreadable", "cannot be read", [i for i, _ in unreadable], notes))
    findings += _of_labels(items)
    findings += _of_pictures(readable)
    near, groups = _near(readable, progress)
    findings += near
    probed, shortcuts, remarks = _probed(readable, groups, progress, features)
    findings += probed
    order = list(KINDS)
    return Checked(
        len(items),
        dict(sorted(Counter(item.label or "" for item in items).items())),
        dict(sorted(Counter(item.split for item in items if item.split).items())),
        sorted(findings, key=lambda finding: order.index(finding.kind)),
        sorted(shortcuts, key=lambda shortcut: -shortcut.auc),
        remarks,
    )


def _about(kind: str, what: str, items: list[Item], notes: list[str]) -> Concern:
    return Concern(kind, f"{len(items)} picture{'s' if len(items) > 1 else ''}: {what}", items, notes)


def _of_labels(items: Sequence[Item]) -> list[Concern]:
    findings = []
    if all(item.label is None for item in items):
        return []
    without = [item for item in items if not item.label]
    if without:
        findings.append(_about("no_label", "no label", without, [""] * len(without)))
    counts = Counter(item.label for item in items if item.label)
    written: dict[str, list[str]] = {}
    for label in sorted(counts):
        written.setdefault(" ".join(unicodedata.normalize("NFKC", label).casefold().split()), []).append(label)
    for labels in written.values():
        if len(labels) > 1:
            names = ", ".join(f"{label!r} ({counts[label]})" for label in labels)
            findings.append(Concern("label_case", f"{names} differ only in how they are written", [], []))
    if len(counts) > 1:
        (most, many), (least, few) = counts.most_common(1)[0], counts.most_common()[-1]
        if many > IMBALANCE * few:
            text = f"{most!r} has {many} pictures, {least!r} only {few}"
            findings.append(Concern("imbalance", text, [], []))
    for split in sorted({item.split for item in items} - {"", dataset.EXTRA_SPLIT}):
        missing = sorted(set(counts) - {item.label or "" for item in items if item.split == split})
        if missing:
            names = ", ".join(map(repr, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            findings.append(Concern("missing_in_split", f"split {split!r} has no picture of {names}", [], []))
    return findings


def _of_pictures(readable: Sequence[tuple[Item, Measured]]) -> list[Concern]:
    tiny = _below(readable, "tiny", TINY, lambda m: min(m.width, m.height), "shorter side of {:.0f} pixels")
    # A dark picture is plain and not sharp either, and a plain one is not sharp: each is named once.
    dark = _below(readable, "dark", DARK, lambda m: m.bright, "99 % of it below {:.0f} of 255")
    bright = [pair for pair in readable if pair[1].bright >= DARK]
    plain = _below(bright, "plain", PLAIN, lambda m: m.contrast, "contrast of {:.1f} of 255")
    rich = [pair for pair in bright if pair[1].contrast >= PLAIN]
    blurred = _below(rich, "blurred", sharpness.BLURRED, lambda m: m.sharpness, "sharpness of {:.0f}")
    return [*tiny, *dark, *plain, *blurred, *_turned(readable), *_odd(readable)]


def _below(
    pairs: Sequence[tuple[Item, Measured]], kind: str, limit: float, value: Callable[[Measured], float], note: str
) -> list[Concern]:
    worst = sorted((value(m), n) for n, (_, m) in enumerate(pairs) if value(m) < limit)
    if not worst:
        return []
    notes = [note.format(number) for number, _ in worst]
    return [_about(kind, _BELOW[kind], [pairs[n][0] for _, n in worst], notes)]


def _turned(readable: Sequence[tuple[Item, Measured]]) -> list[Concern]:
    sizes = Counter((m.width, m.height) for _, m in readable)
    items, notes = [], []
    for item, m in readable:
        # Of one camera nearly all pictures have one size.
        if m.width != m.height and sizes[m.height, m.width] >= (1 - ODD) * len(readable):
            items.append(item)
            notes.append(f"{m.width} x {m.height}, others are {m.height} x {m.width}")
        elif m.orientation != 1:
            items.append(item)
            notes.append(f"turned by EXIF (orientation {m.orientation}): other programs may not do so")
    return [_about("turned", "may be turned the wrong way", items, notes)] if items else []


def _odd(readable: Sequence[tuple[Item, Measured]]) -> list[Concern]:
    items, notes = [], []
    few = ODD * len(readable)
    kinds = Counter(m.kind for _, m in readable)
    grey = sum(m.coloured < GREY for _, m in readable)
    for item, m in readable:
        suffix = Path(item.name).suffix.lower()
        odd = []
        if suffix and m.kind in _SUFFIXES and suffix not in _SUFFIXES[m.kind]:
            odd.append(f"called {suffix}, but {m.kind}")
        if kinds[m.kind] <= few:
            odd.append(f"{m.kind}, most are {kinds.most_common(1)[0][0]}")
        if m.coloured < GREY and m.contrast >= PLAIN and grey <= few:
            odd.append("grey, most are coloured")
        if max(m.width, m.height) > NARROW * min(m.width, m.height):
            odd.append(f"{m.width} x {m.height}: most of it is outside of the centred square")
        if odd:
            items.append(item)
            notes.append("; ".join(odd))
    return [_about("odd", "of another kind than the others", items, notes)] if items else []


def _near(readable: Sequence[tuple[Item, Measured]], progress: Progress) -> tuple[list[Concern], list[str]]:
    """Findings about near-duplicates, and a group for each picture that joins them with those of the index."""
    matches = near_duplicates.find_in_files([(m.sha256, m.likeness) for _, m in readable], progress)
    ties = [(match.first, match.second) for match in matches]
    heads = near_duplicates.groups(len(readable), ties)
    members: dict[int, list[Item]] = {}
    for head, (item, _) in zip(heads, readable, strict=True):
        members.setdefault(head, []).append(item)
    findings = []
    alike = [cluster for cluster in members.values() if len(cluster) > 1]
    two = [c for c in alike if len({item.label for item in c if item.label}) > 1]
    if two:
        findings.append(_clusters("two_labels", "one picture under two labels", two, lambda i: i.label or ""))
    # Training on a near-duplicate of a picture that is reported on.
    crossing = [c for c in alike if len({_side(item) for item in c} - {""}) > 1]
    if crossing:
        text = "near-duplicates on two sides of a split (`bittern data dedupe`, then `bittern data split`)"
        findings.append(_clusters("crosses_splits", text, crossing, lambda i: i.split))
    ties += near_duplicates.ties([item.group for item, _ in readable])
    return findings, [str(head) for head in near_duplicates.groups(len(readable), ties)]


def _side(item: Item) -> str:
    return "train" if item.split == dataset.EXTRA_SPLIT else item.split


def _clusters(kind: str, what: str, clusters: Iterable[list[Item]], note: Callable[[Item], str]) -> Concern:
    items, notes = [], []
    for number, cluster in enumerate(clusters, start=1):
        items += cluster
        notes += [f"{number}: {note(item)}" for item in cluster]
    return _about(kind, what, items, notes)


def _probed(
    readable: Sequence[tuple[Item, Measured]], groups: Sequence[str], progress: Progress, features: FeatureMaker | None
) -> tuple[list[Concern], list[Shortcut], list[str]]:
    items, measured = [item for item, _ in readable], [m for _, m in readable]
    folds = probe.choose([item.label for item in items], groups)
    if folds is None:
        least = f"two labels with {probe.LEAST_GROUPS} groups of pictures each"
        return [], [], [f"shortcuts and doubtful labels: that needs {least}"]
    shortcuts = probe.shortcuts(measured, folds, progress)
    findings = []
    for shortcut in sorted(shortcuts, key=lambda s: -s.auc):
        if shortcut.interval is None or shortcut.interval[0] >= SHORTCUT:
            alone = "these together tell" if shortcut.what == probe.TOGETHER else "this alone tells"
            findings.append(Concern("shortcut", f"{shortcut.text}: {alone} the labels apart", [], []))
    doubted, remarks = _doubted(items, measured, folds, features, progress)
    return findings + doubted, shortcuts, remarks


def _doubted(
    items: Sequence[Item],
    measured: Sequence[Measured],
    folds: Folds,
    features: FeatureMaker | None,
    progress: Progress,
) -> tuple[list[Concern], list[str]]:
    from bittern_train.data import doubt

    if not doubt.is_installed():
        return [], [f"doubtful labels: that needs cleanlab ({doubt.HINT})"]
    chosen = [items[n] for n in folds.rows]
    table = probe.simple_features([measured[n] for n in folds.rows]) if features is None else features(chosen)
    progress("doubt labels", 0, 1)
    scores = probe.out_of_fold(folds, table)
    progress("doubt labels", 1, 1)
    accuracy = probe.balanced_accuracy(folds, scores)
    if accuracy < DOUBTER:
        better = "" if features is not None else ": --weights imagenet looks with MobileNetV2, and needs TensorFlow"
        return [], [f"doubtful labels: a quick model is right on {accuracy:.0%} of them only{better}"]
    rows = doubt.doubted(folds.labels, scores)
    if not rows:
        return [], []
    answers = [(folds.names[scores[r].argmax()], scores[r].max()) for r in rows]
    notes = [f"rather {answer} ({score:.2f})" for answer, score in answers]
    text = f"a quick model, right on {accuracy:.0%} of the others, doubts the label"
    return [_about("doubted", text, [chosen[r] for r in rows], notes)], []

"""`bittern explain` behind the command line: pictures with their heat, in figures, as text and as a sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import msgspec
import numpy as np

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import dataset, evaluate, metrics, occlusion
from bittern.evaluation.dataset import Item
from bittern.evaluation.metrics import Interval
from bittern.evaluation.occlusion import FAINT, GRID, ZONES, Explanation, Fill, Floats
from bittern.evaluation.sheet import Tile
from bittern.frames import Pixels
from bittern.model import pictures
from bittern.model.classifier import Classifier
from bittern.model.preprocess import Region

# Fewer pictures than these get no interval.
_LEAST = 5
# So many characters fit below a tile.
_CAPTION = 29


class Picture(msgspec.Struct, frozen=True):
    """The heat of one picture and head in figures.

    Attributes:
        drop: largest fall of the answered label's log-odds under one patch.
        peak: column and row of the hottest pixel of the square that the network sees.
        faint: no patch lowers the log-odds by 0.5 or more: zones and peak are mostly noise.
        at_ceiling: the score cannot be higher, so small falls are hidden.
        changed: patches that change the answer, of `patches`.
        zones: see `occlusion.shares`.
    """

    path: str
    model: str
    task: str
    label: str
    score: float
    drop: float
    peak: tuple[int, int]
    faint: bool
    at_ceiling: bool
    changed: int
    patches: int
    zones: dict[str, float] | None


def figures(explanation: Explanation, path: str, model: str) -> Picture:
    """The figures of one explanation."""
    heat = explanation.heat
    row, column = divmod(int(heat.argmax()), explanation.size)
    return Picture(
        path=path,
        model=model,
        task=explanation.head.task,
        label=explanation.result.label,
        score=round(explanation.result.score, 6),
        drop=float(explanation.drops.max()),
        peak=(column, row),
        faint=explanation.faint,
        at_ceiling=explanation.at_ceiling,
        changed=explanation.changed,
        patches=explanation.drops.size,
        zones=occlusion.shares(heat),
    )


class Group(msgspec.Struct, frozen=True):
    """The pictures of one true label with a right or a wrong answer.

    Attributes:
        n: pictures.
        faint: of them, without a patch that matters (see `Picture.faint`); they are not in `zones`.
        at_ceiling: of them, with the highest score there is.
        changed: of them, with a patch that changes the answer.
        median_drop: of the largest falls, log-odds.
        zones: zone -> mean share of heat over the pictures that are not faint; None without any.
        zones_ci95: bootstrap interval (`metrics.bootstrap`); None where fewer than 5 pictures are not faint.
    """

    label: str
    right: bool
    n: int
    faint: int
    at_ceiling: int
    changed: int
    median_drop: float
    zones: dict[str, float] | None
    zones_ci95: dict[str, Interval | None] | None


class Survey(msgspec.Struct, frozen=True):
    """What the answers of one head depend on over a split.

    Attributes:
        split: its name; "all" where there is no index.
        fill: see `occlusion.filling`.
        n: pictures.
        area: zone -> its share of the picture: the share of heat to be expected where place does not matter.
        groups: those with any pictures, label by label, right before wrong.
        skipped: a line for each picture that could not be read.
    """

    model: str
    version: str
    task: str
    split: str
    fill: str
    n: int
    area: dict[str, float]
    groups: list[Group]
    skipped: list[str]


def group(label: str, right: bool, ties: Sequence[str], found: Sequence[Picture]) -> Group:
    """Sum up pictures of one label; `ties` names the group of near-duplicates of each."""
    zones = None
    intervals: dict[str, Interval | None] | None = None
    warm = [
        (tie, [p.zones[zone] for zone in ZONES])
        for tie, p in zip(ties, found, strict=True)
        if p.zones is not None and not p.faint
    ]
    if warm:
        values = np.array([row for _, row in warm])
        zones = dict(zip(ZONES, values.mean(axis=0).tolist(), strict=True))
        draws = metrics.bootstrap(
            [tie for tie, _ in warm], [label] * len(warm), lambda w: w @ values / w.sum(axis=1, keepdims=True)
        )
        if draws is not None and len(warm) >= _LEAST:
            intervals = {zone: metrics.percentile_interval(draws[:, i]) for i, zone in enumerate(ZONES)}
    return Group(
        label=label,
        right=right,
        n=len(found),
        faint=sum(p.faint for p in found),
        at_ceiling=sum(p.at_ceiling for p in found),
        changed=sum(p.changed > 0 for p in found),
        median_drop=float(np.median([p.drop for p in found])),
        zones=zones,
        zones_ci95=intervals,
    )


def tiles(picture: Pixels, explanation: Explanation, name: str, true: str | None = None) -> list[Tile]:
    """Two tiles: the picture as the network sees it, and beside it the heat over it.

    The colours are from none (the grey picture, dark) to the hottest place, or to `FAINT` where all is fainter.

    Args:
        picture: (S, S, 3) uint8 RGB.
        explanation: of it.
        name: for the caption.
        true: the true label, where it is known; a wrong answer gets a red frame.
    """
    wrong = true is not None and true != explanation.result.label
    answer = f"{explanation.result.label} {explanation.result.score:.3f}" + (f", is {true}" if wrong else "")
    drop = float(explanation.drops.max())
    zones = occlusion.shares(explanation.heat)
    if zones is None:
        where = "no patch lowers the score", ""
    else:
        hottest = max(GRID, key=zones.__getitem__)
        where = (
            f"{'faint' if explanation.faint else 'falls'} {drop:.1f}: {zones[hottest]:.0%} {hottest}",
            f"edge {zones['edge']:.0%}, strip {zones['bottom strip']:.0%}",
        )
    short = name if len(name) <= _CAPTION else "..." + name[3 - _CAPTION :]
    return [Tile(picture, (answer, short), wrong), Tile(blend(picture, explanation.heat), where, wrong)]


def blend(picture: Pixels, heat: Floats) -> Pixels:
    """The heat above zero in colours over the grey picture, (S, S, 3) uint8 RGB; from FAINT up the hottest is full."""
    level = np.clip(heat / max(float(heat.max()), FAINT), 0, 1)
    colours = cv2.applyColorMap(np.rint(255 * level).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, axis=2)
    return np.asarray(cv2.addWeighted(grey, 0.55, np.ascontiguousarray(colours), 0.45, 0), np.uint8)


def find(images: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The picture files that files and folders mean, and a line for each folder without any."""
    found: list[Path] = []
    empty: list[str] = []
    for image in images:
        below = pictures.find(Path(image)) if Path(image).is_dir() else [Path(image)]
        found += below
        if not below:
            empty.append(f"{image}: no pictures in this folder")
    return found, empty


def split_of(data: Path, root: Path | None, split: str) -> list[Item]:
    """The pictures of a split; all of them where there is no index.

    Raises:
        ConfigurationError: no such data or split.
    """
    items = dataset.read(data, root)
    splits = {item.split for item in items}
    chosen = items if splits == {""} else [item for item in items if item.split == split]
    if not chosen:
        raise ConfigurationError(f"{data}: no split {split!r}; it has {', '.join(sorted(splits))}")
    return chosen


class Found(NamedTuple):
    """What came out: figures of pictures or of splits, tiles of the sheet, a line for each picture not read."""

    figures: list[Picture] | list[Survey]
    tiles: list[Tile]
    skipped: list[str]


def of_pictures(
    classifier: Classifier, files: Sequence[Path], fill: Fill, region: Region | None, progress: Callable[[int], None]
) -> Found:
    """Explain single pictures, or a region of them: one `Picture` and two tiles for each and each head."""
    found: list[Picture] = []
    sheet: list[Tile] = []
    skipped: list[str] = []
    for at, file in enumerate(files):
        try:
            seen = classifier.preprocess(pictures.cut(pictures.decode(file), file, region))[0].copy()
        except PictureError as error:
            skipped.append(str(error))
        else:
            for explanation in occlusion.cover(classifier, seen, fill):
                found.append(figures(explanation, str(file), classifier.name))
                sheet += tiles(seen, explanation, file.name)
        progress(at + 1)
    return Found(found, sheet, skipped)


def of_split(
    classifier: Classifier,
    items: Sequence[Item],
    fill: Fill,
    label: str | None,
    each: int,
    region: Region | None,
    progress: Callable[[int], None],
) -> Found:
    """Explain the pictures of a labelled split: one `Survey` a head, and tiles of its surest right and wrong answers.

    Args:
        classifier: any model.
        items: the pictures.
        fill: see `occlusion.filling`.
        label: of pictures that have none; see `evaluation.true_labels`.
        each: on the sheet, so many right and so many wrong answers of each label.
        region: of each picture; None takes the whole of it.
        progress: called with the number of pictures done.

    Raises:
        ConfigurationError: a label that the model does not know.
    """
    true = [evaluate.true_labels(head, items, label) for head in classifier.heads]
    kept: list[list[tuple[str, Item, Explanation]]] = [[] for _ in classifier.heads]
    skipped: list[str] = []

    def shown(item: Item) -> Pixels:
        frame = pictures.cut(pictures.decode(item.path), item.path, region)
        return np.array(classifier.preprocess(frame)[0])

    for at, item in enumerate(items):
        try:
            seen = shown(item)
        except PictureError as error:
            skipped.append(str(error))
        else:
            for number, explanation in enumerate(occlusion.cover(classifier, seen, fill)):
                kept[number].append((true[number][at], item, explanation))
        progress(at + 1)
    surveys: list[Survey] = []
    sheet: list[Tile] = []
    for head, answers in zip(classifier.heads, kept, strict=True):
        groups = []
        for own in head.labels:
            for right in (True, False):
                those = [(i, e) for t, i, e in answers if t == own and (e.result.label == own) is right]
                if those:
                    found = [figures(e, i.name, classifier.name) for i, e in those]
                    groups.append(group(own, right, [i.group or i.name for i, _ in those], found))
                those.sort(key=lambda pair: -pair[1].result.score)
                for item, explanation in those[:each]:
                    sheet += tiles(shown(item), explanation, item.name, own)
        surveys.append(
            Survey(
                model=classifier.name,
                version=classifier.version,
                task=head.task,
                split=items[0].split or "all",
                fill=fill,
                n=len(answers),
                area=occlusion.areas(classifier.size),
                groups=groups,
                skipped=skipped,
            )
        )
    return Found(surveys, sheet, skipped)

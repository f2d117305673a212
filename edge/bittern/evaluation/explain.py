"""What `bittern explain` reports: the heat of pictures in figures, summed up over a split, and as tiles of a sheet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import msgspec
import numpy as np

from bittern.errors import PictureError
from bittern.evaluation import evaluate, metrics, occlusion
from bittern.evaluation.dataset import Item
from bittern.evaluation.metrics import Interval
from bittern.evaluation.occlusion import FAINT, GRID, ZONES, Explanation, Fill, Floats
from bittern.evaluation.sheet import Tile
from bittern.frames import Pixels
from bittern.model import pictures
from bittern.model.classifier import Classifier
from bittern.model.preprocess import Region

_log = logging.getLogger("bittern")

# With fewer pictures there is no interval.
_LEAST_PICTURES = 5
# Characters that fit below a tile.
_CAPTION = 29


class PictureHeat(msgspec.Struct, frozen=True):
    """The heat of one picture and head in figures.

    Attributes:
        path: of the picture file.
        model: its name.
        task: of the head.
        label: the answer.
        score: of the answer, 0 to 1.
        drop: largest fall of the answer's log-odds under one patch.
        peak: column and row of the hottest pixel of the square that the network sees.
        faint: no patch lowers the log-odds by 0.5 or more: zones and peak are mostly noise.
        at_ceiling: the score cannot be higher, so small falls are hidden.
        changed: number of the `patches` that change the answer.
        patches: number of patches.
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


def figures(explanation: Explanation, path: str, model: str) -> PictureHeat:
    """The figures of one explanation."""
    heat = explanation.heat
    row, column = divmod(int(heat.argmax()), explanation.size[1])
    return PictureHeat(
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


class HeatSummary(msgspec.Struct, frozen=True):
    """The pictures of one true label that were answered correctly, or those that were not.

    Attributes:
        label: the true label.
        correct: whether the answers are correct; in JSON the key is "right".
        n: number of pictures.
        faint: number of these without a patch that matters (see `PictureHeat.faint`); they do not count in `zones`.
        at_ceiling: number of these with the highest possible score.
        changed: number of these with a patch that changes the answer.
        median_drop: median of the largest falls, in log-odds.
        zones: zone -> mean share of heat over the pictures that are not faint; None without any.
        zones_ci95: bootstrap interval (`metrics.bootstrap`); None where fewer than 5 pictures are not faint.
    """

    label: str
    correct: bool = msgspec.field(name="right")
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
        model: its name.
        version: of the model.
        task: of the head.
        split: its name; "all" where there is no index.
        fill: see `occlusion.filling`.
        n: number of pictures.
        area: zone -> its share of the picture: the share of heat to be expected where place does not matter.
        summaries: label by label, correct answers before mistakes, none without pictures; in JSON the key is "groups".
        skipped: a line for each picture that cannot be read.
    """

    model: str
    version: str
    task: str
    split: str
    fill: str
    n: int
    area: dict[str, float]
    summaries: list[HeatSummary] = msgspec.field(name="groups")
    skipped: list[str]


def summarize(label: str, correct: bool, groups: Sequence[str], heats: Sequence[PictureHeat]) -> HeatSummary:
    """Sum up pictures of one label; `groups` names the group of near-duplicates of each."""
    zones = None
    intervals: dict[str, Interval | None] | None = None
    clear = [
        (group, [heat.zones[zone] for zone in ZONES])
        for group, heat in zip(groups, heats, strict=True)
        if heat.zones is not None and not heat.faint
    ]
    if clear:
        shares = np.array([row for _, row in clear])
        zones = dict(zip(ZONES, shares.mean(axis=0).tolist(), strict=True))
        resamples = metrics.bootstrap(
            [group for group, _ in clear], [label] * len(clear), lambda w: w @ shares / w.sum(axis=1, keepdims=True)
        )
        if resamples is not None and len(clear) >= _LEAST_PICTURES:
            intervals = {zone: metrics.percentile_interval(resamples[:, i]) for i, zone in enumerate(ZONES)}
    return HeatSummary(
        label=label,
        correct=correct,
        n=len(heats),
        faint=sum(heat.faint for heat in heats),
        at_ceiling=sum(heat.at_ceiling for heat in heats),
        changed=sum(heat.changed > 0 for heat in heats),
        median_drop=float(np.median([heat.drop for heat in heats])),
        zones=zones,
        zones_ci95=intervals,
    )


def tiles(picture: Pixels, explanation: Explanation, name: str, true: str | None = None) -> list[Tile]:
    """Two tiles: the picture as the network sees it, and beside it the heat over it.

    The colours go from no heat (the grey picture, dark) to the hottest place, or to `FAINT` where all heat is fainter.

    Args:
        picture: (S, S, 3) uint8 RGB.
        explanation: of it.
        name: for the caption.
        true: the true label if it is known; a mistake gets a red frame.
    """
    mistake = true is not None and true != explanation.result.label
    answer = f"{explanation.result.label} {explanation.result.score:.3f}" + (f", is {true}" if mistake else "")
    drop = float(explanation.drops.max())
    zones = occlusion.shares(explanation.heat)
    if zones is None:
        places = "no patch lowers the score", ""
    else:
        hottest = max(GRID, key=zones.__getitem__)
        places = (
            f"{'faint' if explanation.faint else 'falls'} {drop:.1f}: {zones[hottest]:.0%} {hottest}",
            f"edge {zones['edge']:.0%}, strip {zones['bottom strip']:.0%}",
        )
    short = name if len(name) <= _CAPTION else "..." + name[3 - _CAPTION :]
    return [Tile(picture, (answer, short), mistake), Tile(blend(picture, explanation.heat), places, mistake)]


def blend(picture: Pixels, heat: Floats) -> Pixels:
    """The heat above zero in colours over the grey picture.

    Args:
        picture: (S, S, 3) uint8 RGB.
        heat: (S, S) log-odds.

    Returns:
        (S, S, 3) uint8 RGB; the hottest pixel has the last colour of the map if its heat is at least `FAINT`.
    """
    level = np.clip(heat / max(float(heat.max()), FAINT), 0, 1)
    colours = cv2.applyColorMap(np.rint(255 * level).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, axis=2)
    return np.asarray(cv2.addWeighted(grey, 0.55, np.ascontiguousarray(colours), 0.45, 0), np.uint8)


def picture_files(images: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files themselves and the pictures in the folders, and a line for each folder without any.

    What is left out of a folder is said in a warning.
    """
    files: list[Path] = []
    empty: list[str] = []
    for image in images:
        if not Path(image).is_dir():
            files.append(Path(image))
            continue
        listing = pictures.find(Path(image))
        files += listing.paths
        if not listing.paths:
            empty.append(f"{image}: no pictures in this folder" + (f"; {listing.note}" if listing.note else ""))
        elif listing.note:
            _log.warning("%s: %s", image, listing.note)
    return files, empty


class PicturesExplained(NamedTuple):
    """Single pictures: figures and two tiles for each picture and head, and a line for each that cannot be read."""

    heats: list[PictureHeat]
    tiles: list[Tile]
    skipped: list[str]


def explain_pictures(
    classifier: Classifier, files: Sequence[Path], fill: Fill, region: Region | None, progress: Callable[[int], None]
) -> PicturesExplained:
    """Explain single pictures, or a region of them.

    Args:
        classifier: any model.
        files: the pictures.
        fill: see `occlusion.filling`.
        region: of each picture; None takes the whole of it.
        progress: called with the number of pictures done.
    """
    heats: list[PictureHeat] = []
    sheet: list[Tile] = []
    skipped: list[str] = []
    for i, file in enumerate(files):
        try:
            square = _square(classifier, file, region)
        except PictureError as error:
            skipped.append(str(error))
        else:
            for explanation in occlusion.cover(classifier, square, fill):
                heats.append(figures(explanation, str(file), classifier.name))
                sheet += tiles(square, explanation, file.name)
        progress(i + 1)
    return PicturesExplained(heats, sheet, skipped)


class SplitExplained(NamedTuple):
    """A split: a survey for each head, tiles of the most confident answers, a line for each picture not read."""

    surveys: list[Survey]
    tiles: list[Tile]
    skipped: list[str]


def explain_split(
    classifier: Classifier,
    items: Sequence[Item],
    fill: Fill,
    label: str | None,
    each: int,
    region: Region | None,
    progress: Callable[[int], None],
) -> SplitExplained:
    """Explain the pictures of a labelled split.

    Args:
        classifier: any model.
        items: the pictures, all of one split.
        fill: see `occlusion.filling`.
        label: of pictures that have none; see `evaluate.true_labels`.
        each: number of correct answers, and of mistakes, of each label that get tiles: the most confident ones.
        region: of each picture; None takes the whole of it.
        progress: called with the number of pictures done.

    Raises:
        ConfigurationError: a label that the model does not know.
    """
    true_labels = [evaluate.true_labels(head, items, label) for head in classifier.heads]
    explained: list[list[tuple[str, Item, Explanation]]] = [[] for _ in classifier.heads]
    skipped: list[str] = []
    for i, item in enumerate(items):
        try:
            square = _square(classifier, item.path, region)
        except PictureError as error:
            skipped.append(str(error))
        else:
            for of_head, labels, explanation in zip(
                explained, true_labels, occlusion.cover(classifier, square, fill), strict=True
            ):
                of_head.append((labels[i], item, explanation))
        progress(i + 1)
    surveys: list[Survey] = []
    sheet: list[Tile] = []
    for head, of_head in zip(classifier.heads, explained, strict=True):
        summaries = []
        for own in head.labels:
            for correct in (True, False):
                chosen = [(i, e) for true, i, e in of_head if true == own and (e.result.label == own) is correct]
                if chosen:
                    heats = [figures(e, i.name, classifier.name) for i, e in chosen]
                    summaries.append(summarize(own, correct, [i.group or i.name for i, _ in chosen], heats))
                chosen.sort(key=lambda pair: -pair[1].result.score)
                for item, explanation in chosen[:each]:
                    sheet += tiles(_square(classifier, item.path, region), explanation, item.name, own)
        surveys.append(
            Survey(
                model=classifier.name,
                version=classifier.version,
                task=head.task,
                split=items[0].split or "all",
                fill=fill,
                n=len(of_head),
                area=occlusion.areas(classifier.shape),
                summaries=summaries,
                skipped=skipped,
            )
        )
    return SplitExplained(surveys, sheet, skipped)


def _square(classifier: Classifier, file: Path, region: Region | None) -> Pixels:
    """(S, S, 3) uint8 RGB: what the network sees of a picture file."""
    return np.array(classifier.preprocess(pictures.cut(pictures.decode(file), file, region))[0])

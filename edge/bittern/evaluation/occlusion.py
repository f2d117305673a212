"""What an answer depends on: parts of the picture are covered, and the fall of the answered label's score is the heat.

Occlusion as in Zeiler and Fergus 2014 ("Visualizing and Understanding Convolutional Networks", section 4.2), on the
shipped int8 model itself, with two changes. The patch has soft edges, and a pixel's heat is the mean over all patches
weighted by how much each covered it (as in RISE, Petsiuk et al. 2018, section 3.1): a hard patch is a thing of its own,
whose edges cost score wherever it lies. And the heat is in log-odds, because the scores of a sure answer hardly move.

It shows what the answer depends on, not why, and only dependence on one place at a time: where two places each suffice
for the answer, covering either changes nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels
from bittern.model.classifier import Classifier, Result
from bittern.model.manifest import Head

Floats = npt.NDArray[np.float64]
Fill = Literal["mean", "blur"]

# Patches a row and column; their centres are evenly spaced from edge to edge.
PATCHES = 15
# Width of a patch at half of its strength, as a share of the picture's side: 48 of 224 px, three steps.
WIDTH = 3 / 14
# Log-odds. Of 5441 patches that lay beside the stop signs pasted into 45 photographs 95 % moved the answer by less
# than 0.41: no heat to speak of.
FAINT = 0.5
# Outermost share of each side that counts as edge; the lowest share as strip, where watermarks are.
MARGIN = 0.15
GRID = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
ZONES = (*GRID, "edge", "bottom strip")


class Explanation(NamedTuple):
    """What the answer of one head depends on.

    Attributes:
        head: whose answer.
        result: the answer for the whole picture.
        drops: (PATCHES, PATCHES) fall of the answered label's log-odds with a patch there, row by row; negative where
            covering makes the answer surer.
        changed: how many of the patches change the answer.
        at_ceiling: the score is the highest that the output can say, so small falls are hidden.
        size: side of the picture, in pixels.
    """

    head: Head
    result: Result
    drops: Floats
    changed: int
    at_ceiling: bool
    size: int

    @property
    def heat(self) -> Floats:
        """(size, size): for each pixel the mean of `drops`, weighted by how much each patch covered it."""
        along = windows(self.size)
        weight = along.sum(axis=0)
        # The weight of a patch at a pixel is a product of two, so the weighted mean is two matrix products.
        return np.asarray(along.T @ self.drops @ along / np.outer(weight, weight))

    @property
    def faint(self) -> bool:
        """Whether no single patch matters much: heat and zones are then mostly noise."""
        return float(self.drops.max()) < FAINT


def log_odds(raw: npt.ArrayLike, head: Head) -> Floats:
    """ln(p / (1 - p)) of quantized scores, with p at least half an output step away from 0 and 1.

    Args:
        raw: uint8 outputs, any shape.
        head: says their quantization. With the usual softmax output (1/256, 0) the result is -6.2 to 5.5.
    """
    p = np.clip(head.scale * (np.asarray(raw, np.int64) - head.zero_point), head.scale / 2, 1 - head.scale / 2)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def windows(size: int) -> Floats:
    """(PATCHES, size): how strongly each patch covers each pixel along one axis, 0 to 1.

    One in the middle third of a patch, then a raised cosine down to 0; half at `WIDTH`.
    """
    centers = np.linspace(0, size, PATCHES)[:, None]
    distance = np.abs(np.arange(size) + 0.5 - centers) / (WIDTH * size / 2)
    return np.asarray((1 + np.cos(np.pi * np.clip(distance - 0.5, 0, 1))) / 2)


def filling(picture: Pixels, fill: Fill) -> npt.NDArray[np.float32]:
    """What a covered place shows instead, (S, S, 3) RGB.

    "mean" is the mean colour of the picture: takes away detail and colour. "blur" is the picture itself without detail
    (Gaussian, sigma half a patch): takes away detail only, and is less of a thing of its own on a plain background.
    """
    if fill == "blur":
        soft = cv2.GaussianBlur(picture, (0, 0), WIDTH * len(picture) / 2, borderType=cv2.BORDER_REFLECT)
        return np.asarray(soft, np.float32)
    return np.broadcast_to(picture.mean(axis=(0, 1), dtype=np.float64).astype(np.float32), picture.shape)


def cover(classifier: Classifier, picture: Pixels, fill: Fill = "mean") -> list[Explanation]:
    """Cover a picture patch by patch: PATCHES x PATCHES + 1 inferences.

    Args:
        classifier: any model; what is explained is its int8 answer.
        picture: (S, S, 3) uint8 RGB as the network sees it (`Classifier.preprocess`).
        fill: see `filling`.

    Returns:
        One explanation a head.
    """
    size = len(picture)
    along, instead = windows(size), filling(picture, fill)
    tensor = picture[None].copy()
    whole = classifier.invoke(tensor)
    covered: list[list[Pixels]] = []
    for row in along:
        rows = slice(*_extent(row))
        for column in along:
            part = rows, slice(*_extent(column))
            strength = np.outer(row[part[0]], column[part[1]]).astype(np.float32)[:, :, None]
            under = picture[part]
            tensor[0][part] = np.rint(under + strength * (instead[part] - under))
            covered.append(classifier.invoke(tensor))
            tensor[0][part] = under
    explanations = []
    for at, (head, result) in enumerate(zip(classifier.heads, classifier.answer(whole), strict=True)):
        raw = np.array([outputs[at] for outputs in covered])
        label = head.labels.index(result.label)
        drops = (log_odds(whole[at], head)[label] - log_odds(raw[:, label], head)).reshape(PATCHES, PATCHES)
        explanations.append(
            Explanation(
                head,
                result,
                drops,
                int((raw.argmax(axis=1) != label).sum()),
                int(whole[at][label]) == 255,
                size,
            )
        )
    return explanations


def _extent(weights: Floats) -> tuple[int, int]:
    at = np.flatnonzero(weights)
    return int(at[0]), int(at[-1]) + 1


def _masks(size: int) -> dict[str, npt.NDArray[np.bool_]]:
    third = np.arange(size) * 3 // size
    cell = third[:, None] * 3 + third
    masks = {zone: cell == i for i, zone in enumerate(GRID)}
    margin = round(MARGIN * size)
    edge = np.ones((size, size), bool)
    edge[margin : size - margin, margin : size - margin] = False
    strip = np.zeros((size, size), bool)
    strip[size - margin :] = True
    return masks | {"edge": edge, "bottom strip": strip}


def areas(size: int) -> dict[str, float]:
    """The share of the picture that each zone has: the share of heat to be expected where place does not matter."""
    return {zone: float(mask.mean()) for zone, mask in _masks(size).items()}


def shares(heat: Floats) -> dict[str, float] | None:
    """The share of the heat above zero that lies in each zone; None without any.

    The nine cells of `GRID` add up to 1; "edge" and "bottom strip" overlap them. A patch is wider than the strip: heat
    just above it counts in part.
    """
    warm = np.maximum(heat, 0)
    total = float(warm.sum())
    return {zone: float(warm[mask].sum()) / total for zone, mask in _masks(len(heat)).items()} if total > 0 else None

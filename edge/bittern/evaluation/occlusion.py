"""What an answer depends on: places of the picture are covered in turn, and the fall of the answer's score is the heat.

Occlusion as in Zeiler and Fergus 2014 ("Visualizing and Understanding Convolutional Networks", section 4.2), on the
shipped int8 model itself, with two changes. The patch has soft edges, and a pixel's heat is the mean over all patches
weighted by how much each covered it (as in RISE, Petsiuk et al. 2018, section 3.1): a hard patch is an object itself,
whose edges lower the score wherever it lies. And the heat is in log-odds, because a confident score hardly moves.

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
from bittern.model.scores import highest
from bittern.model.scores import step as step_of

Floats = npt.NDArray[np.float64]
Fill = Literal["mean", "blur"]

# Patches per row and column; their centres are evenly spaced from edge to edge.
PATCHES = 15
# Width of a patch where it covers half, as a share of the picture's side: 48 of 224 px, three steps.
WIDTH = 3 / 14
# In log-odds. Of 5441 patches beside the stop signs pasted into 45 photographs, 95 % moved the answer by less than
# 0.41: less than this is noise.
FAINT = 0.5
# Share of the side that counts as edge, on all four sides; at the bottom also as the strip in which watermarks are.
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
        head: the head that gave the answer.
        result: the answer for the whole picture.
        drops: (PATCHES, PATCHES) fall of the answered label's log-odds under each patch, row by row; negative where
            covering makes the answer more confident.
        changed: number of patches that change the answer.
        at_ceiling: the score is the highest that the output can express, so small falls are hidden.
        size: height and width of the picture, in pixels.
    """

    head: Head
    result: Result
    drops: Floats
    changed: int
    at_ceiling: bool
    size: tuple[int, int]

    @property
    def heat(self) -> Floats:
        """(height, width): for each pixel the mean of `drops`, weighted by how much each patch covered it."""
        down, along = map(windows, self.size)
        # The weight of a patch at a pixel is a product of row and column, so the mean is two matrix products.
        return np.asarray(down.T @ self.drops @ along / np.outer(down.sum(axis=0), along.sum(axis=0)))

    @property
    def faint(self) -> bool:
        """Whether no single patch matters much, so that heat and zones are mostly noise."""
        return float(self.drops.max()) < FAINT


def log_odds(scores: npt.ArrayLike, step: float) -> Floats:
    """ln(p / (1 - p)) of scores, with p at least half an output step away from 0 and 1.

    Args:
        scores: of any shape.
        step: of the output (`bittern.model.scores.step`). With the usual 1/256 the result is -6.2 to 5.5.
    """
    p = np.clip(np.asarray(scores, np.float64), step / 2, 1 - step / 2)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def windows(size: int) -> Floats:
    """(PATCHES, size): how strongly each patch covers each pixel along one axis, 0 to 1.

    1 in the middle third of a patch, then a raised cosine down to 0; one half at `WIDTH`.
    """
    centers = np.linspace(0, size, PATCHES)[:, None]
    distance = np.abs(np.arange(size) + 0.5 - centers) / (WIDTH * size / 2)
    return np.asarray((1 + np.cos(np.pi * np.clip(distance - 0.5, 0, 1))) / 2)


def filling(picture: Pixels, fill: Fill) -> npt.NDArray[np.float32]:
    """What a patch shows in place of the picture, (S, S, 3) RGB, 0 to 255.

    "mean" is the mean colour of the picture: removes detail and colour. "blur" is the picture without detail (Gaussian,
    sigma half a patch): removes detail only, and looks less like an object on a plain background.
    """
    if fill == "blur":
        soft = cv2.GaussianBlur(picture, (0, 0), WIDTH * max(picture.shape[:2]) / 2, borderType=cv2.BORDER_REFLECT)
        return np.asarray(soft, np.float32)
    return np.broadcast_to(picture.mean(axis=(0, 1), dtype=np.float64).astype(np.float32), picture.shape)


def cover(classifier: Classifier, picture: Pixels, fill: Fill = "mean") -> list[Explanation]:
    """Cover a picture patch by patch: PATCHES x PATCHES + 1 inferences.

    Args:
        classifier: any model; what is explained is its answer.
        picture: (height, width, 3) uint8 RGB as the network sees it (`Classifier.preprocess`).
        fill: see `filling`.

    Returns:
        One explanation per head.
    """
    height, width = picture.shape[:2]
    down, along, cover_with = windows(height), windows(width), filling(picture, fill)
    tensor = picture[None].copy()
    whole = classifier.answer(classifier.invoke(tensor))
    covered: list[list[Result]] = []
    for row in down:
        rows = slice(*_extent(row))
        for column in along:
            part = rows, slice(*_extent(column))
            strength = np.outer(row[part[0]], column[part[1]]).astype(np.float32)[:, :, None]
            under = picture[part]
            tensor[0][part] = np.rint(under + strength * (cover_with[part] - under))
            covered.append(classifier.answer(classifier.invoke(tensor)))
            tensor[0][part] = under
    explanations = []
    for i, (head, result) in enumerate(zip(classifier.heads, whole, strict=True)):
        own, step = result.label, step_of(head)
        under_patch = log_odds([results[i].scores[own] for results in covered], step)
        drops = (log_odds(result.score, step) - under_patch).reshape(PATCHES, PATCHES)
        changed = sum(results[i].label != own for results in covered)
        # Rounding may take a little off.
        at_ceiling = result.score > highest(head) - step / 2
        explanations.append(Explanation(head, result, drops, changed, at_ceiling, (height, width)))
    return explanations


def _extent(weights: Floats) -> tuple[int, int]:
    covered = np.flatnonzero(weights)
    return int(covered[0]), int(covered[-1]) + 1


def _masks(size: tuple[int, int]) -> dict[str, npt.NDArray[np.bool_]]:
    row, column = (np.arange(side) * 3 // side for side in size)
    cell = row[:, None] * 3 + column
    masks = {zone: cell == i for i, zone in enumerate(GRID)}
    below, beside = (round(MARGIN * side) for side in size)
    edge = np.ones(size, bool)
    edge[below : size[0] - below, beside : size[1] - beside] = False
    strip = np.zeros(size, bool)
    strip[size[0] - below :] = True
    return masks | {"edge": edge, "bottom strip": strip}


def areas(size: tuple[int, int]) -> dict[str, float]:
    """The share of a picture that each zone has: the share of heat to be expected where place does not matter.

    Args:
        size: height and width of the picture.
    """
    return {zone: float(mask.mean()) for zone, mask in _masks(size).items()}


def shares(heat: Floats) -> dict[str, float] | None:
    """The share of the heat above zero that lies in each zone; None if there is none.

    The nine cells of `GRID` add up to 1; "edge" and "bottom strip" overlap them. A patch is wider than the strip, so
    heat just above it counts in part.
    """
    positive = np.maximum(heat, 0)
    total = float(positive.sum())
    if total == 0:
        return None
    return {zone: float(positive[mask].sum()) / total for zone, mask in _masks((heat.shape[0], heat.shape[1])).items()}

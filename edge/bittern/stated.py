"""What an owner can state about a network that does not say it itself: the names that options and keys take."""

from __future__ import annotations

import re
from typing import Literal, get_args

# What a network takes for the bytes of a picture (`bittern.model.input_maker.SCALINGS`).
PixelKind = Literal["raw", "0..1", "-1..1", "imagenet", "caffe"]
PIXELS: tuple[PixelKind, ...] = get_args(PixelKind)
# How its outputs become scores (`bittern.model.scores`).
ScoreRule = Literal["as-is", "softmax", "sigmoid"]
SCORE_RULES: tuple[ScoreRule, ...] = get_args(ScoreRule)


def read_size(value: str) -> tuple[int, int]:
    """Height and width from "224" or "320x240" (width x height).

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", value)
    if match is None:
        raise ValueError(f"expected a side such as 224, or WIDTHxHEIGHT, got {value!r}")
    return int(match[2] or match[1]), int(match[1])

"""Corruptions that a camera can cause: fourteen kinds, each at two strengths, drawn by albumentations."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from bittern.frames import Pixels

# The library looks for a newer version of itself on the network when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

STRENGTHS = ("mild", "strong")
# Side in pixels of the pictures that the strengths are for; for a network of another size they are resized afterwards.
SIZE = 224

_SMOOTH = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
# Kind: how albumentations (`a`) draws it at strength `s`, and `s` for mild and strong. Noise, hot pixels, blur and JPEG
# are severities 1 and 3 of ImageNet-C (Hendrycks and Dietterich 2019, made for 224 pixels too); rotation (degrees) and
# size are literal; the others were chosen by eye, so that a person still recognizes the strong one.
_KINDS: dict[str, tuple[Callable[[Any, Any], Any], tuple[Any, Any]]] = {
    "noise": (lambda a, s: a.GaussNoise(std_range=(s, s), p=1), (0.08, 0.18)),
    "shot noise": (lambda a, s: a.ShotNoise(scale_range=(s, s), p=1), (0.1, 0.25)),
    "hot pixels": (lambda a, s: a.SaltAndPepper(amount=(s, s), p=1), (0.03, 0.09)),
    "blur": (lambda a, s: a.Defocus(radius=(s, s), alias_blur=(0.1 * s - 0.2, 0.1 * s - 0.2), p=1), (3, 6)),
    "motion": (lambda a, s: a.MotionBlur(blur_limit=(s, s), allow_shifted=False, p=1), (9, 17)),
    "dim": (lambda a, s: _jitter(a, brightness=s), (0.5, 0.25)),
    "bright": (lambda a, s: _jitter(a, brightness=s), (1.6, 2.4)),
    "contrast": (lambda a, s: _jitter(a, contrast=s), (0.5, 0.25)),
    "JPEG": (lambda a, s: a.ImageCompression(quality_range=(s, s), p=1), (25, 15)),
    "fog": (lambda a, s: a.RandomFog(fog_coef_range=(s, s), alpha_coef=0.1, p=1), (0.4, 0.7)),
    "rotation": (lambda a, s: a.OneOf([_turn(a, s), _turn(a, -s)], p=1), (5, 10)),
    "size": (lambda a, s: a.Downscale(scale_range=(s, s), interpolation_pair=_SMOOTH, p=1), (0.5, 0.25)),
    "warm cast": (lambda a, s: _cast(a, s), (20, 45)),
    "cold cast": (lambda a, s: _cast(a, -s), (20, 45)),
}


class Corruption(NamedTuple):
    """One kind of corruption at one strength, "mild" or "strong"."""

    kind: str
    strength: str


CORRUPTIONS = tuple(Corruption(kind, strength) for kind in _KINDS for strength in STRENGTHS)


def corrupt(picture: Pixels, corruption: Corruption, seed: int) -> Pixels:
    """Corrupt a picture.

    Args:
        picture: (224, 224, 3) uint8 RGB, the strengths are for this SIZE.
        corruption: one of CORRUPTIONS.
        seed: of what is random in it; the same seed gives the same picture.

    Returns:
        (224, 224, 3) uint8 RGB.
    """
    transform = _transforms.made.get(corruption) or _transforms.made.setdefault(corruption, _transform(corruption))
    transform.set_random_seed(seed)
    return np.asarray(transform(image=picture)["image"], np.uint8)


class _Transforms(threading.local):
    # A transform holds its random state, so every thread needs its own.
    def __init__(self) -> None:
        self.made: dict[Corruption, Any] = {}


_transforms = _Transforms()


def _transform(corruption: Corruption) -> Any:
    import albumentations

    make, strengths = _KINDS[corruption.kind]
    return albumentations.Compose([make(albumentations, strengths[STRENGTHS.index(corruption.strength)])])


def _jitter(library: Any, **only: float) -> Any:
    # Every factor that is not named stays unchanged.
    unchanged = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return library.ColorJitter(**unchanged | {key: (value, value) for key, value in only.items()}, p=1)


def _cast(library: Any, shift: int) -> Any:
    # Red up and blue down, in steps of 255.
    return library.RGBShift((shift, shift), (0, 0), (-shift, -shift), p=1)


def _turn(library: Any, degrees: float) -> Any:
    return library.Rotate(limit=(degrees, degrees), border_mode=cv2.BORDER_REFLECT_101, p=1)

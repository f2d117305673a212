"""Turns the picture into the tensor of a network that does not take its bytes as they are.

Every kind of pixel is a table of 256 values, computed once: no picture is multiplied or divided.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import UnsetType

from bittern.frames import Pixels
from bittern.model.manifest import Input
from bittern.stated import PixelKind


class Scaling(NamedTuple):
    """What the pixels of a network are: value = (byte - mean) / std, for all channels or for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    colour: str = "RGB"

    def of_signed(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scale and offset, each (3,) of R, G, B: value = scale * x + offset of pixels x in [-1, 1]."""
        mean, std = (np.broadcast_to(v, 3)[:: -1 if self.colour == "BGR" else 1] for v in (self.mean, self.std))
        return 127.5 / std, (127.5 - mean) / std


# By the name that --pixels takes. Keras calls the last three the modes "tf", "torch" and "caffe" of `preprocess_input`
# (keras.applications.imagenet_utils, with the constants); torchvision's models take "imagenet".
SCALINGS: dict[PixelKind, Scaling] = {
    "raw": Scaling((0.0,), (1.0,)),
    "0..1": Scaling((0.0,), (255.0,)),
    "-1..1": Scaling((127.5,), (127.5,)),
    "imagenet": Scaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": Scaling((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), "BGR"),
}


def is_picture(description: Input) -> bool:
    """Whether the tensor is the picture itself, (1, height, width, 3) uint8 RGB."""
    return (
        description.dtype == "uint8"
        and description.colour == "RGB"
        and description.layout != "NCHW"
        and description.shape[0] == 1
        and isinstance(description.mean, UnsetType)
    )


def describe_input(description: Input) -> str:
    """The input in words: "128 x 96 RGB uint8"."""
    height, width = description.size
    batch = f", {description.shape[0]} at a time" if description.shape[0] > 1 else ""
    first = ", channels first" if description.layout == "NCHW" else ""
    return f"{width} x {height} {description.colour} {description.dtype}{first}{batch}"


def name_of(description: Input) -> str:
    """What the pixels are: a name of `SCALINGS`, or mean and std; "bytes" where they are those of the picture."""
    if isinstance(description.mean, UnsetType) or isinstance(description.std, UnsetType):
        return "bytes"
    mean, std = description.mean, description.std
    if len(set(mean)) == len(set(std)) == 1:
        mean, std = mean[:1], std[:1]
    names = [name for name, scaling in SCALINGS.items() if (scaling.mean, scaling.std) == (mean, std)]
    return names[0] if names else f"(byte - {_numbers(mean)}) / {_numbers(std)}"


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{value:g}' for value in values)})"


def table(description: Input) -> npt.NDArray[Any]:
    """The value of the tensor for each byte of the picture: (256,) or (256, 3) of the tensor's dtype."""
    byte = np.arange(256)
    if isinstance(description.mean, UnsetType) or isinstance(description.std, UnsetType):
        return byte.astype(np.uint8) if description.dtype == "uint8" else (byte - 128).astype(np.int8)
    mean, std = np.array(description.mean, np.float32), np.array(description.std, np.float32)
    # In float32, as the loops do that models were trained with.
    real = (byte.astype(np.float32)[:, None] - mean) / std
    real = real[:, 0] if real.shape[1] == 1 else real
    if description.dtype == "float32":
        return real
    limits = np.iinfo(description.dtype)
    q = np.rint(real / np.float32(description.scale)) + description.zero_point
    values: npt.NDArray[Any] = np.clip(q, limits.min, limits.max).astype(description.dtype)
    return values


class InputMaker:
    """Makes the tensor, in a buffer of its own that the next call overwrites."""

    def __init__(self, description: Input) -> None:
        """Of a network with this input. Its batch, if it is not one, has the picture first, and is empty otherwise."""
        self._buffer = np.zeros(description.shape, description.dtype)
        height, width = description.size
        grey = description.colour == "grey"
        self._convert = {"grey": cv2.COLOR_RGB2GRAY, "BGR": cv2.COLOR_RGB2BGR}.get(description.colour)
        self._small = np.empty((height, width) if grey else (height, width, 3), np.uint8)
        values = table(description)
        self._straight = values.dtype == np.uint8 and np.array_equal(values, np.arange(256))
        # OpenCV's tables have a row, and those of int8 no type of their own.
        as_bytes = values.view(np.uint8) if values.dtype == np.int8 else values
        entry = self._buffer[0].view(np.uint8) if values.dtype == np.int8 else self._buffer[0]
        # Where channels come first, each is made by itself, in memory without gaps.
        self._planes = list(entry) if description.layout == "NCHW" else []
        self._plane = np.empty((height, width), np.uint8)
        self._out = entry[:, :, 0] if grey and not self._planes else entry
        self._tables = [column.reshape(1, 256) for column in as_bytes.reshape(256, -1).T.copy()]
        self._table = as_bytes.reshape(1, 256, -1) if as_bytes.ndim == 2 else as_bytes.reshape(1, 256)

    def __call__(self, picture: Pixels) -> npt.NDArray[Any]:
        """The tensor for a picture, (1, height, width, 3) uint8 RGB."""
        small: Any = picture[0]
        if self._convert is not None:
            small = cv2.cvtColor(small, self._convert, dst=self._small)
        for number, plane in enumerate(self._planes):
            channel = small if small.ndim == 2 else cv2.extractChannel(small, number, dst=self._plane)
            if self._straight:
                plane[:] = channel
            else:
                cv2.LUT(channel, self._tables[number % len(self._tables)], dst=plane)
        if not self._planes and self._straight:
            self._out[:] = small
        elif not self._planes:
            cv2.LUT(small, self._table, dst=self._out)
        return self._buffer

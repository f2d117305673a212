"""Frames drawn with integers only, and the digests of the tensors that `bittern.model.preprocess` must make of them.

    python tests/doubles/preprocess_vectors.py           compare this machine with the stored digests
    python tests/doubles/preprocess_vectors.py --write   store this machine's

No drawing or resizing function has a part in the frames: they are the same bytes on every machine and with every
OpenCV, so a digest that differs is due to the preprocessing. The stored digests come from x86-64.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.frames import Order, Pixels
from bittern.model.preprocess import Region, preprocess

STORED = Path(__file__).parents[1] / "bittern" / "model" / "preprocess_vectors.json"

# Width x height. Smaller than the input, equal to it, whole multiples, one more or less than a multiple, upright and
# lying, odd sides, and what the cameras of a Raspberry Pi give.
SIZES = (
    *((1, 1), (7, 5), (100, 37), (200, 150), (224, 224), (225, 300), (333, 500), (447, 448), (448, 448), (449, 673)),
    *((640, 480), (641, 479), (1280, 720), (1296, 972), (1920, 1080), (2464, 3280), (4056, 3040)),
)
KINDS: tuple[Literal["noise", "gradient"], ...] = ("noise", "gradient")
ORDERS: tuple[Order, ...] = ("BGR", "RGB")


class Vector(NamedTuple):
    """One call of `preprocess`: a drawn frame, and how it is looked at."""

    width: int
    height: int
    kind: Literal["noise", "gradient"]
    order: Order = "BGR"
    size: int = 224
    region: Region | None = None

    @property
    def frame_name(self) -> str:
        """What the digest of the frame is stored under."""
        return f"{self.width}x{self.height} {self.kind}"

    @property
    def name(self) -> str:
        """What the digest of the tensor is stored under."""
        where = "" if self.region is None else f" region {','.join(map(str, self.region))}"
        return f"{self.frame_name} {self.order} to {self.size}{where}"

    def frame(self) -> Pixels:
        """(height, width, 3) uint8."""
        return draw(self.width, self.height, self.kind)

    def tensor(self) -> Pixels:
        """(1, size, size, 3) uint8, what `preprocess` makes of the frame."""
        return preprocess(self.frame(), self.order, size=self.size, region=self.region)


VECTORS = (
    *(Vector(w, h, kind, order) for w, h in SIZES for kind in KINDS for order in ORDERS),
    *(Vector(640, 480, kind, region=Region(37, 21, 301, 203)) for kind in KINDS),
    *(Vector(1920, 1080, kind, "RGB", region=Region(481, 0, 960, 1079)) for kind in KINDS),
    *(Vector(1280, 720, kind, size=size) for kind in KINDS for size in (96, 160, 299)),
)


@lru_cache(maxsize=1)
def draw(width: int, height: int, kind: Literal["noise", "gradient"]) -> Pixels:
    """A frame, (height, width, 3) uint8: noise, or three slanting saw-teeth with a little noise.

    The noise is the raw output of PCG64, the one stream that numpy promises never to change.
    """
    count = height * width * 3
    raw = np.random.PCG64(width * 10_000 + height).random_raw(count // 8 + 1)
    noise: Pixels = raw.astype("<u8").view(np.uint8)[:count].reshape(height, width, 3)
    if kind == "noise":
        return noise
    frame: Pixels = noise >> np.uint8(3)
    x, y = np.arange(width, dtype=np.int32), np.arange(height, dtype=np.int32)[:, None]
    for channel, (right, down) in enumerate(((3, 2), (4, -5), (-5, 7))):
        saw: npt.NDArray[np.int32] = (x * right + y * down) // 7 % 256
        frame[..., channel] += (saw * 7 // 8).astype(np.uint8)
    return frame


def sha256(pixels: Pixels) -> str:
    """Of the values in C order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def measure() -> dict[str, dict[str, str]]:
    """The digests of this machine: "frames" and "tensors" by name."""
    frames: dict[str, str] = {}
    tensors: dict[str, str] = {}
    for vector in VECTORS:
        if vector.frame_name not in frames:
            frames[vector.frame_name] = sha256(vector.frame())
        tensors[vector.name] = sha256(vector.tensor())
    return {"frames": frames, "tensors": tensors}


def stored() -> dict[str, dict[str, str]]:
    """The digests in the checkout, as `measure` gives them."""
    return json.loads(STORED.read_text())  # type: ignore[no-any-return]


def differences(here: dict[str, dict[str, str]]) -> list[str]:
    """What `here` has otherwise than the stored digests; an empty list when all are equal."""
    expected = stored()
    return [
        f"{what} {name}"
        for what in ("frames", "tensors")
        for name in sorted(expected[what].keys() | here[what].keys())
        if expected[what].get(name) != here[what].get(name)
    ]


def main() -> int:
    """Compare, or write."""
    here = measure()
    if sys.argv[1:] == ["--write"]:
        STORED.write_text(json.dumps(here, indent=1) + "\n")
        print(f"{len(here['tensors'])} tensors of {len(here['frames'])} frames written to {STORED.name}")
        return 0
    wrong = differences(here)
    print("\n".join([*wrong, f"{len(here['tensors'])} tensors of {len(here['frames'])} frames, {len(wrong)} differ"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

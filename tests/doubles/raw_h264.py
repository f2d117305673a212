"""A raw H.264 stream made by hand, in which nothing is predicted or compressed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np


class _Bits:
    def __init__(self) -> None:
        self.bits = ""

    def u(self, width: int, value: int) -> None:
        self.bits += f"{value:0{width}b}"

    def ue(self, *values: int) -> None:
        """Exp-Golomb codes (ITU-T H.264, 9.1)."""
        for value in values:
            code = f"{value + 1:b}"
            self.bits += "0" * (len(code) - 1) + code

    def align(self, bit: str = "0") -> None:
        self.bits += bit * (-len(self.bits) % 8)

    def ended(self) -> bytes:
        self.bits += "1"
        self.align()
        return int(self.bits, 2).to_bytes(len(self.bits) // 8, "big")


def _unit(kind: int, payload: bytes) -> bytes:
    """A unit with its start code, and a byte between those that would look like one (annex B, 7.4.1)."""
    return b"\0\0\0\1" + bytes([kind]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def film(colours: Sequence[tuple[int, int, int]], across: int = 4, down: int = 3) -> bytes:
    """A picture of 16 `across` x 16 `down` pixels for each colour (BGR), with grey blocks: baseline, no stated rate."""
    sequence = _Bits()
    sequence.u(24, 0x42C00A)  # baseline, level 1
    sequence.ue(0, 0, 2, 1)  # its id, 4 bits of frame_num, pictures in their order, one reference frame
    sequence.u(1, 0)
    sequence.ue(across - 1, down - 1)
    sequence.u(4, 0b1100)  # frames only, direct_8x8_inference, no cropping, no VUI: no rate
    picture = _Bits()
    picture.ue(0, 0)
    picture.u(2, 0)
    picture.ue(0, 0, 0)
    picture.u(3, 0)
    picture.ue(0, 0, 0)
    picture.u(3, 0)
    out = _unit(0x67, sequence.ended()) + _unit(0x68, picture.ended())
    for number, colour in enumerate(colours):
        luma, red, blue = (
            int(v) for v in cv2.cvtColor(np.full((1, 1, 3), colour, np.uint8), cv2.COLOR_BGR2YCrCb)[0, 0]
        )
        # From the full range to that of video.
        luma, blue, red = 16 + luma * 219 // 255, *(128 + (c - 128) * 224 // 255 for c in (blue, red))
        block = "".join(f"{value:08b}" * count for value, count in ((luma, 256), (blue, 64), (red, 64)))
        picture = _Bits()
        picture.ue(0, 7, 0)  # from the first block on, all of them coded by themselves
        picture.u(4, 0)
        picture.ue(number % 2)  # ids of pictures in a row differ
        picture.u(2, 0)
        picture.ue(0)
        for place in range(across * down):
            picture.ue(25)  # I_PCM
            picture.align()
            # One colour throughout would be a camera that sees nothing.
            picture.bits += "10000000" * 384 if place % 3 == 0 else block
        out += _unit(0x65, picture.ended())
    return out

"""A libcamera for the camera's process, beside picamera2.py."""

from __future__ import annotations

import types

from tests.doubles.picamera2_double import ENUMS as controls  # noqa: N811
from tests.doubles.picamera2_double import Transform as Transform

ColorSpace = types.SimpleNamespace(Smpte170m=lambda: "SMPTE170M")
__all__ = ["ColorSpace", "Transform", "controls"]

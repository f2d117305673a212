"""Chooses the sensor mode of a Raspberry Pi camera."""

from __future__ import annotations

from typing import Any

from bittern.errors import ConfigurationError
from bittern.sources.uri import parse_size


def choose_mode(camera: Any, size: tuple[int, int], requested: str | None, name: str) -> dict[str, Any] | None:
    """The sensor mode, as `sensor` of a picamera2 configuration.

    Without it, libcamera may crop a small picture from the middle of the sensor.

    Args:
        camera: an open `Picamera2`.
        size: width and height of the picture, in pixels.
        requested: WIDTHxHEIGHT of a mode, or None for the cheapest one with the full field of view: of the modes whose
            `crop_limits` (x, y, width, height on the sensor) cover the most, the smallest that is not smaller than the
            picture, else the largest. Of equal sizes the one with more bits.
        name: name of the source, for the error.

    Returns:
        None for a camera without sensor modes (USB, virtual): such a camera reports no colour filter.

    Raises:
        ConfigurationError: the sensor has no mode of the requested size.
    """
    modes = []
    if "ColorFilterArrangement" in camera.camera_properties:
        modes = [mode for mode in camera.sensor_modes if {"size", "bit_depth", "crop_limits"} <= mode.keys()]
    if requested is not None:
        mode_size = parse_size(requested, "sensor_mode")
        matching = [mode for mode in modes if tuple(mode["size"]) == mode_size]
        if not matching:
            sizes = ", ".join(sorted({"{}x{}".format(*mode["size"]) for mode in modes})) or "none"
            raise ConfigurationError(f"{name}: sensor_mode={requested}: expected a mode of this sensor; it has {sizes}")
        mode = max(matching, key=lambda mode: mode["bit_depth"])
    elif modes:
        largest = max(map(_field_of_view, modes))
        full = [mode for mode in modes if _field_of_view(mode) == largest]
        sufficient = [mode for mode in full if mode["size"][0] >= size[0] and mode["size"][1] >= size[1]]
        if sufficient:
            mode = min(sufficient, key=lambda mode: (mode["size"][0] * mode["size"][1], -mode["bit_depth"]))
        else:
            mode = max(full, key=lambda mode: (mode["size"][0] * mode["size"][1], mode["bit_depth"]))
    else:
        return None
    return {"output_size": tuple(mode["size"]), "bit_depth": mode["bit_depth"]}


def _field_of_view(mode: dict[str, Any]) -> int:
    """Area of the sensor that a mode covers, in sensor pixels."""
    return int(mode["crop_limits"][2] * mode["crop_limits"][3])

"""Which mode of a Raspberry Pi camera's sensor to ask libcamera for."""

from __future__ import annotations

from typing import Any

from bittern.errors import ConfigurationError
from bittern.sources.uri import parse_size


def choose_mode(camera: Any, asked: tuple[int, int], wanted: str | None, name: str) -> dict[str, Any] | None:
    """The sensor mode as `sensor` of a picamera2 configuration.

    A small picture may otherwise be cut from the middle of the sensor.

    Args:
        camera: an open `Picamera2`.
        asked: width and height of the picture, in pixels.
        wanted: WIDTHxHEIGHT of a mode, or None for the cheapest one with the full field of view: of the modes whose
            `crop_limits` (x, y, width, height on the sensor) cover the most, the smallest that is not smaller than the
            picture, else the largest. Of equal sizes the one with more bits.
        name: of the source, for the error.

    Returns:
        None for a camera without sensor modes (USB, virtual), which picamera2 tells by the colour filter.

    Raises:
        ConfigurationError: the sensor has no mode of the wanted size.
    """
    modes = []
    if "ColorFilterArrangement" in camera.camera_properties:
        modes = [mode for mode in camera.sensor_modes if {"size", "bit_depth", "crop_limits"} <= mode.keys()]
    if wanted is not None:
        size = parse_size(wanted, "sensor_mode")
        fitting = [mode for mode in modes if tuple(mode["size"]) == size]
        if not fitting:
            there = ", ".join(sorted({"{}x{}".format(*mode["size"]) for mode in modes})) or "none"
            raise ConfigurationError(f"{name}: sensor_mode={wanted}: expected a mode of this sensor, it has {there}")
        mode = max(fitting, key=lambda mode: mode["bit_depth"])
    elif modes:
        widest = max(map(_seen, modes))
        full = [mode for mode in modes if _seen(mode) == widest]
        enough = [mode for mode in full if mode["size"][0] >= asked[0] and mode["size"][1] >= asked[1]]
        if enough:
            mode = min(enough, key=lambda mode: (mode["size"][0] * mode["size"][1], -mode["bit_depth"]))
        else:
            mode = max(full, key=lambda mode: (mode["size"][0] * mode["size"][1], mode["bit_depth"]))
    else:
        return None
    return {"output_size": tuple(mode["size"]), "bit_depth": mode["bit_depth"]}


def _seen(mode: dict[str, Any]) -> int:
    return int(mode["crop_limits"][2] * mode["crop_limits"][3])

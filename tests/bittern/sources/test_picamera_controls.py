"""Controls and sensor modes of the source `picamera`: what is asked of libcamera, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.picamera2_double import World
from tests.doubles.picamera_uris import open_picamera, refuse

from bittern.errors import ConfigurationError

IMX708: list[dict[str, Any]] = [
    {"size": (1536, 864), "bit_depth": 10, "crop_limits": (768, 432, 3072, 1728), "fps": 120.1},
    {"size": (4608, 2592), "bit_depth": 10, "crop_limits": (0, 0, 4608, 2592), "fps": 14.3},
    {"size": (2304, 1296), "bit_depth": 8, "crop_limits": (0, 0, 4608, 2592), "fps": 56.0},
    {"size": (2304, 1296), "bit_depth": 10, "crop_limits": (0, 0, 4608, 2592), "fps": 56.0},
    {"format": "MJPEG"},  # what picamera2 lists for a format that it knows nothing about
]


@pytest.mark.parametrize(
    ("advertised", "query", "expected"),
    [
        ({"AfMode": 0, "LensPosition": 0}, "", {"AfMode": "continuous"}),
        ({"AfMode": 0, "LensPosition": 0}, "?lens_position=2.5", {"AfMode": "manual", "LensPosition": 2.5}),
        ({"AfMode": 0, "LensPosition": 0}, "?lens_position=0", {"AfMode": "manual", "LensPosition": 0.0}),
        ({}, "", {}),
        ({"AfMode": (0, 2, 0)}, "?autofocus=continuous", {"AfMode": "continuous"}),
        ({"AfMode": (0, 2, 0)}, "?autofocus=off", {"AfMode": "manual"}),
        (
            {"AfMode": (0, 2, 0), "LensPosition": (0.0, 15.0, 1.0)},
            "?autofocus=manual&lens_position=15",
            {"AfMode": "manual", "LensPosition": 15.0},
        ),
        ({"ExposureTime": (13, 0, None)}, "?exposure_us=20000", {"ExposureTime": 20000}),
        ({"AnalogueGain": (1.0, 16.0, None)}, "?gain=4", {"AnalogueGain": 4.0}),
        (
            {"AwbEnable": (False, True, None), "AwbMode": (0, 7, 0)},
            "?awb=daylight",
            {"AwbEnable": True, "AwbMode": "daylight"},
        ),
    ],
)
def test_focus_exposure_and_white_balance(
    world: World, advertised: dict[str, Any], query: str, expected: dict[str, Any]
) -> None:
    world.controls.update(advertised)
    open_picamera(f"picamera:{query}").close()
    controls = {k: v for k, v in world.configured["controls"].items() if k != "FrameDurationLimits"}
    assert controls == expected


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("lens_position=2", "lens_position=2.0: this camera has no control AfMode"),
        ("autofocus=continuous", "autofocus=continuous: this camera has no control AfMode"),
        ("exposure_us=9", "exposure_us=9: this camera supports 13 to 1000"),
        ("exposure_us=1001", "exposure_us=1001: this camera supports 13 to 1000"),
        ("gain=3", "gain=3.0: this camera has no control AnalogueGain"),
        ("awb=indoor", "awb=indoor: this camera has no control AwbEnable"),
    ],
)
def test_what_a_camera_cannot_follow_is_refused(world: World, query: str, line: str) -> None:
    world.controls["ExposureTime"] = (13, 1000, None)
    assert line in refuse(f"picamera:?{query}", ConfigurationError)
    assert world.opened == 0


@pytest.mark.parametrize(
    ("size", "modes", "expected"),
    [
        ("640x480", IMX708, {"output_size": (2304, 1296), "bit_depth": 10}),
        ("2400x1400", IMX708, {"output_size": (4608, 2592), "bit_depth": 10}),
        ("6000x4000", IMX708, {"output_size": (4608, 2592), "bit_depth": 10}),
        ("640x480", IMX708[-1:], None),
    ],
)
def test_the_cheapest_mode_with_the_full_view(
    world: World, size: str, modes: list[dict[str, Any]], expected: dict[str, Any] | None
) -> None:
    world.properties = {"ColorFilterArrangement": 0}
    world.sensor_modes = modes
    open_picamera(f"picamera:?size={size}").close()
    assert world.configured["sensor"] == expected


def test_a_mode_that_is_wanted(world: World) -> None:
    world.properties = {"ColorFilterArrangement": 0}
    world.sensor_modes = IMX708
    open_picamera("picamera:?sensor_mode=1536x864").close()
    assert world.configured["sensor"] == {"output_size": (1536, 864), "bit_depth": 10}
    line = refuse("picamera:?sensor_mode=640x480", ConfigurationError)
    assert "expected a mode of this sensor; it has 1536x864, 2304x1296, 4608x2592" in line
    world.sensor_modes = []
    assert "it has none" in refuse("picamera:?sensor_mode=640x480", ConfigurationError)
    assert world.opened == 0


def test_a_mode_that_libcamera_does_not_take_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.properties = {"ColorFilterArrangement": 0}
    world.sensor_modes = IMX708
    world.adjust_all = {"sensor": {"output_size": (1536, 864), "bit_depth": 10}}
    open_picamera().close()
    assert "may be cropped" in caplog.text


@pytest.mark.parametrize(
    "uri",
    [
        "picamera:1",
        "picamera:?size=wide",
        "picamera:?fps=0",
        "picamera:?rotation=45",
        "picamera:?hflip=maybe",
        "picamera:?sensor_mode=big",
        "picamera:?autofocus=manual",
        "picamera:?autofocus=continuous&lens_position=1",
        "picamera:?autofocus=off&lens_position=1",
        "picamera:?exposure_us=70000&fps=15",
        "picamera:?exposure_us=0",
        "picamera:?gain=0.5",
        "picamera:?awb=sunny",
        "picamera:?camera=-1",
        "picamera:?lens_position=near",
        "picamera:?colour=yes",
    ],
)
def test_wrong_options(world: World, uri: str) -> None:
    refuse(uri, ConfigurationError)
    assert world.opened == 0

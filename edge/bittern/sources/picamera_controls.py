"""The options of `picamera` and libcamera's controls for them; refused where a camera does not have the control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from bittern.errors import ConfigurationError
from bittern.sources.orientation import OrientationOptions


class PicameraOptions(OrientationOptions, forbid_unknown_fields=True):
    """Options of the URI or of `[camera]`.

    Attributes:
        size: width and height in pixels, before the rotation.
        fps: frames per second.
        camera: number of the camera in `rpicam-hello --list-cameras`, from 0.
        sensor_mode: size of the sensor mode, such as "2304x1296", as `rpicam-hello --list-cameras` lists them; None
            takes the cheapest one with the full field of view.
        autofocus: "continuous", "manual" with a `lens_position`, or "off", which leaves the lens where it is. None
            is continuous where the camera supports it, and manual with a `lens_position`.
        lens_position: a fixed focus in dioptres (1 / metres; 0 is infinity).
        exposure_us: a fixed exposure in microseconds; None is automatic.
        gain: a fixed analogue gain, 1.0 and above; None is automatic.
        awb: the light that white balance assumes; None is libcamera's default.
    """

    size: str = "640x480"
    fps: Annotated[float, Meta(gt=0, le=1000)] = 15.0
    camera: Annotated[int, Meta(ge=0)] = 0
    sensor_mode: str | None = None
    autofocus: Literal["continuous", "manual", "off"] | None = None
    lens_position: Annotated[float, Meta(ge=0, le=100)] | None = None
    exposure_us: Annotated[int, Meta(ge=1, le=600_000_000)] | None = None
    gain: Annotated[float, Meta(ge=1, le=1000)] | None = None
    awb: Literal["auto", "incandescent", "tungsten", "fluorescent", "indoor", "daylight", "cloudy"] | None = None


def controls_of(name: str, enums: Any, advertised: Mapping[str, Any], options: PicameraOptions) -> dict[str, Any]:
    """The controls to configure a camera with, in picamera2's form.

    Names and units are those of libcamera's control_ids_core.yaml. ExposureTime and AnalogueGain each switch off their
    part of the automatic exposure: in libcamera before 0.5 by themselves, since then because picamera2 (from 0.3.27)
    sets ExposureTimeMode and AnalogueGainMode with them.

    Args:
        name: name of the source, for errors.
        enums: `libcamera.controls`.
        advertised: the camera's controls, name to (minimum, maximum, default).
        options: the requested options.

    Raises:
        ConfigurationError: an option that this camera does not support, or a value out of its range.
    """
    controls: dict[str, Any] = {}

    def put(option: str, value: float | str, **settings: Any) -> None:
        for control, setting in settings.items():
            if control not in advertised:
                raise ConfigurationError(
                    f"{name}: {option}={value}: this camera has no control {control}; leave the option out"
                )
            limits = advertised[control]
            if isinstance(setting, int | float) and isinstance(limits, tuple) and len(limits) == 3:
                minimum, maximum = limits[:2]
                # libcamera gives 0 for an upper limit that it does not know yet.
                if setting < minimum or (maximum > minimum and setting > maximum):
                    raise ConfigurationError(
                        f"{name}: {option}={value}: this camera supports {minimum:g} to {maximum:g}"
                    )
            controls[control] = setting

    if "FrameDurationLimits" in advertised:
        period_us = round(1e6 / options.fps)
        controls["FrameDurationLimits"] = (period_us, period_us)
    if options.lens_position is not None:
        put(
            "lens_position",
            options.lens_position,
            AfMode=enums.AfModeEnum.Manual,
            LensPosition=options.lens_position,
        )
    elif options.autofocus == "off":
        put("autofocus", "off", AfMode=enums.AfModeEnum.Manual)
    elif options.autofocus == "continuous":
        put("autofocus", "continuous", AfMode=enums.AfModeEnum.Continuous)
    elif "AfMode" in advertised:
        controls["AfMode"] = enums.AfModeEnum.Continuous  # off by default
    if options.exposure_us is not None:
        put("exposure_us", options.exposure_us, ExposureTime=options.exposure_us)
    if options.gain is not None:
        put("gain", options.gain, AnalogueGain=options.gain)
    if options.awb is not None:
        put("awb", options.awb, AwbEnable=True, AwbMode=getattr(enums.AwbModeEnum, options.awb.capitalize()))
    return controls

"""A double of picamera2 and libcamera, as far as `bittern.sources.picamera` uses them.

What it does was read in picamera2 0.3.38 and seen on libcamera's virtual camera (tests/picamera2): the shapes of its
arrays, the wrapped errors, jobs that outlive a time-out and take a buffer away, controls that must be advertised.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pytest

Array = npt.NDArray[np.uint8]
BUFFERS = 4


def picture(size: tuple[int, int]) -> Array:
    """(H, W, 3) uint8 R, G, B: a quarter each of red and green above, blue and white below; sizes even."""
    width, height = size
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2] = (255, 0, 0)
    rgb[: height // 2, width // 2 :] = (0, 255, 0)
    rgb[height // 2 :, : width // 2] = (0, 0, 255)
    rgb[height // 2 :, width // 2 :] = (255, 255, 255)
    return rgb


def planes(rgb: Array) -> tuple[Array, Array, Array]:
    """Y (H, W), U and V (H/2, W/2), by the equations of ITU-R BT.601 for 8 bits, limited range."""
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, 2, 0)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b

    def halved(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        mean: npt.NDArray[np.float64] = plane.reshape(plane.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
        return mean

    return tuple(np.rint(p).astype(np.uint8) for p in (y, halved(u), halved(v)))  # type: ignore[return-value]


def array_of(rgb: Array, pixel_format: str, padding: int = 0) -> Array:
    """What `make_array` gives for a stream that shows `rgb` with `padding` unused bytes a row of the stream.

    picamera2 cuts the padding off but for the planar formats and for YUYV and its like.
    """
    height, width = rgb.shape[:2]
    fill = 0xA5  # padding is not black
    if pixel_format in ("BGR888", "MJPEG"):
        return rgb.copy()
    if pixel_format == "RGB888":
        return np.ascontiguousarray(rgb[..., ::-1])
    if pixel_format in ("XBGR8888", "XRGB8888"):
        channels = rgb if pixel_format == "XBGR8888" else rgb[..., ::-1]
        return np.dstack([channels, np.full((height, width), fill, np.uint8)])
    y, u, v = planes(rgb)
    if pixel_format in ("NV12", "NV21"):
        pair = (u, v) if pixel_format == "NV12" else (v, u)
        return np.vstack([y, np.stack(pair, axis=2).reshape(height // 2, width)])
    stride = width + padding
    if pixel_format in ("YUV420", "YVU420"):
        first, second = (u, v) if pixel_format == "YUV420" else (v, u)
        buffer = np.full(height * stride * 3 // 2, fill, np.uint8)
        buffer[: height * stride].reshape(height, stride)[:, :width] = y
        chroma = buffer[height * stride :].reshape(height, stride // 2)
        chroma[: height // 2, : width // 2] = first
        chroma[height // 2 :, : width // 2] = second
        return buffer.reshape(height * 3 // 2, stride)
    wide_u, wide_v = (np.repeat(p, 2, axis=0) for p in (u, v))
    order = {
        "YUYV": (y[:, ::2], wide_u, y[:, 1::2], wide_v),
        "YVYU": (y[:, ::2], wide_v, y[:, 1::2], wide_u),
        "UYVY": (wide_u, y[:, ::2], wide_v, y[:, 1::2]),
    }[pixel_format]
    rows = np.stack(order, axis=2).reshape(height, 2 * width)
    rows = np.hstack([rows, np.full((height, 2 * padding), fill, np.uint8)])
    return rows.reshape(height, width + padding, 2)


@dataclass
class World:
    """What is attached, and what it does; tests change it, also while a camera runs."""

    cameras: list[dict[str, Any]] = field(default_factory=lambda: [{"Model": "imx708", "Num": 0}])
    controls: dict[str, Any] = field(default_factory=lambda: {"FrameDurationLimits": (33333, 120000, None)})
    properties: dict[str, Any] = field(default_factory=dict)
    sensor_modes: list[dict[str, Any]] = field(default_factory=list)
    open_error: BaseException | None = None
    start_error: BaseException | None = None
    array_error: BaseException | None = None
    adjust: dict[str, Any] = field(default_factory=dict)  # of the main stream: format, size
    adjust_all: dict[str, Any] = field(default_factory=dict)  # of the configuration: transform, sensor
    padding: int = 0
    hang: bool = False
    finish_when_cancelled: bool = False
    on_cancel: Callable[[], None] | None = None  # called by the next cancel_all_and_flush
    stamps: list[int | None] = field(default_factory=list)  # the next SensorTimestamps; then the clock's
    frozen: int | None = None  # every SensorTimestamp
    sequences: bool = True
    array: Array | None = None  # instead of the picture
    # What was seen.
    configured: dict[str, Any] = field(default_factory=dict)
    held: int = 0
    released: int = 0
    running: int = 0
    opened: int = 0


class Job:
    def __init__(self) -> None:
        self.future: Future[Request] = Future()


class Request:
    def __init__(self, camera: _Picamera2) -> None:
        self._camera = camera
        self._world = camera.world
        self._world.held += 1
        camera.sequence += 3  # frames that nobody took came between
        self.request = types.SimpleNamespace(sequence=camera.sequence) if self._world.sequences else object()

    def get_metadata(self) -> dict[str, Any]:
        if self._world.frozen is not None:
            return {"SensorTimestamp": self._world.frozen}
        stamp = self._world.stamps.pop(0) if self._world.stamps else time.monotonic_ns()
        return {} if stamp is None else {"SensorTimestamp": stamp}

    def make_array(self, name: str) -> Array:
        assert name == "main"
        if self._world.array_error is not None:
            raise self._world.array_error
        if self._world.array is not None:
            return self._world.array
        main = self._camera.configuration["main"]
        rgb = picture(main["size"])
        transform = self._camera.configuration["transform"]
        rgb = rgb[:: -1 if transform.vflip else 1, :: -1 if transform.hflip else 1]
        return array_of(rgb, main["format"], self._world.padding)

    def release(self) -> None:
        self._world.held -= 1
        self._world.released += 1


@dataclass(frozen=True)
class Transform:
    hflip: int = 0
    vflip: int = 0


class _Picamera2:
    world: ClassVar[World]

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        return cls.world.cameras

    def __init__(self, camera_num: int = 0) -> None:
        if self.world.open_error is not None:
            raise RuntimeError("Camera __init__ sequence did not complete.") from self.world.open_error
        assert camera_num < len(self.world.cameras)
        self.world.opened += 1
        self.sequence = 100
        self.jobs: list[Job] = []
        self.configuration: dict[str, Any] = {}

    @property
    def camera_controls(self) -> dict[str, Any]:
        return self.world.controls

    @property
    def camera_properties(self) -> dict[str, Any]:
        return self.world.properties

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        return self.world.sensor_modes

    def create_video_configuration(
        self,
        *,
        main: dict[str, Any],
        raw: None,
        transform: Transform,
        colour_space: str,
        buffer_count: int,
        queue: bool,
        controls: dict[str, Any],
        sensor: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        width, height = main["size"]
        main = {**main, "size": (width - width % 2, height - height % 2)}
        return {k: v for k, v in locals().items() if k not in ("self", "width", "height")}

    def configure(self, configuration: dict[str, Any]) -> None:
        self.world.configured = configuration
        for name in configuration["controls"]:
            if name not in self.world.controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        self.configuration = {
            **configuration,
            **self.world.adjust_all,
            "main": {**configuration["main"], **self.world.adjust},
        }

    def camera_configuration(self) -> dict[str, Any]:
        return self.configuration

    def start(self) -> None:
        if self.world.start_error is not None:
            raise self.world.start_error
        self.world.running += 1

    def capture_request(self, *, wait: bool) -> Job:
        assert wait is False
        job = Job()
        if self.world.hang or self.world.held >= BUFFERS:
            self.jobs.append(job)
        else:
            job.future.set_result(Request(self))
        return job

    def wait(self, job: Job, timeout: float) -> Request:
        return job.future.result(timeout=timeout)

    def cancel_all_and_flush(self) -> None:
        on_cancel, self.world.on_cancel = self.world.on_cancel, None
        if on_cancel is not None:
            on_cancel()
        for job in self.jobs:
            if self.world.finish_when_cancelled:
                job.future.set_result(Request(self))
            else:
                job.future.set_exception(CancelledError())
        self.jobs.clear()

    def close(self) -> None:
        self.world.running = 0
        self.world.opened -= 1


ENUMS = types.SimpleNamespace(
    AfModeEnum=types.SimpleNamespace(Manual="manual", Continuous="continuous"),
    AwbModeEnum=types.SimpleNamespace(
        **{
            name: name.lower()
            for name in ("Auto", "Incandescent", "Tungsten", "Fluorescent", "Indoor", "Daylight", "Cloudy")
        }
    ),
)


def install(monkeypatch: pytest.MonkeyPatch) -> World:
    """Put the double where `import picamera2` and `import libcamera` find it."""
    world = World()
    picamera2 = types.ModuleType("picamera2")
    picamera2.__dict__["Picamera2"] = type("Picamera2", (_Picamera2,), {"world": world})
    libcamera = types.ModuleType("libcamera")
    libcamera.__dict__.update(
        Transform=Transform,
        ColorSpace=types.SimpleNamespace(Smpte170m=lambda: "SMPTE170M"),
        controls=ENUMS,
    )
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return world

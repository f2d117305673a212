"""A picamera2 for the camera's process: at every frame it does what the file $CAMERA_DOUBLE says.

The file holds one object of JSON, and may change at any time:
    do: "run"; "hang" (for ever, whatever time-out is given), "raise" (an error of libcamera), "frozen" (requests
        complete with the counter and the stamp of the last one), "frozen counter" (with its counter, but new stamps);
    absent, busy: what opening finds; open_s: how long it takes;
    fps: how fast frames come, whatever was asked;
    show: "moving" (a picture that shifts with every frame), "still", "black", "white", "grey", "covered" (black with a
        sensor's noise), "turned" (another scene), "count" (every byte is the frame's number modulo 256), "red" and
        "calm" (which raises the alarm of the model of means, and which ends it);
    clock_s: how far the wall clock jumped;
    world: attributes of tests.doubles.picamera2_double.World.
Every look for cameras, opening and closing is written to $CAMERA_DOUBLE.log.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tests.doubles import picamera2_double
from tests.doubles.picamera2_double import Array, Job, Request, World

FILE = Path(os.environ["CAMERA_DOUBLE"])
FIRST_SEQUENCE = 100


def command() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(FILE.read_text())
    return answer


def set_clock(seconds: float) -> None:
    """The machine's wall clock, as everybody in this process sees it."""
    time.time_ns = lambda: _TIME_NS() + round(seconds * 1e9)


_TIME_NS = time.time_ns


def log(what: str) -> None:
    with FILE.with_suffix(".log").open("a") as file:
        file.write(f"{time.monotonic():.3f} {os.getpid()} {what}\n")


def scene(size: tuple[int, int], seed: int) -> Array:
    """(H, W, 3) uint8: sixty rectangles, other ones for another seed."""
    random = np.random.default_rng(seed)
    width, height = size
    pixels = np.full((height, width, 3), 120, np.uint8)
    for _ in range(60):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(width // 16, width // 4), random.integers(height // 16, height // 4)
        pixels[y : y + h, x : x + w] = random.integers(0, 256, 3)
    return pixels


class _Request(Request):
    def __init__(self, camera: Picamera2, instruction: dict[str, Any]) -> None:
        do = instruction.get("do", "run")
        camera.sequence -= 3 if do.startswith("frozen") else 2  # the base class adds three
        if do != "frozen":
            camera.stamp = time.monotonic_ns()
        super().__init__(camera)
        self._instruction = instruction
        self._owner = camera

    def get_metadata(self) -> dict[str, Any]:
        return {"SensorTimestamp": self._owner.stamp}

    def make_array(self, name: str) -> Array:
        show = self._instruction.get("show", "moving")
        main = self._owner.configuration["main"]
        width, height = main["size"]
        count = self._owner.sequence
        if self._world.array is not None:
            return np.zeros(self._world.array, np.uint8)
        if show == "picture":
            return super().make_array(name)
        levels = {"black": 0, "white": 255, "grey": 97, "count": count % 256}
        if show in levels:
            rgb = np.full((height, width, 3), levels[show], np.uint8)
        elif show == "covered":
            noise = np.random.default_rng(count).normal(6, 5, (height, width, 3))
            rgb = np.clip(noise, 0, 255).astype(np.uint8)
        elif show in ("red", "calm"):
            rgb = self._owner.scene(main["size"], 1) // 5 ^ np.uint8(count % 2)
            rgb[..., 0] += 200 if show == "red" else 0
        else:
            rgb = self._owner.scene(main["size"], 2 if show == "turned" else 1)
            if show != "still":
                rgb = rgb ^ np.uint8(count % 2)  # the least bit, as noise does
        return picamera2_double.array_of(rgb, main["format"], self._world.padding)


class Picamera2(picamera2_double._Picamera2):
    world: ClassVar[World] = World()

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        log("look")
        instruction = command()
        for name, value in instruction.get("world", {}).items():
            assert hasattr(cls.world, name)
            setattr(cls.world, name, tuple(value) if name == "array" else value)
        if "size" in cls.world.adjust:
            cls.world.adjust["size"] = tuple(cls.world.adjust["size"])
        cls.world.open_error = RuntimeError("Device or resource busy") if instruction.get("busy") else None
        if instruction.get("open") == "hang":
            time.sleep(3600)
        time.sleep(instruction.get("open_s", 0))
        return [] if instruction.get("absent") else cls.world.cameras

    def __init__(self, camera_num: int = 0) -> None:
        super().__init__(camera_num)
        log("open")
        self.sequence = FIRST_SEQUENCE
        self.stamp = time.monotonic_ns()
        self._due = time.monotonic()
        self._scenes: dict[int, Array] = {}

    def scene(self, size: tuple[int, int], seed: int) -> Array:
        if seed not in self._scenes:
            self._scenes[seed] = scene(size, seed)
        return self._scenes[seed]

    def capture_request(self, *, wait: bool) -> Job:
        assert wait is False
        return Job()

    def wait(self, job: Job, timeout: float) -> Request:
        deadline = time.monotonic() + timeout
        while True:
            instruction = command()
            do = instruction.get("do", "run")
            if do == "hang":
                time.sleep(3600)
            if do == "raise":
                raise RuntimeError("the camera came loose")
            now = time.monotonic()
            set_clock(instruction.get("clock_s", 0))
            if now >= self._due:
                break
            if now >= deadline:
                raise TimeoutError
            time.sleep(min(self._due - now, 0.01))
        self._due = max(self._due + 1 / instruction.get("fps", 30), now - 1)
        return _Request(self, instruction)

    def cancel_all_and_flush(self) -> None:
        pass

    def close(self) -> None:
        super().close()
        log("close")

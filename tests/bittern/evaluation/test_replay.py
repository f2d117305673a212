"""Golden vectors are replayed when a model is opened: altered, missing or hostile ones are refused."""

from __future__ import annotations

import io
import platform
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.doubles.model_files import altered, refused

from bittern import Classifier
from bittern.errors import ModelRefused
from bittern.model.runtime import ExecutionPath


@pytest.fixture
def model_copy(model_copy: Path) -> Path:
    """Without hashes in its manifest, so that what the golden vectors say counts."""
    return altered(model_copy, lambda fields: fields.pop("files"))


def regolden(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    file = folder / "golden.npz"
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    np.savez_compressed(file, **arrays)
    return folder


def test_the_golden_vectors_are_whole(model_folder: Path) -> None:
    with np.load(model_folder / "golden.npz") as archive:
        names = set(archive.files)
    frames = {name for name in names if name.startswith("frame_")}
    assert len(frames) >= 3
    for i in range(len(frames)):
        assert {f"tensor_{i}", f"xnnpack_{i}_0", f"builtin_{i}_0"} <= names


@pytest.mark.parametrize("path", ["xnnpack", "builtin"])
@pytest.mark.parametrize("allowed", [0, 3])
def test_an_output_is_refused_from_one_step_too_many(model_copy: Path, path: ExecutionPath, allowed: int) -> None:
    running = Classifier(model_copy, path=path)

    def record_here(arrays: dict[str, Any]) -> None:
        frames = sum(name.startswith("frame_") for name in arrays)
        for i in range(frames):
            arrays[f"{path}_{i}_0"] = running.invoke(arrays[f"tensor_{i}"])[0]

    def shift(steps: int) -> Callable[[dict[str, Any]], None]:
        def change(arrays: dict[str, Any]) -> None:
            record_here(arrays)
            arrays[f"{path}_0_0"][0] += steps if arrays[f"{path}_0_0"][0] < 128 else -steps

        return change

    def exact_here(manifest: dict[str, Any]) -> None:
        manifest["golden"][path] |= {"machine": platform.machine(), "same_machine_steps": allowed}

    altered(model_copy, exact_here)
    Classifier(regolden(model_copy, shift(allowed)), path=path)
    says = f"golden frame 0 is {allowed + 1} output steps off on {path}, {allowed} allowed"
    refused(regolden(model_copy, shift(allowed + 1)), says, path=path)


def test_another_machine_may_be_a_few_steps_off(model_copy: Path) -> None:
    def shift(steps: int) -> Callable[[dict[str, Any]], None]:
        def change(arrays: dict[str, Any]) -> None:
            raw = arrays["xnnpack_0_0"].astype(int)
            raw[0] += steps if raw[0] < 128 else -steps
            arrays["xnnpack_0_0"] = raw.astype(np.uint8)

        return change

    def elsewhere(manifest: dict[str, Any]) -> None:
        manifest["golden"]["xnnpack"] |= {"machine": "riscv64", "other_machine_steps": 5}

    altered(model_copy, elsewhere)
    refused(regolden(model_copy, shift(20)), "output steps off on xnnpack, 5 allowed", "on riscv64")


def flip_tensor(arrays: dict[str, Any]) -> None:
    arrays["tensor_1"][0, 100, 100, 1] ^= 1


def flip_frame(arrays: dict[str, Any]) -> None:
    arrays["frame_1"][...] = 255 - arrays["frame_1"]


def grey_frame(arrays: dict[str, Any]) -> None:
    arrays["frame_0"] = arrays["frame_0"][:, :, 0]


def wide_frame(arrays: dict[str, Any]) -> None:
    arrays["frame_0"] = arrays["frame_0"].astype(np.uint16)


def no_tensor(arrays: dict[str, Any]) -> None:
    del arrays["tensor_0"]


def no_frames(arrays: dict[str, Any]) -> None:
    for name in [n for n in arrays if n.startswith("frame_")]:
        del arrays[name]


def no_outputs(arrays: dict[str, Any]) -> None:
    for name in [n for n in arrays if n.startswith("xnnpack_")]:
        del arrays[name]


def longer_output(arrays: dict[str, Any]) -> None:
    arrays["xnnpack_0_0"] = np.zeros(3, np.uint8)


def second_output(arrays: dict[str, Any]) -> None:
    arrays["xnnpack_0_1"] = arrays["xnnpack_0_0"]


def badly_named(arrays: dict[str, Any]) -> None:
    arrays["xnnpack_0_x"] = arrays["xnnpack_0_0"]


def text_output(arrays: dict[str, Any]) -> None:
    arrays["xnnpack_0_0"] = np.array(["a", "b"])


def text_frame(arrays: dict[str, Any]) -> None:
    arrays["frame_0"] = np.array(["a"])


def not_a_number(arrays: dict[str, Any]) -> None:
    arrays["xnnpack_0_0"] = np.array([np.nan, 0.0])


def no_output_values(arrays: dict[str, Any]) -> None:
    arrays["xnnpack_0_0"] = np.zeros(0, np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        flip_tensor,
        flip_frame,
        grey_frame,
        wide_frame,
        no_tensor,
        no_frames,
        no_outputs,
        longer_output,
        second_output,
        badly_named,
        text_output,
        text_frame,
        not_a_number,
        no_output_values,
    ],
)
def test_altered_golden_vectors_are_refused(model_copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    assert "golden" in refused(regolden(model_copy, change), "golden")


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zip at all",
        b"PK\x03\x04" + bytes(200),
        b"PK\x05\x06" + bytes(18),
        npy(np.zeros(3)),
        npy([{"pickled": 1}]),
        zipped(frame_0=b"no array"),
        zipped(**{"frame_0.npy": b"no array"}),
        zipped(**{"frame_0.npy": npy([{"pickled": 1}]), "tensor_0.npy": npy(0)}),
        zipped(**{"frame_0.npy": b"\x93NUMPY\x01\0\x76\0" + b"{'descr': '|u1', 'fortran_order': False, 'sh"}),
        zipped(
            **{
                "frame_0.npy": npy(np.zeros((3, 3, 3), np.uint8)).replace(b"(3, 3, 3), }  ", b"(1<<62, 3, 3)}"),
                "tensor_0.npy": npy(0),
            }
        ),
        zipped(
            **{
                "frame_0.npy": npy(np.zeros((1000, 1000, 3), np.uint8)).replace(
                    b"(1000, 1000, 3)", b"(9999999,99999,3)"
                ),
                "tensor_0.npy": npy(0),
            }
        ),
    ],
    ids=lambda d: f"{len(d)} bytes",  # a zip begins with the time
)
def test_golden_files_that_are_none_are_refused(model_copy: Path, data: bytes) -> None:
    (model_copy / "golden.npz").write_bytes(data)
    refused(model_copy, "golden.npz")


def test_missing_or_damaged_golden_vectors_are_refused(model_copy: Path) -> None:
    file = model_copy / "golden.npz"
    whole = file.read_bytes()
    for part in (1, 5, 9):
        file.write_bytes(whole[: len(whole) * part // 10])
        refused(model_copy, "golden.npz")
    rng, messages = random.Random(9), []
    for _ in range(25):
        offset = rng.randrange(len(whole) - 40)
        file.write_bytes(whole[:offset] + rng.randbytes(30) + whole[offset + 30 :])
        try:
            Classifier(model_copy)
        except ModelRefused as error:
            messages.append(str(error))
    assert messages
    assert all("golden" in line for line in messages)
    file.unlink()
    refused(model_copy, "golden.npz", "No such file")

"""Golden vectors come back as they were saved, or are refused."""

from __future__ import annotations

import io
import os
import random
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.errors import ModelRefused
from bittern.frames import Pixels
from bittern.model import golden
from bittern.model.preprocess import preprocess


def some(seed: int, frames: int, heads: int) -> tuple[list[Pixels], list[Pixels], dict[str, list[list[Pixels]]]]:
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (*rng.integers(5, 40, 2), 3), np.uint8) for _ in range(frames)]
    tensors = [preprocess(picture, size=16) for picture in pictures]
    outputs = {
        path: [[rng.integers(0, 256, 2 + head, np.uint8) for head in range(heads)] for _ in range(frames)]
        for path in ("xnnpack", "builtin")
    }
    return pictures, tensors, outputs


@settings(max_examples=examples(25))
@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 12))
def test_what_is_saved_is_loaded_in_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, frames: int, heads: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "golden.npz"
    pictures, tensors, outputs = some(seed, frames, heads)
    golden.save(file, pictures, tensors, outputs)
    for path in ("xnnpack", "builtin"):
        loaded = golden.load(file, path)
        assert len(loaded) == frames
        for i, vector in enumerate(loaded):
            assert np.array_equal(vector.frame, pictures[i])
            assert np.array_equal(vector.tensor, tensors[i])
            assert len(vector.outputs) == heads
            assert all(np.array_equal(a, b) for a, b in zip(vector.outputs, outputs[path][i], strict=True))


def test_a_path_that_was_not_recorded(tmp_path: Path) -> None:
    pictures, tensors, outputs = some(1, 2, 1)
    golden.save(tmp_path / "g.npz", pictures, tensors, {"xnnpack": outputs["xnnpack"]})
    with pytest.raises(ModelRefused, match="has no golden vectors for the execution path builtin"):
        golden.load(tmp_path / "g.npz", "builtin")


def test_uneven_lists_are_not_saved(tmp_path: Path) -> None:
    pictures, tensors, outputs = some(1, 2, 1)
    with pytest.raises(ValueError):
        golden.save(tmp_path / "g.npz", pictures, tensors[:1], outputs)
    assert list(tmp_path.iterdir()) == []


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="No such file"):
        golden.load(tmp_path / "g.npz", "xnnpack")


def test_a_small_file_that_becomes_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    file = tmp_path / "g.npz"
    zeros = io.BytesIO()
    np.lib.format.write_array_header_1_0(zeros, {"descr": "|u1", "fortran_order": False, "shape": (3 * 10**9,)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("frame_0.npy", "w") as member:
        member.write(zeros.getvalue())
        for _ in range(100):
            member.write(bytes(1_000_000))
    with pytest.raises(ModelRefused, match="larger than the limit of 64 MiB together"):
        golden.load(file, "xnnpack")
    with zipfile.ZipFile(file, "w") as archive:  # one that only says so
        archive.writestr("frame_0.npy", zeros.getvalue())
    with pytest.raises(ModelRefused, match="shorter than its header says"):
        golden.load(file, "xnnpack")
    os.truncate(file, 3 * 2**30)
    with pytest.raises(ModelRefused, match="larger than the limit of 16 MiB"):
        golden.load(file, "xnnpack")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.fuzz
def test_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    pictures, tensors, outputs = some(1, 1, 1)
    file = tmp_path / "g.npz"
    golden.save(file, pictures, tensors, outputs)
    whole = file.read_bytes()
    rng = random.Random(2)
    messages = []
    n = examples(10_000)
    for _ in range(n):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(data))
            data[start : start + rng.choice((1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 4)))
        file.write_bytes(data)
        try:
            vectors = golden.load(file, "xnnpack")
        except ModelRefused as error:
            messages.append(str(error))
        else:
            assert all(array.dtype == np.uint8 for v in vectors for array in (v.frame, v.tensor, *v.outputs))
    assert len(messages) > n // 10
    assert not any("\n" in line for line in messages)

"""Models of unknown origin are tried in a child process: what they do to the runtime, they do there."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from tests.doubles.model_files import bare, flat, refused
from tests.doubles.tflite_files import COLOURS, channel_means, crashing, endless, model_folder_of_means, with_files

from bittern import Classifier


def children_started() -> int:
    """Grows with every child process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def packed(model: bytes) -> bytes:
    return with_files(model, labels_txt="\n".join(COLOURS).encode())


def test_a_model_that_crashes_the_runtime_is_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, packed(crashing())), "crashes the runtime (SIGSEGV)")


@pytest.mark.slow  # it computes for 3.5 s
def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, packed(endless())), "hangs the runtime: no answer after 3.5 s of computing")


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_model_that_needs_too_much_memory_is_refused(tmp_path: Path, side: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refused(bare(tmp_path, packed(channel_means((1, side, side, 3)))))
    assert "needs more than 450 MiB" in message or "cannot load" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "in kB: of this process"


def test_a_model_that_passed_is_not_tried_again(tmp_path: Path) -> None:
    file = bare(tmp_path, packed(channel_means((1, 9, 9, 3))))
    before = children_started()
    Classifier(file)
    tried = children_started()
    assert tried > before
    assert Classifier(file).classify(flat((0, 0, 255)))[0].label == "red"
    assert children_started() == tried


def test_the_shipped_models_are_not_tried(model_folder: Path, tmp_path: Path) -> None:
    before = children_started()
    Classifier(model_folder)
    copied = bare(tmp_path, (model_folder / "model.tflite").read_bytes())
    Classifier(copied, labels=model_folder / "labels.txt")
    assert children_started() == before


def test_a_manifest_that_anybody_can_write_vouches_for_nothing(tmp_path: Path) -> None:
    before = children_started()
    Classifier(model_folder_of_means(tmp_path / "means", size=10))
    assert children_started() > before

"""A model that does not keep the contract is refused in one line; one that does answers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.doubles.model_files import altered, flat, refused
from tests.doubles.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.errors import BitternError, ConfigurationError, ModelRefused
from bittern.model.preprocess import Region
from bittern.scene import street

# --- a whole model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(model_folder: Path) -> Classifier:
    return Classifier(model_folder)


def test_the_shipped_model_is_verified(shipped: Classifier, model_folder: Path) -> None:
    assert shipped.manifest is not None
    assert shipped.path == "xnnpack"
    assert shipped.size == 224
    assert shipped.heads == shipped.manifest.heads
    assert (shipped.name, shipped.version) == (shipped.manifest.name, shipped.manifest.version)
    assert Classifier(model_folder, path="builtin").path == "builtin"
    assert (model_folder / shipped.manifest.file).stat().st_size <= 3.0e6, "DESIGN: at most 3.0 MB"
    assert (model_folder / "labels.txt").read_text().split() == list(shipped.heads[0].labels)


def test_an_answer_says_everything(shipped: Classifier) -> None:
    frame = street.random_picture(np.random.default_rng(1), stop=True, size=(320, 240))
    (result,) = shipped.classify(frame, "RGB")
    head = shipped.heads[0]
    assert result.task == head.task
    assert tuple(result.scores) == head.labels
    assert result.score == result.scores[result.label] == max(result.scores.values())
    assert all(0 <= score <= 1 for score in result.scores.values())
    assert sum(result.scores.values()) == pytest.approx(1, abs=0.01)
    raised = any(result.scores[label] >= head.thresholds["default"].on for label in head.alarm)
    assert result.alarm == raised


def test_the_answer_does_not_depend_on_the_channel_order_of_the_frame(shipped: Classifier) -> None:
    frame = street.random_picture(np.random.default_rng(2), stop=True, size=(320, 240))
    assert shipped.classify(frame, "RGB") == shipped.classify(np.ascontiguousarray(frame[:, :, ::-1]), "BGR")


def test_classify_is_preprocess_invoke_answer(shipped: Classifier) -> None:
    frame = street.random_picture(np.random.default_rng(3), stop=False, size=(640, 480))
    region = Region(100, 50, 300, 260)
    for where in (None, region):
        outputs = shipped.invoke(shipped.preprocess(frame, "RGB", where))
        assert [o.dtype for o in outputs] == [np.uint8]
        assert shipped.answer(outputs) == shipped.classify(frame, "RGB", where)
    assert shipped.classify(frame, "RGB", region) == shipped.classify(frame[50:310, 100:400], "RGB")


def test_a_frame_that_is_the_tensor_is_not_copied(shipped: Classifier) -> None:
    wide = street.random_picture(np.random.default_rng(5), stop=True, size=(448, 336))
    for frame in (
        wide[60:284, 90:314],
        wide[60:284, 90:314].copy(),
        wide[::-1, ::2][50:274],
        wide[50:274, :224][:, ::-1],
    ):
        before = frame.copy()
        tensor = shipped.preprocess(frame, "RGB")
        assert np.shares_memory(tensor, frame)
        assert tensor.shape == (1, 224, 224, 3)
        assert shipped.answer(shipped.invoke(tensor)) == shipped.classify(before[:, :, ::-1].copy(), "BGR")
        assert np.array_equal(frame, before)
    whole = Region(0, 0, 224, 224)
    for other in (
        shipped.preprocess(before),
        shipped.preprocess(before, "RGB", whole),
        shipped.preprocess(wide, "RGB"),
    ):
        assert not np.shares_memory(other, before)
        assert not np.shares_memory(other, wide)


def test_several_threads_give_the_same_bytes(shipped: Classifier, model_folder: Path) -> None:
    frame = street.random_picture(np.random.default_rng(4), stop=True, size=(320, 240))
    assert Classifier(model_folder, threads=2).classify(frame) == shipped.classify(frame)


def test_a_wrong_frame_is_refused_in_one_line(shipped: Classifier) -> None:
    for frame in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)):
        with pytest.raises(ConfigurationError, match=r"\(H, W, 3\) uint8"):
            shipped.classify(frame)


def test_the_file_may_change_while_the_model_runs(model_copy: Path) -> None:
    classifier = Classifier(model_copy)
    frame = street.random_picture(np.random.default_rng(5), stop=True, size=(320, 240))
    before = classifier.classify(frame)
    with (model_copy / "model.tflite").open("r+b") as file:
        file.seek(100)
        file.write(bytes(2**20))
        file.truncate(1000)
    assert classifier.classify(frame) == before
    refused(model_copy, "has 1000 bytes")


# --- a folder that was altered ---------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_refused(model_copy: Path) -> None:
    file = model_copy / "model.tflite"
    whole = file.read_bytes()
    rng = random.Random(1)
    for position in (8, len(whole) // 2, len(whole) - 1, *(rng.randrange(8, len(whole)) for _ in range(5))):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        refused(model_copy, "sha256 is ", "the manifest says ", "copy it again")


@pytest.mark.parametrize("name", ["golden.npz", "labels.txt", "MODEL_CARD.md"])
def test_a_file_that_is_not_the_one_of_the_manifest_is_refused(model_copy: Path, name: str) -> None:
    file = model_copy / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refused(model_copy, f"{name}: sha256 is ", "the manifest says", "copy the folder again")
    file.unlink()
    refused(model_copy, f"{name}: No such file or directory, but the manifest names it")
    os.mkfifo(file)
    refused(model_copy, f"{name}: expected a regular file, got a pipe")


def test_a_manifest_of_an_earlier_version_has_no_hashes_of_files(model_copy: Path) -> None:
    altered(model_copy, lambda fields: fields.pop("files"))
    (model_copy / "MODEL_CARD.md").unlink()
    assert Classifier(model_copy).manifest is not None


@pytest.mark.parametrize("name", ["../labels.txt", "a/b", ".hidden", ""])
def test_a_manifest_names_no_files_elsewhere(model_copy: Path, name: str) -> None:
    altered(model_copy, lambda fields: fields["files"].update({name: "0" * 64}))
    refused(model_copy, "manifest.json: ")


def test_a_truncated_longer_empty_or_missing_file_is_refused(model_copy: Path) -> None:
    file = model_copy / "model.tflite"
    whole = file.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:8], whole + b"\0"):
        file.write_bytes(data)
        refused(model_copy, f"has {len(data)} bytes", f"the manifest says {len(whole)}")
    file.write_bytes(b"")
    refused(model_copy, "TFLite")
    file.unlink()
    refused(model_copy, "No such file")
    file.mkdir()
    refused(model_copy, "Is a directory")


def test_a_text_in_place_of_the_model_is_refused(model_copy: Path) -> None:
    (model_copy / "model.tflite").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(model_copy, "TFLite", "b'ion '")


def test_a_model_over_the_limit_is_refused(model_copy: Path) -> None:
    with (model_copy / "model.tflite").open("r+b") as file:
        file.truncate(10 * 2**30)
    refused(model_copy, "64 MiB")


def test_a_folder_without_a_manifest_is_refused(model_copy: Path) -> None:
    (model_copy / "manifest.json").unlink()
    refused(model_copy, "manifest")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"schema": ' + b"[" * 100_000, b'{"schema": "1"}'],
    ids=lambda d: repr(d[:12]),
)
def test_a_broken_manifest_is_refused(model_copy: Path, data: bytes) -> None:
    (model_copy / "manifest.json").write_bytes(data)
    refused(model_copy, "manifest.json: ")


def test_a_deeply_nested_manifest_is_refused(model_copy: Path) -> None:
    file = model_copy / "manifest.json"
    text = file.read_bytes()
    position = text.index(b"{", text.index(b'"provenance"')) + 1
    file.write_bytes(text[:position] + b'"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"," + text[position:])
    refused(model_copy, "manifest.json: ")


def set_in(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        node: Any = fields
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_in("schema", value=2), ("schema 2", "reads schema 1")),
        (set_in("sha256", value="0" * 64), ("sha256", "000000000000")),
        (set_in("size", value=17), ("the manifest says 17",)),
        (set_in("file", value="other.tflite"), ("other.tflite", "No such file")),
        (set_in("file", value=".."), ("..",)),
        (set_in("file", value="../model.tflite"), ("$.file",)),
        (set_in("input", "name", value="pixels"), ("input pixels", "the model has image (1, 224, 224, 3) uint8")),
        (set_in("input", "shape", value=[1, 192, 192, 3]), ("(1, 192, 192, 3)", "the model has image")),
        (set_in("input", "shape", value=[1, 224, 224, 1]), ("$.input",)),
        (set_in("input", "scale", value=1 / 255), ("quantization of input image", "0.00784", "0.00392")),
        (set_in("input", "scale", value=0.0), ("quantization of input image",)),
        (set_in("input", "scale", value=-0.0078), ("quantization of input image",)),
        (set_in("input", "zero_point", value=128), ("quantization of input image", "128")),
        (set_in("input", "colour", value="BGR"), ("output steps off",)),
        (set_in("heads", 0, "scale", value=1 / 255), ("quantization of output",)),
        (set_in("heads", 0, "zero_point", value=1), ("quantization of output",)),
        (set_in("heads", 0, "output", value="logits"), ("names output 'logits'", "the model has ")),
        (set_in("heads", 0, "labels", value=["not_stop"]), ("$.heads[0].labels",)),
        (set_in("heads", 0, "labels", value=["not_stop", "stop", "yield"]), ("has 3 labels", "has 2 values")),
        (set_in("heads", 0, "labels", value=["stop", "stop"]), ("not distinct", "$.heads[0]")),
        (set_in("heads", 0, "alarm", value=["halt"]), ("alarm label 'halt'", "$.heads[0]")),
        (set_in("heads", value=[]), ("$.heads",)),
        (set_in("golden", value={}), ("has golden vectors for no execution path", "runs on xnnpack")),
        (set_in("golden", "cuda", value={}), ("cuda", "$.golden")),
        (set_in("extra", value=1), ("unknown field `extra`",)),
    ],
    ids=lambda v: str(v) if isinstance(v, tuple) else None,
)
def test_a_manifest_that_disagrees_is_refused(
    model_copy: Path, change: Callable[[dict[str, Any]], None], says: tuple[str, ...]
) -> None:
    refused(altered(model_copy, change), *says)


def test_an_extra_head_is_refused(model_copy: Path) -> None:
    def add(fields: dict[str, Any]) -> None:
        fields["heads"].append(fields["heads"][0] | {"task": "another"})

    refused(altered(model_copy, add), "the manifest has 2 heads, the model gives ")


def test_labels_beside_a_manifest_are_refused(model_folder: Path) -> None:
    refused(model_folder, "labels and all else are in its manifest", labels=model_folder / "labels.txt")


# --- several heads ---------------------------------------------------------------------------------------------------


def test_two_heads_answer_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    for swap in (False, True):
        classifier = Classifier(model_folder_of_means(tmp_path / str(swap), swap=swap))
        results = classifier.classify(flat((10, 200, 20)))
        by_task = {result.task: result for result in results}
        assert [result.task for result in results] == [head.task for head in classifier.heads]
        assert by_task["colour_0"].label == "green"
        assert by_task["colour_1"].label == "grass"
        assert not by_task["colour_0"].alarm
        assert all(result.alarm for result in classifier.classify(flat((10, 20, 200))))


def test_the_alarm_starts_at_the_threshold(tmp_path: Path) -> None:
    classifier = Classifier(model_folder_of_means(tmp_path / "m"))
    assert not classifier.classify(flat((0, 0, 127)))[0].alarm
    assert classifier.classify(flat((0, 0, 128)))[0].alarm
    assert classifier.classify(flat((255, 255, 128)))[0].alarm, "an alarm label need not be the highest"


def test_bittern_errors_are_what_users_see() -> None:
    assert issubclass(ModelRefused, ConfigurationError)
    assert issubclass(ConfigurationError, BitternError)
    assert ModelRefused("x").exit_code == 2

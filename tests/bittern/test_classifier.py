"""A model that does not keep the contract is refused in one line; one that does answers."""

from __future__ import annotations

import io
import json
import platform
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern import Classifier, scene
from bittern.contract import Pixels, Region
from bittern.errors import BitternError, ConfigurationError, ModelRefused


def refused(model: Path, *says: str, **options: Any) -> str:
    """Open a model that must be refused in one line, which has all of these words in it."""
    with pytest.raises(ModelRefused) as caught:
        Classifier(model, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(model) in message
    for words in says:
        assert words in message
    return message


def altered(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The model folder with a changed manifest."""
    file = folder / "manifest.json"
    said = json.loads(file.read_bytes())
    change(said)
    file.write_text(json.dumps(said))
    return folder


def bare(folder: Path, data: bytes, name: str = "means.tflite") -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


PACKED = with_files(channel_means(), labels_txt="\n".join(COLOURS).encode())


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
    frame = scene.random_view(np.random.default_rng(1), stop=True, size=(320, 240))
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
    frame = scene.random_view(np.random.default_rng(2), stop=True, size=(320, 240))
    assert shipped.classify(frame, "RGB") == shipped.classify(np.ascontiguousarray(frame[:, :, ::-1]), "BGR")


def test_classify_is_preprocess_invoke_answer(shipped: Classifier) -> None:
    frame = scene.random_view(np.random.default_rng(3), stop=False, size=(640, 480))
    region = Region(100, 50, 300, 260)
    for where in (None, region):
        outputs = shipped.invoke(shipped.preprocess(frame, "RGB", where))
        assert [o.dtype for o in outputs] == [np.uint8]
        assert shipped.answer(outputs) == shipped.classify(frame, "RGB", where)
    assert shipped.classify(frame, "RGB", region) == shipped.classify(frame[50:310, 100:400], "RGB")


def test_several_threads_give_the_same_bytes(shipped: Classifier, model_folder: Path) -> None:
    frame = scene.random_view(np.random.default_rng(4), stop=True, size=(320, 240))
    assert Classifier(model_folder, threads=2).classify(frame) == shipped.classify(frame)


def test_a_wrong_frame_is_refused_in_one_line(shipped: Classifier) -> None:
    for frame in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)):
        with pytest.raises(ConfigurationError, match=r"expected a frame of shape \(H, W, 3\) uint8, got"):
            shipped.classify(frame)  # type: ignore[arg-type]


def test_the_file_may_change_while_the_model_runs(model_copy: Path) -> None:
    classifier = Classifier(model_copy)
    frame = scene.random_view(np.random.default_rng(5), stop=True, size=(320, 240))
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
    for at in (8, len(whole) // 2, len(whole) - 1, *(rng.randrange(8, len(whole)) for _ in range(5))):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(model_copy, "sha256 is ", "the manifest says ", "copy it again")


def test_a_truncated_longer_empty_or_missing_file_is_refused(model_copy: Path) -> None:
    file = model_copy / "model.tflite"
    whole = file.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:8], whole + b"\0"):
        file.write_bytes(data)
        refused(model_copy, f"has {len(data)} bytes", f"the manifest says {len(whole)}")
    file.write_bytes(b"")
    refused(model_copy, "not a TFLite model")
    file.unlink()
    refused(model_copy, "No such file")
    file.mkdir()
    refused(model_copy, "Is a directory")


def test_a_text_in_place_of_the_model_is_refused(model_copy: Path) -> None:
    (model_copy / "model.tflite").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(model_copy, "not a TFLite model", "expected the identifier TFL3, found b'ion '")


def test_a_model_over_the_limit_is_refused(model_copy: Path) -> None:
    with (model_copy / "model.tflite").open("r+b") as file:
        file.truncate(10 * 2**30)
    refused(model_copy, "larger than the limit of 64 MiB")


def test_a_folder_without_a_manifest_is_refused(model_copy: Path) -> None:
    (model_copy / "manifest.json").unlink()
    refused(model_copy, "expected a model folder with a manifest")


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
    at = text.index(b"{", text.index(b'"provenance"')) + 1
    file.write_bytes(text[:at] + b'"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"," + text[at:])
    refused(model_copy, "manifest.json: ")


def set_in(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(said: dict[str, Any]) -> None:
        node: Any = said
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
        (set_in("input", "shape", value=[1, 224, 224, 1]), ("$.input.shape[3]",)),
        (set_in("input", "scale", value=1 / 255), ("quantization of input image", "0.00784", "0.00392")),
        (set_in("input", "scale", value=0.0), ("quantization of input image",)),
        (set_in("input", "scale", value=-0.0078), ("quantization of input image",)),
        (set_in("input", "zero_point", value=128), ("quantization of input image", "128")),
        (set_in("input", "colour", value="BGR"), ("$.input.colour",)),
        (set_in("heads", 0, "scale", value=1 / 255), ("quantization of output",)),
        (set_in("heads", 0, "zero_point", value=1), ("quantization of output",)),
        (set_in("heads", 0, "output", value="logits"), ("names output 'logits'", "there is ")),
        (set_in("heads", 0, "labels", value=["not_stop"]), ("$.heads[0].labels",)),
        (set_in("heads", 0, "labels", value=["not_stop", "stop", "yield"]), ("has 3 labels", "has 2 values")),
        (set_in("heads", 0, "labels", value=["stop", "stop"]), ("not distinct", "$.heads[0]")),
        (set_in("heads", 0, "alarm", value=["halt"]), ("alarm label 'halt'", "$.heads[0]")),
        (set_in("heads", value=[]), ("$.heads",)),
        (set_in("golden", value={}), ("has golden vectors for no path", "runs on xnnpack")),
        (set_in("golden", "cuda", value={}), ("cuda", "$.golden")),
        (set_in("extra", value=1), ("unknown field `extra`",)),
    ],
    ids=str,
)
def test_a_manifest_that_disagrees_is_refused(
    model_copy: Path, change: Callable[[dict[str, Any]], None], says: tuple[str, ...]
) -> None:
    refused(altered(model_copy, change), *says)


def test_an_extra_head_is_refused(model_copy: Path) -> None:
    def add(said: dict[str, Any]) -> None:
        said["heads"].append(said["heads"][0] | {"task": "another"})

    refused(altered(model_copy, add), "the manifest has 2 heads, the model gives ")


def test_labels_beside_a_manifest_are_refused(model_folder: Path) -> None:
    refused(model_folder, "has its labels in its manifest", labels=model_folder / "labels.txt")


# --- golden vectors --------------------------------------------------------------------------------------------------


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
def test_an_output_one_step_off_is_refused_on_the_machine_that_recorded_it(model_copy: Path, path: str) -> None:
    def one_step(arrays: dict[str, Any]) -> None:
        raw = arrays[f"{path}_0_0"]
        raw[0] = raw[0] - 1 if raw[0] else 1

    def here(said: dict[str, Any]) -> None:
        said["golden"][path]["machine"] = platform.machine()

    altered(model_copy, here)
    Classifier(model_copy, path=path)  # type: ignore[arg-type]
    refused(regolden(model_copy, one_step), f"golden frame 0 is 1 output steps off on {path}, 0 allowed", path=path)


def test_another_machine_may_be_a_few_steps_off(model_copy: Path) -> None:
    def shift(steps: int) -> Callable[[dict[str, Any]], None]:
        def change(arrays: dict[str, Any]) -> None:
            raw = arrays["xnnpack_0_0"].astype(int)
            raw[0] += steps if raw[0] < 128 else -steps
            arrays["xnnpack_0_0"] = raw.astype(np.uint8)

        return change

    def elsewhere(said: dict[str, Any]) -> None:
        said["golden"]["xnnpack"] |= {"machine": "riscv64", "other_machine_steps": 5}

    altered(model_copy, elsewhere)
    Classifier(regolden(model_copy, shift(5)))
    refused(regolden(model_copy, shift(1)), "is 6 output steps off", "5 allowed", "on riscv64")


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
    ids=lambda d: repr(d[:16]),
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
    rng = random.Random(9)
    for _ in range(25):
        at = rng.randrange(len(whole) - 40)
        file.write_bytes(whole[:at] + rng.randbytes(30) + whole[at + 30 :])
        try:
            Classifier(model_copy)
        except ModelRefused as error:
            assert "golden" in str(error)
    file.unlink()
    refused(model_copy, "golden.npz", "No such file")


# --- bare files ------------------------------------------------------------------------------------------------------


def flat(bgr: tuple[int, int, int]) -> Pixels:
    return np.full((20, 30, 3), bgr, np.uint8)


def test_a_bare_file_with_packed_labels_answers(tmp_path: Path) -> None:
    classifier = Classifier(bare(tmp_path, PACKED))
    assert classifier.manifest is None
    assert (classifier.name, classifier.version, classifier.size) == ("means", "unverified", 8)
    (result,) = classifier.classify(flat((10, 20, 200)))
    assert (result.label, result.alarm) == ("red", False)
    assert result.scores == pytest.approx({"red": 200 / 255, "green": 20 / 255, "blue": 10 / 255})
    assert classifier.classify(flat((200, 20, 10)))[0].label == "blue"
    assert classifier.classify(flat((200, 20, 10)), "RGB")[0].label == "red"


def test_a_bare_file_with_a_labels_file_answers(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("rot\n\n  grün \nblau\n", encoding="utf-8")
    for data in (channel_means(), PACKED):
        classifier = Classifier(bare(tmp_path, data), labels=labels)
        assert classifier.heads[0].labels == ("rot", "grün", "blau"), "a given file wins over packed labels"


def test_a_bare_file_knows_its_own_quantization(tmp_path: Path) -> None:
    file = bare(tmp_path, with_files(channel_means(scale=1 / 256), labels_txt=b"a\nb\nc"))
    assert Classifier(file).classify(flat((0, 0, 128)))[0].score == 0.5


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (b"a\nb\n", "has 2 labels, the output means_0 (1, 3) uint8 has 3 values"),
        (b"a\nb\nc\nd", "has 4 labels"),
        (b"", "has 0 labels"),
        (b"a\nb\na", "not distinct"),
        (b"\xff\xfe\x80", "cannot read the labels"),
    ],
)
def test_labels_that_do_not_fit_a_bare_file_are_refused(tmp_path: Path, labels: bytes, says: str) -> None:
    (tmp_path / "labels.txt").write_bytes(labels)
    for options in ({"labels": tmp_path / "labels.txt"}, {}):
        if options or says.startswith("has"):
            with pytest.raises(ModelRefused) as caught:
                Classifier(bare(tmp_path, with_files(channel_means(), labels_txt=labels)), **options)
            assert says in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_bare_file_without_labels_is_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, channel_means()), "no labels are packed into it", "--labels")
    two = with_files(channel_means(), labels_txt=b"a\nb\nc", more_txt=b"a\nb\nc")
    refused(bare(tmp_path, two), "no labels are packed into it")
    refused(bare(tmp_path, with_files(channel_means(), readme_md=b"hello")), "no labels are packed into it")
    with pytest.raises(ModelRefused, match="cannot read the labels"):
        Classifier(bare(tmp_path, channel_means()), labels=tmp_path / "absent.txt")
    with pytest.raises(ModelRefused, match="cannot read the labels"):
        Classifier(bare(tmp_path, channel_means()), labels=tmp_path)


def test_packed_labels_that_are_a_bomb_are_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, with_files(channel_means(), labels_txt=b"a\n" * 2**21)), "packed labels of 4194304 bytes")


def test_damaged_packed_labels_are_refused_or_read(tmp_path: Path) -> None:
    plain = channel_means()
    packed = with_files(plain, labels_txt="\n".join(COLOURS).encode())[len(plain) :]
    rng = random.Random(4)
    told = 0
    for _ in range(400):
        broken = bytearray(packed)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            Classifier(bare(tmp_path, plain + bytes(broken)))
        except ModelRefused as error:
            told += 1
            assert "\n" not in str(error)
    assert told > 100


DETECTOR = ((1, 10, 4), (1, 10), (1, 10), (1,))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            channel_means(heads=0, constants=DETECTOR),
            ("looks like an object detector", "constant_0 (1, 10, 4) float32"),
        ),
        (channel_means(inputs=2), ("it has 2 inputs", "image (1, 8, 8, 3) uint8, image_1 (1, 8, 8, 3) uint8")),
        (channel_means(dtype="float32"), ("float32", "full int8", "inference_input_type")),
        (channel_means(dtype="int8"), ("means_0 (1, 3) int8", "inference_input_type")),
        (channel_means((1, 8, 8, 1)), ("image (1, 8, 8, 1) uint8",)),
        (channel_means((1, 8, 8, 4)), ("image (1, 8, 8, 4) uint8",)),
        (channel_means((4, 8, 8, 3)), ("image (4, 8, 8, 3) uint8",)),
        (channel_means((1, 8, 16, 3)), ("image (1, 8, 16, 3) uint8",)),
        (channel_means(scale=None), ("has no quantization",)),
        (channel_means(constants=[(1, 3)]), ("constant_0 (1, 3) float32", "full int8")),
        (channel_means(heads=2), ("without a manifest one output is expected", "means_0", "means_1")),
        (channel_means(heads=0), ()),
    ],
    ids=[
        *("detector", "two inputs", "float32", "int8", "one channel", "four channels", "batch of four", "oblong"),
        *("no quantization", "a float output", "two heads", "no output"),
    ],
)
def test_other_networks_are_refused_with_their_outputs(tmp_path: Path, data: bytes, says: tuple[str, ...]) -> None:
    packed = with_files(data, labels_txt="\n".join(COLOURS).encode())
    message = refused(bare(tmp_path, packed), *says)
    if says and "expected a classifier" in message:
        assert "one uint8 input (1, S, S, 3) and uint8 outputs (1, labels)" in message


def test_files_that_are_no_network_are_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, b""), "not a TFLite model")
    refused(bare(tmp_path, b"labels\nof\nsomething\n"), "not a TFLite model")
    refused(bare(tmp_path, channel_means().replace(b"TFL3", b"TFL2")), "expected the identifier TFL3, found b'TFL2'")
    refused(bare(tmp_path, b"\0\0\0\0TFL3"), "the runtime cannot load this model")
    refused(bare(tmp_path, b"\0\0\0\0TFL3" + bytes(1000)), "the runtime cannot load this model")


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.tflite", tmp_path / "no_folder"):
        with pytest.raises(ConfigurationError, match="no model at"):
            Classifier(path)


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


# --- mutated files ---------------------------------------------------------------------------------------------------

OPEN_EACH = """
import sys
from pathlib import Path
import numpy as np
from bittern import Classifier
from bittern.errors import BitternError
for name in sys.argv[2:]:
    print(name, flush=True)
    try:
        classifier = Classifier(name, labels=sys.argv[1])
        classifier.classify(np.zeros((240, 320, 3), np.uint8))
    except BitternError as error:
        print("refused", len(str(error).splitlines()), flush=True)
    else:
        print("answered 1", flush=True)
"""


def open_each(labels: Path, files: list[Path]) -> tuple[list[str], list[tuple[str, int, str]]]:
    """Open files in one process, and go on behind one that ended it: the lines, and (file, exit code, last words)."""
    lines: list[str] = []
    lost = []
    left = [str(file) for file in files]
    while left:
        done = subprocess.run([sys.executable, "-c", OPEN_EACH, str(labels), *left], capture_output=True, text=True)
        seen = [line for line in done.stdout.splitlines() if line.startswith("/")]
        lines += [line for line in done.stdout.splitlines() if not line.startswith("/")]
        if done.returncode == 0:
            break
        assert seen, done.stderr
        lost.append((seen[-1], done.returncode, (done.stderr.strip().splitlines() or [""])[-1]))
        left = left[len(seen) :]
    return lines, lost


def test_a_mutated_bare_file_does_not_end_the_process(model_folder: Path, tmp_path: Path) -> None:
    model = (model_folder / "model.tflite").read_bytes()
    labels = tmp_path / "labels.txt"
    shutil.copy(model_folder / "labels.txt", labels)
    rng = random.Random(11)
    files = []
    for number in range(300):
        data = bytearray(model)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(8, 4096)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if number % 10 == 0:
            data = data[: rng.randrange(8, len(data))]
        files.append(bare(tmp_path, bytes(data), f"{number}.tflite"))
    lines, lost = open_each(labels, files)
    for file in files:
        file.unlink()
    assert not lost
    assert set(lines) == {"refused 1", "answered 1"}
    assert len(lines) == 300


def test_bittern_errors_are_what_users_see() -> None:
    assert issubclass(ModelRefused, ConfigurationError)
    assert issubclass(ConfigurationError, BitternError)
    assert ModelRefused("x").exit_code == 2

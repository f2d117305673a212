"""Bare .tflite files: with packed labels, with a labels file, of other networks, and mutated."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doubles.model_files import bare, flat, refused
from tests.doubles.repetitions import examples, times
from tests.doubles.tflite_files import COLOURS, channel_means, with_files

from bittern import Classifier
from bittern.errors import ConfigurationError, ModelRefused

PACKED = with_files(channel_means(), labels_txt="\n".join(COLOURS).encode())


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
        (b"a\nb\n", "has 2 labels, but the model's output has 3 values"),
        (b"a", "has 1 label, but"),
        (b"a\nb\nc\nd", "has 4 labels"),
        (b"", "has 0 labels"),
        (b"a\nb\x07\nc", "has the control character U+0007"),
        (b"\xff\xfe\x80", "is broken UTF-16: save it as UTF-8"),
    ],
)
def test_labels_that_do_not_fit_a_bare_file_are_refused(tmp_path: Path, labels: bytes, says: str) -> None:
    (tmp_path / "labels.txt").write_bytes(labels)
    for file in (tmp_path / "labels.txt", None):
        if file or says.startswith("has"):
            with pytest.raises(ModelRefused) as caught:
                Classifier(bare(tmp_path, with_files(channel_means(), labels_txt=labels)), labels=file)
            assert says in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_bare_file_without_labels_is_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, channel_means()), "no labels are packed into it", "--labels")
    two = with_files(channel_means(), labels_txt=b"a\nb\nc", more_txt=b"a\nb\nc")
    refused(bare(tmp_path, two), "has several packed label files (labels.txt, more.txt)", "--labels")
    refused(bare(tmp_path, with_files(channel_means(), readme_md=b"hello")), "no labels are packed into it")
    with pytest.raises(ModelRefused, match="cannot read the labels"):
        Classifier(bare(tmp_path, channel_means()), labels=tmp_path / "absent.txt")
    with pytest.raises(ModelRefused, match="cannot read the labels"):
        Classifier(bare(tmp_path, channel_means()), labels=tmp_path)


def test_packed_labels_that_are_a_bomb_are_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, with_files(channel_means(), labels_txt=b"a\n" * 2**21)), "packed labels of 4194304 bytes")


@pytest.mark.fuzz
def test_damaged_packed_labels_are_refused_or_read(tmp_path: Path) -> None:
    plain = channel_means()
    packed = with_files(plain, labels_txt="\n".join(COLOURS).encode())[len(plain) :]
    rng = random.Random(4)
    messages = []
    n = examples(400)
    for _ in range(n):
        broken = bytearray(packed)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            Classifier(bare(tmp_path, plain + bytes(broken)), tried=True)
        except ModelRefused as error:
            messages.append(str(error))
    assert len(messages) > n // 4
    assert not any("\n" in line for line in messages)


DETECTOR = ((1, 10, 4), (1, 10), (1, 10), (1,))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            channel_means(heads=0, constants=DETECTOR),
            ("looks like an object detector", "constant_0 (1, 10, 4) float32"),
        ),
        (channel_means(inputs=2), ("expected one input", "image (1, 8, 8, 3) uint8, image_1 (1, 8, 8, 3) uint8")),
        (channel_means(dtype="float32"), ("takes float32", "--pixels 0..1 or --pixels -1..1")),
        (channel_means((1, 8, 8, 4)), ("image (1, 8, 8, 4) uint8", "one or three channels")),
        (channel_means(scale=None), ("has no quantization",)),
        (channel_means(constants=[(1, 3)]), ("constant_0 (1, 3) float32", "2 of them have 3 values")),
        (channel_means(constants=[(1, 9, 85)], heads=0), ("constant_0 (1, 9, 85)", "a detector or a segmenter")),
        (channel_means(heads=2), ("2 of them have 3 values", "means_0", "means_1")),
        (channel_means(heads=0), ()),
    ],
    ids=[
        *("detector", "two inputs", "float32", "four channels", "no quantization", "a float output", "boxes"),
        *("two heads", "no output"),
    ],
)
def test_other_networks_are_refused_with_their_outputs(tmp_path: Path, data: bytes, says: tuple[str, ...]) -> None:
    packed = with_files(data, labels_txt="\n".join(COLOURS).encode())
    refused(bare(tmp_path, packed), *says)


def test_files_that_are_no_network_are_refused(tmp_path: Path) -> None:
    refused(bare(tmp_path, b""), "not a TFLite model")
    refused(bare(tmp_path, b"labels\nof\nsomething\n"), "not a TFLite model")
    refused(bare(tmp_path, channel_means().replace(b"TFL3", b"TFL2")), "expected the identifier TFL3, got b'TFL2'")
    refused(bare(tmp_path, b"\0\0\0\0TFL3"), "the runtime cannot load this model")
    refused(bare(tmp_path, b"\0\0\0\0TFL3" + bytes(1000)), "the runtime cannot load this model")


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.tflite", tmp_path / "no_folder"):
        with pytest.raises(ConfigurationError, match="no model at"):
            Classifier(path)


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
        paths = [line for line in done.stdout.splitlines() if line.startswith("/")]
        lines += [line for line in done.stdout.splitlines() if not line.startswith("/")]
        if done.returncode == 0:
            break
        assert paths, done.stderr
        lost.append((paths[-1], done.returncode, (done.stderr.strip().splitlines() or [""])[-1]))
        left = left[len(paths) :]
    return lines, lost


@pytest.mark.fuzz
def test_a_mutated_bare_file_does_not_end_the_process(model_folder: Path, tmp_path: Path) -> None:
    model = (model_folder / "model.tflite").read_bytes()
    labels = tmp_path / "labels.txt"
    shutil.copy(model_folder / "labels.txt", labels)
    rng = random.Random(11)
    files = []
    n = times(300, 6)
    for number in range(n):
        data = bytearray(model)
        for _ in range(rng.randint(1, 4)):
            # The root and the list of buffers are in the first kilobytes, tensors and operators in the last.
            first, last = ((8, 4096), (len(data) - 65536, len(data)), (8, len(data)))[number % 3]
            data[rng.randrange(first, last)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if number % 10 == 0:
            data = data[: rng.randrange(8, len(data))]
        files.append(bare(tmp_path, bytes(data), f"{number}.tflite"))
    lines, lost = open_each(labels, files)
    for file in files:
        file.unlink()
    assert not lost
    assert set(lines) == {"refused 1", "answered 1"}
    assert len(lines) == n

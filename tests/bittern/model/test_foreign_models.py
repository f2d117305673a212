"""Classifiers as other tools export them: every kind gives what the plain loop of an interpreter gives."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import flatbuffers
import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema
from tests.doubles import foreign_table
from tests.doubles.foreign_models import KINDS, LABELS, RANGES, Kind, quantization, red_or_blue
from tests.doubles.model_files import bare, flat, refused
from tests.doubles.repetitions import examples
from tests.doubles.tflite_files import channel_means, with_files

from bittern import Classifier
from bittern.errors import BitternError
from bittern.frames import Pixels
from bittern.model import runtime
from bittern.model.bare import Bare, Unstated
from bittern.model.tflite_file import TfliteFile

WARM, COLD = (40, 60, 220), (220, 60, 40)  # BGR
BRIGHT, DARK = (240, 240, 240), (20, 20, 20)


def written(folder: Path, kind: Kind, labels: Sequence[str] = LABELS) -> Path:
    return bare(folder, with_files(red_or_blue(kind), labels_txt="\n".join(labels).encode()), "foreign.tflite")


def opened(file: Path, **stated: Any) -> Classifier:
    """In this process at once: these files do no harm, and a child process for each takes a second."""
    return Classifier(file, bare=Bare(**stated), tried=True)


def noise(height: int = 48, width: int = 64) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def plain_loop(data: bytes, kind: Kind, picture: Pixels, size: tuple[int, int] | None) -> npt.NDArray[np.float64]:
    """Scores of the two labels of a BGR picture of the network's size, as a tutorial's loop computes them."""
    interpreter = runtime.Interpreter(model_content=data)
    detail = interpreter.get_input_details()[0]
    if size is not None:
        interpreter.resize_tensor_input(detail["index"], [1, *size, 3])
    interpreter.allocate_tensors()
    if kind.shape[1 if kind.nchw else 3] == 1:
        values = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., np.newaxis]
    else:
        values = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    low, high = RANGES[kind.pixels]
    real = values.astype(np.float32) / 255 * (high - low) + low
    if kind.nchw:
        real = real.transpose(2, 0, 1)
    if kind.takes != "float32":
        scale, zero = quantization(kind.pixels, kind.takes, kind.odd)
        limits = np.iinfo(kind.takes)
        # -1..1 has its zero between two bytes: what a byte stands for is half a step beside it.
        real = (
            np.clip(np.ceil(real / scale - 0.01) + zero, limits.min, limits.max)
            if kind.odd == 1
            else np.clip(np.rint(real / scale) + zero, limits.min, limits.max)
        )
    interpreter.set_tensor(detail["index"], np.repeat(real[np.newaxis], kind.shape[0], 0).astype(kind.takes))
    interpreter.invoke()
    output = interpreter.get_output_details()[-1]
    raw = interpreter.get_tensor(output["index"]).astype(np.float64)
    scale, zero = output["quantization"]
    made = ((raw - zero) * scale if scale else raw).reshape(-1)[: 1 if kind.ending == "sigmoid" else 2]
    if kind.ending == "logits":
        made = np.exp(made) / np.exp(made).sum()
    return np.array([made[0], 1 - made[0]]) if kind.ending == "sigmoid" else made


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_what_the_plain_loop_gives_and_is_right(tmp_path: Path, name: str) -> None:
    kind, stated = KINDS[name]
    file = written(tmp_path, kind)
    classifier = opened(file, **stated, alarm=("warm",))
    height, width = classifier.shape
    pictures = [noise(height, width), *(np.full((height, width, 3), c, np.uint8) for c in (WARM, COLD, BRIGHT, DARK))]
    for picture in pictures:
        expected = plain_loop(file.read_bytes(), kind, picture, stated.get("size"))
        (result,) = classifier.classify(picture)
        scores = [result.scores[label] for label in LABELS]
        assert scores == pytest.approx(expected, abs=1 / 256)
        assert result.score == max(scores)
        assert result.label == max(result.scores, key=result.scores.__getitem__)
    warm, cold = (BRIGHT, DARK) if 1 in (kind.shape[3], kind.shape[1]) else (WARM, COLD)
    (result,) = classifier.classify(flat(warm))
    assert (result.label, result.alarm, result.score > 0.8) == ("warm", True, True)
    (result,) = classifier.classify(flat(cold))
    assert (result.label, result.alarm) == ("cold", False)
    assert sum(result.scores.values()) == pytest.approx(1, abs=0.01)


def test_the_table_of_kinds_is_current() -> None:
    assert foreign_table.PAGE.read_text(encoding="utf-8") == foreign_table.page()


def test_what_is_read_and_what_is_stated_can_be_told_apart(tmp_path: Path) -> None:
    def of(kind: Kind, **stated: Any) -> tuple[str, str]:
        classifier = opened(written(tmp_path, kind), **stated)
        return classifier.pixels_from, classifier.scores_from

    assert of(Kind(), pixels="-1..1") == ("stated", "softmax in the model")
    assert of(Kind(metadata=((127.5,), (127.5,))))[0] == "metadata"
    assert of(Kind(inside=True))[0] == "quantization"
    assert of(Kind("uint8", "uint8"))[0] == "-1..1, by its quantization"
    assert of(Kind(ending="logits"), pixels="-1..1")[1] == "no softmax or sigmoid in the model"
    assert of(Kind(ending="logits"), pixels="-1..1", scores_by="sigmoid")[1] == "stated"


def test_the_metadata_wins_over_nothing_but_a_guess(tmp_path: Path) -> None:
    """What the owner states wins; what the quantization of uint8 says is not changed by metadata for a float model."""
    file = written(tmp_path, Kind(pixels="0..1", metadata=((127.5,), (127.5,))))
    right, wrong = opened(file, pixels="0..1"), opened(file)
    assert right.classify(noise()) != wrong.classify(noise())
    kind = Kind("uint8", "uint8", metadata=((0.0,), (1.0,)))
    assert opened(written(tmp_path, kind)).classify(flat(WARM))[0].label == "warm"


@pytest.mark.parametrize(
    ("kind", "stated", "says"),
    [
        (Kind(), {}, "--pixels 0..1 or --pixels -1..1"),
        (Kind("int8", "int8", odd=1.7), {}, "--pixels 0..1 or --pixels -1..1"),
        (Kind("uint8", "uint8", free=(1, 2)), {}, "--size 224"),
        (Kind("uint8", "uint8", ending="sigmoid"), {}, "--score-of warm or --score-of cold"),
    ],
)
def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path, kind: Kind, stated: dict[str, Any], says: str) -> None:
    file = written(tmp_path, kind)
    with pytest.raises(Unstated) as caught:
        opened(file, **stated)
    assert str(caught.value).startswith(str(file))
    assert str(caught.value).endswith(says)
    key = caught.value.key
    assert f"{key} = " in caught.value.in_configuration()
    assert "--" not in caught.value.in_configuration()
    assert len(str(caught.value)) < 300 + len(str(file))


@pytest.mark.parametrize(
    ("kind", "stated", "says"),
    [
        (Kind(), {"pixels": "0..2"}, "expected pixels raw, 0..1, -1..1, imagenet, caffe, got '0..2'"),
        (Kind(shape=(1, 16, 16, 1)), {"pixels": "imagenet"}, "takes grey pictures"),
        (Kind("uint8", "uint8"), {"size": (32, 32)}, "have 16 x 16 pixels: leave out the size"),
        (Kind("uint8", "uint8", free=(1, 2)), {"size": (0, 9)}, "expected a size from 1 to 4096"),
        (Kind("uint8", "uint8"), {"scores_by": "max"}, "expected scores by as-is, softmax, sigmoid"),
        (Kind("uint8", "uint8", ending="logits"), {"scores_by": "as-is"}, "its output is from -5.98 to 6.02"),
        (Kind("uint8", "uint8", ending="sigmoid"), {"scores_by": "softmax"}, "is a single value"),
        (Kind("uint8", "uint8", ending="sigmoid"), {"score_of": "hot"}, "has no label 'hot': expected warm or cold"),
        (Kind("uint8", "uint8"), {"alarm": ("wram",)}, "did you mean 'warm'?"),
        (Kind("uint8", "uint8", shape=(1, 16, 16, 4)), {}, "picture of one or three channels"),
    ],
)
def test_a_statement_that_cannot_be_right_is_refused(
    tmp_path: Path, kind: Kind, stated: dict[str, Any], says: str
) -> None:
    if kind.shape[3] == 4:
        file = bare(tmp_path, with_files(channel_means((1, 8, 8, 4)), labels_txt=b"a\nb\nc\nd"))
    else:
        file = written(tmp_path, kind)
    with pytest.raises(BitternError) as caught:
        opened(file, **stated)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_label_of_a_single_value_is_that_of_its_score(tmp_path: Path) -> None:
    classifier = opened(written(tmp_path, Kind("uint8", "uint8", ending="sigmoid"), ["open"]))
    assert classifier.heads[0].labels == ("not open", "open")
    assert classifier.classify(flat(WARM))[0].label == "open"
    assert classifier.classify(flat(COLD))[0].label == "not open"


def test_the_score_is_of_the_label_that_is_stated(tmp_path: Path) -> None:
    file = written(tmp_path, Kind("uint8", "uint8", ending="sigmoid"))
    assert opened(file, score_of="cold").classify(flat(WARM))[0].label == "cold"


def test_values_that_are_no_scores_are_never_shown_as_scores(tmp_path: Path) -> None:
    classifier = opened(written(tmp_path, Kind(ending="logits")), pixels="-1..1", scores_by="as-is")
    with pytest.raises(BitternError, match="which is no score from 0 to 1"):
        classifier.classify(flat(WARM))


def test_outputs_that_nothing_describes_are_judged_by_their_values(tmp_path: Path) -> None:
    """The mean of raw pixels is no score; nothing in the file says so."""
    file = bare(tmp_path, with_files(channel_means(dtype="float32"), labels_txt=b"r\ng\nb"))
    classifier = opened(file, pixels="raw")
    assert classifier.scores_from == "its values on test pictures, which are no scores"
    (result,) = classifier.classify(flat((0, 0, 200)))
    assert result.label == "r"
    assert sum(result.scores.values()) == pytest.approx(1)


def test_caffe_is_blue_first_and_imagenet_has_three_means(tmp_path: Path) -> None:
    file = bare(tmp_path, with_files(channel_means(dtype="float32"), labels_txt=b"r\ng\nb"))
    frame = flat((30, 60, 90))
    for pixels, expected in (
        ("caffe", [30 - 103.939, 60 - 116.779, 90 - 123.68]),
        ("imagenet", [(90 / 255 - 0.485) / 0.229, (60 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]),
    ):
        classifier = opened(file, pixels=pixels)
        (raw,) = classifier.invoke(classifier.preprocess(frame))
        assert raw.tolist() == pytest.approx(expected, rel=1e-4)


def test_a_picture_of_pillow_is_taken(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    classifier = opened(written(tmp_path, Kind("uint8", "uint8")))
    picture = image.fromarray(flat(WARM)[..., ::-1].copy())
    assert classifier.classify(picture) == classifier.classify(flat(WARM))
    for mode in ("L", "P", "RGBA"):
        assert len(classifier.classify(picture.convert(mode))) == 1


def test_what_is_no_frame_gets_the_sentence_of_a_wrong_shape(tmp_path: Path) -> None:
    classifier = opened(written(tmp_path, Kind("uint8", "uint8")))
    wrong: list[Any] = [np.zeros((9, 9, 3)), [[1, 2, 3]], "street.jpg", None, np.zeros((9, 9), np.uint8)]
    for frame in wrong:
        with pytest.raises(BitternError, match=r"expected a frame of shape \(H, W, 3\) uint8, got"):
            classifier.classify(frame)


def test_several_shapes_share_a_frame(tmp_path: Path) -> None:
    from bittern.model.views import predict

    folders = [tmp_path / str(i) for i in range(3)]
    kinds = [Kind("uint8", "uint8"), Kind("uint8", "uint8", shape=(1, 16, 24, 3)), Kind("int8", "int8")]
    classifiers = []
    for folder, kind in zip(folders, kinds, strict=True):
        folder.mkdir()
        classifiers.append(opened(written(folder, kind)))
    predictions, _ = predict(classifiers, noise(), views=("center", "left", "right"))
    assert [p.tensor.shape for p in predictions] == [(1, 16, 16, 3), (1, 16, 24, 3), (1, 16, 16, 3)]


def test_a_wide_network_sees_more_of_a_frame_than_its_square(tmp_path: Path) -> None:
    """The outer thirds are blue: a square network does not see them, one of 24 x 8 does."""
    frame = np.zeros((60, 180, 3), np.uint8)
    frame[:] = COLD
    frame[:, 60:120] = WARM
    assert opened(written(tmp_path, Kind("uint8", "uint8"))).classify(frame)[0].label == "warm"
    assert opened(written(tmp_path, Kind("uint8", "uint8", shape=(1, 8, 24, 3)))).classify(frame)[0].label == "cold"


def archive(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name in names:
            made.writestr(name, b"")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "a Keras model (HDF5): make a model of it on the host"),
        ("model.keras", archive("config.json", "metadata.json"), "a Keras model (.keras)"),
        (
            "tm.zip",
            archive("model_unquant.tflite", "labels.txt"),
            "unzip it, and give the file in it: model_unquant.tfl",
        ),
        ("keras.zip", archive("keras_model.h5"), "a zip archive with a Keras model"),
        ("saved.zip", archive("a/saved_model.pb"), "a zip archive with a SavedModel"),
        ("other.zip", archive("a.txt"), "without a .tflite file"),
        ("model.pt", archive("archive/data.pkl"), "a PyTorch model"),
        ("broken.zip", b"PK\x03\x04 and nothing", "a broken zip archive"),
        ("graph.pb", b"\x0a\x05hello", "takes the folder of the SavedModel"),
        ("net.onnx", b"\x08\x07hello", "an ONNX model"),
        ("app.eim", b"\x7fELF" + bytes(9), "take the export TensorFlow Lite"),
        ("other.bin", b"hello", "not a TFLite model"),
    ],
)
def test_another_kind_of_file_says_what_it_is(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    refused(bare(tmp_path, data, name), says)


def test_a_folder_that_is_no_model_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    refused(tmp_path / "saved", "a SavedModel of TensorFlow")
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").touch()
    refused(run, "a run of bittern train: make a model of it on the host: bittern convert")
    written(tmp_path, Kind())
    refused(tmp_path, "give the file in it: foreign.tflite")


@pytest.mark.parametrize("suffix", ["TFLITE", "lite", "bin"])
def test_a_model_is_known_by_its_contents(tmp_path: Path, suffix: str) -> None:
    file = written(tmp_path, Kind("uint8", "uint8"))
    assert opened(file.rename(tmp_path / f"gate.{suffix}")).name == "gate"


def changed(custom: str | None = None, version: int = 1) -> bytes:
    """A model whose operation the runtime does not have."""
    model = schema.ModelT.InitFromPackedBuf(channel_means(), 0)
    (code,), (graph,) = model.operatorCodes, model.subgraphs
    code.version = version
    if custom is not None:
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = custom
        graph.operators[0].builtinOptionsType, graph.operators[0].builtinOptions = 0, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed("edgetpu-custom-op"), "take the file without _edgetpu in its name"),
        (changed("FlexErf"), "convert it again without SELECT_TF_OPS"),
        (changed(version=99), f"needs MEAN version 99, which {runtime.DISTRIBUTION} {runtime.version()} does not have"),
        (changed("MyOp"), "has the operation MyOp, which the runtime does not have"),
    ],
)
def test_what_the_runtime_cannot_run_says_what_to_do(tmp_path: Path, data: bytes, says: str) -> None:
    refused(bare(tmp_path, with_files(data, labels_txt=b"a\nb\nc")), says, tried=True)


@pytest.mark.fuzz
def test_a_damaged_description_is_read_or_left_out() -> None:
    """What a file says of itself is read from bytes that may be anything."""
    plain = red_or_blue(Kind(inside=True, metadata=((127.5,) * 3, (127.5,) * 3)))
    rng = random.Random(8)
    stated = 0
    for _ in range(examples(3000)):
        data = bytearray(plain)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        contents = TfliteFile(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]))
        normalization = contents.normalization()
        stated += normalization is not None
        if normalization is not None:
            assert len(normalization.mean) == len(normalization.std)
        contents.input_signature()
        contents.input_quantization(0)
        contents.last_operation(rng.randrange(12))
        contents.label_files()
    assert stated > 10

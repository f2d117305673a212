"""Keras classifiers that were trained elsewhere, as other tools export them, become model folders."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern import Classifier
from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset
from bittern.frames import Pixels
from bittern.model import pictures
from bittern.stated import PIXELS, PixelKind
from bittern_convert import cli, foreign, package
from bittern_convert.foreign import Question


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_pictures.discs(tmp_path_factory.mktemp("data") / "pictures", 9)


def head(model: Any, weights: list[np.ndarray]) -> Any:
    """The model with these weights in its last layer: it tells red from blue without any training."""
    model.layers[-1].set_weights(weights)
    return model


def teachable_machine(folder: Path) -> Path:
    """keras_model.h5 and labels.txt as Teachable Machine exports them: written by Keras 2, pixels -1..1, numbers."""
    keras.utils.set_random_seed(1)
    body = keras.Sequential(
        [
            layers.Input((64, 64, 3)),
            layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    dense = keras.Sequential([layers.Input((3,)), layers.Dense(2, activation="softmax", use_bias=False)])
    head(dense, [np.array([[-9.0, 9], [0, 0], [9, -9]])])
    file = folder / "keras_model.h5"
    keras.Sequential([body, dense]).save(file)
    with h5py.File(file, "a") as h5:
        config = json.loads(h5.attrs["model_config"])

        def as_keras_2(value: Any) -> None:
            if isinstance(value, dict):
                if value.get("class_name") == "DepthwiseConv2D":
                    value["config"]["groups"] = 1
                for inner in value.values():
                    as_keras_2(inner)
            if isinstance(value, list):
                for inner in value:
                    as_keras_2(inner)

        as_keras_2(config)
        h5.attrs["model_config"] = json.dumps(config)
    (folder / "labels.txt").write_text("0 blue\n1 red\n")
    return file


def accuracy(model: Path, data: Path) -> float:
    device = Classifier(model)
    items = dataset.read(data)
    return float(np.mean([device.classify(pictures.decode(i.path))[0].label == i.label for i in items]))


def test_teachable_machine(data: Path, tmp_path: Path) -> None:
    file = teachable_machine(tmp_path)
    with pytest.raises(TypeError, match="groups"):  # what Keras 3 alone says to it
        keras.models.load_model(file, compile=False)
    arguments = [str(file), "--labels", str(tmp_path / "labels.txt"), "--pixels", "-1..1", "--alarm", "red"]
    arguments += ["--calibrate", str(data), "--out", str(tmp_path / "gate"), "--json"]
    done = CliRunner().invoke(cli.convert, arguments)
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["passed"]
    assert outcome["n"] >= 1000
    assert accuracy(tmp_path / "gate", data) == 1
    manifest = Classifier(tmp_path / "gate").manifest
    assert manifest is not None
    assert manifest.heads[0].labels == ("blue", "red")
    assert manifest.input.scale == pytest.approx(1 / 127.5)
    card = (tmp_path / "gate" / "MODEL_CARD.md").read_text()
    assert "Keras model keras_model.h5 at 64 x 64" in card
    assert "What it was trained on is not known here." in card
    assert "not chosen: an even chance" in card


def test_a_grey_model_with_one_output_for_loose_pictures(data: Path, tmp_path: Path) -> None:
    """Red and blue of the drawn discs differ in grey by little: what counts is that int8 answers as float does."""
    picture = keras.Input((40, 40, 1))
    x = layers.Dense(1)(layers.GlobalAveragePooling2D()(picture))
    model = head(keras.Model(picture, x), [np.array([[0.2]]), np.array([-25.0])])
    model.save(tmp_path / "grey.keras")
    reports = Reports()
    question = Question(("dark", "bright"), ("bright",), (), "raw")
    manifest, outcome = foreign.convert(
        tmp_path / "grey.keras", tmp_path / "grey", question,
        calibrate=data, name="grey", version="1", replace=False, seed=1, progress=reports,
    )  # fmt: skip
    assert outcome.passed
    assert any("a sigmoid is put behind it" in line for line in reports.lines)
    assert any("18 of 18 pictures have no label of the model's (dark, bright)" in line for line in reports.lines)
    assert manifest.input.shape == (1, 40, 40, 3)
    device = Classifier(tmp_path / "grey")
    for value, label in ((40, "dark"), (220, "bright")):
        result = device.classify(np.full((60, 60, 3), value, np.uint8))[0]
        assert result.label == label
        assert sum(result.scores.values()) == pytest.approx(1, abs=0.02)


def test_a_saved_model(tmp_path: Path) -> None:
    picture = keras.Input((32, 32, 3), name="Image")
    model = keras.Model(picture, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(picture)))
    head(model, [np.array([[-30.0, 30], [0, 0], [30, -30]]), np.zeros(2)])
    model.export(tmp_path / "lobe", verbose=False)
    wrapped = foreign.wrapped(
        foreign.load(tmp_path / "lobe"), Question(("blue", "red"), (), (), "0..1"), tmp_path / "lobe", Reports()
    )
    red = np.zeros((1, 32, 32, 3), np.float32)
    red[..., 0] = 200
    pixels = red / 127.5 - 1
    np.testing.assert_allclose(wrapped(pixels).numpy(), model(red / 255).numpy(), atol=1e-4)


@pytest.mark.parametrize("values", PIXELS)
def test_what_a_network_expects_of_the_pixels(values: PixelKind) -> None:
    frame: Pixels = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    applications = {"-1..1": "tf", "imagenet": "torch", "caffe": "caffe"}
    if values in applications:
        preprocess = keras.src.applications.imagenet_utils.preprocess_input
        expected = preprocess(frame.astype(np.float32), mode=applications[values])
    else:
        expected = frame / {"0..1": 255, "raw": 1}[values]
    given = foreign._pixels(values, grey=False)(frame.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(given, expected, atol=2e-3)


def test_a_layer_that_int8_cannot_hold_is_named(data: Path, tmp_path: Path) -> None:
    picture = keras.Input((32, 32, 3))
    x = layers.Resizing(20, 20, "bicubic", name="odd")(layers.Conv2D(4, 3)(picture))
    keras.Model(picture, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x))).save(
        tmp_path / "odd.keras"
    )
    with pytest.raises(
        BitternError, match=r"odd\.keras: int8 cannot hold layer 'odd' \(Resizing, operation ResizeBicubic\)"
    ):
        foreign.convert(
            tmp_path / "odd.keras", tmp_path / "odd", Question(("blue", "red"), (), (), "-1..1"),
            calibrate=data, name="odd", version="1", replace=False, seed=1, progress=Reports(),
        )  # fmt: skip
    assert not (tmp_path / "odd").exists()


def test_what_is_no_classifier_of_one_picture(tmp_path: Path) -> None:
    question = Question(("a", "b"), (), (), "0..1")

    def refusal(shape: tuple[int | None, ...], outputs: int = 2) -> str:
        picture = keras.Input(shape)
        x = layers.GlobalAveragePooling2D()(picture) if len(shape) == 3 else picture
        model = keras.Model(picture, layers.Dense(outputs)(x))
        with pytest.raises(ConfigurationError) as caught:
            foreign.wrapped(model, question, Path("m.keras"), Reports())
        return str(caught.value)

    assert "takes pictures of 32 x 64 px; the network sees a square" in refusal((64, 32, 3))
    assert "expected pictures (batch, size, size, 3), or 1 for grey, of a fixed size" in refusal((None, None, 3))
    assert "expected pictures" in refusal((64, 64, 4))
    assert "expected pictures" in refusal((10,))
    assert "has 5 outputs, which take 5 labels; --labels has 2" in refusal((32, 32, 3), 5)


def test_the_network_of_a_run_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    with pytest.raises(ConfigurationError, match=r"model\.keras is missing: train again"):
        package.load_model(tmp_path)
    picture = keras.Input((8, 8, 3))
    keras.Model(picture, layers.Dense(2)(layers.Flatten()(picture))).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigurationError, match=r"model\.keras is damaged: train again"):
        package.load_model(tmp_path)
    with pytest.raises(ConfigurationError, match=r"model\.keras: .*: damaged, or no \.keras file$"):
        foreign.load(file)
    for place in range(40, len(data), len(data) // 12):  # an archive still, for the most part
        file.write_bytes(data[:place] + b"\0" * 40 + data[place + 40 :])
        with contextlib.suppress(ConfigurationError):
            package.load_model(tmp_path)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no file .*none\.keras"):
        foreign.load(tmp_path / "none.keras")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ConfigurationError, match=r"text\.h5: cannot be loaded as a Keras model"):
        foreign.load(tmp_path / "text.h5")
    picture = keras.Input((8, 8, 3))
    model = keras.Model(picture, layers.Lambda(lambda x: x * 2)(picture))
    model.save(tmp_path / "code.keras")
    with pytest.raises(ConfigurationError, match="has a Lambda layer, which is code"):
        foreign.load(tmp_path / "code.keras")
    model.save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(ConfigurationError, match="has weights only"):
        foreign.load(tmp_path / "only.weights.h5")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"x")
    done = CliRunner().invoke(cli.convert, [str(tmp_path / "m.h5")])
    assert (done.exit_code, "a Keras model takes --labels, --pixels, --calibrate and --out" in done.output) == (2, True)
    done = CliRunner().invoke(cli.convert, [str(tmp_path), "--pixels", "raw"])
    assert (done.exit_code, "which has them already" in done.output) == (2, True)


def test_the_weights_of_a_saved_model_are_in_its_digest(tmp_path: Path) -> None:
    """Two trainings of one architecture have the same graph."""
    for name in ("one", "two"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_bytes(b"graph")
        (tmp_path / name / "variables" / "variables.data").write_bytes(name.encode())
    assert foreign._digest(tmp_path / "one") != foreign._digest(tmp_path / "two")

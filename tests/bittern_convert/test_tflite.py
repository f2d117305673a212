"""Quantization and packing, on a network of a few layers."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from bittern.frames import Pixels
from bittern.model import runtime
from bittern_convert import tflite

LABELS = ["no", "yes", "perhaps"]


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(1)
    picture = keras.Input((32, 32, 3), batch_size=1)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(picture)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(picture, keras.layers.Dense(3, activation="softmax")(x))


def pale(n: int) -> list[Pixels]:
    """Pictures that span only 90 to 170: alone they would shrink the input's range."""
    rng = np.random.default_rng(1)
    return [rng.integers(90, 170, (1, 32, 32, 3), dtype=np.uint8) for _ in range(n)]


@pytest.fixture(scope="module")
def quantized(model: Any) -> bytes:
    return tflite.quantize(model, pale(8))


@pytest.fixture(scope="module")
def packed(quantized: bytes) -> bytes:
    return tflite.pack(quantized, name="t", version="1", question="is it?", output="t_scores", labels=LABELS)


def test_the_uint8_input_is_the_pixel_even_with_pale_pictures(packed: bytes) -> None:
    opened = runtime.open_model(packed, "builtin", 1)
    (picture,), (scores,) = opened.inputs, opened.outputs
    assert (picture.name, picture.shape, picture.dtype) == ("image", (1, 32, 32, 3), "uint8")
    assert picture.scale == pytest.approx(1 / 127.5, rel=1e-4)
    assert picture.zero_point == 127
    assert (scores.name, scores.shape, scores.dtype) == ("t_scores", (1, 3), "uint8")
    assert scores.scale == pytest.approx(1 / 256)
    assert scores.zero_point == 0


def test_int8_answers_as_float_does(model: Any, packed: bytes) -> None:
    opened = runtime.open_model(packed, "xnnpack", 1)
    for tensor in pale(20):
        opened.interpreter.set_tensor(opened.inputs[0].handle, tensor)
        opened.interpreter.invoke()
        int8 = opened.interpreter.get_tensor(opened.outputs[0].handle)[0] / 256
        parent = model(tensor.astype(np.float32) / 127.5 - 1).numpy()[0]
        np.testing.assert_allclose(int8, parent, atol=0.03)


def test_labels_and_metadata_are_inside(packed: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().split() == LABELS
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(packed, 0))
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    buffer = bytes(model.buffers[entry.buffer].data)
    assert buffer[4:8] == b"M001"
    for text in (b"is it?", b"labels.txt", b"t_scores"):
        assert text in buffer
    assert b"Apache" not in buffer, "whose model it is, we do not know"


def test_packing_the_same_gives_the_same_bytes(quantized: bytes) -> None:
    once, again = (
        tflite.pack(quantized, name="t", version="1", question="is it?", output="s", labels=LABELS) for _ in range(2)
    )
    assert once == again


def test_the_metadata_has_the_licence_of_the_task(quantized: bytes) -> None:
    data = tflite.pack(
        quantized, name="t", version="1", question="is it?", output="s", labels=LABELS, licence="CC-BY-4.0"
    )
    packed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    assert any(b"CC-BY-4.0" in bytes(buffer.data) for buffer in packed.buffers if buffer.data is not None)


def test_biases_are_changed_without_a_second_conversion(model: Any, quantized: bytes) -> None:
    change = np.array([0.5, -0.25, -0.25])
    opened = runtime.open_model(tflite.with_bias(quantized, change), "xnnpack", 1)
    head = model.layers[-1]
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias + change.astype(np.float32)])
    try:
        for tensor in pale(8):
            opened.interpreter.set_tensor(opened.inputs[0].handle, tensor)
            opened.interpreter.invoke()
            int8 = opened.interpreter.get_tensor(opened.outputs[0].handle)[0] / 256
            np.testing.assert_allclose(int8, model(tensor.astype(np.float32) / 127.5 - 1).numpy()[0], atol=0.03)
    finally:
        head.set_weights([kernel, bias])


def test_without_a_change_nothing_changes(quantized: bytes) -> None:
    assert tflite.with_bias(quantized, np.zeros(3)) is quantized

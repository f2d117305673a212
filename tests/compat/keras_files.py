"""Small Keras classifiers through TensorFlow's own converter, in the forms that its guide and most tools export.

    python tests/compat/keras_files.py FOLDER

Writes NAME.tflite for each form: pixels -1..1, the first label where red outweighs blue.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SIZE = 32


def classifier() -> Any:
    """A network of convolutions whose last layer is set, not trained."""
    picture = keras.Input((SIZE, SIZE, 3))
    x = layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=keras.initializers.Constant(1 / 9))(picture)
    x = layers.Conv2D(3, 1, activation="relu6")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(picture, layers.Dense(2, activation="softmax")(x))
    # relu6 of the channels plus one: from 0 to 2.
    model.layers[2].set_weights([np.eye(3)[None, None], np.ones(3)])
    model.layers[-1].set_weights([np.array([[2.5, -2.5], [0, 0], [-2.5, 2.5]]), np.zeros(2)])
    return model


def pictures() -> Iterator[list[Any]]:
    """To calibrate with: noise, and the ends of the range."""
    rng = np.random.default_rng(1)
    for value in (-1.0, 1.0):
        yield [np.full((1, SIZE, SIZE, 3), value, np.float32)]
    for _ in range(30):
        low, high = np.sort(rng.uniform(-1, 1, (2, 3)), axis=0)
        yield [rng.uniform(low, high, (1, SIZE, SIZE, 3)).astype(np.float32)]


def main(folder: Path) -> None:
    """Write all forms."""
    model = classifier()
    for name in ("float32", "dynamic range", "float16", "int8", "uint8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if name != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if name.endswith("int8"):
            converter.representative_dataset = pictures
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = getattr(tf, name)
        (folder / f"{name}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

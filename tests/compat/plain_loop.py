"""The loop that documentation shows for a TFLite classifier, with nothing but numpy and an interpreter.

    python tests/compat/plain_loop.py RUNTIME FOLDER

RUNTIME is ai-edge-litert, tflite-runtime or tf.lite. FOLDER is what `files.write` made. Prints the version of the
runtime and for each model the scores of each picture, as JSON. This file imports nothing of Bittern.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def interpreter_of(runtime: str) -> tuple[Any, str]:
    """The class `Interpreter` of a runtime, and the runtime's version."""
    if runtime == "tf.lite":
        import tensorflow as tf

        return tf.lite.Interpreter, tf.__version__
    if runtime == "tflite-runtime":
        from tflite_runtime.interpreter import Interpreter
    else:
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter, metadata.version(runtime)


def scores(interpreter: Any, picture: Any, stated: dict[str, Any]) -> list[float]:
    """Scores of one picture.

    Args:
        interpreter: with its tensors allocated.
        picture: of the network's size, shape (H, W, 3), RGB, uint8; for a grey network (H, W, 1).
        stated: what the model's owner knows: `mean` and `std` of the pixels, None for a network that takes the bytes;
            `labels`; `channels_first`; `logits`; `single`, for the score of the first label alone.
    """
    taken = interpreter.get_input_details()[0]
    values = picture.transpose(2, 0, 1) if stated["channels_first"] else picture
    if stated["mean"] is None:
        values = values.astype(np.int16) - (128 if taken["dtype"] == np.int8 else 0)
    else:
        values = (values.astype(np.float32) - stated["mean"]) / stated["std"]
        if taken["dtype"] != np.float32:
            scale, zero_point = taken["quantization"]
            limits = np.iinfo(taken["dtype"])
            values = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
    batch = np.broadcast_to(values, (taken["shape"][0], *values.shape))
    interpreter.set_tensor(taken["index"], batch.astype(taken["dtype"]))
    interpreter.invoke()
    given = interpreter.get_output_details()[-1]
    raw = interpreter.get_tensor(given["index"])
    scale, zero_point = given["quantization"]
    out = ((raw.astype(np.float64) - zero_point) * scale if scale else raw.astype(np.float64)).reshape(-1)
    if stated["single"]:
        return [float(out[0]), float(1 - out[0])]
    out = out[: len(stated["labels"])]  # of the first picture of a batch
    if stated["logits"]:
        out = np.exp(out) / np.exp(out).sum()
    return [float(score) for score in out]


def main(runtime: str, folder: Path) -> None:
    """Print the scores of all models."""
    make, version = interpreter_of(runtime)
    result = {}
    for name, stated in json.loads((folder / "models.json").read_text()).items():
        interpreter = make(model_path=stated["file"])
        pictures = np.load(stated["pictures"])
        if stated["size"] is not None:
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [1, *pictures.shape[1:]])
        interpreter.allocate_tensors()
        result[name] = [scores(interpreter, picture, stated) for picture in pictures]
    print(json.dumps({"version": version, "numpy": np.__version__, "scores": result}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

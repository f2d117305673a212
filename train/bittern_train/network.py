"""MobileNetV2 in two parts: a frozen body whose output is cached, and a tail that is fine-tuned with its head."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError

SIZE = 224
# Keras' own file for `imagenet`, and where it looks for it.
IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
_BATCH = 64

Floats = npt.NDArray[np.float32]


class Network:
    """A MobileNetV2 1.0 at 224 that can be trained several times from the same start.

    Attributes:
        body: from the picture to the output of the layer `cut`; never trained.
        tail: from there to the pooled features, (n, 1280); batch norms stay in inference mode.
    """

    def __init__(self, weights: str, cut: str, noise: float) -> None:
        """Build it.

        Args:
            weights: "imagenet", "none", or the path of an .h5 file without the top.
            cut: name of the last frozen layer.
            noise: standard deviation of the noise after every linear bottleneck of the tail, in training only.

        Raises:
            ConfigurationError: weights that cannot be had or do not fit, or no such layer.
        """
        self.base = _base(weights)
        names = [layer.name for layer in self.base.layers]
        if cut not in names[1:-1]:
            raise ConfigurationError(f"recipe.cut: MobileNetV2 has no layer {cut!r}, for example block_6_project_BN")
        self.body = keras.Model(self.base.input, self.base.get_layer(cut).output)
        self.tail = _tail(self.base, cut, noise)
        for layer in self.tail.layers:
            # A frozen batch norm uses its stored statistics in training too, so what the cache holds stays true.
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        self._noises = [layer for layer in self.tail.layers if isinstance(layer, keras.layers.GaussianNoise)]
        self._start = self.tail.get_weights()
        self.body_features = self.body.output.shape[1:]

    def settle(self, tensors: npt.NDArray[np.uint8]) -> None:
        """Give random weights batch norm statistics of real pictures, (n, 224, 224, 3) uint8 RGB.

        Batch norms are frozen in training, and with the statistics 0 and 1 of new ones a random network gives the same
        for every picture.
        """
        norms = [x for x in self.base.layers if isinstance(x, keras.layers.BatchNormalization)]
        for layer in norms:
            layer.trainable, layer.momentum = True, 0.5
        for start in range(0, len(tensors), _BATCH):
            self.base(scale(tensors[start : start + _BATCH]), training=True)
        for layer in norms:
            layer.trainable = False
        self._start = self.tail.get_weights()

    def reset(self, seed: int) -> None:
        """Put the tail back to the weights it was built with, and its noise to the beginning of a seed's."""
        self.tail.set_weights(self._start)
        for number, layer in enumerate(self._noises):
            # Keras seeds a layer when it is built, by chance: two processes would never train alike.
            layer.seed_generator.state.assign(np.array([seed, number << 20], np.uint32))

    def classifier(self, head: keras.layers.Dense) -> keras.Model:
        """The whole network, (1, 224, 224, 3) float32 in [-1, 1] to scores; conversion wants the batch of one."""
        picture = keras.Input((SIZE, SIZE, 3), batch_size=1, name="image")
        return keras.Model(picture, head(self.base(picture)), name="bittern")


def scale(tensors: npt.NDArray[np.uint8]) -> Floats:
    """What the weights expect: x / 127.5 - 1 (keras.applications, mode "tf"); folded into the int8 model's input."""
    return tensors.astype(np.float32) / np.float32(127.5) - np.float32(1)


def features(
    model: keras.Model, tensors: Iterable[npt.NDArray[np.uint8]], shape: tuple[int, ...]
) -> npt.NDArray[np.float16]:
    """Run pictures through a model and keep its output, as float16 to halve the memory.

    Args:
        model: the frozen body.
        tensors: pictures (copies, 224, 224, 3) uint8 RGB, one array a sample.
        shape: (samples, copies).

    Returns:
        (samples, copies, ...) float16.
    """
    forward = compiled(model)
    kept = np.empty((shape[0] * shape[1], *model.output.shape[1:]), np.float16)
    done = 0
    for batch in _batches(tensors):
        outputs = forward(scale(batch)).numpy()
        kept[done : done + len(outputs)] = outputs
        done += len(outputs)
    return kept.reshape(*shape, *kept.shape[1:])


@functools.lru_cache(maxsize=4)
def compiled(model: keras.Model) -> Any:
    """A model's forward pass as a graph: (n, ...) float32 in, a tensor out."""
    import tensorflow as tf

    # Any number of pictures at once: the last batch, which is smaller, needs no second trace.
    batches = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32)

    @tf.function(input_signature=[batches])  # type: ignore[untyped-decorator]
    def forward(batch: Any) -> Any:
        return model(batch, training=False)

    return forward


def _batches(tensors: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    held: list[npt.NDArray[np.uint8]] = []
    count = 0
    for part in tensors:
        held.append(part)
        count += len(part)
        while count >= _BATCH:
            joined = np.concatenate(held)
            yield joined[:_BATCH]
            held = [joined[_BATCH:]]
            count -= _BATCH
    if count:
        yield np.concatenate(held)


def _base(weights: str) -> keras.Model:
    chosen: str | None
    if weights == "none":
        chosen = None
    elif weights == "imagenet":
        chosen = "imagenet"
    else:
        if not Path(weights).is_file():
            raise ConfigurationError(f"--weights: no file {weights}; expected a path, imagenet or none")
        chosen = weights
    try:
        return keras.applications.MobileNetV2(
            input_shape=(SIZE, SIZE, 3), include_top=False, weights=chosen, pooling="avg"
        )
    except Exception as error:  # Keras raises plain Exception for a failed download
        if weights == "imagenet":
            where = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / IMAGENET_FILE
            raise ConfigurationError(
                f"--weights imagenet: cannot be fetched here: put {IMAGENET_FILE} (keras.applications, MobileNetV2) "
                f"at {where}, or give a file with --weights PATH"
            ) from error
        raise ConfigurationError(f"--weights {weights}: not weights of MobileNetV2 1.0 without the top") from error


def _tail(base: keras.Model, cut: str, noise: float) -> keras.Model:
    # The tail calls the layers of the base themselves: training the one trains the other. Bottlenecks are where int8
    # is coarsest (a step is 0.2 to 0.4 there, elsewhere 0.02): noise of that size makes the tail indifferent to it.
    start = keras.Input(base.get_layer(cut).output.shape[1:])
    outputs = {cut: keras.layers.GaussianNoise(noise)(start) if noise else start}
    for layer in base.layers[[x.name for x in base.layers].index(cut) + 1 :]:
        parents = [outputs[node.operation.name] for node in layer._inbound_nodes[0].parent_nodes]
        output = layer(parents[0] if len(parents) == 1 else parents)
        if noise and layer.name.endswith("_project_BN"):
            output = keras.layers.GaussianNoise(noise)(output)
        outputs[layer.name] = output
    return keras.Model(start, outputs[base.layers[-1].name])

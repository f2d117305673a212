"""Keras classifiers that were trained elsewhere: wrapped so that conversion takes them like a run of our own.

Whatever a network expects of its pixels becomes its first layer, whatever is missing behind its last one is added, and
the result takes (1, size, size, 3) in [-1, 1], as the float parent of every model folder does. The pictures of
`calibrate` calibrate, and the others, with augmented copies, are the parity check.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from bittern.errors import BitternError, ConfigurationError, one_line
from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import labels as label_files
from bittern.model.input_maker import SCALINGS
from bittern.model.manifest import Manifest, Threshold
from bittern.stated import PixelKind
from bittern.system import fileio
from bittern.system.progress import Progress, counted
from bittern_convert import calibration, card, copies, inputs, package, parity, run
from bittern_convert.copies import UnseenCopies
from bittern_convert.parity import Outcome
from bittern_convert.run import Run
from bittern_convert.task import Backbone, Task

# Suffixes of a single file; a SavedModel is a folder with this file in it.
SUFFIXES = (".keras", ".h5", ".hdf5")
SAVED_MODEL = "saved_model.pb"
# Scores that add up to one do so as closely as this.
_SUM = 1e-2
_MAX_LABELS_BYTES = 2**20
# Weights of red, green and blue in grey (ITU-R BT.601), as OpenCV and Pillow have them.
_GREY = (0.299, 0.587, 0.114)


class Question(NamedTuple):
    """What a network cannot say of itself.

    Attributes:
        labels: one for each output, in order; of a single output first the label of 0, then that of 1.
        alarm: those that raise an alarm.
        nothing: those that mean "nothing of interest".
        pixels: what it expects of the pixels.
    """

    labels: tuple[str, ...]
    alarm: tuple[str, ...]
    nothing: tuple[str, ...]
    pixels: PixelKind


def is_keras(source: Path) -> bool:
    """Whether a path is a Keras file or a SavedModel, not a run."""
    return source.suffix.lower() in SUFFIXES or (source / SAVED_MODEL).is_file()


def read_labels(file: Path) -> tuple[str, ...]:
    """The labels of a file, see `bittern.model.labels`.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return tuple(label_files.read(fileio.read_regular(file, _MAX_LABELS_BYTES)))
    except OSError as error:
        raise ConfigurationError(f"--labels {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"--labels {file}: {error}") from None


def convert(
    source: Path,
    out: Path,
    question: Question,
    *,
    calibrate: Path,
    name: str,
    version: str,
    replace: bool,
    seed: int,
    progress: Progress,
) -> tuple[Manifest, Outcome]:
    """Convert a Keras classifier into a model folder.

    Args:
        source: a .keras or .h5 file, or the folder of a SavedModel.
        out: the model folder to make.
        question: labels, alarms and pixels.
        calibrate: pictures in a folder per label, with an index or loose. Loose ones, and labels that the network does
            not have, count as what the float network answers. Splits other than train, val and extra are reported on.
        name: of the model.
        version: of the model.
        replace: whether `out` may exist already.
        seed: of the copies, and of what calibrates.
        progress: gets each step.

    Raises:
        ConfigurationError: the file is no classifier of one picture, labels do not match, or there are no pictures.
        ParityFailed: int8 is not close enough to float.
        BitternError: int8 cannot hold a layer; the message names it.
    """
    package.check_target(out, name, version, replace)
    loaded = load(source)
    model = wrapped(loaded, question, source, progress)
    size = int(model.input_shape[1])
    task = _task(source, question, size, name)
    items = _items(model, calibrate, task, progress)
    with tempfile.TemporaryDirectory(prefix="bittern-") as folder:
        _as_run(Path(folder), source, items, task, calibrate, seed)
        try:
            return package.convert(
                Path(folder),
                out,
                data=None,
                name=name,
                version=version,
                replace=replace,
                progress=progress,
                model=model,
            )
        except package.ParityFailed as error:
            # The sheet of the pictures that flipped is gone with the folder.
            raise package.ParityFailed(error.reason) from None
        except BitternError:
            raise
        except Exception as error:  # the converter raises its own kinds
            raise BitternError(f"{source}: {_unconvertible(model, error)}") from error


def load(source: Path) -> Any:
    """Read a Keras model, or wrap a SavedModel.

    Raises:
        ConfigurationError: it cannot be read, or is none.
    """
    import keras

    class Depthwise(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        # Keras 2 wrote a `groups` of 1 that Keras 3 does not know: every export of Teachable Machine has it.
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            return keras.layers.DepthwiseConv2D(**{key: value for key, value in config.items() if key != "groups"})

    if source.is_dir():
        return _saved_model(source)
    if not source.is_file():
        raise ConfigurationError(f"no file {source}: expected a .keras or .h5 file, or a SavedModel folder")
    try:
        model = keras.models.load_model(source, compile=False, custom_objects={"DepthwiseConv2D": Depthwise})
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds
        line = one_line(error)
        if "Lambda" in str(error) or "lambda" in str(error):
            line = "has a Lambda layer, which is code: replace it by a layer of Keras, and save it again"
        elif "File not found" in str(error):  # Keras says so of a .keras file that is no archive
            line = "damaged, or no .keras file"
        elif "No model config" in str(error):
            line = "has weights only: save the whole model (model.save)"
        elif "Could not locate class" in str(error) or "Unknown layer" in str(error):
            line = "has a layer that is not Keras' own: save it without, or as a SavedModel"
        raise ConfigurationError(f"{source}: cannot be loaded as a Keras model: {line[:200]}") from None
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigurationError(
            f"{source}: {len(model.inputs)} inputs and {len(model.outputs)} outputs; a classifier of one picture has "
            "one of each"
        )
    return model


def _saved_model(folder: Path) -> Any:
    import keras
    import tensorflow as tf

    try:
        signatures = tf.saved_model.load(str(folder)).signatures
        signature = signatures["serving_default"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{folder}: not a SavedModel with the signature serving_default: {one_line(error)[:200]}"
        ) from None
    pictures = signature.structured_input_signature[1]
    outputs = {key: spec for key, spec in signature.structured_outputs.items() if spec.dtype == tf.float32}
    if len(pictures) != 1 or len(outputs) != 1:
        raise ConfigurationError(
            f"{folder}: inputs {', '.join(pictures)}, outputs of numbers {', '.join(outputs)}; a classifier of one "
            "picture has one of each"
        )
    (spec,), (scores,) = pictures.values(), outputs
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serving_default")
    picture = keras.Input(tuple(spec.shape[1:]), name=next(iter(pictures)))
    return keras.Model(picture, layer(picture)[scores])


def wrapped(model: Any, question: Question, source: Path, progress: Progress) -> Any:
    """The model as conversion takes it, (1, size, size, 3) in [-1, 1] to (1, labels) scores.

    Raises:
        ConfigurationError: its input is no picture, or its outputs do not match the labels.
    """
    import keras
    from keras import layers

    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[3] not in (1, 3) or None in shape[1:3]:
        raise ConfigurationError(
            f"{source}: takes {shape}; expected pictures (batch, size, size, 3), or 1 for grey, of a fixed size"
        )
    if shape[1] != shape[2]:
        raise ConfigurationError(
            f"{source}: takes pictures of {shape[2]} x {shape[1]} px; the network sees a square: train it with one"
        )
    answers = tuple(model.outputs[0].shape)
    count = answers[-1]
    if len(answers) != 2 or count is None:
        raise ConfigurationError(f"{source}: gives {answers}; expected scores (batch, labels)")
    labels = question.labels
    if len(labels) != (2 if count == 1 else count):
        expected = "two labels, of 0 and of 1" if count == 1 else f"{count} labels"
        raise ConfigurationError(f"{source}: has {count} outputs, which take {expected}; --labels has {len(labels)}")
    picture = keras.Input((shape[1], shape[2], 3), batch_size=1, name="image")
    x = picture
    if question.pixels != "-1..1" or shape[3] == 1:
        x = _pixels(question.pixels, grey=shape[3] == 1)(picture)
    scores = model(x)
    end = _behind(count, picture, scores, progress)
    return keras.Model(picture, end if end is not None else layers.Identity()(scores), name="bittern")


def _pixels(values: PixelKind, *, grey: bool) -> Any:
    """A layer from [-1, 1] to what the network expects: a 1 x 1 convolution, which int8 has."""
    from keras import layers

    scaling = SCALINGS[values]
    scale, bias = scaling.of_signed()
    kernel = np.diag(scale)
    if grey:
        grey_of = np.array(_GREY)[:, None]
        kernel, bias = kernel @ grey_of, bias @ grey_of
    elif scaling.colour == "BGR":
        kernel, bias = kernel[:, ::-1], bias[::-1]
    layer = layers.Conv2D(kernel.shape[1], 1, name="pixels")
    layer.build((None, None, None, 3))
    layer.set_weights([kernel[None, None].astype(np.float32), bias.astype(np.float32)])
    return layer


def _behind(count: int, picture: Any, scores: Any, progress: Progress) -> Any:
    """What is missing behind the last layer: nothing (None), a softmax, a sigmoid, the score of the other label."""
    import keras
    from keras import layers

    size = picture.shape[1]
    probe = np.random.default_rng(1).uniform(-1, 1, (16, size, size, 3)).astype(np.float32)
    probe[0], probe[1] = -1, 1
    raw = np.asarray(keras.Model(picture, scores).predict(probe, batch_size=1, verbose=0), np.float64)
    are_scores = bool((raw >= 0).all() and (raw <= 1).all())
    if count == 1:
        if not are_scores:
            progress.say("the output is no score from 0 to 1: a sigmoid is put behind it")
            scores = layers.Activation("sigmoid", name="sigmoid")(scores)
        other = layers.Rescaling(-1.0, 1.0, name="other")(scores)
        return layers.Concatenate(name="both")([other, scores])
    if not are_scores:
        progress.say("the outputs are no scores from 0 to 1: a softmax is put behind them")
        return layers.Softmax(name="softmax")(scores)
    if np.abs(raw.sum(1) - 1).max() > _SUM:
        progress.say("the scores do not add up to 1: each is taken as it is")
    return None


def _task(source: Path, question: Question, size: int, name: str) -> Task:
    try:
        return msgspec.convert(
            {
                "name": re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("_.-") or "task",
                "question": f"which of {', '.join(question.labels)}?"[:200],
                "labels": question.labels,
                "alarm": question.alarm,
                "nothing": question.nothing,
                "sources": [f"the Keras model {source.name}, trained elsewhere; it takes pixels {question.pixels}"],
                "limits": ["What it was trained on, and what it does badly, is known to whoever trained it."],
                "backbone": msgspec.to_builtins(Backbone(name=f"Keras model {source.name}", size=size)),
            },
            Task,
        )
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"--labels, --alarm, --nothing: {error}") from None


def _items(model: Any, calibrate: Path, task: Task, progress: Progress) -> list[Item]:
    """The pictures, each with a split, a label of the network's and the digest of its file."""
    items: list[Item] = []
    unlabelled = 0
    given = dataset.read(calibrate)
    for item in counted(given, progress, "read pictures", len(given)):
        tensor = inputs.tensor(item, task.field_of_view, task.backbone.size)
        if tensor is None:
            progress.say(f"skipped {item.path}: cannot be read as a picture")
            continue
        label = item.label
        if label not in task.labels:
            unlabelled += 1
            label = task.labels[int(_answers(model, tensor).argmax())]
        sha256 = copies.picture_digest(item.path)
        columns = {"set": calibrate.resolve().name, "sha256": sha256}
        items.append(
            item._replace(label=label, split=item.split or "train", group=item.group or item.name, columns=columns)
        )
    if not items:
        raise ConfigurationError(f"--calibrate {calibrate}: no picture that can be read")
    if unlabelled:
        progress.say(
            f"{unlabelled} of {len(items)} pictures have no label of the model's ({', '.join(task.labels[:8])}): for "
            "them the float network's answer counts as correct"
        )
    missing = set(task.labels) - {item.label for item in items}
    if missing:
        raise ConfigurationError(
            f"--calibrate {calibrate}: no picture of {', '.join(sorted(missing))[:200]}: int8 would not be calibrated "
            "for it; add some of every label"
        )
    return items


def _answers(model: Any, tensor: Pixels) -> npt.NDArray[np.float32]:
    return np.asarray(model(tensor.astype(np.float32) / np.float32(127.5) - 1, training=False))


def _as_run(folder: Path, source: Path, items: Sequence[Item], task: Task, calibrate: Path, seed: int) -> None:
    """Leave what conversion reads of a run, all but the model."""
    photographs = copies.photographs(task, items)
    count = calibration.copies(items, task.labels, seed, parity.PICTURES)
    each = max(1, -(-count // len(photographs)))
    # No sha256: they are drawn for the first time by conversion.
    drawn = UnseenCopies(samples=tuple(range(len(photographs))), first=1, each=each, sha256="")
    made = Run(
        id=card.FOREIGN,
        task=task,
        data=str((calibrate if calibrate.is_dir() else calibrate.parent).resolve()),
        data_sha256=dataset.digest(items),
        weights_sha256=_digest(source),
        seed=seed,
        thresholds={"default": Threshold(on=0.5, off=0.4, chosen_for="not chosen: an even chance")},
        metrics={},
        choice={},
        pictures={"trained_on": {}, "copies": 0, "unreadable": 0},
        skipped=[],
        versions=run.environment(),
        revision="",
        seconds=0.0,
        copies=drawn,
    )
    index.write(folder / run.INDEX, items)
    (folder / run.FILE).write_bytes(msgspec.json.encode(made))


def _digest(source: Path) -> str:
    """sha256 (hex) of a file; of all files of a SavedModel in the order of names: its weights are beside its graph."""
    files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _unconvertible(model: Any, error: Exception) -> str:
    """Which layer int8 cannot hold, as far as the converter says which operation it is."""
    text = str(error)
    refused = set(re.findall(r"op: '(\w+)'", text)) | {f"Flex{name}" for name in re.findall(r"\btf\.([A-Z]\w+)", text)}
    for name, tensor in _operations(model) if refused else []:
        layers = [
            one
            for one in model._flatten_layers(include_self=False, recursive=True)
            if one.name in tensor and not hasattr(one, "layers")  # not the model that the layer is in
        ]
        if name in refused and layers:
            layer = max(layers, key=lambda one: len(one.name))
            kind, operation = type(layer).__name__, name.removeprefix("Flex")
            return f"int8 cannot hold layer {layer.name!r} ({kind}, operation {operation}): replace it, and train again"
    what = f": it has no operation {', '.join(sorted(refused)).replace('Flex', '')}" if refused else ""
    return f"cannot be converted to int8{what or ': ' + one_line(error)[:200]}"


def _operations(model: Any) -> list[tuple[str, str]]:
    """The operations of the model in float32: kind, and the name of the output, which has the layer's in it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytes(converter.convert()), 0))
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    return [
        (
            (code.customCode or b"").decode() or kinds.get(code.builtinCode, ""),
            graph.subgraphs[0].tensors[operator.outputs[0]].name.decode(errors="replace"),
        )
        for operator in graph.subgraphs[0].operators
        for code in [graph.operatorCodes[operator.opcodeIndex]]
    ]

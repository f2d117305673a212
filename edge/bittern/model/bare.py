"""What a bare .tflite file takes and gives: from the file itself, else from what its owner states about it.

Pixels: as stated; else, of a quantized input, from its quantization; else from the normalization in the file's
metadata; else from how the network quantizes its float input. Scores: as stated; else by the operation that makes the
output, or by its quantization. What the file does not say and the owner has not stated is never guessed: the file is
refused, with the option to state it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET

from bittern.errors import ModelRefused, did_you_mean
from bittern.model.input_maker import SCALINGS, Scaling
from bittern.model.manifest import Head, Input, Threshold
from bittern.model.operating import off_of
from bittern.model.runtime import LoadedModel, Tensor, size_axes
from bittern.model.tflite_file import Quantization, TfliteFile
from bittern.stated import PIXELS, SCORE_RULES, PixelKind, ScoreRule
from bittern.system import fileio

MAX_LABELS_BYTES = 2**20
# A longer side takes more memory than a trial allows (`bittern.model.trial`).
MAX_SIDE = 4096
# A model without a manifest has no threshold of its own: "more likely than not".
_EVEN = Threshold(on=0.5, off=0.5, chosen_for="no manifest: an even chance")
# An output of one of these, without a softmax or a sigmoid behind it, is not between 0 and 1.
_LOGITS = {"FULLY_CONNECTED", "CONV_2D", "ADD"}
_DTYPES = ("uint8", "int8", "float32")


class Bare(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a bare .tflite file states about it.

    Attributes:
        labels: a file with the labels (`bittern.model.labels`); None takes those that are packed into the file.
        pixels: what the network takes for the bytes of a picture (`stated.PIXELS`); None if the file says it.
        scores_by: how its outputs become scores, one of `stated.SCORE_RULES`; None if the file says it.
        score_of: which of two labels has the score, for a network that gives a single value.
        size: height and width of the input, for a model that leaves them free.
        alarm: the labels that raise an alarm.
        nothing: the labels that mean "nothing of interest".
        threshold: the score from which an alarm is on; None: 0.5.
    """

    labels: str | None = None
    pixels: str | None = None
    scores_by: str | None = None
    score_of: str | None = None
    size: tuple[int, int] | None = None
    alarm: tuple[str, ...] = ()
    nothing: tuple[str, ...] = ()
    threshold: float | None = None


class Unstated(ModelRefused):
    """A file does not say something, and its owner has not stated it either.

    Attributes:
        problem: in one line, without what to do.
        key: the field of `Bare` that is missing.
        values: what it may be.
    """

    def __init__(self, problem: str, key: str, values: tuple[str, ...]) -> None:
        option = f"--{key.replace('_', '-')}"
        super().__init__(f"{problem}: {' or '.join(f'{option} {value}' for value in values)}")
        self.problem, self.key, self.values = problem, key, values

    def in_configuration(self) -> str:
        """The message, with the key of the configuration in place of the option of a command."""
        written = [value if value.isdigit() else f'"{value}"' for value in self.values]
        written = [f"[{value}]" if self.key == "alarm" else value for value in written]
        either = " or ".join(f"{self.key} = {value}" for value in written)
        return f"{self.problem}: {either} in its [[model]] table of the configuration"


class BareNetwork(NamedTuple):
    """A network as Bittern runs it.

    Attributes:
        input: how the picture becomes its tensor.
        head: its labels and scores.
        output: the tensor of the head.
        pixels_from: what says what the pixels are.
        scores_from: what says how scores are made.
    """

    input: Input
    head: Head
    output: Tensor
    pixels_from: str
    scores_from: str


def check_size(file: Path, data: bytes, size: tuple[int, int] | None) -> None:
    """Refuse a model whose input has no size before it is run on one pixel, and a size for one that has its own.

    Raises:
        ModelRefused: see above.
    """
    if size is not None and not all(1 <= side <= MAX_SIDE for side in size):
        raise ModelRefused(f"{file}: expected a size from 1 to {MAX_SIDE}, got {size[1]} x {size[0]}")
    signature = TfliteFile(data).input_signature()
    axes = size_axes(signature) if signature is not None else None
    if signature is None or axes is None:
        return
    height, width = (signature[axis] for axis in axes)
    if min(height, width) > 0:
        if size is not None and size != (height, width):
            raise ModelRefused(
                f"{file}: its pictures have {width} x {height} pixels: leave out the size, or give this one"
            )
    elif size is None:
        raise Unstated(f"{file}: takes pictures of any size: state the one that it was trained with", "size", ("224",))


def describe(file: Path, data: bytes, loaded: LoadedModel, bare: Bare) -> BareNetwork:
    """What a bare file takes and gives.

    Args:
        file: its path, for messages.
        data: its contents.
        loaded: the same, open.
        bare: what the owner states.

    Raises:
        ModelRefused: it is no classifier, or of a kind that does not run here; what differs, and what to do.
        Unstated: see there.
    """
    contents = TfliteFile(data)
    tensor = _input(file, loaded)
    names, origin = _labels(file, contents, bare.labels)
    batch = tensor.shape[0]
    # Of a batch the first entry counts.
    outputs = [o._replace(shape=(1, *o.shape[1:])) if o.shape[:1] == (batch,) != o.shape else o for o in loaded.outputs]
    output = _output(file, outputs, len(names), origin)
    description, pixels_from = _pixels(file, contents, tensor, bare.pixels)
    rule, scores_from = _rule(file, contents, output, bare.scores_by)
    if values_of(output) == 1:
        names = _pair(file, names, bare.score_of)
    head = _head(file, origin, names, output, rule, bare)
    return BareNetwork(description, head, output, pixels_from, scores_from)


def _list(tensors: list[Tensor]) -> str:
    more = f" and {len(tensors) - 4} more" if len(tensors) > 4 else ""
    return (", ".join(str(t) for t in tensors[:4]) or "nothing") + more


def _input(file: Path, loaded: LoadedModel) -> Tensor:
    takes = f"{file}: takes {_list(loaded.inputs)}"
    if len(loaded.inputs) != 1:
        raise ModelRefused(f"{takes}: expected one input, a picture: export the classifier by itself")
    (tensor,) = loaded.inputs
    if size_axes(tensor.shape) is None:
        raise ModelRefused(
            f"{takes}: expected a picture of one or three channels, (1, height, width, 3): export it with such an input"
        )
    if tensor.dtype not in _DTYPES:
        raise ModelRefused(f"{takes}: expected uint8, int8 or float32: convert it with such an inference_input_type")
    return tensor


def values_of(output: Tensor, batch: int = 1) -> int:
    """The number of values of an output for one picture of a batch; 0 if it is no list of values."""
    shape = output.shape[1:] if output.shape[:1] == (batch,) != output.shape else output.shape
    long = [n for n in shape if n != 1]
    return 0 if len(long) > 1 else long[0] if long else 1


def _output(file: Path, outputs: list[Tensor], labels: int, origin: str) -> Tensor:
    gives = f"{file}: gives {_list(outputs)}"
    if len(outputs) == 4 and any(math.prod(output.shape) == 1 for output in outputs):
        raise ModelRefused(
            f"{gives}: this looks like an object detector, which says where things are: take a model for image "
            "classification"
        )
    fitting = [o for o in outputs if values_of(o) and o.dtype in _DTYPES]
    if not fitting:
        what = "a detector or a segmenter" if any(not values_of(o) for o in outputs) else "no scores"
        raise ModelRefused(
            f"{gives}: this looks like {what}: expected a value of uint8, int8 or float32 for each label: take a model "
            "for image classification"
        )
    chosen = [o for o in fitting if values_of(o) == labels or (values_of(o) == 1 and labels <= 2)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise ModelRefused(f"{gives}: {len(chosen)} of them have {labels} values: export it with one output")
    has = f"has {labels} label{'' if labels == 1 else 's'}"
    if len(fitting) > 1:
        raise ModelRefused(f"{origin}: {has}, but no output of the model has as many: it gives {_list(outputs)}")
    values = values_of(fitting[0])
    if values == 1:
        raise ModelRefused(f"{origin}: {has}, but the model's output is a single value: expected two labels, or one")
    background = ": is the first one for the background?" if values == labels + 1 else ""
    raise ModelRefused(f"{origin}: {has}, but the model's output has {values} values{background}")


# --- pixels -----------------------------------------------------------------------------------------------------------


def _pixels(file: Path, contents: TfliteFile, tensor: Tensor, stated: str | None) -> tuple[Input, str]:
    axes = size_axes(tensor.shape)
    assert axes is not None
    channels = tensor.shape[3] if axes == (1, 2) else tensor.shape[1]
    scaling, origin = _scaling(file, contents, tensor, stated, channels)
    height, width = (tensor.shape[axis] for axis in axes)
    try:
        made = Input(
            name=tensor.name,
            shape=tensor.shape,  # type: ignore[arg-type]
            dtype=tensor.dtype,  # type: ignore[arg-type]
            colour="grey" if channels == 1 else scaling.colour if scaling else "RGB",  # type: ignore[arg-type]
            crop="center-square" if height == width else "center-rectangle",
            scale=tensor.scale,
            zero_point=tensor.zero_point,
            layout="NCHW" if axes == (2, 3) else UNSET,
            mean=scaling.mean if scaling else UNSET,
            std=scaling.std if scaling else UNSET,
        )
    except ValueError as error:
        raise ModelRefused(f"{file}: {error}") from None
    return made, origin


def _scaling(
    file: Path, contents: TfliteFile, tensor: Tensor, stated: str | None, channels: int
) -> tuple[Scaling | None, str]:
    """The scaling of the pixels, None if their bytes are the quantized values; and what says so."""
    if stated is not None:
        scaling = next((scaling for name, scaling in SCALINGS.items() if name == stated), None)
        if scaling is None:
            raise ModelRefused(f"expected pixels {', '.join(PIXELS)}, got {stated!r}{did_you_mean(stated, PIXELS)}")
        if channels == 1 and len(scaling.mean) > 1:
            raise ModelRefused(f"{file}: takes grey pictures, and pixels {stated} are of three channels")
        return _quantized(tensor, scaling), "stated"
    if tensor.dtype == "uint8" and tensor.scale <= 0:
        return None, "no quantization"
    if tensor.dtype != "float32" and tensor.scale > 0:
        nearest = _nearest(tensor.scale, tensor.zero_point, tensor.dtype, steps=1.5)
        if nearest is not None:
            return None, f"{nearest}, by its quantization"
    metadata = contents.normalization()
    if metadata is not None and len(metadata.mean) in (1, channels):
        if tensor.dtype == "uint8" and not any(metadata.mean) and set(metadata.std) == {1.0}:
            return None, "metadata"  # of a quantized model: its pixels are not normalized
        return _quantized(tensor, Scaling(metadata.mean, metadata.std)), "metadata"
    inner: Quantization | None = Quantization(tensor.scale, tensor.zero_point, tensor.dtype)
    if tensor.dtype == "float32":
        inner = contents.input_quantization(tensor.handle)
    if inner is not None and inner.scale > 0:
        nearest = _nearest(*inner, steps=25.5)
        if nearest is not None:
            return _quantized(tensor, SCALINGS[nearest]), "quantization"
    raise Unstated(
        f"{file}: takes {tensor.dtype}, and does not say what its pixels are: state what it was trained with",
        "pixels",
        ("0..1", "-1..1"),
    )


def _nearest(scale: float, zero_point: int, dtype: str, *, steps: float) -> PixelKind | None:
    """The scaling whose smallest and largest value are both within some steps of what a quantization can hold."""
    lowest = -128 if dtype == "int8" else 0
    low, high = scale * (lowest - zero_point), scale * (lowest + 255 - zero_point)
    names: tuple[PixelKind, ...] = ("-1..1", "0..1", "raw")
    for name in names:
        (mean,), (std,), _ = SCALINGS[name]
        if max(abs(low + mean / std), abs(high - (255 - mean) / std)) <= steps * scale:
            return name
    return None


def _quantized(tensor: Tensor, scaling: Scaling) -> Scaling | None:
    """None if the bytes of the picture, with this scaling, are the quantized values, to the next one."""
    if tensor.dtype == "float32":
        return scaling
    lowest = -128 if tensor.dtype == "int8" else 0
    mean, std = np.array(scaling.mean), np.array(scaling.std)
    byte = np.arange(256)[:, None]
    if tensor.scale <= 0 or scaling.colour != "RGB":
        return scaling if tensor.scale > 0 else None
    q = (byte - mean) / std / tensor.scale + tensor.zero_point - lowest
    return None if np.abs(q - byte).max() <= 1.5 else scaling


# --- labels and scores ------------------------------------------------------------------------------------------------


def _labels(file: Path, contents: TfliteFile, stated: str | None) -> tuple[list[str], str]:
    from bittern.model import labels as label_files

    if stated is not None:
        try:
            text, origin = fileio.read_regular(stated, MAX_LABELS_BYTES), stated
        except OSError as error:
            raise ModelRefused(f"{stated}: cannot read the labels ({error.strerror})") from None
    else:
        text, origin = _packed_labels(file, contents), f"{file} (packed labels)"
    try:
        return label_files.read(text), origin
    except ValueError as error:
        raise ModelRefused(f"{origin}: {error}") from None


def _packed_labels(file: Path, contents: TfliteFile) -> bytes:
    missing = Unstated(f"{file}: no labels are packed into it: give a file with one label a line", "labels", ("FILE",))
    archive = contents.packed()
    if archive is None:
        raise missing
    names = [n for n in archive.namelist() if n.endswith(".txt")]
    # Of several translations the one that names no language.
    plain = [n for n in names if not re.search(r"[-_][a-zA-Z]{2,3}(?:[-_][a-zA-Z]{2,4})?\.txt$", n)]
    chosen = [n for n in contents.label_files() if n in names] or plain or names
    if not chosen:
        raise missing
    if len(chosen) != 1:
        several = ", ".join(chosen[:4])
        raise Unstated(
            f"{file}: has several packed label files ({several}): unzip it, and give the right one", "labels", ("FILE",)
        )
    info = archive.getinfo(chosen[0])
    if info.file_size > MAX_LABELS_BYTES:
        raise ModelRefused(f"{file}: packed labels of {info.file_size} bytes are too large")
    try:
        return archive.read(info)
    except Exception:  # zipfile and zlib raise half a dozen kinds on a broken archive
        raise missing from None


def _rule(file: Path, contents: TfliteFile, output: Tensor, stated: str | None) -> tuple[ScoreRule | None, str]:
    """How outputs become scores, None where their values on pictures have to show it; and what says so."""
    if stated is not None and stated not in SCORE_RULES:
        raise ModelRefused(
            f"expected scores by {', '.join(SCORE_RULES)}, got {stated!r}{did_you_mean(stated, SCORE_RULES)}"
        )
    quantized = output.dtype != "float32"
    if quantized and output.scale <= 0:
        raise ModelRefused(f"{file}: output {output} has no quantization")
    limits = np.iinfo(output.dtype) if quantized else None
    low, high = (
        (output.scale * (limits.min - output.zero_point), output.scale * (limits.max - output.zero_point))
        if limits is not None
        else (0.0, 1.0)
    )
    within = -1.5 * output.scale <= low and high <= 1 + 1.5 * output.scale
    if stated is not None:
        if stated == "as-is" and not within:
            raise ModelRefused(
                f"{file}: its output is from {low:.3g} to {high:.3g}, so its values are no scores: expected scores by "
                "softmax or sigmoid"
            )
        if stated == "softmax" and values_of(output) == 1:
            raise ModelRefused(f"{file}: its output is a single value: expected scores by sigmoid or as-is")
        return next(rule for rule in SCORE_RULES if rule == stated), "stated"
    made_by = contents.last_operation(output.handle)
    if made_by in ("SOFTMAX", "LOGISTIC") and within:
        return "as-is", f"{'softmax' if made_by == 'SOFTMAX' else 'sigmoid'} in the model"
    logits: ScoreRule = "sigmoid" if values_of(output) == 1 else "softmax"
    if made_by in _LOGITS:
        return logits, "no softmax or sigmoid in the model"
    if quantized and within and abs(high - low - 1) <= 1.5 * output.scale:
        return "as-is", "quantization from 0 to 1"
    return (logits, f"outputs from {low:.3g} to {high:.3g}") if quantized else (None, "")


def _pair(file: Path, names: list[str], score_of: str | None) -> list[str]:
    """The two labels of a single value: that of 0, then that of 1."""
    if len(names) == 1:
        return [f"not {names[0]}", names[0]]
    if score_of is None:
        problem = f"{file}: gives a single value, and does not say of which label it is the score: state it"
        raise Unstated(problem, "score_of", tuple(names))
    if score_of not in names:
        raise ModelRefused(f"{file}: has no label {score_of!r}: expected {' or '.join(names)}")
    return sorted(names, key=lambda name: name == score_of)


def _head(file: Path, origin: str, names: list[str], output: Tensor, rule: ScoreRule | None, bare: Bare) -> Head:
    for label in (*bare.alarm, *bare.nothing):
        if label not in names:
            known = f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
            raise ModelRefused(f"{file}: has no label {label!r}: expected {known}{did_you_mean(label, names)}")
    threshold = _EVEN
    if bare.threshold is not None:
        threshold = Threshold(on=bare.threshold, off=off_of(bare.threshold), chosen_for="no manifest: stated")
    try:
        # Built through msgspec so that the same rules hold as for a manifest.
        return msgspec.convert(
            {
                "task": "bare",
                "output": output.name,
                "labels": names,
                "alarm": bare.alarm,
                "nothing": bare.nothing,
                "dtype": output.dtype,
                "scale": output.scale,
                "zero_point": output.zero_point,
                "thresholds": {"default": msgspec.to_builtins(threshold)},
            }
            | ({"scores_by": rule} if rule in ("softmax", "sigmoid") else {}),
            Head,
        )
    except msgspec.ValidationError as error:
        raise ModelRefused(f"{origin}: {error}") from None


def rule_by_values(values: list[list[float]]) -> tuple[ScoreRule, str]:
    """The rule for an output of float32 that nothing describes, by its values on several pictures."""
    within = all(-1e-3 <= v <= 1 + 1e-3 for row in values for v in row)
    if within and (len(values[0]) == 1 or all(abs(sum(row) - 1) <= 0.02 for row in values)):
        return "as-is", "its values on test pictures"
    return ("sigmoid" if len(values[0]) == 1 else "softmax"), "its values on test pictures, which are no scores"

"""The manifest of a model folder: plain data, schema-versioned, unknown keys refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bittern.errors import ModelRefused
from bittern.system import fileio

SCHEMA = 1
FILE = "manifest.json"
# Of the manifest, and of a file that it has the hash of.
MAX_BYTES, MAX_FILE_BYTES = 4 * 2**20, 16 * 2**20

# One printable line; \Z because $ would allow a trailing line break.
Text = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Score = Annotated[float, Meta(ge=0.0, le=1.0)]
Length = Annotated[int, Meta(ge=1, le=8192)]


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base class of everything in a manifest: an unknown key is an error."""


class Input(Strict, frozen=True, kw_only=True):
    """The one input tensor, and how it is made from a frame (`bittern.model.preprocess`, `bittern.model.input_maker`).

    Models of our own take the bytes of the picture. For those of others the last four keys say what is different.

    Attributes:
        name: name of the tensor in the file.
        shape: (1, size, size, 3); of a model of others (batch, height, width, channels), or with the layout NCHW
            (batch, channels, height, width).
        dtype: of the tensor.
        colour: channel order of the tensor, or "grey": the luma of ITU-R BT.601.
        crop: "center-square"; "center-rectangle", of the shape of the input, if that is no square.
        resize: "area-by-whole-factor+linear-exact".
        scale: quantization, real = scale * (q - zero_point); 0 for float32.
        zero_point: see scale.
        layout: left out: NHWC.
        mean: real = (byte - mean) / std, for all channels or for each in the order of the tensor. Left out: the bytes
            are the quantized values, as they are in uint8 and less 128 in int8.
        std: see mean.
    """

    name: Text
    shape: tuple[Length, Length, Length, Length]
    dtype: Literal["uint8", "int8", "float32"] = "uint8"
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    crop: Literal["center-square", "center-rectangle"] = "center-square"
    resize: Literal["area-by-whole-factor+linear-exact"] = "area-by-whole-factor+linear-exact"
    scale: float
    zero_point: int
    layout: Literal["NHWC", "NCHW"] | UnsetType = UNSET
    mean: Annotated[tuple[float, ...], Meta(min_length=1, max_length=3)] | UnsetType = UNSET
    std: Annotated[tuple[Annotated[float, Meta(gt=0.0)], ...], Meta(min_length=1, max_length=3)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        channels = self.shape[1] if self.layout == "NCHW" else self.shape[3]
        if channels != (1 if self.colour == "grey" else 3):
            raise ValueError(f"shape {list(self.shape)} does not fit the colour {self.colour} and the layout")
        mean = () if isinstance(self.mean, UnsetType) else self.mean
        std = () if isinstance(self.std, UnsetType) else self.std
        if len(mean) != len(std) or len(mean) not in (0, 1, channels):
            raise ValueError(f"expected mean and std with one value each, or {channels}")
        if not mean and self.dtype == "float32":
            raise ValueError("a float32 input needs mean and std")
        height, width = self.size
        if (self.crop == "center-square") != (height == width):
            raise ValueError(f"crop {self.crop} does not fit an input of {width} x {height} pixels")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.shape[2:4] if self.layout == "NCHW" else self.shape[1:3]


class Threshold(Strict, frozen=True, kw_only=True):
    """An alarm is on from a score of `on`, and off again below `off`; `chosen_for` says how they were chosen."""

    on: Score
    off: Score
    chosen_for: Text


class StillPoint(Strict, frozen=True, array_like=True):
    """A point of the ROC: shares of the pictures with, and of those without an alarm label that reach a threshold."""

    on: Score
    found: Score
    false: Score


class StreamPoint(Strict, frozen=True, array_like=True):
    """At a threshold: the share of the passings found, and false alarms an hour."""

    on: Score
    found: Score
    false_an_hour: Annotated[float, Meta(ge=0.0)]


class Tail(Strict, frozen=True, kw_only=True):
    """How the rate of false alarms falls above the thresholds that streams can show (`bittern.model.operating`).

    Attributes:
        on: the threshold from which it holds.
        false_an_hour: there.
        scale: mean excess of the peaks above it, in log-odds.
        peaks: how many.
    """

    on: Annotated[float, Meta(gt=0.0, lt=1.0)]
    false_an_hour: Annotated[float, Meta(gt=0.0)]
    scale: Annotated[float, Meta(gt=0.0)]
    peaks: Annotated[int, Meta(ge=1)]


class Streams(Strict, frozen=True, kw_only=True):
    """How the daemon's decision did on streams, out of fold.

    Attributes:
        hours: of streams in which every alarm is false.
        passings: number of streams with something that should raise an alarm.
        points: by rising threshold.
        tail: None where there are too few peaks.
    """

    hours: Annotated[float, Meta(ge=0.0)]
    passings: Annotated[int, Meta(ge=0)]
    points: tuple[StreamPoint, ...]
    tail: Tail | None = None


class Head(Strict, frozen=True, kw_only=True):
    """One output tensor: a task with its labels.

    Attributes:
        task: name of the task.
        output: name of the tensor in the file.
        labels: one for each value of the output, in that order; of a single value that of 0, then that of 1.
        alarm: the labels that raise an alarm.
        nothing: the labels that mean "nothing of interest".
        dtype: of the output.
        scale: quantization, value = scale * (q - zero_point); 0 for float32.
        zero_point: see scale.
        scores_by: how the values become scores (`bittern.model.scores`); left out: they are scores.
        thresholds: by name; "default" is always present, and applies to the score of an alarm label.
        stills: out of fold, by rising threshold; models of earlier versions have none.
        streams: None for models of earlier versions, and where no streams were made.
    """

    task: Name
    output: Text
    labels: Annotated[tuple[Text, ...], Meta(min_length=2)]
    alarm: tuple[Text, ...]
    nothing: tuple[Text, ...] = ()
    dtype: Literal["uint8", "int8", "float32"] = "uint8"
    scale: float
    zero_point: int
    scores_by: Literal["softmax", "sigmoid"] | UnsetType = UNSET
    thresholds: dict[Name, Threshold]
    stills: tuple[StillPoint, ...] = ()
    streams: Streams | None = None

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {_some(self.labels)} are not distinct")
        for key in ("alarm", "nothing"):
            for label in getattr(self, key):
                if label not in self.labels:
                    raise ValueError(f"{key} label {label!r} is not among the labels {_some(self.labels)}")
        if "default" not in self.thresholds:
            raise ValueError("thresholds have no 'default'")
        for name, threshold in self.thresholds.items():
            if threshold.off > threshold.on:
                raise ValueError(f"threshold {name!r}: off ({threshold.off}) must not exceed on ({threshold.on})")


def _some(labels: tuple[str, ...]) -> str:
    """Labels for a message, which must stay short."""
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return f"{[label[:40] for label in labels[:5]]}{more}"


class GoldenPath(Strict, frozen=True, kw_only=True):
    """How the golden outputs of one execution path were recorded, and how far they may be off.

    Attributes:
        runtime: distribution that ran it, "ai-edge-litert".
        version: version of the runtime.
        machine: `platform.machine()` of the machine that recorded them.
        same_machine_steps: how many output steps (1/256 of a score) the same architecture may be off; 0 is exact.
        other_machine_steps: the same for another architecture.
    """

    runtime: Text
    version: Text
    machine: Text
    same_machine_steps: Annotated[int, Meta(ge=0, le=255)] = 0
    other_machine_steps: Annotated[int, Meta(ge=0, le=255)]

    def steps_on(self, machine: str) -> int:
        """How many output steps a `platform.machine()` may be off."""
        return self.same_machine_steps if machine == self.machine else self.other_machine_steps


class Manifest(Strict, frozen=True, kw_only=True):
    """`manifest.json`: everything that is known about a model.

    Attributes:
        file: name of the model file beside the manifest.
        sha256: SHA-256 of that file, in hex.
        size: size of that file, in bytes.
        files: SHA-256, in hex, of every other file of the folder; models of earlier versions have none.
        golden: by execution path, "xnnpack" and "builtin"; the vectors are in `golden.npz`.
        provenance: where the model comes from: data, seed, versions of the tools, revision, metrics, gate.
    """

    # `schema` is the first key of the file and is checked before anything else, by `load`.
    schema: Literal[1] = 1
    name: Name
    version: Text
    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+\Z")]
    sha256: Sha256
    size: Annotated[int, Meta(gt=0)]
    files: dict[FileName, Sha256] = {}
    input: Input
    heads: Annotated[tuple[Head, ...], Meta(min_length=1)]
    golden: dict[Literal["xnnpack", "builtin"], GoldenPath]
    provenance: dict[str, Any]


def load(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: not JSON, another schema version, an unknown or missing key, or a value of the wrong type. The
            message names the path of the key.
    """
    try:
        version = msgspec.json.decode(data, type=_Schema).schema
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if version != SCHEMA:
        raise ValueError(f"has schema {version}, but this Bittern reads schema {SCHEMA}: update one of the two")
    try:
        return msgspec.json.decode(data, type=Manifest)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(folder: Path) -> Manifest:
    """The manifest of a model folder.

    Raises:
        ModelRefused: there is none, or `load` refuses it.
    """
    file = folder / FILE
    try:
        return load(fileio.read_regular(file, MAX_BYTES))
    except OSError as error:
        from bittern.model import other_files

        if isinstance(error, FileNotFoundError) and (what := other_files.remedy_of_folder(folder)) is not None:
            raise ModelRefused(f"{folder}: {what}") from None
        raise ModelRefused(f"{file}: {error.strerror}: expected a model folder with a manifest") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ModelRefused(f"{file}: {error}") from None


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare the files of a model folder with the hashes in its manifest, all but the model file.

    Raises:
        ModelRefused: one is missing, or has other bytes.
    """
    for name, expected in manifest.files.items():
        file = folder / name
        try:
            digest = _digest(file)
        except OSError as error:
            raise ModelRefused(f"{file}: {error.strerror}, but the manifest names it: copy the folder again") from None
        if digest != expected:
            raise ModelRefused(
                f"{file}: sha256 is {digest[:12]}…, the manifest says {expected[:12]}…: copy the folder again"
            )


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a complete model folder, with the hashes of its files.

    Returns:
        The manifest with the hashes.

    Raises:
        OSError: a file cannot be read, or the manifest not be written.
    """
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    hashes = {name: _digest(folder / name) for name in names if name not in (FILE, manifest.file)}
    complete = msgspec.structs.replace(manifest, files=hashes)
    fileio.write(folder / FILE, dump(complete))
    return complete


def _digest(file: Path) -> str:
    return hashlib.sha256(fileio.read_regular(file, MAX_FILE_BYTES)).hexdigest()


def dump(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


class _Schema(msgspec.Struct):
    schema: int

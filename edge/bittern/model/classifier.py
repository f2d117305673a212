"""The classifier: opens and verifies a model folder, and classifies frames."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from bittern.errors import BitternError, ModelRefused, one_line
from bittern.frames import Order, Pixels
from bittern.model import catalog, golden, manifest, preprocess, runtime
from bittern.model.bare import Bare, check_size, describe, rule_by_values, values_of
from bittern.model.input_maker import InputMaker, is_picture
from bittern.model.manifest import Head, Manifest
from bittern.model.preprocess import Region, View
from bittern.model.runtime import ExecutionPath, LoadedModel, Tensor
from bittern.model.scores import NoScore, Raw, reader
from bittern.system import fileio

MAX_MODEL_BYTES = 64 * 2**20


class Result(msgspec.Struct, frozen=True):
    """The answer of one head.

    Attributes:
        task: name of the task.
        label: the label with the highest score.
        score: its score, 0 to 1.
        alarm: whether a label that raises an alarm reached the threshold "default".
        scores: every label with its score.
        view: the square of the frame that was classified.
    """

    task: str
    label: str
    score: float
    alarm: bool
    scores: dict[str, float]
    view: View = "center"


class Classifier:
    """A model, ready to answer.

        import cv2
        from bittern import Classifier

        classifier = Classifier("stop_sign")
        frame = cv2.imread("street.jpg")
        for answer in classifier.classify(frame):
            print(answer.task, answer.label, f"{answer.score:.2f}", answer.alarm)

    Not thread-safe.

    Attributes:
        name: name of the model; for a bare .tflite file its stem.
        manifest: the model's description of itself; None for a bare file, which is not verified.
        heads: one per output, in the order of the answers.
        path: the execution path that the model actually runs on.
        input: what the network takes.
        shape: height and width of the input, in pixels.
        size: side of the input, in pixels; the longer one if it is no square.
        pixels_from: what says what the pixels of a bare file are; "manifest".
        scores_from: what says how the scores of a bare file are made; "manifest".
        data: the bytes of the .tflite file as they were read; the runtime keeps these, not the file.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        labels: str | os.PathLike[str] | None = None,
        bare: Bare | None = None,
        path: ExecutionPath | None = None,
        threads: int = 1,
        tried: bool = False,
    ) -> None:
        """Open a model and replay its golden vectors.

        A model whose bytes are not those of a shipped one is first opened and run in a child process, which it may
        crash.

        Args:
            model: a name (`catalog.search_path`), a model folder, or a bare .tflite file.
            labels: a file with the labels (`bittern.model.labels`), for a bare .tflite file without packed ones.
            bare: what else such a file does not say.
            path: "xnnpack" or "builtin"; None takes XNNPACK where the runtime has it.
            threads: number of threads for one inference.
            tried: leave out that child process, because this is one that the model may crash.

        Raises:
            ConfigurationError: no such model.
            ModelRefused: the model does not keep the contract; the message says what was expected and what came.
            Unstated: a bare file does not say something that its owner has to state.
        """
        folder = catalog.find(model)
        self.manifest: Manifest | None = None
        stated = Bare() if bare is None else bare
        if labels is not None:
            stated = msgspec.structs.replace(stated, labels=os.fspath(labels))
        if folder.is_dir():
            if stated != Bare():
                raise ModelRefused(f"{folder}: labels and all else are in its manifest: leave them out")
            self.manifest = manifest.read(folder)
            file = folder / self.manifest.file
            size: tuple[int, int] | None = self.manifest.input.size
        else:
            file, size = folder, stated.size
        self.data = data = read_model(file)
        if self.manifest is not None:
            _check_bytes(file, data, self.manifest)
            manifest.check_files(folder, self.manifest)
        else:
            check_size(file, data, size)
        try:
            if not tried and not catalog.is_shipped(self.manifest.sha256 if self.manifest else _sha256(data)):
                from bittern.model import trial  # only where it is needed: importing it takes 10 ms

                trial.run(data, path, threads, size)
            loaded = runtime.open_model(data, path, threads, size)
        except ModelRefused as error:
            raise ModelRefused(f"{file}: {error}") from None
        self.path = loaded.path
        self._interpreter = loaded.interpreter
        self.pixels_from = self.scores_from = "manifest"
        if self.manifest is not None:
            self.name, self.version = self.manifest.name, self.manifest.version
            self.heads = self.manifest.heads
            self.input = self.manifest.input
            self._outputs = _check_manifest(folder, self.manifest, loaded)
        else:
            self.name, self.version = file.stem, "unverified"
            self.input, head, output, self.pixels_from, self.scores_from = describe(file, data, loaded, stated)
            self.heads = (head,)
            self._outputs = [output]
        self._handle = loaded.inputs[0].handle
        self.shape = self.input.size
        self.size = max(self.shape)
        self._maker = None if is_picture(self.input) else InputMaker(self.input)
        # Of one picture, and with a value for each label.
        self._plain = self._maker is None and all(len(o.shape) == 2 and o.shape[0] == 1 for o in self._outputs)
        self._tensor = np.zeros((1, *self.shape, 3), np.uint8)
        if self.manifest is not None:
            self._readers = [_Reader(head) for head in self.heads]
            self._replay(folder)
        else:
            try:
                self.invoke(self._tensor)
                self._settle_scores()
            except (ValueError, RuntimeError) as error:
                raise ModelRefused(f"{file}: the runtime cannot run it: {one_line(error)}") from None
            self._readers = [_Reader(head) for head in self.heads]

    def _settle_scores(self) -> None:
        """Where nothing describes a float output, let its values on a few pictures show what they are."""
        if self.scores_from:
            return
        (head,) = self.heads
        noise = np.random.default_rng(0).integers(0, 256, self._tensor.shape, np.uint8)
        pictures = [np.zeros_like(noise), np.full_like(noise, 255), noise]
        rule, self.scores_from = rule_by_values([self.invoke(picture)[0].tolist() for picture in pictures])
        if rule != "as-is":
            self.heads = (msgspec.structs.replace(head, scores_by=rule),)

    def preprocess(
        self, frame: Pixels, order: Order = "BGR", region: Region | None = None, view: View = "center"
    ) -> Pixels:
        """`preprocess.preprocess` into the classifier's own buffer, which the next call overwrites.

        An RGB frame of the input's size is already the tensor: the result shares its memory.
        """
        if order == "RGB" and region is None and frame.shape == self._tensor.shape[1:] and frame.dtype == np.uint8:
            return frame[np.newaxis]
        return preprocess.preprocess(frame, order, size=self.shape, region=region, view=view, out=self._tensor)

    def invoke(self, tensor: Pixels) -> list[Raw]:
        """Run the network: (1, height, width, 3) uint8 RGB in, the raw output (values,) of every head out."""
        if self._plain:
            self._interpreter.set_tensor(self._handle, tensor)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output.handle)[0] for output in self._outputs]
        self._interpreter.set_tensor(self._handle, tensor if self._maker is None else self._maker(tensor))
        self._interpreter.invoke()
        values = [self._interpreter.get_tensor(output.handle).reshape(-1) for output in self._outputs]
        # Of a batch the first entry.
        return [
            v[: len(v) // self.input.shape[0]] if len(o.shape) > 1 else v
            for v, o in zip(values, self._outputs, strict=True)
        ]

    def answer(self, outputs: Sequence[Raw], view: View = "center") -> list[Result]:
        """Turn the raw outputs of `invoke` on a view into results, one per head.

        Raises:
            NoScore: a bare file gave a value that is none.
        """
        try:
            return [read(raw, view) for read, raw in zip(self._readers, outputs, strict=True)]
        except NoScore as error:
            raise NoScore(
                f"{self.name}: {error}: expected scores by softmax or sigmoid (--scores-by, scores_by)"
            ) from None

    def classify(self, frame: Any, order: Order = "BGR", region: Region | None = None) -> list[Result]:
        """Classify a frame.

        Args:
            frame: (H, W, 3) uint8, any size; the network sees its centred square. Or a picture of Pillow
                (`PIL.Image`), turned by its EXIF orientation; it has an order of its own.
            order: channel order of the frame, "BGR" (as OpenCV reads pictures) or "RGB".
            region: a rectangle to classify instead of the whole frame.

        Returns:
            One result per head.

        Raises:
            ConfigurationError: see `preprocess.square_of`.
        """
        if hasattr(frame, "getexif"):
            from PIL import ImageOps

            frame, order = np.asarray(ImageOps.exif_transpose(frame).convert("RGB")), "RGB"
        return self.answer(self.invoke(self.preprocess(frame, order, region)))

    def _replay(self, folder: Path) -> None:
        assert self.manifest is not None
        recorded = self.manifest.golden.get(self.path)
        if recorded is None:
            raise ModelRefused(
                f"{folder}: has golden vectors for {', '.join(self.manifest.golden) or 'no execution path'}, "
                f"but runs on {self.path} here"
            )
        vectors = golden.load(folder / golden.FILE, self.path)
        allowed = recorded.steps_on(platform.machine())
        for i, vector in enumerate(vectors):
            try:
                tensor = self.preprocess(vector.frame)
            except BitternError as error:
                raise ModelRefused(f"{folder}: golden frame {i}: {error}") from None
            if not np.array_equal(tensor, vector.tensor):
                raise ModelRefused(
                    f"{folder}: golden frame {i} becomes another tensor on this machine: preprocessing differs "
                    f"(OpenCV {cv2.__version__}); please report this"
                )
            outputs = self.invoke(tensor)
            if [(o.shape, o.dtype) for o in outputs] != [(o.shape, o.dtype) for o in vector.outputs]:
                raise ModelRefused(f"{folder}: the golden outputs differ in shape or type from the model's")
            steps = max(map(_steps, self._readers, outputs, vector.outputs))
            if steps > allowed:
                raise ModelRefused(
                    f"{folder}: golden frame {i} is {steps} output steps off on {self.path}, {allowed} allowed "
                    f"(recorded with {recorded.runtime} {recorded.version} on {recorded.machine}, here "
                    f"{runtime.DISTRIBUTION} {runtime.version()} on {platform.machine()}): convert the model again "
                    "or install that runtime"
                )


def preprocess_all(
    classifiers: Sequence[Classifier],
    frame: Pixels,
    order: Order = "BGR",
    region: Region | None = None,
    view: View = "center",
) -> list[Pixels]:
    """The input tensors of several classifiers: one crop and one resize for all that have the same input size.

    Args:
        classifiers: any number.
        frame: see `Classifier.classify`.
        order: see there.
        region: see there.
        view: see `preprocess.square_of`.

    Returns:
        One (1, height, width, 3) uint8 RGB tensor per classifier. Classifiers of the same size share one array: the
        result of `Classifier.preprocess` of the first of them.
    """
    by_shape: dict[tuple[int, int], Pixels] = {}
    for classifier in classifiers:
        if classifier.shape not in by_shape:
            by_shape[classifier.shape] = classifier.preprocess(frame, order, region, view)
    return [by_shape[classifier.shape] for classifier in classifiers]


class _Reader:
    """Turns the raw output of a head into a `Result`; what is the same for every frame is computed once."""

    def __init__(self, head: Head) -> None:
        self._task, self._labels = head.task, head.labels
        self.scores = reader(head)
        self._alarm = [head.labels.index(label) for label in head.alarm]
        self._on = head.thresholds["default"].on

    def __call__(self, raw: Raw, view: View) -> Result:
        """The result of a raw output, (values,)."""
        scores = self.scores(raw)
        best = max(scores)
        label = self._labels[scores.index(best)]
        alarm = bool(self._alarm) and max([scores[i] for i in self._alarm]) >= self._on
        return Result(self._task, label, best, alarm, dict(zip(self._labels, scores, strict=True)), view)


def read_model(file: Path) -> bytes:
    """Contents of a .tflite file.

    Raises:
        ModelRefused: it cannot be read, is too large, or is another kind of file.
    """
    try:
        data = fileio.read_regular(file, MAX_MODEL_BYTES)
    except OSError as error:
        raise ModelRefused(f"{file}: {error.strerror}") from None
    if data[4:8] != b"TFL3":
        from bittern.model import other_files

        if (what := other_files.remedy(Path(file), data)) is not None:
            raise ModelRefused(f"{file}: {what}")
        raise ModelRefused(f"{file}: not a TFLite model (expected the identifier TFL3, got {data[4:8]!r})")
    return data


def _check_bytes(file: Path, data: bytes, expected: Manifest) -> None:
    if len(data) != expected.size:
        raise ModelRefused(f"{file}: has {len(data)} bytes, the manifest says {expected.size}: copy it again")
    digest = _sha256(data)
    if digest != expected.sha256:
        raise ModelRefused(
            f"{file}: sha256 is {digest[:12]}…, the manifest says {expected.sha256[:12]}…: copy it again"
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _steps(read: _Reader, raw: Raw, recorded: Raw) -> int:
    """The largest difference of two outputs: in their own steps, or of float32 in 1/256 of a score."""
    if raw.dtype != np.float32:
        return int(np.abs(raw.astype(int) - recorded.astype(int)).max())
    try:
        pairs = zip(read.scores(raw), read.scores(recorded), strict=True)
    except NoScore:
        return 256
    return round(256 * max(abs(a - b) for a, b in pairs))


def _list(tensors: list[Tensor]) -> str:
    more = f" and {len(tensors) - 4} more" if len(tensors) > 4 else ""
    return (", ".join(str(t) for t in tensors[:4]) or "nothing") + more


def _check_manifest(folder: Path, manifest: Manifest, loaded: LoadedModel) -> list[Tensor]:
    """The outputs in the order of the manifest's heads; refused unless they and the input tensor agree with it."""
    expected, outputs = manifest.input, loaded.outputs
    if len(loaded.inputs) != 1:
        raise ModelRefused(f"{folder}: expected one input, the model takes {_list(loaded.inputs)}")
    (tensor,) = loaded.inputs
    if (tensor.name, tensor.shape, tensor.dtype) != (expected.name, expected.shape, expected.dtype):
        raise ModelRefused(
            f"{folder}: the manifest says input {expected.name} {expected.shape} {expected.dtype}, the model has "
            f"{tensor}"
        )
    _check_scale(folder, f"input {expected.name}", (expected.scale, expected.zero_point), tensor)
    by_name = {o.name: o for o in outputs}
    if len(by_name) != len(manifest.heads) and not manifest.provenance.get("adopted"):
        raise ModelRefused(f"{folder}: the manifest has {len(manifest.heads)} heads, the model gives {_list(outputs)}")
    ordered = []
    for head in manifest.heads:
        output = by_name.get(head.output)
        if output is None:
            raise ModelRefused(
                f"{folder}: head {head.task!r} names output {head.output!r}; the model has {_list(outputs)}"
            )
        values = values_of(output, expected.shape[0])
        if values != len(head.labels) and not (values == 1 and len(head.labels) == 2):
            raise ModelRefused(
                f"{folder}: head {head.task!r} has {len(head.labels)} labels, its output has {values} values"
            )
        if output.dtype != head.dtype:
            raise ModelRefused(f"{folder}: head {head.task!r} has {head.dtype} outputs, the model gives {output}")
        _check_scale(folder, f"output {head.output}", (head.scale, head.zero_point), output)
        ordered.append(output)
    return ordered


def _check_scale(folder: Path, name: str, expected: tuple[float, int], tensor: Tensor) -> None:
    if not math.isclose(expected[0], tensor.scale, rel_tol=1e-6) or expected[1] != tensor.zero_point:
        raise ModelRefused(
            f"{folder}: quantization of {name} is {(tensor.scale, tensor.zero_point)} in the model, "
            f"{expected} in the manifest"
        )

"""The classifier: opens and verifies a model folder, and classifies frames."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np

from bittern.errors import BitternError, ModelRefused, one_line
from bittern.frames import Order, Pixels
from bittern.model import catalog, golden, manifest, preprocess, runtime
from bittern.model.manifest import Head, Manifest, Threshold
from bittern.model.preprocess import Region, View
from bittern.model.runtime import ExecutionPath, Tensor
from bittern.system import fileio

MAX_MODEL_BYTES = 64 * 2**20
MAX_LABELS_BYTES = 2**20
# A model without a manifest has no threshold of its own: "more likely than not".
_BARE_THRESHOLD = Threshold(on=0.5, off=0.5, chosen_for="no manifest: an even chance")


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
    """An int8 model, ready to answer.

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
        size: side of the input, in pixels.
        data: the bytes of the .tflite file as they were read; the runtime keeps these, not the file.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        labels: str | os.PathLike[str] | None = None,
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
            path: "xnnpack" or "builtin"; None takes XNNPACK where the runtime has it.
            threads: number of threads for one inference.
            tried: leave out that child process, because this is one that the model may crash.

        Raises:
            ConfigurationError: no such model.
            ModelRefused: the model does not keep the contract; the message says what was expected and what came.
        """
        folder = catalog.find(model)
        self.manifest: Manifest | None = None
        if folder.is_dir():
            if labels is not None:
                raise ModelRefused(f"{folder}: its labels are in its manifest; leave out the labels file")
            self.manifest = manifest.read(folder)
            file = folder / self.manifest.file
        else:
            file = folder
        self.data = data = read_model(file)
        if self.manifest is not None:
            _check_bytes(file, data, self.manifest)
            manifest.check_files(folder, self.manifest)
        try:
            if not tried and not catalog.is_shipped(self.manifest.sha256 if self.manifest else _sha256(data)):
                from bittern.model import trial  # only where it is needed: importing it takes 10 ms

                trial.run(data, path, threads)
            loaded = runtime.open_model(data, path, threads)
        except ModelRefused as error:
            raise ModelRefused(f"{file}: {error}") from None
        self.path = loaded.path
        self._interpreter = loaded.interpreter
        self._input = _check_network(file, loaded.inputs, loaded.outputs)
        self.size = self._input.shape[1]
        if self.manifest is not None:
            self.name, self.version = self.manifest.name, self.manifest.version
            self.heads = self.manifest.heads
            self._outputs = _check_manifest(folder, self.manifest, self._input, loaded.outputs)
        else:
            self.name, self.version = file.stem, "unverified"
            self.heads = tuple(_bare_heads(file, data, labels, loaded.outputs))
            self._outputs = loaded.outputs
        self._readers = [_Reader(head) for head in self.heads]
        self._tensor = np.zeros((1, self.size, self.size, 3), np.uint8)
        if self.manifest is not None:
            self._replay(folder)
        else:
            try:
                self.invoke(self._tensor)
            except (ValueError, RuntimeError) as error:
                raise ModelRefused(f"{file}: the runtime cannot run it: {one_line(error)}") from None

    def preprocess(
        self, frame: Pixels, order: Order = "BGR", region: Region | None = None, view: View = "center"
    ) -> Pixels:
        """`preprocess.preprocess` into the classifier's own buffer, which the next call overwrites.

        An RGB frame of the input's size is already the tensor: the result shares its memory.
        """
        if order == "RGB" and region is None and frame.shape == self._tensor.shape[1:] and frame.dtype == np.uint8:
            return frame[np.newaxis]
        return preprocess.preprocess(frame, order, size=self.size, region=region, view=view, out=self._tensor)

    def invoke(self, tensor: Pixels) -> list[Pixels]:
        """Run the network: (1, size, size, 3) uint8 RGB in, the raw uint8 output (labels,) of every head out."""
        self._interpreter.set_tensor(self._input.handle, tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output.handle)[0] for output in self._outputs]

    def answer(self, outputs: Sequence[Pixels], view: View = "center") -> list[Result]:
        """Turn the raw outputs of `invoke` on a view into results, one per head."""
        return [read(raw, view) for read, raw in zip(self._readers, outputs, strict=True)]

    def classify(self, frame: Pixels, order: Order = "BGR", region: Region | None = None) -> list[Result]:
        """Classify a frame.

        Args:
            frame: (H, W, 3) uint8, any size; the network sees its centred square.
            order: channel order of the frame, "BGR" (as OpenCV reads pictures) or "RGB".
            region: a rectangle to classify instead of the whole frame.

        Returns:
            One result per head.
        """
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
            if [o.shape for o in outputs] != [o.shape for o in vector.outputs]:
                raise ModelRefused(f"{folder}: the golden outputs differ in shape from the model's")
            pairs = zip(outputs, vector.outputs, strict=True)
            steps = max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs)
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
        One (1, size, size, 3) uint8 RGB tensor per classifier. Classifiers of the same size share one array: the
        result of `Classifier.preprocess` of the first of them.
    """
    by_size: dict[int, Pixels] = {}
    for classifier in classifiers:
        if classifier.size not in by_size:
            by_size[classifier.size] = classifier.preprocess(frame, order, region, view)
    return [by_size[classifier.size] for classifier in classifiers]


class _Reader:
    """Turns the raw output of a head into a `Result`; what is the same for every frame is computed once."""

    def __init__(self, head: Head) -> None:
        self._task, self._labels = head.task, head.labels
        self._score = [head.scale * (q - head.zero_point) for q in range(256)]
        self._alarm = [head.labels.index(label) for label in head.alarm]
        self._on = head.thresholds["default"].on

    def __call__(self, raw: Pixels, view: View) -> Result:
        """The result of a raw output, (labels,) uint8."""
        scores = [self._score[q] for q in raw.tolist()]
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


def _check_network(file: Path, inputs: list[Tensor], outputs: list[Tensor]) -> Tensor:
    actual = f"this file takes {_list(inputs)} and gives {_list(outputs)}"
    expected = "expected a classifier with one uint8 input (1, S, S, 3) and uint8 outputs (1, labels)"
    if len(inputs) != 1:
        raise ModelRefused(f"{file}: {expected}; it has {len(inputs)} inputs: {actual}")
    shape = inputs[0].shape
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or shape[1] != shape[2]:
        raise ModelRefused(f"{file}: {expected}; {actual}")
    if len(outputs) == 4 and any(o.shape == (1, 1) or o.shape == (1,) for o in outputs):
        raise ModelRefused(f"{file}: {expected}; this looks like an object detector: {actual}")
    if any(len(o.shape) != 2 or o.shape[0] != 1 or o.shape[1] < 2 for o in outputs):
        raise ModelRefused(f"{file}: {expected}; {actual}")
    if inputs[0].dtype != "uint8" or any(o.dtype != "uint8" for o in outputs):
        raise ModelRefused(
            f"{file}: {expected}; {actual}: convert it to full int8 with inference_input_type and "
            "inference_output_type uint8"
        )
    return inputs[0]


def _list(tensors: list[Tensor]) -> str:
    more = f" and {len(tensors) - 4} more" if len(tensors) > 4 else ""
    return (", ".join(str(t) for t in tensors[:4]) or "nothing") + more


def _check_manifest(folder: Path, manifest: Manifest, tensor: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """The outputs in the order of the manifest's heads; refused unless they and the input tensor agree with it."""
    expected = manifest.input
    if tensor.name != expected.name or tensor.shape != expected.shape:
        raise ModelRefused(
            f"{folder}: the manifest says input {expected.name} {expected.shape}, the model has {tensor}"
        )
    _check_scale(folder, f"input {expected.name}", (expected.scale, expected.zero_point), tensor)
    by_name = {o.name: o for o in outputs}
    if len(by_name) != len(manifest.heads):
        raise ModelRefused(f"{folder}: the manifest has {len(manifest.heads)} heads, the model gives {_list(outputs)}")
    ordered = []
    for head in manifest.heads:
        output = by_name.get(head.output)
        if output is None:
            raise ModelRefused(
                f"{folder}: head {head.task!r} names output {head.output!r}; the model has {_list(outputs)}"
            )
        if output.shape[1] != len(head.labels):
            raise ModelRefused(
                f"{folder}: head {head.task!r} has {len(head.labels)} labels, its output has {output.shape[1]} values"
            )
        _check_scale(folder, f"output {head.output}", (head.scale, head.zero_point), output)
        ordered.append(output)
    return ordered


def _check_scale(folder: Path, name: str, expected: tuple[float, int], tensor: Tensor) -> None:
    if not math.isclose(expected[0], tensor.scale, rel_tol=1e-6) or expected[1] != tensor.zero_point:
        raise ModelRefused(
            f"{folder}: quantization of {name} is {(tensor.scale, tensor.zero_point)} in the model, "
            f"{expected} in the manifest"
        )


def _bare_heads(file: Path, data: bytes, labels: str | os.PathLike[str] | None, outputs: list[Tensor]) -> list[Head]:
    if len(outputs) != 1:
        raise ModelRefused(f"{file}: expected one output, because there is no manifest, got {_list(outputs)}")
    from bittern.model import labels as label_files

    if labels is not None:
        try:
            text, origin = fileio.read_regular(labels, MAX_LABELS_BYTES), os.fspath(labels)
        except OSError as error:
            raise ModelRefused(f"{labels}: cannot read the labels ({error.strerror})") from None
    else:
        text, origin = _packed_labels(file, data), f"{file} (packed labels)"
    try:
        names = label_files.read(text)
    except ValueError as error:
        raise ModelRefused(f"{origin}: {error}") from None
    output = outputs[0]
    if len(names) != output.shape[1]:
        labels_text = f"{len(names)} label{'' if len(names) == 1 else 's'}"
        raise ModelRefused(f"{origin}: has {labels_text}, but the model's output has {output.shape[1]} values")
    if output.scale <= 0:
        raise ModelRefused(f"{file}: output {output} has no quantization")
    try:
        # Built through msgspec so that the same rules hold as for a manifest.
        return [
            msgspec.convert(
                {
                    "task": "bare",
                    "output": output.name,
                    "labels": names,
                    "alarm": [],
                    "scale": output.scale,
                    "zero_point": output.zero_point,
                    "thresholds": {"default": msgspec.to_builtins(_BARE_THRESHOLD)},
                },
                Head,
            )
        ]
    except msgspec.ValidationError as error:
        raise ModelRefused(f"{origin}: {error}") from None


def _packed_labels(file: Path, data: bytes) -> bytes:
    # TFLite metadata appends its files to the model as a zip archive.
    import io
    import zipfile

    missing = f"{file}: no labels are packed into it: give a file with one label a line (--labels)"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [n for n in archive.namelist() if n.endswith(".txt")]
            # Of several translations the one that names no language.
            plain = [n for n in names if not re.search(r"[-_][a-zA-Z]{2,3}(?:[-_][a-zA-Z]{2,4})?\.txt$", n)]
            if not names:
                raise ModelRefused(missing)
            if len(plain or names) != 1:
                several = ", ".join(names[:4])
                raise ModelRefused(f"{file}: has several packed label files ({several}): give the right one (--labels)")
            info = archive.getinfo((plain or names)[0])
            if info.file_size > MAX_LABELS_BYTES:
                raise ModelRefused(f"{file}: packed labels of {info.file_size} bytes are too large")
            return archive.read(info)
    except ModelRefused:
        raise
    except Exception:  # zipfile and zlib raise half a dozen kinds on a broken archive
        raise ModelRefused(missing) from None

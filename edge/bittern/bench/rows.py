"""The rows of one process: inference, frame to event, peers, cold starts, size and memory, each with its reference."""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np

from bittern import events
from bittern.bench import processes
from bittern.bench.result import Row
from bittern.bench.timing import Pairs, interleave, milliseconds, ratio
from bittern.config.schema import DecisionConfig, GateConfig, WatchConfig
from bittern.decision.pipeline import Pipeline
from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import adopt, evaluate
from bittern.evaluation.dataset import Item
from bittern.frames import Frame, Pixels
from bittern.model import catalog, golden, pictures, runtime
from bittern.model.bare import Bare
from bittern.model.classifier import Classifier
from bittern.model.input_maker import describe_input, is_picture
from bittern.model.preprocess import square_of
from bittern.model.tflite_file import TfliteFile
from bittern.scene import street
from bittern.system import stderr

Size = tuple[int, int]
_PEER_HINT = "pip install 'bittern[bench]' into an environment of its own, without opencv-python-headless"


class PeerMissing(BitternError):
    """The reference of a row is not installed, or cannot run this model."""


class Subject(NamedTuple):
    """The model under test.

    Attributes:
        classifier: with XNNPACK, on one thread.
        folder: the model folder.
    """

    classifier: Classifier
    folder: Path

    @property
    def file(self) -> Path:
        """The .tflite file."""
        assert self.classifier.manifest is not None
        return self.folder / self.classifier.manifest.file


@contextmanager
def open_subject(model: str, bare: Bare | None = None) -> Iterator[Subject]:
    """The model that the bench runs on, open in the block.

    A bare .tflite file becomes a model folder in a temporary place (`bittern.evaluation.adopt`), so that every row runs
    it as the daemon would. Which of its labels raises an alarm makes no difference to a time: without any it is the
    first one.

    Raises:
        ConfigurationError: no such model.
        ModelRefused, Unstated: see `Classifier`.
    """
    folder_or_file = catalog.find(model)
    if folder_or_file.is_dir():
        yield Subject(Classifier(folder_or_file), folder_or_file)
        return
    file = folder_or_file
    stated = bare or Bare()
    if not stated.alarm:
        stated = msgspec.structs.replace(stated, alarm=Classifier(file, bare=stated).heads[0].labels[:1])
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as scratch:
        folder = Path(scratch, name := adopt.named(file.stem))
        adopt.adopt(file, folder, stated, name=name, version="unverified", items=(), progress=lambda _done: None)
        yield Subject(Classifier(folder), folder)


# --- what is timed ---------------------------------------------------------------------------------------------------


class BareInvoke:
    """One inference without Bittern: `set_tensor`, `invoke` and `get_tensor` of the runtime's interpreter."""

    def __init__(self, subject: Subject, *, lent: bool = False) -> None:
        """The input is a grey picture.

        Args:
            subject: the model.
            lent: use the interpreter of its classifier instead of an own one. Two interpreters of one model differ by
                1 % in time, depending on where they lie in memory, which would hide what Bittern adds to an inference.
        """
        if lent:
            self.interpreter = subject.classifier._interpreter
        else:
            with stderr.silenced():
                self.interpreter = runtime.Interpreter(model_path=str(subject.file), num_threads=1)
                shape = subject.classifier.input.shape  # which the file may leave free
                self.interpreter.resize_tensor_input(self.interpreter.get_input_details()[0]["index"], shape)
                self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self._set, self._get = self.input["index"], self.output["index"]
        self._tensor = np.full(self.input["shape"], 128 if self.input["dtype"] == np.uint8 else 0, self.input["dtype"])

    def __call__(self) -> None:
        """One inference."""
        self.interpreter.set_tensor(self._set, self._tensor)
        self.interpreter.invoke()
        self.interpreter.get_tensor(self._get)


class FrameToEvent:
    """One step of the daemon's own `pipeline.Pipeline`, with a decision that makes every frame an event.

    Two frames take turns, and the threshold is the higher one's score, without votes, cooldown or minimum time off:
    the first one switches the alarm on, the second one off. Before a call, `deliver` puts the frame into memory, as a
    source does; after it, the event's JSON is in the buffer `sink`.

    Attributes:
        classifiers: the only classifier.
        sink: the buffer.
        decision: the thresholds.
        pictures: the two frames (H, W, 3) uint8 RGB; the first switches the alarm on.
        pixels: (H, W, 3) uint8 RGB, the memory that frames are delivered to.
    """

    def __init__(self, classifier: Classifier, folder: Path, size: Size) -> None:
        """Choose two frames of a size (width, height) for which the model in `folder` gives different scores.

        Raises:
            ConfigurationError: the model has no label that raises an alarm.
            BitternError: every frame gets the same score.
        """
        head = next((h for h in range(len(classifier.heads)) if classifier.heads[h].alarm), None)
        if head is None:
            raise ConfigurationError(f"model {classifier.name!r} has no label that raises an alarm")
        label = classifier.heads[head].alarm[0]
        scored = [
            (classifier.classify(pixels, "RGB")[head].scores[label], i, pixels)
            for i, pixels in enumerate(_pictures(classifier, folder, size))
        ]
        high, low = max(scored, key=lambda entry: entry[:2]), min(scored, key=lambda entry: entry[:2])
        if high[0] == low[0]:
            raise BitternError(f"model {classifier.name!r} gives every picture the same score: it cannot raise events")
        self.decision = DecisionConfig(threshold=high[0], off=high[0], votes=1, of=1, cooldown_s=0.0, min_off_s=0.0)
        self.sink = BytesIO()
        self.classifiers = (classifier,)

        self._pipeline = Pipeline(self.classifiers, WatchConfig(decision=self.decision, gate=GateConfig(enabled=False)))
        now = (time.monotonic_ns(), time.time_ns())
        self.pictures = (high[2], low[2])
        self.pixels = high[2].copy()
        self._frames = [Frame(self.pixels, "RGB", *now, number, "bench") for number in range(2)]
        self._turn = 0

    def deliver(self) -> None:
        """Write the next frame's pixels, so that they are partly in the processor's cache, as after a camera."""
        np.copyto(self.pixels, self.pictures[self._turn])

    def __call__(self) -> None:
        """Process the delivered frame."""
        turn, self._turn = self._turn, 1 - self._turn
        step = self._pipeline.step(self._frames[turn])
        for event in step.events:
            self.sink.write(events.to_line(event))
        if not step.events:
            raise BitternError("a frame raised no event: its score changed, or it was not delivered")


def _pictures(classifier: Classifier, folder: Path, size: Size) -> list[Pixels]:
    """Frames (H, W, 3) uint8 RGB: the model's golden frames in the centred square, and drawn streets."""
    width, height = size
    rng = np.random.default_rng(1)
    frames = [street.random_picture(rng, stop=i % 2 == 0, size=size) for i in range(4)]
    side = min(size)
    for vector in golden.load(folder / golden.FILE, classifier.path):
        frame = np.zeros((height, width, 3), np.uint8)
        square_of(frame)[:] = cv2.resize(vector.tensor[0], (side, side), interpolation=cv2.INTER_NEAREST)
        frames.append(frame)
    return frames


class Tutorial:
    """A loop as tutorials write it: Pillow resizes, pixels become floats, and the input's scale makes them uint8."""

    def __init__(self, subject: Subject, pixels: Pixels) -> None:
        """`pixels` is the frame (H, W, 3) uint8 RGB.

        Raises:
            PeerMissing: no Pillow, or the model takes no RGB pictures one by one.
        """
        shape = subject.classifier.input.shape
        if shape != (1, *subject.classifier.shape, 3):
            raise PeerMissing(f"the loop is written for pictures (1, height, width, 3), the model takes {shape}")
        try:
            from PIL import Image
        except ImportError:
            raise PeerMissing(f"Pillow is not installed: {_PEER_HINT}") from None
        self._image = Image
        self._bare = BareInvoke(subject)
        self._pixels = pixels

    def __call__(self) -> None:
        """One frame."""
        interpreter, source, target = self._bare.interpreter, self._bare.input, self._bare.output
        image = self._image.fromarray(self._pixels).resize((source["shape"][2], source["shape"][1]))
        data = np.expand_dims((np.asarray(image, np.float32) - 127.5) / 127.5, 0)
        scale, zero_point = source["quantization"]
        if scale:
            limits = np.iinfo(source["dtype"])
            data = np.clip(data / scale + zero_point, limits.min, limits.max).astype(source["dtype"])
        interpreter.set_tensor(source["index"], data)
        interpreter.invoke()
        scale, zero_point = target["quantization"]
        scores = interpreter.get_tensor(target["index"])[0].astype(np.float32)
        int(np.argmax((scores - zero_point) * scale if scale else scores))


@contextmanager
def _mediapipe(file: Path, pixels: Pixels) -> Iterator[Callable[[], Any]]:
    """MediaPipe Tasks' image classifier on one frame; making its image object is timed too.

    Raises:
        PeerMissing: no MediaPipe, or it cannot open the model.
    """
    try:
        with stderr.silenced():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
    except ImportError:
        raise PeerMissing(f"MediaPipe is not installed: {_PEER_HINT}") from None
    try:
        with stderr.silenced():
            options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(file)), max_results=1)
            classifier = vision.ImageClassifier.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        raise PeerMissing(f"MediaPipe cannot open {file.name}: {' '.join(str(error).split())[:120]}") from None
    srgb = mediapipe.ImageFormat.SRGB
    with classifier:
        yield lambda: classifier.classify(mediapipe.Image(image_format=srgb, data=pixels))


# --- the rows --------------------------------------------------------------------------------------------------------


def row_of(name: str, what: str, against: str, at_most: float, pairs: Pairs) -> Row:
    """A row of paired times."""
    measured = ratio(pairs)
    return Row(
        name=name,
        what=what,
        against=against,
        ratio=round(measured.value, 4),
        at_most=at_most,
        median_ms=round(statistics.median(pairs.ours), 4),
        reference_ms=round(statistics.median(pairs.reference), 4),
        n=pairs.n,
        ratio_ci95=(round(measured.low, 4), round(measured.high, 4)),
    )


def megabytes_row(name: str, what: str, megabytes: float, at_most: float, n: int) -> Row:
    """A row of a size."""
    return Row(
        name=name,
        what=what,
        against="the limit",
        ratio=round(megabytes / at_most, 4),
        at_most=1.0,
        median_ms=None,
        reference_ms=None,
        n=n,
        megabytes=round(megabytes, 3),
        at_most_megabytes=at_most,
    )


def invoke_row(subject: Subject, n: int) -> Row:
    """One inference by the classifier, beside the runtime's own benchmark tool or a bare interpreter."""
    tensor = np.full((1, *subject.classifier.shape, 3), 128, np.uint8)

    def ours() -> list[Pixels]:
        return subject.classifier.invoke(tensor)

    signature = TfliteFile(subject.classifier.data).input_signature() or ()
    # Of a shape that is free the tool would take 1 for every side.
    if not processes.has_benchmark_tool() or any(side < 1 for side in signature):
        pairs = interleave(ours, BareInvoke(subject), n)
        return row_of("invoke", "our invoke", "bare interpreter", 1.02, pairs)
    # The tool runs its own loop in its own process, so blocks take turns instead of single calls.
    block = 10
    a, b = [], []
    for _ in range(max(2, -(-n // block))):
        b.append(processes.benchmark_tool_ms(subject.file, block))
        for _ in range(block):  # the tool warms up before each of its blocks too
            ours()
        a.append(statistics.median(milliseconds(ours) for _ in range(block)))
    return row_of("invoke", "our invoke", "the runtime's benchmark tool", 1.02, Pairs(a, b, block * len(a)))


def event_row(name: str, size: Size, at_most: float) -> Callable[[Subject, int], Row]:
    """Makes a row: frame to event, beside a bare inference."""

    def measure(subject: Subject, n: int) -> Row:
        bare = BareInvoke(subject, lent=True)
        ours = FrameToEvent(subject.classifier, subject.folder, size)
        pairs = interleave(ours, bare, n, before=ours.deliver)
        return row_of(name, f"frame to event, {size[0]} x {size[1]}", "bare set, invoke, get", at_most, pairs)

    return measure


def against_mediapipe_row(subject: Subject, n: int) -> Row:
    """Frame to event, beside MediaPipe Tasks on the same frame."""
    ours = FrameToEvent(subject.classifier, subject.folder, (640, 480))
    with _mediapipe(subject.file, ours.pixels) as theirs:
        pairs = interleave(ours, theirs, n, before=ours.deliver)
    return row_of("mediapipe", "frame to event, 640 x 480", "MediaPipe Tasks", 0.85, pairs)


def against_tutorial_row(subject: Subject, n: int) -> Row:
    """Frame to event, beside a tutorial's loop."""
    ours = FrameToEvent(subject.classifier, subject.folder, (640, 480))
    pairs = interleave(ours, Tutorial(subject, ours.pixels), n, before=ours.deliver)
    return row_of("tutorial", "frame to event, 640 x 480", "a tutorial's loop", 0.70, pairs)


def classify_cold_row(subject: Subject, n: int) -> Row:
    """`bittern classify` of one picture in a new process, beside the shortest script.

    Raises:
        PeerMissing: the script does not run such a model.
    """
    if not is_picture(subject.classifier.input):
        takes = describe_input(subject.classifier.input)
        raise PeerMissing(f"the shortest script is for RGB uint8, the model takes {takes}")
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as folder:
        picture, labels = Path(folder) / "street.jpg", Path(folder) / "labels.txt"
        view = street.random_picture(np.random.default_rng(1), stop=True, size=(1920, 1080))
        cv2.imwrite(str(picture), cv2.cvtColor(view, cv2.COLOR_RGB2BGR))
        labels.write_text("\n".join(subject.classifier.heads[0].labels))
        ours = [*processes.bittern(), "classify", str(picture), "--model", str(subject.folder.absolute())]
        shortest = [sys.executable, "-c", processes.SHORTEST, str(picture), str(subject.file), str(labels)]
        pairs = processes.cold(ours, shortest, n)
    return row_of("classify_cold", "classify of a 1080p JPEG, cold", "the shortest script", 1.15, pairs)


def help_cold_row(_subject: Subject, n: int) -> Row:
    """`bittern --help` in a new process, beside an import of click and numpy."""
    pairs = processes.cold([*processes.bittern(), "--help"], [sys.executable, "-c", "import click, numpy"], n)
    return row_of("help_cold", "--help, cold", "python -c 'import click, numpy'", 1.3, pairs)


def xnnpack_row(subject: Subject, n: int) -> Row:
    """One inference with XNNPACK, beside one without."""
    tensor = np.full((1, *subject.classifier.shape, 3), 128, np.uint8)
    off = Classifier(subject.folder, path="builtin")
    pairs = interleave(lambda: subject.classifier.invoke(tensor), lambda: off.invoke(tensor), n)
    return row_of("xnnpack", "XNNPACK on", "off", 0.30, pairs)


def evaluate_row(subject: Subject, n: int) -> Row:
    """`bittern evaluate` of eight files, beside bare decoding and inference."""
    bare = BareInvoke(subject)
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as folder:
        rng = np.random.default_rng(1)
        items = []
        for i in range(8):
            file = Path(folder) / f"{i}.jpg"
            view = street.random_picture(rng, stop=i % 2 == 0, size=(640, 480))
            cv2.imwrite(str(file), cv2.cvtColor(view, cv2.COLOR_RGB2BGR))
            items.append(Item(file, file.name, None, "", "", {}))

        def loop() -> None:
            for item in items:
                cv2.imread(str(item.path))
                bare()

        label = subject.classifier.heads[0].labels[0]
        pairs = interleave(lambda: evaluate.answer(subject.classifier, items, label), loop, n, warm_up=2)
    return row_of("evaluate", "evaluate, 8 JPEGs of 640 x 480", "bare decode and invoke", 1.15, pairs)


def decode_row(_subject: Subject, n: int) -> Row:
    """Decoding a file in memory with all checks, beside OpenCV's bare decoder."""
    view = street.random_picture(np.random.default_rng(2), stop=True, size=(1920, 1080))
    data: bytes = cv2.imencode(".jpg", cv2.cvtColor(view, cv2.COLOR_RGB2BGR))[1].tobytes()
    pairs = interleave(
        lambda: pictures.decode_bytes(data, "bench"),
        lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
        n,
    )
    return row_of("decode", "decode a 1080p JPEG", "cv2.imdecode", 1.02, pairs)


def model_file_row(subject: Subject, _n: int) -> Row:
    """The size of the model file."""
    return megabytes_row(
        "model_file", f"model file of {subject.classifier.name}", subject.file.stat().st_size / 1e6, 3.0, 1
    )


def memory_row(subject: Subject, n: int) -> Row:
    """Peak memory of the loop's process with three models."""
    return _memory("memory", "memory of watch (RSS, peak)", 0, subject, n)


def memory_both_row(subject: Subject, n: int) -> Row:
    """Peak memory of the loop's and the camera's process together."""
    return _memory("memory_both", "memory of watch and its camera's process (PSS, peak)", 1, subject, n)


def _memory(name: str, what: str, which: int, subject: Subject, n: int) -> Row:
    shipped = [folder for name, folder in catalog.available().items() if name != subject.classifier.name]
    three = list(itertools.islice(itertools.cycle([subject.folder, *shipped]), 3))
    peak = processes.peak_of_watching([model.absolute() for model in three], n)[which]
    return megabytes_row(name, f"{what}: {', '.join(model.name for model in three)}", peak, 150.0, n)


def all_cores_ms(subject: Subject, cores: int, n: int) -> float:
    """The median time of one inference with a thread per core, in ms, as published figures are given."""

    classifier = Classifier(subject.folder, threads=cores)
    tensor = np.full((1, *classifier.shape, 3), 128, np.uint8)
    for _ in range(10):
        classifier.invoke(tensor)
    return round(statistics.median(milliseconds(lambda: classifier.invoke(tensor)) for _ in range(n)), 3)

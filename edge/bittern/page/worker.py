"""A process that does for the page what has to do with pixels: decodes, classifies, explains, makes thumbnails.

The server starts it as `python -m bittern.page.worker` and speaks with it over its stdin and stdout. Its memory is
limited, and for each request its processor time; a picture that crashes it crashes nothing else.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np

from bittern.errors import BitternError, ConfigurationError, PictureError, one_line
from bittern.evaluation import explain, occlusion
from bittern.frames import Pixels
from bittern.model import answers, catalog, picture_header, pictures, preprocess
from bittern.model.bare import Bare
from bittern.model.classifier import Classifier
from bittern.model.preprocess import View, views_of
from bittern.model.views import predict
from bittern.page import likeness, messages
from bittern.page.messages import RequestFailed
from bittern.system import fileio, limits

# Processor time for a request: decoding, and the 226 inferences of an explanation on a slow board.
MAX_S = {"heat": 120.0, "order": 120.0}
_MAX_S = 10.0
# Beside the file itself: the largest picture, once more while it is turned upright, and what OpenCV needs beside it.
MAX_MEMORY = 2 * 3 * pictures.MAX_PIXELS + 450 * 2**20
# A process that keeps more than this after a request ends itself; the next request starts another one.
_MAX_KEPT = 96 * 2**20
_PREVIEW_QUALITY = 85

_Reply = tuple[dict[str, Any], bytes]


class _Setup(NamedTuple):
    """The models, opened, and the views that they look at."""

    classifiers: list[Classifier]
    views: Sequence[View]

    def named(self, name: str) -> Classifier:
        """The model of a name."""
        for classifier in self.classifiers:
            if classifier.name == name:
                return classifier
        raise RequestFailed(404, f"no model {name!r} here")


def open_models(options: dict[str, Any]) -> tuple[_Setup, dict[str, Any]]:
    """Open the models of the first message, and describe them.

    Raises:
        BitternError: a model is refused, or two have the same name.
    """
    stated = msgspec.convert(options.get("bare") or [None] * len(options["models"]), list[Bare | None])
    classifiers = [
        Classifier(model, bare=bare, path=options.get("path"), threads=options.get("threads", 1))
        for model, bare in zip(options["models"], stated, strict=True)
    ]
    names = [classifier.name for classifier in classifiers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two models have the name {name!r}: the page tells models apart by their names")
    rows = []
    for model, classifier in zip(options["models"], classifiers, strict=True):
        rows.append(answers.description(classifier, catalog.find(model)))
        rows[-1]["size"] = classifier.size
        rows[-1]["thresholds"] = {head.task: head.thresholds["default"].on for head in classifier.heads}
    return _Setup(classifiers, tuple(options.get("views") or preprocess.CENTER)), {"models": rows}


def decode(data: bytes, at_least: int | None = None) -> Pixels:
    """A picture, (H, W, 3) uint8 BGR; with `at_least` it may be smaller, see `pictures.decode_bytes`.

    Raises:
        RequestFailed: 415 for what is no picture, 413 for one that is too large, 422 for one that is broken.
    """
    header = picture_header.read(data)
    try:
        if header is not None and header.sized:
            picture_header.check_pixels(header.width, header.height, pictures.MAX_PIXELS)
    except PictureError as error:
        raise RequestFailed(413, str(error)) from None
    try:
        return pictures.decode_bytes(data, "picture", at_least=at_least)
    except PictureError as error:
        known = header is not None and pictures.can_read(header.kind)
        raise RequestFailed(422 if known else 415, str(error).removeprefix("picture: ")) from None


def _read(request: dict[str, Any], payload: bytes) -> bytes:
    """The picture file of a request: its bytes, or the file that it names."""
    if "file" not in request:
        return payload
    try:
        return pictures.read(request["file"])
    except PictureError as error:
        raise RequestFailed(404, str(error)) from None


def classify(setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """The answers of all models."""
    frame = decode(_read(request, payload))
    predictions, shared_ns = predict(setup.classifiers, frame, views=setup.views)
    height, width = frame.shape[:2]
    rows = answers.rows(request["name"], setup.classifiers, predictions, shared_ns)
    return {"rows": rows, "width": width, "height": height}, b""


def preview(_setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """The picture as a JPEG whose longer side has at most `side` pixels; with the size of the upright picture."""
    data = _read(request, payload)
    frame = decode(data, request["side"])
    height, width = frame.shape[:2]
    scale = min(1.0, request["side"] / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    header = picture_header.read(data)
    if header is not None and header.sized:
        width, height = (header.height, header.width) if header.orientation > 4 else (header.width, header.height)
    return {"width": width, "height": height}, _jpeg(small)


def square(setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """The exact tensor of a model and view as a PNG, with the answers to it; "views" are those that the picture has."""
    frame = decode(_read(request, payload))
    classifier = setup.named(request["model"])
    view: View = request["view"]
    tensor = classifier.preprocess(frame, view=view)
    results = classifier.answer(classifier.invoke(tensor), view)
    shown = views_of(frame, None, ("left", "center", "right"))
    message = {
        "views": list(shown),
        "answers": [{"task": r.task, "label": r.label, "score": round(r.score, 6), "alarm": r.alarm} for r in results],
    }
    return message, _png(tensor[0])


def heat(setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """What the answer of a task depends on, as a PNG of the square with its heat, with the figures."""
    frame = decode(_read(request, payload))
    classifier = setup.named(request["model"])
    picture = np.array(classifier.preprocess(frame)[0])
    for explanation in occlusion.cover(classifier, picture):
        if explanation.head.task == request["task"]:
            figures = explain.figures(explanation, "", classifier.name)
            message = {
                "label": figures.label,
                "drop": round(figures.drop, 3),
                "faint": figures.faint,
                "at_ceiling": figures.at_ceiling,
                "changed": figures.changed,
                "patches": figures.patches,
            }
            return message, _png(explain.blend(picture, explanation.heat))
    raise RequestFailed(404, f"model {classifier.name} has no task {request['task']!r}")


def look(setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """What a picture looks like (`likeness.features`), and the answer of the first model's first task."""
    # A model sees the whole picture, as everywhere.
    frame = decode(_read(request, payload), None if setup.classifiers else likeness.SIDE * 8)
    message: dict[str, Any] = {}
    if setup.classifiers:
        result = setup.classifiers[0].classify(frame)[0]
        message = {"label": result.label, "score": round(result.score, 4)}
    return message, likeness.features(frame)


def order(_setup: _Setup, _request: dict[str, Any], payload: bytes) -> _Reply:
    """An order of pictures by likeness, from the features of all of them."""
    return {"order": likeness.order(payload)}, b""


def crop(_setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """Write the part of a picture inside of a box to the PNG file `out`."""
    frame = decode(_read(request, payload))
    left, top, right, bottom = request["box"]
    height, width = frame.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise RequestFailed(400, f"the box does not fit into the picture of {width} x {height} pixels")
    part = np.ascontiguousarray(frame[top:bottom, left:right])
    fileio.write(request["out"], bytes(cv2.imencode(".png", part)[1].tobytes()))
    return {}, b""


OPERATIONS = {
    "classify": classify,
    "preview": preview,
    "square": square,
    "heat": heat,
    "look": look,
    "order": order,
    "crop": crop,
}


def _jpeg(picture: Pixels) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _PREVIEW_QUALITY])[1].tobytes())


def _png(rgb: Pixels) -> bytes:
    return bytes(cv2.imencode(".png", np.ascontiguousarray(rgb[:, :, ::-1]))[1].tobytes())


def answer(setup: _Setup, request: dict[str, Any], payload: bytes) -> _Reply:
    """What a request gives; a failure is an answer with "error" and the "status" of HTTP."""
    try:
        return OPERATIONS[request["do"]](setup, request, payload)
    except RequestFailed as error:
        return {"error": str(error), "status": error.status}, b""
    except BitternError as error:
        return {"error": str(error), "status": 422}, b""
    except (MemoryError, cv2.error) as error:
        text = one_line(error)
        large = isinstance(error, MemoryError) or "nsufficient memory" in text or "bad_alloc" in text
        reason = "the picture takes more memory than is allowed" if large else f"broken picture ({text[:200]})"
        return {"error": reason, "status": 422}, b""
    except OSError as error:
        return {"error": one_line(error), "status": 507}, b""


def main() -> None:
    """Answer requests until the server closes stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers
    # Nothing that a library prints may come between the messages.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    cv2.setNumThreads(1)
    setup = None
    before = 0
    while len(head := requests.read(messages.HEAD.size)) == messages.HEAD.size:
        length, size = messages.HEAD.unpack(head)
        request = messages.decode(requests.read(length))
        payload = requests.read(size)
        if setup is None:
            os.nice(request.get("nice", 0))
            try:
                setup, message = open_models(request)
            except BitternError as error:
                message = {"error": str(error), "exit_code": error.exit_code}
            reply = messages.encode(message)
            gc.freeze()
            before = limits.private_memory()
        else:
            limits.limit_private_memory(before + size + MAX_MEMORY)
            limits.limit_processor_time(MAX_S.get(request["do"], _MAX_S))
            reply = messages.encode(*answer(setup, request, payload))
            limits.limit_processor_time(0)
        payload = b""
        replies.write(reply)
        replies.flush()
        if before and limits.private_memory() > before + _MAX_KEPT:
            return


if __name__ == "__main__":
    main()

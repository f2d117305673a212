"""`bittern classify`: the answer for single pictures, folders, or a picture on stdin."""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.bare_models import model_options, models_option, open_models, warn_unverified
from bittern.cli.common import FiniteRange, as_utf8, one_blas_thread, print_json, region_option, views_option, warn
from bittern.errors import PictureError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bittern.cli.bare_models import Statements
    from bittern.frames import Pixels
    from bittern.model.preprocess import Region, View
    from bittern.model.runtime import ExecutionPath


@click.command(short_help="Classify pictures.", epilog="Example: bittern classify street.jpg holiday/ --json")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@models_option
@click.option(
    "--max-megapixels",
    type=FiniteRange(0, 1000, min_open=True),
    default=50.0,
    show_default=True,
    help="Refuse a larger picture. A JPEG of more than 50 is decoded at a half, a quarter or an eighth of its size.",
)
@region_option
@views_option
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per picture and head of a model.")
@click.pass_context
def classify(
    ctx: click.Context,
    images: tuple[str, ...],
    models: tuple[str, ...],
    max_megapixels: float,
    region: Region | None,
    views: tuple[View, ...],
    stated: Statements,
    path: ExecutionPath | None,
    threads: int,
    as_json: bool,
) -> None:
    """Classify pictures: label, score, alarm or not, time.

    IMAGE is a file, a folder (every picture below it) or - for a picture on stdin. The time is from the decoded picture
    to the answer, in milliseconds; with several models, crop and resize are done once and count for each of them.

    --region and --views have the meaning of the configuration keys: --views also looks at the squares at the ends of a
    picture, or of the region, that is wider than high. The answer is that of the view with the highest score of a label
    that raises an alarm; the view is named unless it is the centre.

    A bare .tflite file of any tool is taken too: float32, int8 or uint8, grey or in colour, of any size. What it does
    not say has to be stated: --labels, --pixels, --scores-by, --score-of, --size. `bittern models FILE` shows what it
    says.

    Files of a folder that are no pictures, or of a kind that cannot be read here, are left out and counted in one line.

    Exit code 1 if a picture cannot be read, or the region does not fit into it.
    """
    one_blas_thread()
    if region is not None and max_megapixels > 50:
        raise click.UsageError(
            "--region is in pixels of the whole picture: --max-megapixels is at most 50 with it", ctx
        )
    pictures = _PictureReader(images, region, round(max_megapixels * 1e6))
    try:
        import numpy as np

        from bittern.model import answers
        from bittern.model.views import predict

        classifiers = open_models(models, stated, path, threads)
    finally:
        pictures.wait()
    warn_unverified(classifiers)
    failed = False
    for name, picture in pictures:
        if not isinstance(picture, np.ndarray):
            warn(str(picture))
            failed |= isinstance(picture, PictureError)
            continue
        predictions, shared_ns = predict(classifiers, picture, views=views)
        if as_json:
            for row in answers.rows(as_utf8(name), classifiers, predictions, shared_ns):
                print_json(row)
            continue
        for classifier, prediction in zip(classifiers, predictions, strict=True):
            time_ms = (shared_ns + prediction.invoke_ns + prediction.answer_ns) / 1e6
            for result in prediction.results:
                model = f"  {classifier.name}" if len(classifiers) > 1 else ""
                alarm = "ALARM" if result.alarm else "-"
                view = f"  {result.view}" if result.view != "center" else ""
                answer = f"{result.label}  {result.score:.3f}  {alarm}{view}  {time_ms:.1f} ms"
                click.echo(f"{printable(name)}{model}  {answer}")
    if failed:
        ctx.exit(1)


class _PictureReader:
    """Decodes the pictures, the first one in a thread while the models are opened, which takes longer.

    The thread must have ended before anything is printed: decoding silences stderr.
    """

    def __init__(self, images: tuple[str, ...], region: Region | None, max_pixels: int) -> None:
        from threading import Thread

        from bittern.model import pictures  # noqa: F401 - OpenCV, which thread and models both need

        self._pictures = _pictures(images, region, max_pixels)
        self._first: list[tuple[str, Pixels | PictureError | str]] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._take_first)
        # A thread that waits for stdin or a pipe cannot be ended.
        self._started = os.path.isfile(images[0]) or os.path.isdir(images[0])  # noqa: PTH112, PTH113 - Path's raise
        if self._started:
            self._thread.start()

    def _take_first(self) -> None:
        try:
            self._first.extend(islice(self._pictures, 1))
        except BaseException as error:  # raised again when the pictures are read
            self._error = error

    def wait(self) -> None:
        """Wait until the first picture is decoded."""
        if self._started:
            self._thread.join()

    def __iter__(self) -> Iterator[tuple[str, Pixels | PictureError | str]]:
        if self._error is not None:
            raise self._error
        yield from self._first
        yield from self._pictures


def _pictures(
    images: tuple[str, ...], region: Region | None, max_pixels: int
) -> Iterator[tuple[str, Pixels | PictureError | str]]:
    """Every picture by its name, or why there is none; and what is left out of a folder, which is no failure."""
    from bittern.model import pictures
    from bittern.model.picture_header import TooManyPixels

    for image in images:
        names = [image]
        if image != "-" and os.path.isdir(image):  # noqa: PTH112 - Path.is_dir raises
            listing = pictures.find(Path(image))
            names = [str(file) for file in listing.paths]
            if listing.note:
                yield image, f"{image}: {listing.note}"
            if not names:
                yield image, PictureError(f"{image}: no pictures in this folder")
        for name in names:
            try:
                if name == "-":
                    data = sys.stdin.buffer.read(pictures.MAX_BYTES + 1) if sys.stdin else b""
                    frame, origin = pictures.decode_bytes(data, "stdin", max_pixels=max_pixels), "stdin"
                else:
                    frame, origin = pictures.decode(name, max_pixels=max_pixels), name
                yield name, pictures.cut(frame, origin, region)
            except TooManyPixels as error:
                yield name, PictureError(f"{error}, or allow more with --max-megapixels")
            except PictureError as error:
                yield name, error

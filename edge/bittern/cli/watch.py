"""`bittern watch`: the daemon's loop."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.bare_models import Statements, bare_options, configured, warn_unverified
from bittern.cli.common import FiniteRange, needs_extra, one_blas_thread, source_option, warn

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.decision.pipeline import Step
    from bittern.evaluation.sheet import Tile
    from bittern.model.classifier import Classifier
    from bittern.system.stop import Stop

# A contact sheet shows about this many frames, evenly over the whole time.
SHEET_TILES = 24


@click.command(
    short_help="Watch a camera and print its events.",
    epilog="Example: bittern watch --source 'demo:?laps=1' --sheet demo.png",
)
@source_option("picamera:, usb:0, rtsp://..., demo:, a video or a folder.  [default: picamera:]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; options override it.")
@click.option(
    "--model", "models", multiple=True, help="Name, folder or .tflite; may be repeated.  [default: stop_sign]"
)
@bare_options
@click.option(
    "--fps", type=FiniteRange(0.1, 240), help="Look at no more than this many frames per second.  [default: 5]"
)
@click.option("--every-frame", is_flag=True, help="Look at every frame of a recording, whatever its rate.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many frames.")
@click.option("--once", is_flag=True, help="Give up if the camera cannot be opened at the start.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="At the end, write a PNG of frames with their scores.",
)
@click.pass_context
def watch(
    ctx: click.Context,
    source: str | None,
    config_file: Path | None,
    models: tuple[str, ...],
    stated: Statements,
    fps: float | None,
    every_frame: bool,
    frames: int | None,
    once: bool,
    sheet: Path | None,
) -> None:
    """Watch a camera and print its events on stdout, one JSON object per line.

    Ends with the source or after --frames, when every sink has received all events, or cleanly on Ctrl-C and SIGTERM.
    A camera always delivers its newest frame: frames that come while one is classified are dropped and counted. A
    camera that hangs or is unplugged is started again until it works. SIGHUP reloads changed models, if they pass their
    checks. Other sinks (MQTT, webhook, ...) are set in the configuration file: see `bittern config --example`.

    A recording is looked at as a camera would be, at --fps by its own clock, but as fast as possible. A folder of
    pictures has no clock: every picture is looked at, and they count as one a second; folder:PATH?fps=25 gives it one.
    """
    from bittern.system.stop import Stop

    one_blas_thread()
    stop = Stop()
    film = _Film() if sheet is not None else None
    with stop.signals(reload=True, last=True):
        # A signal also ends the start, most of which is imports.
        ready = stop.start(lambda: _start(source, config_file, models, stated, fps, sheet))
        if ready is None:
            return
        from bittern.daemon import run

        settings, classifiers = ready
        page = None
        if settings.page is not None:
            needs_extra("[page]", "page", "starlette", "uvicorn")
            from bittern.page.live_sink import PageSink

            page = partial(PageSink, settings)
        # Objects of the start stay; garbage from here on must not wait until there are 50 000 objects of it.
        gc.freeze()
        gc.set_threshold(1_000)
        file = None if models else config_file
        try:
            opened = run.opened(
                settings,
                classifiers,
                partial(_print, stop),
                stop,
                file=file,
                config_file=config_file,
                once=once,
                every_frame=every_frame,
                page=page,
            )
            with opened as daemon:
                for step in daemon.steps(frames):
                    if film is not None:
                        film.take(step)
        finally:
            if film is not None and sheet is not None:
                film.develop(sheet)
    summary = daemon.summary
    of_all = f" of {summary.frames + summary.left_out}" if summary.left_out else ""
    warn(
        f"{summary.frames}{of_all} frames in {summary.seconds:.1f} s, {summary.skipped} of them still, "
        f"{summary.dropped} dropped, {summary.events} alarm events"
    )
    if stop.restart:
        _start_again()
    if summary.unreadable:
        ctx.exit(1)


def _start_again() -> None:
    """Start this command again in this process; under systemd end, which makes it start a new one."""
    import signal

    if "NOTIFY_SOCKET" in os.environ:
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # ignored signals would stay so
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _start(
    source: str | None,
    config_file: Path | None,
    models: tuple[str, ...],
    stated: Statements,
    fps: float | None,
    sheet: Path | None,
) -> tuple[WatchConfig, list[Classifier]]:
    import logging

    import msgspec

    from bittern.config import schema
    from bittern.daemon import opening
    from bittern.errors import ConfigurationError
    from bittern.system import log, notify, stderr

    stderr.never_wait()
    log.begin(logging.INFO)
    base = schema.load(config_file) if config_file else schema.WatchConfig()
    # Options under [camera] belong to the file's own source.
    camera: dict[str, str] | None = None if source is None else {}
    no_file = None if source is None else ""
    given: dict[str, object] = {"source": source, "source_file": no_file, "camera": camera, "fps": fps}
    if models:
        given |= {"model": configured(models, stated)}
    elif any(stated):
        raise ConfigurationError("what is stated about a .tflite file needs --model, or a [[model]] table in --config")
    try:
        settings = schema.with_source(
            msgspec.convert(
                msgspec.to_builtins(base)
                | {k: v for k, v in given.items() if v is not None}
                | ({"models": None} if models else {}),
                schema.WatchConfig,
            )
        )
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"options: {error}") from None
    if sheet is not None and not sheet.absolute().parent.is_dir():
        raise ConfigurationError(f"--sheet: no folder {sheet.parent}")
    notify.notify(STATUS="opening models")
    classifiers = opening.open_models(settings, by_options=bool(models))
    warn_unverified(classifiers)
    return settings, classifiers


def _print(stop: Stop, line: bytes) -> None:
    """Write a line at once and whole: a reader of the pipe should not wait for a buffer to fill.

    A reader that does not read blocks the loop, but not its end: then the line is dropped; other sinks have got it.
    """
    import select

    out = sys.stdout.fileno()
    ready = select.poll()
    ready.register(out, select.POLLOUT)
    while line:
        while not ready.poll(100):
            if stop.asked:
                return
        # A pipe that is ready takes this much in one piece.
        line = line[os.write(out, line[: select.PIPE_BUF]) :]


class _Film:
    """Keeps frames evenly over a time whose end is not known: when it is full, every other one is dropped."""

    def __init__(self) -> None:
        self._tiles: list[Tile] = []
        self._every = 1
        self._count = 0

    def take(self, step: Step) -> None:
        """A tile for each model's answer to a frame."""
        from bittern.evaluation.sheet import Tile

        for answer in step.answers:
            if self._count % self._every == 0:
                best = [f"{r.label} {r.score:.2f}" for r in answer.results]
                lines = [", ".join(best), f"frame {step.frame.number}" + (", ALARM" if answer.alarm else "")]
                self._tiles.append(Tile(answer.tensor[0].copy(), lines, answer.alarm))
            self._count += 1
            if len(self._tiles) >= 2 * SHEET_TILES:
                self._tiles = self._tiles[::2]
                self._every *= 2

    def develop(self, file: Path) -> None:
        from bittern.evaluation import sheet

        if self._tiles:
            step = max(1, round(len(self._tiles) / SHEET_TILES))
            sheet.write(file, self._tiles[::step])

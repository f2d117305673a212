"""`bittern watch`: the daemon's loop."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import one_blas_thread, warn

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.daemon.loop import Seen
    from bittern.evaluation.sheet import Tile
    from bittern.model.classifier import Classifier
    from bittern.system.stop import Stop

# A contact sheet shows about this many frames, evenly over the whole time.
SHEET_TILES = 24


@click.command(epilog="Example: bittern watch --source 'demo:?laps=1' --sheet demo.png")
@click.option(
    "--source", metavar="URI", help="picamera:, usb:0, rtsp://..., demo:, a video or a folder.  [default: picamera:]"
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file; options given here win over it."
)
@click.option("--model", "models", multiple=True, help="Name or folder; may be given again.  [default: stop_sign]")
@click.option("--fps", type=float, help="Frames a second that are classified at most.  [default: 5]")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after so many frames.")
@click.option("--once", is_flag=True, help="Give up if the camera cannot be opened at the start.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG of what the camera saw, with scores, at the end.",
)
@click.pass_context
def watch(
    ctx: click.Context,
    source: str | None,
    config_file: Path | None,
    models: tuple[str, ...],
    fps: float | None,
    frames: int | None,
    once: bool,
    sheet: Path | None,
) -> None:
    """Watch a camera and print one event a line, as JSON, on stdout.

    Ends with the source or after --frames, when the sinks have got everything, or cleanly on Ctrl-C and SIGTERM. On
    a live source the newest frame wins: what comes while a frame is classified is dropped and counted. A camera
    that hangs or is unplugged is started again and again. SIGHUP loads changed models, if they pass their checks.
    Further sinks (MQTT, webhook, ...) stand in the configuration: see `bittern config --example`.
    """
    from bittern.system.stop import Stop

    one_blas_thread()
    stop = Stop()
    film = _Film()
    with stop.signals(reload=True, last=True):
        # A signal also ends the start, most of which is imports.
        ready = stop.start(lambda: _start(source, config_file, models, fps, sheet))
        if ready is None:
            return
        from bittern.daemon import run

        # What the start made stays; what comes now and is garbage must not wait for 50 000 more of its kind.
        gc.freeze()
        gc.set_threshold(1_000)
        settings, classifiers = ready
        which = ", ".join(f"{c.name} {c.version} on {c.path}" for c in classifiers)
        try:
            summary, skipped = run.run(
                settings, classifiers, partial(_print, stop), stop, file=None if models else config_file,
                frames=frames, once=once, observe=film.take if sheet else None,
                begun=lambda name: warn(f"watching {name} with {which}; Ctrl-C ends it"),
            )  # fmt: skip
        finally:
            if sheet is not None:
                film.develop(sheet)
    warn(
        f"{summary.frames} frames in {summary.seconds:.1f} s, {summary.skipped} of them still, "
        f"{summary.dropped} dropped, {summary.events} alarm events"
    )
    if skipped:
        ctx.exit(1)


def _start(
    source: str | None, config_file: Path | None, models: tuple[str, ...], fps: float | None, sheet: Path | None
) -> tuple[WatchConfig, list[Classifier]]:
    import logging

    import msgspec

    from bittern.config import schema
    from bittern.errors import ConfigurationError
    from bittern.model.classifier import Classifier
    from bittern.system import notify

    logging.basicConfig(format="bittern: %(message)s", level=logging.INFO)
    base = schema.load(config_file) if config_file else schema.WatchConfig()
    # Options under [camera] belong to the file's own source.
    camera: dict[str, str] | None = None if source is None else {}
    given = {"source": source, "camera": camera, "models": models or None, "fps": fps}
    try:
        settings = msgspec.convert(
            msgspec.to_builtins(base) | {k: v for k, v in given.items() if v is not None}, schema.WatchConfig
        )
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"options: {error}") from None
    if sheet is not None and not sheet.absolute().parent.is_dir():
        raise ConfigurationError(f"--sheet: no folder {sheet.parent}")
    notify.notify(STATUS="opening models")
    classifiers = [Classifier(m, threads=settings.threads) for m in settings.models]
    for classifier in classifiers:
        if classifier.manifest is None:
            warn(f"{classifier.name}: no manifest: not verified")
    return settings, classifiers


def _print(stop: Stop, line: bytes) -> None:
    """Write a line at once and whole: a reader of the pipe should not wait for a buffer to fill.

    A reader that does not read holds the loop up, but not its end: then the line is dropped; other sinks have got it.
    """
    import select

    out = sys.stdout.fileno()
    ready = select.poll()
    ready.register(out, select.POLLOUT)
    while line:
        while not ready.poll(100):
            if stop.asked:
                return
        # A pipe that takes anything takes so much whole.
        line = line[os.write(out, line[: select.PIPE_BUF]) :]


class _Film:
    """Keeps frames evenly over a time whose end is not known: when it is full, every other one is dropped."""

    def __init__(self) -> None:
        self._tiles: list[Tile] = []
        self._every = 1
        self._seen = 0

    def take(self, seen: Seen) -> None:
        from bittern.evaluation.sheet import Tile

        if self._seen % self._every == 0:
            best = [f"{r.label} {r.score:.2f}" for r in seen.results]
            lines = [", ".join(best), f"frame {seen.frame.number}" + (", ALARM" if seen.alarm else "")]
            self._tiles.append(Tile(seen.tensor[0].copy(), lines, seen.alarm))
        self._seen += 1
        if len(self._tiles) >= 2 * SHEET_TILES:
            self._tiles = self._tiles[::2]
            self._every *= 2

    def develop(self, file: Path) -> None:
        from bittern.evaluation import sheet

        if self._tiles:
            step = max(1, round(len(self._tiles) / SHEET_TILES))
            sheet.write(file, self._tiles[::step])

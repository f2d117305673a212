"""`bittern record`: records a clip for `bittern replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import FiniteRange, one_blas_thread, source_option, warn
from bittern.errors import ConfigurationError

if TYPE_CHECKING:
    from bittern.frames import Source
    from bittern.sources.clip import Recorder
    from bittern.system.stop import Stop


@click.command(
    short_help="Record a camera into a folder, for `bittern replay`.",
    epilog="Example: bittern record --source usb:0 --seconds 60 --out clip",
)
@source_option("As for `bittern watch`.  [default: picamera:]")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file to take source, camera and fps from."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the clip; is created."
)
@click.option("--seconds", type=FiniteRange(min=0, min_open=True), help="Stop after this many seconds.")
@click.option("--fps", type=FiniteRange(0.1, 240), help="Maximum frames per second, for a camera.  [default: 5]")
@click.option(
    "--max-mb", type=FiniteRange(min=1), default=1000, show_default=True, help="Stop after this many megabytes."
)
@click.option(
    "--jpeg",
    type=click.IntRange(1, 100),
    metavar="QUALITY",
    help="Write JPEG instead of PNG: a quarter of the size at 95, but scores may differ slightly.",
)
@click.option("--force", is_flag=True, help="Delete an existing clip of that name first.")
@click.pass_context
def record(
    ctx: click.Context,
    source: str | None,
    config_file: Path | None,
    out: Path,
    seconds: float | None,
    fps: float | None,
    max_mb: float,
    jpeg: int | None,
    force: bool,
) -> None:
    """Record a camera into a folder, for `bittern replay`.

    Frames are kept unchanged, with time and number: of a camera those that `bittern watch` would look at, of a video or
    a folder of pictures all. The clip is complete at any moment, even if this command is killed. It ends with the
    source, after --seconds or --max-mb, when the disk has less than 256 MiB free, or cleanly on Ctrl-C and SIGTERM.
    Exit code 1 if a picture of the source could not be read.
    """
    from bittern.system.stop import Stop

    one_blas_thread()
    stop = Stop()
    with stop.signals():
        ready = stop.start(lambda: _start(source, config_file))
        if ready is None:
            return
        from bittern.sources.clip import Recorder

        opened, default_fps = ready
        _check_apart(opened, out)
        with opened:
            recorder = Recorder(out, opened.name, max_bytes=int(max_mb * 1e6), jpeg_quality=jpeg, force=force)
            with recorder:
                warn(f"recording {opened.name} to {out}; Ctrl-C ends it")
                try:
                    skipped = _record(opened, recorder, stop, fps or default_fps, seconds)
                finally:
                    warn(f"{out}: {recorder.frames} frames, {recorder.bytes / 1e6:.1f} MB")
    if skipped:
        limit = f" (--fps {fps or default_fps:g})" if opened.live else ""
        warn(f"{skipped} other frames were skipped{limit}")
    if opened.unreadable:
        ctx.exit(1)


def _check_apart(source: Source, out: Path) -> None:
    """Refuse to record a source into its own folder: --force deletes `out` before the first frame is read."""
    path = source.path.resolve() if source.path is not None else None
    if path is not None and out.resolve() in (path, *path.parents):
        source.close()
        raise ConfigurationError(f"--out {out}: the source is read from there: choose another folder")


def _start(source: str | None, config_file: Path | None) -> tuple[Source, float]:
    import logging

    from bittern.config import schema
    from bittern.sources.registry import open_source
    from bittern.system import log

    log.begin(logging.INFO)
    settings = schema.load(config_file) if config_file else schema.WatchConfig()
    # The [camera] options of the file belong to the source of the file.
    if source is None:
        settings = schema.with_source(settings)
    opened = open_source(settings.source, settings.camera) if source is None else open_source(source)
    opened.timeout_s = settings.timeout_s
    return opened, settings.fps


def _record(source: Source, recorder: Recorder, stop: Stop, fps: float, seconds: float | None) -> int:
    """Record until the end.

    Returns:
        How many frames between the first and the last were not kept.
    """
    import time
    from functools import partial

    skipped = 0
    first_ns = last = None
    while not stop.asked:
        due = time.monotonic() + 1 / fps
        frame = stop.wait(source.read)
        if frame is None or stop.asked:
            break
        if first_ns is None or last is None:
            first_ns, last = frame.monotonic_ns, frame.number - 1
        if seconds is not None and frame.monotonic_ns - first_ns >= seconds * 1e9:
            break
        if why := recorder.full():
            warn(f"{why}: the clip ends here")
            break
        recorder.write(frame)
        skipped += frame.number - last - 1
        last = frame.number
        if source.live and (rest := due - time.monotonic()) > 0:
            stop.wait(partial(time.sleep, rest))
    return skipped

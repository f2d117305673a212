"""`bittern data collect`: pictures from Reddit, a list of addresses, a camera, or videos."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bittern.cli.common import FiniteRange, needs_extra, one_blas_thread, source_option, warn
from bittern.errors import BitternError, ConfigurationError, PictureError

if TYPE_CHECKING:
    from bittern.frames import Frame, Source
    from bittern.system.stop import Stop
    from bittern_train.data.collection import Collection
    from bittern_train.data.fetch import Fetcher
    from bittern_train.data.frames import Chooser

F = TypeVar("F", bound=Callable[..., Any])

_out = click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the data set; may exist."
)
_label = click.option("--label", default="", help="Label of all pictures.  [default: none; see `bittern data label`]")


def _fetching(function: F) -> F:
    for option in (
        click.option(
            "--pause",
            type=FiniteRange(0),
            default=1.0,
            show_default=True,
            help="Seconds between requests to a host.",
        ),
        click.option(
            "--timeout",
            type=FiniteRange(min=0, min_open=True),
            default=20.0,
            show_default=True,
            help="Seconds of silence after which a server has failed.",
        ),
        click.option(
            "--max-mb", type=FiniteRange(min=0, min_open=True), default=20.0, show_default=True, help="Largest file."
        ),
    ):
        function = option(function)
    return function


@click.group("collect", short_help="Collect pictures: reddit, urls, camera, video.")
def command() -> None:
    """Collect pictures into a data set: from Reddit, a list of addresses, a camera, or videos.

    Pictures are added to --out under a name of their content, with a row in its index.csv that says where they are
    from. What is there already is not fetched again: after an interruption the same command goes on.
    """


@command.command(
    "reddit",
    short_help="Pictures that were posted in subreddits.",
    epilog="Example: bittern data collect reddit tanks=tank carporn=car --credentials reddit.ini --out set/",
)
@click.argument("subreddits", metavar="SUBREDDIT[=LABEL]...", nargs=-1, required=True)
@_out
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with client_id and client_secret under [reddit].  [default: the environment, praw_client_id and "
    "praw_client_secret, or PRAW's own praw.ini]",
)
@click.option("--sort", type=click.Choice(["new", "hot", "top"]), default="new", show_default=True, help="Which posts.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=500, show_default=True, help="Posts to look at in each subreddit."
)
@click.option("--over-18", is_flag=True, help="Also posts that are marked as for adults.")
@_fetching
@click.pass_context
def reddit(
    ctx: click.Context,
    subreddits: tuple[str, ...],
    out: Path,
    credentials: Path | None,
    sort: str,
    limit: int,
    over_18: bool,
    max_mb: float,
    timeout: float,
    pause: float,
) -> None:
    """Pictures that were posted in subreddits, with your own credentials and at the pace that Reddit allows.

    The index keeps the picture's address (source), author, permalink and title. Removed posts, galleries, videos and
    links to other sites are skipped. Whose pictures they are, and what you may do with them, is for you to find out.
    Exit code 1 if something could not be fetched.
    """
    needs_extra("data collect reddit", "data", "praw", "requests")
    one_blas_thread()
    from bittern_train.data import collection
    from bittern_train.data import reddit as subreddit_posts
    from bittern_train.data.cli.steps import steps

    client = subreddit_posts.connect(credentials)
    failed = False
    with collection.opened(out) as collected, steps() as progress:
        fetcher = _fetcher(max_mb, timeout, pause)
        for words in subreddits:
            name, _, label = words.partition("=")
            name = name.removeprefix("/").removeprefix("r/")
            try:
                posts = subreddit_posts.posts(client, name, sort, limit, over_18=over_18)
            except ConfigurationError:
                raise
            except BitternError as error:
                warn(str(error))
                failed = True
                continue
            step = f"r/{name}"
            progress(step, 0, len(posts.pictures))
            for done, post in enumerate(posts.pictures, start=1):
                columns = {
                    "source": post.url,
                    "author": post.author,
                    "permalink": post.permalink,
                    "subreddit": post.subreddit,
                    "title": post.title,
                }
                failed |= not _fetch_into(collected, fetcher, post.url, label, columns)
                progress(step, done, len(posts.pictures))
            warn(
                f"r/{name}: {len(posts.pictures)} pictures; skipped: {posts.removed} removed, "
                f"{posts.over_18} for adults, {posts.others} without a picture of Reddit's"
            )
    _say(collected)
    if failed:
        ctx.exit(1)


@command.command(
    "urls",
    short_help="Pictures of a list of addresses.",
    epilog="Example: bittern data collect urls list.txt --label gate_open --out set/",
)
@click.argument("file", type=click.Path(path_type=Path))
@_out
@_label
@click.option("--ignore-robots", is_flag=True, help="Do not read robots.txt: for a server of your own.")
@_fetching
@click.pass_context
def urls(
    ctx: click.Context,
    file: Path,
    out: Path,
    label: str,
    ignore_robots: bool,
    max_mb: float,
    timeout: float,
    pause: float,
) -> None:
    """Pictures of a list of addresses: one a line, and after a blank a label if they have different ones.

    Each server's robots.txt is obeyed, and its requests to come back later are; empty lines and those that begin with
    # are left out. The index keeps the address (source). Exit code 1 if a picture could not be fetched.
    """
    needs_extra("data collect urls", "data", "requests")
    one_blas_thread()
    from bittern_train.data import collection
    from bittern_train.data.cli.steps import steps

    lines = _lines(file)
    failed = 0
    with collection.opened(out) as collected, steps() as progress:
        fetcher = _fetcher(max_mb, timeout, pause, robots=not ignore_robots)
        progress("fetch pictures", 0, len(lines))
        for done, line in enumerate(lines, start=1):
            url, *own = line.split(None, 1)
            failed += not _fetch_into(collected, fetcher, url, own[0].strip() if own else label, {"source": url})
            progress("fetch pictures", done, len(lines))
    _say(collected)
    if failed:
        warn(f"{failed} of {len(lines)} could not be fetched; the same command tries those again")
        ctx.exit(1)


def _lines(file: Path) -> list[str]:
    from bittern.system import fileio

    try:
        text = fileio.read_regular(file, 64 * 2**20).decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: expected a list of addresses in UTF-8, one a line") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ConfigurationError(f"{file}: no address in it; expected one a line")
    return lines


def _fetcher(max_mb: float, timeout: float, pause: float, *, robots: bool = True) -> Fetcher:
    from bittern_train.data.fetch import Fetcher

    return Fetcher(max_bytes=int(max_mb * 2**20), timeout_s=timeout, pause_s=pause, robots=robots)


def _fetch_into(collected: Collection, fetcher: Fetcher, url: str, label: str, columns: dict[str, str]) -> bool:
    """Fetch a picture, unless it is there; whether that went well."""
    from bittern_train.data.fetch import FetchError, shown

    if url in collected:
        return True
    try:
        data = fetcher.fetch(url)
        collected.add(shown(url), data, label, "", columns)
    except (FetchError, PictureError) as error:
        warn(str(error))
        return False
    return True


def _say(collected: Collection) -> None:
    again = f" ({collected.duplicates} were there already)" if collected.duplicates else ""
    click.echo(f"{collected.folder}: {collected.added} pictures added{again}")


def _choosing(function: F) -> F:
    for option in (
        click.option("--count", type=click.IntRange(1), help="Stop after so many pictures."),
        click.option("--seconds", type=FiniteRange(min=0, min_open=True), help="Stop after so many seconds."),
        _label,
        _out,
    ):
        function = option(function)
    return function


@command.command(
    "camera",
    short_help="Pictures of a camera: at an interval, on a key, or when something moves.",
    epilog="Example: bittern data collect camera --source usb:0 --every 5 --label gate_open --out set/",
)
@source_option("As for `bittern watch`.  [default: picamera:]")
@click.option("--every", type=FiniteRange(min=0, min_open=True), help="A picture every so many seconds.")
@click.option("--on-key", is_flag=True, help="A picture for each press of Enter, blurred or not.")
@click.option("--on-motion", is_flag=True, help="A picture whenever something has moved.")
@_choosing
def camera(
    source: str | None,
    every: float | None,
    on_key: bool,
    on_motion: bool,
    out: Path,
    label: str,
    seconds: float | None,
    count: int | None,
) -> None:
    """Pictures of a camera, or of any other source: at an interval, on a key, or when something moves.

    Frames in which nothing is sharp, or that hardly differ from the last picture, are left out. Pictures of one minute
    get one group, so that no split divides them. Ends with the source, after --count or --seconds, or on Ctrl-C.
    """
    if (every is not None) + on_key + on_motion != 1:
        raise click.UsageError("expected one of --every SECONDS, --on-key and --on-motion")
    one_blas_thread()
    from datetime import UTC, datetime

    from bittern.system.stop import Stop

    stop = Stop()
    with stop.signals():
        ready = stop.start(lambda: _open(source or "picamera:"))
        if ready is None:
            return
        from bittern_train.data import collection
        from bittern_train.data.frames import Chooser

        chooser = Chooser()
        run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        with ready, collection.opened(out) as collected:
            warn(
                f"looking at {ready.name}; " + ("Enter takes a picture, Ctrl-C ends it" if on_key else "Ctrl-C ends it")
            )
            for frame in _frames(ready, stop, seconds, every or 0.0):
                if _enter_was_pressed() if on_key else chooser.keeps(frame):
                    _add(collected, frame, label, run, f"{frame.source}#{frame.number}")
                if count is not None and collected.added >= count:
                    break
    _say(collected)
    _say_left(chooser)


@command.command(
    "video",
    short_help="Pictures of videos or recordings.",
    epilog="Example: bittern data collect video gate.mp4 --every 2 --out set/",
)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--every",
    type=FiniteRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between frames.",
)
@_choosing
@click.pass_context
def video(
    ctx: click.Context,
    videos: tuple[Path, ...],
    every: float,
    out: Path,
    label: str,
    seconds: float | None,
    count: int | None,
) -> None:
    """Pictures of videos, recordings of `bittern record`, or folders of pictures.

    Frames in which nothing is sharp, or that hardly differ from the last picture, are left out. Pictures of one minute
    of a video get one group, so that no split divides them. --seconds and --every count by the video's own clock.
    Exit code 1 if a video could not be read.
    """
    one_blas_thread()
    from bittern.system.stop import Stop
    from bittern_train.data import collection
    from bittern_train.data.frames import Chooser

    stop, chooser = Stop(), Chooser()
    failed = False
    with stop.signals(), collection.opened(out) as collected:
        for file in videos:
            chooser.start()
            try:
                with _open(str(file)) as source:
                    for frame in _frames(source, stop, seconds, every):
                        origin = f"{file}#{frame.number}"
                        if chooser.keeps(frame) and origin not in collected:
                            _add(collected, frame, label, file.stem, origin)
                        if count is not None and collected.added >= count:
                            break
            except BitternError as error:
                warn(str(error))
                failed = True
            if stop.asked or (count is not None and collected.added >= count):
                break
    _say(collected)
    _say_left(chooser)
    if failed:
        ctx.exit(1)


def _open(uri: str) -> Source:
    from bittern.sources.registry import open_source

    return open_source(uri)


def _frames(source: Source, stop: Stop, seconds: float | None, every_s: float) -> Iterator[Frame]:
    """The frames of a source, with at least so many seconds between two of them, until an end of any kind."""
    first_ns = due_ns = None
    while not stop.asked:
        frame = stop.wait(source.read)
        if frame is None or stop.asked:
            return
        if first_ns is None:
            first_ns = due_ns = frame.monotonic_ns
        if seconds is not None and frame.monotonic_ns - first_ns >= seconds * 1e9:
            return
        if due_ns is None or frame.monotonic_ns < due_ns:
            continue
        yield frame
        due_ns = max(due_ns + int(every_s * 1e9), frame.monotonic_ns + 1)


def _add(collected: Collection, frame: Frame, label: str, run: str, origin: str) -> None:
    from datetime import UTC, datetime

    from bittern_train.data import frames

    taken = datetime.fromtimestamp(frame.time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    group = f"{run}-{frame.monotonic_ns // 60_000_000_000}"
    collected.add(origin, frames.jpeg(frame), label, group, {"source": origin, "time": taken})


def _enter_was_pressed() -> bool:
    """Whether a line came on stdin; the end of it is none."""
    import os
    import select

    with contextlib.suppress(OSError, ValueError):  # closed
        if select.select([sys.stdin], [], [], 0)[0]:
            # Not readline: what its buffer holds, select does not see.
            return b"\n" in os.read(sys.stdin.fileno(), 4096)
    return False


def _say_left(chooser: Chooser) -> None:
    if any(chooser.left):
        click.echo(f"left out: {chooser.left.blurred} frames blurred, {chooser.left.alike} like the one before")

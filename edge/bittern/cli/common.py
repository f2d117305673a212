"""Shared by several commands: options for pictures, JSON lines, fast start-up, and the check for TensorFlow."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from bittern.errors import ConfigurationError, did_you_mean
from bittern.system import stderr

if TYPE_CHECKING:
    from bittern.model.preprocess import Region

TENSORFLOW_HINT = "pip install 'bittern[train]'"

F = TypeVar("F", bound=Callable[..., Any])


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed, without importing it."""
    return find_spec("tensorflow") is not None


def needs_extra(command: str, extra: str, *modules: str) -> None:
    """Check that what a command needs of an extra is installed, without importing it.

    Raises:
        ConfigurationError: something is missing; the message says how to install it.
    """
    if any(find_spec(module) is None for module in modules):
        raise ConfigurationError(f"{command} needs more packages: pip install 'bittern[{extra}]'")


class CommandGroup(click.Group):
    """A group of commands that suggests the nearest name for a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click, with the suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            if hint:
                raise click.UsageError(f"{error.message.removesuffix('.')}{hint}", ctx) from None
            raise


class FiniteRange(click.FloatRange):
    """A range of numbers that excludes "nan" and "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Like click, but refuses numbers that are not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _views(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ("center",)
    names = tuple(value.split(","))
    if "moving" in names:
        raise click.BadParameter("moving: nothing moves in a single picture; `bittern replay` has this view")
    if len(set(names)) < len(names) or not set(names) <= {"center", "left", "right"}:
        raise click.BadParameter(f"expected some of center, left, right, separated by commas, got {value!r}")
    return names


def views_option(function: F) -> F:
    """--views, which gives a tuple."""
    return click.option(
        "--views",
        callback=_views,
        metavar="NAMES",
        help="Squares of a wide picture to classify, among center,left,right; the one with the highest alarm score "
        "decides. The view moving is of streams only.  [default: center]",
    )(function)


def _region(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Region | None:
    if value is None:
        return None
    from bittern.model.preprocess import Region

    try:
        x, y, width, height = (int(part) for part in value.split(","))
    except ValueError:  # too few or too many, or not whole numbers
        x = y = width = height = -1
    if min(x, y) < 0 or min(width, height) < 1:
        raise click.BadParameter(f"expected X,Y,WIDTH,HEIGHT in whole pixels, such as 0,120,640,360, got {value!r}")
    return Region(x, y, width, height)


def region_option(function: F) -> F:
    """--region, which gives a `Region` or None."""
    return click.option(
        "--region",
        callback=_region,
        metavar="X,Y,WIDTH,HEIGHT",
        help="Part of each picture to classify, in pixels from the top left corner.  [default: all of it]",
    )(function)


def _hide_in_ps(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Overwrite an address that may hold a password among this process's arguments, which everybody can read."""
    one_blas_thread()  # the registry imports numpy
    from bittern.errors import redacted
    from bittern.sources.registry import LOCAL

    if value and redacted(value) != value and not value.startswith(LOCAL):
        import ctypes

        with contextlib.suppress(OSError, IndexError):
            # proc_pid_stat(5): fields 48 and 49 are where the arguments begin and end; field 3 follows the name.
            fields = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()
            begin, end, secret = int(fields[45]), int(fields[46]), os.fsencode(value)
            offset = ctypes.string_at(begin, end - begin).find(secret)
            if offset >= 0:
                ctypes.memset(begin + offset, ord("*"), len(secret))
    return value


def source_option(text: str) -> Callable[[F], F]:
    """--source, with its help."""
    return click.option("--source", callback=_hide_in_ps, metavar="URI", help=text)


def one_blas_thread() -> None:
    """Keep numpy's OpenBLAS from starting a thread per core; call it before numpy is imported.

    Each thread would spin for 20 to 50 ms at the start, and Bittern multiplies no matrices. A user's setting stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def print_json(value: Any) -> None:
    """Print one line of JSON on stdout."""
    import msgspec

    click.echo(msgspec.json.encode(value).decode())


def as_utf8(name: str) -> str:
    """A file name for JSON: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def progress_bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, or lines if it is no terminal; yields `show(done)`, where `done` grows from 1 to `length`."""
    if sys.stderr is None:
        yield lambda done: None
        return
    if not sys.stderr.isatty():
        from bittern.system.progress import ProgressLines

        with ProgressLines(sys.stderr) as lines:
            yield lambda done: lines(label, done, length)
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)


def warn(message: str) -> None:
    """Print one line on stderr."""
    stderr.write_line(f"bittern: {message}")


def _interrupt(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise KeyboardInterrupt


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C (exit code 130), so that it leaves nothing half-finished."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tensorflow_command(command: click.Command) -> click.Command:
    """Make a command that needs TensorFlow first check for it, and otherwise say in one line how to install it.

    Without TensorFlow the command is not listed either. SIGTERM ends it like Ctrl-C (exit code 130), so that it leaves
    nothing half-finished.
    """
    inner = command.callback
    assert inner is not None
    command.hidden = not has_tensorflow()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if command.hidden:
            name = click.get_current_context().command_path.partition(" ")[2]
            raise ConfigurationError(f"{name} needs TensorFlow: {TENSORFLOW_HINT}")
        with sigterm_interrupts():
            return inner(*args, **kwargs)

    command.callback = guarded
    return command

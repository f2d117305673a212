"""The command `bittern`: subcommands are imported only when used, and every error is one line with an exit code."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bittern.cli.common import TENSORFLOW_HINT, CommandGroup
from bittern.errors import BitternError, one_line
from bittern.system import stderr
from bittern.version import __version__

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Commands of the device; those of the host packages register in the entry point group HOST_GROUP.
COMMANDS = (
    "adopt",
    "bench",
    "classify",
    "config",
    "doctor",
    "evaluate",
    "explain",
    "models",
    "record",
    "replay",
    "serve",
    "sinks",
    "watch",
)
HOST_GROUP = "bittern.commands"
OPENCV_HINT = "pip install 'bittern[opencv]', or on a Raspberry Pi: apt install python3-opencv"


class Commands(CommandGroup):
    """The commands of the device, and those that other packages register."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Device commands first, then host commands."""
        return [*COMMANDS, *sorted(_host_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name in COMMANDS:
            # Start-up creates tens of thousands of objects that all stay alive. With Python's default threshold of 700
            # the garbage collector scans them again and again: a tenth of the time of `bittern classify`.
            gc.set_threshold(50_000)
            return getattr(import_module(f"bittern.cli.{cmd_name}"), cmd_name)  # type: ignore[no-any-return]
        point = _host_commands().get(cmd_name)
        return _load(point) if point is not None else None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Says how to get the commands that cannot run without TensorFlow, which are not listed then."""
        hidden = [name for name, point in sorted(_host_commands().items()) if _load(point).hidden]
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"More commands ({', '.join(hidden)}) need TensorFlow: {TENSORFLOW_HINT}")
        super().format_epilog(ctx, formatter)

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run a command, and turn any error into one line."""
        closed = sys.stdout is None
        stderr.open_standard_descriptors()
        if closed:
            _fail("stdout is closed: results cannot be printed")
        try:
            # Not click's own `main`, which says nothing when stdout is a closed pipe.
            with self.make_context("bittern", list(sys.argv[1:] if args is None else args)) as context:
                self.invoke(context)
            code = 0
            sys.stdout.flush()
        except click.exceptions.Exit as exit_:
            code = exit_.exit_code
            with contextlib.suppress(OSError):
                sys.stdout.flush()
        except (click.exceptions.Abort, KeyboardInterrupt):
            _fail("interrupted", 130)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = error.exit_code
        except click.UsageError as error:
            message = " ".join(error.format_message().split())  # click puts each choice on a line
            end = "" if message.endswith((".", "?")) else "."
            hint = f"{end} Try '{error.ctx.command_path} --help'." if error.ctx else ""
            _fail(f"{message}{hint}", error.exit_code)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except BitternError as error:
            _debug_or(error)
            _fail(str(error), error.exit_code)
        except OSError as error:
            _debug_or(error)
            if error.errno in (errno.EPIPE, errno.EBADF):
                # Nothing can be printed any more; flushing the buffer must not fail again at exit.
                _drop_stdout()
                _fail("stdout was closed before everything was printed")
            _drop_stdout()
            _fail(str(error))
        except Exception as error:
            _debug_or(error)
            if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
                _fail(f"OpenCV is missing: {OPENCV_HINT}", 2)
            _fail(
                f"internal error: {type(error).__name__}: {one_line(error)[:300]} "
                "(bittern --debug COMMAND ... shows the traceback)"
            )
        # The process ends now: the garbage collector need not scan its memory first.
        gc.freeze()
        sys.exit(code)


def _host_commands() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # brings the whole of `email`; no device command needs it

    return {point.name: point for point in entry_points(group=HOST_GROUP) if point.name not in COMMANDS}


def _load(point: EntryPoint) -> click.Command:
    """A host command; where the packages are newer than what pip noted of them, one that says what to do."""
    try:
        return point.load()  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        reason = f"{point.name} cannot be loaded ({one_line(error)}): install Bittern again"

        def refuse(**_: Any) -> NoReturn:
            raise BitternError(reason)

        arguments = [click.Argument(["args"], nargs=-1, type=click.UNPROCESSED)]
        return click.Command(
            point.name,
            callback=refuse,
            params=list(arguments),
            short_help="Cannot be loaded: install Bittern again.",
            context_settings={"ignore_unknown_options": True},
        )


def _debug_or(error: BaseException) -> None:
    # An option of the group itself, so it can only stand first.
    if "--debug" in sys.argv[1:2]:
        raise error


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(message: str, code: int = 1) -> NoReturn:
    stderr.write_line(f"bittern: {message}")
    sys.exit(code)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: bittern classify street.jpg",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="bittern")
def main(debug: bool) -> None:
    """Classify pictures, and watch a camera for events, on a Raspberry Pi.

    Exit codes: 0 success, 1 some inputs or checks failed, 2 wrong usage or configuration.
    """

"""The errors that reach a user: one line that says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class BitternError(Exception):
    """A failure that the user can fix; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class ConfigurationError(BitternError):
    """A wrong option, key, name or model: nothing was started."""

    exit_code = 2


class ModelRefused(ConfigurationError):
    """A model file or folder that does not fulfil the contract."""


class PictureError(BitternError):
    """A picture that cannot be read, or is larger than allowed."""


class SourceError(BitternError):
    """A source of frames that is absent or `busy` (exit code 2), or was lost while running (exit code 1)."""

    def __init__(self, message: str, *, exit_code: int = 1, busy: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.busy = busy


def one_line(error: BaseException) -> str:
    """The message of an error on one line; its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, `; did you mean 'stop_sign'?`, or nothing if no known one is near."""
    import difflib  # only where something is misspelt: it is not needed to start

    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""

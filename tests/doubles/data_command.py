"""`bittern data` in the process of the test, because starting one takes a second; errors are shown as by `bittern`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from tests.doubles.command import Done

from bittern.errors import BitternError
from bittern_train.data.cli.main import data as group


def data(*words: str | Path, **env: str) -> Done:
    """Run a subcommand; an exception that is no error of Bittern fails the test."""
    result = CliRunner().invoke(group, [str(word) for word in words], env=env)
    code, err = result.exit_code, result.stderr
    if isinstance(result.exception, BitternError):
        code, err = result.exception.exit_code, f"{err}bittern: {result.exception}\n"
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(code, result.stdout, err)

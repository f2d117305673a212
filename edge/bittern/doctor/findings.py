"""The result of a check: plain data, and the four functions that make it."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "warning", "failure", "skipped"]


class Finding(msgspec.Struct, frozen=True):
    """The result of one check.

    Attributes:
        check: name of the check.
        status: "warning": it works, with drawbacks; "failure": it does not work; "skipped": it was not checked.
        finding: one line.
        fix: for a warning or a failure, the command that fixes it, or what else to do.
    """

    check: str
    status: Status
    finding: str
    fix: str | None = None


def ok(check: str, finding: str) -> Finding:
    """All well."""
    return Finding(check, "ok", finding)


def warning(check: str, finding: str, fix: str) -> Finding:
    """It works, with drawbacks."""
    return Finding(check, "warning", finding, fix)


def failure(check: str, finding: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, "failure", finding, fix)


def skipped(check: str, reason: str) -> Finding:
    """It was not checked."""
    return Finding(check, "skipped", reason)

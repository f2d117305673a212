"""What a check found: plain data, and the four ways to make it."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "warning", "failure", "skipped"]


class Finding(msgspec.Struct, frozen=True):
    """The result of one check.

    Attributes:
        check: what was looked at.
        status: "warning" works but will cost something; "failure" does not work; "skipped" was not looked at.
        finding: one line.
        fix: for a warning or a failure the command that mends it, or what to do where no command can.
    """

    check: str
    status: Status
    finding: str
    fix: str | None = None


def ok(check: str, finding: str) -> Finding:
    """All well."""
    return Finding(check, "ok", finding)


def warning(check: str, finding: str, fix: str) -> Finding:
    """It works, at a price."""
    return Finding(check, "warning", finding, fix)


def failure(check: str, finding: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, "failure", finding, fix)


def skipped(check: str, why: str) -> Finding:
    """It was not looked at."""
    return Finding(check, "skipped", why)

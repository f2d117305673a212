"""The doctor's output: a table for people, and an anonymous report for a bug tracker."""

from __future__ import annotations

import getpass
import ipaddress
import os
import re
import socket
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bittern.doctor.examine import Examination
from bittern.doctor.findings import Finding

# Default names of the images, which say nothing about the owner.
_COMMON = {"root", "pi", "bittern", "raspberrypi", "localhost", ""}
_SECRETS = (
    (re.compile(r"\b[A-Za-z][A-Za-z0-9+]*://[^\s'\"]+"), "ADDRESS"),
    (re.compile(r"/dev/v4l/by-(id|path)/[^\s'\",:;?]+"), r"/dev/v4l/by-\1/CAMERA"),
    (re.compile(r"(/home|/Users|/media|/mnt|/run/user)/[^\s/'\":]+"), r"\1/USER"),
    (re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.])"), "ADDRESS"),  # IPv4
    (re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])"), "ADDRESS"),  # MAC
)
# A possible IPv6 address, with a colon or full stop after it that belongs to the sentence.
_COLONS = re.compile(r"(?<![\w:.])[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*(?!\w)")


def table(checks: Iterable[Finding]) -> str:
    """One line per check, with the command that fixes it below, and a summary."""
    findings = list(checks)
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.check:<{width}}  {finding.finding}")
        if finding.fix is not None:
            lines.append(f"{'':<8} {'':<{width}}  do: {finding.fix}")
    counts = Counter(finding.status for finding in findings)
    summary = [f"{counts['ok']} ok"]
    summary += [f"{counts[x]} {x}{'' if counts[x] == 1 else 's'}" for x in ("warning", "failure")]
    lines.append(", ".join([*summary, f"{counts['skipped']} skipped"]))
    return "\n".join(lines)


def report(examination: Examination, names: Iterable[str] | None = None) -> str:
    """Machine and checks as a fenced block of Markdown.

    Args:
        examination: the result of `examine`.
        names: names to hide; None hides those of this user and this host.
    """
    hidden = own_names() if names is None else set(names)
    fields = msgspec.to_builtins(examination.machine)
    throttled = fields.pop("throttled")
    fields["throttled"] = throttled["raw"] if throttled else None
    signature = [f"{key:<20} {'-' if value is None else value}" for key, value in sorted(fields.items())]
    checks = [
        Finding(c.check, c.status, anonymous(c.finding, hidden), c.fix and anonymous(c.fix, hidden))
        for c in examination.checks
    ]
    return "\n".join(["```text", *signature, "", table(checks), "```"])


def own_names() -> set[str]:
    """Names of this user (also behind sudo) and this host."""
    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        user = ""
    return {user, os.environ.get("SUDO_USER", ""), Path.home().name, host, host.partition(".")[0]} - _COMMON


def anonymous(text: str, names: Iterable[str]) -> str:
    """Hide addresses, home folders, cameras' serial numbers and the given names in a text."""
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    text = _COLONS.sub(_without_ipv6, text)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    for name in names:
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "NAME", text)
    return text


def _without_ipv6(match: re.Match[str]) -> str:
    """ADDRESS for an IPv6 address, the text itself for anything else, such as a time."""
    for end in range(len(match[0]), 0, -1):
        try:
            ipaddress.IPv6Address(match[0][:end])
        except ValueError:
            if match[0][end - 1] not in ":.":
                break
        else:
            return "ADDRESS" + match[0][end:]
    return match[0]

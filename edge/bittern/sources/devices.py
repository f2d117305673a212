"""Finds the process that holds a device file, for the message that it is busy."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def held_by(*patterns: str) -> str:
    """Name the other processes that have one of the device files open, according to /proc.

    Args:
        patterns: paths or glob patterns, such as "/dev/video*".

    Returns:
        For example "held by process 812 (motion)". Only root sees the processes of other users, so finding none
        proves nothing: then the text says how to look as root.
    """
    devices = {os.path.realpath(path) for pattern in patterns for path in glob.glob(pattern)}  # noqa: PTH207
    holders = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(fd) in devices for fd in (process / "fd").iterdir()):
                holders.append(f"process {process.name} ({(process / 'comm').read_text().strip()})")
        except OSError:  # it ended meanwhile, or belongs to another user
            continue
    if holders:
        return "held by " + ", ".join(sorted(holders))
    return "no process of this user holds it; look as root: sudo fuser -v " + " ".join(patterns)

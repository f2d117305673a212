"""Which process holds a device file: the answer to "busy"."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def held_by(*patterns: str) -> str:
    """Name the other processes that have one of the device files open, as Linux's /proc shows them.

    Args:
        patterns: paths or glob patterns, such as "/dev/video*".

    Returns:
        For example "held by process 812 (motion)". Only root sees the processes of other users, so that
        finding none proves nothing: then the text says how to look as root.
    """
    devices = {os.path.realpath(path) for pattern in patterns for path in glob.glob(pattern)}  # noqa: PTH207
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(fd) in devices for fd in (process / "fd").iterdir()):
                found.append(f"process {process.name} ({(process / 'comm').read_text().strip()})")
        except OSError:  # ended meanwhile, or another user's
            continue
    if found:
        return "held by " + ", ".join(sorted(found))
    return "no process of this user is seen holding it; look as root: sudo fuser -v " + " ".join(patterns)

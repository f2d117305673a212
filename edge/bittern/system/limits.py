"""Limits of a process on its own memory and processor time; of what a system does not know nothing is limited."""

from __future__ import annotations

import resource
import signal
from pathlib import Path


def limit_memory(extra: int) -> None:
    """Let this process take `extra` bytes more than it has now; then an allocation fails, as it does without memory.

    Memory that is shared with another process does not count (RLIMIT_DATA, since Linux 4.7). May be called again.
    """
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now = int(fields["VmData"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + extra
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def limit_processor_time(seconds: float) -> None:
    """Let this process compute for so long from now on, all its threads together; then SIGPROF ends it. 0: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)

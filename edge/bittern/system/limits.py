"""Limits of a process on its own memory and processor time; of what a system does not know nothing is limited."""

from __future__ import annotations

import resource
import signal
from pathlib import Path


def private_memory() -> int:
    """Bytes of memory that this process has to itself, used or not; 0 where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmData"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def limit_private_memory(most: int) -> None:
    """Let this process have at most so many bytes to itself (RLIMIT_DATA, since Linux 4.7); may be called again.

    Beyond it an allocation fails, as it does without memory.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def limit_processor_time(seconds: float) -> None:
    """Let this process compute for so long from now on, all its threads together; then SIGPROF ends it. 0: no limit."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it may have been ignored by whoever started this process
    signal.setitimer(signal.ITIMER_PROF, seconds)

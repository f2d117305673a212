"""Fault 25, months in minutes: `python -m tests.faults.soak --minutes 30 --out build/soak`; `make soak`.

The daemon gets ten times the frames (50 a second), and every one of them is an event, which is far more than a hundred
times as many as there are. Two peers take them: a webhook that is down for a tenth of the time, and a broker. Every few
seconds memory, file descriptors, threads and disk are read from /proc; afterwards none may have grown.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.doubles.http_peer import Peer
from tests.doubles.mosquitto import Broker
from tests.faults.test_daemon import Daemon

from bittern.bench import chart

FPS = 50.0
# Growth over the second half that is taken for noise: a share of the value, or the noise of the readings themselves.
GROWTH = 0.02
_SAMPLES = 240


def readings(daemon: Daemon) -> dict[str, float]:
    """What could grow: of the daemon, its camera process, and its folders."""
    pid = daemon.process.pid
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:1])
    folders = [daemon.folder / "state", daemon.folder / "snapshots"]
    return {
        "memory of the daemon, MB": _rss_mb(pid),
        "memory of the camera's process, MB": _rss_mb(child),
        "file descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "disk, MB": sum(map(_size, (file for folder in folders for file in folder.glob("*")))) / 1e6,
    }


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # the ring has just deleted it
        return 0


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def growth(values: Sequence[float]) -> tuple[float, float]:
    """How much a series grew over its second half, by the medians of its last two quarters; and what is noise.

    The noise is four standard errors of the difference, as the scatter of the readings around their quarter's median
    says (1.4826 times the median absolute deviation), or a share of the value if that is more.
    """
    quarter = len(values) // 4
    third, fourth = (np.array(values[start : start + quarter]) for start in (2 * quarter, len(values) - quarter))
    scatter = [1.4826 * float(np.median(np.abs(part - np.median(part)))) for part in (third, fourth)]
    error = float(np.hypot(scatter[0], scatter[1])) / quarter**0.5
    level = float(np.median(third))
    return float(np.median(fourth)) - level, max(4 * error, GROWTH * level)


def main() -> int:
    """Exit code 1 if something grew, or an event is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    seconds = options.minutes * 60
    options.out.mkdir(parents=True, exist_ok=True)
    series: dict[str, list[tuple[float, float]]] = {}
    peer = Peer()
    with tempfile.TemporaryDirectory(prefix="bittern-soak-") as place, Broker(Path(place)) as broker:
        more = (
            f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
            f'[snapshots]\nfolder = "{place}/d/snapshots"\nbudget_mb = 0.5\n'
        )
        daemon = Daemon(Path(place) / "d", peer, fps=FPS, more=more)
        printed, events, half = 0, 0, b""
        try:
            daemon.read(lambda: len(peer.requests) > 0)
            start = time.monotonic()
            down = False
            while (elapsed_s := time.monotonic() - start) < seconds:
                wish = 0.2 < elapsed_s / seconds < 0.3
                if wish != down:
                    peer.down() if wish else peer.up()
                    down = wish
                for name, value in readings(daemon).items():
                    series.setdefault(name, []).append((elapsed_s, value))
                rest = time.monotonic() + max(0.25, seconds / _SAMPLES)
                daemon.read(lambda rest=rest: time.monotonic() > rest, 600)  # type: ignore[misc]
                *lines, half = (half + daemon.printed).split(b"\n")
                daemon.printed = b""
                printed += len(lines)
                events += sum(b'"alarm.' in line for line in lines)
                print(f"{elapsed_s:6.0f} s of {seconds:.0f}: {events} events printed", file=sys.stderr, flush=True)
            daemon.read(lambda: daemon.figure('bittern_outbox_events{sink="webhook"}') < 50, 120)
            dropped = {
                sink: daemon.figure(f'bittern_sink_events_total{{result="dropped",sink="{sink}"}}')
                for sink in ("webhook", "mqtt")
            }
            took = daemon.end(signal.SIGTERM)
            *lines, _ = (half + daemon.printed).split(b"\n")
            printed += len(lines)
            waiting = daemon.in_outbox()
        finally:
            daemon.close()
            peer.close()
    delivered = [event["id"] for event in peer.events]
    trends = {name: growth([value for _, value in points]) for name, points in series.items()}
    missing = printed - len(set(delivered)) - len(waiting - set(delivered)) - dropped["webhook"]
    rows = [
        f"{name}: {grown:+.3g} (noise {noise:.3g}), last {series[name][-1][1]:.4g}"
        for name, (grown, noise) in trends.items()
    ]
    flat = all(grown <= noise for grown, noise in trends.values())
    ok = flat and missing <= 0 and daemon.process.returncode == 0 and took < 2
    summary = {
        "minutes": options.minutes, "fps": FPS, "events": events, "webhook_got": len(delivered),
        "repeated": len(delivered) - len(set(delivered)),
        "dropped": dropped, "missing": missing, "stopped_after_s": round(took, 2), "ok": ok,
        "growth": {name: {"grown": round(g, 4), "noise": round(n, 4)} for name, (g, n) in trends.items()},
    }  # fmt: skip
    (options.out / "soak.json").write_text(json.dumps(summary, indent=1) + "\n")
    title = f"bittern watch: {options.minutes:g} minutes, {FPS:g} frames a second, {events} events"
    (options.out / "soak.svg").write_text(chart.panels(series, title))
    print("\n".join([*rows, json.dumps(summary)]))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

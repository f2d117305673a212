"""The rows of the bench, each with its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bittern.bench import daemon, page, rows
from bittern.bench.result import Row
from bittern.bench.rows import Subject

Measure = Callable[[Subject, int], Row]
HOST_GROUP = "bittern.bench"


def host_rows() -> dict[str, Measure]:
    """Rows of the host packages, which are measured where they are asked for by name."""
    from importlib.metadata import entry_points  # brings the whole of `email`

    return {name: row for point in entry_points(group=HOST_GROUP) for name, row in point.load().items()}


ROWS: Mapping[str, Measure] = {
    "invoke": rows.invoke_row,
    "event_224": rows.event_row("event_224", (224, 224), 1.03),
    "event_640": rows.event_row("event_640", (640, 480), 1.12),
    "event_1080": rows.event_row("event_1080", (1920, 1080), 1.50),
    "gate": daemon.gate_row,
    "daemon_224": daemon.event_row("daemon_224", (224, 224), 1.10),
    "daemon_640": daemon.event_row("daemon_640", (640, 480), 1.20),
    "daemon_1080": daemon.event_row("daemon_1080", (1920, 1080), 1.60),
    "daemon_more": daemon.more_row,
    "daemon_age": daemon.age_row,
    "mediapipe": rows.against_mediapipe_row,
    "tutorial": rows.against_tutorial_row,
    "classify_cold": rows.classify_cold_row,
    "help_cold": rows.help_cold_row,
    "xnnpack": rows.xnnpack_row,
    "decode": rows.decode_row,
    "evaluate": rows.evaluate_row,
    "model_file": rows.model_file_row,
    "idle_cpu": daemon.idle_cpu_row,
    "stop": daemon.stop_row,
    "memory": rows.memory_row,
    "memory_both": rows.memory_both_row,
    "page_viewer": page.viewer_row,
    "page_idle": page.idle_row,
    "page_memory": page.memory_row,
    "serve_load": page.serve_row,
}

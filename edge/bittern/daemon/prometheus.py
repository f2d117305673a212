"""The daemon's metrics for Prometheus, and whether it makes progress: over HTTP from a thread of their own."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import platform
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from bittern.config.schema import HealthConfig
from bittern.daemon.health import BOUNDS_S, Health, Histogram, Reading
from bittern.errors import ConfigurationError
from bittern.system.machine import THROTTLED_BITS
from bittern.version import __version__

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError:
    raise ConfigurationError("[health] needs prometheus-client: pip install 'bittern[metrics]'") from None

# A scrape takes one or two connections; beyond this many the oldest is cut off, so that no client can hold them all.
_CONNECTIONS = 8
_TIMEOUT_S = 5.0
# Without progress for longer than this the daemon is unhealthy: WatchdogSec= of its unit.
_PROGRESS_S = 30.0


class HealthCollector(Collector):
    """A `Health` as metrics of Prometheus."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise collect once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of one moment."""
        reading = self._health.reading()
        yield _info("bittern_build", "Version of Bittern, and of Python.", [(__version__, platform.python_version())])
        yield _info("bittern_model", "Models that run now.", reading.models, ("model", "version", "path"))
        yield from _counters(reading)
        events = CounterMetricFamily("bittern_events", "Events that were raised, by type.", labels=["type"])
        for kind, count in reading.events.items():
            events.add_metric([kind], count)
        yield events
        yield from _sinks(reading)
        yield from _gauges(reading)
        yield from self._histograms()

    def _histograms(self) -> Iterator[Metric]:
        stages = self._health.stages
        latency = HistogramMetricFamily("bittern_latency_seconds", "From the capture of a frame to its answer.")
        latency.add_metric([], _buckets(stages["age"]), stages["age"].sum)
        yield latency
        times = HistogramMetricFamily("bittern_stage_seconds", "Time of one frame in each stage.", labels=["stage"])
        for name, histogram in stages.items():
            if name != "age":
                times.add_metric([name], _buckets(histogram), histogram.sum)
        yield times


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    counts = itertools.accumulate(histogram.counts.copy())
    return list(zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True))


class MetricsServer:
    """Serves http://HOST:PORT/metrics and /health until it is closed.

    Attributes:
        port: on which it listens, also where 0 was asked for.
    """

    def __init__(self, health: Health, config: HealthConfig) -> None:
        """Begin to listen.

        Raises:
            ConfigurationError: the port is taken, or there is no such address.
        """
        registry = CollectorRegistry()
        registry.register(HealthCollector(health))
        ProcessCollector(namespace="bittern", registry=registry)
        try:
            self._server = _Server((config.host, config.port), registry, health)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"health: cannot listen on {config.host} port {config.port}: {reason}: "
                "expected a free port, one for each camera"
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and cut off open connections. A second call does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_off()
        self._thread.join(timeout=2.0)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _CONNECTIONS

    def __init__(self, address: tuple[str, int], registry: Any, health: Health) -> None:
        self.registry = registry
        self.health = health
        self._open: deque[socket.socket] = deque()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Page)

    def server_bind(self) -> None:
        """Bind without `HTTPServer`'s look-up of the host's name, which may take seconds and is not used here."""
        super(http.server.HTTPServer, self).server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; the oldest connection makes room."""
        with self._lock:
            self._open.append(request)
            oldest = self._open.popleft() if len(self._open) > _CONNECTIONS else None
        if oldest is not None:
            _shut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The end of a connection."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: the client went away."""

    def cut_off(self) -> None:
        """End every connection."""
        with self._lock:
            for request in self._open:
                _shut(request)


def _shut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Page(http.server.BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server_version = "bittern"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        """Send the metrics, or whether the main loop makes progress: 200, or 503 if it hangs."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._send(200, content_type, encode(self.server.registry))
        elif path == "/health":
            age_s = self.server.health.progress_age_s()
            text = f"progress {age_s:.1f} s ago, camera: {self.server.health.camera}\n"
            self._send(200 if age_s <= _PROGRESS_S else 503, "text/plain", text.encode())
        else:
            self.send_error(404, "Not Found", "there are /metrics and /health")

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape every 15 s would fill the journal."""


def _info(name: str, text: str, rows: Any, labels: tuple[str, ...] = ("version", "python")) -> Metric:
    info = GaugeMetricFamily(f"{name}_info", text, labels=list(labels))
    for row in rows:
        info.add_metric(list(row), 1)
    return info


def _counters(reading: Reading) -> Iterator[Metric]:
    for name, text, value in (
        ("frames", "Frames that came from the source.", reading.frames),
        ("frames_classified", "Frames that were classified.", reading.classified),
        ("frames_skipped", "Frames that were not classified because nothing moved.", reading.skipped),
        ("frames_dropped", "Frames that were never read because a newer one had come.", reading.dropped),
        ("inference_errors", "Inferences that failed.", reading.errors),
        ("camera_restarts", "Restarts of the camera.", reading.camera_restarts),
        ("reloads", "Exchanges of models while running.", reading.reloads),
        ("reloads_refused", "Models that a reload refused.", reading.reloads_refused),
    ):
        yield CounterMetricFamily(f"bittern_{name}", text, value=value)


def _sinks(reading: Reading) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("bittern_outbox_events", "Events that wait for a sink.", labels=["sink"])
    done = CounterMetricFamily("bittern_sink_events", "Events by what became of them.", labels=["sink", "result"])
    for sink, metrics in reading.sinks.items():
        waiting.add_metric([sink], metrics.waiting)
        for result in ("delivered", "refused", "dropped"):
            done.add_metric([sink, result], getattr(metrics, result))
    yield waiting
    yield done


def _gauges(reading: Reading) -> Iterator[Metric]:
    state = GaugeMetricFamily("bittern_camera_state", "1 for the state that the camera is in.", labels=["state"])
    state.add_metric([reading.camera], 1)
    yield state
    for name, text, value in (
        ("uptime_seconds", "Since the daemon started.", reading.uptime_s),
        ("frame_age_seconds", "Since the last frame came.", reading.frame_age_s),
        (
            "progress_age_seconds",
            "Since the main loop last made progress.",
            reading.progress_age_s,
        ),
        ("temperature_celsius", "Of the processor.", reading.board.temperature_c),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"bittern_{name}", text, value=value)
    if reading.board.throttled is not None:
        throttled = GaugeMetricFamily(
            "bittern_throttled", "1 for each limit of a Pi that holds now.", labels=["reason"]
        )
        for reason in THROTTLED_BITS:
            throttled.add_metric([reason], reason in reading.board.throttled)
        yield throttled

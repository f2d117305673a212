"""A whole daemon at a door: a camera that shows what it is told, a broker, and what an owner sees of it over MQTT."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from tests.doubles.command import BITTERN, OFTEN
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until

HERE = Path(__file__).parent
UNAVAILABLE = "unavailable"


class Door:
    """`bittern watch` in a process of its own, again and again with the same folder; the model of means is its model.

    Attributes:
        folder: of everything that it needs.
        lines: keys of the configuration, to be edited between two runs: at the top, and the tables after them.
        tables: see `lines`.
    """

    def __init__(
        self, folder: Path, port: int, name: str | None = "door", mqtt: str = "", state: str = "state"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.model = model_folder_of_means(folder / "means")
        self.lines = {"name": json.dumps(name)} if name is not None else {}
        self.lines |= {"models": json.dumps([str(self.model)]), "fps": "20.0"}
        self.tables = {
            "mqtt": f'host = "127.0.0.1"\nport = {port}\ninterval_s = 1.0\n{mqtt}',
            "snapshots": f'folder = "{folder}/snapshots"\n',
            "outbox": f'folder = "{folder}/state"\n',
        }
        self._camera = folder / "camera.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "stderr"
        self.show("calm")

    def show(self, show: str = "calm", **what: Any) -> None:
        """What the camera shows, or does, from now on; see tests/doubles/camera_double/picamera2.py."""
        new = self._camera.with_suffix(".new")
        new.write_text(json.dumps({"show": show, "fps": 20, **what}))
        new.rename(self._camera)

    def start(self) -> Self:
        tables = "".join(f"[{table}]\n{lines}" for table, lines in self.tables.items())
        keys = "".join(f"{key} = {value}\n" for key, value in self.lines.items())
        source = 'source = "picamera:?size=320x240&fps=20"\n'
        recovery = "[recovery]\nwarm_up_frames = 0\nblind_after_s = 1.0\n"
        (self.folder / "door.toml").write_text(f"{source}{keys}{recovery}{OFTEN}{tables}")
        path = (str(HERE / "camera_double"), str(HERE.parents[1]), os.environ.get("PYTHONPATH", ""))
        with self.log.open("ab") as log, (self.folder / "stdout").open("ab") as out:
            self.process = subprocess.Popen(
                [BITTERN, "watch", "--config", str(self.folder / "door.toml")], stdout=out, stderr=log,
                env=os.environ
                | {"CAMERA_DOUBLE": str(self._camera), "PYTHONPATH": os.pathsep.join(filter(None, path))},
            )  # fmt: skip
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def events(self) -> list[dict[str, Any]]:
        """What it has printed, of all runs."""
        text = (self.folder / "stdout").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def camera_pid(self) -> int:
        """Its camera's process."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(pid) for pid in children if b"camera" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop(signal.SIGKILL)


class View:
    """What Home Assistant shows of a camera, by its rules: from the discovery message and the topics that it names.

    Attributes:
        history: of each entity, by its key, when its state changed by the monotonic clock, and the state.
        events: of the event topic, in the order of arrival.
        connected_s: when it last connected.
    """

    def __init__(self, port: int, prefix: str = "homeassistant") -> None:
        self.history: dict[str, list[tuple[float, str]]] = {}
        self.events: list[dict[str, Any]] = []
        self.connected_s = 0.0
        self.topics: set[str] = set()  # that were heard
        self._values: dict[str, bytes] = {}
        self._devices: dict[str, dict[str, Any]] = {}
        self._config = re.compile(f"{prefix}/device/([a-z0-9_]+)/config")
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        until(lambda: self.connected_s)

    @property
    def devices(self) -> dict[str, str]:
        """The names of the devices, by id."""
        return {device: str(message["device"]["name"]) for device, message in list(self._devices.items())}

    def key(self, part: str) -> str:
        """The key of the only entity that has this in it."""
        (key,) = (key for message in self._devices.values() for key in self._entities(message) if part in key)
        return key

    def state(self, part: str) -> str:
        """The state of the only entity that has this in its key; "" if there is none."""
        last = [states[-1][1] for key, states in list(self.history.items()) if part in key]
        return next(filter(None, last), "")

    def states(self, part: str) -> list[str]:
        """All states that it had since `forget`, which the first of them is older than."""
        return [state for _, state in self.history[self.key(part)]]

    def forget(self, part: str) -> None:
        """Forget all states but the last."""
        del self.history[self.key(part)][:-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        for kind in ("connect", "disconnect", "message"):
            setattr(self._client, f"on_{kind}", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @staticmethod
    def _entities(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {key: c for key, c in message["components"].items() if c.keys() > {"platform"}}

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([("#", 1)])
        self.connected_s = time.monotonic()

    def _on_disconnect(self, *_: Any) -> None:
        self._values.clear()
        self._look()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.topics.add(message.topic)
        self._values[message.topic] = bytes(message.payload)
        if (device := self._config.fullmatch(message.topic)) is not None:
            self._devices.pop(device[1], None)
            if message.payload:
                self._devices[device[1]] = json.loads(message.payload)
        elif message.topic.endswith("/event"):
            self.events.append(json.loads(message.payload))
        self._look()

    def _look(self) -> None:
        """Note what has changed."""
        now_s = time.monotonic()
        shown = {k: e for message in self._devices.values() for k, e in self._entities(message).items()}
        for key in self.history.keys() - shown.keys():
            self._note(key, "", now_s)
        for key, entity in shown.items():
            topics = [one["topic"] for one in entity.get("availability", [])]
            if not all(self._values.get(topic) == b"online" for topic in topics):
                self._note(key, UNAVAILABLE, now_s)
            elif "state_topic" in entity:
                value = self._values.get(entity["state_topic"], b"unknown").decode()
                self._note(key, {"ON": "on", "OFF": "off"}.get(value, value), now_s)

    def _note(self, key: str, state: str, now_s: float) -> None:
        states = self.history.setdefault(key, [])
        if not states or states[-1][1] != state:
            states.append((now_s, state))


def retained(port: int) -> dict[str, bytes]:
    """What a broker has retained."""
    kept: dict[str, bytes] = {}
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
    done: list[int] = []
    client.on_message = lambda _client, _data, m: kept.update({m.topic: bytes(m.payload)}) if m.retain else None
    client.on_subscribe = lambda *_: done.append(1)
    client.connect("127.0.0.1", port)
    client.subscribe("#")
    end = time.monotonic() + 10
    while not done and time.monotonic() < end:
        client.loop(0.1)
    # They follow the acknowledgement at once.
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        client.loop(0.05)
    client.disconnect()
    return kept

"""The whole daemon with every sink: the drawn street, a real broker, a web server, a program, a pin, snapshots."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
from tests.doubles.command import BITTERN
from tests.doubles.http_peer import Peer
from tests.doubles.mosquitto import Broker, Listener, needs_mosquitto
from tests.doubles.waiting import until


@needs_mosquitto
def test_one_lap_reaches_every_sink(tmp_path: Path) -> None:
    peer = Peer()
    took = tmp_path / "took"
    with Broker(tmp_path) as broker:
        (tmp_path / "street.toml").write_text(
            f"""
source = "demo:?laps=1"
name = "street"
models = ["stop_sign"]
[snapshots]
folder = "{tmp_path}/snapshots"
[outbox]
folder = "{tmp_path}/state"
[mqtt]
host = "127.0.0.1"
port = {broker.port}
[webhook]
url = "{peer.url}"
[command]
run = ["/bin/sh", "-c", "cat >> {took}; echo >> {took}"]
[gpio]
pin = 17
"""
        )
        listener = Listener(broker.port, "#")
        done = subprocess.run(
            [BITTERN, "watch", "--config", str(tmp_path / "street.toml")],
            capture_output=True, text=True, timeout=120,
            env=os.environ | {"GPIOZERO_PIN_FACTORY": "mock"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        assert [e.get("state", e["type"]) for e in printed] == ["started", "camera_ok", "alarm.on", "alarm.off"]

        def events() -> list[str]:
            return [json.loads(payload)["id"] for payload in listener.payloads("bittern/street/event")]

        ids = [e["id"] for e in printed]
        until(lambda: len(events()) >= 4)
        assert events() == ids
        assert [e["id"] for e in peer.events] == ids
        assert [json.loads(line)["id"] for line in took.read_text().split("\n") if line] == ids
        alarm = [p for topic, p, _ in listener.received if topic == "bittern/street/alarm/stop_sign/stop"]
        assert alarm[-2:] == [b"ON", b"OFF"]
        (on,) = [e for e in printed if e["type"] == "alarm.on"]
        stored = (tmp_path / "snapshots" / on["snapshot"]).read_bytes()
        assert stored in [p for topic, p, _ in listener.received if topic == "bittern/street/image"]
        picture = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (480, 640, 3)
        discovery = [json.loads(p) for topic, p, _ in listener.received if topic.startswith("homeassistant/device/")]
        assert discovery
        assert {"device", "origin", "components"} <= set(discovery[-1])
        availability = [p for topic, p, _ in listener.received if topic == "bittern/street/availability"]
        assert availability[0] == b"online"
        assert availability[-1] == b"offline"
        listener.close()
    peer.close()
    assert not (tmp_path / "state/outbox.sqlite-wal").exists(), "closed as it should be"

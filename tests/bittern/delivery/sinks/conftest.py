"""What tests of MQTT share: a broker with a folder of its own, and sinks that are closed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.mosquitto import Broker
from tests.doubles.mqtt_sinks import Opens


@pytest.fixture
def broker_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "broker"
    folder.mkdir()
    return folder


@pytest.fixture
def broker(broker_folder: Path) -> Iterator[Broker]:
    with Broker(broker_folder) as running:
        yield running


@pytest.fixture
def opened() -> Iterator[Opens]:
    with Opens() as opens:
        yield opens

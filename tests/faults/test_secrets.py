"""Fault 36: a secret in the configuration, in right and wrong forms, shows nowhere."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.doubles.command import BITTERN
from tests.doubles.http_peer import Peer, status
from tests.doubles.mosquitto import Broker, Listener, free_port, needs_mosquitto
from tests.doubles.repetitions import times
from tests.doubles.waiting import until

from bittern.cli.config import _camera
from bittern.cli.sinks import _targets
from bittern.config import schema, toml_file
from bittern.config.schema import WatchConfig
from bittern.daemon import preflight
from bittern.delivery.sinks.base import Diagnostics, SinkContext
from bittern.delivery.sinks.registry import open_sinks
from bittern.doctor import camera, report
from bittern.doctor.examine import Examination
from bittern.doctor.software import Installation
from bittern.errors import BitternError, redacted
from bittern.model import catalog
from bittern.sources.registry import check_source, open_source
from bittern.system import machine
from bittern.system.commands import CommandResult, run

Record = Callable[..., None]
MARK = "found nowhere"

# How an address is written, and mistyped: the mark is a user, a password, a token, a path.
ADDRESSES = (
    "{scheme}://admin:{mark}@127.0.0.1:1/live",
    "{scheme}://{mark}:x@127.0.0.1:1/live",
    "{scheme}://{mark}@127.0.0.1:1",
    "{scheme}://127.0.0.1:1/user=admin&password={mark}&channel=1",
    "{scheme}://127.0.0.1:1/live?token={mark}",
    "{scheme}://127.0.0.1:1/live#{mark}",
    "{scheme}://127.0.0.1:1/{mark}/live",
    "{scheme}://127.0.0.1:1/{mark}",
    "{scheme}://[::1]:1/{mark}",
    "{scheme}://admin:{mark}@[::1]:1/live",
    "{scheme}://[admin:{mark}@127.0.0.1]:1/live",
    "{scheme}://admin:{mark}@[::1/live",
    "[{scheme}://admin:{mark}@127.0.0.1:1/live]",
    "<{scheme}://admin:{mark}@127.0.0.1:1/live>",
    "'{scheme}://admin:{mark}@127.0.0.1:1/live'",
    " {scheme}://admin:{mark}@127.0.0.1:1/live",
    "{scheme} ://admin:{mark}@127.0.0.1:1/live",
    "{scheme}: //admin:{mark}@127.0.0.1:1/live",
    "{scheme}://admin: {mark}@127.0.0.1:1/live",
    "{scheme}://admin:{mark} @127.0.0.1:1/live",
    "{scheme}://admin:{mark}\t@127.0.0.1:1/live",
    "{scheme}://admin:{mark}\n@127.0.0.1:1/live",
    "{scheme}:/admin:{mark}@127.0.0.1:1/live",
    "{scheme}:admin:{mark}@127.0.0.1:1/live",
    "{scheme}//admin:{mark}@127.0.0.1:1/live",
    "{scheme};//admin:{mark}@127.0.0.1:1/live",
    "{scheme}:\\\\admin:{mark}@127.0.0.1:1\\live",
    "{scheme}://admin:{mark}:127.0.0.1:1/live",
    "{scheme}://admin/{mark}@127.0.0.1:1/live",
    "{scheme}://admin:{mark}/x@127.0.0.1:1/live",
    "{scheme}://admin:a/{mark}@127.0.0.1:1/live",
    "{scheme}://admin:a#{mark}@127.0.0.1:1/live",
    "{scheme}://admin:a?{mark}@127.0.0.1:1/live",
    "{scheme}://admin:a@{mark}@127.0.0.1:1/live",
    "{scheme}://admin:{mark}@127.0.0.1:99999/live",
    "{scheme}://admin:{mark}@127.0.0.1:port/live",
    "{scheme}://admin:{mark}@",
    "{scheme}://admin:{mark}@/live",
    "{scheme}:///{mark}@live",
    "{scheme}://admin:{mark}@höst.example\u0000/live",
    "//admin:{mark}@127.0.0.1:1/live",
    "admin:{mark}@127.0.0.1:1/live",
    "admin:{mark}@127.0.0.1",
    "admin:{mark}",
    "127.0.0.1/live/{mark}",
    "127.0.0.1:1/{mark}",
    "127.0.0.1/user=admin&password={mark}",
    "user=admin password={mark} host=127.0.0.1",
)
SCHEMES = ("rtsp", "rtsps", "RTSP", "rstp", "rtp", "rtmp", "http", "https", "htps", "mqtt", "usb", "picamera", "video",
           "folder", "clip", "demo", "bench")  # fmt: skip
# Where it may stand: the text is put in for %s, as TOML has it. A value of the wrong type is as near as the next key.
PLACES = (
    "source = %s",
    "source = [%s]",
    "source = {{ uri = %s }}",
    "source = 1\nsource_file = %s",
    "source_file = %s",
    "source_file = [%s]",
    "source_file = '{file}'",
    "camera = %s",
    "fps = %s",
    "models = [%s]",
    "%s = 1",
    "[camera]\nrotation = %s",
    "[camera]\n%s = 1",
    "[camera]\npassword = %s",
    "mqtt = %s",
    "mqtt = [%s]",
    "[mqtt]\nhost = %s",
    "[mqtt]\nhost = [%s]",
    "[mqtt]\nhost = '127.0.0.1'\nuser = %s",
    "[mqtt]\nhost = '127.0.0.1'\nuser = [%s]",
    "[mqtt]\nhost = '127.0.0.1'\npassword = %s",
    "[mqtt]\nhost = '127.0.0.1'\nuser = 'a'\npassword_file = %s",
    "[mqtt]\nhost = '127.0.0.1'\nuser = 'a'\npassword_file = [%s]",
    "[mqtt]\nhost = '127.0.0.1'\nuser = 'a'\npassword_file = '{file}'",
    "[mqtt]\nhost = '127.0.0.1'\ntls = true\nca_file = %s",
    "[mqtt]\nhost = '127.0.0.1'\nport = %s",
    "[mqtt]\n%s = 1",
    "webhook = %s",
    "[webhook]\nurl = %s",
    "[webhook]\nurl = [%s]",
    "[webhook]\nurl = 'http://127.0.0.1:1'\nsecret_file = %s",
    "[webhook]\nurl = 'http://127.0.0.1:1'\nsecret_file = [%s]",
    "[webhook]\nurl = 'http://127.0.0.1:1'\nsecret_file = '{file}'",
    "[webhook]\nurl = 'http://127.0.0.1:1'\nsecret = %s",
    "command = %s",
    "[command]\nrun = %s",
    "[command]\nrun = [%s]",
    "[command]\nrun = ['true', %s]",
    "[recovery]\nreboot_command = [%s]",
    "[outbox]\nfolder = [%s]",
    "[health]\nport = %s",
)


def forms(mark: str, file: Path) -> Iterator[str]:
    """Every place with every address, in a random order: the text of a configuration."""
    rng = random.Random(36)
    pairs = [(place, address) for place in PLACES for address in ADDRESSES]
    rng.shuffle(pairs)
    # What is asked for most first: every address as the source.
    pairs[:0] = [("source = %s", address) for address in ADDRESSES]
    for place, address in pairs:
        text = address.format(scheme=rng.choice(SCHEMES[:3] if rng.random() < 0.5 else SCHEMES), mark=mark)
        file.write_text(text)
        yield place.replace("{file}", str(file)).replace("{{", "{").replace("}}", "}").replace("%s", json.dumps(text))


def outcome(file: Path) -> Iterator[object]:
    """Whatever is said of a configuration, by every part that says something of it."""
    parsed = toml_file.read(file, WatchConfig)
    yield [problem.text(file) for problem in parsed.problems]
    settings = parsed.rest if parsed.value is None else parsed.value
    if settings is not None:
        name, problems = _camera(parsed, settings)
        yield name, problems, list(preflight.check(settings, name, parsed.wrong))
    try:
        config = schema.load(file)
        config = schema.with_source(config)
        yield _targets(config)
        for model in config.models or ():
            with contextlib.suppress(BitternError):
                catalog.find(model)
        yield check_source(config.source, config.camera)
        sinks = open_sinks(config, SinkContext("porch"), Diagnostics, announce=False)
        for sink in sinks:
            sink.close()
        source = open_source(config.source, {"open_timeout_s": 0.2} if config.source.startswith("rtsp") else {})
        yield source.name
        source.close()
    except BitternError as error:
        yield str(error)


@pytest.fixture
def mark() -> str:
    return f"mark{secrets.token_hex(6)}"


def test_36_nothing_that_is_said_of_a_configuration_has_it(
    tmp_path: Path,
    mark: str,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, n = tmp_path / "porch.toml", 0
    monkeypatch.chdir(tmp_path)
    for text in forms(mark, tmp_path / "secret"):
        if n == times(len(PLACES) * len(ADDRESSES), 200):
            break
        n += 1
        file.write_text(text)
        for output in outcome(file):
            assert mark not in repr(output), f"{text!r} gives {output!r}"
    assert mark not in caplog.text
    assert mark not in "".join(capfd.readouterr())
    assert not [path for path in tmp_path.rglob("*") if mark in path.name]
    record(36, "a secret in right and wrong forms, in every place of a configuration", n, "0 times", MARK)


@pytest.mark.parametrize("address", ADDRESSES)
def test_36_no_address_shows_it(address: str, mark: str) -> None:
    for scheme in SCHEMES:
        assert mark not in redacted(address.format(scheme=scheme, mark=mark))


def test_36_nor_does_the_doctor(mark: str, record: Record) -> None:
    """The real probe of a camera that does not answer."""
    commands: list[str] = []

    def runner(command: Sequence[str], timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
        commands.extend(command)
        return run(command, timeout_s, stdin)

    tries = [ADDRESSES[i].format(scheme="rtsp", mark=mark) for i in range(0, len(ADDRESSES), times(1, 24))]
    empty = Path("/nonexistent")
    for source in tries:
        steps = camera.run_probe(runner, sys.executable, source, False)
        signature = machine.read(empty, runner)
        installation = Installation(empty, runner, sys.executable, {}, signature)
        findings = camera.check(steps, source, empty, installation, False)
        text = report.table(findings) + report.report(Examination(signature, findings))
        assert mark not in text, text
    assert mark not in " ".join(commands)
    record(36, "the doctor's probe and report of a camera that does not answer", len(tries), "0 times", MARK)


class NotifySocket:
    """What systemd would be told, and show in the status of the unit."""

    def __init__(self, file: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(file))
        self._socket.setblocking(False)
        self.text = ""

    def read(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.text += self._socket.recv(65536).decode() + "\n"
        return self.text

    def close(self) -> None:
        self._socket.close()


def arguments(pid: int) -> str:
    """The command lines of a process and of its children, as `ps` shows them to everybody."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if pid in (int(process.name), parent):
                lines.append((process / "cmdline").read_text())
    return "\n".join(lines)


@needs_mosquitto
@pytest.mark.parametrize("as_option", [False, True], ids=["in a file", "as --source"])
def test_36_a_daemon_with_a_secret_in_every_place(tmp_path: Path, mark: str, as_option: bool, record: Record) -> None:
    """A camera that repeats what it was asked for, a redirect to where the secret is, a program that repeats it."""
    broker_folder, run_folder = tmp_path / "broker", tmp_path / "run"
    broker_folder.mkdir()
    run_folder.mkdir()
    for name in ("password", "key"):
        (tmp_path / name).write_text(f"{mark}\n")
    with (
        Broker(broker_folder) as broker,
        Listener(broker.port, "#") as listener,
        Peer() as peer,
        Peer() as rtsp,
        contextlib.closing(NotifySocket(tmp_path / "notify")) as notify,
    ):
        peer.answer = lambda _: status(302, f"see /{mark}", f"Location: https://127.0.0.1/{mark}?key={mark}")
        rtsp.answer = lambda _: f"RTSP/1.0 459 /{mark} is not a stream\r\nCSeq: 1\r\n\r\n".encode()
        address = f"rtsp://admin:{mark}@127.0.0.1:{rtsp.port}/{mark}?token={mark}"
        (tmp_path / "address").write_text(f"{address}\n")
        program, port = tmp_path / "repeat", free_port()
        program.write_text('#!/bin/sh\necho "no route to $1" >&2\nexit 1\n')
        program.chmod(0o755)
        file = tmp_path / "porch.toml"
        file.write_text(
            f"source_file = '{tmp_path}/address'\n[mqtt]\nhost = '127.0.0.1'\nport = {broker.port}\nuser = '{mark}'\n"
            f"password_file = '{tmp_path}/password'\ninterval_s = 1\n"
            f"[webhook]\nurl = 'http://127.0.0.1:{peer.port}/{mark}'\nsecret_file = '{tmp_path}/key'\n"
            f"[command]\nrun = ['{program}', '{mark}']\n[snapshots]\n[health]\nport = {port}\n"
        )
        environment = os.environ | {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "XDG_RUNTIME_DIR": str(run_folder),
        }
        words = ["--source", address] if as_option else []
        process = subprocess.Popen(
            [BITTERN, "watch", "--config", str(file), *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: peer.requests and "camera absent" in notify.read())
            shown = arguments(process.pid)
            until(lambda: any(topic.endswith("/event") for topic, *_ in listener.received))
            until(lambda: any(topic.endswith("/diagnostics") for topic, *_ in listener.received))
            shown += arguments(process.pid)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                metrics = page.read().decode()
        finally:
            process.terminate()
            out, err = process.communicate(timeout=20)
        for what, text in {
            "stdout": out,
            "stderr": err,
            "status": notify.read(),
            "metrics": metrics,
            "topics": repr(listener.received),
            "folders": "\n".join(str(path) for path in tmp_path.rglob("*")),
            # The user's own program is run with the arguments that the user gave it.
            "ps": "\n".join(line for line in shown.splitlines() if str(program) not in line),
        }.items():
            assert mark not in text, f"{what}: {text}"
        assert "camera answers with status 459" in err
        assert f"rtsp://127.0.0.1:{rtsp.port}" in out
    record(36, "a daemon with a secret in every place, of which every peer repeats it", 1, "0 times", MARK)

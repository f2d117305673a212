"""`bittern config`: the example is a whole file, and a check names what is not there before anything is started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.command import bittern, one_line
from tests.doubles.tflite_files import model_folder_of_means

from bittern.config import schema
from bittern.config.schema import WatchConfig


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Checks texts as files a.toml, b.toml, ... in a folder with a model, and gives exit code and lines."""
    model_folder_of_means(tmp_path / "means")

    def run(*texts: str) -> tuple[int, list[str]]:
        names = [f"{letter}.toml" for letter, _ in zip("abc", texts, strict=False)]
        for name, text in zip(names, texts, strict=True):
            whole = text if "models" in text else f"models = ['./means']\n{text}"
            (tmp_path / name).write_text(whole)
        done = bittern("config", "--check", *names, cwd=tmp_path)
        assert done.err == ""
        return done.code, done.out.splitlines()

    return run


def test_the_example_is_a_whole_file(tmp_path: Path) -> None:
    done = bittern("config", "--example")
    assert (done.code, done.err) == (0, "")
    (tmp_path / "gate.toml").write_text(done.out)
    assert schema.load(tmp_path / "gate.toml") == WatchConfig()
    checked = bittern("config", "--check", "gate.toml", cwd=tmp_path)
    assert (checked.code, checked.out, checked.err) == (0, "gate.toml: ok\n", "")


def test_wrong_usage() -> None:
    one_line(bittern("config"), 2, "either --example or --check")
    one_line(bittern("config", "--example", "--check"), 2, "--example")
    one_line(bittern("config", "--check"), 2, "--check needs a file")
    one_line(bittern("config", "--example", "a.toml"), 2, "takes neither files")


def test_absent_files_and_several(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("fps = 0\nnope = 1")
    (tmp_path / "c.toml").write_text("")
    done = bittern("config", "--check", "a.toml", "b.toml", "c.toml", cwd=tmp_path)
    assert done.code == 2
    absent, first, second, last = done.out.splitlines()
    assert absent == "a.toml: No such file or directory"
    assert first.startswith("b.toml:1: fps: expected ")
    assert second.startswith("b.toml:2: nope: unknown key: expected one of source, ")
    assert last == "c.toml: ok"


def test_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("fps = 0")
    (tmp_path / "b.toml").write_text("")
    done = bittern("config", "--check", "--json", "a.toml", "b.toml", cwd=tmp_path)
    message = "expected a number from 0.1 to 240, got 0"
    problem = {"line": 1, "key": "fps", "message": message, "warning": False}
    assert done.lines == [
        {"file": "a.toml", "ok": False, "problems": [problem]},
        {"file": "b.toml", "ok": True, "problems": []},
    ]
    assert done.code == 2


SINKS = "[mqtt]\nhost = 'h'\nuser = 'u'\ntls = true\npassword_file = 'secret'\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source = 'usbb:0'", "a.toml:2: source: unknown source 'usbb:0'"),
        (
            "source = 'usb:0'\n[camera]\nsise = '640x480'",
            "a.toml:4: camera.sise: source 'usb:0': unknown option 'sise'",
        ),
        ("fps = 1\nmodels = [\n'./means', 'nope']", "a.toml:2: models[1]: unknown model 'nope': expected"),
        ("models = ['./means', './means']", "a.toml:1: models[1]: model 'means' is listed twice"),
        ("models = ['./nothing']", "a.toml:1: models[0]: no model at ./nothing"),
        ("[decision]\nthreshold = 'quite'", "a.toml:3: decision.threshold: model 'means' has no threshold 'quite'"),
        ("[decision]\noff = 0.9", "a.toml:3: decision.off: 0.9 is above the threshold 0.5 of model 'means'"),
        (
            "[[alarm]]\n[[alarm]]\nmodel = 'meens'",
            "a.toml:3: alarm[1]: model 'meens' is not configured: models has 'means'; did you mean",
        ),
        ("[[alarm]]\nlabel = 'grass'", "a.toml:2: alarm[0]: label 'grass' does not raise an alarm; these do: 'red'"),
        ("[[alarm]]\n\nthreshold = 'x'", "a.toml:4: alarm[0].threshold: model 'means' has no threshold 'x'"),
        ("[[alarm]]\nvotes = 9", "a.toml:2: alarm[0]: "),
        ("[outbox]\nfolder = 'a.toml/x'", "a.toml:3: outbox.folder: "),
        ("[snapshots]\nfolder = 'a.toml'", "a.toml:3: snapshots.folder: "),
        (SINKS, "a.toml:6: mqtt.password_file: ...: No such file or directory: expected the path of a file with"),
        ("[mqtt]\nhost = 'h'\nca_file = 'a.toml'", "a.toml:4: mqtt.ca_file: "),
        ("[mqtt]\nhost = 'h'\npassword_file = 'a.toml'", "a.toml:4: mqtt.password_file: a password needs a user"),
        ("[mqtt]\nhost = 'h'\ntopic = 'a/#'", "a.toml:4: mqtt.topic: a topic to publish to has no # and no +"),
        ("[webhook]\nurl = 'http://h'\nsecret_file = '/'", "a.toml:4: webhook.secret_file: /: Is a directory"),
        (
            "[webhook]\nurl = 'http://h'\nsecret_file = '/dev/null'",
            "a.toml:4: webhook.secret_file: /dev/null: expected a regular file, got a device",
        ),
        ("[webhook]\nurl = 'http://'", "a.toml:3: webhook.url: '...': expected http://HOST/PATH or https://"),
        (
            "[gpio]\npin = 1\nlabel = 'redd'",
            "a.toml:4: gpio.label: no alarm label 'redd': expected 'red'; did you mean 'red'?",
        ),
        (
            "[gpio]\npin = 1\nlabel = 'grass'",
            "a.toml:4: gpio.label: label 'grass' does not raise an alarm; these do: 'red'",
        ),
        ("models = ['./means/model.tflite']", "a.toml:1: models[0]: means/model.tflite: no labels are packed into it"),
        ("[command]\nrun = ['nonono', 'x']", "a.toml:3: command.run: 'nonono': no such program, or not executable"),
        ("[recovery]\nreboot_command = ['./means']", "a.toml:3: recovery.reboot_command: './means': no such program"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_is_not_there_is_said_before_the_start(
    text: str, says: str, check: Callable[..., tuple[int, list[str]]]
) -> None:
    code, lines = check(text)
    assert code == 2
    assert len([line for line in lines if not line.endswith("(warning)")]) == 1, lines
    assert any(line.startswith(says) for line in lines), lines


EVERYTHING = """source = 'usb:0'
fps = 0
views = ['left', 'left']
nope = 1
[camera]
sise = '640x480'
fpss = 2
[decision]
votes = 9
threshold = 0.2
off = 0.5
[[alarm]]
label = 'redd'
votes = 4
[gate]
enabled = 'yes'
[outbox]
folder = 'a.toml/x'
[mqtt]
port = 'http'
[webhook]
url = 'http://'
[command]
run = ['nonono']
[gpio]
pin = 17
label = 'blue'
"""


def test_no_mistake_hides_another_one(check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(EVERYTHING)
    assert code == 2
    assert [":".join(line.split(":")[:3]) for line in lines] == [
        "a.toml:3: fps",
        "a.toml:4: views",
        "a.toml:5: nope",
        "a.toml:7: camera.sise",
        "a.toml:8: camera.fpss",
        "a.toml:10: decision.votes",
        "a.toml:12: decision.off",
        "a.toml:13: alarm[0]",
        "a.toml:17: gate.enabled",
        "a.toml:19: outbox.folder",
        "a.toml:20: mqtt",
        "a.toml:21: mqtt.port",
        "a.toml:23: webhook.url",
        "a.toml:25: command.run",
        "a.toml:28: gpio.label",
    ], lines


@pytest.mark.parametrize(
    "text",
    [
        "models = [1]\n[[alarm]]\nlabel = 'anything'\n[gpio]\npin = 1\nlabel = 'anything'",
        "[decision]\nof = 'x'\nvotes = 9\n[[alarm]]\nvotes = 8",
        "[decision]\nthreshold = []\noff = 0.9",
        "[[alarm]]\nvotes = 'x'\nof = 1",
        "source = 1\n[camera]\nanything = 2",
    ],
)
def test_what_depends_on_a_mistake_is_not_judged(text: str, check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(text)
    assert (code, len(lines)) == (2, 1), lines


def test_warnings_do_not_fail(tmp_path: Path, check: Callable[..., tuple[int, list[str]]]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("xyz\n")
    secret.chmod(0o644)
    assert check(SINKS) == (
        0,
        [
            "a.toml:6: mqtt.password_file: secret: everyone on this machine can read it: chmod 640 secret (warning)",
            "a.toml: ok",
        ],
    )
    secret.chmod(0o640)
    assert check(SINKS) == (0, ["a.toml: ok"])
    assert "pin 40 is not on the header" in check("[gpio]\npin = 40")[1][0]
    secret.write_text("\n")
    assert check(SINKS)[0] == 2
    code, lines = check("[health]\nport = 80\n[mqtt]\nhost = 'h'\nuser = 'u'")
    assert code == 0
    assert "health.port: port 80 needs root: choose 1024 or above" in lines[0]
    assert "user and password are sent unencrypted" in lines[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, check: Callable[..., tuple[int, list[str]]]) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    code, lines = check("[outbox]\nfolder = 'locked/outbox'")
    assert code == 0
    assert "locked: this user (the daemon may run as another one) may not write there (warning)" in lines[0]


def test_a_read_only_disk_is_one_for_root_too(tmp_path: Path, check: Callable[..., tuple[int, list[str]]]) -> None:
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(tmp_path / "small")],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        code, lines = check("[outbox]\nfolder = 'small/outbox'")
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)
    assert code == 2
    assert lines[0].startswith("a.toml:3: outbox.folder: ")
    assert lines[0].endswith("small is on a read-only file system")


def test_a_wrong_key_does_not_hide_the_rest_of_its_table(check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(
        "[mqtt]\nhost = 'a b'\nport = 0\ntopic = 'a/#'\nuser = 'u'\ntls = 'yes'\nca_file = 'nowhere'\n"
        "[command]\ntimeout_s = -1\nrun = ['nonono']\n"
        "[[alarm]]\nlabel = 'nope'\n[[alarm]]\nvotes = 'x'\n"
        '[outbox]\nfolder = "\\u0000"\n[snapshots]\nfolder = "\\u0000"\n'
    )
    assert code == 2
    assert {line.split(": ")[1] for line in lines} == {
        "mqtt.host", "mqtt.port", "mqtt.topic", "mqtt.tls", "mqtt.ca_file", "command.timeout_s", "command.run",
        "alarm[0]", "alarm[1].votes", "outbox.folder", "snapshots.folder",
    }, lines  # fmt: skip


A = "source = 'demo:'\nname = 'a'\n"
B = "source = 'demo:'\nname = 'b'\n"


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (A, B, None),
        (A, A, "b.toml:3: name: a is the name of a.toml too"),
        ("source = 'demo:'", "source = 'demo:'", "b.toml: name: demo is the name of a.toml too"),
        (f"{A}[health]\nport = 9101", f"{B}[health]\nport = 9101", "b.toml:5: health.port: 9101 is the health port of"),
        (f"{A}[health]\nport = 9101", f"{B}[health]\nport = 9102", None),
        (f"{A}[health]\nport = 0", f"{B}[health]\nport = 0", None),
        (f"{A}[outbox]\nfolder = 'o'", f"{B}[outbox]\nfolder = './x/../o'", "b.toml:5: outbox.folder: "),
        (f"{A}[snapshots]\nfolder = 'o'", f"{B}[snapshots]\nfolder = 'o/'", "b.toml:5: snapshots.folder: "),
        (f"{A}[gpio]\npin = 17", f"{B}[gpio]\npin = 17", "b.toml:5: gpio.pin: 17 is the pin of a.toml too"),
        (
            f"{A}[mqtt]\nhost = 'h'\ntopic = 't'",
            f"{B}[mqtt]\nhost = 'h'\ntopic = 't'",
            "b.toml:6: mqtt.topic: h:1883/t is",
        ),
    ],
)
def test_several_cameras_share_nothing(
    first: str, second: str, says: str | None, check: Callable[..., tuple[int, list[str]]]
) -> None:
    code, lines = check(first, second)
    if says is None:
        assert (code, lines) == (0, ["a.toml: ok", "b.toml: ok"])
    else:
        assert code == 2
        assert lines[0] == "a.toml: ok"
        (line,) = lines[1:]
        assert line.startswith(says)
        assert line.endswith("expected a different one for each camera")


def test_a_daemon_refuses_the_same_file_in_the_same_words(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("fps = 1\n[decision]\nvotes = 0\n")
    message = one_line(bittern("watch", "--config", file), 2)
    checked: Any = bittern("config", "--check", file)
    assert (
        message.removeprefix("bittern: ")
        == checked.out
        == (f"{file}:3: decision.votes: expected a whole number from 1 to 1000, got 0\n")
    )

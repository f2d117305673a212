"""From a wheel to a running daemon over a real ssh connection, and back when the daemon does not start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Pi

REPO = Path(__file__).parents[2]
DEMO = 'source = "demo:"\nmodels = ["stop_sign"]\nfps = 5\n'


def altered(wheel: Path, folder: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """The wheel with one of its files changed."""
    target = folder / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w") as new:
        assert name in old.namelist()
        for item in old.namelist():
            content = old.read(item)
            new.writestr(item, change(content) if item == name else content)
    return target


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("deploy: ")
    return lines[0]


def state(pi: Pi) -> tuple[str, list[str], str]:
    """What must be as it was after a deploy that failed."""
    releases = sorted(path.name for path in (pi.root / "opt/bittern/releases").iterdir())
    unit = (pi.root / "etc/systemd/system/bittern@.service").read_text()
    return str(pi.current.readlink()), releases, unit


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "demo.toml"
    path.write_text(DEMO)
    return path


@pytest.fixture(scope="module")
def deployed(pi: Pi, wheel: Path, config: Path) -> Pi:
    """The device after its first deploy."""
    result = pi.deploy("--wheel", wheel, "--config", config)
    assert result.returncode == 0, result.stderr + result.stdout
    return pi


@pytest.fixture
def sudo_asks(pi: Pi) -> Iterator[None]:
    path = pi.root / "sudo-asks"
    path.write_text("a secret\n")
    yield
    path.unlink()


def test_the_daemon_runs_and_says_events(deployed: Pi) -> None:
    pid = deployed.pid("default")
    assert pid is not None
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert f"{deployed.current}/venv/bin/bittern" in command
    assert Path(f"/proc/{pid}/environ").read_text().count(f"BITTERN_MODELS={deployed.current}/models\0") == 1
    deadline = time.monotonic() + 60  # one drawn stop sign comes by in less
    while time.monotonic() < deadline:
        lines = [line for line in deployed.journal("default").splitlines() if line.startswith("{")]
        events = [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]
        if any(event["type"] == "alarm.on" for event in events):
            break
        time.sleep(0.2)
    else:
        pytest.fail(f"no alarm: {deployed.journal('default')}")
    assert deployed.pid("default") == pid


def test_the_release_is_whole_and_uses_debians_numpy(deployed: Pi) -> None:
    link = str(deployed.current.readlink())
    assert re.fullmatch(r"releases/\d{8}T\d{6}Z-\d[\w.+]*", link)
    release = deployed.current.resolve()
    assert release.parent == deployed.root / "opt/bittern/releases"
    (packages,) = (release / "venv/lib").glob("python3*/site-packages")
    assert (packages / "bittern").is_dir()
    assert not [path.name for path in packages.iterdir() if path.name.startswith(("numpy", "cv2", "opencv"))]
    named = [path for path in (release / "venv/bin").iterdir() if path.is_file() and b".new-" in path.read_bytes()]
    assert not named
    shipped = {path.parent.name for path in (REPO / "models").glob("*/manifest.json")}
    assert {path.name for path in (release / "models").iterdir()} == shipped


def test_the_unit_is_loaded_enabled_and_points_below_the_prefix(deployed: Pi) -> None:
    source = (REPO / "edge/systemd/bittern@.service").read_text().splitlines()
    installed = (deployed.root / "etc/systemd/system/bittern@.service").read_text().splitlines()
    changed = {old for old, new in zip(source, installed, strict=True) if old != new}
    keys = {line.partition("=")[0] for line in changed if not line.startswith("#")}
    assert keys == {"Documentation", "Environment", "ExecStart", "WorkingDirectory"}
    for call in (
        "daemon-reload",
        "enable --quiet bittern@default.service",
        "restart bittern@default.service",
    ):
        assert call in deployed.calls
    assert any(call.startswith("useradd --system") and call.endswith(" bittern") for call in deployed.calls)


@pytest.mark.usefixtures("sudo_asks")
def test_a_second_deploy_keeps_the_configuration_and_three_releases(deployed: Pi, wheel: Path, config: Path) -> None:
    """And this one gives sudo its password, which is shown nowhere."""
    path = deployed.root / "etc/bittern/default.toml"
    path.write_text(DEMO + "# mine\n")
    before, first = deployed.pid("default"), deployed.current.resolve().name
    names = ["19700101T000000Z-0", "19700102T000000Z-0", ".new-19700103T000000Z-0"]  # the last was cut off
    for name in names:
        folder = deployed.root / "opt/bittern/releases" / name
        folder.mkdir()
        os.chown(folder, deployed.root.stat().st_uid, -1)
    (deployed.root / "run/stand-in/version").write_text("257 (257.8-1~deb13u2)")  # upgraded to trixie in between
    result = deployed.deploy("--wheel", wheel, typed="a secret")
    assert result.returncode == 0, result.stderr
    installed = (deployed.root / "etc/systemd/system/bittern@.service").read_text()
    assert "\nRestartSec=2\nRestartSteps=5\nRestartMaxDelaySec=60\n" in installed
    assert "secret" not in result.stdout + result.stderr
    assert path.read_text() == DEMO + "# mine\n"
    assert deployed.pid("default") not in (None, before)
    link, releases, _ = state(deployed)
    assert releases == [names[1], first, link.removeprefix("releases/")]

    refused = deployed.deploy("--wheel", wheel, "--config", config, typed="a secret")
    assert refused.returncode == 2
    assert "never overwritten" in refused.stderr
    assert path.read_text() == DEMO + "# mine\n"
    assert state(deployed)[1] == releases


def test_a_release_that_cannot_be_imported_changes_nothing(deployed: Pi, wheel: Path, tmp_path: Path) -> None:
    before, pid = state(deployed), deployed.pid("default")
    bad = altered(
        wheel,
        tmp_path,
        "bittern/__init__.py",
        lambda text: text + b"\nraise RuntimeError('broken on purpose')\n",
    )
    result = deployed.deploy("--wheel", bad)
    assert result.returncode == 1
    assert "broken on purpose" in result.stderr
    assert "nothing was changed" in result.stderr
    assert (state(deployed), deployed.pid("default")) == (before, pid)


def test_a_wheel_with_another_hash_than_the_locks_changes_nothing(deployed: Pi, wheel: Path, tmp_path: Path) -> None:
    before, pid = state(deployed), deployed.pid("default")
    wheelhouse = shutil.copytree(deployed.wheelhouse, tmp_path / "wheelhouse")
    (click,) = wheelhouse.glob("click-*.whl")
    altered(deployed.wheelhouse / click.name, wheelhouse, "click/__init__.py", lambda text: text + b"# altered\n")
    result = deployed.deploy("--wheel", wheel, "--wheelhouse", wheelhouse)
    assert result.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in result.stderr
    assert "nothing was changed" in result.stderr
    assert (state(deployed), deployed.pid("default")) == (before, pid)


def test_a_release_that_does_not_start_is_rolled_back(deployed: Pi, wheel: Path, tmp_path: Path) -> None:
    before, pid = state(deployed), deployed.pid("default")
    unit = "bittern/shipped/systemd/bittern@.service"
    bad = altered(wheel, tmp_path, unit, lambda text: text.replace(b"bittern watch", b"bittern watch --frobnicate"))
    result = deployed.deploy("--wheel", bad)
    assert result.returncode == 1
    assert "bittern@default.service did not become ready" in result.stderr
    assert "--frobnicate" in result.stderr  # the daemon's own last words
    assert "which is running" in result.stderr
    assert state(deployed) == before
    assert deployed.pid("default") not in (None, pid)


def test_a_second_camera_with_an_unknown_model_leaves_the_first_one_running(
    deployed: Pi, wheel: Path, tmp_path: Path
) -> None:
    before = state(deployed)
    config = tmp_path / "yard.toml"
    config.write_text(DEMO.replace("stop_sign", "no_such_model"))
    result = deployed.deploy("--wheel", wheel, "--instance", "yard", "--config", config)
    assert result.returncode == 1
    assert "no_such_model" in result.stderr
    assert state(deployed) == before
    assert deployed.pid("default") is not None
    assert deployed.pid("yard") is None
    assert not (deployed.root / "etc/bittern/yard.toml").exists()
    assert not (deployed.root / "run/stand-in/enabled/bittern@yard.service").exists()


def test_a_second_camera_runs_beside_the_first_from_the_same_release(deployed: Pi, wheel: Path, config: Path) -> None:
    before = deployed.pid("default")
    result = deployed.deploy("--wheel", wheel, "--instance", "yard", "--config", config)
    assert result.returncode == 0, result.stderr
    assert deployed.pid("yard") is not None
    assert deployed.pid("default") not in (None, before)


def test_a_deploy_that_is_broken_off_is_brought_to_its_end_by_the_device(deployed: Pi, wheel: Path) -> None:
    before = state(deployed)[0]
    command = deployed.command("--wheel", wheel)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("deploy: building release")
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    assert process.returncode != 0
    assert state(deployed)[0] == before
    deadline = time.monotonic() + 120
    while state(deployed)[0] == before or any(name.startswith(".") for name in state(deployed)[1]):
        assert time.monotonic() < deadline, "the device did not go on"
        time.sleep(0.2)
    # The next one waits for what is still at work there, and finds everything whole.
    result = deployed.deploy("--wheel", wheel)
    assert result.returncode == 0, result.stderr
    assert deployed.pid("default") is not None


def test_a_host_that_does_not_answer_is_one_line(pi: Pi, wheel: Path) -> None:
    result = pi.deploy("--wheel", wheel, host="nobody")
    assert result.returncode == 2
    assert "ssh cannot reach nobody" in one_line(result)


@pytest.mark.usefixtures("sudo_asks")
def test_a_sudo_that_asks_needs_a_terminal(pi: Pi, wheel: Path) -> None:
    result = pi.deploy("--wheel", wheel)
    assert result.returncode == 2
    assert "run this in a terminal" in one_line(result)


@pytest.mark.usefixtures("sudo_asks")
def test_a_wrong_password_is_said_before_anything_is_begun(pi: Pi, wheel: Path) -> None:
    result = pi.deploy("--wheel", wheel, typed="a guess")
    assert result.returncode == 2
    assert "does not accept this password" in result.stderr.splitlines()[-1]


def test_a_missing_debian_package_is_one_line_with_the_command(pi: Pi, wheel: Path) -> None:
    (cv2,) = (pi.root / "usr").rglob("cv2/__init__.py")
    shutil.move(cv2.parent, pi.root / "cv2-away")
    try:
        result = pi.deploy("--wheel", wheel)
    finally:
        shutil.move(pi.root / "cv2-away", cv2.parent)
    assert result.returncode == 2
    assert one_line(result).endswith("sudo apt-get install -y --no-install-recommends python3-opencv")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no host given"),
        (["pi", "--wheel", "/nowhere.whl"], "no file /nowhere.whl"),
        (["pi", "--frobnicate"], "unknown option --frobnicate"),
        (["pi", "--instance", "../x"], "--instance is a name"),
        (["-oProxyCommand=x"], "unknown option"),
        (["pi;reboot"], "HOST is"),
        (["pi", "--config"], "--config needs a value"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], expected: str) -> None:
    result = subprocess.run([REPO / "deploy/deploy.sh", *arguments], capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    assert expected in one_line(result)

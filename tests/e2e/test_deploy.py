"""From a wheel to a running daemon over a real ssh connection, and back when the daemon does not start."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from tests.doubles import model_files
from tests.doubles.repetitions import FULL

from bittern.config.schema import KeepConfig
from bittern.daemon import history
from bittern.delivery.kept import KeptFrame, KeptFrames
from bittern.evaluation import dataset, index
from bittern.model import origin

if TYPE_CHECKING:
    from tests.e2e.conftest import Pi

Record = Callable[..., None]
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


# Of what deploy's Pythons import, and pip's and venv's.
PLANTED = (
    "platform", "struct", "sysconfig", "os", "pathlib", "site", "sitecustomize", "usercustomize", "runpy", "venv",
    "ensurepip", "pip", "setuptools", "numpy", "cv2", "picamera2", "msgspec", "click", "bittern",
)  # fmt: skip


def plant(file: Path, mark: Path) -> None:
    """A module that leaves a mark if it is ever imported."""
    mark.parent.mkdir(exist_ok=True)
    mark.parent.chmod(0o777)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"open({str(mark)!r}, 'w')\nraise ImportError('planted')\n")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "demo.toml"
    path.write_text(DEMO)
    return path


@pytest.fixture(scope="module")
def deployed(pi: Pi, wheel: Path, config: Path) -> Pi:
    """The device after its first deploy, which modules of the user who logs in are waiting for."""
    home = pi.root.parent
    for name in PLANTED:
        plant(home / f"{name}.py", home / "was-run" / name)
    for name in ("usercustomize", "sitecustomize", "numpy"):
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        plant(home / ".local/lib" / version / "site-packages" / f"{name}.py", home / "was-run" / f"user-{name}")
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
    models = f"{deployed.root}/opt/bittern/models:{deployed.current}/models"
    assert Path(f"/proc/{pid}/environ").read_text().count(f"BITTERN_MODELS={models}\0") == 1
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


def test_37_no_module_of_the_user_who_logs_in_is_run(deployed: Pi, record: Record) -> None:
    assert [path.name for path in (deployed.root.parent / "was-run").iterdir()] == []
    # The marks work: a Python in that folder that is not isolated would have left one.
    home = deployed.root.parent
    subprocess.run([sys.executable, "-c", "import cv2"], cwd=home, capture_output=True)
    mark = home / "was-run/cv2"
    assert mark.exists()
    mark.unlink()
    shutil.rmtree(home / "__pycache__", ignore_errors=True)
    record(
        37, "modules of the ssh user in the login folder, through a deploy", len(PLANTED) + 3, "0 run", "not one run"
    )


def test_nobody_else_can_ever_read_the_configuration(deployed: Pi) -> None:
    config = deployed.root / "etc/bittern/default.toml"
    assert config.stat().st_mode & 0o777 == 0o640
    assert f"chgrp bittern {config}.new 600" in deployed.calls


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


@pytest.mark.parametrize(
    ("status", "waiting", "code", "says"),
    [
        ("porch: 4.9 frames per second, 0 events", "", 0, ""),
        ("porch: waiting for the camera (camera absent)", "", 1, "gets no frame from its camera"),
        ("porch: waiting for the camera (starting)", "bittern@porch.service", 0, "as it was before"),
    ],
)
def test_a_frame_is_awaited_unless_there_was_none_before(
    status: str, waiting: str, code: int, says: str, tmp_path: Path
) -> None:
    """The function of install.sh, and a unit that runs, as the stand-in for systemd shows it."""
    unit = "bittern@porch.service"
    for name, text in (("pid", str(os.getpid())), ("status", status)):
        (tmp_path / "run/stand-in" / name).mkdir(parents=True)
        (tmp_path / "run/stand-in" / name / unit).write_text(text)
    script = f"source {REPO}/deploy/install.sh true; FRAME_S=1; waiting=({waiting}); await_frame {unit}"
    standins = Path(__file__).parent / "standins"
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"STAND_IN_ROOT": str(tmp_path), "PATH": f"{standins}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr


# --- signed releases --------------------------------------------------------------------------------------------------


def flip(name: str, rng: random.Random, uploaded: Path) -> None:
    file = uploaded / name
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def sign(bundle: Path, key: Path) -> None:
    """List the files of a bundle anew, and sign the list: what deploy.sh does, or somebody who has a key."""
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        (bundle / name).unlink(missing_ok=True)
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "config.toml")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(bundle)}\n" for file in files]
    (bundle / "SHA256SUMS").write_text("".join(lines))
    command = ("ssh-keygen", "-q", "-Y", "sign", "-n", "bittern", "-f", str(key), str(bundle / "SHA256SUMS"))
    subprocess.run(command, check=True, capture_output=True)


class Bundle:
    """What deploy.sh uploads, caught on its way."""

    def __init__(self, folder: Path, pi: Pi) -> None:
        self.folder, self._pi = folder, pi

    def install(self, change: Callable[[Path], object] = lambda _: None, older: str = "refuse") -> tuple[int, str]:
        """Upload a changed copy, and run install.sh; its exit code and what it wrote to stderr."""
        uploaded = Path(tempfile.mkdtemp(prefix="bittern-deploy.", dir="/var/tmp"))
        try:
            shutil.copytree(self.folder, uploaded, dirs_exist_ok=True)
            change(uploaded)
            if os.getuid() == 0:
                owner = self._pi.root.stat()
                for path in (uploaded, *uploaded.rglob("*")):
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            words = ["bash", "-s", "--", "install", self._pi.root, "default", uploaded, older]
            with (REPO / "deploy/install.sh").open("rb") as script:
                done = subprocess.run(
                    ["ssh", "-F", self._pi.ssh_config, "pi", *map(str, words)],
                    stdin=script,
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
            return done.returncode, done.stderr
        finally:
            shutil.rmtree(uploaded, ignore_errors=True)

    def refused(self, says: str, change: Callable[[Path], object], older: str = "refuse") -> None:
        """It is refused in one line before anything changes."""
        before, pid = state(self._pi), self._pi.pid("default")
        code, error = self.install(change, older)
        assert (code, error.count("\n")) == (2, 1), error
        assert error.startswith("deploy: ")
        assert says in error, error
        assert (state(self._pi), self._pi.pid("default")) == (before, pid)


@pytest.fixture(scope="module")
def bundle(deployed: Pi, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Caught by an rsync that keeps it and fails. Its configuration differs: even a good one goes no further."""
    folder = tmp_path_factory.mktemp("bundle")
    program = folder / "bin/rsync"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\ncp -R "$1" {folder}/caught\nexit 1\n')
    program.chmod(0o755)
    config = folder / "other.toml"
    config.write_text(DEMO + "# another one\n")
    result = subprocess.run(
        deployed.command("--wheel", wheel, "--config", config),
        env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "nothing was changed" in one_line(result)
    return Bundle(folder / "caught", deployed)


def test_the_first_signed_release_brings_its_key(deployed: Pi) -> None:
    signers = (deployed.root / "etc/bittern/allowed_signers").read_text()
    public = (deployed.ssh_config.parent / "id.pub").read_text().split()
    assert signers == f'bittern namespaces="bittern" {public[0]} {public[1]}\n'
    release = deployed.current.resolve()
    assert (release / "SHA256SUMS.sig").is_file()
    listed = (release / "SHA256SUMS").read_text()
    assert "  ./models/stop_sign/model.tflite\n" in listed
    assert "config.toml" not in listed, "everybody can read it"


def test_18_a_bundle_as_it_was_sent_is_taken(bundle: Bundle) -> None:
    code, error = bundle.install()
    assert code == 2
    assert "is never overwritten" in error, "it came to the configuration, which differs"


def test_18_one_bit_flipped_in_every_file(bundle: Bundle, record: Record) -> None:
    names = sorted(str(path.relative_to(bundle.folder)) for path in bundle.folder.rglob("*") if path.is_file())
    names.remove("config.toml")  # which is no part of the release
    assert {"SHA256SUMS", "SHA256SUMS.sig", "pi.txt", "build.txt", "release"} <= {*names}
    rng = random.Random(18)
    first = ["SHA256SUMS", "SHA256SUMS.sig", next(name for name in names if name.endswith(".whl"))]
    chosen = names if FULL else [*first, rng.choice([name for name in names if name not in first])]
    for name in chosen:
        bundle.refused("release", partial(flip, name, rng))
    record(
        18, "one bit flipped in every file of a release", len(chosen), "all refused", "refused before anything changes"
    )


def test_18_files_that_the_list_does_not_have(bundle: Bundle) -> None:
    bundle.refused("see ./models/more", lambda uploaded: (uploaded / "models/more").write_text("x"))
    bundle.refused("see ./pi.txt", lambda uploaded: (uploaded / "pi.txt").unlink())
    bundle.refused("no ordinary file", lambda uploaded: (uploaded / "models/link").symlink_to("/etc/shadow"))
    bundle.refused("no ordinary file", lambda uploaded: os.mkfifo(uploaded / "fifo"))
    bundle.refused("no list", lambda uploaded: (uploaded / "SHA256SUMS").unlink())


def test_18_another_key_and_no_key(bundle: Bundle, tmp_path: Path, record: Record) -> None:
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)

    def by_another(uploaded: Path) -> None:
        (uploaded / "signer.pub").write_text(" ".join(key.with_suffix(".pub").read_text().split()[:2]) + "\n")
        sign(uploaded, key)

    bundle.refused("not signed by a key in", by_another)
    bundle.refused("is not signed, but", lambda uploaded: (uploaded / "SHA256SUMS.sig").unlink())
    record(18, "signed by another key; not signed", 2, "refused", "refused before anything changes")


def test_18_a_release_that_is_older(bundle: Bundle, deployed: Pi, record: Record) -> None:
    key = deployed.ssh_config.parent / "id"
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + 60))
    for release in ("20200101T000000Z-0.1.0", f"{now}-0.0.9", f"{now}-0.0.10rc1"):

        def dated(uploaded: Path, release: str = release) -> None:
            (uploaded / "release").write_text(f"{release}\n")
            sign(uploaded, key)

        bundle.refused(f"release {release} is older than", dated)
        code, error = bundle.install(dated, "allow")
        assert (code, "is never overwritten" in error) == (2, True), error
    record(18, "an older release, and an older version, played again", 3, "refused", "refused before anything changes")


def test_without_a_key_one_line_says_so(bundle: Bundle, deployed: Pi) -> None:
    signers = deployed.root / "etc/bittern/allowed_signers"
    aside = signers.rename(signers.with_suffix(".aside"))
    try:
        code, error = bundle.install(lambda uploaded: (uploaded / "SHA256SUMS.sig").unlink())
    finally:
        aside.rename(signers)
    lines = error.splitlines()
    assert code == 2
    assert len(lines) == 2
    assert "this release is not signed" in lines[0]
    assert "is never overwritten" in lines[1]


def test_a_key_that_cannot_sign_is_one_line(deployed: Pi, wheel: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    shutil.copy(deployed.ssh_config.parent / "id.pub", key.with_suffix(".pub"))
    key.write_text("no key")
    result = deployed.deploy("--wheel", wheel, "--key", key)
    assert result.returncode == 2
    assert "cannot sign with" in one_line(result)


# --- one model, and the frames that were kept -------------------------------------------------------------------------


def model_of(folder: Path, version: str, file: str = "model.tflite") -> Path:
    """The shipped stop_sign as another version; `file` is the name of its network."""
    model = shutil.copytree(REPO / "models/stop_sign", folder / version / "stop_sign")
    (model / "model.tflite").rename(model / file)

    def change(fields: dict[str, Any]) -> None:
        fields["version"], fields["file"] = version, file

    return model_files.altered(model, change)


def alone(pi: Pi) -> str | None:
    """Where the link of the model leads that was deployed alone."""
    link = pi.root / "opt/bittern/models/stop_sign"
    return str(link.readlink()) if link.is_symlink() else None


def ran(pi: Pi) -> list[tuple[str, str]]:
    """What the daemon's history says: states, and versions of stop_sign."""
    entries = history.read(pi.root / "var/lib/bittern/default" / history.FILE)
    return [(entry.state, entry.models[0].version) for entry in entries]


COUNTING = """
import os, selectors, socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
both = selectors.DefaultSelector()
both.register(0, selectors.EVENT_READ)
both.register(peer, selectors.EVENT_READ)
total, counted = 0, os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT)
while True:
    for key, _ in both.select():
        data = os.read(0, 65536) if key.fd == 0 else peer.recv(65536)
        total += len(data)
        os.pwrite(counted, b"%12d" % total, 0)  # in place: whoever reads it never finds it empty
        if not data:
            sys.exit()
        peer.sendall(data) if key.fd == 0 else os.write(1, data)
"""


def test_a_model_alone_is_loaded_while_the_daemon_runs(deployed: Pi, tmp_path: Path) -> None:
    pid, model = deployed.pid("default"), model_of(tmp_path, "90", "network.tflite")
    relay, counted = tmp_path / "relay.py", tmp_path / "bytes"
    relay.write_text(COUNTING)
    ssh_config = tmp_path / "ssh_config"
    proxy = f"  ProxyCommand {sys.executable} {relay} %h %p {counted}\n"
    ssh_config.write_text(deployed.ssh_config.read_text().replace("Host pi\n", f"Host pi\n{proxy}", 1))
    result = deployed.script("deploy_model.sh", model, ssh_config=ssh_config)
    assert result.returncode == 0, result.stderr
    assert "stop_sign 90 runs in bittern@default.service" in result.stdout
    assert deployed.pid("default") == pid, "it was not started again"
    assert ran(deployed)[-1] == ("models_loaded", "90")
    size = sum(file.stat().st_size for file in model.iterdir())
    assert 0 < int(counted.read_text()) <= 1.2 * size
    release = (deployed.root / "opt/bittern/models/stop_sign").resolve().parents[1]
    assert (release / "SHA256SUMS.sig").is_file()
    assert origin.of_folder(release / "models/stop_sign", deployed.root / "etc/bittern/allowed_signers") == "signed"


def test_an_older_model_is_refused_unless_on_purpose(deployed: Pi, tmp_path: Path) -> None:
    before, pid = alone(deployed), deployed.pid("default")
    assert before is not None
    older = model_of(tmp_path, "89")
    result = deployed.script("deploy_model.sh", older)
    assert result.returncode == 2
    assert "stop_sign 89 is older than 90" in one_line(result)
    result = deployed.script("deploy_model.sh", model_of(tmp_path, "91"), "--unsigned")
    assert result.returncode == 2
    assert "is not signed, but" in one_line(result)
    assert (alone(deployed), deployed.pid("default")) == (before, pid)
    result = deployed.script("deploy_model.sh", older, "--allow-older")
    assert result.returncode == 0, result.stderr
    assert alone(deployed) not in (None, before)
    assert deployed.pid("default") not in (None, pid)
    assert ran(deployed)[-1] == ("started", "89")


def test_a_model_that_the_daemon_refuses_is_taken_back(deployed: Pi, tmp_path: Path) -> None:
    before, pid = alone(deployed), deployed.pid("default")
    broken = model_of(tmp_path, "92")
    golden = broken / "golden.npz"
    golden.write_bytes(golden.read_bytes()[:-100])
    result = deployed.script("deploy_model.sh", broken)
    assert result.returncode == 1
    assert "refuses the model" in result.stderr
    assert "golden.npz" in result.stderr
    assert "put back" in result.stderr
    assert (alone(deployed), deployed.pid("default")) == (before, pid)
    assert ran(deployed)[-1] == ("models_refused", "89")
    assert len(list((deployed.root / "opt/bittern/deployed").iterdir())) == 2


@pytest.mark.parametrize(("version", "stays"), [("88", True), ("89", False), ("100", False)])
def test_a_release_takes_over_unless_its_model_is_older(
    deployed: Pi, tmp_path: Path, version: str, stays: bool
) -> None:
    """The functions of install.sh, on a copy of what a device has when a release comes after a model."""
    base = tmp_path / "opt"
    (base / "releases").mkdir(parents=True)
    (base / "releases/new").mkdir()
    (base / "releases/new/venv").symlink_to(deployed.current / "venv")
    shutil.copytree(model_of(tmp_path, version).parent, base / "releases/new/models")
    (base / "models").mkdir()
    (base / "models/stop_sign").symlink_to((deployed.root / "opt/bittern/models/stop_sign").resolve())
    script = (
        f"source {REPO}/deploy/install.sh true; base={base} aside={base}/.models-aside id=new; set_aside; "
        f"ls {base}/models; bring_back; ls -A {base} {base}/models"
    )
    environment = os.environ | {"LD_LIBRARY_PATH": f"{deployed.root}/usr/lib"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:1] == (["stop_sign"] if stays else [f"{base}:"])
    assert ("stays in use" in done.stderr) == stays
    assert done.stdout.split()[-1] == "stop_sign"
    assert ".models-aside" not in done.stdout


def kept_frames(pi: Pi, seeds: range) -> None:
    """What a daemon with [keep] leaves on the device."""
    folder = pi.root / "var/lib/bittern/default/kept"
    kept = KeptFrames(folder, KeepConfig())
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8).repeat(20, 0).repeat(20, 1)
        frame = KeptFrame(pixels, "BGR", 10**18 + seed * 10**12, "demo", "unsure", "stop_sign 6", "stop", 0.6, "{}")
        assert kept.add(frame)
    kept.close()
    if os.getuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, pi.root.stat().st_uid, -1)


def test_kept_frames_are_fetched_once_and_labels_stay(deployed: Pi, tmp_path: Path) -> None:
    out = tmp_path / "kept frames"
    result = deployed.script("pull.sh", out)
    assert result.returncode == 2
    assert "[keep]" in result.stderr
    kept_frames(deployed, range(3))
    result = deployed.script("pull.sh", out)
    assert result.returncode == 0, result.stderr
    assert "3 new frames, 3 in all" in result.stdout
    items = dataset.read(out)
    assert [item.label for item in items] == [""] * 3
    assert all(item.path.is_file() for item in items)
    labelled = [items[0]._replace(label="stop"), *items[1:]]
    index.write(out / "index.csv", labelled)
    items[1].path.unlink()  # the connection was lost before this one came
    times = {item.name: item.path.stat().st_mtime_ns for item in (items[0], items[2])}
    kept_frames(deployed, range(3, 5))
    result = deployed.script("pull.sh", out)
    assert result.returncode == 0, result.stderr
    assert "2 new frames, 5 in all" in result.stdout
    again = dataset.read(out)
    assert [item.label for item in again] == ["stop", "", "", "", ""]
    assert all(item.path.is_file() for item in again)
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert not (out / ".partial").exists()


@pytest.mark.usefixtures("sudo_asks")
def test_frames_are_fetched_with_a_password_too(deployed: Pi, tmp_path: Path) -> None:
    result = deployed.script("pull.sh", tmp_path / "out", typed="a secret")
    assert result.returncode == 0, result.stderr
    assert "secret" not in result.stdout + result.stderr
    assert len(dataset.read(tmp_path / "out")) == 5


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("pull.sh", [], "make pull HOST="),
        ("pull.sh", ["pi"], "no folder given"),
        ("pull.sh", ["pi", "a", "b"], "one folder at a time"),
        ("deploy_model.sh", [], "make deploy-model HOST="),
        ("deploy_model.sh", ["pi"], "no model given"),
        ("deploy_model.sh", ["pi", "/nowhere"], "is not a model folder"),
        ("deploy_model.sh", ["pi", "--frobnicate"], "unknown option"),
    ],
)
def test_wrong_usage_of_the_others_is_one_line(script: str, arguments: list[str], expected: str) -> None:
    result = subprocess.run([REPO / "deploy" / script, *arguments], capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


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

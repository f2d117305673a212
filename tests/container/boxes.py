"""Starts what is in the image: in a container, or in a chroot where this machine denies containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ENGINE = Path(__file__).parent / "engine.sh"
CACHE = os.environ.get("CACHE", str(Path("~/.cache/bittern").expanduser()))
IMAGE = os.environ.get("BITTERN_IMAGE", "localhost/bittern")
USER = 10001
# What no container gets: as in compose.yaml.
RIGHTS = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
# The same without an engine: the image is mounted read-only, /tmp is in memory, and the user has no capabilities.
CHROOT = """
root=$1 new=$2 state=$3 etc=$4; shift 4
mount --bind "$root" "$new"
mount -o remount,bind,ro "$new"
mount --rbind /proc "$new/proc"; mount --rbind /sys "$new/sys"; mount --rbind /dev "$new/dev"
mount -t tmpfs tmpfs "$new/tmp"
mount --bind "$state" "$new/var/lib/bittern"
mount --bind "$etc" "$new/etc/bittern"
mount -o remount,bind,ro "$new/etc/bittern"
exec chroot "$new" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all env -i "$@"
"""


def podman(*words: str | Path) -> str:
    """The output of podman; raises if it fails."""
    done = subprocess.run([str(ENGINE), CACHE, "podman", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def image() -> dict[str, Any]:
    """What the image says of itself."""
    (description,) = json.loads(podman("image", "inspect", IMAGE))
    return dict(description)


@cache
def files() -> Path:
    """The folder that holds the image's files; not to be written to."""
    return Path(podman("image", "mount", IMAGE).strip())


@cache
def has_containers() -> bool:
    """Whether this machine lets a container run."""
    command = [str(ENGINE), CACHE, "podman", "run", "--rm", "--network=host", "--entrypoint=true", IMAGE]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def memory_mb() -> float:
    """What all processes of the image take, each shared page counted once."""
    kb = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == USER:
                rollup = (process / "smaps_rollup").read_text()
                kb += int(rollup.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):  # it has just ended
            continue
    return kb / 1000


class Box:
    """A command of the image that runs, with the rights that it has in compose.yaml and the network of this machine.

    Attributes:
        state: the folder that is its /var/lib/bittern.
        out: what it wrote on stdout.
        errors: what it wrote on stderr.
        begin_s: when it was started, on the monotonic clock.
    """

    def __init__(self, folder: Path, *command: str, entrypoint: str = "bittern", config: str = "") -> None:
        """Start it; its configuration is /etc/bittern/camera.toml, read-only."""
        self.state, etc = folder / "state", folder / "etc"
        self.state.mkdir(parents=True, exist_ok=True)
        os.chown(self.state, USER, USER)
        etc.mkdir(exist_ok=True)
        (etc / "camera.toml").write_text(config)
        self._out, self._errors = folder / "out", folder / "errors"
        words: list[str | Path]
        if has_containers():
            volumes = [f"--volume={self.state}:/var/lib/bittern", f"--volume={etc}:/etc/bittern:ro"]
            # Podman gives the health check to systemd, and complains where there is none.
            words = [ENGINE, CACHE, "podman", "run", "--rm", "--network=host", "--no-healthcheck", *RIGHTS, *volumes]
            words += [f"--entrypoint={entrypoint}", IMAGE, *command]
        else:
            words = ["unshare", "--mount", "--propagation=private", "bash", "-euc", CHROOT, "bash"]
            (folder / "root").mkdir(exist_ok=True)
            words += [files(), folder / "root", self.state, etc, *image()["Config"]["Env"], entrypoint, *command]
        with self._out.open("wb") as out, self._errors.open("wb") as errors:
            self.begin_s = time.monotonic()
            self._process = subprocess.Popen(words, stdout=out, stderr=errors)

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of whole lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines(keepends=True) if line.endswith("\n")]

    def has_event(self, key: str, value: str) -> bool:
        """Whether an event has a value; fails if the command has ended without."""
        ended = self._process.poll() is not None
        if any(event.get(key) == value for event in self.events):
            return True
        assert not ended, self.errors
        return False

    def wait(self) -> int:
        """The exit code, when it has ended by itself."""
        return self._process.wait(60)

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def run(command: str) -> tuple[int, str]:
    """Exit code and output of a shell command inside."""
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder), "-c", command, entrypoint="sh") as box:
        return box.wait(), box.out + box.errors

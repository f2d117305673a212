"""A Pi on loopback: a real sshd as an ordinary user, Python with OpenCV, stand-ins for systemd and root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.doubles.once import once

REPO = Path(__file__).parents[2]
USER = f"bittern-{os.getpid()}"  # where the tests run as root: made for one run


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Pi:
    """The device: `root` stands for its /."""

    root: Path
    ssh_config: Path
    wheelhouse: Path

    @property
    def current(self) -> Path:
        return self.root / "opt/bittern/current"

    @property
    def calls(self) -> list[str]:
        return (self.root / "run/stand-in/calls").read_text().splitlines()

    def pid(self, instance: str) -> int | None:
        """The process of an instance if it is alive; a zombie has no command line."""
        path = self.root / f"run/stand-in/pid/bittern@{instance}.service"
        try:
            pid = int(path.read_text())
            return pid if Path(f"/proc/{pid}/cmdline").read_bytes() else None
        except OSError:
            return None

    def journal(self, instance: str) -> str:
        return (self.root / f"run/stand-in/journal/bittern@{instance}.service").read_text()

    def command(self, *options: str | Path, host: str = "pi") -> list[str]:
        words = [REPO / "deploy/deploy.sh", host, "--ssh-config", self.ssh_config, "--prefix", self.root]
        return [str(word) for word in (*words, "--wheelhouse", self.wheelhouse, *options)]

    def deploy(
        self, *options: str | Path, host: str = "pi", typed: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run deploy.sh; with `typed`, in a terminal in which somebody types that line."""
        return self.run(self.command(*options, host=host), typed)

    def script(
        self, name: str, *words: str | Path, ssh_config: Path | None = None, typed: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run another script of deploy/ on this device."""
        options = ("--ssh-config", ssh_config or self.ssh_config, "--prefix", self.root)
        return self.run([str(word) for word in (REPO / "deploy" / name, "pi", *words, *options)], typed)

    def run(self, words: list[str], typed: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command; with `typed`, in a terminal in which somebody types that line."""
        ours, theirs = os.openpty()
        try:
            if typed is not None:
                os.write(ours, typed.encode() + b"\n")
            stdin = subprocess.DEVNULL if typed is None else theirs
            environment = os.environ | {"PYTHON": sys.executable}
            return subprocess.run(words, stdin=stdin, capture_output=True, text=True, timeout=300, env=environment)
        finally:
            os.close(ours)
            os.close(theirs)


def debian_python(usr: Path) -> None:
    """Make usr/bin/python3: this interpreter as Debian's would be, with numpy and OpenCV but not the rest."""
    import cv2
    import numpy as np

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = Path(sysconfig.get_path("stdlib"))
    (usr / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath(sys.executable), usr / "bin/python3")
    unneeded = shutil.ignore_patterns("site-packages", "dist-packages", "test", "idlelib", "tkinter", "config-3*")
    shutil.copytree(stdlib, usr / "lib" / version, ignore=unneeded)
    library = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("INSTSONAME"))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library.exists():
        shutil.copy(library, usr / "lib")
    ask = [str(usr / "bin/python3"), "-c", "import site; print(site.getsitepackages()[0])"]
    answer = subprocess.check_output(ask, text=True, env={"LD_LIBRARY_PATH": str(usr / "lib")})
    packages = Path(answer.strip())
    assert packages.is_relative_to(usr)
    for module in (np, cv2):
        for path in Path(str(module.__file__)).parents[1].glob(f"{'opencv' if module is cv2 else 'numpy'}*"):
            shutil.copytree(path, packages / path.name, dirs_exist_ok=True)
    shutil.copytree(Path(cv2.__file__).parent, packages / "cv2")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from this checkout as `make wheel` does."""
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", REPO, "--outdir")
    (path,) = once(tmp_path_factory, "wheel", lambda folder: run(*build, folder)).glob("bittern-*.whl")
    return path


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the lock of a Raspberry Pi names, for this machine: no numpy and no OpenCV, which are Debian's."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
    locked = ("--require-hashes", "-r", REPO / "locks/pi.txt", "--dest")
    return once(tmp_path_factory, "wheelhouse", lambda folder: run(*pip, *locked, folder))


@pytest.fixture(scope="module")
def pi(wheelhouse: Path) -> Iterator[Pi]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    absent = [name for name in ("ssh", "rsync", "ssh-keygen") if shutil.which(name) is None]
    if sshd is None or absent:
        pytest.skip(f"needs {' and '.join(absent + ([] if sshd else ['sshd']))} (openssh-server, rsync)")
    with contextlib.ExitStack() as stack:
        # Not pytest's folder, which no other user may enter; and short, for the paths of sockets.
        home = Path(tempfile.mkdtemp(prefix="bittern-pi."))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        root = home / "root"
        debian_python(root / "usr")
        shutil.copytree(Path(__file__).parent / "standins", home / "bin")
        for name in ("host", "id"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path = f"{home}/bin:{root}/usr/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment = f"HOME={home} PATH={path} STAND_IN_ROOT={root} LD_LIBRARY_PATH={root}/usr/lib"
        (home / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\n"
            f"AuthorizedKeysFile {home}/id.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nSetEnv {environment}\n"
        )
        as_user: list[str] = []
        user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:  # an ordinary user, so that nothing outside of its folder can be harmed
            user = USER
            run("useradd", "--no-create-home", "--home-dir", home, "--shell", "/bin/bash", USER)
            stack.callback(remove_user)
            run("chown", "-R", USER, home)
            home.chmod(0o755)
            as_user = ["setpriv", f"--reuid={USER}", f"--regid={pwd.getpwnam(USER).pw_gid}", "--clear-groups"]
        ssh_config = home / "ssh_config"
        ssh_config.write_text(
            f"Host pi\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {home}/id\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {home}/known_hosts\n"
            f"  StrictHostKeyChecking accept-new\n"
            f"Host nobody\n  HostName 127.0.0.1\n  Port 1\n"
        )
        if as_user:  # ssh refuses a private key and a configuration that belong to somebody else
            for name in ("id", "ssh_config"):
                os.chown(home / name, 0, 0)
        log = stack.enter_context((home / "sshd.log").open("wb"))
        server = subprocess.Popen([*as_user, sshd, "-D", "-e", "-f", str(home / "sshd_config")], stderr=log)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        device = Pi(root, ssh_config, wheelhouse)
        stack.callback(end_daemons, root)
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"sshd does not answer: {(home / 'sshd.log').read_text()}")
        yield device


def end_daemons(root: Path) -> None:
    for path in (root / "run/stand-in/pid").glob("*"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(path.read_text()), signal.SIGTERM)


def remove_user() -> None:
    uid = pwd.getpwnam(USER).pw_uid
    for _ in range(300):  # userdel refuses while a process of the user is there
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and folder.stat().st_uid == uid:
                    os.kill(int(folder.name), signal.SIGKILL)
        if subprocess.run(["userdel", USER], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)

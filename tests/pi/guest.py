"""The guest: a virtual Pi under qemu, its ssh, its journal, its power switch."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.doubles.mosquitto import free_port

RELAY = Path(__file__).with_name("relay.py")
# The guest reaches nobody but this address, whose ports are relayed to ones of this machine.
OUTSIDE = "10.0.2.100"
CPU = os.environ.get("QEMU_CPU", "cortex-a72")
BOOT_S = 300.0


class GuestError(Exception):
    """The guest does not do what it should: one line."""


class Guest:
    """A disk, which is a copy-on-write layer over the image, and the machine that runs on it.

    Attributes:
        ssh_config: for ssh -F; the host is called vm.
    """

    def __init__(self, image: Path, folder: Path, ports: Mapping[int, int]) -> None:
        """Make the disk; `start` switches the machine on.

        Args:
            image: what root.sh built.
            folder: for disk, console and sockets; its path must be short.
            ports: a port of `OUTSIDE` and the one of this machine's loopback that is behind it.
        """
        self._image, self._folder, self._ports = image, folder, ports
        self._ssh_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._console = folder / "console"
        self.ssh_config = folder / "ssh_config"
        # ssh refuses a key that others may read.
        key = folder / "key"
        shutil.copy(image / "key", key)
        key.chmod(0o600)
        shutil.copy(image / "key.pub", folder / "key.pub")
        self.ssh_config.write_text(
            f"Host vm\n    HostName 127.0.0.1\n    Port {self._ssh_port}\n    User pi\n    IdentityFile {key}\n"
            "    IdentitiesOnly yes\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n"
            "    LogLevel ERROR\n"
        )
        backing = ("-F", "raw", "-b", image.resolve() / "disk.img")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, folder / "disk.qcow2"], check=True)

    def start(self) -> float:
        """Switch on; returns the seconds until ssh answers."""
        begin = time.monotonic()
        network = f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self._ssh_port}-:22"
        for guest, port in self._ports.items():
            network += f",guestfwd=tcp:{OUTSIDE}:{guest}-cmd:{sys.executable} -I -S {RELAY} {port}"
        # writeback: a flush of the guest is an fsync here; what the guest has not written is lost with qemu.
        drive = f"if=none,id=d,file={self._folder}/disk.qcow2,format=qcow2,cache=writeback"
        words = ["qemu-system-aarch64", "-M", "virt", "-cpu", CPU, "-smp", "2", "-m", "2048"]
        words += ["-accel", "tcg,thread=multi", "-display", "none", "-monitor", "none"]
        words += ["-kernel", f"{self._image}/kernel", "-initrd", f"{self._image}/initrd"]
        words += ["-append", "root=/dev/vda rw console=ttyAMA0 quiet cgroup_enable=memory"]
        words += ["-drive", drive, "-device", "virtio-blk-pci,drive=d", "-device", "virtio-rng-pci"]
        words += ["-netdev", network, "-device", "virtio-net-pci,netdev=n,romfile="]
        words += ["-serial", f"file:{self._console}"]
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_for_ssh()
        return time.monotonic() - begin

    def wait_for_ssh(self) -> None:
        """Returns when ssh answers."""
        end = time.monotonic() + BOOT_S
        while self._ssh("true", master=False, seconds=30).returncode:
            if self._process is None or self._process.poll() is not None:
                raise GuestError(f"qemu has ended: {(self._folder / 'qemu.log').read_text()[-500:]!r}")
            if time.monotonic() > end:
                raise GuestError(f"no ssh within {BOOT_S:.0f} s: {self._console.read_text(errors='replace')[-500:]!r}")
            time.sleep(1)

    def cut(self) -> None:
        """A power cut."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._forget_master()

    def reboot(self) -> float:
        """An orderly restart of the same machine; returns the seconds from the command until ssh answers again."""
        begin = time.monotonic()
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self._ssh("sudo systemctl reboot", seconds=60)
        self._forget_master()
        while True:
            self.wait_for_ssh()
            with contextlib.suppress(GuestError):
                if self.run("cat /proc/sys/kernel/random/boot_id") != before:
                    return time.monotonic() - begin
            self._forget_master()
            if time.monotonic() - begin > BOOT_S:
                raise GuestError(f"it did not reboot within {BOOT_S:.0f} s")
            time.sleep(2)

    def run(self, script: str, seconds: float = 120.0) -> str:
        """Run a shell script inside, as the user pi; returns its output.

        Raises:
            GuestError: it failed, or took too long.
        """
        done = self._ssh(script, seconds=seconds)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise GuestError(f"`{script.strip().splitlines()[0]}` ends with {done.returncode}: {' '.join(last)}")
        return done.stdout.strip()

    def root(self, script: str, seconds: float = 120.0) -> str:
        """`run` as root."""
        return self.run(f"sudo bash -ec {shlex.quote(script)}", seconds)

    def put(self, text: str, path: str) -> None:
        """Write a file as root, with the rights that it had."""
        self.root(
            f"cat > {path}.new <<'END_OF_FILE'\n{text}END_OF_FILE\ncat {path}.new > {path}; rm {path}.new; sync {path}"
        )

    def _ssh(self, script: str, *, master: bool = True, seconds: float) -> subprocess.CompletedProcess[str]:
        # One connection for all: a handshake takes seconds under emulation.
        path = f"{self._folder}/master"
        shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={path}", "-o", "ControlPersist=600") if master else ()
        words = [
            "ssh",
            "-F",
            str(self.ssh_config),
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=5",
            *shared,
            "vm",
            script,
        ]
        try:
            return subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"no answer within {seconds:.0f} s")

    def _forget_master(self) -> None:
        words: list[str | Path] = [
            "ssh",
            "-F",
            self.ssh_config,
            "-o",
            f"ControlPath={self._folder}/master",
            "-O",
            "exit",
            "vm",
        ]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)

    def close(self) -> None:
        """Switch off, whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self.cut()


class Journal:
    """The lines of a unit, from now on or of the whole boot, as they come.

    Attributes:
        lines: each with the time of its arrival, by this machine's monotonic clock.
    """

    def __init__(self, guest: Guest, unit: str, *, whole_boot: bool = False) -> None:
        since = "-b" if whole_boot else guest.run("date +--since=@%s.%N")
        words = ["ssh", "-F", str(guest.ssh_config), "vm", f"sudo journalctl -f -n all -o cat -u {unit} {since}"]
        self.lines: list[tuple[float, str]] = []
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def wait(self, text: str, since: int = 0, seconds: float = 120.0) -> float:
        """Wait for a line with that text, from line number `since` on; returns when it came, by the monotonic clock.

        Raises:
            GuestError: it did not come.
        """
        return self.wait_any((text,), since, seconds)

    def wait_any(self, texts: tuple[str, ...], since: int = 0, seconds: float = 120.0) -> float:
        """`wait` for a line with one of the texts."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for came, line in self.lines[since:]:
                if any(text in line for text in texts):
                    return came
            time.sleep(0.1)
        last = self.lines[-1][1] if self.lines else "nothing"
        raise GuestError(f"no {' or '.join(texts)} within {seconds:.0f} s; the last line is {last!r}")

    def close(self) -> None:
        """Stop following."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._thread.join()


def until(holds: Callable[[], bool], what: str, seconds: float) -> float:
    """Wait until something holds; returns after how many seconds it did.

    Raises:
        GuestError: it did not within the time.
    """
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > seconds:
            raise GuestError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)
    return time.monotonic() - begin

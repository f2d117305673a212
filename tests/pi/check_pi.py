"""Bittern on a virtual Pi: what is done to it, what is seen, and how long it took; non-zero if a row failed.

    python -m tests.pi.check_pi CACHE WHEEL [--cuts 20] [--plugs 5] [--only STEP,STEP]

root.sh must have made CACHE/pi-SUITE ($SUITE: bookworm, trixie) and its wheels. The table goes to build/pi-SUITE.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.doubles.http_peer import OK, Peer, Request, status
from tests.doubles.mosquitto import Broker, Listener
from tests.doubles.tflite_files import model_folder_of_means
from tests.pi.guest import OUTSIDE, Guest, GuestError, Journal, until

PROJECT = Path(__file__).parents[2]
SUITE = os.environ.get("SUITE", "bookworm")
UNIT = "bittern@default"
# Test patterns of vivid, all red and all green; the driver's clock in it keeps the picture from being flat, and still.
RED, GREEN = 7, 8
# The shipped model takes a second for a frame under emulation; that of channel means takes next to nothing, and is sure
# that red is red.
STOP_SIGN = 'source = "usb:0"\nname = "door"\nmodels = ["stop_sign"]\nfps = 1\n'
MEANS = """source = "usb:0"
name = "door"
models = ["means"]
fps = 5
timeout_s = 5
[gate]
enabled = false
[decision]
threshold = 0.5
off = 0.4
evidence = 0.0
cooldown_s = 0.0
min_off_s = 0.0
"""
WEBHOOK = f'[webhook]\nurl = "http://{OUTSIDE}/hook"\n'
MQTT = f'[mqtt]\nhost = "{OUTSIDE}"\ntopic = "bittern/door"\n'
# An event may be printed before it is on the disk: of this last stretch before a power cut some may be missing.
NOT_YET_ON_DISK_S = 1.0


class Row(NamedTuple):
    """A line of the table."""

    what: str
    result: str
    seconds: float
    good: bool


class Pi:
    """The guest with what it reaches outside, and with a deployed Bittern after `deploy`."""

    def __init__(self, image: Path, wheel: Path, folder: Path, peer: Peer, broker: Broker) -> None:
        self.wheel, self.folder, self.peer, self.broker = wheel, folder, peer, broker
        self.wheels = image / "wheels"
        self.guest = Guest(image, folder, {80: peer.port, 1883: broker.port})
        self.models = folder / "models"
        self.models.mkdir()
        shutil.copytree(PROJECT / "models/stop_sign", self.models / "stop_sign")
        model_folder_of_means(self.models / "means", name="means", size=32)
        self.journal: Journal | None = None
        self.accepted: list[str] = []
        self.down = False
        peer.answer = self.answer

    def answer(self, request: Request) -> bytes:
        """The webhook's."""
        if self.down:
            return status(503)
        self.accepted.append(request.event["id"])
        return OK

    def deploy(self, *options: str | Path, wheel: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run deploy.sh."""
        words: list[str | Path] = [PROJECT / "deploy/deploy.sh", "vm", "--ssh-config", self.guest.ssh_config]
        words += ["--wheelhouse", self.wheels, "--models", self.models, "--wheel", wheel or self.wheel, *options]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)

    def follow(self, *, whole_boot: bool = False) -> Journal:
        """The journal from now on, or of this boot."""
        if self.journal is not None:
            self.journal.close()
        self.journal = Journal(self.guest, UNIT, whole_boot=whole_boot)
        return self.journal

    def show(self, key: str, unit: str = UNIT) -> str:
        """A property of a unit."""
        return self.guest.run(f"systemctl show --value -p {key} {unit}")

    def process(self) -> tuple[str, str]:
        """The daemon's process, and how often systemd has restarted it by itself."""
        return self.show("MainPID"), self.show("NRestarts")

    def configure(self, text: str) -> Journal:
        """Another configuration, and a restart that returns with the first frame."""
        self.guest.put(text, "/etc/bittern/default.toml")
        journal = self.follow()
        self.guest.root(f"systemctl restart {UNIT}", 300)
        journal.wait('"camera_ok"')
        return journal

    def show_trouble(self) -> None:
        """Print the last lines of the unit."""
        with contextlib.suppress(GuestError):
            print(self.guest.root(f"systemctl status --no-pager -l -n 15 {UNIT} || true"), flush=True)

    def close(self) -> None:
        """Switch off."""
        if self.journal is not None:
            self.journal.close()
        self.guest.close()

    def pattern(self, number: int) -> None:
        """What the camera shows."""
        self.guest.run(f"v4l2-ctl -d /dev/video0 -c test_pattern={number}")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr.strip() or done.stdout.strip()).splitlines() or [""])[-1].removeprefix("deploy: ")


def expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise GuestError(otherwise)


# --- the steps: each returns what was seen ---


def deploy(pi: Pi, _: argparse.Namespace) -> str:
    """deploy, signed, from a wheelhouse, by an ordinary user"""
    config = pi.folder / "door.toml"
    config.write_text(STOP_SIGN)
    done = pi.deploy("--config", config)
    expect(done.returncode == 0, f"exit {done.returncode}: {last_line(done)}")
    journal = pi.follow(whole_boot=True)
    journal.wait('"camera_ok"')
    ready_s = (int(pi.show("ActiveEnterTimestampMonotonic")) - int(pi.show("ExecMainStartTimestampMonotonic"))) / 1e6
    restarts = pi.show("NRestarts")
    expect(restarts == "0", f"{restarts} restarts")
    signer = pi.guest.root("wc -l < /etc/bittern/allowed_signers")
    until(lambda: "xnnpack" in pi.show("StatusText") or "frames" in pi.show("StatusText"), "a status", 60)
    level = pi.guest.run(f"systemd-analyze security --no-pager {UNIT} | tail -1 | grep -o '[0-9][0-9.]* [A-Z]*'")
    return (
        f"exit 0, active {ready_s:.0f} s after the start of the process, 0 restarts, {signer} signer; "
        f"status: {pi.show('StatusText')}; security {level}"
    )


def doctor(pi: Pi, _: argparse.Namespace) -> str:
    """doctor, while the service is stopped"""
    pi.guest.root(f"systemctl stop {UNIT}")
    command = "BITTERN_MODELS=/opt/bittern/current/models /opt/bittern/current/venv/bin/bittern doctor --source usb:0"
    try:
        out = pi.guest.run(f"{command}; echo exit $?", 600)
    finally:
        pi.guest.root(f"systemctl start {UNIT}", 300)
    counts = {word: len(re.findall(rf"^{word} ", out, re.M)) for word in ("ok", "warning", "failure", "failed")}
    bad = [line for line in out.splitlines() if line.startswith(("warning", "fail"))]
    expect(out.endswith("exit 0"), f"{out.splitlines()[-1]}: {bad}")
    return f"{counts['ok']} ok, {counts['warning']} warnings ({'; '.join(' '.join(line.split()[1:9]) for line in bad)})"


def alarms(pi: Pi, _: argparse.Namespace) -> str:
    """alarms from /dev/video0, to a webhook outside: the picture turns red, and green again"""
    pi.pattern(GREEN)
    journal = pi.configure(MEANS + WEBHOOK)
    delays = []
    for _turn in range(3):
        for colour, kind in ((RED, "alarm.on"), (GREEN, "alarm.off")):
            since = len(journal.lines)
            begin = time.monotonic()
            pi.pattern(colour)
            delays.append(journal.wait(f'"{kind}"', since, 60) - begin)
    printed = [event["id"] for _, event in events(journal) if event["type"].startswith("alarm")]
    until(lambda: set(printed) <= set(pi.accepted), "delivery to the webhook", 60)
    return f"{len(printed)} events printed and delivered; {min(delays):.1f} to {max(delays):.1f} s after the change"


def watchdog(pi: Pi, _: argparse.Namespace) -> str:
    """SIGSTOP of the daemon: the watchdog kills it and systemd starts it again"""
    journal = pi.follow()
    pid = pi.show("MainPID")
    begin = time.monotonic()
    pi.guest.root(f"kill -STOP {pid}")
    killed = journal.wait("Watchdog timeout", seconds=90) - begin
    since = len(journal.lines)
    ready = journal.wait('"camera_ok"', since, 180) - begin
    expect(pi.show("MainPID") != pid, "it is the same process")
    return f"killed after {killed:.0f} s, frames again {ready - killed:.0f} s later"


def camera_process(pi: Pi, _: argparse.Namespace) -> str:
    """SIGSTOP and SIGKILL of the camera process"""
    process = pi.process()
    journal = pi.follow()
    signals = []
    for name in ("STOP", "KILL"):
        since = len(journal.lines)
        begin = time.monotonic()
        pi.guest.root(f"kill -{name} $(pgrep -f 'bittern.camera.chil[d]')")
        signals.append(f"SIG{name}: frames again after {journal.wait('camera_ok', since, 120) - begin:.0f} s")
    expect(pi.process() == process, f"process and restarts: {process}, then {pi.process()}")
    return "; ".join(signals) + "; the daemon is the same process"


def unplugged(pi: Pi, _: argparse.Namespace) -> str:
    """the camera's driver is unbound for 20 s, and bound again"""
    process = pi.process()
    journal = pi.follow()
    begin = time.monotonic()
    pi.guest.root("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    lost = journal.wait_any(('"camera_lost"', '"camera_absent"', '"camera_stalled"'), 0, 60) - begin
    time.sleep(20)
    since = len(journal.lines)
    pi.guest.root("until rmmod vivid; do sleep 0.2; done; modprobe vivid", 60)
    begin = time.monotonic()
    back = journal.wait('"camera_ok"', since, 90) - begin
    expect(pi.process() == process, f"process and restarts: {process}, then {pi.process()}")
    return f"noticed after {lost:.0f} s, frames {back:.0f} s after it was back; the daemon is the same process"


def reload(pi: Pi, _: argparse.Namespace) -> str:
    """systemctl reload, of the shipped model"""
    journal = pi.configure(STOP_SIGN)
    process = pi.process()
    since = len(journal.lines)
    begin = time.monotonic()
    pi.guest.root(f"systemctl reload {UNIT}", 60)
    answered = time.monotonic() - begin
    loaded = journal.wait('"models_loaded"', since, 240) - begin
    expect(pi.process() == process, f"process and restarts: {process}, then {pi.process()}")
    return f"systemctl is back after {answered:.1f} s, models_loaded after {loaded:.0f} s"


def reboot(pi: Pi, _: argparse.Namespace) -> str:
    """systemctl reboot"""
    ssh = pi.guest.reboot()
    journal = pi.follow(whole_boot=True)
    journal.wait('"camera_ok"', seconds=240)
    return f"ssh after {ssh:.0f} s; active by itself {active_s(pi):.0f} s after the kernel's start"


def active_s(pi: Pi) -> float:
    """Seconds from the kernel's start to the unit's; raises `GuestError` if it was restarted or is not active."""
    expect(pi.show("ActiveState") == "active", f"the unit is {pi.show('ActiveState')}")
    expect(pi.show("NRestarts") == "0", f"{pi.show('NRestarts')} restarts")
    return int(pi.show("ActiveEnterTimestampMonotonic")) / 1e6


def plugged_in_later(pi: Pi, arguments: argparse.Namespace) -> str:
    """fault 40: booted without a camera, plugged in later"""
    pi.guest.put(MEANS, "/etc/bittern/default.toml")
    pi.guest.root("mv /etc/modules-load.d/vivid.conf /etc/modules-load.d/vivid.away; sync")
    frames, status = [], ""
    try:
        for turn in range(arguments.plugs):
            # A unit that is started anew without the modules is where one is after a boot; the boot is real only once.
            if turn == 0:
                pi.guest.reboot()
                journal = pi.follow(whole_boot=True)
            else:
                journal = pi.follow()
                pi.guest.root(
                    f"systemctl stop {UNIT}; until modprobe -r vivid; do sleep 0.2; done; systemctl start {UNIT}", 200
                )
            expect(not pi.guest.run("ls /dev/video* 2>/dev/null || true"), "there is a camera")
            journal.wait('"camera_absent"', 0, 120)
            until(lambda: pi.show("ActiveState", "multi-user.target") == "active", "multi-user.target", 60)
            status = pi.show("StatusText")
            process = pi.process()
            expect(pi.show("ActiveState") == "active", f"without a camera the unit is {pi.show('ActiveState')}")
            pi.guest.root(f"timeout 20 systemctl reload {UNIT}", 60)
            journal.wait_any(('"models_loaded"', '"models_refused"'), 0, 120)
            since = len(journal.lines)
            begin = time.monotonic()
            pi.guest.root("modprobe vivid")
            frames.append(journal.wait('"camera_ok"', since, 120) - begin)
            expect(pi.process() == process, f"process and restarts: {process}, then {pi.process()}")
    finally:
        pi.guest.root("cd /etc/modules-load.d; [ ! -e vivid.away ] || mv vivid.away vivid.conf; modprobe vivid; sync")
    expect(max(frames) <= 15, f"frames {max(frames):.0f} s after the camera was plugged in, at most 15 expected")
    return (
        f"{len(frames)} times (1 boot): multi-user.target is reached, status: {status}; reload answers; frames within "
        f"{min(frames):.0f} to {max(frames):.0f} s (15 allowed); no restart"
    )


TOGGLE = f"""[Unit]
Description=the picture turns red and green, once a second
[Service]
ExecStart=/bin/sh -c 'while :; do v4l2-ctl -d /dev/video0 -c test_pattern={RED}; sleep 1; \
v4l2-ctl -d /dev/video0 -c test_pattern={GREEN}; sleep 1; done'
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""


def events(journal: Journal) -> list[tuple[float, dict[str, Any]]]:
    """The events among the lines, with the time of their arrival."""
    return [(came, json.loads(line)) for came, line in list(journal.lines) if line.startswith('{"id"')]


def power_cuts(pi: Pi, arguments: argparse.Namespace) -> str:
    """fault 41: power cuts at an event a second, every other one while the webhook answers 503"""
    pi.guest.root(f"cat > /etc/systemd/system/toggle.service <<'END'\n{TOGGLE}END\nsystemctl enable --now toggle; sync")
    arrived = len(pi.accepted)
    pi.configure(MEANS + WEBHOOK)
    printed: list[tuple[str, bool]] = []  # id, and whether it must be on the disk
    rates, starts, late = [], [], 0
    try:
        for cut in range(arguments.cuts):
            journal = pi.journal
            assert journal is not None
            pi.down = cut % 2 == 1
            before = len(events(journal))
            begin = time.monotonic()
            time.sleep(8 + 0.37 * cut)
            pi.guest.cut()
            now = time.monotonic()
            time.sleep(1)
            of_boot = events(journal)
            rates.append((len(of_boot) - before) / (now - begin))
            printed += [(event["id"], came < now - NOT_YET_ON_DISK_S) for came, event in of_boot]
            pi.guest.start()
            journal = pi.follow(whole_boot=True)
            pi.down = False
            journal.wait('"camera_ok"', seconds=240)
            starts.append(active_s(pi))
            mounted, errors, damaged = pi.guest.root(
                "findmnt -no OPTIONS / | cut -d, -f1; journalctl -k -b | grep -c 'EXT4-fs error' || true; "
                "ls /var/lib/bittern/default | grep -c damaged || true"
            ).split()
            expect((mounted, errors, damaged) == ("rw", "0", "0"), f"cut {cut + 1}: {(mounted, errors, damaged)}")
            print(f"  cut {cut + 1}: active after {starts[-1]:.0f} s, {rates[-1]:.1f} events a second", flush=True)
        must = [event for event, on_disk in printed if on_disk]
        until(lambda: set(must) <= set(pi.accepted[arrived:]), "delivery of what was printed", 120)
        late = len({event for event, _ in printed} - set(pi.accepted[arrived:]))
    finally:
        pi.down = False
        pi.guest.root("systemctl disable --now toggle; sync")
    got = pi.accepted[arrived:]
    order = list(dict.fromkeys(event for event in got if event in set(must)))
    expect(order == must, "the order of arrival is not that of the events")
    return (
        f"{arguments.cuts} cuts at {min(rates):.1f} to {max(rates):.1f} events a second: ext4 and outbox open, "
        f"active by itself {min(starts):.0f} to {max(starts):.0f} s after the kernel's start; all {len(must)} events "
        f"that were printed more than {NOT_YET_ON_DISK_S:.0f} s before a cut arrived, in order ({late} of the other "
        f"{len(printed) - len(must)} did not); {len(got) - len(set(got))} came twice, with the same id"
    )


def releases(pi: Pi, _: argparse.Namespace) -> str:
    """releases that are not signed, and that do not start"""
    before = pi.guest.run("readlink /opt/bittern/current")
    process = pi.process()
    done = pi.deploy("--unsigned")
    expect(done.returncode == 2, f"unsigned: exit {done.returncode}: {last_line(done)}")
    expect(pi.process() == process, "the daemon was touched by an unsigned release")
    refusal = f"unsigned: exit 2, {last_line(done)!r}; the daemon is the same process"
    begin = time.monotonic()
    done = pi.deploy(wheel=broken(pi.wheel, pi.folder))
    seconds = time.monotonic() - begin
    expect(done.returncode == 1, f"broken: exit {done.returncode}: {last_line(done)}")
    after = pi.guest.run("readlink /opt/bittern/current")
    expect(after == before and pi.show("ActiveState") == "active", f"{before} before, {after} after")
    return f"{refusal}; broken: exit 1 after {seconds:.0f} s, {last_line(done)!r}"


def broken(wheel: Path, folder: Path) -> Path:
    """The wheel with a daemon that dies."""
    target = folder / "broken" / wheel.name
    target.parent.mkdir(exist_ok=True)
    name = "bittern/daemon/run.py"
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.namelist():
            new.writestr(item, b"raise SystemExit(3)\n" if item == name else old.read(item))
    return target


def two_instances(pi: Pi, _: argparse.Namespace) -> str:
    """a second instance, of a drawn street, from one more deploy"""
    config = pi.folder / "garden.toml"
    config.write_text('source = "demo:"\nname = "garden"\nmodels = ["means"]\nfps = 1\n')
    done = pi.deploy("--instance", "garden", "--config", config)
    try:
        expect(done.returncode == 0, f"exit {done.returncode}: {last_line(done)}")
        units = (UNIT, "bittern@garden")
        expect([pi.show("ActiveState", unit) for unit in units] == ["active"] * 2, "one of them is not active")
        folders = pi.guest.root("ls /var/lib/bittern /run/bittern | xargs")
        return f"exit 0, both active; folders: {folders}"
    finally:
        pi.guest.root("systemctl disable --now bittern@garden; rm -f /etc/bittern/garden.toml")


def mqtt(pi: Pi, _: argparse.Namespace) -> str:
    """[mqtt], with a broker outside, which goes away for 20 s"""
    pi.pattern(GREEN)
    with Listener(pi.broker.port, "bittern/door/#", name="pi") as listener:

        def states() -> set[bytes | None]:
            """What all alarm topics hold: the model has two heads that say red."""
            topics = {topic for topic, _, _ in list(listener.received) if topic.startswith("bittern/door/alarm/")}
            return {listener.last(topic) for topic in topics}

        pi.configure(MEANS + MQTT)
        until(lambda: listener.last("bittern/door/availability") == b"online", "availability", 60)
        begin = time.monotonic()
        pi.pattern(RED)
        until(lambda: states() == {b"ON"}, "the alarm", 60)
        took = time.monotonic() - begin
        pi.broker.stop()
        time.sleep(10)
        pi.pattern(GREEN)
        time.sleep(10)
        pi.broker.start()
        begin = time.monotonic()
        until(lambda: states() == {b"OFF"}, "the end of the alarm, after the outage", 120)
        back = time.monotonic() - begin
        pi.guest.root(f"systemctl stop {UNIT}", 60)
        until(lambda: listener.last("bittern/door/availability") == b"offline", "offline", 60)
        pi.guest.root(f"systemctl start {UNIT}", 300)
    return f"online; ON {took:.1f} s after the picture; the live state {back:.1f} s after the broker is back; offline"


def gpio(pi: Pi, _: argparse.Namespace) -> str:
    """[gpio] on the PL061 of the machine, under the sandbox"""
    journal = pi.follow()
    pi.guest.put(MEANS + "[gpio]\npin = 3\n", "/etc/bittern/default.toml")
    pi.guest.root(f"systemctl restart {UNIT} || true", 300)
    journal.wait_any(("gpio", '"camera_ok"'))
    lines = [line for _, line in journal.lines if "gpio" in line]
    pi.configure(MEANS)
    return lines[0] if lines else "accepted"


def update_without_camera(pi: Pi, _: argparse.Namespace) -> str:
    """an update while the camera is unplugged"""
    journal = pi.follow()
    pi.guest.root("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    try:
        journal.wait('"camera_absent"')
        done = pi.deploy()
    finally:
        pi.guest.root("until rmmod vivid; do sleep 0.2; done; modprobe vivid", 60)
    begin = time.monotonic()
    expect(done.returncode == 0, f"exit {done.returncode}: {last_line(done)}")
    back = journal.wait('"camera_ok"') - begin
    waits = [line for line in done.stdout.splitlines() if "waiting" in line]
    return f"exit 0: {' '.join(waits)}; frames {max(back, 0):.0f} s after the camera was back"


STEPS: tuple[Callable[[Pi, argparse.Namespace], str], ...] = (
    deploy,
    doctor,
    alarms,
    plugged_in_later,
    power_cuts,
    watchdog,
    camera_process,
    unplugged,
    reload,
    reboot,
    releases,
    update_without_camera,
    two_instances,
    mqtt,
    gpio,
)


def main() -> None:
    """Runs the steps, each of which needs what `deploy` has left and leaves a running daemon."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--cuts", type=int, default=20, help="power cuts")
    parser.add_argument("--plugs", type=int, default=5, help="starts without a camera")
    parser.add_argument("--only", help="steps besides deploy, with commas: " + ", ".join(s.__name__ for s in STEPS))
    arguments = parser.parse_args()
    names = [step.__name__ for step in STEPS]
    only = arguments.only.split(",") if arguments.only else names
    if unknown := set(only) - set(names):
        parser.error(f"unknown step {min(unknown)}; expected one of {', '.join(names)}")
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        # A short path, for the sockets of ssh.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bittern-vm-")))
        (folder / "broker").mkdir()
        broker = stack.enter_context(Broker(folder / "broker"))
        peer = stack.enter_context(Peer())
        pi = Pi(arguments.cache / f"pi-{SUITE}", arguments.wheel, folder, peer, broker)
        stack.callback(pi.close)
        begin = time.monotonic()
        ssh_s = pi.guest.start()
        system = pi.guest.run(
            ". /etc/os-release; echo $PRETTY_NAME, Linux $(uname -r), $(systemctl --version | head -1)"
        )
        result = f"ssh after {ssh_s:.0f} s; {system}"
        add(rows, Row("first boot", result, time.monotonic() - begin, True))
        for step in STEPS:
            if step is not deploy and step.__name__ not in only:
                continue
            begin = time.monotonic()
            try:
                result, good = step(pi, arguments), True
            except (GuestError, AssertionError, subprocess.TimeoutExpired) as error:
                result, good = " ".join(str(error).split()), False
                pi.show_trouble()
            add(rows, Row((step.__doc__ or "").strip(), result, time.monotonic() - begin, good))
            if step is deploy and not good:
                break
    sys.exit(0 if all(row.good for row in rows) else 1)


def add(rows: list[Row], new: Row) -> None:
    """One more row, printed, and the table as a file, so that it is there however the run ends."""
    rows.append(new)
    print(f"{'ok    ' if new.good else 'FAILED'} {new.seconds:5.0f} s  {new.what}: {new.result}", flush=True)
    file = PROJECT / f"build/pi-{SUITE}.md"
    file.parent.mkdir(exist_ok=True)
    lines = [f"| {row.what} | {'' if row.good else 'FAILED: '}{row.result} | {row.seconds:.0f} s |" for row in rows]
    file.write_text("\n".join(("| what was done | what was result | time |", "| --- | --- | --- |", *lines, "")))


if __name__ == "__main__":
    main()

"""The doctor on faked Raspberry Pis: healthy ones, and each fault with the command that mends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from tests.doubles.pi_machines import BOARDS, PACKAGES, PYTHON, SYSTEMS, Pi, finding_of, look, pi, step

from bittern.doctor.examine import Examination, examine
from bittern.system import machine
from bittern.system.commands import CommandResult

VENV = PYTHON.removesuffix("/bin/python")
PIP_NUMPY = f"{VENV}/lib/python3.11/site-packages/numpy/__init__.py"


@pytest.fixture
def pi4(tmp_path: Path) -> Pi:
    return pi(tmp_path, "pi4", "bookworm")


def diagnosed(fake: Pi, check: str, status: str, says: str, fix: str) -> Examination:
    """Examine a machine whose fault a check must name, with the command that mends it."""
    examination = look(fake)
    finding = finding_of(examination, check)
    assert finding.status == status
    assert says in finding.finding
    assert finding.fix is not None
    assert fix in finding.fix
    assert examination.ok is (status != "failure")
    return examination


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("board", BOARDS)
def test_a_healthy_pi(tmp_path: Path, board: str, system: str) -> None:
    examination = look(pi(tmp_path, board, system))
    assert [(f.check, f.finding) for f in examination.checks if f.status != "ok"] == []
    assert examination.ok
    assert [finding.check for finding in examination.checks] == [
        *("board", "bitness", "system", "governor", "power", "heat", "disk", "memory", "clock"),
        *("numpy", "opencv", "runtime", "model stop_sign", "golden stop_sign", "camera", "colours"),
    ]
    assert BOARDS[board].model in finding_of(examination, "board").finding
    assert "XNNPACK runs the graph of stop_sign" in finding_of(examination, "runtime").finding
    assert "Debian's python3-numpy" in finding_of(examination, "numpy").finding
    assert "fab3f094ee00" in finding_of(examination, "model stop_sign").finding
    assert "RGB888" in finding_of(examination, "camera").finding
    assert "declared B, G, R" in finding_of(examination, "colours").finding


def _model(model: str) -> Callable[[Pi], None]:
    return lambda fake: fake.write("proc/device-tree/model", model + "\0")


def _answer(command: str, output: CommandResult) -> Callable[[Pi], None]:
    return lambda fake: fake.answers.__setitem__(command, output)


def _throttled(word: str) -> Callable[[Pi], None]:
    return _answer("vcgencmd get_throttled", CommandResult(0, f"throttled={word}\n"))


def _file(name: str, text: str) -> Callable[[Pi], None]:
    return lambda fake: fake.write(name, text)


def _no_vcgencmd(fake: Pi) -> None:
    del fake.answers["vcgencmd get_throttled"]
    (fake.root / "usr/bin/vcgencmd").unlink()


def _small_cma(overlay: bool) -> Callable[[Pi], None]:
    def spoil(fake: Pi) -> None:
        fake.memory(fake.board.available_kb, 8192)
        if not overlay:
            fake.write("boot/firmware/config.txt", "camera_auto_detect=1\n")

    return spoil


OS_RELEASE = 'PRETTY_NAME="Raspbian GNU/Linux {0} ({1})"\nVERSION_CODENAME={1}\nID=raspbian\n'
POLICY = "sys/devices/system/cpu/cpufreq/policy0"
SUPPLY = "(5 V, 3 A)"


@pytest.mark.parametrize(
    ("spoil", "check", "status", "says", "fix"),
    [
        (_model("Raspberry Pi Zero W Rev 1.1"), "board", "failure", "ARMv6", "Pi Zero 2 W"),
        (
            _file("etc/os-release", OS_RELEASE.format(11, "bullseye")),
            *("system", "warning", "bookworm and trixie", "Raspberry Pi OS Lite (64-bit)"),
        ),
        (
            _file(f"{POLICY}/scaling_governor", "powersave\n"),
            *("governor", "warning", "powersave: 600 MHz of 600 to 1800", "systemd-tmpfiles --create governor.conf"),
        ),
        (_throttled("0x50005"), "power", "failure", "under-voltage now (0x50005)", SUPPLY),
        (_throttled("0x50000"), "power", "warning", "since boot (0x50000)", SUPPLY),
        (_no_vcgencmd, "power", "warning", "vcgencmd is missing", "sudo apt install -y raspi-utils"),
        (
            _answer("vcgencmd get_throttled", CommandResult(255, "", "Can't open device file: /dev/vcio\n")),
            *("power", "warning", "may not query", "sudo usermod -aG video $USER"),
        ),
        (_throttled("0xe0008"), "heat", "warning", "now: soft temperature limit (0xe0008)", "heat sink"),
        (_throttled("0x60000"), "heat", "warning", "since boot: frequency capped, throttled", "heat sink"),
        (_file("sys/class/thermal/thermal_zone0/temp", "82700\n"), "heat", "warning", "83 °C", "vcgencmd measure_temp"),
        (
            _file("proc/self/mounts", "/dev/root / ext4 rw 0 0\n/dev/mmcblk0p2 / ext4 ro,noatime 0 0\n"),
            *("disk", "failure", "/ is mounted read-only", "sudo mount -o remount,rw /"),
        ),
        (
            _file("proc/self/mounts", "/dev/root / ext4 rw 0 0\n/dev/sda1 /var/lib ext4 ro 0 0\n"),
            *("disk", "failure", "/var/lib is mounted read-only", "sudo mount -o remount,rw /var/lib;"),
        ),
        (
            _file("proc/self/mounts", "overlay / overlay rw,lowerdir=/lower 0 0\n"),
            *("disk", "warning", "overlay", "sudo raspi-config nonint do_overlayfs 1 && sudo reboot"),
        ),
        (lambda fake: fake.free(12), "disk", "failure", "/ is full", "sudo apt clean"),
        (lambda fake: fake.free(300), "disk", "warning", "300 MB free", "sudo apt clean"),
        (lambda fake: fake.memory(90 * 1024, 524288), "memory", "warning", "90 of 3793 MB", "ps -eo rss,comm"),
        (_small_cma(True), "memory", "warning", "4 of 8 MB contiguous", "sudo sed -i 's/^dtoverlay=vc4-kms-v3d.*/"),
        (
            _small_cma(False),
            "memory",
            "warning",
            "4 of 8 MB contiguous",
            "echo dtoverlay=vc4-kms-v3d,cma-128 | sudo tee",
        ),
        (
            _answer("timedatectl show -p NTPSynchronized --value", CommandResult(0, "no\n")),
            *("clock", "warning", "not synchronized", "sudo timedatectl set-ntp true"),
        ),
    ],
)
def test_a_fault_of_the_machine(
    pi4: Pi, spoil: Callable[[Pi], None], check: str, status: str, says: str, fix: str
) -> None:
    spoil(pi4)
    examination = diagnosed(pi4, check, status, says, fix)
    others = [f for f in examination.checks if f.check != check and f.status not in ("ok", "skipped")]
    assert others == []


def test_32_bits_under_a_64_bit_kernel(pi4: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read", partial(machine.read, userland_bits=32))
    finding = finding_of(look(pi4), "bitness")
    assert (finding.status, finding.finding) == (
        "failure",
        "kernel 64 bit (aarch64), Python 32 bit: pip installs for the wrong architecture",
    )
    assert finding.fix is not None
    assert "echo arm_64bit=0 | sudo tee -a /boot/firmware/config.txt && sudo reboot" in finding.fix


@pytest.mark.parametrize(("system", "status"), [("bookworm", "ok"), ("trixie", "failure")])
def test_a_system_of_32_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, status: str) -> None:
    fake = pi(tmp_path, "pi3b", system)
    fake.answers["uname -r -m"] = CommandResult(0, "6.6.51+rpt-rpi-v7 armv7l\n")
    monkeypatch.setattr(machine, "read", partial(machine.read, userland_bits=32))
    examination = look(fake)
    assert finding_of(examination, "bitness").status == "ok"
    assert finding_of(examination, "system").status == status


def test_the_power_supply_is_not_blamed_on_heat(pi4: Pi) -> None:
    pi4.answers["vcgencmd get_throttled"] = CommandResult(0, "throttled=0x50005\n")
    assert finding_of(look(pi4), "heat").status == "ok"


def test_the_history_that_only_the_kernel_tells_is_not_called_clean(pi4: Pi) -> None:
    del pi4.answers["vcgencmd get_throttled"]
    pi4.write("sys/devices/platform/soc/soc:firmware/get_throttled", "0\n")
    finding = finding_of(look(pi4), "power")
    assert (finding.status, finding.finding) == ("ok", "no under-voltage now; unknown since boot (0x0)")


def test_small_contiguous_memory_is_enough_for_a_pi5(tmp_path: Path) -> None:
    fake = pi(tmp_path, "pi5", "trixie")
    fake.memory(7000000, 8192)
    assert finding_of(look(fake), "memory").status == "ok"


def test_nothing_answers(tmp_path: Path) -> None:
    """A machine that says nothing gives skipped checks, not an exception."""

    def silent(command: Sequence[str], timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
        return CommandResult(None, err="gone")

    examination = examine(root=tmp_path, runner=silent, python=PYTHON)
    assert finding_of(examination, "software").status == "failure"
    assert {f.status for f in examination.checks if f.check not in ("software", "board")} == {"skipped"}


@pytest.mark.parametrize(
    ("changed", "check", "status", "says", "fix"),
    [
        (
            {"numpy": step("numpy", error="ModuleNotFoundError: No module named 'numpy'")},
            *("numpy", "failure", "No module named", "sudo sed -i 's/^include-system-site-packages = false/"),
        ),
        (
            {"numpy": step("numpy", error="ImportError: libblas.so.3: cannot open shared object file")},
            *("numpy", "failure", "libblas", "pip install --force-reinstall --no-deps numpy"),
        ),
        (
            {
                "numpy": step("numpy", {"version": "2.2.6", "file": PIP_NUMPY}),
                "simplejpeg": step("simplejpeg", error="ValueError: numpy.dtype size changed, may indicate binary"),
            },
            *("numpy", "failure", "2.2.6, pip's, in this environment", f"{PYTHON} -m pip uninstall -y numpy"),
        ),
        (
            {"numpy": step("numpy", {"version": "1.26.4", "file": PIP_NUMPY})},
            *("numpy", "warning", "built for Debian's numpy", f"{PYTHON} -m pip uninstall -y numpy"),
        ),
        (
            {
                "numpy": step(
                    "numpy", {"version": "2.2.6", "file": "/usr/local/lib/python3.11/dist-packages/numpy/__init__.py"}
                )
            },
            *("numpy", "warning", "pip's, in /usr/local/lib/python3.11/dist-packages"),
            "sudo python3 -m pip uninstall -y --break-system-packages numpy",
        ),
        (
            {"simplejpeg": step("simplejpeg", error="ImportError: libturbojpeg.so.0")},
            *("numpy", "failure", "libturbojpeg", "sudo apt install --reinstall -y python3-simplejpeg"),
        ),
        (
            {"cv2": step("cv2", error="ModuleNotFoundError: No module named 'cv2'")},
            *("opencv", "failure", "missing", "sudo sed -i 's/^include-system-site-packages"),
        ),
        (
            {"cv2": step("cv2", error="ImportError: libtesseract.so.5: cannot open shared object file")},
            *("opencv", "failure", "libtesseract", "sudo apt install --reinstall -y python3-opencv"),
        ),
        (
            {"runtime": step("runtime", error="ConfigurationError: no runtime for TFLite models")},
            *("runtime", "failure", "does not load", "pip install --force-reinstall --no-deps ai-edge-litert"),
        ),
        (
            {"path": step("path stop_sign", {"path": "builtin"})},
            *("runtime", "failure", "XNNPACK does not run the graph of stop_sign", "head -3 /proc/cpuinfo"),
        ),
        (
            {"path": step("path stop_sign", error="ModelRefused: the runtime cannot load this model: op 200")},
            *("runtime", "failure", "op 200", "pip install --force-reinstall"),
        ),
        ({"models": step("models", {})}, "models", "failure", "there are none", "make deploy"),
        (
            {"file": step("file stop_sign", error="FileNotFoundError: manifest.json")},
            *("model stop_sign", "failure", "manifest.json", "make deploy"),
        ),
        (
            {"golden": step("golden stop_sign", error="ModelRefused: golden frame 0 is 9 output steps off on xnnpack")},
            *("golden stop_sign", "failure", "9 output steps off", "ai-edge-litert==2.3.0"),
        ),
        (
            {"golden": step("golden stop_sign", error="ModelRefused: another tensor: preprocessing differs")},
            *("golden stop_sign", "failure", "preprocessing", "sudo apt install --reinstall -y python3-opencv"),
        ),
    ],
)
def test_a_fault_of_the_software(
    pi4: Pi, changed: dict[str, list[str]], check: str, status: str, says: str, fix: str
) -> None:
    pi4.software |= changed
    diagnosed(pi4, check, status, says, fix)


def test_a_damaged_model_is_not_blamed_on_the_golden_vectors(pi4: Pi) -> None:
    pi4.software["file"] = [line.replace("fab3f094ee00", "0123456789ab", 1) for line in pi4.software["file"]]
    pi4.software["golden"] = step("golden stop_sign", error="ModelRefused: sha256 is ...")
    examination = look(pi4)
    finding = finding_of(examination, "model stop_sign")
    assert finding.status == "failure"
    assert "sha256 is 0123456789ab, the manifest says fab3f094ee00" in finding.finding
    assert finding_of(examination, "golden stop_sign").status == "skipped"


@pytest.mark.parametrize("step_name", ["numpy", "cv2", "runtime"])
def test_what_follows_from_a_fault_is_not_a_second_one(pi4: Pi, step_name: str) -> None:
    pi4.software[step_name] = step(step_name, error="ImportError: no")
    pi4.software["golden"] = step("golden stop_sign", error="ConfigurationError: no runtime for TFLite models")
    examination = look(pi4)
    failures = [f.check for f in examination.checks if f.status == "failure"]
    assert failures == [{"cv2": "opencv"}.get(step_name, step_name)]
    assert finding_of(examination, "golden stop_sign").finding == f"{step_name} does not load"


def test_debians_packages_that_are_not_there(pi4: Pi) -> None:
    for module in ("numpy", "cv2.so"):
        (pi4.root / PACKAGES[1:] / module).unlink()
    pi4.software["cv2"] = step("cv2", error="ModuleNotFoundError: No module named 'cv2'")
    assert finding_of(look(pi4), "opencv").fix == "sudo apt install -y --no-install-recommends python3-opencv"
    pi4.software["numpy"] = step("numpy", error="ModuleNotFoundError: No module named 'numpy'")
    examination = look(pi4)
    assert finding_of(examination, "numpy").fix == "sudo apt install -y --no-install-recommends python3-numpy"
    # What follows from it is not told as a second fault.
    assert finding_of(examination, "opencv").status == finding_of(examination, "runtime").status == "skipped"


def test_two_wheels_of_opencv(pi4: Pi) -> None:
    result = {"prefix": VENV, "base_prefix": "/usr", "picamera2": None}
    pi4.software["python"] = step("python", {**result, "opencv_wheels": ["opencv-python", "opencv-python-headless"]})
    finding = finding_of(look(pi4), "opencv")
    assert finding.status == "warning"
    assert finding.fix is not None
    assert "uninstall -y --break-system-packages opencv-python opencv-python-headless && " in finding.fix
    assert finding.fix.endswith("opencv-python-headless")


def test_the_wheel_that_wants_a_display(pi4: Pi) -> None:
    result = {"prefix": VENV, "base_prefix": "/usr", "picamera2": None, "opencv_wheels": ["opencv-python"]}
    pi4.software["python"] = step("python", result)
    pi4.software["cv2"] = step("cv2", error="ImportError: libGL.so.1: cannot open shared object file")
    assert finding_of(look(pi4), "opencv").fix == (
        f"{PYTHON} -m pip uninstall -y opencv-python && "
        f"{PYTHON} -m pip install --force-reinstall --no-deps opencv-python-headless"
    )


@pytest.mark.parametrize("last", ["numpy", "cv2", "runtime", "path", "golden"])
@pytest.mark.parametrize(("code", "says"), [(-4, "crashed with SIGILL"), (None, "no answer within 120 s")])
def test_a_crash_is_a_finding(pi4: Pi, last: str, code: int | None, says: str) -> None:
    names = list(pi4.software)
    pi4.software = {name: pi4.software[name] for name in names[: names.index(last) + 1]}
    pi4.software[last] = pi4.software[last][:1]  # begun, and nothing after it
    pi4.ends["probe_software"] = (code, "")
    examination = look(pi4)
    failures = [finding for finding in examination.checks if finding.status == "failure"]
    where = {"cv2": "opencv", "path": "runtime", "golden": "golden stop_sign"}.get(last, last)
    assert [finding.check for finding in failures] == [where]
    assert says in failures[0].finding
    assert failures[0].fix


def test_tflite_runtime_with_numpy_2(pi4: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.system.machine._runtime", lambda: "tflite-runtime 2.14.0")
    pi4.software["numpy"] = step("numpy", {"version": "2.2.6", "file": PIP_NUMPY})
    pi4.software["runtime"] = step("runtime")
    for name in ("models", "file", "path", "golden"):
        del pi4.software[name]
    pi4.ends["probe_software"] = (-11, "")
    finding = finding_of(look(pi4), "runtime")
    assert finding.finding == "tflite-runtime 2.14.0 does not load: it needs numpy below 2 (crashed with SIGSEGV)"
    assert finding.fix == f"{PYTHON} -m pip uninstall -y numpy"


def test_tflite_runtime_without_xnnpack_is_a_warning(pi4: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.system.machine._runtime", lambda: "tflite-runtime 2.14.0")
    pi4.software["path"] = step("path stop_sign", {"path": "builtin"})
    examination = look(pi4)
    assert finding_of(examination, "runtime").status == "warning"
    assert examination.ok

"""Checks of the software: numpy and OpenCV and who owns them, the runtime and its path, models and golden vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bittern.doctor.findings import Finding, failure, ok, skipped, warning
from bittern.doctor.hardware import NEW_CARD, is_pi
from bittern.doctor.steps import Step, probe
from bittern.system.commands import Runner
from bittern.system.machine import Machine

# Debian's OpenCV loads a hundred libraries: from the card of a Pi Zero 2 W that may take half a minute.
TIMEOUT_S = 120.0
_DEPLOY = "make deploy HOST=...   (in the checkout on the host: it copies the models again)"
_DEBIAN = "/usr/lib/python3/dist-packages"


class Installation:
    """Where Python's packages come from on this machine, and the commands that change that.

    Args:
        root: the folder that holds `usr`.
        runner: runs dpkg.
        python: the interpreter that was probed.
        steps: of the probe `probe_software`.
        found: the machine.
    """

    def __init__(self, root: Path, runner: Runner, python: str, steps: Mapping[str, Step], found: Machine) -> None:
        said = steps["python"].said if "python" in steps else None
        said = said or {}
        self._root, self._runner, self._found = root, runner, found
        self._prefix = str(said.get("prefix", ""))
        self._is_venv = said.get("prefix") != said.get("base_prefix")
        self._pip = f"{python} -m pip"
        self._force = "" if self._is_venv else " --break-system-packages"
        self.opencv_wheels: list[str] = said.get("opencv_wheels", [])
        self.has_debian_picamera2 = str(said.get("picamera2") or "").startswith(_DEBIAN)

    def owner(self, file: str) -> str:
        """Who put a module's file there, in words; "Debian" comes first if it is Debian's."""
        asked = self._runner(("dpkg", "-S", file))
        if asked.code == 0:
            return f"Debian's {asked.out.partition(':')[0]}"
        return "pip's, in this environment" if self._inside(file) else f"pip's, in {Path(file).parent.parent}"

    def remove(self, file: str | None, *distributions: str) -> str:
        """The command that takes pip's distributions away from where `file` is; None for this environment."""
        names = " ".join(distributions)
        if file is None or self._inside(file):
            return f"{self._pip} uninstall -y{self._force} {names}"
        sudo = "sudo " if file.startswith("/usr/") else ""
        return f"{sudo}python3 -m pip uninstall -y --break-system-packages {names}"

    def add(self, module: str, debian: str, distribution: str) -> str:
        """The command that makes a missing module importable."""
        if is_pi(self._found):
            if not any(self._root.glob(f"{_DEBIAN.lstrip('/')}/{module}*")):
                return f"sudo apt install -y --no-install-recommends {debian}"
            if self._is_venv:  # Debian's is there, but this environment does not look at it
                key = "include-system-site-packages"
                return f"sudo sed -i 's/^{key} = false/{key} = true/' {self._prefix}/pyvenv.cfg"
            return f"sudo apt install --reinstall -y {debian}"
        return f"{self._pip} install{self._force} {distribution}"

    def reinstall(self, *distributions: str) -> str:
        """The command that installs pip's distributions anew, and nothing that they depend on."""
        return f"{self._pip} install --force-reinstall --no-deps{self._force} {' '.join(distributions)}"

    def _inside(self, file: str) -> bool:
        return self._is_venv and file.startswith(self._prefix + "/")


def look(root: Path, runner: Runner, python: str, found: Machine) -> tuple[dict[str, Step], Installation]:
    """Probe in a child process: what became of its steps, and what they say about the installation."""
    steps = probe(runner, python, "bittern.doctor.probe_software", (), TIMEOUT_S)
    return steps, Installation(root, runner, python, steps, found)


def check(steps: Mapping[str, Step], there: Installation, found: Machine) -> list[Finding]:
    """What the steps of the probe mean."""
    if "start" in steps:
        error = steps["start"].error
        return [failure("software", f"Python does not start a second time: {error}", there.reinstall("bittern"))]
    return [_numpy(steps, there), _opencv(steps, there), _runtime(steps, there, found), *_models(steps, there)]


def _numpy(steps: Mapping[str, Step], there: Installation) -> Finding:
    step = steps.get("numpy")
    if step is None:
        return skipped("numpy", "not reached")
    if step.said is None:
        missing = "No module named 'numpy'" in (step.error or "")
        fix = there.add("numpy", "python3-numpy", "numpy") if missing else there.reinstall("numpy")
        return failure("numpy", f"does not load: {step.error}", fix)
    file = str(step.said["file"])
    owner = there.owner(file)
    said = f"{step.said['version']}, {owner} ({Path(file).parent})"
    is_debian = owner.startswith("Debian")
    canary = steps.get("simplejpeg")
    if canary is not None and canary.said is None:
        fix = "sudo apt install --reinstall -y python3-simplejpeg" if is_debian else there.remove(file, "numpy")
        return failure("numpy", f"{said}: simplejpeg, which picamera2 needs, does not load: {canary.error}", fix)
    if there.has_debian_picamera2 and not is_debian:
        # The interface for compiled modules changed between numpy 1 and 2.
        return warning("numpy", f"{said}: Debian's picamera2 is made for Debian's numpy", there.remove(file, "numpy"))
    return ok("numpy", said)


def _opencv(steps: Mapping[str, Step], there: Installation) -> Finding:
    numpy, step, wheels = steps.get("numpy"), steps.get("cv2"), there.opencv_wheels
    if step is None:
        return skipped("opencv", "not reached")
    headless = there.reinstall("opencv-python-headless")
    if step.said is None:
        error = step.error or ""
        if numpy is not None and numpy.said is None:
            return skipped("opencv", "numpy does not load")
        if "No module named 'cv2'" in error:
            return failure("opencv", "missing", there.add("cv2", "python3-opencv", "opencv-python-headless"))
        if "libGL" in error and wheels:
            # The wheels that are not headless need a display's libraries.
            return failure("opencv", f"does not load: {error}", f"{there.remove(None, *wheels)} && {headless}")
        return failure("opencv", f"does not load: {error}", _opencv_again(there))
    file = str(step.said["file"])
    owner = there.owner(file)
    said = f"{step.said['version']}, {owner} ({Path(file).parent})"
    if len(wheels) > 1:
        fix = f"{there.remove(file, *wheels)} && {headless}"
        return warning("opencv", f"{said}: {', '.join(wheels)} overwrite each other's files", fix)
    if there.has_debian_picamera2 and not owner.startswith("Debian"):
        fix = there.remove(file, *(wheels or ["opencv-python"]))
        return warning("opencv", f"{said}: it wants another numpy than Debian's picamera2", fix)
    return ok("opencv", said)


def _opencv_again(there: Installation) -> str:
    wheels = there.opencv_wheels
    return there.reinstall(*wheels) if wheels else "sudo apt install --reinstall -y python3-opencv"


def _runtime(steps: Mapping[str, Step], there: Installation, found: Machine) -> Finding:
    step, numpy = steps.get("runtime"), steps.get("numpy")
    if step is None:
        return skipped("runtime", "not reached")
    if numpy is None or numpy.said is None:
        return skipped("runtime", "numpy does not load")
    distribution = (found.runtime or "").partition(" ")[0]
    if step.said is None:
        if not distribution:
            name = "tflite-runtime" if found.userland_bits == 32 else "ai-edge-litert"
            return failure("runtime", "missing", there.reinstall(name))
        if distribution == "tflite-runtime" and not str(numpy.said["version"]).startswith("1."):
            on_debian = there.remove(str(numpy.said["file"]), "numpy")
            fix = on_debian if there.has_debian_picamera2 else there.reinstall("'numpy<2'")
            return failure("runtime", f"{found.runtime} does not load: it needs numpy below 2 ({step.error})", fix)
        return failure("runtime", f"{found.runtime} does not load: {step.error}", there.reinstall(distribution))
    said = f"{step.said['distribution']} {step.said['version']}"
    # A damaged file is a finding of its own, and says nothing about the runtime.
    models = [name.removeprefix("file ") for name in steps if name.startswith("file ")]
    paths = {n: steps[f"path {n}"] for n in models if f"path {n}" in steps and _whole(steps[f"file {n}"])}
    refused = [f"{name}: {s.error}" for name, s in paths.items() if s.said is None]
    if refused:
        return failure("runtime", f"{said} cannot open {', '.join(refused)}", there.reinstall(distribution))
    plain = ", ".join(name for name, s in paths.items() if s.said is not None and s.said["path"] != "xnnpack")
    if plain and distribution == "tflite-runtime":
        return warning("runtime", f"{said} does not run {plain} through XNNPACK: several times slower", NEW_CARD)
    if plain:
        fix = f"{there.reinstall(distribution)}; head -3 /proc/cpuinfo   (XNNPACK gives up where it may not read that)"
        return failure("runtime", f"{said}: XNNPACK did not take the graph of {plain}", fix)
    if not paths:
        whole = "undamaged model" if models else "model"
        return skipped("runtime", f"{said} loads, but there is no {whole} to try XNNPACK with")
    return ok("runtime", f"{said}; XNNPACK took the graph of {', '.join(paths)}")


def _whole(file: Step | None) -> bool:
    return file is not None and file.said is not None and file.said["sha256"] == file.said["expected"]


def _models(steps: Mapping[str, Step], there: Installation) -> list[Finding]:
    listed = steps.get("models")
    if listed is None:
        return [skipped("models", "not reached")]
    if listed.said is None:
        return [failure("models", f"cannot be listed: {listed.error}", there.reinstall("bittern"))]
    if not listed.said:
        return [failure("models", "there are none", _DEPLOY)]
    return [finding for name, folder in listed.said.items() for finding in _model(steps, there, name, Path(folder))]


def _model(steps: Mapping[str, Step], there: Installation, name: str, folder: Path) -> list[Finding]:
    """One finding about the file, one about the golden vectors."""
    model, golden = f"model {name}", f"golden {name}"
    file, replay = steps.get(f"file {name}"), steps.get(golden)
    again = _copy_again(folder)
    if file is None:
        return [skipped(model, "not reached"), skipped(golden, "not reached")]
    if file.said is None:
        fix = again if "no answer" not in (file.error or "") else "sudo dmesg | grep -iE 'mmc|I/O error'"
        return [failure(model, f"cannot be read: {file.error}", fix), skipped(golden, "the model cannot be read")]
    digest, expected = str(file.said["sha256"]), str(file.said["expected"])
    if not _whole(file):
        why = f"sha256 is {digest[:12]}, the manifest says {expected[:12]}: the file is damaged or another one"
        return [failure(model, why, again), skipped(golden, "not the file that the vectors were recorded with")]
    right = ok(model, f"version {file.said['version']}, sha256 {digest[:12]} as the manifest says")
    lacking = [name for name in ("numpy", "cv2", "runtime") if steps.get(name, Step(name)).said is None]
    if replay is None or lacking:
        return [right, skipped(golden, f"{', '.join(lacking)} does not load" if lacking else "not reached")]
    if replay.said is not None:
        return [right, ok(golden, f"replayed on {replay.said['path']}")]
    why = (replay.error or "").removeprefix("ModelRefused: ")
    if "output steps off" in why or "crashed" in why:
        fix = there.reinstall(*file.said["recorded_with"])
    elif "preprocessing differs" in why:
        fix = _opencv_again(there)
    else:
        fix = again
    return [right, failure(golden, why, fix)]


def _copy_again(folder: Path) -> str:
    """The command that brings a model's folder back."""
    whole = folder.absolute()
    if any((parent / ".git").exists() for parent in whole.parents):
        return f"git -C {whole} restore ."
    return _DEPLOY

"""Checks of the software: numpy and OpenCV and their origin, the runtime and its path, models and golden vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bittern.doctor.findings import Finding, failure, ok, skipped, warning
from bittern.doctor.hardware import NEW_CARD, is_pi
from bittern.doctor.steps import ProbeStep, probe
from bittern.system.commands import Runner
from bittern.system.machine import Machine

# Debian's OpenCV loads a hundred libraries, which may take half a minute from the card of a Pi Zero 2 W.
TIMEOUT_S = 120.0
_DEPLOY = "make deploy HOST=...   (in the checkout on the host: it copies the models again)"
_DEBIAN = "/usr/lib/python3/dist-packages"


class Installation:
    """Where Python's packages come from on this machine, and the commands to change that.

    Args:
        root: the folder that contains `usr`.
        runner: runs dpkg.
        python: the interpreter that was probed.
        steps: steps of the probe `probe_software`.
        signature: the machine.
    """

    def __init__(
        self, root: Path, runner: Runner, python: str, steps: Mapping[str, ProbeStep], signature: Machine
    ) -> None:
        probed = (steps["python"].result if "python" in steps else None) or {}
        self._root, self._runner, self._signature = root, runner, signature
        self._prefix = str(probed.get("prefix", ""))
        self._is_venv = probed.get("prefix") != probed.get("base_prefix")
        self._pip = f"{python} -m pip"
        self._force = "" if self._is_venv else " --break-system-packages"
        self.opencv_wheels: list[str] = probed.get("opencv_wheels", [])
        self.has_debian_picamera2 = str(probed.get("picamera2") or "").startswith(_DEBIAN)

    def owner(self, file: str) -> str:
        """Who installed a module's file, in words; begins with "Debian" for a Debian package."""
        result = self._runner(("dpkg", "-S", file))
        if result.code == 0:
            return f"Debian's {result.out.partition(':')[0]}"
        return "pip's, in this environment" if self._inside(file) else f"pip's, in {Path(file).parent.parent}"

    def remove(self, file: str | None, *distributions: str) -> str:
        """The command that uninstalls pip's distributions from where `file` is; None for this environment."""
        names = " ".join(distributions)
        if file is None or self._inside(file):
            return f"{self._pip} uninstall -y{self._force} {names}"
        sudo = "sudo " if file.startswith("/usr/") else ""
        return f"{sudo}python3 -m pip uninstall -y --break-system-packages {names}"

    def add(self, module: str, debian: str, distribution: str) -> str:
        """The command that makes a missing module importable."""
        if is_pi(self._signature):
            if not any(self._root.glob(f"{_DEBIAN.lstrip('/')}/{module}*")):
                return f"sudo apt install -y --no-install-recommends {debian}"
            if self._is_venv:  # Debian's is installed, but this environment does not see it
                key = "include-system-site-packages"
                return f"sudo sed -i 's/^{key} = false/{key} = true/' {self._prefix}/pyvenv.cfg"
            return f"sudo apt install --reinstall -y {debian}"
        return f"{self._pip} install{self._force} {distribution}"

    def reinstall(self, *distributions: str) -> str:
        """The command that reinstalls pip's distributions without their dependencies."""
        return f"{self._pip} install --force-reinstall --no-deps{self._force} {' '.join(distributions)}"

    def _inside(self, file: str) -> bool:
        return self._is_venv and file.startswith(self._prefix + "/")


def run_probe(root: Path, runner: Runner, python: str, signature: Machine) -> tuple[dict[str, ProbeStep], Installation]:
    """Probe the software in a child process. Returns its steps, and the installation that they describe."""
    steps = probe(runner, python, "bittern.doctor.probe_software", (), TIMEOUT_S)
    return steps, Installation(root, runner, python, steps, signature)


def check(steps: Mapping[str, ProbeStep], installation: Installation, signature: Machine) -> list[Finding]:
    """Turn the steps of the probe into findings."""
    if "start" in steps:
        error = steps["start"].error
        return [failure("software", f"Python does not start the probe: {error}", installation.reinstall("bittern"))]
    return [
        _numpy(steps, installation),
        _opencv(steps, installation),
        _runtime(steps, installation, signature),
        *_models(steps, installation),
    ]


def _numpy(steps: Mapping[str, ProbeStep], installation: Installation) -> Finding:
    step = steps.get("numpy")
    if step is None:
        return skipped("numpy", "not reached")
    if step.result is None:
        missing = "No module named 'numpy'" in (step.error or "")
        fix = installation.add("numpy", "python3-numpy", "numpy") if missing else installation.reinstall("numpy")
        return failure("numpy", f"does not load: {step.error}", fix)
    file = str(step.result["file"])
    owner = installation.owner(file)
    summary = f"{step.result['version']}, {owner} ({Path(file).parent})"
    is_debian = owner.startswith("Debian")
    simplejpeg = steps.get("simplejpeg")
    if simplejpeg is not None and simplejpeg.result is None:
        fix = "sudo apt install --reinstall -y python3-simplejpeg" if is_debian else installation.remove(file, "numpy")
        return failure("numpy", f"{summary}: simplejpeg, which picamera2 needs, does not load: {simplejpeg.error}", fix)
    if installation.has_debian_picamera2 and not is_debian:
        # The binary interface changed between numpy 1 and 2.
        fix = installation.remove(file, "numpy")
        return warning("numpy", f"{summary}: Debian's picamera2 is built for Debian's numpy", fix)
    return ok("numpy", summary)


def _opencv(steps: Mapping[str, ProbeStep], installation: Installation) -> Finding:
    numpy, step, wheels = steps.get("numpy"), steps.get("cv2"), installation.opencv_wheels
    if step is None:
        return skipped("opencv", "not reached")
    headless = installation.reinstall("opencv-python-headless")
    if step.result is None:
        error = step.error or ""
        if numpy is not None and numpy.result is None:
            return skipped("opencv", "numpy does not load")
        if "No module named 'cv2'" in error:
            return failure("opencv", "missing", installation.add("cv2", "python3-opencv", "opencv-python-headless"))
        if "libGL" in error and wheels:
            # Wheels that are not headless need libraries of a desktop.
            return failure("opencv", f"does not load: {error}", f"{installation.remove(None, *wheels)} && {headless}")
        return failure("opencv", f"does not load: {error}", _reinstall_opencv(installation))
    file = str(step.result["file"])
    owner = installation.owner(file)
    summary = f"{step.result['version']}, {owner} ({Path(file).parent})"
    if len(wheels) > 1:
        fix = f"{installation.remove(file, *wheels)} && {headless}"
        return warning("opencv", f"{summary}: {', '.join(wheels)} overwrite each other's files", fix)
    if installation.has_debian_picamera2 and not owner.startswith("Debian"):
        fix = installation.remove(file, *(wheels or ["opencv-python"]))
        return warning("opencv", f"{summary}: it needs another numpy than Debian's picamera2", fix)
    return ok("opencv", summary)


def _reinstall_opencv(installation: Installation) -> str:
    wheels = installation.opencv_wheels
    return installation.reinstall(*wheels) if wheels else "sudo apt install --reinstall -y python3-opencv"


def _runtime(steps: Mapping[str, ProbeStep], installation: Installation, signature: Machine) -> Finding:
    step, numpy = steps.get("runtime"), steps.get("numpy")
    if step is None:
        return skipped("runtime", "not reached")
    if numpy is None or numpy.result is None:
        return skipped("runtime", "numpy does not load")
    distribution = (signature.runtime or "").partition(" ")[0]
    if step.result is None:
        if not distribution:
            name = "tflite-runtime" if signature.userland_bits == 32 else "ai-edge-litert"
            return failure("runtime", "missing", installation.reinstall(name))
        if distribution == "tflite-runtime" and not str(numpy.result["version"]).startswith("1."):
            use_debian = installation.remove(str(numpy.result["file"]), "numpy")
            fix = use_debian if installation.has_debian_picamera2 else installation.reinstall("'numpy<2'")
            return failure("runtime", f"{signature.runtime} does not load: it needs numpy below 2 ({step.error})", fix)
        return failure(
            "runtime", f"{signature.runtime} does not load: {step.error}", installation.reinstall(distribution)
        )
    summary = f"{step.result['distribution']} {step.result['version']}"
    # A damaged file has a finding of its own and says nothing about the runtime.
    models = [name.removeprefix("file ") for name in steps if name.startswith("file ")]
    paths = {n: steps[f"path {n}"] for n in models if f"path {n}" in steps and _intact(steps[f"file {n}"])}
    refused = [f"{name}: {s.error}" for name, s in paths.items() if s.result is None]
    if refused:
        return failure("runtime", f"{summary} cannot open {', '.join(refused)}", installation.reinstall(distribution))
    slow = ", ".join(name for name, s in paths.items() if s.result is not None and s.result["path"] != "xnnpack")
    if slow and distribution == "tflite-runtime":
        return warning("runtime", f"{summary} does not run {slow} with XNNPACK: several times slower", NEW_CARD)
    if slow:
        fix = f"{installation.reinstall(distribution)}; head -3 /proc/cpuinfo   (XNNPACK must be able to read that)"
        return failure("runtime", f"{summary}: XNNPACK does not run the graph of {slow}", fix)
    if not paths:
        model = "intact model" if models else "model"
        return skipped("runtime", f"{summary} loads, but there is no {model} to try XNNPACK with")
    return ok("runtime", f"{summary}; XNNPACK runs the graph of {', '.join(paths)}")


def _intact(file: ProbeStep | None) -> bool:
    return file is not None and file.result is not None and file.result["sha256"] == file.result["expected"]


def _models(steps: Mapping[str, ProbeStep], installation: Installation) -> list[Finding]:
    models = steps.get("models")
    if models is None:
        return [skipped("models", "not reached")]
    if models.result is None:
        return [failure("models", f"cannot be listed: {models.error}", installation.reinstall("bittern"))]
    if not models.result:
        return [failure("models", "there are none", _DEPLOY)]
    findings = []
    for name, folder in models.result.items():
        findings += _model(steps, installation, name, Path(folder))
    return findings


def _model(steps: Mapping[str, ProbeStep], installation: Installation, name: str, folder: Path) -> list[Finding]:
    """One finding about the file, one about the golden vectors."""
    model, golden = f"model {name}", f"golden {name}"
    file, replay = steps.get(f"file {name}"), steps.get(golden)
    restore = _restore(folder)
    if file is None:
        return [skipped(model, "not reached"), skipped(golden, "not reached")]
    if file.result is None:
        fix = restore if "no answer" not in (file.error or "") else "sudo dmesg | grep -iE 'mmc|I/O error'"
        return [failure(model, f"cannot be read: {file.error}", fix), skipped(golden, "the model cannot be read")]
    digest, expected = str(file.result["sha256"]), str(file.result["expected"])
    if not _intact(file):
        reason = f"sha256 is {digest[:12]}, the manifest says {expected[:12]}: the file is damaged or another one"
        return [failure(model, reason, restore), skipped(golden, "not the file that the vectors were recorded with")]
    intact = ok(model, f"version {file.result['version']}, sha256 {digest[:12]} as in the manifest")
    missing = [name for name in ("numpy", "cv2", "runtime") if steps.get(name, ProbeStep(name)).result is None]
    if replay is None or missing:
        return [intact, skipped(golden, f"{', '.join(missing)} does not load" if missing else "not reached")]
    if replay.result is not None:
        return [intact, ok(golden, f"replayed on {replay.result['path']}")]
    error = (replay.error or "").removeprefix("ModelRefused: ")
    if "output steps off" in error or "crashed" in error:
        fix = installation.reinstall(*file.result["recorded_with"])
    elif "preprocessing differs" in error:
        fix = _reinstall_opencv(installation)
    else:
        fix = restore
    return [intact, failure(golden, error, fix)]


def _restore(folder: Path) -> str:
    """The command that restores a model's folder."""
    path = folder.absolute()
    if any((parent / ".git").exists() for parent in path.parents):
        return f"git -C {path} restore ."
    return _DEPLOY

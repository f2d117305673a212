"""The device side on aarch64 under qemu against this machine: one line a check, non-zero on failure.

    python tests/arm64/check_arm64.py CACHE [MODEL_FOLDER...]

Tensors must be equal to the byte with every OpenCV; scores within the steps that the manifest states for another
machine. Without MODEL_FOLDER every folder in models/ is looked at. root.sh must have made CACHE/arm64-SUITE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import cv2
import msgspec
import numpy as np
from tests.arm64.measure import Machine, OnPath, Outputs

from bittern.frames import Pixels
from bittern.model import golden, manifest
from bittern.model.runtime import ExecutionPath
from bittern.scene import street

PROJECT = Path(__file__).parents[2]
ROOT_SH = Path(__file__).with_name("root.sh")
OLD_OPENCV = "4.10.0.84"  # Debian trixie's, by its wheel
PICTURES = 20
SECONDS = 900  # for one measurement under qemu, which takes about one minute
BITTERN = ("-c", "from bittern.cli.main import main; main()")


class Checks:
    """Counts, and prints a line for each."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def __call__(self, good: bool, what: str, otherwise: str = "") -> None:
        """One check: `what` should hold; `otherwise` is printed if it does not."""
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        print(
            f"{'ok    ' if good else 'FAILED'} {what}" + (f": {otherwise}" if otherwise and not good else ""),
            flush=True,
        )


class Inside:
    """A folder inside the root file system, with the package, these scripts and the models."""

    def __init__(self, cache: str, models: list[Path]) -> None:
        self.cache = cache
        self.root = Path(self._root_sh("there").strip())
        self._folder = tempfile.TemporaryDirectory(dir=self.root / "tmp", prefix="bittern-")
        self.folder = Path(self._folder.name)
        shutil.copytree(
            PROJECT / "edge/bittern", self.folder / "edge/bittern", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("doubles/preprocess_vectors.py", "bittern/model/preprocess_vectors.json", "arm64/measure.py"):
            (self.folder / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / "tests" / name, self.folder / "tests" / name)
        for model in models:
            shutil.copytree(model, self.folder / "models" / model.name)

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def install(self, opencv: str) -> None:
        """Wheels for aarch64. The runtime's version is this machine's, so that only the machine differs."""
        litert = f"ai-edge-litert=={metadata.version('ai-edge-litert')}"
        self._root_sh("wheels", "bittern-runtime", litert, "numpy", "click", "msgspec")
        self._root_sh("wheels", f"opencv-{opencv}", "--no-deps", f"opencv-python-headless=={opencv}")

    def python(self, opencv: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run python3 inside, in the folder, with that OpenCV."""
        here = f"/{self.folder.relative_to(self.root)}"
        path = f"{here}/edge:{here}:/opt/opencv-{opencv}:/opt/bittern-runtime"
        enter = [str(ROOT_SH), self.cache, "run", "env", "-C", here, f"PYTHONPATH={path}", "LC_ALL=C.UTF-8", "python3"]
        return subprocess.run([*enter, *arguments], capture_output=True, text=True, timeout=SECONDS)

    def _root_sh(self, *arguments: str) -> str:
        done = subprocess.run(
            [ROOT_SH, self.cache, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHON": sys.executable},
        )
        if done.returncode:
            sys.exit(f"root.sh {arguments[0]} failed; the root file system is made by: root.sh CACHE build")
        return done.stdout


def outside(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on this machine, as `Inside.python` does inside."""
    env = {**os.environ, "PYTHONPATH": f"{PROJECT / 'edge'}:{PROJECT}"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=PROJECT, env=env)


def machine(done: subprocess.CompletedProcess[str]) -> Machine:
    """What measure.py printed."""
    if done.returncode:
        sys.exit(f"measure.py failed with {done.returncode}:\n{done.stderr}")
    return msgspec.json.decode(done.stdout, type=Machine)


def streets() -> list[Pixels]:
    """Drawn streets, (H, W, 3) uint8 RGB, every other one with a stop sign."""
    rng = np.random.default_rng(20)
    return [street.random_picture(rng, stop=i % 2 == 0, size=(480, 360)) for i in range(PICTURES)]


def steps(a: Outputs, b: Outputs) -> list[int]:
    """The largest difference of any output value, for every picture."""
    return [
        max(abs(x - y) for u, v in zip(p, q, strict=True) for x, y in zip(u, v, strict=True))
        for p, q in zip(a, b, strict=True)
    ]


def labels(outputs: Outputs) -> list[list[int]]:
    """Which label has the highest score, by picture and head; the first of equals, as the classifier has it."""
    return [[values.index(max(values)) for values in heads] for heads in outputs]


def spread(off: list[int]) -> str:
    """What a column of the table says."""
    return f"at most {max(off)}, off in {sum(n > 0 for n in off)} of {len(off)}"


def check_model(
    check: Checks, expected: manifest.Manifest, folder: Path, path: ExecutionPath, host: OnPath, arm: OnPath
) -> str:
    """The checks of one model on one path; returns a line of the table."""
    allowed = expected.golden[path].other_machine_steps
    what = f"{folder.name}, {path}"
    check(host.refused is None, f"{what}: golden vectors replay here", host.refused or "")
    check(arm.refused is None, f"{what}: golden vectors replay there", arm.refused or "")
    if not (host.pictures and arm.pictures):
        return f"{what:<24} not run"
    stored = [[raw.tolist() for raw in vector.outputs] for vector in golden.load(folder / golden.FILE, path)]
    off_golden, off_pictures = steps(stored, arm.golden), steps(host.pictures, arm.pictures)
    pairs = zip(labels(host.pictures), labels(arm.pictures), strict=True)
    same = sum(a == b for a, b in pairs)
    check(
        max(off_pictures) <= allowed, f"{what}: {PICTURES} drawn pictures within {allowed} steps", spread(off_pictures)
    )
    if path == "xnnpack":  # what a device runs on
        check(same == PICTURES, f"{what}: the same label on {PICTURES} drawn pictures", f"only on {same}")
    return f"{what:<24} {spread(off_golden):<30} {spread(off_pictures):<30} {same:>3} of {PICTURES}"


def check_commands(check: Checks, inside: Inside, opencv: str, folder: Path, picture: Pixels) -> None:
    """`bittern classify` and `bittern models`, as a user runs them."""
    cv2.imwrite(str(inside.folder / "street.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    arm = inside.python(opencv, *BITTERN, "classify", "street.png", "--model", f"models/{folder.name}", "--json")
    host = outside(*BITTERN, "classify", str(inside.folder / "street.png"), "--model", str(folder), "--json")
    good = arm.returncode == host.returncode == 0
    check(good, f"{folder.name}: bittern classify exits 0", f"{arm.returncode}: {arm.stderr}{host.stderr}")
    if good:
        a, b = ([json.loads(line)["label"] for line in done.stdout.splitlines()] for done in (host, arm))
        check(a == b, f"{folder.name}: bittern classify says {', '.join(a)}", f"there {', '.join(b)}")


def main() -> int:
    """Run everything."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cache = sys.argv[1]
    folders = [Path(a).resolve() for a in sys.argv[2:]] or [
        m.parent for m in sorted(PROJECT.glob("models/*/manifest.json"))
    ]
    if not folders:
        sys.exit("no models: expected folders in models/, or their names on the command line")
    check, table = Checks(), []
    pictures = streets()
    with Inside(cache, folders) as inside:
        np.savez(inside.folder / "pictures.npz", *pictures)
        measure = Path(__file__).with_name("measure.py")
        host = machine(outside(str(measure), str(inside.folder / "pictures.npz"), *map(str, folders)))
        print(f"here: {host.machine}, OpenCV {host.opencv}, {host.runtime}")
        check(host.opencv.startswith("5."), "it is OpenCV 5", host.opencv)
        check(not host.differ, f"{host.vectors} preprocessing vectors equal to the byte", ", ".join(host.differ))
        for opencv in (metadata.version("opencv-python-headless"), OLD_OPENCV):
            inside.install(opencv)
            models = [f"models/{folder.name}" for folder in folders]
            arm = machine(inside.python(opencv, "tests/arm64/measure.py", "pictures.npz", *models))
            print(f"there: {arm.machine}, OpenCV {arm.opencv}, {arm.runtime}")
            check(arm.machine == "aarch64", "it is aarch64", arm.machine)
            check(opencv.startswith(arm.opencv), f"it is OpenCV {opencv}", arm.opencv)
            check(arm.runtime == host.runtime, f"it is {host.runtime}", arm.runtime)
            check(not arm.differ, f"{arm.vectors} preprocessing vectors equal to the byte", ", ".join(arm.differ))
            check(arm.tensors == host.tensors, f"tensors of {PICTURES} drawn pictures equal to the byte")
            for folder in folders:
                shipped = manifest.load((folder / "manifest.json").read_bytes())
                for path in shipped.golden:
                    measured = host.models[folder.name][path], arm.models[folder.name][path]
                    table.append(f"{arm.opencv:<8} {check_model(check, shipped, folder, path, *measured)}")
                check_commands(check, inside, opencv, folder, pictures[0])
            listed = inside.python(opencv, *BITTERN, "models")
            check(listed.returncode == 0, "bittern models exits 0", f"{listed.stdout}{listed.stderr}")
    print(f"\noutput steps (1/256 of a score), aarch64 under qemu against {host.machine}, {host.runtime}")
    print(f"{'OpenCV':<8} {'model, path':<24} {'golden vectors':<30} {'drawn pictures':<30} same label")
    print("\n".join(table))
    print(f"\n{check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Who vouches for a model folder: Bittern, the owner's signature, or nobody."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bittern.model import origin


@pytest.fixture
def release(model_folder: Path, tmp_path: Path) -> Path:
    """A release as deploy/install.sh leaves it, with one model that is not a shipped one, and its list signed."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen (openssh-client)")
    release = tmp_path / "release"
    folder = Path(shutil.copytree(model_folder, release / "models/gate"))
    (folder / "MODEL_CARD.md").write_text("another card")
    key(tmp_path / "key")
    sign(release, tmp_path / "key")
    return release


def key(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    kind, public = file.with_suffix(".pub").read_text().split()[:2]
    (file.parent / "allowed_signers").write_text(f'bittern namespaces="bittern" {kind} {public}\n')


def sign(release: Path, file: Path) -> None:
    files = sorted(path for path in release.rglob("*") if path.is_file() and path.parent != release)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(release)}\n" for path in files]
    (release / "SHA256SUMS").write_text("".join(lines))
    (release / "SHA256SUMS.sig").unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "bittern", "-f", str(file), str(release / "SHA256SUMS")]
    subprocess.run(command, check=True, capture_output=True)


def of(release: Path) -> str:
    return origin.of_folder(release / "models/gate", release.parent / "allowed_signers")


def test_a_shipped_model_and_a_copy_of_it(model_folder: Path, tmp_path: Path) -> None:
    assert origin.of_folder(model_folder) == "shipped"
    copy = Path(shutil.copytree(model_folder, tmp_path / model_folder.name))
    assert origin.of_folder(copy) == "shipped"
    with (copy / "MODEL_CARD.md").open("a") as card:
        card.write("x")
    assert origin.of_folder(copy) == "unsigned"
    renamed = Path(shutil.copytree(model_folder, tmp_path / "another_name"))
    assert origin.of_folder(renamed) == "unsigned"


def test_a_signed_release(release: Path) -> None:
    assert of(release) == "signed"
    current = release.parent / "current"
    current.symlink_to(release)
    assert origin.of_folder(current / "models/gate", release.parent / "allowed_signers") == "signed"
    assert origin.of_folder(release / "models/gate") == "unsigned", "this machine trusts nobody"


@pytest.mark.parametrize("name", ["model.tflite", "manifest.json", "golden.npz", "labels.txt", "MODEL_CARD.md"])
def test_a_file_that_changed_since(release: Path, name: str) -> None:
    with (release / "models/gate" / name).open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    assert of(release) == "unsigned"


def test_a_list_that_does_not_fit_the_folder(release: Path) -> None:
    folder = release / "models/gate"
    (folder / "more").write_text("x")
    assert of(release) == "unsigned"
    (folder / "more").unlink()
    (folder / "labels.txt").rename(release / "labels.txt")
    assert of(release) == "unsigned"
    (folder / "labels.txt").symlink_to(release / "labels.txt")
    assert of(release) == "unsigned"


def test_another_key_and_a_list_that_was_changed(release: Path) -> None:
    listed = (release / "SHA256SUMS").read_text()
    (release / "SHA256SUMS").write_text(listed + f"{'0' * 64}  ./models/x\n")
    assert of(release) == "unsigned"
    (release / "SHA256SUMS").write_text(listed)
    assert of(release) == "signed"
    (release / "SHA256SUMS.sig").unlink()
    assert of(release) == "unsigned"
    other = release.parent / "elsewhere"
    other.mkdir()
    key(other / "key")
    sign(release, other / "key")
    assert of(release) == "unsigned"
    assert json.loads((release / "models/gate/manifest.json").read_bytes()), "and it is whole"

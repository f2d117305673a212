"""Where a model folder comes from: shipped with Bittern, signed by the owner, or neither."""

from __future__ import annotations

import filecmp
import hashlib
from pathlib import Path
from typing import Literal

from bittern.model import catalog
from bittern.system import fileio
from bittern.system.commands import run

# Written by deploy/install.sh: the keys that may sign, and in every release the list of its files with its signature.
SIGNERS = Path("/etc/bittern/allowed_signers")
_LIST, _SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
_MAX_LIST_BYTES, _MAX_FILE_BYTES = 2**20, 64 * 2**20

Origin = Literal["shipped", "signed", "unsigned"]


def of_folder(folder: Path, signers: Path = SIGNERS) -> Origin:
    """Who vouches for a model folder, whose own hashes only say that it is whole.

    Args:
        folder: the model folder.
        signers: the file with the keys that may sign, in the format of ssh-keygen(1), "ALLOWED SIGNERS".

    Returns:
        "shipped": it is one of those inside this installation of Bittern, or has the same bytes. "signed": it belongs
        to a release of `make deploy` whose list of files one of the signers has signed, and every file is as listed.
    """
    folder = folder.resolve()
    files = _files(folder)
    if files is None:
        return "unsigned"
    ours = (catalog.shipped() / folder.name).resolve()
    if folder == ours or (_files(ours) == files and all(_same(folder / name, ours / name) for name in files)):
        return "shipped"
    return "signed" if _signed(folder, files, signers) else "unsigned"


def _files(folder: Path) -> set[str] | None:
    """The names of the files of a folder; None if it has anything but files."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return None
    return {path.name for path in paths} if all(path.is_file() and not path.is_symlink() for path in paths) else None


def _same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def _signed(folder: Path, files: set[str], signers: Path) -> bool:
    release = folder.parent.parent
    try:
        listed = fileio.read_regular(release / _LIST, _MAX_LIST_BYTES).decode()
        with fileio.open_regular(release / _SIGNATURE, _MAX_LIST_BYTES), fileio.open_regular(signers, _MAX_LIST_BYTES):
            pass  # ssh-keygen would wait for a pipe
        options = ("-f", str(signers), "-I", "bittern", "-n", "bittern", "-s", str(release / _SIGNATURE))
        if run(("ssh-keygen", "-Y", "verify", *options), stdin=listed).code != 0:
            return False
        # A line is the hash, two blanks, and the path.
        hashes = {line[66:]: line[:64] for line in listed.splitlines()}
        prefix = f"./models/{folder.name}/"
        return {name.removeprefix(prefix) for name in hashes if name.startswith(prefix)} == files and all(
            hashlib.sha256(fileio.read_regular(folder / name, _MAX_FILE_BYTES)).hexdigest() == hashes[prefix + name]
            for name in files
        )
    except (OSError, UnicodeDecodeError):
        return False

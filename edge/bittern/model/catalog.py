"""Finds model folders by name: in $BITTERN_MODELS, among those that ship with Bittern, then in ./models."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bittern.errors import ConfigurationError, did_you_mean, redacted
from bittern.system import fileio

_HERE = Path("models")
_MAX_MANIFEST_BYTES = 4 * 2**20


def search_path() -> list[Path]:
    """The folders that hold model folders; the first match wins."""
    return [*_configured(), shipped(), _HERE]


def _configured() -> list[Path]:
    return [Path(p) for p in os.environ.get("BITTERN_MODELS", "").split(os.pathsep) if p]


def shipped() -> Path:
    """The folder with the model folders that ship with Bittern."""
    package = Path(__file__).parents[1]
    models = package / "shipped" / "models"
    return models if models.is_dir() else package.parents[1] / "models"  # an editable install: the checkout itself


def is_shipped(sha256: str) -> bool:
    """Whether the .tflite file with this sha256 (hex) ships with Bittern."""
    for file in shipped().glob("[!.]*/manifest.json"):
        try:
            if msgspec.json.decode(file.read_bytes(), type=_Sha256).sha256 == sha256:
                return True
        except (
            OSError,
            msgspec.MsgspecError,
            RecursionError,
        ):  # `available` lists it, and opening it says what is wrong
            continue
    return False


def available() -> dict[str, Path]:
    """Every model that can be called by its name, with its folder."""
    folders: dict[str, Path] = {}
    for root in search_path():
        for manifest in sorted(root.glob("[!.]*/manifest.json")):
            folders.setdefault(manifest.parent.name, manifest.parent)
    return folders


def find(model: str | os.PathLike[str]) -> Path:
    """The folder (or bare .tflite file) that a name or path refers to.

    Raises:
        ConfigurationError: there is no such model, and the message lists the known names; or there are two.
    """
    text = os.fspath(model)
    path = Path(text)
    known = available()
    # A model's name wins over a folder that happens to have the same name, such as one with pictures of stop signs.
    if text in known:
        if (other := rival(text, known[text])) is not None:
            raise ConfigurationError(
                f"{other} is another model than {text!r} in {known[text].parent}: write the path of the one you mean"
            )
        return known[text]
    # Of a file with another suffix, such as .h5, opening it says what it is.
    named = path.suffix.lower() in (".tflite", ".lite") or os.path.isfile(text)  # noqa: PTH113 - Path's raise
    if named or os.path.isdir(text) or os.sep in text:  # noqa: PTH112
        if os.path.exists(text):  # noqa: PTH110
            return path
        raise ConfigurationError(f"no model at {redacted(text)}: expected a model folder or a .tflite file")
    raise ConfigurationError(
        f"unknown model {redacted(text)!r}: expected {', '.join(known) or 'a path'}{did_you_mean(text, known)}"
    )


def rival(name: str, folder: Path) -> str | None:
    """Another model of the same name in ./models or in the current folder, which neither wins nor loses silently.

    Args:
        name: of a model that is `available`.
        folder: its folder.

    Returns:
        Its path; None if there is none. One in ./models is no matter if `folder` is in a folder of $BITTERN_MODELS.
    """
    others = [f"{os.curdir}/{name}"] if folder.parent in _configured() else [f"{os.curdir}/{name}", str(_HERE / name)]
    return next((other for other in others if _manifest(Path(other)) not in (None, _manifest(folder))), None)


def _manifest(folder: Path) -> bytes | None:
    try:
        return fileio.read_regular(folder / "manifest.json", _MAX_MANIFEST_BYTES)
    except OSError:
        return None


class _Sha256(msgspec.Struct):
    sha256: str

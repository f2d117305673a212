"""Finds model folders by name: in $BITTERN_MODELS, ./models, then among those that ship with Bittern."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bittern.errors import ConfigurationError, did_you_mean, redacted


def search_path() -> list[Path]:
    """The folders that hold model folders; the first match wins."""
    configured = [Path(p) for p in os.environ.get("BITTERN_MODELS", "").split(os.pathsep) if p]
    return [*configured, Path("models"), shipped()]


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
        ConfigurationError: there is no such model; the message lists the known names.
    """
    text = os.fspath(model)
    path = Path(text)
    known = available()
    # A model's name wins over a folder that happens to have the same name, such as one with pictures of stop signs.
    if text in known and not (path / "manifest.json").is_file():
        return known[text]
    if path.suffix == ".tflite" or os.path.isdir(text) or os.sep in text:  # noqa: PTH112 - Path.is_dir raises
        if os.path.exists(text):  # noqa: PTH110
            return path
        raise ConfigurationError(f"no model at {redacted(text)}: expected a model folder or a .tflite file")
    raise ConfigurationError(
        f"unknown model {redacted(text)!r}: expected {', '.join(known) or 'a path'}{did_you_mean(text, known)}"
    )


class _Sha256(msgspec.Struct):
    sha256: str

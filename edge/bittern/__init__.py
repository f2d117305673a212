"""Bittern: an int8 picture classifier and a camera daemon for the Raspberry Pi.

from bittern import Classifier
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bittern.version import __version__

if TYPE_CHECKING:
    from bittern.errors import BitternError, ConfigurationError, ModelRefused, PictureError, SourceError
    from bittern.model.classifier import Classifier, Result

__all__ = [
    "BitternError",
    "Classifier",
    "ConfigurationError",
    "ModelRefused",
    "PictureError",
    "Result",
    "SourceError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `bittern --help` does not load numpy.
    if name in ("Classifier", "Result"):
        return getattr(import_module("bittern.model.classifier"), name)
    if name in __all__:
        return getattr(import_module("bittern.errors"), name)
    raise AttributeError(f"module 'bittern' has no attribute {name!r}")

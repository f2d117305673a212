"""Bittern: an int8 picture classifier and a camera daemon for the Raspberry Pi.

from bittern import Classifier
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bittern.classifier import Classifier, Result
    from bittern.errors import BitternError, ConfigurationError, ModelRefused, PictureError, SourceError

__version__ = "0.1.0"
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
        return getattr(import_module("bittern.classifier"), name)
    if name in __all__:
        return getattr(import_module("bittern.errors"), name)
    raise AttributeError(f"module 'bittern' has no attribute {name!r}")

"""Opening the source `picamera` by its URI, and being refused."""

from __future__ import annotations

import pytest

from bittern.errors import BitternError
from bittern.sources.picamera import PicameraSource
from bittern.sources.registry import open_source


def open_picamera(uri: str = "picamera:", timeout_s: float = 5.0) -> PicameraSource:
    source = open_source(uri)
    assert isinstance(source, PicameraSource)
    source.timeout_s = timeout_s
    return source


def refuse(uri: str, kind: type[BitternError]) -> str:
    with pytest.raises(kind) as caught:
        open_source(uri)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)

"""What an owner states about a network: one set of names for options, keys and tables."""

from __future__ import annotations

import pytest

from bittern.model.input_maker import SCALINGS
from bittern.stated import PIXELS, read_size


def test_every_name_has_its_scaling() -> None:
    assert tuple(SCALINGS) == PIXELS


def test_a_size_is_a_side_or_width_by_height() -> None:
    assert read_size("224") == (224, 224)
    assert read_size("320x240") == (240, 320)


@pytest.mark.parametrize("wrong", ["", "x", "224x", "-1", "224x224x3", "1e3", "123456", "٢٢٤"])
def test_what_is_no_size(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected a side such as 224, or WIDTHxHEIGHT"):
        read_size(wrong)

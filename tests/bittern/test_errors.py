"""Texts that come out as one line, whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ümlaut and 猫", "plain, with ümlaut and 猫"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x07\x9b", r"\x1b[31m\x07\x9b"),
        ("\u202e\u2028", r"\u202e\u2028"),
        ("\udcff\ud800", r"\xff\ud800"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("1\u00a0km", "1\u00a0km"),
    ],
)
def test_what_is_no_text_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_always_one_line_that_can_be_written(text: str) -> None:
    line = printable(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    line.encode()

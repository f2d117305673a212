"""The tables of inputs in docs/models.md: what the commands make of each is what the page says."""

from __future__ import annotations

import cv2
import pytest
from tests.doubles import cases_table, foreign_table


@pytest.mark.skipif(
    not (cv2.haveImageWriter(".avif") and cv2.haveImageWriter(".gif")), reason="this OpenCV has no AVIF or no GIF"
)
def test_the_tables_of_cases_are_current() -> None:
    assert foreign_table.PAGE.read_text(encoding="utf-8") == cases_table.page()

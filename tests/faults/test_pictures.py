"""Fault 32: pictures whose header lies or whose decoding explodes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from tests.conftest import REPO
from tests.doubles.hostile_pictures import hostile
from tests.doubles.repetitions import FULL

Record = Callable[..., None]


# Those that are made and refused in less than a second.
QUICK = (
    *("TIFF, LONG8 sizes", "TIFF, width twice", "TIFF, signed sizes", "BigTIFF", "TIFF, huge strips"),
    *(
        "PNG, compressed texts",
        "PNG, a million chunks",
        "PPM, digits",
        "JPEG, 3000 scans",
        "JPEG, all fill bytes",
        "JPEG, empty segments",
    ),
)


def test_32_hostile_pictures(record: Record) -> None:
    names = list(hostile() if FULL else QUICK)
    command = [sys.executable, "-m", "tests.faults.hostile_pictures", *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert row["processor_s"] < 5, row
        assert row["seconds"] < 5 or not FULL, row
        assert row["grown_mb"] < row["own_mb"] + 500, row
        assert row["decoder_mb"] < 500 + 200, f"beside the largest picture of them: {row}"
        assert "\n" not in row["outcome"], row
        if "sizes" in row["name"] or "twice" in row["name"] or row["name"].endswith("huge"):
            assert "more than the limit of 50 megapixels" in row["outcome"] or "can be read" in row["outcome"], row
        if row["name"] == "JPEG, 3000 scans":
            assert "it has 3001 scans" in row["outcome"]
        if row["name"] == "JPEG, 150 scans":
            assert "takes longer than 3 s" in row["outcome"] or "decoded" in row["outcome"]
    refused = sum("decoded" not in row["outcome"] for row in rows)
    slowest, largest = max(row["seconds"] for row in rows), max(row["decoder_mb"] for row in rows)
    figure = (
        f"{refused} refused, {len(rows) - refused} decoded; at most {slowest:.1f} s, {largest:.0f} MB with the picture"
    )
    record(32, "pictures that lie or explode", len(rows), figure, "within 5 s and 500 MB over the picture's own size")

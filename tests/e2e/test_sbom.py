"""`make sbom`: every package of the locks, with its version and hashes, in a file that the CycloneDX schema accepts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.mark.slow  # an environment of its own, with the tools that write it
def test_each_file_lists_its_lock() -> None:
    # cyclonedx-py validates what it writes, and fails otherwise.
    subprocess.run(["make", "sbom"], cwd=REPO, capture_output=True, check=True)
    for name in ("device", "pi", "host"):
        sbom = json.loads((REPO / f"build/sbom-{name}.json").read_text(encoding="utf-8"))
        assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "bittern")
        lock = (REPO / f"locks/{name}.txt").read_text(encoding="utf-8")
        listed = {(c["name"], c["version"]) for c in sbom["components"]}
        assert listed == set(re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE))
        hashes = {h["content"] for c in sbom["components"] for r in c["externalReferences"] for h in r["hashes"]}
        assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", lock))

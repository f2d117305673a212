"""Two model folders side by side: is it the same recipe on the same data, and how far did the figures move?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bittern.model import manifest

# What must be the same for the figures to be the same. Another processor has other vector instructions, and another
# number of threads adds up in another order: `versions` names both.
CONDITIONS = ("seed", "data_sha256", "weights_sha256", "recipe", "versions")


class Moved(msgspec.Struct, frozen=True):
    """One figure of both models; None where one has no such figure."""

    name: str
    before: float | None
    after: float | None


class Comparison(msgspec.Struct, frozen=True):
    """What `compare` finds.

    Attributes:
        differing: of CONDITIONS, those that are not the same; with all the same, the figures must be too.
        same_file: whether the model files are equal to the byte.
        figures: every figure that both models' provenance states.
    """

    before: str
    after: str
    differing: list[str]
    same_file: bool
    figures: list[Moved]

    @property
    def holds(self) -> bool:
        """Whether reproducibility holds: same conditions give the same figures, other conditions promise nothing."""
        return bool(self.differing) or all(f.before == f.after for f in self.figures)


def compare(before: Path, after: Path) -> Comparison:
    """Compare two model folders by their manifests.

    Raises:
        ModelRefused: one of them has no manifest that can be read.
    """
    a, b = manifest.read(before), manifest.read(after)
    figures = _figures(a.provenance), _figures(b.provenance)
    names = list(dict.fromkeys([*figures[0], *figures[1]]))
    return Comparison(
        before=str(before),
        after=str(after),
        differing=[key for key in CONDITIONS if a.provenance.get(key) != b.provenance.get(key)],
        same_file=a.sha256 == b.sha256,
        figures=[Moved(name, figures[0].get(name), figures[1].get(name)) for name in names],
    )


def _figures(provenance: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for split, figures in provenance.get("reports", {}).items():
        for key in ("correct", "auc", "alarms"):
            if figures.get(key) is not None:
                found[f"{split}: {key} (n = {figures['n']})"] = figures[key]
        harmed = figures.get("harmed", {}).get("mean_accuracy")
        if harmed is not None:
            found[f"{split}: mean accuracy under harm"] = harmed
    for name, figures in provenance.get("cross_validation", {}).get("sets", {}).items():
        found[f"out of fold, {name}: correct (n = {figures['n']})"] = figures["correct"]
    gate = provenance.get("gate", {})
    if "same" in gate:
        found[f"gate: same answer (n = {gate['n']})"] = gate["same"]
    return found

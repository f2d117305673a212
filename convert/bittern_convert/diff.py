"""The figures of two model folders: were they made under the same conditions, and how far do their figures differ?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bittern.model import manifest

# What must be the same for the figures to be the same. Other vector instructions, and another number of threads, add
# up in another order: `versions` names the processor and the threads.
CONDITIONS = ("seed", "data_sha256", "weights_sha256", "recipe", "versions")


class Figure(msgspec.Struct, frozen=True):
    """One figure of both models; None for a model that does not state it."""

    name: str
    before: float | None
    after: float | None


class FolderComparison(msgspec.Struct, frozen=True):
    """Two model folders by what their manifests state.

    Attributes:
        before: the first folder.
        after: the second folder.
        differing: the CONDITIONS that differ; without any, the figures must be the same.
        same_file: whether the model files are equal to the byte.
        figures: every figure that the provenance of either model states.
    """

    before: str
    after: str
    differing: list[str]
    same_file: bool
    figures: list[Figure]

    @property
    def holds(self) -> bool:
        """Whether the same conditions gave the same figures; other conditions promise nothing."""
        return bool(self.differing) or all(f.before == f.after for f in self.figures)


def diff(before: Path, after: Path) -> FolderComparison:
    """Compare two model folders by their manifests.

    Raises:
        ModelRefused: one of them has no manifest that can be read.
    """
    a, b = manifest.read(before), manifest.read(after)
    figures = _figures(a.provenance), _figures(b.provenance)
    names = list(dict.fromkeys([*figures[0], *figures[1]]))
    return FolderComparison(
        before=str(before),
        after=str(after),
        differing=[key for key in CONDITIONS if a.provenance.get(key) != b.provenance.get(key)],
        same_file=a.sha256 == b.sha256,
        figures=[Figure(name, figures[0].get(name), figures[1].get(name)) for name in names],
    )


def _figures(provenance: dict[str, Any]) -> dict[str, float]:
    named: dict[str, float] = {}
    for split, figures in provenance.get("reports", {}).items():
        for key in ("correct", "auc", "alarms"):
            if figures.get(key) is not None:
                named[f"{split}: {key} (n = {figures['n']})"] = figures[key]
        corrupted = figures.get("harmed", {}).get("mean_accuracy")
        if corrupted is not None:
            named[f"{split}: mean accuracy on corrupted pictures"] = corrupted
    for name, figures in provenance.get("cross_validation", {}).get("sets", {}).items():
        named[f"out of fold, {name}: correct (n = {figures['n']})"] = figures["correct"]
    parity = provenance.get("gate", {})
    if "same" in parity:
        named[f"parity check: same answer (n = {parity['n']})"] = parity["same"]
    return named

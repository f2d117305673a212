"""Where long work reports to in a test."""

from __future__ import annotations


class Reports:
    """Keeps what long work has reported."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.lines: list[str] = []

    def __call__(self, step: str, done: int, total: int) -> None:
        self.steps.append((step, done, total))

    def say(self, line: str) -> None:
        self.lines.append(line)

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


class Interrupting(Reports):
    """Runs into an error when a step has come so far."""

    def __init__(self, error: BaseException, step: str, done: int) -> None:
        super().__init__()
        self._error, self._step, self._done = error, step, done

    def __call__(self, step: str, done: int, total: int) -> None:
        super().__call__(step, done, total)
        if step == self._step and done >= self._done:
            raise self._error

"""Prints what the fault tests recorded as a table: `python -m tests.faults.table build/faults.jsonl`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """A row a line of the file, by the number of the fault."""
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    print("| fault | what was done | times | figure | pass mark |\n| --- | --- | --- | --- | --- |")
    for row in sorted(rows, key=lambda row: row["fault"]):
        print(f"| {row['fault']} | {row['what']} | {row['n']} | {row['figure']} | {row['mark']} |")


if __name__ == "__main__":
    main()

"""A process that is killed: fills an outbox, delivers from it, and says on stdout what it did, in that order.

P n: events up to n were put, and may be in the file from now on. A n: events up to n are committed.
D sink n: the sink has got event n, and the outbox is about to be told. E why: the disk did not take them.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import msgspec

from bittern.delivery.outbox import Outbox, OutboxError
from bittern.events import Event, to_line, uuid7

SINKS = ("a", "b")


def main(folder: str, first: str, count: str, seed: str) -> None:
    choose = random.Random(int(seed))
    box = Outbox(Path(folder), SINKS, "cam", 100_000)
    number, end = int(first), int(first) + int(count)
    while number < end:
        for _ in range(choose.randint(1, 8)):
            event = Event(
                id=uuid7(),
                type="state",
                time="",
                monotonic_ns=number,
                source="cam",
                detail="x" * choose.choice((0, 900)),
            )
            box.put(to_line(event)[:-1])
            number += 1
        say(f"P {number - 1}")
        if flushed(box):
            say(f"A {number - 1}")
        for sink in SINKS:
            for _ in range(choose.randint(0, 12)):
                body = box.read(sink)
                if body is None:
                    break
                say(f"D {sink} {msgspec.json.decode(body, type=Event).monotonic_ns}")
                box.done(sink)
    while not flushed(box):
        pass
    say(f"A {number - 1}")
    box.close()


def flushed(box: Outbox) -> bool:
    try:
        box.flush()
    except OutboxError as error:
        say(f"E {error}")
        return False
    return True


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])

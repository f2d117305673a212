"""Decodes hostile pictures one by one: `python -m tests.faults.hostile_pictures [NAME...]`; a line of JSON each.

Times are of the processor, memory is the most that was resident, both of this process and the decoder together.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from tests.doubles.hostile_pictures import hostile

from bittern.errors import PictureError
from bittern.model import decoder, pictures


def processor_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def resident_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1000


def main() -> None:
    files = hostile()
    for name in sys.argv[1:] or files:
        data = files[name]()
        begun, computed = time.monotonic(), processor_s()
        before = resident_mb(resource.RUSAGE_SELF)
        try:
            picture = pictures.decode_bytes(data, name)
            outcome, own_mb = "decoded {1} x {0}".format(*picture.shape), picture.nbytes / 1e6
            del picture
        except PictureError as error:
            outcome, own_mb = str(error), 0.0
        seconds = time.monotonic() - begun
        decoder._decoder.close()  # ends and counts the process
        row = {
            "name": name,
            "bytes": len(data),
            "outcome": outcome,
            "seconds": seconds,
            "processor_s": processor_s() - computed,
            "own_mb": own_mb,
            "grown_mb": resident_mb(resource.RUSAGE_SELF) - before,
            "decoder_mb": resident_mb(resource.RUSAGE_CHILDREN),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

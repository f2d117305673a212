"""An order of pictures in which those that look alike are neighbours, such as the frames of a burst."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels

# A picture is looked at as so many places a side, in three colours.
SIDE = 8
FEATURES = SIDE * SIDE * 3
# From so many pictures down each one is followed by the one most like it among those that are left.
_CHAIN = 400
# A group is cut where the gap is widest, within this part of it around the middle.
_CUT = 0.2


def features(picture: Pixels) -> bytes:
    """What a picture looks like from far away: `FEATURES` bytes of an (H, W, 3) uint8 picture."""
    return bytes(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).tobytes())


def order(data: bytes) -> list[int]:
    """Positions in an order in which like pictures are neighbours.

    The pictures are halved again and again along the direction in which they differ most (their first principal
    component), at a gap, so that a burst stays whole; within a small group each picture is followed by the nearest that
    is left. Time grows as n log n.

    Args:
        data: `features` of every picture, one after the other.
    """
    points = np.frombuffer(data, np.uint8).reshape(-1, FEATURES).astype(np.float32)
    result: list[int] = []
    if not len(points):
        return result
    groups: list[npt.NDArray[np.intp]] = [np.arange(len(points))]
    while groups:
        group = groups.pop()
        if len(group) <= _CHAIN:
            result += _chain(points, group, result[-1] if result else None)
            continue
        values = _component(points[group])
        group, values = group[np.argsort(values, kind="stable")], np.sort(values)
        first, last = int(len(group) * (0.5 - _CUT)), int(len(group) * (0.5 + _CUT))
        cut = first + 1 + int(np.diff(values[first : last + 1]).argmax())
        halves = [group[:cut], group[cut:]]
        # Go on at the end that is nearer to the picture before.
        if result:
            begin, end = (float(np.linalg.norm(points[i] - points[result[-1]])) for i in (group[0], group[-1]))
            if end < begin:
                halves = [halves[1][::-1], halves[0][::-1]]
        groups += halves[::-1]
    return result


def _component(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Where each point lies along the direction of the largest variance (power iteration on the covariance)."""
    centred = points - points.mean(axis=0)
    covariance = centred.T @ centred
    direction = covariance[int(np.diag(covariance).argmax())].copy()
    for _ in range(12):
        length = float(np.linalg.norm(direction))
        if length == 0:
            break
        direction = covariance @ (direction / length)
    return np.asarray(centred @ direction, np.float32)


def _chain(points: npt.NDArray[np.float32], group: npt.NDArray[np.intp], before: int | None) -> list[int]:
    near = points[group]
    squares = (near * near).sum(axis=1)
    left = np.ones(len(group), bool)
    chain: list[int] = []
    current = points[before] if before is not None else near[0]
    for _ in range(len(group)):
        distance = squares - 2 * (near @ current)
        distance[~left] = np.inf
        nearest = int(distance.argmin())
        left[nearest] = False
        chain.append(int(group[nearest]))
        current = near[nearest]
    return chain

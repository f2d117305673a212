"""Finds near-duplicates: the same photograph re-encoded, resized, mirrored, turned or cropped.

Whole pictures are compared by a perceptual hash and a small thumbnail, parts of pictures by local features. Nothing is
kept for every pair: hashes are compared block by block, features are sorted into buckets.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from bittern.frames import Pixels
from bittern.system.progress import Progress, counted
from bittern_convert import parallel

# The thresholds below were chosen on near-duplicates made by code (re-encoded, resized, mirrored, cropped) of 1,129
# photographs of faces and everyday scenes, and on one set of stop signs; docs/data-check.md reports on other sets too.

# Two whole pictures are near if their 64-bit perceptual hashes differ in at most so many bits,
NEAR_BITS = 10
# and their thumbnails correlate at least so much, over all three channels.
NEAR_CORRELATION = 0.9
# of pictures below _LEAST_SIDE: two kinds of traffic signs of 40 pixels agree in all but a few of them. Of 2.9 million
# pairs of GTSRB's kinds 79 are near by the other limit, and none by this one.
_SMALL_CORRELATION = 0.98
# A thumbnail with less contrast (standard deviation, grey levels) says nothing: such pictures are not compared.
_LEAST_CONTRAST = 2.0
THUMBNAIL = 16
# Pictures are compared at this shorter side; local features of the longer side at most _LONGEST.
_SIDE = 256
_LONGEST = 400
# A picture that is smaller, or that narrow, has no features.
_LEAST_SIDE = 64
# Longer side of what is kept to compare parts.
_GREY = 64
# Two pictures share a part if so many of their local features agree on one shift, turn and scale,
PART_FEATURES = 8
# and the two agree there: correlation of the grey levels where they overlap.
PART_CORRELATION = 0.95
# Local features of a picture, 256 bits each (ORB; Rublee et al. 2011).
_FEATURES = 250
# Buckets: tables of features by _KEY_BITS of their bits. Pictures that meet in _VOTES buckets may share a part; of each
# picture those _MOST that it meets most often are compared with it.
_TABLES = 12
_KEY_BITS = 32
_VOTES = 3
_MOST = 4
# A bucket with more features holds what many pictures have, such as a watermark or a straight edge.
_CROWDED = 8
# Bits by which the features of two pictures may differ and still be taken for the same.
_FEATURE_BITS = 50
# Counters of how often pairs meet; a prime number, so that pairs share them by chance only.
_COUNTERS = 33_554_393
# Numbers in memory at a time when hashes are compared: 32 MB.
_BLOCK = 8_000_000

# The lowest 8 of 32 frequencies of the discrete cosine transform (type II), but for their scales.
_COSINES = np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None])
# Pairs whose thumbnails are compared at a time: 12 MB.
_PAIRS = 2000

Bools = npt.NDArray[np.bool_]
Kind = Literal["same file", "near", "mirrored", "part"]


class Likeness(NamedTuple):
    """What is kept of a picture to find its near-duplicates: at most 15 kB.

    Attributes:
        hashes: (2, 64) bool, perceptual hash of the picture and of its mirror image; (1, 64) without the latter.
        thumbnail: (16, 16, 3) uint8 BGR.
        grey: (h, w) uint8, at most _GREY on the longer side, to compare parts; empty without features.
        scale: pixels of `grey` for one unit of `points`.
        points: (n, 2) float32, where the local features are: x, y.
        descriptors: (n, 32) uint8, the features.
        small: whether the picture has fewer pixels than features need.
    """

    hashes: Bools
    thumbnail: Pixels
    grey: Pixels
    scale: float
    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.uint8]
    small: bool


class Match(NamedTuple):
    """Two near-duplicates of each other.

    Attributes:
        first: position of one.
        second: position of the other, which is larger.
        kind: "same file" (equal bytes), "near" (the whole picture), "mirrored", or "part" (they overlap).
    """

    first: int
    second: int
    kind: Kind


def shrunk(picture: Pixels, side: int = _SIDE) -> Pixels:
    """The picture with its shorter side at most `side` pixels; itself if it is that small."""
    height, width = picture.shape[:2]
    short = min(height, width)
    if short <= side:
        return picture
    size = (max(1, round(width * side / short)), max(1, round(height * side / short)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _hash(grey: Pixels) -> Bools:
    """(64,) bool, the perceptual hash of grey levels, (h, w) uint8; shrinking them first takes a third of the time."""
    square = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)
    return np.asarray(imagehash.phash(Image.fromarray(square)).hash.ravel(), np.bool_)


def describe_quickly(grey: Pixels, colours: Pixels, *, small: bool) -> Likeness:
    """What is needed to find near-duplicates that are neither mirrored, nor turned or cropped.

    The hash is computed like imagehash's, but for the filter that shrinks to 32 x 32, in an eighth of the time.

    Args:
        grey: (32, 32) uint8, the picture squeezed.
        colours: (THUMBNAIL, THUMBNAIL, 3) uint8, the picture squeezed.
        small: see `is_small`.
    """
    lowest = _COSINES @ grey.astype(np.float64) @ _COSINES.T
    hashed = (lowest > np.median(lowest)).ravel()
    nothing = np.empty((0, 0), np.uint8)
    no_points, no_descriptors = np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
    return Likeness(hashed[np.newaxis], colours, nothing, 1.0, no_points, no_descriptors, small)


def is_small(width: int, height: int) -> bool:
    """Whether a picture has fewer pixels than features need, and says less by its thumbnail."""
    return min(width, height) < _LEAST_SIDE


def describe(picture: Pixels) -> Likeness:
    """What is needed of a picture, (H, W, 3) uint8 BGR, to find its near-duplicates."""
    small = shrunk(picture)
    plane = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
    hashes = np.stack([_hash(plane), _hash(plane[:, ::-1])])
    thumbnail = np.asarray(cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), np.uint8)
    points, descriptors = np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
    grey, scale = np.empty((0, 0), np.uint8), 1.0
    shrink = min(1.0, _LONGEST / max(small.shape[:2]))
    if min(small.shape[:2]) * shrink >= _LEAST_SIDE:
        plane = _scaled(plane, shrink)
        scale = min(1.0, _GREY / max(plane.shape))
        grey = _scaled(plane, scale)
        keypoints, described = cv2.ORB.create(nfeatures=_FEATURES, fastThreshold=5).detectAndCompute(plane, None)
        if described is not None:
            points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
            descriptors = described
    return Likeness(hashes, thumbnail, grey, scale, points, descriptors, is_small(*picture.shape[:2]))


def _scaled(plane: Pixels, factor: float) -> Pixels:
    return np.asarray(cv2.resize(plane, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def find(likenesses: Sequence[Likeness], progress: Progress) -> list[Match]:
    """Pairs that connect all near-duplicates among pictures, sorted; none of the kind "same file".

    Of a thousand pictures that are all alike not every pair is named, but enough of each kind to connect them. Time
    grows with the square of the number of pictures only for comparing 64-bit hashes: a second for 20,000.
    """
    pairs = {(pair.first, pair.second): pair for pair in _whole(likenesses, progress)}
    candidates = [pair for pair in _meetings(likenesses, progress) if pair not in pairs]

    def one(pair: tuple[int, int]) -> bool:
        return share_part(likenesses[pair[0]], likenesses[pair[1]])

    shares = counted(parallel.results(one, candidates), progress, "compare parts", len(candidates))
    for (first, second), share in zip(candidates, shares, strict=True):
        if share:
            pairs[first, second] = Match(first, second, "part")
    return sorted(pairs.values())


def find_in_files(files: Sequence[tuple[bytes, Likeness]], progress: Progress) -> list[Match]:
    """`find` for files, each with its sha256: of files with equal bytes only the first is compared with the others."""
    same = ties([sha256 for sha256, _ in files])
    repeated = {later for _, later in same}
    distinct = [i for i in range(len(files)) if i not in repeated]
    near = find([files[i][1] for i in distinct], progress)
    return [
        *(Match(first, later, "same file") for first, later in same),
        *(Match(distinct[match.first], distinct[match.second], match.kind) for match in near),
    ]


def ties(keys: Sequence[Hashable]) -> list[tuple[int, int]]:
    """For `groups`: the first position of each key with every later one; empty keys tie nothing."""
    first: dict[Hashable, int] = {}
    return [(first[key], i) for i, key in enumerate(keys) if key and first.setdefault(key, i) != i]


class _Forest:
    """Groups that grow: each has the first of its members as its root."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, pair: tuple[int, int]) -> bool:
        """Whether the two were in different groups."""
        first, second = sorted(map(self.root, pair))
        self._parent[second] = first
        return first != second

    def roots(self) -> list[int]:
        return [self.root(i) for i in range(len(self._parent))]


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` pictures the first one of its group: pictures are in one group if pairs connect them."""
    forest = _Forest(count)
    for pair in pairs:
        forest.join(pair)
    return forest.roots()


def _whole(likenesses: Sequence[Likeness], progress: Progress) -> Iterator[Match]:
    """Pairs that are near as whole pictures, also mirrored; of each kind none whose pictures others connect."""
    count = len(likenesses)
    if count < 2:
        return
    kinds: tuple[Kind, ...] = ("near", "mirrored")
    sides = range(min(len(x.hashes) for x in likenesses))
    hashes = [np.stack([x.hashes[side] for x in likenesses]).astype(np.float32) * 2 - 1 for side in sides]
    thumbnails = _standardized(np.stack([x.thumbnail for x in likenesses]))
    limits = np.where([x.small for x in likenesses], _SMALL_CORRELATION, NEAR_CORRELATION)
    forests = [_Forest(count) for _ in sides]
    # Of vectors of ±1 the product is 64 - 2 * (bits that differ).
    least = hashes[0].shape[1] - 2 * NEAR_BITS
    step = max(1, _BLOCK // count)
    for start in counted(range(0, count, step), progress, "compare pictures", -(-count // step)):
        for side, forest in zip(sides, forests, strict=True):
            rows, columns = np.nonzero(hashes[0][start : start + step] @ hashes[side][start:].T >= least)
            roots = np.array(forest.roots())
            apart = (rows < columns) & (roots[rows + start] != roots[columns + start])
            first, second = rows[apart] + start, columns[apart] + start
            for at in range(0, len(first), _PAIRS):
                some = slice(at, at + _PAIRS)
                others = thumbnails[second[some]]
                r = np.einsum("nyxc,nyxc->n", thumbnails[first[some]], others[:, :, ::-1] if side else others)
                agree = r >= np.maximum(limits[first[some]], limits[second[some]])
                for pair in zip(first[some][agree].tolist(), second[some][agree].tolist(), strict=True):
                    if forest.join(pair) and not (side and forests[0].root(pair[0]) == forests[0].root(pair[1])):
                        yield Match(*pair, kinds[side])


def _standardized(thumbnails: Pixels) -> npt.NDArray[np.float32]:
    """(n, h, w, 3), of each picture mean 0 and length 1, so that a product is Pearson's r; 0 without contrast."""
    values = thumbnails.astype(np.float32)
    values -= values.mean((1, 2, 3), keepdims=True)
    spread = values.std((1, 2, 3), keepdims=True)
    values /= np.maximum(spread, _LEAST_CONTRAST) * np.sqrt(np.float32(values[0].size))
    values[(spread < _LEAST_CONTRAST).ravel()] = 0
    return values


def correlation(first: Pixels, second: Pixels) -> float:
    """Pearson's r of two pictures of one size; 0 where one of them has next to no contrast."""
    a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    if min(a.std(), b.std()) < _LEAST_CONTRAST:
        return 0.0
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))


def _meetings(likenesses: Sequence[Likeness], progress: Progress) -> list[tuple[int, int]]:
    """Pairs of pictures whose features meet in buckets often enough, in order."""
    count = len(likenesses)
    if count < 2 or not any(len(x.descriptors) for x in likenesses):
        return []
    owners = np.repeat(np.arange(count), [len(x.descriptors) for x in likenesses])
    bits = np.random.default_rng(0).permuted(np.tile(np.arange(256), (_TABLES, 1)), axis=1)[:, :_KEY_BITS]
    # Most pairs meet once, by chance: what may have met often enough is counted first, without the pairs themselves.
    meetings = np.zeros(_COUNTERS, np.uint8)
    for table in counted(bits, progress, "sort features", _TABLES):
        counter = _bucket_pairs(_all_keys(likenesses, table), owners, count) % _COUNTERS
        counters, times = np.unique(counter, return_counts=True)
        meetings[counters] = np.minimum(meetings[counters] + times, 255)
    often = []
    for table in counted(bits, progress, "compare features", _TABLES):
        met = _bucket_pairs(_all_keys(likenesses, table), owners, count)
        often.append(met[meetings[met % _COUNTERS] >= _VOTES])
    pairs, votes = np.unique(np.concatenate(often), return_counts=True)
    pairs, votes = pairs[votes >= _VOTES], votes[votes >= _VOTES]
    chosen = np.zeros(len(pairs), bool)
    for ends in (pairs // count, pairs % count):
        order = np.lexsort((-votes, ends))
        ordered = ends[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        chosen[order[rank < _MOST]] = True
    return [divmod(pair, count) for pair in pairs[chosen].tolist()]


def _all_keys(likenesses: Sequence[Likeness], chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.uint32]:
    return np.concatenate([_keys(x.descriptors, chosen) for x in likenesses])


def _keys(descriptors: npt.NDArray[np.uint8], chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.uint32]:
    """(n,) of (n, 32) descriptors: the chosen bits of each as a number."""
    picked = descriptors[:, chosen >> 3] >> (chosen & 7).astype(np.uint8) & 1
    return np.asarray(picked.astype(np.uint32) @ (1 << np.arange(len(chosen), dtype=np.uint32)), np.uint32)


def _bucket_pairs(keys: npt.NDArray[np.uint32], owners: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.int64]:
    """first * count + second for every two pictures that meet in a bucket, as often as they do."""
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, np.intp)
    sizes = np.diff(np.r_[starts, len(keys)])
    kept = np.repeat((sizes > 1) & (sizes <= _CROWDED), sizes)
    keys, owners = keys[kept], owners[kept]
    met = []
    for apart in range(1, _CROWDED):
        same = keys[apart:] == keys[:-apart]
        first, second = owners[:-apart][same], owners[apart:][same]  # sorted within a bucket: the sort is stable
        met.append((first * count + second)[first != second])
    return np.concatenate(met).astype(np.int64)


def share_part(first: Likeness, second: Likeness) -> bool:
    """Whether two pictures show a part of one photograph: at another scale, turned, or shifted."""
    agreed = _agreeing(first, second)
    return agreed is not None and _overlap_correlates(first, second, agreed)


def _agreeing(first: Likeness, second: Likeness) -> npt.NDArray[np.float64] | None:
    """(2, 3), from points of the first to those of the second, if enough features agree on it."""
    if min(len(first.points), len(second.points)) < PART_FEATURES:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first.descriptors, second.descriptors)
    near = [match for match in matches if match.distance <= _FEATURE_BITS]
    if len(near) < PART_FEATURES:
        return None
    first_points = first.points[[match.queryIdx for match in near]]
    second_points = second.points[[match.trainIdx for match in near]]
    transform, agree = cv2.estimateAffinePartial2D(first_points, second_points, ransacReprojThreshold=4, maxIters=500)
    if transform is None or np.count_nonzero(agree) < PART_FEATURES:
        return None
    return np.asarray(transform, np.float64)


def _overlap_correlates(first: Likeness, second: Likeness, transform: npt.NDArray[np.float64]) -> bool:
    to_small = np.array(transform)
    to_small[:, :2] *= second.scale / first.scale
    to_small[:, 2] *= second.scale
    height, width = second.grey.shape
    moved = cv2.warpAffine(first.grey, to_small, (width, height), flags=cv2.INTER_AREA)
    inside = cv2.warpAffine(np.full(first.grey.shape, 255, np.uint8), to_small, (width, height)) == 255
    return correlation(moved[inside], second.grey[inside]) >= PART_CORRELATION if inside.any() else False

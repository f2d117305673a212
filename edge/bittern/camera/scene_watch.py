"""Camera faults that show in the frames: covered or dark (blind), always the same (frozen), turned away (moved)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels

# Every n-th pixel makes a sample of about this size; width, height. Means of its fields make two thumbnails: a coarse
# one, in which the noise of a covered sensor does not look like a scene, and a finer one to recognise the scene.
_SAMPLE = (64, 48)
_COARSE = (16, 12)
_FINE = (32, 24)
# Grey levels of 255. A lens cap, the night or a wall of fog stay below; a grey street in rain has more than 10.
_FLAT = 4.0
_BLACK, _WHITE = 12, 243
_CLIPPED = 0.97  # of the thumbnail: a lamp in the night is no scene
_SEEING_AFTER_NS = 10**9
_COMPARE_NS = 10**9  # between two comparisons of the scene

# The scene's signature is the direction and strength of its edges; two are compared by their correlation.
_LEARN = 0.02  # weight of a new signature in the running mean: of some 50
_STEADY = 0.6  # a scene that does not resemble its own past is no fixed place: a camera in a car
_UNLIKE = 0.3  # a person who walks through, or a lamp, leaves more than this
_LEARN_FIRST = 10  # comparisons before a scene can have moved


class SceneChange(NamedTuple):
    """A change that a frame shows.

    Attributes:
        state: "blind", "seeing", "moved", "frozen" (the content of frames that do come does not change) or "changing".
        detail: for people.
    """

    state: Literal["blind", "seeing", "moved", "frozen", "changing"]
    detail: str


class SceneWatch:
    """Examines every frame of a camera, and reports what has changed.

    Args:
        blind_after_s: seconds of frames that show nothing until the state is blind.
        frozen_after_s: seconds of frames with identical content until they count as frozen. A sensor's noise never
            repeats; an encoder may send a still scene without change for some seconds.
        moved_after_s: seconds for which a scene must differ from what it was until it counts as moved.

    Attributes:
        blind: whether the last frame shows nothing, or the state is blind: no alarm may come from it.
    """

    def __init__(self, blind_after_s: float = 3.0, frozen_after_s: float = 10.0, moved_after_s: float = 10.0) -> None:
        self.blind = False
        self._blind_after_ns = round(blind_after_s * 1e9)
        self._frozen_after_ns = round(frozen_after_s * 1e9)
        self._moved_after_ns = round(moved_after_s * 1e9)
        self._state_blind = False
        self._flat_since: int | None = None
        self._clear_since: int | None = None
        self._sample: Pixels | None = None
        self._same_since: int | None = None
        self._frozen = False
        self._compared_ns: int | None = None
        self._scene = _Scene()
        self._unlike_since: int | None = None

    def look(self, pixels: Pixels, monotonic_ns: int) -> list[SceneChange]:
        """Examine a frame.

        Args:
            pixels: (H, W, 3) uint8, in either channel order; not kept.
            monotonic_ns: when it was taken; frames come in this order.

        Returns:
            What has changed with this frame, mostly nothing.
        """
        across, down = max(1, pixels.shape[1] // _SAMPLE[0]), max(1, pixels.shape[0] // _SAMPLE[1])
        sample = np.ascontiguousarray(pixels[::down, ::across])
        green = np.ascontiguousarray(sample[..., 1])
        changes = self._exposure(cv2.resize(green, _COARSE, interpolation=cv2.INTER_AREA), monotonic_ns)
        changes += self._content(sample, monotonic_ns)
        if not self.blind and (self._compared_ns is None or monotonic_ns - self._compared_ns >= _COMPARE_NS):
            self._compared_ns = monotonic_ns
            fine = cv2.resize(green, _FINE, interpolation=cv2.INTER_AREA)
            changes += self._place(fine.astype(np.float32), monotonic_ns)
        return changes

    def _exposure(self, thumbnail: Pixels, now: int) -> list[SceneChange]:
        emptiness = _emptiness(thumbnail)
        changes = []
        if emptiness is not None:
            self._clear_since = None
            self._flat_since = now if self._flat_since is None else self._flat_since
            if not self._state_blind and now - self._flat_since >= self._blind_after_ns:
                self._state_blind = True
                changes.append(
                    SceneChange("blind", f"the picture is {emptiness}: is the lens covered, or the light off?")
                )
        else:
            self._flat_since = None
            self._clear_since = now if self._clear_since is None else self._clear_since
            if self._state_blind and now - self._clear_since >= _SEEING_AFTER_NS:
                self._state_blind = False
                changes.append(SceneChange("seeing", "there is a picture again"))
        self.blind = self._state_blind or emptiness is not None
        return changes

    def _content(self, sample: Pixels, now: int) -> list[SceneChange]:
        same = self._sample is not None and np.array_equal(self._sample, sample)
        self._sample = sample
        if not same:
            self._same_since = None
            if self._frozen:
                self._frozen = False
                return [SceneChange("changing", "the content of the frames changes again")]
            return []
        self._same_since = now if self._same_since is None else self._same_since
        seconds = (now - self._same_since) / 1e9
        if self._frozen or self.blind or now - self._same_since < self._frozen_after_ns:
            return []
        self._frozen = True
        return [SceneChange("frozen", f"new frames come, but their content has not changed for {seconds:.0f} s")]

    def _place(self, thumbnail: npt.NDArray[np.float32], now: int) -> list[SceneChange]:
        unlike = self._scene.unlike(thumbnail)
        if not unlike:
            self._unlike_since = None
            return []
        self._unlike_since = now if self._unlike_since is None else self._unlike_since
        if now - self._unlike_since < self._moved_after_ns:
            return []
        self._unlike_since = None
        self._scene = _Scene()
        return [SceneChange("moved", "the scene is not the same as before: was the camera turned or pushed?")]


class _Scene:
    """The running mean of a scene's signature."""

    def __init__(self) -> None:
        self._mean: npt.NDArray[np.float32] | None = None
        self._likeness = 0.0  # running mean of the correlation of signatures with the mean before them
        self._count = 0

    def unlike(self, thumbnail: npt.NDArray[np.float32]) -> bool:
        """Whether a thumbnail does not belong to a scene that was steady before; if it does, the mean follows it."""
        edges = _edges(thumbnail)
        if self._mean is None:
            self._mean = edges
            return False
        likeness = float(np.dot(edges, self._mean) / (np.linalg.norm(self._mean) + 1e-6))
        steady = self._count >= _LEARN_FIRST and self._likeness >= _STEADY
        if steady and likeness < _UNLIKE:
            return True
        self._count += 1
        weight = max(_LEARN, 1 / (self._count + 1))
        self._likeness += weight * (likeness - self._likeness)
        self._mean += weight * (edges - self._mean)
        return False


def _edges(thumbnail: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Signature of a picture, a vector of length 1: the signed roots of its gradients.

    The root keeps one bright edge from dominating the signature; the overall brightness cancels out.
    """
    horizontal = np.diff(thumbnail, axis=1)[:-1]
    vertical = np.diff(thumbnail, axis=0)[:, :-1]
    gradients = np.concatenate([horizontal.ravel(), vertical.ravel()])
    rooted = np.sign(gradients) * np.sqrt(np.abs(gradients))
    return np.asarray(rooted / (np.linalg.norm(rooted) + 1e-6), np.float32)


def _emptiness(thumbnail: Pixels) -> str | None:
    """Why a picture shows nothing; None if it shows something."""
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(thumbnail))
    # The mean first, which rules out most pictures: this is done for every frame.
    if mean <= _BLACK + (1 - _CLIPPED) * 255 and float((thumbnail <= _BLACK).mean()) >= _CLIPPED:
        return "black"
    if mean >= _CLIPPED * _WHITE and float((thumbnail >= _WHITE).mean()) >= _CLIPPED:
        return "white"
    return "of one colour" if deviation < _FLAT else None

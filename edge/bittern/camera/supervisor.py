"""A live source in a process of its own, watched over: one that hangs or dies is killed and started again."""

from __future__ import annotations

import math
import os
import random
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

from bittern.camera.child_handle import ChildHandle
from bittern.camera.messages import Ended, Failed, Opened, Request
from bittern.camera.scene_watch import SceneWatch
from bittern.config.schema import RecoveryConfig
from bittern.errors import ConfigurationError, SourceError, redacted
from bittern.events import State
from bittern.frames import Frame
from bittern.sources.registry import Value, check_source
from bittern.system.stop import Stop


class Timing(NamedTuple):
    """How long things may take, in seconds.

    Attributes:
        start_s: from the start of the process to its first frame, most of which is imports on a small Pi; twice as long
            after a start that took longer, and then four times, and always twice as long as the last one that gave
            frames, so that a slow machine has a camera too; also from the first frame to the second.
        kill_s: from SIGKILL to the end of the process; one that takes longer waits inside the kernel.
        close_s: from the request to end to SIGKILL.
        settled_s: of frames without a failure, after which the camera counts as recovered.
        longest_s: between two starts.
        frozen_after_s: see `SceneWatch`.
    """

    start_s: float = 20.0
    kill_s: float = 2.0
    close_s: float = 1.0
    settled_s: float = 10.0
    longest_s: float = 30.0
    frozen_after_s: float = 10.0


_POLL_S = 0.02  # interval at which a process that is about to end is polled
_STUCK_POLL_S = 0.5  # the same for one that SIGKILL did not end
_STOPPED_S = 2.0  # between two looks at the camera: this process was stopped, or was busy with something else
_PLUGGED_S = 1.0  # from a change in DEVICES to the next try, and the interval at which it is looked at
DEVICES = "/dev"
_PERIODS = 3  # a camera without a frame for this many periods counts as hung


class Camera:
    """The newest frame of a live source, which runs in a child process.

    Not for recorded sources, which drop no frame. Everything runs in the thread that calls `read` or `rest`:
    between two calls newer frames replace older ones, but missing frames go unnoticed.

    `states` gives every state once, when it begins: "camera_ok" with the first frame (after repeated failures, when the
    camera has settled), "camera_stalled", "camera_lost", "camera_busy", "camera_absent", "camera_frozen" (frames come,
    but their content does not change), "reboot_needed"; and, independent of these, "blind", "seeing" and "moved", which
    say what the frames show.

    Args:
        uri: of the source.
        options: of the source, see `bittern.sources.registry.open_source`.
        timeout_s: seconds without a frame after which the camera is started again; never less than three measured
            periods. Before the second frame it is `timing.start_s`, if that is more.
        recovery: warm-up frames, when frames count as blind, and the command for a process that does not end.
        stop: ends a `read` that waits. Do not call `read` inside `Stop.wait`: only its waiting may be interrupted.
        once: give up, instead of trying again, when the camera cannot be opened at the start.
        timing: how long things may take.

    Attributes:
        name: of the source.
        live: true; as of `bittern.frames.Source`.
        unreadable: 0; as there.
        left_out: 0; as there.
        dropped: frames that came but were never read.
        restarts: how often the process was started again.
        ended: the source has no more frames (the demonstration's last lap).

    Raises:
        ConfigurationError: unknown scheme or option.
    """

    live = True
    unreadable = 0
    left_out = 0

    def __init__(
        self,
        uri: str,
        options: Mapping[str, Value] | None = None,
        *,
        timeout_s: float = 2.0,
        recovery: RecoveryConfig | None = None,
        stop: Stop | None = None,
        once: bool = False,
        timing: Timing = Timing(),  # noqa: B008  (immutable)
    ) -> None:
        checked = check_source(uri, options)
        if not checked.live:
            raise ConfigurationError(f"source {redacted(uri)!r} is a recording, not a camera")
        self.name = checked.name
        self.dropped = 0
        self.restarts = 0
        self.ended = False
        self._finished = False  # the child has sent `Ended`; a last frame may still be in the ring
        recovery = recovery or RecoveryConfig()
        self._stop, self._once, self._timing = stop or Stop(), once, timing
        self._new_states: list[State] = []
        self._scene = SceneWatch(recovery.blind_after_s, timing.frozen_after_s)
        self._timeout_s = timeout_s
        # A source says by itself that it is lost, but only long after that was noticed here.
        patience_s = 3 * max(timeout_s, timing.start_s)
        self._request = Request(uri, dict(options or {}), recovery.warm_up_frames, patience_s)
        self._process: ChildHandle | None = None
        self._killed_at: float | None = None
        self._pending: State | None = None  # waits for the child's end, which completes its detail
        self._started = False
        self._started_at = 0.0
        self._due = 0.0
        self._looked = self._resumed = 0.0  # when it last looked at the camera, and when it did so again after a gap
        self._state = self._reason = ""
        self._closed = False
        self._reboot_command = recovery.reboot_command
        self._reboot: subprocess.Popen[bytes] | None = None
        self._number = -1
        self._offset: int | None = None  # from the child's numbers to ours
        self._good_since: float | None = None  # first frame of this process
        self._retries = 0
        self._start_limit_s = timing.start_s
        self._devices_ns = 0  # when DEVICES had changed last, as the last try began
        self._at_once = True  # the next restart does not wait
        self._unsteady = False  # it gave frames, and failed again before it had settled

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def blind(self) -> bool:
        """Whether the frame last read shows nothing, so that no alarm may come from it."""
        return self._scene.blind

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame that was not read before; waits for one, but never longer than `timeout_s` seconds.

        Its pixels lie in shared memory, are not writeable, and are valid until the next call.

        Returns:
            None if no frame came in that time, after `stop`, after `close`, and when the source has `ended`.

        Raises:
            ConfigurationError: the camera cannot follow an option; only before the first frame.
            SourceError: exit code 2, with `once`: the camera cannot be opened.
        """
        deadline = time.monotonic() + timeout_s
        if self._process is not None and self._process.reader is not None:
            self._process.reader.release()
        while not (self._closed or self._stop.asked):
            next_step = self._step()
            frame = self._take()
            if frame is not None:
                return frame
            self.ended = self._finished
            if self.ended or time.monotonic() >= deadline:
                break
            self._pause(min(deadline, next_step), wake=True)
        return None

    def states(self) -> Sequence[State]:
        """The states that began since the last call, in order."""
        states, self._new_states = self._new_states, []
        return states

    def rest(self, seconds: float) -> None:
        """Let time pass, as between two frames under a cap of the frame rate, while the camera is watched over.

        The frame last read stays valid. `stop` ends the rest.
        """
        deadline = time.monotonic() + seconds
        while not (self._closed or self._stop.asked):
            next_step = self._step()
            if time.monotonic() >= deadline:
                break
            self._pause(min(deadline, next_step), wake=False)

    def close(self) -> None:
        """End the child, which gives the camera back; SIGKILL if it does not. Takes about three seconds at most."""
        self._closed = True
        process = self._process
        if process is None:
            return
        process.ask()
        patience_s = self._timing.close_s if self._killed_at is None else 0.0
        for limit_s in (patience_s, self._timing.kill_s):
            limit = time.monotonic() + limit_s
            while process.ended() is None and time.monotonic() < limit:
                time.sleep(_POLL_S)
            if process.ended() is not None:
                self._process = None
                return
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _step(self) -> float:
        """Do what is due.

        Returns:
            When the next thing is due, on the monotonic clock in seconds.
        """
        if self._reboot is not None and self._reboot.poll() is not None:
            self._reboot = None
        now = time.monotonic()
        if now - self._looked > _STOPPED_S:
            self._resumed = now  # the child may have been stopped as well, as by a debugger: it gets its time again
        self._looked = now
        if self._finished:
            return math.inf
        if self._process is None:
            if now < self._due and self._retries and self._devices_ns != _devices_ns():
                # Something was plugged in, or out: no long wait any more, but a moment for udev to set its rights.
                self._retries = 0
                self._due = min(self._due, now + _PLUGGED_S)
            if now < self._due:
                return min(self._due, now + _PLUGGED_S)
            self._start(now)
        elif self._killed_at is not None:
            return self._await_end(self._process, self._killed_at)
        if self._process is not None and self._killed_at is None:
            self._listen(self._process)
        if self._process is not None and self._killed_at is None and not self._finished:
            return self._check_progress(self._process)
        return time.monotonic() + _POLL_S

    def _start(self, now: float) -> None:
        self._started_at, self._offset, self._good_since, self._pending = now, None, None, None
        # Before it looks for its device: what is plugged in while it fails would be missed afterwards.
        self._devices_ns = _devices_ns()
        try:
            self._process = ChildHandle(self._request)
        except OSError as error:  # no memory, no file descriptors
            self._begin("camera_lost", f"its process cannot be started: {error.strerror}")
            self._due = now + self._delay()
        else:
            self.restarts += self._started
            self._started = True

    def _listen(self, process: ChildHandle) -> None:
        """Take the child's messages."""
        try:
            messages, closed = process.messages()
        except (OSError, ValueError) as error:  # no memory for the ring
            self._kill(process, "camera_lost", f"its frames cannot be reached: {error}")
            return
        for message in messages:
            if isinstance(message, Opened):
                self.name = message.name
            elif isinstance(message, Failed):
                if message.why == "configuration" and self._number < 0:
                    self.close()
                    raise ConfigurationError(message.text)
                state = f"camera_{message.why}" if message.why in ("busy", "absent") else "camera_lost"
                self._kill(process, state, message.text)
                return
            elif isinstance(message, Ended):
                self._finished = True
                return
        if closed:
            self._kill(process, "camera_lost", "its process ended with", add_end=True)

    def _check_progress(self, process: ChildHandle) -> float:
        """Kill a child that gives no frames; when that will be the case if none comes."""
        timing = self._timing
        reader = process.reader
        if reader is None:
            since, limit = self._started_at, self._start_limit_s
        else:
            period_s = reader.period_ns / 1e9
            since = reader.last_ns / 1e9
            limit = max(self._timeout_s, _PERIODS * period_s if period_s else timing.start_s)
        since = max(since, self._resumed)
        waited = time.monotonic() - since
        if waited < limit:
            return since + limit
        missing = "no new frame" if reader is not None else "no frame since its start"
        if reader is None:
            self._expect_start(2 * limit)
        self._kill(process, "camera_stalled", f"{missing} for {waited:.1f} s: the camera hangs")
        return time.monotonic()

    def _expect_start(self, limit_s: float) -> None:
        """How long the next start may take."""
        self._start_limit_s = max(self._timing.start_s, min(limit_s, 4 * self._timing.start_s))

    def _kill(self, process: ChildHandle, state: str, detail: str, *, add_end: bool = False) -> None:
        """SIGKILL, also for a process that is about to end; with `add_end` the state waits for how it ended."""
        self._killed_at = time.monotonic()
        process.kill()
        if self._once and self._number < 0:
            self.close()
            text = f"{detail} an error" if add_end else detail
            raise SourceError(text if text.startswith(self.name) else f"{self.name}: {text}", exit_code=2)
        if add_end:
            self._pending = State(state, detail)
        else:
            self._begin(state, detail)

    def _await_end(self, process: ChildHandle, killed_at: float) -> float:
        """Reap the child, and set the time of the next start; when to poll again."""
        ending = process.ended()
        now = time.monotonic()
        if ending is None:
            if now - max(killed_at, self._resumed) < self._timing.kill_s:
                return now + _POLL_S
            self._ask_for_reboot(process)
            return now + _STUCK_POLL_S
        self._process, self._killed_at = None, None
        if self._pending is not None:
            self._begin(self._pending.name, f"{self._pending.detail} {ending}")
        if self._good_since is not None:
            settled = killed_at - self._good_since >= self._timing.settled_s
            self._unsteady = not (settled or self._at_once)
            if settled:
                self._at_once, self._retries = True, 0
        self._due = now + self._delay()
        return self._due

    def _delay(self) -> float:
        """Seconds to the next start: none after the first failure of a working camera, then 1, 2, 4 ... 30."""
        if self._at_once and self._number >= 0:
            self._at_once = False
            return 0.0
        self._retries += 1
        # Jitter, so that several cameras on one failed hub do not come back all at once.
        return min(self._timing.longest_s, 2.0 ** min(self._retries - 1, 10)) * random.uniform(0.8, 1.0)

    def _ask_for_reboot(self, process: ChildHandle) -> None:
        if self._state == "reboot_needed":
            return
        detail = f"process {process.pid} is stuck in the kernel: not even SIGKILL ends it"
        command, self._reboot_command = self._reboot_command, ()
        if command:
            try:
                self._reboot = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                detail += f"; {command[0]} was run"
            except OSError as error:
                detail += f"; {command[0]} cannot be run: {error.strerror}"
        self._begin("reboot_needed", detail)

    def _take(self) -> Frame | None:
        process = self._process
        if process is None or process.reader is None or self._killed_at is not None:
            return None
        shared = process.take()
        if shared is None:
            return None
        now = time.monotonic()
        if self._offset is None:
            self._offset = self._number + 1 - process.reader.first_number
            self._good_since = now
            self._expect_start(2 * (now - self._started_at))
        number = shared.number + self._offset
        self.dropped += number - self._number - 1
        self._number = number
        frame = Frame(shared.pixels, shared.order, shared.monotonic_ns, shared.time_ns, number, self.name)
        for change in self._scene.look(frame.pixels, frame.monotonic_ns):
            if change.state == "frozen":
                self._begin("camera_frozen", change.detail)
            elif change.state != "changing":
                self._new_states.append(State(change.state, change.detail))
            elif self._state == "camera_frozen":
                self._begin("camera_ok", change.detail)
        settled = not self._unsteady or now - (self._good_since or now) >= self._timing.settled_s
        if settled and self._state not in ("camera_ok", "camera_frozen"):
            height, width = frame.pixels.shape[:2]
            self._begin("camera_ok", f"frames of {width}x{height}")
        return frame

    def _begin(self, state: str, detail: str) -> None:
        """A state of the camera begins, unless it holds already for the same reason, whatever the figures in it."""
        reason = re.sub(r"0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?", "", detail)
        if (state, reason) != (self._state, self._reason):
            self._state, self._reason = state, reason
            self._new_states.append(State(state, detail))

    def _pause(self, until: float, *, wake: bool) -> None:
        """Wait for a message of the child, with `wake` also for a frame, until a moment of the monotonic clock."""
        poll = select.poll()
        if self._process is not None and self._killed_at is None and not self._finished:
            poll.register(self._process.inbox, select.POLLIN)
            if wake:
                poll.register(self._process.wake, select.POLLIN)
        self._stop.wait(partial(poll.poll, max(0.0, until - time.monotonic()) * 1000))


def _devices_ns() -> int:
    """When a device last came or went, by the kernel's own folder of them."""
    try:
        return os.stat(DEVICES).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0

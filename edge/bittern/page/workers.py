"""Workers that do what has to do with pixels, as many at a time as the machine has cores; started when needed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from typing import Any

from bittern.errors import BitternError, ConfigurationError
from bittern.page import messages
from bittern.page.messages import RequestFailed

# A worker for each core, but not more: each holds the models, some 80 MB.
MOST = 4
# Requests that wait for a worker; one more is refused.
MOST_WAITING = 256
# Within this time the models are opened.
_START_S = 120.0
# Bytes in the pipe to a worker, at most what Linux gives without privileges: most pictures fit in one write, and the
# worker does not wait for the event loop to fill 64 kB again and again.
_PIPE = 2**20
# A worker that does not even compute is killed; by processor time it ends itself.
_ANSWER_S = 150.0


class WorkerPool:
    """The workers; of one event loop.

    Args:
        options: what the workers open: "models", "bare", "path", "threads", "views"; "nice" puts them behind other
            processes.
        most: how many workers at a time; None takes as many as there are cores, up to `MOST`.
    """

    def __init__(self, options: dict[str, Any], most: int | None = None) -> None:
        self._options = options
        self._free = asyncio.Semaphore(most or max(1, min(MOST, len(os.sched_getaffinity(0)))))
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._waiting = 0
        self.models: list[dict[str, Any]] = []

    async def start(self) -> None:
        """Start the first worker, which describes the models.

        Raises:
            BitternError: a model is refused.
        """
        self._idle.append(await self._start())

    async def ask(self, request: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Have a worker do something.

        Args:
            request: "do" is one of `worker.OPERATIONS`.
            payload: the picture's file, or nothing.

        Raises:
            RequestFailed: the picture is refused, the worker died of it, or too many requests wait.
        """
        if self._waiting >= MOST_WAITING:
            raise RequestFailed(503, "too many requests at a time: try again")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            message, result = await self._ask(request, payload)
        finally:
            self._free.release()
        if "error" in message:
            raise RequestFailed(message["status"], message["error"])
        return message, result

    async def _ask(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        data = messages.encode(request, payload)
        for _ in range(2):
            try:
                worker = self._idle.pop() if self._idle else await self._start()
            except BitternError as error:  # a model that was whole when the server started
                raise RequestFailed(503, str(error)) from None
            try:
                async with asyncio.timeout(_ANSWER_S):
                    answer = await self._exchange(worker, data)
            except TimeoutError:
                await self._end(worker)
                raise RequestFailed(422, f"no answer within {_ANSWER_S:.0f} s") from None
            except BaseException:  # cancelled halfway through an answer
                await asyncio.shield(self._end(worker))
                raise
            if answer is not None:
                self._idle.append(worker)
                return answer
            code = await self._end(worker)
            if code != 0:  # 0: it had ended itself after the picture before, to give memory back
                raise RequestFailed(422, _last_words(code))
        raise RequestFailed(503, "no worker answers")

    async def _start(self) -> asyncio.subprocess.Process:
        # -P: nothing is imported from the working directory.
        command = (sys.executable, "-P", "-m", "bittern.page.worker")
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        pipe = asyncio.subprocess.PIPE
        worker = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
        assert worker.stdin is not None
        with contextlib.suppress(OSError):  # all pipes of the user have a limit too
            fcntl.fcntl(worker.stdin.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, _PIPE)
        self._all.add(worker)
        try:
            async with asyncio.timeout(_START_S):
                answer = await self._exchange(worker, messages.encode(self._options))
        except TimeoutError:
            answer = None
        except BaseException:
            await asyncio.shield(self._end(worker))
            raise
        if answer is None:
            code = await self._end(worker)
            raise BitternError(f"the process that opens the models ended with code {code}")
        message = answer[0]
        if "error" in message:
            await self._end(worker)
            kind = ConfigurationError if message["exit_code"] == 2 else BitternError
            raise kind(message["error"])
        self.models = message["models"]
        return worker

    @staticmethod
    async def _exchange(worker: asyncio.subprocess.Process, data: bytes) -> tuple[dict[str, Any], bytes] | None:
        """Send a message and receive one; None if the worker has ended."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            with contextlib.suppress(ConnectionError):
                worker.stdin.write(data)
                await worker.stdin.drain()
            head = await worker.stdout.readexactly(messages.HEAD.size)
            length, size = messages.HEAD.unpack(head)
            text = await worker.stdout.readexactly(length)
            return messages.decode(text), await worker.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            return None

    async def _end(self, worker: asyncio.subprocess.Process) -> int:
        """End a worker, and return its exit code."""
        assert worker.stdin is not None
        worker.stdin.close()
        # It has ended, or does not answer: a moment for its exit code.
        try:
            async with asyncio.timeout(0.5):
                code = await worker.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            code = await worker.wait()
        self._all.discard(worker)
        return code

    async def close(self) -> None:
        """End all workers."""
        for worker in list(self._all):
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
        self._all.clear()
        self._idle.clear()


def _last_words(code: int) -> str:
    if code == -signal.SIGPROF:
        return "the picture takes too long: save it again with another program"
    return f"broken picture, it crashes its decoder ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

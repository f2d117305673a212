"""Several hosts: the fits of a k-fold are shared out over the workers that `tf.distribute`'s TF_CONFIG names.

All run the same command on the same pictures. The chief, which is the cluster's "chief" or else its first "worker",
trains as it would alone, and gives a fit to each worker that asks for one; it alone writes. A worker makes its fits and
sends what would be their checkpoint. What a worker does not finish, the chief makes. These are plain sockets: in a
collective of `tf.distribute` every worker waits for every other one, but a training is to outlive a worker that dies.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from bittern.errors import BitternError, ConfigurationError, one_line, printable
from bittern.system.progress import Progress
from bittern_train import checkpoints
from bittern_train.checkpoints import NOTHING_KEPT, Checkpoints

# Seconds between two signs of life, and without any of them after which a peer counts as gone.
BEAT_S, SILENCE_S = 5.0, 60.0
# Seconds that a worker waits for the chief to be started.
START_S = 600.0
# Conditions (`session`) that may differ between hosts: numbers are then added up in another order.
OF_THE_MACHINE = ("processor", "threads")
# Most bytes of a message: of any but a fit, and of a fit, which has the weights of every epoch.
_SHORT, _FIT = 2**20, 2**34
_LENGTH = struct.Struct(">Q")
# Connections at a time, for each host: more are strangers'.
_CONNECTIONS = 4


class Hosts(NamedTuple):
    """The hosts that train together.

    Attributes:
        names: of each, as TF_CONFIG has it ("worker 1 (10.0.0.2:2222)"); the chief first.
        address: of the chief: host and port.
        number: of this process among them; 0 is the chief.
    """

    names: list[str]
    address: tuple[str, int]
    number: int


class _Task(msgspec.Struct):
    type: str
    index: int


class _TensorFlowConfig(msgspec.Struct):
    """What `tf.distribute` reads of TF_CONFIG: the addresses of the tasks by their type, and which one this is."""

    cluster: dict[str, list[str]] = {}
    task: _Task | None = None


def hosts() -> Hosts | None:
    """What TF_CONFIG says; None where it is not set, or names no more than one host.

    Raises:
        ConfigurationError: it cannot be read, or does not say enough.
    """
    config = os.environ.get("TF_CONFIG") or "{}"
    try:
        stated = msgspec.json.decode(config, type=_TensorFlowConfig)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"TF_CONFIG cannot be read ({error}): mend it, or unset it to train alone") from None
    tasks = [(kind, i, address) for kind in sorted(stated.cluster) for i, address in enumerate(stated.cluster[kind])]
    if len(tasks) < 2:
        return None
    others = sorted(set(stated.cluster) - {"chief", "worker"})
    if others or len(stated.cluster.get("chief", [])) > 1:
        what = f"of type {others[0]!r}" if others else "that are several chiefs"
        raise ConfigurationError(f"TF_CONFIG has tasks {what}: expected workers, and at most one chief")
    places = [(kind, i) for kind, i, _ in tasks]
    own = (stated.task.type, stated.task.index) if stated.task else None
    if own not in places:
        expected = ", ".join(f"{kind} {i}" for kind, i in places)
        came = f"task {own[0]} {own[1]}" if own else "no task"
        raise ConfigurationError(f"TF_CONFIG says {came}: expected which one this host is, one of {expected}")
    host, _, port = tasks[0][2].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigurationError(f"TF_CONFIG: the address {tasks[0][2]!r} is not HOST:PORT")
    names = [f"{kind} {i} ({address})" for kind, i, address in tasks]
    return Hosts(names, (host.strip("[]"), int(port)), places.index(own))


def check_alone(what: str) -> None:
    """Raises ConfigurationError if TF_CONFIG names several hosts: each of them would do all of `what`."""
    if (several := hosts()) is not None:
        raise ConfigurationError(
            f"TF_CONFIG names {len(several.names)} hosts, but only `bittern train` shares out its work: unset it for "
            f"{what}"
        )


class Gone(Exception):
    """A peer that is not there any more, is silent, or does not say what was expected."""


class _Peer:
    """A connection: messages of any length, and between them signs of life, which are empty messages."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(SILENCE_S)
        self._sending, self._closed = threading.Lock(), threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="sign of life").start()

    def send(self, value: object) -> None:
        """Send a value as msgpack, bytes as they are; Gone if the peer is."""
        data = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
        try:
            with self._sending:
                left = memoryview(_LENGTH.pack(len(data)) + data)
                while left:
                    left = left[self._socket.send(left) :]
        except OSError as error:
            raise Gone(one_line(error)) from None

    def receive(self, most: int) -> bytes:
        """The next message, of at most so many bytes; Gone if the peer is."""
        while True:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            if length > most:
                raise Gone(f"it sends {length} bytes, expected at most {most}")
            if length:
                return self._read(length)

    def expect(self, kind: Any) -> Any:
        """The next message as a value of a type; Gone also if it is another one."""
        data = self.receive(_SHORT)
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError
            raise Gone(f"it says something else than was expected: {one_line(error)}") from None

    def close(self) -> None:
        """End the connection, also for a thread that waits for a message."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = self._socket.recv(min(count - len(data), 2**20))
            except TimeoutError:
                raise Gone(f"silent for {SILENCE_S:.0f} s") from None
            except OSError as error:
                raise Gone(one_line(error)) from None
            if not part:
                raise Gone("the connection was closed")
            data += part
        return bytes(data)

    def _beat(self) -> None:
        with contextlib.suppress(Gone):  # whoever waits for a message notices
            while not self._closed.wait(BEAT_S):
                self.send(b"")


class Greeting(msgspec.Struct, frozen=True):
    """What a worker says first: which one it is, and the conditions under which it would train."""

    number: int
    conditions: dict[str, str]


class _Shares:
    """The fits that are left: each is taken by one thread, and given back if nothing comes of it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._left, self._taken = deque(names), 0
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self.makers: Counter[int] = Counter()

    def take(self) -> str | None:
        """A fit to make; waits while others make the last ones, and gives None when all are finished."""
        with self._changed:
            while not self._left and self._taken and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            if not self._left:
                return None
            self._taken += 1
            return self._left.popleft()

    def finish(self, maker: int) -> None:
        """A fit that was taken is made."""
        with self._changed:
            self._taken -= 1
            self.makers[maker] += 1
            self._changed.notify_all()

    def give_back(self, name: str) -> None:
        """A fit that was taken is not made."""
        with self._changed:
            self._taken -= 1
            self._left.append(name)
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Let every `take` raise an error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()


class Chief:
    """Gives fits to the workers and keeps what they make, in a thread for each of them, while entered."""

    def __init__(self, hosts: Hosts, progress: Progress) -> None:
        """Listen.

        Raises:
            ConfigurationError: the port is taken, or not to be had.
        """
        self._hosts, self._progress = hosts, progress
        host, port = hosts.address
        # To itself a host's own name is often 127.0.1.1: listen everywhere, as the servers of tf.distribute do.
        is_loopback = host in ("localhost", "::1") or host.startswith("127.")
        both = not is_loopback and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server(
                (host if is_loopback else "", port), family=family, dualstack_ipv6=both
            )
        except OSError as error:
            raise ConfigurationError(f"TF_CONFIG: cannot listen at {host}:{port}: {one_line(error)}") from None
        self._peers: dict[_Peer, threading.Thread] = {}
        self._opened, self._closed = threading.Event(), False
        self._conditions: Mapping[str, str] = {}
        self._shares = _Shares([])
        self._kept: Checkpoints = NOTHING_KEPT
        self._kind: type = object

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True, name="workers").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        serving = dict(self._peers)
        for peer in serving:
            if error is None:
                with contextlib.suppress(Gone):
                    peer.send(None)  # to one that came late: nothing is left
            peer.close()
        self._shares.fail(Gone("the training has ended"))
        self._opened.set()
        for thread in serving.values():  # what one of them is keeping is kept before the checkpoints are closed
            thread.join(SILENCE_S)

    def open(self, conditions: Mapping[str, str], names: Sequence[str], kept: Checkpoints, kind: type) -> None:
        """Begin to share out.

        Args:
            conditions: that a worker must train under too, but for OF_THE_MACHINE.
            names: of the fits that are left.
            kept: gets the workers' fits.
            kind: type of a fit.
        """
        self._conditions, self._kept, self._kind = conditions, kept, kind
        self._shares = _Shares(names)
        self._opened.set()

    @property
    def finished(self) -> int:
        """How many fits are made."""
        return self._shares.makers.total()

    def own(self) -> Iterator[str]:
        """Fits for this process, until all are made; each counts as made when the next one is asked for.

        Raises:
            OSError: what a worker made could not be kept.
        """
        while (name := self._shares.take()) is not None:
            yield name
            self._shares.finish(0)
        if self._shares.makers:
            by = ", ".join(f"{self._shares.makers[i]} by {name}" for i, name in enumerate(self._hosts.names))
            self._progress.say(f"fits of the k-fold: {by}")

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(1)  # out of descriptors, for example
                continue
            if len(self._peers) >= _CONNECTIONS * len(self._hosts.names):
                connected.close()
                continue
            peer = _Peer(connected)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True, name="worker")
            self._peers[peer] = thread
            thread.start()

    def _serve(self, peer: _Peer) -> None:
        who = "somebody"
        try:
            greeting = peer.expect(Greeting)
            if not 0 < greeting.number < len(self._hosts.names):
                raise Gone("it is none of the workers")
            who = self._hosts.names[greeting.number]
            self._opened.wait()
            if self._is_welcome(peer, who, greeting.conditions):
                peer.expect(bool)  # it is ready
                self._share(peer, who, greeting.number)
        except Gone as gone:
            if not self._closed:
                self._progress.say(f"{who} is gone: {gone}")
        finally:
            self._peers.pop(peer, None)
            peer.close()

    def _is_welcome(self, peer: _Peer, who: str, conditions: Mapping[str, str]) -> bool:
        other = checkpoints.differing(self._conditions, conditions)
        # Those of a stranger may be anything.
        other = [printable(key)[:40] for key in other[:40]]
        refused = [key for key in other if key not in OF_THE_MACHINE]
        peer.send(refused)
        if refused:
            self._progress.say(f"{who} is refused, because it differs in {', '.join(refused)}: going on without it")
        elif other:
            self._progress.say(f"{who} differs in {', '.join(other)}: its fits are the same but for rounding")
        return not refused

    def _share(self, peer: _Peer, who: str, index: int) -> None:
        while (name := self._shares.take()) is not None:
            try:
                peer.send(name)
                made = peer.receive(_FIT)
                self._check(made)
            except (Gone, MemoryError) as gone:
                self._shares.give_back(name)
                raise Gone(f"{one_line(gone)}; its fit is made again") from None
            try:
                self._kept.save_encoded(name, made)
            except Exception as error:
                self._shares.fail(error)  # raised where this process takes its own
                raise Gone(f"its fit cannot be kept: {one_line(error)}") from None
            self._shares.finish(index)
        peer.send(None)

    def _check(self, made: bytes) -> None:
        try:
            checkpoints.decode(made, self._kind)
        except Exception as error:  # msgspec and numpy raise several kinds
            raise Gone(f"what it sends is no fit ({one_line(error)})") from None


class Worker:
    """Makes fits for the chief."""

    def __init__(self, hosts: Hosts, progress: Progress) -> None:
        """Connect to the chief.

        Raises:
            BitternError: it does not answer for START_S.
        """
        self._hosts, self._chief = hosts, hosts.names[0]
        give_up, waiting = time.monotonic() + START_S, False
        while True:
            try:
                self._peer = _Peer(socket.create_connection(hosts.address, SILENCE_S))
                return
            except OSError as error:
                if time.monotonic() > give_up:
                    raise BitternError(
                        f"{self._chief} has not answered for {START_S / 60:.0f} min ({one_line(error)}): start it too"
                    ) from None
                if not waiting:
                    progress.say(f"waiting for {self._chief} ({one_line(error)})")
                    waiting = True
                time.sleep(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()

    def greet(self, conditions: Mapping[str, str]) -> bool:
        """Say under which conditions this worker trains; False if nothing is left to do.

        Raises:
            ConfigurationError: the chief trains under others.
            BitternError: it is gone.
        """
        with self._chief_answers():
            self._peer.send(Greeting(self._hosts.number, dict(conditions)))
            refused = self._peer.expect(list[str] | None)
        if refused:
            raise ConfigurationError(
                f"{self._chief} trains something else, this host differs in {', '.join(refused)}: give all hosts the "
                "same command, pictures and versions"
            )
        return refused is not None

    def names(self) -> Iterator[str]:
        """Fits to make, until there are none; what is made is to be sent before the next one is asked for.

        Raises:
            BitternError: the chief is gone.
        """
        with self._chief_answers():
            self._peer.send(True)
            name = self._peer.expect(str | None)
        while name is not None:
            yield name
            with self._chief_answers():
                name = self._peer.expect(str | None)

    def send(self, made: bytes) -> None:
        """Give the chief what was made, as `checkpoints.encode` has it.

        Raises:
            BitternError: the chief is gone.
        """
        with self._chief_answers():
            self._peer.send(made)

    @contextlib.contextmanager
    def _chief_answers(self) -> Iterator[None]:
        try:
            yield
        except Gone as gone:
            raise BitternError(
                f"{self._chief} is gone ({gone}): when it is started again with --resume, start this host again too"
            ) from None

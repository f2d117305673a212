"""Takes off a broker what was announced there and exists no longer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from bittern.delivery.sinks.announced import Announced, Memory
from bittern.delivery.sinks.base import Undelivered
from bittern.delivery.sinks.mqtt_connection import Connection
from bittern.errors import ConfigurationError

_log = logging.getLogger("bittern")

# Between two attempts, in seconds: as long as a message may take, because the connection has its own back-off.
_RETRY_S = 10.0


class Withdrawal:
    """Empties the topics of one record, from a thread of its own, however long its broker is away.

    Attributes:
        error: why it is not done yet; "" if nothing has failed.
    """

    def __init__(self, record: Announced, memory: Memory) -> None:
        """Start; when it is done, the record is removed from the memory.

        Raises:
            ConfigurationError: the broker cannot be logged in to any more, as the password is gone.
        """
        self.error = ""
        self._record, self._memory = record, memory
        self._closing = threading.Event()
        self._connection = Connection(
            record.broker(), "bittern_withdrawal", will=None, connected=_ignore, received=_ignore
        )
        self._thread = threading.Thread(target=self._run, name="mqtt-withdrawal", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is done, within so many seconds."""
        end_s = time.monotonic() + timeout_s
        while self._thread.is_alive() and not self.error and time.monotonic() < end_s:
            self._thread.join(0.05)
        return not self._thread.is_alive() and not self.error

    def close(self) -> None:
        """Give up, if it is not done; a second call does nothing."""
        self._closing.set()
        self._connection.close(None)

    def _run(self) -> None:
        # The discovery message first: Home Assistant then removes the device, and not one state after the other.
        topics = [topic for topic in (self._record.discovery, *self._record.topics) if topic]
        while topics and not self._closing.is_set():
            try:
                self._connection.send_acknowledged(topics[0], topics[0], b"", retain=True)
            except Undelivered as error:
                self.error = error.reason
                if error.final:
                    break
                self._closing.wait(_RETRY_S)
            else:
                self.error = ""
                del topics[0]
        if not topics:
            self._memory.remove([self._record])
            _log.info("mqtt: what was announced before is withdrawn from %s", self._connection.address)
        self._connection.close(None)


class Withdrawals:
    """The withdrawals that a daemon has begun; any thread may close them."""

    def __init__(self) -> None:
        self._open: list[Withdrawal] = []

    def begin(self, records: Sequence[Announced], memory: Memory) -> None:
        """Withdraw records in the background; the log says which cannot be."""
        for record in records:
            try:
                self._open.append(Withdrawal(record, memory))
            except ConfigurationError as error:
                _log.warning("mqtt: what was announced on %s stays there: %s", record.broker().address, error)

    def close(self) -> None:
        """Give up those that are not done: the next start goes on with them."""
        for one in self._open:
            one.close()


def _ignore(*_: object) -> None:
    """A withdrawal waits for its messages, and hears nothing."""

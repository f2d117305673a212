"""A connection to an MQTT broker that reconnects for ever and reports failures in one line.

Needs paho-mqtt 2, whose own thread does the work, and a broker that speaks MQTT 5: older versions acknowledge even a
message that the broker refuses.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bittern.config import secret_file
from bittern.config.schema import MqttConfig
from bittern.delivery.sinks.base import Undelivered
from bittern.errors import ConfigurationError

try:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ImportError:  # also a paho-mqtt 1, which has no `enums`
    raise ConfigurationError("[mqtt] needs paho-mqtt 2 or later: pip install 'bittern[mqtt]'") from None

_log = logging.getLogger("bittern")

# Time limit for one message; interval of keep-alive packets (a dead peer is noticed after at most twice that); time
# limit for each step of `close`.
_TIMEOUT_S, _KEEPALIVE_S, _FAREWELL_S = 10.0, 30, 0.5
# The largest packet that is accepted, in bytes: acknowledgements and "online" are far smaller. A broker that follows
# MQTT 5 drops larger messages; from one that does not, they are not read.
_MAX_PACKET = 1024
# The longest wait between two attempts to connect: a broker that is back should not be waited for much longer.
_BACKOFF_MAX_S = 15
# Messages that may wait for their acknowledgement: normally one, more if the outbox dropped events meanwhile.
_MAX_QUEUED = 16


class Connection:
    """See the module. Any thread may call `send`, but only one `send_acknowledged`.

    Attributes:
        address: host and port.
        connections: how often it has connected.
        oversized: number of packets that were too large to be read.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        *,
        will: tuple[str, bytes] | None,
        subscribe: Sequence[str] = (),
        retained: bool = False,
        connected: Callable[[], None],
        received: Callable[[str | None, bytes], None],
    ) -> None:
        """Start to connect in the background.

        Args:
            config: broker, user and certificates.
            client_id: name in the broker's log; a random suffix is added, because two clients with the same id would
                keep disconnecting each other.
            will: topic and message that the broker retains if this process disappears without disconnecting.
            subscribe: topics to subscribe to. This client's own messages are not received.
            retained: receive what the broker has retained, too.
            connected: called at every new connection, by paho's thread.
            received: called with topic (None: not UTF-8) and payload of every message, by paho's thread.

        Raises:
            ConfigurationError: invalid user, password or certificates.
        """
        port = config.broker_port
        self.address = config.address
        self.connections = 0
        self._subscribe = subscribe
        self._retained = retained
        self._connected_callback = connected
        self._received_callback = received
        self._changed = threading.Condition()  # notified when one of the next six changes
        self._connected = False
        self._answered = False  # the broker accepted or refused this attempt
        self._failures = 0
        self._failures_reported = 0  # how many of them `send_acknowledged` has raised
        self._trouble = "no answer yet"
        self._closing = False
        self._max_packet: int | None = None  # the broker's limit, in bytes
        self._pending: tuple[str, paho.MQTTMessageInfo] | None = None
        self._refusals: dict[int, str] = {}
        self._sent: dict[int, str] = {}  # topics of `send` at QoS 1 that are not acknowledged yet
        self._refused_topics: set[str] = set()  # that the log has named
        self._last: paho.MQTTMessageInfo | None = None
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{client_id[:40]}_{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.broken = self._failed
        client.on_socket_open = _no_delay
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.reconnect_delay_set(1, _BACKOFF_MAX_S)
        client.max_queued_messages_set(_MAX_QUEUED)
        client.max_inflight_messages_set(_MAX_QUEUED)
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        if config.user:
            client.username_pw_set(config.user, _password(config.password_file))
        elif config.password_file:
            raise ConfigurationError("mqtt.password_file is set, but mqtt.user is not: set both")
        if config.tls:
            client.tls_set_context(_tls(config.ca_file))
        elif config.ca_file:
            raise ConfigurationError("mqtt.ca_file is set, but mqtt.tls is off: set tls = true")
        client.connect_later(config.host, port)
        self._client = client
        client.loop_start()

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self._connected and not self._closing

    @property
    def trouble(self) -> str:
        """Why there is no connection, in a few words."""
        return self._trouble

    @property
    def ready(self) -> bool:
        """Whether there is a connection and the last message of `send` has left: a broker may stop reading."""
        last = self._last
        return self.connected and (last is None or last.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or last.is_published())

    @property
    def oversized(self) -> int:
        """See the class."""
        return self._client.oversized

    def send_acknowledged(self, key: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message at QoS 1 and wait for its acknowledgement.

        It waits 10 s at most, and not at all if an attempt to connect has failed since the last call.

        Args:
            key: identifies the message: a retry with the same key does not send a second copy.
            topic: its topic.
            payload: the message.
            retain: whether the broker keeps it; an empty message ends that.

        Raises:
            Undelivered: it was not acknowledged (yet).
        """
        deadline = time.monotonic() + _TIMEOUT_S
        with self._changed:
            self._changed.wait_for(
                lambda: self._connected or self._closing or self._failures != self._failures_reported, _TIMEOUT_S
            )
            self._failures_reported = self._failures
            if not self.connected:
                attempted = self._pending is not None and self._pending[0] == key
                raise self._undelivered(self._trouble, unsent=not attempted)
        if self._too_large(topic, payload):
            raise self._undelivered(f"{len(payload)} bytes are more than the broker accepts", final=True)
        # After a time-out the message is still with paho, which sends it again at the next connection.
        if self._pending is not None and self._pending[0] == key:
            info = self._pending[1]
        else:
            self._refusals.clear()
            info = self._client.publish(topic, payload, qos=1, retain=retain)
            if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                raise self._undelivered(f"{_MAX_QUEUED} messages are waiting for the broker's acknowledgement")
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise self._undelivered("connection lost")
            self._pending = key, info
        while not info.is_published():
            if not self.connected:
                self._failures_reported = self._failures
                raise self._undelivered(self._trouble)
            if time.monotonic() > deadline:
                raise self._undelivered(f"no acknowledgement within {_TIMEOUT_S:g} s")
            info.wait_for_publish(0.25)
        self._pending = None
        refusal = self._refusals.pop(info.mid, None)
        if refusal is not None:
            raise self._undelivered(f"{topic}: {refusal}")

    def send(self, topic: str, payload: bytes, *, retain: bool, qos: int = 0) -> paho.MQTTMessageInfo | None:
        """Send a message, without waiting for anything.

        At QoS 0 it is lost with the connection; at QoS 1 it is sent once more then, and the log says if the broker's
        rules refuse it.

        Returns:
            What tells when it has left (QoS 0), or was acknowledged (QoS 1); None if it was not sent, because there is
            no connection, too many messages wait for their acknowledgement, or it is larger than the broker accepts.
        """
        if self._too_large(topic, payload):
            return None
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if qos:
            self._sent[info.mid] = topic
            while len(self._sent) > _MAX_QUEUED:
                del self._sent[next(iter(self._sent))]
        else:
            self._last = info
        return info if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def close(self, farewell: tuple[str, bytes] | None) -> None:
        """Disconnect, within 1.5 s, whatever the broker does. A second call does nothing.

        Args:
            farewell: topic and retained message to send first, if there is a connection.
        """
        with self._changed:
            if self._closing:
                return
            connected, self._closing = self._connected, True
            self._trouble = "closing"
            self._changed.notify_all()
        client = self._client
        if connected and farewell is not None:
            info = client.publish(*farewell, qos=1, retain=True)
            if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                info.wait_for_publish(_FAREWELL_S)
        client.disconnect()
        if not client.ended.wait(_FAREWELL_S) and (sock := client.socket()) is not None:
            sock.close()  # the broker does not read
            client.ended.wait(_FAREWELL_S)
        if client.ended.is_set():  # else it waits for a name server or a connection and ends after that
            client.loop_stop()
            client.forget()
            self._connected_callback, self._received_callback = _nothing, _nothing

    def _undelivered(self, reason: str, *, final: bool = False, unsent: bool = False) -> Undelivered:
        return Undelivered(f"{self.address}: {reason}", final=final, unsent=unsent)

    def _too_large(self, topic: str, payload: bytes) -> bool:
        """Whether the broker would close the connection because of a message (its header is 16 bytes at most)."""
        return self._max_packet is not None and len(topic.encode()) + len(payload) + 16 > self._max_packet

    def _failed(self, trouble: str) -> None:
        with self._changed:
            if self._closing:
                return
            changed = self._connected or trouble != self._trouble
            self._connected = False
            self._trouble = trouble
            self._failures += 1
            self._changed.notify_all()
        if changed:
            _log.warning("mqtt: %s: %s", self.address, trouble)

    # Called by paho's thread.

    def _on_pre_connect(self, *_: Any) -> None:
        self._answered = False

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._answered = True
        if reason.is_failure:
            self._failed(_refused(str(reason)))
            return
        self._max_packet = getattr(properties, "MaximumPacketSize", None)
        with self._changed:
            closing = self._closing
            self._connected = True
            self._changed.notify_all()
        if closing:
            client.disconnect()
            return
        self.connections += 1
        _log.info("mqtt: connected to %s", self.address)
        if self._subscribe:
            unwanted, all_of_them = SubscribeOptions.RETAIN_DO_NOT_SEND, SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
            handling = all_of_them if self._retained else unwanted
            options = SubscribeOptions(qos=0, noLocal=True, retainHandling=handling)
            client.subscribe([(topic, options) for topic in self._subscribe])
        self._connected_callback()

    def _on_connect_fail(self, *_: Any) -> None:
        # paho calls this while it handles the exception, but does not pass it on.
        self._failed(_reason(sys.exc_info()[1]))

    def _on_disconnect(self, *_: Any) -> None:
        if self._connected:
            self._failed("connection lost")
        elif not self._answered:
            self._failed("the broker closed the connection without an answer: check whether it requires TLS")

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        topic = self._sent.pop(mid, None)
        if not reason.is_failure:
            return
        if topic is None:
            if len(self._refusals) < _MAX_QUEUED:
                self._refusals[mid] = _refused(str(reason))
        elif topic not in self._refused_topics and len(self._refused_topics) < _MAX_QUEUED:
            self._refused_topics.add(topic)
            _log.warning("mqtt: %s: %s: %s", self.address, topic, _refused(str(reason)))

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic: str | None = message.topic
        except UnicodeDecodeError:
            topic = None
        self._received_callback(topic, bytes(message.payload))


class _Client(paho.Client):
    """paho's client, but nothing that a broker sends ends its thread, and it accepts no large packets."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.broken: Callable[[str], None] | None = None
        self.ended = threading.Event()
        self.oversized = 0

    def connect_later(self, host: str, port: int) -> None:
        """Make `loop_forever` start with a new connection."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = _MAX_PACKET
        self.connect_async(host, port, _KEEPALIVE_S, clean_start=True, properties=properties)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """paho's own, restarted if it fails: only `disconnect` ends it."""
        try:
            while True:
                try:
                    return super().loop_forever(timeout, retry_first_connection)
                except Exception as error:  # such as a host name that cannot be encoded
                    if self.broken is not None:
                        self.broken(_reason(error))
                    time.sleep(1.0)
                    self.connect_later(self.host, self.port)
        finally:
            self.ended.set()

    def forget(self) -> None:
        """Drop all callbacks, so that the last reference to this client, and with it the last sockets, can go."""
        self.broken = None
        for kind in ("pre_connect", "connect", "connect_fail", "disconnect", "publish", "message"):
            setattr(self, f"on_{kind}", None)

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho would read and keep the whole packet, up to 256 MB.
        if bufsize > _MAX_PACKET:
            self.oversized += 1
            raise ConnectionError(f"a packet of {bufsize} bytes")
        return super()._sock_recv(bufsize)


def _no_delay(_client: Any, _data: Any, sock: Any) -> None:
    """Send small packets at once: after an event, each of several waited 40 ms for the answer to the previous one."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _nothing(*_: object) -> None:
    """The callbacks of a closed connection."""


def _password(file: str) -> str | None:
    if not file:
        return None
    try:
        return secret_file.first_line(file, "mqtt.password_file", "the password").decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"mqtt.password_file: {file}: expected text in UTF-8") from None


class _Socket(ssl.SSLSocket):
    """One that paho need not close: it leaves a socket open whose handshake has failed."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls(ca_file: str) -> ssl.SSLContext:
    text = secret_file.certificates(ca_file, "mqtt.ca_file") if ca_file else None
    try:
        if text == "":  # for which the system's would be taken
            raise ssl.SSLError
        context = ssl.create_default_context(cadata=text)
    except ssl.SSLError:
        raise ConfigurationError(f"mqtt.ca_file: {ca_file}: expected certificates in PEM format") from None
    context.sslsocket_class = _Socket
    return context


def _refused(reason: str) -> str:
    """Explain a reason code of MQTT 5 to a user."""
    if reason in ("Not authorized", "Bad user name or password"):
        return "not authorised: check user and password_file, and the topics that the broker lets this user write"
    if reason == "Unsupported protocol version":
        return "the broker does not speak MQTT 5 (mosquitto does since 1.6)"
    return reason.lower()


def _reason(error: BaseException | None) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__

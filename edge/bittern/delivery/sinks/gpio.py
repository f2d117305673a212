"""The sink `[gpio]`: a GPIO pin that is on while an alarm is on. Needs gpiozero and a pin library (Debian's lgpio)."""

from __future__ import annotations

import logging
import warnings

from bittern.config.schema import GpioConfig
from bittern.delivery.sinks.base import Sink, Undelivered
from bittern.errors import ConfigurationError, one_line
from bittern.events import Event

try:
    import gpiozero
except ImportError:
    raise ConfigurationError("[gpio] needs gpiozero: sudo apt install python3-gpiozero python3-lgpio") from None


_log = logging.getLogger("bittern")


class GpioSink(Sink):
    """See the module. An event `state: started` switches the pin off: a new process starts with all alarms off."""

    name = "gpio"
    durable = False

    def __init__(self, config: GpioConfig) -> None:
        """Open the pin and switch it off.

        Raises:
            ConfigurationError: there is no such pin, it is in use, or access is denied.
        """
        self._config = config
        self._on: set[tuple[str | None, str | None, str | None]] = set()
        try:
            with warnings.catch_warnings():
                # gpiozero warns of every library that it could not load; the relevant error comes last.
                warnings.simplefilter("ignore")
                self._pin = gpiozero.DigitalOutputDevice(config.pin, active_high=config.active_high)
        except Exception as error:  # each pin library raises errors of its own
            raise ConfigurationError(f"gpio.pin {config.pin}: {_reason(error)}") from None

    def deliver(self, event: Event, body: bytes) -> str:
        """See `Sink.deliver`."""
        alarm = event.model, event.task, event.label
        if event.type == "alarm.on" and self._config.label in (None, event.label):
            self._on.add(alarm)
        elif event.type == "alarm.off":
            self._on.discard(alarm)
        elif event.type == "state" and event.state == "started":
            self._on.clear()
        try:
            self._pin.value = bool(self._on)
        except Exception as error:
            raise Undelivered(f"pin {self._config.pin}: {_reason(error)}") from None
        return f"pin {self._config.pin} is {'on' if self._on else 'off'}"

    def close(self) -> None:
        """Switch the pin off and release it."""
        if not self._pin.closed:
            try:
                self._pin.off()
            except Exception as error:
                _log.warning("gpio: pin %s: %s", self._config.pin, _reason(error))
            finally:
                self._pin.close()


def _reason(error: Exception) -> str:
    if isinstance(error, gpiozero.BadPinFactory):
        return "no pins on this machine, or no library for them: sudo apt install python3-lgpio, and join group gpio"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}: is the user in group gpio?"
    return one_line(error)

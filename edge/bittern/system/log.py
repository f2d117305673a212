"""The log: `logging`, one line on stderr for each record."""

from __future__ import annotations

import logging

from bittern.system import stderr


class LineHandler(logging.Handler):
    """Writes every record as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `stderr.write_line`."""
        try:
            text = self.format(record)
        except Exception as error:  # a wrong placeholder must not end a thread
            text = f"bittern: {record.msg}: {error}"
        stderr.write_line(text)


def begin(level: int) -> None:
    """Begin to log.

    Args:
        level: the lowest level that is written.
    """
    logging.basicConfig(format="bittern: %(message)s", level=level, handlers=[LineHandler()])

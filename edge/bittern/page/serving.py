"""`bittern serve` as a whole: workers, the HTTP interface, the page, the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bittern.errors import BitternError
from bittern.page import address as addresses
from bittern.page.address import Address
from bittern.page.api import Interface
from bittern.page.app import application
from bittern.page.server import PageServer, Site
from bittern.page.workers import WorkerPool


@contextmanager
def opened(options: dict[str, Any], address: Address, data: Path) -> Iterator[Site]:
    """Open the models and listen.

    Args:
        options: of the models, see `WorkerPool`.
        address: where to listen.
        data: the folder of token, history and sets.

    Raises:
        BitternError: a model is refused, the address cannot be had, or there is no token where one is needed.
    """
    access = addresses.access_of(address, data)
    pool = WorkerPool(options)

    async def start() -> PageServer:
        await pool.start()
        try:
            interface = Interface(pool, data)
        except OSError as error:
            raise BitternError(f"{data}: cannot keep a history there ({error.strerror})") from None
        return PageServer(application(interface.routes(), "page.html"), address, access)

    with addresses.listen(address) as listener, asyncio.Runner() as runner:
        try:
            yield Site(addresses.url_of(listener), runner, runner.run(start()), listener)
        finally:
            runner.run(pool.close())

"""The page of `bittern data label` as a whole: workers, routes, the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bittern.page import address as addresses
from bittern.page.address import Address
from bittern.page.app import application
from bittern.page.label_api import LabelInterface
from bittern.page.labelling import Labelling
from bittern.page.server import PageServer, Site
from bittern.page.workers import WorkerPool


@contextmanager
def opened(
    labelling: Labelling, model: dict[str, Any], labels: tuple[str, ...], address: Address, data: Path
) -> Iterator[Site]:
    """Listen for the page of a session of labelling.

    Args:
        labelling: the session.
        model: of the suggestions, see `WorkerPool`; its "models" may be empty.
        labels: offered from the start.
        address: where to listen.
        data: the folder of the token.

    Raises:
        BitternError: see `serving.opened`.
    """
    access = addresses.access_of(address, data)
    pool, background = WorkerPool({"models": []}), WorkerPool(model | {"nice": 10}, 1)

    async def start() -> tuple[LabelInterface, PageServer]:
        await background.start()
        interface = LabelInterface(labelling, pool, background, labels)
        interface.start()
        return interface, PageServer(application(interface.routes(), "label.html"), address, access)

    async def close() -> None:
        await pool.close()
        await background.close()

    with addresses.listen(address) as listener, asyncio.Runner() as runner:
        try:
            interface, page_server = runner.run(start())
            try:
                yield Site(addresses.url_of(listener), runner, page_server, listener)
            finally:
                runner.run(interface.close())
        finally:
            runner.run(close())

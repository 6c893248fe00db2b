"""
Certificates of this node that the control plane has made anew: shown from the next connection on.

They are renewed while the node runs, when their end comes near or when the clock was set; an
event of the folder says so.
"""

import asyncio
import logging
import ssl
from pathlib import Path

from node.kubelet.inotify import MOVED_TO, Watch

_log = logging.getLogger(__name__)


class Renewal:
    """Its mutable state: what shows which certificate, by the name of its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: dict[str, ssl.SSLContext] = {}

    def keep(self, name: str, context: ssl.SSLContext) -> None:
        """``name``.crt and ``name``.key of the folder are loaded into it when they change."""
        self._contexts[name] = context

    async def run(self) -> None:
        try:
            with Watch() as watch:
                watch.add(self._folder, MOVED_TO)
                while True:
                    for happened in await watch.wait():
                        await self._load(happened.name)
        except OSError as err:
            _log.warning("%s is not followed: %s", self._folder, err.strerror)

    async def _load(self, file: str) -> None:
        name = file.removesuffix(".crt")
        context = self._contexts.get(name)
        if context is None or name == file:
            return
        pair = self._folder / file, self._folder / f"{name}.key"
        try:
            await asyncio.to_thread(context.load_cert_chain, *pair)
        except (OSError, ssl.SSLError) as err:
            _log.warning("%s cannot be used: %s", pair[0], err)
        else:
            _log.info("the certificate %s was renewed", name)

"""
Certificates are made again while the server runs: before they end, when the clock was set, and
when the machine has another address (:mod:`controlplane.addresses`).

There is one timer, weeks away, and messages of the kernel; what is shown to others takes the
new files into the TLS contexts that exist, for the connections to come.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from controlplane.config import Config
from controlplane.pki.ensure import ensure_pki
from controlplane.pki.files import PkiError

LOG = logging.getLogger(__name__)
_AT_LEAST_EVERY = timedelta(days=20)  # leaves are renewed 120 days before they end

Shown = tuple[ssl.SSLContext, tuple[Path, Path]]  # and the files of its certificate and key


class Renewer:
    """Its mutable state is the wish to look now."""

    def __init__(
        self, config: Callable[[], Config], now: Callable[[], datetime], shown: Sequence[Shown]
    ) -> None:
        self._config, self._now, self._shown = config, now, tuple(shown)
        self._wish = asyncio.Event()

    def look(self) -> None:
        self._wish.set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wish.wait(), _AT_LEAST_EVERY.total_seconds())
            self._wish.clear()
            try:
                await asyncio.to_thread(self._renew)
            except (OSError, PkiError, ssl.SSLError) as err:
                LOG.warning("certificates were not renewed: %s", err)

    def _renew(self) -> None:
        for warning in ensure_pki(self._config(), self._now(), in_use=True).warnings:
            LOG.warning("%s", warning)
        for context, (certificate, key) in self._shown:
            context.load_cert_chain(certificate, key)

"""Events about claims, volumes and snapshots: no warning twice in a row."""

import logging
from collections.abc import Callable
from datetime import datetime

from operators import events
from operators.client import ApiError, Client
from operators.localpath.base import Object

LOG = logging.getLogger(__name__)
_REMEMBERED = 256


class Teller:
    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._said: dict[str, tuple[str, str]] = {}  # uid → reason and message of the last one

    def time(self) -> str:
        """RFC 3339."""
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    async def normal(self, about: Object, reason: str, message: str) -> None:
        await self._say(about, reason, message, warning=False)

    async def warn(self, about: Object, reason: str, message: str) -> None:
        uid = about["metadata"]["uid"]
        if self._said.get(uid) == (reason, message):
            return
        if len(self._said) >= _REMEMBERED:
            self._said.pop(next(iter(self._said)))
        self._said[uid] = (reason, message)
        await self._say(about, reason, message, warning=True)

    async def _say(self, about: Object, reason: str, message: str, *, warning: bool) -> None:
        scoped = "namespace" in about["metadata"]
        # Events of what has no namespace are kept in "default", and name none.
        body = about if scoped else {**about, "metadata": {**about["metadata"], **_DEFAULT}}
        told = events.event(body, warning=warning, reason=reason, message=message, now=self.time())
        if not scoped:
            del told["involvedObject"]["namespace"]
        try:
            await self._client.create(events.path(body), told)
        except ApiError as err:
            LOG.debug("event %s: %s", reason, err)


_DEFAULT = {"namespace": "default"}

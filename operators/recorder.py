"""
Writes Events, best effort; repeats are counted up in the Event that is there.

An attempt that fails again and again would otherwise fill what ``kubectl describe`` shows.
Names are in the order of time, as client-go's are: kubectl keeps that order within a second.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from operators import events
from operators.client import ApiError, Client

LOG = logging.getLogger(__name__)
_REMEMBERED = 256  # the oldest are forgotten first; a repeat then begins anew


@dataclass(slots=True)
class _Written:
    path: str
    count: int


class Recorder:
    """``now`` is the time of day, aware of its zone."""

    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._written: OrderedDict[tuple[str, ...], _Written] = OrderedDict()
        self._serial = 0

    async def say(
        self, about: Mapping[str, Any], reason: str, message: str, *, warning: bool = False
    ) -> None:
        """``about``: an object with apiVersion and kind. Whatever the API says is no error."""
        key = (about["kind"], about["metadata"]["uid"], str(warning), reason, message)
        try:
            if not await self._count_up(key):
                await self._create(key, about)
        except ApiError as err:
            # An event is a courtesy: a namespace that is going away refuses it.
            LOG.debug("event %s: %s", reason, err)

    async def _count_up(self, key: tuple[str, ...]) -> bool:
        written = self._written.get(key)
        if written is None:
            return False
        patch = {"count": written.count + 1, "lastTimestamp": _stamp(self._now())}
        try:
            await self._client.merge(written.path, patch)
        except ApiError as err:
            if err.code not in (403, 404):  # its time to live is over, or patches are not allowed
                raise
            del self._written[key]
            return False
        written.count += 1
        self._written.move_to_end(key)
        return True

    async def _create(self, key: tuple[str, ...], about: Mapping[str, Any]) -> None:
        *_, warning, reason, message = key
        now = self._now()
        self._serial = (self._serial + 1) % 0x1000
        unique = f"{int(now.timestamp() * 1_000_000) << 12 | self._serial:x}"
        body = events.event(
            about,
            name=f"{about['metadata']['name']}.{unique}",
            warning=warning == str(True),
            reason=reason,
            message=message,
            now=_stamp(now),
        )
        path = events.path(about)
        await self._client.create(path, body)
        self._written[key] = _Written(f"{path}/{body['metadata']['name']}", 1)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)


def _stamp(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")

"""
What a listing lacks has gone.

kopf tells of what was deleted only while it watches. After a gap it lists anew, one object after
the other and without an end; so a listing is over when nothing more of it came for a while.
"""

import asyncio
from collections.abc import Callable

LISTING_SECONDS = 5.0


class Sweep:
    """Of one kind. ``ended`` is called with the keys that are there, after each listing."""

    def __init__(self, ended: Callable[[set[str]], None]) -> None:
        self._ended = ended
        self._timer: asyncio.TimerHandle | None = None
        self._keys: set[str] = set()

    def seen(self, key: str, *, listed: bool) -> None:
        """``listed``: ``key`` came in a listing; otherwise in a watch, and is there too."""
        if listed:
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(LISTING_SECONDS, self._end)
        if self._timer:
            self._keys.add(key)

    def _end(self) -> None:
        keys, self._keys, self._timer = self._keys, set(), None
        self._ended(keys)

"""Events about claims, volumes and snapshots: no warning twice in a row."""

from collections.abc import Callable
from datetime import datetime

from operators.client import Client
from operators.localpath.base import Object
from operators.recorder import Recorder

_REMEMBERED = 256


class Teller:
    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._recorder = Recorder(client, now)
        self._now = now
        self._said: dict[str, tuple[str, str]] = {}  # uid → reason and message of the last one

    def time(self) -> str:
        """RFC 3339."""
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    async def normal(self, about: Object, reason: str, message: str) -> None:
        await self._recorder.say(about, reason, message)

    async def warn(self, about: Object, reason: str, message: str) -> None:
        uid = about["metadata"]["uid"]
        if self._said.get(uid) == (reason, message):
            return
        if len(self._said) >= _REMEMBERED:
            self._said.pop(next(iter(self._said)))
        self._said[uid] = (reason, message)
        await self._recorder.say(about, reason, message, warning=True)

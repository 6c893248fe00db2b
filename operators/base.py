"""
What every operator is to the process it runs in.

``operators/<name>/run.py`` has ``operator(parts) -> Operator``; :mod:`operators.run` imports
those it was told to run, and no other, and joins them to one kopf and one event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from operators.client import Client
from operators.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    config: Config
    client: Client
    now: Callable[[], datetime]  # the time of day, UTC, with tzinfo
    clock: Callable[[], float]  # seconds, for back-off and time limits


class Operator(Protocol):
    def register(self, registry: Any) -> None:
        """
        Add kopf's handlers: coroutines that note what they see and put a key into a queue.

        None of kopf's handlers that write to the object (timers, daemons, create, update).
        Called again with another registry when the watches begin anew, while :meth:`run` goes on.
        """
        ...

    async def run(self) -> None:
        """
        Work until cancelled. What the operator has set up in the kernel may stay.

        Whatever is raised ends this operator alone: another one is made in its place.
        """
        ...

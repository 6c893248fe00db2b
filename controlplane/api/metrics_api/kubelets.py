"""
What the nodes use, from their kubelets: asked for side by side, and kept for some seconds.

The first question after a while takes a second longer: a rate needs two samples.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp
import orjson

from controlplane.api import targets
from controlplane.api.call import Parts
from controlplane.api.metrics_api.sample import Measured, Sample, between, read
from controlplane.objects.errors import StatusError

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0  # an answer is given again for so long
SHORTEST_SECONDS = 1.0  # of a window
LONGEST_SECONDS = 60.0  # what was used longer ago says nothing about now
PATIENCE_SECONDS = 5.0  # with one kubelet
_REFUSED = (aiohttp.ClientError, OSError, StatusError, KeyError, TypeError, ValueError)


@dataclass(slots=True)
class _Node:
    """Where the lock is free, what is known of a node."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    last: Sample | None = None
    found: "tuple[datetime, Measured] | None" = None


class Kubelets:
    """Its mutable state is the last sample of each node that was asked about."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._nodes: dict[str, _Node] = {}

    def forget(self, present: Iterable[str]) -> None:
        """All nodes but these are gone."""
        for name in self._nodes.keys() - set(present):
            del self._nodes[name]

    async def measure(self, names: Iterable[str]) -> Mapping[str, tuple[datetime, Measured]]:
        """By node; those whose kubelet does not answer are missing."""
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._measure(name)) for name in names}
        results = {name: task.result() for name, task in asked.items()}
        return {name: found for name, found in results.items() if found is not None}

    async def _measure(self, name: str) -> tuple[datetime, Measured] | None:
        node = self._nodes.setdefault(name, _Node())
        async with node.lock:
            age = asyncio.get_running_loop().time() - (node.last.at if node.last else 0)
            if node.last is not None and node.found is not None and age < FRESH_SECONDS:
                return node.found
            if age > LONGEST_SECONDS:
                node.last = None
            try:
                async with asyncio.timeout(PATIENCE_SECONDS + SHORTEST_SECONDS):
                    node.found = await self._compare(name, node)
            except (TimeoutError, *_REFUSED) as err:
                log.info("no metrics of node %s: %r", name, err)
                node.found = None
            return node.found

    async def _compare(self, name: str, node: _Node) -> tuple[datetime, Measured]:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            first = node.last or await self._sample(session, name)
            await asyncio.sleep(max(0.0, first.at + SHORTEST_SECONDS - loop.time()))
            node.last = await self._sample(session, name)
        return self._parts().clock(), between(first, node.last)

    async def _sample(self, session: aiohttp.ClientSession, name: str) -> Sample:
        parts, loop = self._parts(), asyncio.get_running_loop()
        target = targets.kubelet_of(parts, name)
        tls = parts.kubelet_tls if target.scheme == "https" else None
        began = loop.time()
        url = f"{target.origin}/stats/summary?only_cpu_and_memory=true"
        async with session.get(url, ssl=tls if tls is not None else True) as answer:
            answer.raise_for_status()
            body = await answer.read()
        return read(orjson.loads(body), (began + loop.time()) / 2)

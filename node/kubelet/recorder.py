"""
Events about pods and the node: sent in the background, repeated ones counted up.

A bounded queue that drops when full: an event is a courtesy and must never hold up a pod.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from controlplane.client.base import Client, Object, Unreachable
from controlplane.objects import meta
from controlplane.objects.errors import StatusError
from node.kubelet.base import EVENTS, Clock

_log = logging.getLogger(__name__)
_MOST, _REMEMBERED = 1000, 512
Identity = tuple[str, ...]


class EventRecorder:
    """Its mutable state: what waits to be sent, and the recent events by what they say."""

    def __init__(self, client: Client, node_name: str, clock: Clock) -> None:
        self._client = client
        self._node = node_name
        self._clock = clock
        self._queue: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue(_MOST)
        self._known: OrderedDict[Identity, tuple[str, int]] = OrderedDict()  # → name, count

    def record(self, about: Object, type: str, reason: str, message: str) -> None:  # noqa: A002
        try:
            self._queue.put_nowait((about, type, reason, message[:1024]))
        except asyncio.QueueFull:
            _log.warning("event dropped: %s: %s", reason, message)

    async def run(self) -> None:
        while True:
            about, type_, reason, message = await self._queue.get()
            try:
                await self._send(about, type_, reason, message)
            except (StatusError, Unreachable) as err:
                _log.debug("event %s not sent: %s", reason, err)
            except Exception:
                _log.exception("event %s", reason)

    async def _send(self, about: Object, type_: str, reason: str, message: str) -> None:
        involved = _reference(about)
        key = (*map(str, involved.values()), type_, reason, message)
        now = meta.rfc3339(self._clock())
        namespace = involved.get("namespace") or "default"
        if key in self._known:
            name, count = self._known[key]
            body = {"count": count + 1, "lastTimestamp": now}
            try:
                await self._client.patch(EVENTS, namespace, name, body=body)
            except StatusError as err:
                if err.code != 404:
                    raise
                del self._known[key]  # expired: the next one is new
            else:
                self._known[key] = name, count + 1
                self._known.move_to_end(key)
                return
        await self._create(key, involved, (type_, reason, message), now)

    async def _create(
        self, key: Identity, involved: Mapping[str, Any], said: tuple[str, str, str], now: str
    ) -> None:
        type_, reason, message = said
        seed = f"{self._clock().timestamp()}{key}".encode()
        name = f"{involved['name']}.{hashlib.sha256(seed).hexdigest()[:16]}"
        namespace = involved.get("namespace") or "default"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": type_,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._client.create(EVENTS, body)
        self._known[key] = name, 1
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _reference(about: Object) -> dict[str, Any]:
    found = about["metadata"]
    out = {
        "kind": about.get("kind") or ("Pod" if "namespace" in found else "Node"),
        "apiVersion": about.get("apiVersion") or "v1",
        "namespace": found.get("namespace", ""),
        "name": found["name"],
        "uid": found.get("uid", ""),
        "resourceVersion": ""
        if found.get("namespace") is None
        else found.get("resourceVersion", ""),
        "fieldPath": about.get("fieldPath", ""),
    }
    out.pop("resourceVersion")  # it would make every event its own kind
    return {key: value for key, value in out.items() if value}

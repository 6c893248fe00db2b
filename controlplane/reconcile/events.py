"""
Events about objects, written best effort: nobody waits for them, nothing fails with them.

Repeats are counted up in the Event that is there; many alike with differing texts
become one "combined from similar events"; an object that causes too many is silenced for a
while. The limits are those of client-go's correlator (tools/record, EventCorrelator).
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.client.base import Client, Object, Unreachable
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import rfc3339
from controlplane.objects.resources import EVENTS
from controlplane.reconcile.base import Record
from controlplane.reconcile.clock import Clock

log = logging.getLogger(__name__)

KEPT = 1024  # distinct events remembered, the oldest forgotten first
WAITING = 1000  # events not written yet; more are dropped
SIMILAR = 10  # differing texts in one window before they are combined
WINDOW = 600.0  # seconds
BURST = 25  # events of one source about one object at once
REFILL = 1 / 300  # events a second after that


@dataclass(slots=True)
class _Seen:
    name: str  # of the Event object; "": not created yet
    namespace: str
    count: int
    first: str


@dataclass(slots=True)
class _Group:
    """Events alike in all but their text."""

    since: float
    texts: set[str]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Recorder:
    """
    Correlates and writes Events of any number of sources.

    ``spawn`` starts a task in the owner's TaskGroup; there is a task only while
    something waits to be written.
    """

    def __init__(
        self, client: Client, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._client = client
        self._clock = clock
        self._spawn = spawn
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._groups: OrderedDict[tuple[str, ...], _Group] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._waiting: deque[tuple[str, Record]] = deque()
        self._writing = False
        self._serial = 0
        self.dropped = 0  # for metrics

    def record(self, source: str, record: Record) -> None:
        """Queue an Event; returns at once."""
        if len(self._waiting) >= WAITING:
            self.dropped += 1
            return
        self._waiting.append((source, record))
        if not self._writing:
            self._writing = True
            self._spawn(self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                source, record = self._waiting.popleft()
                try:
                    await self._write(source, record)
                except (StatusError, Unreachable) as err:
                    log.debug("event %s not written: %s", record.reason, err)
                except Exception:  # an Event is never worth stopping for
                    log.exception("event %s not written", record.reason)
        finally:
            self._writing = False

    async def _write(self, source: str, record: Record) -> None:
        about = reference(record.about)
        subject = (source, *about.values())
        if not self._allowed(subject):
            self.dropped += 1
            return
        alike = (*subject, record.type, record.reason)
        message = record.message[:1024]
        key = (*alike, message)
        if self._is_one_of_many(alike, message):
            message = f"(combined from similar events): {message}"[:1024]
            key = alike
        now = self._clock.now()
        seen = self._seen.get(key)
        if seen is not None and await self._count_up(seen, message, now):
            self._seen.move_to_end(key)
            return
        body = self._event(source, record, message, now)
        await self._client.create(EVENTS, body)
        meta = body["metadata"]
        self._seen[key] = _Seen(meta["name"], meta["namespace"], 1, body["firstTimestamp"])
        _forget_oldest(self._seen)

    async def _count_up(self, seen: _Seen, message: str, now: datetime) -> bool:
        body = {"count": seen.count + 1, "lastTimestamp": rfc3339(now), "message": message}
        try:
            await self._client.patch(EVENTS, seen.namespace, seen.name, body=body)
        except StatusError as err:
            if err.code == 404:  # its time to live is over
                return False
            raise
        seen.count += 1
        return True

    def _is_one_of_many(self, alike: tuple[str, ...], message: str) -> bool:
        now = self._clock.monotonic()
        group = self._groups.get(alike)
        if group is None or now - group.since > WINDOW:
            group = self._groups[alike] = _Group(now, set())
            _forget_oldest(self._groups)
        group.texts.add(message)
        if len(group.texts) > SIMILAR:
            group.texts.pop()  # enough to know there are many
            group.texts.add(message)
            return True
        return False

    def _allowed(self, subject: tuple[str, ...]) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.get(subject)
        if bucket is None:
            bucket = self._buckets[subject] = _Bucket(BURST, now)
            _forget_oldest(self._buckets)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) * REFILL)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _event(self, source: str, record: Record, message: str, now: datetime) -> dict[str, Any]:
        about = reference(record.about)
        # A serial number after the time: two events of one instant need two names.
        self._serial = (self._serial + 1) % 0x1000
        unique = f"{int(now.timestamp() * 1_000_000) << 12 | self._serial:x}"
        at = rfc3339(now)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about['name']}.{unique}",
                "namespace": about["namespace"] or "default",
            },
            "involvedObject": {key: value for key, value in about.items() if value},
            "reason": record.reason,
            "message": message,
            "source": {"component": source},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "type": record.type,
            "eventTime": None,
            "reportingComponent": source,
            "reportingInstance": "",
        }


def reference(about: Object) -> dict[str, str]:
    """The ObjectReference to an object; values are empty where it has none."""
    meta = about.get("metadata", {})
    return {
        "kind": about.get("kind", ""),
        "namespace": meta.get("namespace", ""),
        "name": meta.get("name", ""),
        "uid": meta.get("uid", ""),
        "apiVersion": about.get("apiVersion", ""),
    }


def _forget_oldest(memory: OrderedDict[Any, Any]) -> None:
    if len(memory) > KEPT:
        memory.popitem(last=False)

"""
WATCH: the changes after a revision, as a selector sees them.

An object that begins to match a selector is ADDED and one that stops is DELETED,
whatever happened to the object itself. A watch without a resourceVersion begins
with everything that exists; one that asks for ``sendInitialEvents`` learns from a
bookmark when that is over (KEP-3157). Bookmarks are sent every few minutes and
before the end only, and only where something happened meanwhile.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass

import orjson

from controlplane.api.cache import deleted_data
from controlplane.api.call import Call, Parts, as_bool
from controlplane.api.history import Occurrence, Watcher
from controlplane.api.present import present
from controlplane.api.read import fresh, number, revision_of
from controlplane.api.selection import Matcher
from controlplane.objects.errors import (
    StatusError,
    expired,
    forbidden_field,
    invalid,
)

BOOKMARK_SECONDS = 300.0
_SHORTEST_SECONDS = 1800.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"

ADDED, MODIFIED, DELETED, BOOKMARK, ERROR = b"ADDED", b"MODIFIED", b"DELETED", b"BOOKMARK", b"ERROR"
Told = tuple[bytes, bytes]  # the type of an event, the bytes of its object


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    resource_version: str = ""
    bookmarks: bool = False
    initial: bool | None = None  # sendInitialEvents
    seconds: float = 0.0  # 0: as long as the server likes


def watch_options(query: Mapping[str, str]) -> WatchOptions:
    """422 for what KEP-3157 forbids."""
    initial = query.get("sendInitialEvents")
    match = query.get("resourceVersionMatch", "")
    why = ""
    if initial is None and match:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    elif initial is not None and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    if why:
        field = "resourceVersionMatch"
        raise invalid("ListOptions.meta.k8s.io", "", [forbidden_field(field, why)])
    return WatchOptions(
        resource_version=query.get("resourceVersion", ""),
        bookmarks=as_bool(query.get("allowWatchBookmarks", "false")),
        initial=None if initial is None else as_bool(initial),
        seconds=float(number(query, "timeoutSeconds")),
    )


async def watch(
    parts: Parts, call: Call, matcher: Matcher, options: WatchOptions
) -> AsyncGenerator[list[Told], None]:
    """
    Batches of what the client is to be told; ends at the timeout or when the kind goes away.

    The first batch comes at once, even if empty, so that headers can be sent.
    """
    key = call.kind.storage_key
    watcher = parts.cache.watch(key)
    try:
        try:
            first, revision = await _beginning(parts, call, matcher, options)
        except StatusError as error:
            if error.code != 410:
                raise
            yield [(ERROR, orjson.dumps(error.body()))]
            return
        yield first
        stream = _Stream(parts, call, matcher)
        stream.sent = revision
        async for batch in stream.run(watcher, options):
            yield batch
    finally:
        parts.cache.unwatch(key, watcher)


async def _beginning(
    parts: Parts, call: Call, matcher: Matcher, options: WatchOptions
) -> tuple[list[Told], int]:
    """What is told before the first change, and the revision that it stands for."""
    cache = parts.cache
    asked = revision_of(options.resource_version or "0")
    if options.initial or (options.initial is None and asked == 0):
        if options.initial and asked:
            await fresh(parts, asked)
        found = [entry for entry in cache.span(_prefix(call)) if matcher.matches(entry)]
        revision = cache.revision
        data = await present(parts, call.kind, [entry.data for entry in found])
        told = [(ADDED, item) for item in data]
        if options.initial and options.bookmarks:
            told.append((BOOKMARK, bookmark(call, revision, ended=True)))
        return told, revision
    if asked == 0:
        return [], cache.revision
    line = cache.bucket(call.kind.storage_key).line
    if asked < line.floor:
        raise expired(f"too old resource version: {asked} ({line.floor})")
    stream = _Stream(parts, call, matcher)
    stream.sent = asked
    missed = await stream.tell(line.since(asked))
    return missed, max(asked, stream.sent)


def _prefix(call: Call) -> str:
    return call.kind.prefix(call.namespace if call.kind.namespaced else "")


def bookmark(call: Call, revision: int, *, ended: bool = False) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if ended:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    kind = call.kind
    return orjson.dumps({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata})


class _Stream:
    """Its mutable state is ``sent``: the revision up to which the client knows all."""

    __slots__ = ("_call", "_matcher", "_parts", "sent")

    def __init__(self, parts: Parts, call: Call, matcher: Matcher) -> None:
        self._parts = parts
        self._call = call
        self._matcher = matcher
        self.sent = 0

    async def run(
        self, watcher: Watcher, options: WatchOptions
    ) -> AsyncGenerator[list[Told], None]:
        now = asyncio.get_running_loop().time
        seconds = options.seconds or _SHORTEST_SECONDS * (1 + random.random())  # noqa: S311 - spreads reconnects
        end = now() + seconds
        mark = now() + BOOKMARK_SECONDS if options.bookmarks else end
        while True:
            occurrences = await watcher.wait(max(0.0, min(mark, end) - now()))
            told = await self.tell(occurrences)
            if told:
                yield told
            if watcher.ended:
                return
            if now() >= min(mark, end):
                progress = self._parts.cache.revision
                if options.bookmarks and not watcher.pending and progress > self.sent:
                    self.sent = progress
                    yield [(BOOKMARK, bookmark(self._call, progress))]
                if now() >= end:
                    return
                mark = now() + BOOKMARK_SECONDS

    async def tell(self, occurrences: Iterable[Occurrence]) -> list[Told]:
        told: list[Told] = []
        for occurrence in occurrences:
            if occurrence.revision > self.sent:
                self.sent = occurrence.revision
                event = self._seen(occurrence)
                if event is not None:
                    told.append(event)
        if not told:
            return told
        data = await present(self._parts, self._call.kind, [item for _, item in told])
        return [(type_, item) for (type_, _), item in zip(told, data, strict=True)]

    def _seen(self, occurrence: Occurrence) -> Told | None:
        matches = self._matcher.matches
        old, new = occurrence.old, occurrence.new
        was = old is not None and matches(old)
        if new is not None and matches(new):
            return (MODIFIED if was else ADDED), new.data
        if was and old is not None:
            return DELETED, deleted_data(old, occurrence.revision)
        return None
